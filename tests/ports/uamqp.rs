//! uamqp's `SendClient`, `ReceiveClient` and `mgmt_request`, as its documentation uses them, and what its package does not do of that.

use std::time::Duration;

use leveret::amqp::FieldValue;
use leveret::messaging::{
    Client, Disposition, Message, Modify, RequestError, RetryDecision, RetryPolicy, SendState, Source, Status, Target,
};

use crate::{Server, prepared, take, within};

on_every_server! {
    /// ```python
    /// with SendClient("amqps://amqp.example.com/myqueue", auth=auth) as client:
    ///     for i in range(10):
    ///         client.queue_message(Message(f"Message {i}"))
    ///     results = client.send_all_messages()
    /// ```
    async fn u1_u10_u11_u13_u14_queue_and_send_all(server: Server) {
        let channel = prepared(server, "myqueue").await;
        let client = Client::builder(&server.url).unwrap().lazy().unwrap();
        let sender = client.sender().build().unwrap();
        let target = Target::queue("myqueue");
        for number in 0..10 {
            let pending = within("room", sender.send_pipelined(&target, format!("Message {number}"))).await.unwrap();
            drop(pending);
        }
        let results = within("results", sender.flush()).await;
        assert_eq!(results.len(), 10);
        assert!(results.is_ok() && sender.in_flight() == 0);
        for number in 0..10 {
            assert_eq!(take(&channel, "myqueue").await.body(), format!("Message {number}").as_bytes());
        }
        assert!(within("closing", client.close()).await.is_clean());
    }

    /// ```python
    /// messages = [Message(f"Message {i}") for i in range(3)]
    /// results = client.send_message_batch(messages)          # which uamqp does not have
    /// ```
    async fn u12_u15_u19_a_batch_has_a_result_for_each(server: Server) {
        prepared(server, "myqueue").await;
        let client = within("a connection", Client::connect(&server.url)).await.unwrap();
        let sender = client.sender().build().unwrap();
        let batch = ["myqueue", "nowhere", "myqueue"].map(|queue| (Target::queue(queue), "x"));
        let report = within("a report", sender.send_batch(batch)).await;
        assert_eq!(report.failed().map(|(at, error)| (at, error.reply_code().unwrap().0)).collect::<Vec<_>>(), [(1, 312)]);

        // on_send_complete: the future is the callback.
        let pending = within("room", sender.send_pipelined(Target::queue("myqueue"), "y")).await.unwrap();
        assert!(matches!(pending.state(), SendState::Written | SendState::Settled));
        let (result, completed) = tokio::sync::oneshot::channel();
        tokio::spawn(async move { result.send(pending.await.map(|receipt| receipt.status)) });
        assert_eq!(within("the callback", completed).await.unwrap().unwrap(), Status::Accepted);
    }

    /// ```python
    /// policy = ErrorPolicy(max_retries=3, on_error=ErrorAction(retry=True, backoff=2.0))
    /// client = SendClient(target, auth=auth, error_policy=policy, msg_timeout=…)
    /// ```
    async fn u16_u17_an_error_policy_that_is_asked(server: Server) {
        let channel = prepared(server, "myqueue").await;
        let client = within("a connection", Client::connect(&server.url)).await.unwrap();
        let policy =
            RetryPolicy::default().max_retries(5000).classify(|error| match error.reply_code().map(|code| code.0) {
                Some(312) => RetryDecision::RetryAfter(Duration::from_millis(5)),
                _ => RetryDecision::Default,
            });
        let sender = client.sender().retry(policy).timeout(crate::PATIENCE).build().unwrap();
        let sending = tokio::spawn(async move { sender.send(Target::queue("late"), "x").await });
        tokio::task::yield_now().await;
        channel.queue_declare("late").await.unwrap();
        assert_eq!(within("a receipt", sending).await.unwrap().unwrap().status, Status::Accepted);
    }

    /// ```python
    /// with ReceiveClient(source, auth=auth, prefetch=10) as client:
    ///     messages = client.receive_message_batch(max_batch_size=10, timeout=5000)
    ///     for message in messages:
    ///         message.accept()                               # or reject(), release(), modify(True, False)
    /// ```
    async fn u30_u34_to_u37_a_batch_is_received_and_settled(server: Server) {
        let channel = prepared(server, "myqueue").await;
        let client = within("a connection", Client::connect(&server.url)).await.unwrap();
        let sender = client.sender().build().unwrap();
        let messages = (0..4).map(|number| (Target::queue("myqueue"), Message::new(vec![number])));
        assert!(within("a report", sender.send_batch(messages)).await.is_ok());

        let receiver = client.receiver(Source::queue("myqueue")).prefetch(10).build();
        let mut receiver = within("a receiver", receiver).await.unwrap();
        let mut messages = Vec::new();
        while messages.len() < 4 {
            let batch = receiver.recv_batch(10, Some(Duration::from_secs(5)));
            messages.extend(within("a batch", batch).await.unwrap());
        }
        for message in messages {
            match message.body() {
                [0] => message.accept().unwrap(),
                [1] => message.reject().unwrap(),
                [2] => message.release().unwrap(),
                _ => message.modify(Modify { delivery_failed: true, undeliverable_here: false }).unwrap(),
            }
        }
        // What was released or modified comes again, and release is no longer a no-op.
        let mut again = Vec::new();
        while again.len() < 2 {
            for delivery in within("a batch", receiver.recv_batch(10, Some(Duration::from_secs(5)))).await.unwrap() {
                assert!(delivery.redelivered());
                again.push(delivery.body().to_vec());
                delivery.accept().unwrap();
            }
        }
        again.sort();
        assert_eq!(again, [[2], [3]]);
        let nothing = receiver.recv_batch(10, Some(Duration::from_millis(20)));
        assert!(within("nothing", nothing).await.unwrap().is_empty(), "the end of the wait is no error");
        assert!(within("closing", receiver.close()).await.unwrap().is_empty());
        assert_eq!(channel.queue_declare("myqueue").passive(true).await.unwrap().message_count(), 0);
    }

    /// ```python
    /// client.receive_messages(on_message_received)           # until the receiver is idle for `timeout`
    /// ```
    async fn u31_a_callback_for_each_message(server: Server) {
        prepared(server, "myqueue").await;
        let client = within("a connection", Client::connect(&server.url)).await.unwrap();
        let sender = client.sender().build().unwrap();
        let messages = (0..5).map(|number| (Target::queue("myqueue"), Message::new(vec![number])));
        assert!(within("a report", sender.send_batch(messages)).await.is_ok());
        let (seen, mut calls) = tokio::sync::mpsc::channel(16);
        let callback = move |received: leveret::messaging::Received| {
            let seen = seen.clone();
            async move {
                seen.send(received.body().to_vec()).await.map_err(|_| std::io::Error::other("nobody listens"))?;
                Ok::<_, std::io::Error>(Disposition::Accept)
            }
        };
        // What comes too late for one receiver is there for the next.
        let mut numbers = Vec::new();
        while numbers.len() < 5 {
            let receiver = client.receiver(Source::queue("myqueue")).idle_timeout(Duration::from_millis(500)).build();
            let receiver = within("a receiver", receiver).await.unwrap();
            within("the end", receiver.for_each(1, callback.clone())).await.unwrap();
            while let Ok(body) = calls.try_recv() {
                numbers.push(body);
            }
        }
        assert_eq!(numbers, [[0], [1], [2], [3], [4]]);
    }

    /// ```python
    /// response = client.mgmt_request(Message(""), operation="READ", op_type="com.microsoft:eventhub", node="$management")
    /// ```
    async fn u50_u51_u52_u53_a_management_request(server: Server) {
        prepared(server, "$management").await;
        let client = within("a connection", Client::connect(&server.url)).await.unwrap();
        let serving = tokio::spawn(client.responder(Source::queue("$management")).serve(async |request| {
            let header = |name: &str| request.get_header(name).and_then(FieldValue::as_str).unwrap_or_default();
            let (status, words) = match (header("operation"), header("type")) {
                ("READ", "com.microsoft:eventhub") => (200, "OK"),
                _ => (404, "no such operation"),
            };
            let reply = Message::new("partitions").header("statusCode", status).header("statusDescription", words);
            Ok::<_, std::convert::Infallible>(reply)
        }));
        let requester = client.requester().timeout(Duration::from_secs(10)).build().unwrap();
        let node = Target::queue("$management");
        let reply = requester.manage(&node, "READ", Some("com.microsoft:eventhub"), "");
        let reply = within("a reply", reply).await.unwrap();
        assert_eq!((reply.status, reply.description.as_deref()), (200, Some("OK")));
        assert_eq!(reply.message.body(), b"partitions");
        match within("a reply", requester.manage(&node, "DELETE", None, "")).await.unwrap_err() {
            RequestError::Status(reply) => assert_eq!(reply.status, 404),
            other => panic!("{other:?}"),
        }
        let nobody = within("an error", requester.manage(Target::queue("nobody"), "READ", None, "")).await.unwrap_err();
        assert!(matches!(nobody, RequestError::NoRoute(_)), "at once, and not after a timeout: {nobody}");
        serving.abort();
    }
}
