//! Lost connections: whoever waits is told what became of it, and the next use connects again.

use std::time::Duration;

use futures_util::FutureExt;
use leveret::broker::Broker;
use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{
    Backoff, Client, ClientState, Event, Receipt, RecoveryPolicy, RequestError, RetryPolicy, SendError, SendState,
    Source, Status, Target,
};
use tokio::task::JoinHandle;

use crate::support::{Kept, Own, PATIENCE, Server, exclusive_queue, fill, next, number, receiver, until, within};
use crate::wire::Tap;

on_every_server! {
    /// KA2, U5: a send that waits for its confirm ends as unknown, a stream with the reason; the next send goes over a new
    /// connection.
    async fn a_lost_connection_ends_every_wait(server: Server) {
        let kept = Kept::new(server).await;
        let (client, tap) = server.tapped().await;
        let sender = client.sender().retry(RetryPolicy::never()).build().unwrap();
        let target = Target::queue(&kept.name);
        let builder = client.receiver(Source::queue(&kept.name)).recovery(RecoveryPolicy::never());
        let mut receiver = within("a receiver", builder.build()).await.unwrap();
        sender.send(&target, "0").await.unwrap();
        let unsettled = next(&mut receiver).await;
        tap.stall(true);
        let pending = sender.send_pipelined(&target, "1").await.unwrap();
        let dropped = sender.send_pipelined(&target, "2").await.unwrap();
        drop(dropped);
        until("the last message", async || tap.publishes() == 3).await;
        tap.cut();
        until("the fate", async || pending.state() == SendState::Settled).await;
        let error = within("an error", pending).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Io, Outcome::Unknown), "{error}");
        assert_eq!(error.into_message().unwrap().1.body(), b"1");
        let error = within("the reason", receiver.recv()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(within("the end", receiver.recv()).await.is_none());
        assert_eq!(unsettled.accept().unwrap_err().kind(), ErrorKind::Stale);
        assert_eq!(client.state(), ClientState::Lost);

        tap.stall(false);
        let receipt = within("a receipt", sender.send(&target, "3")).await.unwrap();
        assert_eq!((receipt.status, receipt.delivery_tag()), (Status::Accepted, Some(1)));
        let report = within("a flush", sender.flush()).await;
        assert_eq!(report.failed().map(|(at, error)| (at, error.outcome())).collect::<Vec<_>>(), [(0, Outcome::Unknown)]);
        let mut there = kept.delete().await;
        there.retain(|n| ![1, 2].contains(n));
        there.sort_unstable();
        assert_eq!(there, [0, 3]);
    }

    /// Nothing depends on the channel that was being opened: another one is opened on another connection, and nobody is told.
    async fn a_connection_that_is_lost_while_a_channel_is_opened(server: Server) {
        let kept = Kept::new(server).await;
        let (client, tap) = server.tapped().await;
        let sender = client.sender().retry(RetryPolicy::never()).build().unwrap();
        tap.cut_at_channel();
        let receipt = within("a receipt", sender.send(Target::queue(&kept.name), "0")).await.unwrap();
        assert_eq!((receipt.status, tap.channels()), (Status::Accepted, 2));
        tap.cut_at_channel();
        let builder = client.receiver(Source::queue(&kept.name)).recovery(RecoveryPolicy::never());
        let mut receiver = within("a receiver", builder.build()).await.unwrap();
        assert_eq!(number(next(&mut receiver).await.body()), 0);
        assert_eq!(tap.channels(), 4);
        drop(receiver);
        kept.delete().await;
    }

    /// Z12: what is of unknown outcome is sent again only where somebody asked for that; it may then be there twice.
    async fn at_least_once(server: Server) {
        let (kept, tap, sent) = sent_into_the_void(server, RetryPolicy::at_least_once()).await;
        tap.stall(false);
        tap.cut();
        let receipt = within("a receipt", sent).await.unwrap();
        // Its confirm may have been quicker than the scissors.
        assert_eq!(receipt.unwrap().status, Status::Accepted);
        let there = kept.delete().await;
        assert!(there == [0, 1] || there == [0, 1, 1], "{there:?}");
    }

    /// The last attempt was not even sent, and yet nobody knows: the first one may have arrived.
    async fn what_was_unknown_once_stays_unknown(server: Server) {
        let backoff = Backoff { first: Duration::ZERO, ..Backoff::default() };
        let policy = RetryPolicy::at_least_once().max_retries(1).backoff(backoff);
        let (kept, tap, sent) = sent_into_the_void(server, policy).await;
        tap.refuse(true);
        tap.cut();
        let error = within("an error", sent).await.unwrap().unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert_eq!(error.into_message().unwrap().1.body(), b"1");
        kept.delete().await;
    }

    /// Handles that were made before the loss work after it.
    async fn handles_survive(server: Server) {
        let kept = Kept::new(server).await;
        let (client, tap) = server.tapped().await;
        let (sender, requester) = (client.sender().build().unwrap(), client.requester().build().unwrap());
        for n in 0..5u32 {
            let target = Target::queue(&kept.name);
            within("a receipt", sender.send(&target, n.to_string())).await.unwrap();
            let nobody = within("an error", requester.request(Target::queue("leveret.nowhere"), "x")).await;
            assert!(matches!(nobody, Err(RequestError::NoRoute(_))), "{nobody:?}");
            tap.cut();
            until("the loss", async || client.state() == ClientState::Lost).await;
        }
        assert_eq!(kept.delete().await, [0, 1, 2, 3, 4]);
    }

    /// A queue that is deleted ends its receivers, and they are told.
    async fn the_queue_is_deleted(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let mut receiver = receiver(&client, &queue).await;
        let mut events = client.events();
        crate::support::channel(&client).await.queue_delete(&queue).await.unwrap();
        let error = within("the reason", receiver.recv()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
        let event = within("the event", events.next()).await;
        assert!(matches!(&event, Some(Event::ConsumerCancelled(of)) if *of == queue), "{event:?}");
        assert!(within("the end", receiver.recv()).await.is_none());
    }
}

/// A message that has left, and of which nothing is heard: the server has the one before it, and of this one it may have a part.
async fn sent_into_the_void(
    server: &Server,
    policy: RetryPolicy,
) -> (Kept, Tap, JoinHandle<Result<Receipt, SendError>>) {
    let kept = Kept::new(server).await;
    let (client, tap) = server.tapped().await;
    let sender = client.sender().retry(policy).build().unwrap();
    let target = Target::queue(&kept.name);
    sender.send(&target, "0").await.unwrap();
    tap.stall(true);
    let sent = tokio::spawn(async move { sender.send(&target, "1").await });
    until("the message", async || tap.publishes() == 2).await;
    (kept, tap, sent)
}

on_every_server! {
    /// KA2: the operator closes every connection; the code and the text are there.
    async fn the_operator_closes_all_connections(server: Own) {
        let builder = Client::builder(&server.url).unwrap().recovery(RecoveryPolicy::never());
        let client = within("a connection", builder.connect()).await.unwrap();
        let queue = exclusive_queue(&client).await;
        fill(&client, &queue, 0..1).await;
        let mut receiver = receiver(&client, &queue).await;
        assert_eq!(number(next(&mut receiver).await.body()), 0);
        server.close_connections().await;
        let error = loop {
            // The delivery that was dropped comes again before that.
            match within("the reason", receiver.recv()).await.unwrap() {
                Ok(delivery) => drop(delivery.accept()),
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind(), error.reply_code().unwrap().0), (ErrorKind::ConnectionClosed, 320), "{error}");
        assert!(error.is_transient());
        fill(&client, &exclusive_queue(&client).await, 0..1).await;
    }
}

on_its_own! {
    /// c92: the server has given it back, and so it is refused, although the channel has ended before the ack.
    async fn what_came_back_is_refused_though_its_channel_has_ended() {
        let broker = Broker::start().await.unwrap();
        let client = Client::connect(&broker.url()).await.unwrap();
        let sender = client.sender().build().unwrap();
        sender.send(Target::queue("nowhere"), "x").await.unwrap_err();
        broker.hold_confirms(true);
        let returned = sender.send_pipelined(Target::queue("nowhere"), "back").await.unwrap();
        let error = within("an error", sender.send(Target::exchange("missing", ""), "x")).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::ChannelClosed, Outcome::Unknown));
        let error = within("an error", returned).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Returned, Outcome::Refused), "{error}");
        assert_eq!((error.reply_code().unwrap().0, error.reply_text()), (312, Some("NO_ROUTE")));
        let came_back = error.returned().unwrap();
        assert_eq!((came_back.reply_code.0, came_back.reply_text.as_str()), (312, "NO_ROUTE"));
        assert_eq!((came_back.message.body(), came_back.message.headers()), (&b"back"[..], None), "without the stamp");
        assert_eq!(error.into_message().unwrap().1.body(), b"back");
    }

    /// c92: the same where nobody waits for it, and of a request.
    async fn what_came_back_is_told_to_flush_and_requests_though_its_channel_has_ended() {
        let broker = Broker::start().await.unwrap();
        let client = Client::connect(&broker.url()).await.unwrap();
        let (sender, requester) = (client.sender().build().unwrap(), client.requester().build().unwrap());
        sender.send(Target::queue("nowhere"), "x").await.unwrap_err();
        requester.request(Target::queue("nowhere"), "x").await.unwrap_err();
        broker.hold_confirms(true);
        drop(sender.send_pipelined(Target::queue("nowhere"), "back").await.unwrap());
        let mut request = Box::pin(requester.request(Target::queue("nowhere"), "back"));
        assert!(request.as_mut().now_or_never().is_none());
        // The answer to this one comes behind what was returned.
        client.ping(PATIENCE).await.unwrap();
        broker.drop_connections();
        let report = within("the report", sender.flush()).await;
        let [(0, error)] = report.failed().collect::<Vec<_>>()[..] else { panic!("{report:?}") };
        assert_eq!((error.outcome(), error.returned().unwrap().message.body()), (Outcome::Refused, &b"back"[..]));
        match within("an error", request).await {
            Err(RequestError::NoRoute(returned)) => assert_eq!(returned.message.body(), b"back"),
            other => panic!("{other:?}"),
        }
    }
}
