//! Requests and replies: in any order, late, to nobody, and when the channel is lost.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use leveret::amqp::FieldValue;
use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{
    Client, Event, Message, Received, ReplyQueue, RequestError, Requester, Sender, Source, Target,
};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::support::{Server, channel, exclusive_queue, look_at, next, number, receiver, unique, until, within};
use crate::wire::Tap;

/// Answers what comes to a queue, for as long as the test runs.
fn serve<F, Fut>(client: &Client, queue: &str, handler: F) -> JoinHandle<()>
where
    F: Fn(Received) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Message, &'static str>> + Send + 'static,
{
    let responder = client.responder(Source::queue(queue));
    tokio::spawn(async move { drop(responder.serve(handler).await) })
}

/// The reply to a request: its number again. Not mandatory: RabbitMQ returns what is, when it goes to a direct reply-to.
async fn reply(sender: &Sender, request: &Message) {
    let reply_to = request.properties.reply_to.clone().unwrap();
    let id = request.properties.correlation_id.clone().unwrap();
    sender.send(Target::queue(reply_to), Message::new(request.body().to_vec()).correlation_id(id)).await.unwrap();
}

async fn requesters(client: &Client) -> [Requester; 2] {
    [ReplyQueue::Direct, ReplyQueue::Exclusive].map(|queue| client.requester().reply_queue(queue).build().unwrap())
}

/// The same requester, which waits for a reply and not for long. It has its channel already, so that its requests leave at once.
async fn hurried(requester: &Requester) -> Requester {
    let nobody = within("an error", requester.request(Target::queue(unique("nobody")), "x")).await;
    assert!(matches!(nobody, Err(RequestError::NoRoute(_))), "{nobody:?}");
    requester.with_timeout(Duration::from_millis(100))
}

on_every_server! {
    /// A reply to somebody else's request of the same number is no reply.
    async fn a_reply_with_somebody_elses_prefix(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let mut requests = receiver(&client, &queue).await;
        let sender = client.sender().mandatory(false).build().unwrap();
        for requester in requesters(&client).await {
            let request = async { requester.request(Target::queue(&queue), "x").await.unwrap() };
            let serve = async {
                let request = next(&mut requests).await;
                let (reply_to, id) = (request.properties().reply_to.clone(), request.properties().correlation_id.clone());
                let (reply_to, id) = (reply_to.unwrap(), id.unwrap().to_string());
                let (prefix, number) = id.split_once('-').unwrap();
                let other: String = prefix.chars().rev().chain(['0']).collect();
                for (id, text) in [(format!("{other}-{number}"), "wrong"), (id.clone(), "right")] {
                    let reply = Message::new(text).correlation_id(id);
                    sender.send(Target::queue(reply_to.clone()), reply).await.unwrap();
                }
                request.accept().unwrap();
            };
            let (reply, ()) = within("a reply", async { tokio::join!(request, serve) }).await;
            assert_eq!(reply.body(), b"right");
        }
    }

    /// Requests of others, who may know their request by its message id; and replies that cannot be sent, which is no reason to handle
    /// the request again.
    async fn a_responder_and_strangers(server: Server) {
        let client = server.client().await;
        let (queue, replies) = (exclusive_queue(&client).await, exclusive_queue(&client).await);
        let (stop, stopped) = oneshot::channel::<()>();
        let responder = client.responder(Source::queue(&queue)).serve_until(stopped, async |request: Received| {
            let reply = Message::new(request.body().to_vec());
            Ok::<_, &str>(if request.body() == b"long" { reply.content_type("x".repeat(256)) } else { reply })
        });
        let responder = tokio::spawn(responder);
        let sender = client.sender().build().unwrap();
        let request = |text: &'static str| Message::new(text).reply_to(replies.as_str()).message_id(text);
        sender.send(Target::queue(&queue), request("long")).await.unwrap();
        sender.send(Target::queue(&queue), request("one").correlation_id("two")).await.unwrap();
        sender.send(Target::queue(&queue), request("three")).await.unwrap();
        let mut received = receiver(&client, &replies).await;
        let mut ids = Vec::new();
        for _ in 0..2 {
            let reply = next(&mut received).await;
            ids.push(reply.properties().correlation_id.clone().unwrap().to_string());
            reply.accept().unwrap();
        }
        ids.sort();
        assert_eq!(ids, ["three", "two"]);
        // A request is accepted behind its reply.
        stop.send(()).unwrap();
        within("the end", responder).await.unwrap().unwrap();
        let look = channel(&client).await;
        until("the responder to go", async || look_at(&look, &queue).await.consumer_count() == 0).await;
        assert_eq!(look_at(&look, &queue).await.message_count(), 0, "all were accepted");
    }

    /// A server that does not take a request says so, and nobody waits for its reply.
    async fn a_request_that_is_refused(server: Server) {
        let client = server.client().await;
        let queue = unique("full");
        let declare = channel(&client).await;
        let declare = declare.queue_declare(&queue).exclusive(true).argument("x-max-length", 0);
        declare.argument("x-overflow", "reject-publish").await.unwrap();
        for requester in requesters(&client).await {
            let error = within("an error", requester.request(Target::queue(&queue), "x")).await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::Refused);
            assert!(matches!(error, RequestError::Send(error) if error.kind() == ErrorKind::Nacked));
        }
    }

    /// Scenario 9, first part; U50: a hundred requests at once, answered in the opposite order.
    async fn scenario_09_a_hundred_replies_out_of_order(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        for requester in requesters(&client).await {
            let requests = (0..100u32).map(|n| {
                let (requester, target) = (requester.clone(), Target::queue(&queue));
                tokio::spawn(async move { requester.request(target, n.to_string()).await })
            });
            let requests: Vec<_> = requests.collect();
            let (mut receiver, sender) = (receiver(&client, &queue).await, client.sender().mandatory(false).build().unwrap());
            let mut waiting = VecDeque::new();
            for _ in 0..100 {
                let delivery = next(&mut receiver).await;
                waiting.push_front(delivery.message());
                delivery.accept().unwrap();
            }
            for request in &waiting {
                reply(&sender, request).await;
            }
            for (n, answered) in (0..).zip(within("the replies", join_all(requests)).await) {
                assert_eq!(number(answered.unwrap().unwrap().body()), n);
            }
        }
    }

    /// Scenario 9; U54: replies that nobody waits for are told of and disturb nobody; late ones are of that kind.
    async fn scenario_09_strange_and_late_replies(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let (mut receiver, sender) =
            (receiver(&client, &queue).await, client.sender().mandatory(false).build().unwrap());
        for queue_kind in [ReplyQueue::Direct, ReplyQueue::Exclusive] {
            let requester = client.requester().reply_queue(queue_kind).build().unwrap();
            let hurried = hurried(&requester).await;
            let mut events = client.events();
            let target = Target::queue(&queue);
            let late = within("an error", hurried.request(&target, "1")).await.unwrap_err();
            assert!(matches!(late, RequestError::Timeout), "{late}");
            assert_eq!(late.outcome(), Outcome::Unknown);
            let request = next(&mut receiver).await;
            let late_id = request.properties().correlation_id.clone().unwrap().to_string();
            reply(&sender, &request.message()).await;
            request.accept().unwrap();
            match within("an event", events.next()).await {
                Some(Event::StrayReply(Some(id))) => assert_eq!(id, late_id),
                other => panic!("{other:?}"),
            }
            let (answered, ()) = tokio::join!(within("a reply", requester.request(&target, "2")), async {
                let request = next(&mut receiver).await;
                let reply_to = Target::queue(request.properties().reply_to.clone().unwrap());
                sender.send(&reply_to, Message::new("strange").correlation_id("unknown")).await.unwrap();
                sender.send(&reply_to, Message::new("stranger")).await.unwrap();
                reply(&sender, &request.message()).await;
                // Twice, even.
                reply(&sender, &request.message()).await;
                request.accept().unwrap();
            });
            assert_eq!(number(answered.unwrap().body()), 2);
            let mut stray = Vec::new();
            for _ in 0..3 {
                match within("an event", events.next()).await {
                    Some(Event::StrayReply(id)) => stray.push(id),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(stray[..2], [Some("unknown".to_owned()), None]);
        }
    }

    /// Scenario 9; U50, U51, U52, U55: what a management request says, and what its reply means.
    async fn scenario_09_management_requests(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let server = serve(&client, &queue, async |request| {
            let header = |name: &str| request.get_header(name).and_then(FieldValue::as_str).map(str::to_owned);
            let said = format!("{:?} {:?}", header("operation"), header("type"));
            let reply = Message::new(said);
            Ok(match header("operation").as_deref() {
                Some("READ") => reply.header("statusCode", 200i32).header("statusDescription", "fine"),
                Some("DIGITS") => reply.header("statusCode", "202"),
                Some("MISSING") => reply.header("statusCode", FieldValue::I64(404)).header("statusDescription", "no such thing"),
                Some("OTHER") => reply.header("status-code", 204i32).header("status-description", "other names"),
                _ => reply,
            })
        });
        let node = Target::queue(&queue);
        let requester = client.requester().build().unwrap();
        let reply = within("a reply", requester.manage(&node, "READ", Some("entity"), "x")).await.unwrap();
        assert_eq!((reply.status, reply.description.as_deref()), (200, Some("fine")));
        assert_eq!(reply.message.body(), br#"Some("READ") Some("entity")"#);
        let reply = within("a reply", requester.manage(&node, "DIGITS", None, "x")).await.unwrap();
        assert_eq!((reply.status, reply.description.as_deref()), (202, None));
        assert_eq!(reply.message.body(), br#"Some("DIGITS") None"#);
        match within("an error", requester.manage(&node, "MISSING", None, "x")).await {
            Err(RequestError::Status(reply)) => {
                assert_eq!((reply.status, reply.description.as_deref()), (404, Some("no such thing")));
            }
            other => panic!("{other:?}"),
        }
        let error = within("an error", requester.manage(&node, "NOTHING", None, "x")).await.unwrap_err();
        assert!(matches!(&error, RequestError::NoStatus(message) if !message.body().is_empty()), "{error:?}");
        // None of that has poisoned anything.
        within("a reply", requester.manage(&node, "READ", None, "x")).await.unwrap();
        let raw = client.requester().any_status().build().unwrap();
        assert_eq!(within("a reply", raw.manage(&node, "MISSING", None, "x")).await.unwrap().status, 404);
        let other = client.requester().status_field("status-code").description_field("status-description");
        let reply = within("a reply", other.build().unwrap().manage(&node, "OTHER", None, "x")).await.unwrap();
        assert_eq!((reply.status, reply.description.as_deref()), (204, Some("other names")));
        server.abort();
    }

    /// §4.6: nobody serves there, and the requester is told at once.
    async fn nobody_serves_there(server: Server) {
        let client = server.client().await;
        for requester in requesters(&client).await {
            let requests = (0..10).map(|_| requester.manage(Target::queue("$management"), "READ", None, "x"));
            for error in within("errors", join_all(requests)).await {
                match error {
                    Err(RequestError::NoRoute(returned)) => assert_eq!(returned.reply_code.0, 312),
                    other => panic!("{other:?}"),
                }
            }
            let missing = requester.request(Target::exchange(unique("missing"), ""), "x");
            let error = within("an error", missing).await.unwrap_err();
            assert!(matches!(&error, RequestError::Lost(error) if error.reply_code().unwrap().0 == 404), "{error:?}");
            let error = requester.request(Target::topic("t"), "x").await.unwrap_err();
            assert!(matches!(&error, RequestError::Send(error) if error.outcome() == Outcome::NotSent), "{error:?}");
        }
    }

    /// Scenario 9, last part: the channel is lost, and everybody who waits is told; the next request has a new one.
    async fn scenario_09_a_lost_channel_ends_every_request(server: Server) {
        let tap = Tap::new(server.url()).await;
        let (client, service) = (Client::connect(tap.url()).await.unwrap(), server.client().await);
        let queue = exclusive_queue(&service).await;
        for requester in requesters(&client).await {
            let requests = (0..20u32).map(|n| {
                let (requester, target) = (requester.clone(), Target::queue(&queue));
                tokio::spawn(async move { requester.request(target, n.to_string()).await })
            });
            let requests: Vec<_> = requests.collect();
            // The other side has all of them when the connection is lost.
            let mut receiver = receiver(&service, &queue).await;
            for _ in 0..20 {
                next(&mut receiver).await.accept().unwrap();
            }
            drop(receiver);
            tap.cut();
            for answered in within("the errors", join_all(requests)).await {
                let error = answered.unwrap().unwrap_err();
                assert!(matches!(error, RequestError::Lost(_)), "{error:?}");
                assert_eq!(error.outcome(), Outcome::Unknown);
            }
            let echo = serve(&service, &queue, async |request| Ok(request.message()));
            assert_eq!(within("a reply", requester.request(Target::queue(&queue), "again")).await.unwrap().body(), b"again");
            // The next requests are not to be answered.
            echo.abort();
            let _ = echo.await;
        }
    }

    /// The queue of the replies is deleted, and the channel stays: whoever waits is told, and the next request has another queue.
    async fn a_queue_of_replies_that_is_deleted_is_replaced(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let requester = client.requester().reply_queue(ReplyQueue::Exclusive).build().unwrap();
        let target = Target::queue(&queue);
        let mut requests = receiver(&client, &queue).await;
        let lost = tokio::spawn({
            let (requester, target) = (requester.clone(), target.clone());
            async move { requester.request(target, "lost").await }
        });
        let request = next(&mut requests).await;
        let reply_to = request.properties().reply_to.clone().unwrap().to_string();
        request.accept().unwrap();
        drop(requests);
        channel(&client).await.queue_delete(&reply_to).await.unwrap();
        let error = within("an error", lost).await.unwrap().unwrap_err();
        assert!(matches!(&error, RequestError::Lost(error) if error.kind() == ErrorKind::Cancelled), "{error:?}");
        let echo = serve(&client, &queue, async |request| Ok(request.message()));
        assert_eq!(within("a reply", requester.request(&target, "again")).await.unwrap().body(), b"again");
        echo.abort();
    }

    /// A responder whose handler fails tries again, and keeps serving; a request without a return address is handled, too.
    async fn a_responder_that_fails_now_and_then(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let echo = serve(&client, &queue, async |request| match request.redelivered() {
            false if request.body() == b"twice" => Err("not the first time"),
            _ => Ok(request.message()),
        });
        let requester = client.requester().build().unwrap();
        let target = Target::queue(&queue);
        client.sender().build().unwrap().send(&target, "no return address").await.unwrap();
        let (first, second) = tokio::join!(requester.request(&target, "twice"), requester.request(&target, "once"));
        assert_eq!((first.unwrap().body(), second.unwrap().body()), (&b"twice"[..], &b"once"[..]));
        echo.abort();
    }

    /// Each request can have a deadline of its own.
    async fn a_request_that_is_in_a_hurry(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let requester = client.requester().timeout(Duration::from_secs(3600)).build().unwrap();
        let hurried = hurried(&requester).await;
        let error = within("a timeout", hurried.request(Target::queue(&queue), "?")).await.unwrap_err();
        assert!(matches!(error, RequestError::Timeout), "{error:?}");
    }

    /// A responder that is told to stop answers what it has begun, and leaves the rest to others.
    async fn a_responder_until_it_is_told(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let (begun, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let (started, permit) = (begun.clone(), go_on.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let responder = client.responder(Source::queue(&queue)).concurrency(1);
        let serving = tokio::spawn(responder.serve_until(stopped, move |request: Received| {
            let (started, permit) = (started.clone(), permit.clone());
            async move {
                started.add_permits(1);
                permit.acquire().await.unwrap().forget();
                Ok::<_, &str>(request.message())
            }
        }));
        let requester = client.requester().build().unwrap();
        let ask = |text: &'static str| {
            let (requester, target) = (requester.clone(), Target::queue(&queue));
            tokio::spawn(async move { requester.request(target, text).await })
        };
        let first = ask("first");
        within("the first", begun.acquire()).await.unwrap().forget();
        stop.send(()).unwrap();
        let second = ask("second");
        go_on.add_permits(2);
        assert_eq!(within("a reply", first).await.unwrap().unwrap().body(), b"first");
        within("the end", serving).await.unwrap().unwrap();
        let echo = serve(&client, &queue, async |request| Ok(request.message()));
        assert_eq!(within("a reply", second).await.unwrap().unwrap().body(), b"second");
        assert_eq!(begun.available_permits(), 0, "by the other one");
        echo.abort();
    }
}

on_its_own! {
    /// There is nobody to answer yet, and it is told to stop.
    async fn a_responder_that_never_began_ends_when_it_is_told() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("amqp://{}", listener.local_addr().unwrap());
        let client = Client::builder(&url).unwrap().lazy().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let responder = client.responder(Source::queue("q"));
        let serving = tokio::spawn(responder.serve_until(stopped, async |request: Received| Ok::<_, &str>(request.message())));
        // It is accepted, and hears nothing more.
        let _silent = within("the connection", listener.accept()).await.unwrap();
        stop.send(()).unwrap();
        within("the end", serving).await.unwrap().unwrap();
    }
}
