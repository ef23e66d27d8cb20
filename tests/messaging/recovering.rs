//! Receivers whose connection is lost begin again. The tests are named after what users of other clients have complained about.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use leveret::amqp::{Channel, Connection, Credentials, ExpiringCredentials};
use leveret::broker::Broker;
use leveret::codec::method::{self as methods, basic};
use leveret::codec::{Frame, Method};
use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{
    Backoff, Client, ClientState, Disposition, Event, EventStream, Message, MessageStream, Receiver, RecoveryPolicy,
    RequestError, Source, Target,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{
    Kept, Own, PATIENCE, Server, broker_at, channel, exclusive_queue, fill, look_at, lost, next, number, receiver,
    unique, until, within,
};
use crate::wire::Tap;

/// So long nobody waits here: what is to happen has to happen without a second try.
const HOUR: Duration = Duration::from_secs(3600);

fn patient() -> RecoveryPolicy {
    RecoveryPolicy::default().backoff(Backoff { first: HOUR, longest: HOUR })
}

fn quick() -> RecoveryPolicy {
    RecoveryPolicy::default().backoff(Backoff { first: Duration::from_millis(2), longest: Duration::from_millis(20) })
}

/// Polls a receiver without waiting for it: it notices what has happened to it.
async fn glance(receiver: &mut Receiver) {
    let glance = tokio::time::timeout(Duration::from_millis(1), receiver.recv()).await;
    assert!(glance.is_err(), "{glance:?}");
}

/// Polls a receiver until the client is in this state.
async fn glance_until(receiver: &mut Receiver, client: &Client, state: ClientState) {
    within("the state", async {
        while client.state() != state {
            glance(receiver).await;
        }
    })
    .await;
}

/// Polls a receiver until it has begun again, and gives the queue that it receives from then.
async fn recovered(receiver: &mut Receiver, events: &mut EventStream) -> String {
    let recovered = async {
        loop {
            match events.next().await {
                Some(Event::Recovered(queue)) => return queue,
                Some(_) => {}
                None => panic!("the client is closed"),
            }
        }
    };
    tokio::select! {
        queue = within("the receiver to come back", recovered) => queue,
        unexpected = receiver.recv() => panic!("{unexpected:?}"),
    }
}

/// The numbers of the next deliveries, which are accepted.
async fn numbers(receiver: &mut Receiver, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let delivery = next(receiver).await;
        numbers.push(number(delivery.body()));
        delivery.accept().unwrap();
    }
    numbers.sort_unstable();
    numbers
}

/// How often the client has asked for a consumer, and with which prefetch it did last.
fn consumes(tap: &Tap) -> (usize, Option<u16>) {
    let (mut consumes, mut prefetch) = (0, None);
    for frame in tap.frames() {
        match frame {
            Frame::Method(_, Method::Basic(basic::Method::Consume(_))) => consumes += 1,
            Frame::Method(_, Method::Basic(basic::Method::Qos(qos))) => prefetch = Some(qos.prefetch_count),
            _ => {}
        }
    }
    (consumes, prefetch)
}

/// A kept queue, a client behind a tap, and a receiver that has lost its connection and may not have another one.
async fn cut_off(server: &Server, policy: RecoveryPolicy) -> (Kept, Client, Tap, Receiver) {
    let kept = Kept::new(server).await;
    let tap = Tap::new(server.url()).await;
    let client = within("a connection", Client::builder(tap.url()).unwrap().recovery(policy).connect()).await.unwrap();
    let mut receiver = receiver(&client, &kept.name).await;
    tap.refuse(true);
    tap.cut();
    glance_until(&mut receiver, &client, ClientState::Recovering).await;
    (kept, client, tap, receiver)
}

on_every_server! {
    /// lapin 389, 187 and 283, dotnet 1993, aio-pika 231: after a lost connection the consumer is dead. bunny 142, java 343, EasyNetQ
    /// 1329, lapin 434: what it had is acked on the new channel, which closes it or settles another message.
    async fn a_stream_that_stops_yielding(server: Server) {
        let kept = Kept::new(server).await;
        let (client, tap) = server.tapped().await;
        let mut events = client.events();
        let mut receiver = receiver(&client, &kept.name).await;
        fill(&client, &kept.name, 0..2).await;
        let (first, second) = (next(&mut receiver).await, next(&mut receiver).await);
        tap.cut();
        let again = next(&mut receiver).await;
        assert!(again.redelivered());
        for expected in ["Lost", "Opened", &format!("Recovered({:?})", kept.name)] {
            let event = format!("{:?}", within("an event", events.next()).await.unwrap());
            assert!(event.starts_with(expected), "{event} in place of {expected}");
        }
        assert_eq!(client.state(), ClientState::Open);
        let error = receiver.settle_up_to(&second, Disposition::Accept).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
        for stale in [first, second] {
            assert_eq!(stale.accept().unwrap_err().kind(), ErrorKind::Stale);
        }
        assert_eq!(number(again.body()), 0);
        again.accept().unwrap();
        fill(&client, &kept.name, 2..4).await;
        assert_eq!(numbers(&mut receiver, 3).await, [1, 2, 3], "what was unsettled comes again, and then the rest");
        assert_eq!(tap.settled(4).await.len(), 4, "nothing was said of the old deliveries");
        drop(receiver);
        kept.delete().await;
    }

    /// Not once, but every time.
    async fn it_recovers_once_and_never_again(server: Server) {
        let kept = Kept::new(server).await;
        let tap = Tap::new(server.url()).await;
        let client = within("a connection", Client::builder(tap.url()).unwrap().recovery(quick()).connect()).await.unwrap();
        let (mut events, mut losses) = (client.events(), client.events());
        let mut receiver = receiver(&client, &kept.name).await;
        for n in 0..5 {
            tap.cut();
            lost(&mut losses).await;
            fill(&server.client().await, &kept.name, n..n + 1).await;
            // The ack of the one before may have been lost.
            while numbers(&mut receiver, 1).await != [n] {}
        }
        let mut times = 0;
        while times < 5 {
            times += usize::from(matches!(within("an event", events.next()).await, Some(Event::Recovered(_))));
        }
        drop(receiver);
        kept.delete().await;
    }

    /// All consumers of a receiver come back, and those of the client's other receivers, too.
    async fn some_consumers_come_back_and_some_do_not(server: Server) {
        let kept = Kept::new(server).await;
        let (client, tap) = server.tapped().await;
        let mut many = client.receiver(Source::queue(&kept.name)).consumers(3).prefetch(1).build().await.unwrap();
        let mut other = receiver(&client, &kept.name).await;
        let mut plain = client.receiver(Source::queue(&kept.name)).build_no_ack().await.unwrap();
        let mut events = client.events();
        tap.cut();
        let waits = tokio::spawn(async move { other.recv().await.map(drop) });
        let reads = tokio::spawn(async move { plain.recv().await.map(drop) });
        lost(&mut events).await;
        let look = server.client().await;
        let channel = channel(&look).await;
        until("five consumers", async || {
            glance(&mut many).await;
            look_at(&channel, &kept.name).await.consumer_count() == 5
        })
        .await;
        waits.abort();
        reads.abort();
        let _ = (waits.await, reads.await);
        until("three consumers", async || look_at(&channel, &kept.name).await.consumer_count() == 3).await;
        fill(&client, &kept.name, 0..3).await;
        // Each has one, and nobody a second one.
        let held = [next(&mut many).await, next(&mut many).await, next(&mut many).await];
        held.into_iter().for_each(|delivery| delivery.accept().unwrap());
        drop(many);
        kept.delete().await;
    }

    /// lapin: a queue that cannot be had again is asked for again and again, for ever.
    async fn an_endless_loop_on_a_permanent_error(server: Server) {
        let (client, tap) = server.tapped().await;
        let queue = exclusive_queue(&client).await;
        let mut receiver = receiver(&client, &queue).await;
        tap.cut();
        // RabbitMQ may say 405 until it has seen that the old connection is gone, and the queue with it.
        let error = within("the reason", receiver.recv()).await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.reply_code().unwrap().0), (ErrorKind::ChannelClosed, 404), "{error}");
        assert!(error.to_string().starts_with("the connection was lost (") && !error.is_transient(), "{error}");
        assert!(within("the end", receiver.recv()).await.is_none());
        assert_eq!(client.state(), ClientState::Open, "others can use the connection that it has found");
    }

    /// lapin: queues that the server has named are declared again under their old names, which is refused with 403. All consumers
    /// of a receiver have the same queue.
    async fn a_queue_named_by_the_server_is_declared_under_its_old_name(server: Server) {
        let (client, tap) = server.tapped().await;
        let exchange = unique("news");
        channel(&client).await.exchange_declare(&exchange, "fanout").durable(true).await.unwrap();
        let mut events = client.events();
        let mut receiver = client
            .receiver_from({
                let exchange = exchange.clone();
                move |channel| {
                    let exchange = exchange.clone();
                    async move {
                        let queue = channel.queue_declare("").exclusive(true).await?;
                        channel.queue_bind(queue.name(), &exchange, "").await?;
                        Ok(Source::queue(queue.name()))
                    }
                }
            })
            .consumers(2)
            .build()
            .await
            .unwrap();
        let sender = client.sender().build().unwrap();
        let news = Target::exchange(exchange.as_str(), "");
        let mut names = Vec::new();
        for n in 0..3u32 {
            tap.cut();
            names.push(recovered(&mut receiver, &mut events).await);
            sender.send(&news, n.to_string()).await.unwrap();
            assert_eq!(numbers(&mut receiver, 1).await, [n]);
        }
        names.dedup();
        assert_eq!(names.len(), 3, "each time another name: {names:?}");
        channel(&client).await.exchange_delete(&exchange).await.unwrap();
    }

    /// rabbitmq-amqp-java-client 398, nameko 359, and worse, as the code is that of "not allowed": the server takes
    /// somebody for alive whose place is wanted.
    async fn an_exclusive_consumer_that_the_server_takes_for_alive(server: Server) {
        let kept = Kept::new(server).await;
        let tap = Tap::new(server.url()).await;
        let client = within("a connection", Client::builder(tap.url()).unwrap().recovery(quick()).connect()).await.unwrap();
        let mut receiver = client.receiver(Source::queue(&kept.name).exclusive()).build().await.unwrap();
        tap.refuse(true);
        tap.cut();
        let other = server.client().await;
        let built = async || other.receiver(Source::queue(&kept.name).exclusive()).build().await.ok();
        let mut rival = built().await;
        until("the place", async || {
            if rival.is_none() {
                rival = built().await;
            }
            rival.is_some()
        })
        .await;
        let before = consumes(&tap).0;
        tap.refuse(false);
        within("refusals", async {
            while consumes(&tap).0 < before + 3 {
                glance(&mut receiver).await;
            }
        })
        .await;
        assert_eq!(client.state(), ClientState::Recovering);
        drop(rival);
        fill(&other, &kept.name, 0..1).await;
        assert_eq!(numbers(&mut receiver, 1).await, [0]);
        drop(receiver);
        kept.delete().await;
    }

    /// c129: the same of a queue that goes with its connection, and is declared again too early: 405, and connecting has failed until the
    /// old owner is gone.
    async fn an_exclusive_queue_that_is_locked_after_the_loss(server: Server) {
        let queue = unique("locked");
        let tap = Tap::new(server.url()).await;
        let declare = {
            let queue = queue.clone();
            move |connection: Connection| {
                let queue = queue.clone();
                async move {
                    connection.open_channel().await?.queue_declare(&queue).exclusive(true).await?;
                    Ok(())
                }
            }
        };
        let builder = Client::builder(tap.url()).unwrap().recovery(quick()).on_open(declare);
        let client = within("a connection", builder.connect()).await.unwrap();
        let mut receiver = receiver(&client, &queue).await;
        tap.refuse(true);
        tap.cut();
        let rival = server.client().await;
        until("the name", async || {
            let channel = channel(&rival).await;
            channel.queue_declare(&queue).exclusive(true).await.is_ok()
        })
        .await;
        let mut events = client.events();
        tap.refuse(false);
        let locked = async {
            let mut times = 0;
            while times < 2 {
                if let Some(Event::ConnectFailed(error)) = events.next().await {
                    times += u32::from(error.reply_code().is_some_and(|code| code.0 == 405));
                }
            }
        };
        tokio::select! {
            () = within("refusals", locked) => {}
            unexpected = receiver.recv() => panic!("{unexpected:?}"),
        }
        rival.close().await;
        assert_eq!(recovered(&mut receiver, &mut events).await, queue);
        fill(&client, &queue, 0..1).await;
        assert_eq!(numbers(&mut receiver, 1).await, [0]);
    }

    /// A future of `recv` that is dropped takes nothing with it.
    async fn a_recv_that_is_dropped_meanwhile(server: Server) {
        let (kept, client, tap, mut receiver) = cut_off(server, quick()).await;
        fill(&server.client().await, &kept.name, 0..1).await;
        for _ in 0..20 {
            glance(&mut receiver).await;
        }
        assert_eq!(within("nothing", receiver.recv_batch(8, Some(Duration::from_millis(2)))).await.unwrap().len(), 0);
        tap.refuse(false);
        let mut batch = Vec::new();
        within("the message", async {
            while batch.is_empty() {
                batch = receiver.recv_batch(8, Some(Duration::from_millis(1))).await.unwrap();
            }
        })
        .await;
        assert_eq!((batch.len(), client.state()), (1, ClientState::Open));
        batch.remove(0).accept().unwrap();
        assert_eq!(consumes(&tap).0, 2, "it was started once, and once again");
        drop(receiver);
        kept.delete().await;
    }

    /// net 1930, lapin 237: closing waits for a connection that does not come.
    async fn closing_hangs_while_it_recovers(server: Server) {
        // The receiver.
        let (kept, client, _tap, receiver) = cut_off(server, patient()).await;
        assert!(within("the end", receiver.close()).await.unwrap().is_empty());
        assert_ne!(client.state(), ClientState::Recovering);
        kept.delete().await;

        // The client: the stream ends, without an error.
        let (kept, client, _tap, mut receiver) = cut_off(server, patient()).await;
        let waits = tokio::spawn(async move { receiver.recv().await.is_none() });
        tokio::task::yield_now().await;
        let report = within("the end", client.close()).await;
        assert!(report.is_clean(), "{report:?}");
        assert!(within("the end", waits).await.unwrap());
        assert_eq!(client.state(), ClientState::Closed);
        kept.delete().await;

        // Nobody: it is dropped.
        let (kept, client, _tap, receiver) = cut_off(server, patient()).await;
        drop(receiver);
        assert_ne!(client.state(), ClientState::Recovering);
        kept.delete().await;
    }

    /// What is set meanwhile is heeded.
    async fn a_prefetch_that_is_set_meanwhile(server: Server) {
        let (kept, client, tap, mut receiver) = cut_off(server, quick()).await;
        within("the prefetch", receiver.set_prefetch(7)).await.unwrap();
        tap.refuse(false);
        recovered(&mut receiver, &mut client.events()).await;
        assert_eq!(consumes(&tap).1, Some(7));
        // It is lost, and nobody has noticed.
        tap.cut();
        until("the loss", async || client.state() == ClientState::Lost).await;
        within("the prefetch", receiver.set_prefetch(9)).await.unwrap();
        recovered(&mut receiver, &mut client.events()).await;
        assert_eq!(consumes(&tap).1, Some(9));
        // It is lost before anybody has asked the consumer that is new.
        within("the prefetch", receiver.set_prefetch(11)).await.unwrap();
        tap.cut();
        until("the loss", async || client.state() == ClientState::Lost).await;
        recovered(&mut receiver, &mut client.events()).await;
        assert_eq!(consumes(&tap).1, Some(11));
        drop(receiver);
        kept.delete().await;
    }

    /// Whoever waits for a message for so long does not care why none comes.
    async fn the_idle_timeout_does_not_end_it(server: Server) {
        let kept = Kept::new(server).await;
        let tap = Tap::new(server.url()).await;
        let client = within("a connection", Client::builder(tap.url()).unwrap().recovery(patient()).connect()).await.unwrap();
        let idle = Duration::from_millis(100);
        let mut receiver = client.receiver(Source::queue(&kept.name)).idle_timeout(idle).build().await.unwrap();
        tap.refuse(true);
        tap.cut();
        assert!(within("the end", receiver.recv()).await.is_none());
        assert!(receiver.recv().await.is_none());
        assert_ne!(client.state(), ClientState::Recovering, "although the receiver is still there");
        kept.delete().await;
    }

    /// net 1993: the answer to `basic.consume` does not come, and the connection is up: a consumer that is silently dead.
    async fn recovery_hangs_on_an_answer_that_does_not_come(server: Server) {
        let kept = Kept::new(server).await;
        let tap = Arc::new(Tap::new(server.url()).await);
        let limit = Duration::from_millis(200);
        let builder = Client::builder(tap.url()).unwrap().recovery(quick()).call_deadline(limit);
        let client = within("a connection", builder.connect()).await.unwrap();
        // Other calls may take too long as well, where there is much to do.
        let given_up = {
            let tap = Arc::clone(&tap);
            let gives_up = |frame: &Frame| matches!(frame, Frame::Method(_, Method::Channel(methods::channel::Method::Close(_))));
            move || tap.frames().into_iter().filter(gives_up).count()
        };
        // When this is said the server falls silent at the next of these moments, and it is written down how many were given up before.
        let (falls_silent, before) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let make = {
            let (queue, tap, given_up) = (kept.name.clone(), Arc::clone(&tap), given_up.clone());
            let (falls_silent, before) = (Arc::clone(&falls_silent), Arc::clone(&before));
            move |_: Channel| {
                if falls_silent.swap(false, Ordering::SeqCst) {
                    tap.stall(true);
                    *before.lock().unwrap() = Some(given_up());
                }
                std::future::ready(Ok(Source::queue(queue.as_str())))
            }
        };
        let mut receiver = None;
        until("a receiver", async || {
            receiver = client.receiver_from(make.clone()).build().await.ok();
            receiver.is_some()
        })
        .await;
        let mut receiver = receiver.unwrap();
        let mut events = client.events();
        let unstall = async {
            let is_over = || before.lock().unwrap().is_some_and(|before| given_up() > before);
            until("the deadline", async || is_over()).await;
            tap.stall(false);
        };
        falls_silent.store(true, Ordering::SeqCst);
        tap.cut();
        tokio::join!(recovered(&mut receiver, &mut events), unstall);
        fill(&server.client().await, &kept.name, 0..1).await;
        assert_eq!(numbers(&mut receiver, 1).await, [0]);
        drop(receiver);
        kept.delete().await;
    }

    /// lapin 401, 403: a connection that says nothing any more is dead, and nobody notices.
    async fn a_silent_connection_is_never_replaced(server: Server) {
        let kept = Kept::new(server).await;
        let tap = Tap::new(server.url()).await;
        let builder = Client::builder(tap.url()).unwrap().heartbeat(2).recovery(quick());
        let client = within("a connection", builder.connect()).await.unwrap();
        let mut receiver = receiver(&client, &kept.name).await;
        let mut events = client.events();
        tap.stall(true);
        glance_until(&mut receiver, &client, ClientState::Recovering).await;
        let event = within("the event", events.next()).await;
        assert!(matches!(&event, Some(Event::Lost(error)) if error.kind() == ErrorKind::Heartbeat), "{event:?}");
        tap.stall(false);
        recovered(&mut receiver, &mut events).await;
        drop(receiver);
        kept.delete().await;
    }

    /// What counts as settled when it is sent is nowhere but here: it is handed out although the connection is gone.
    async fn messages_without_acks_are_dropped_with_the_connection(server: Server) {
        let kept = Kept::new(server).await;
        fill(&server.client().await, &kept.name, 0..20).await;
        let (client, tap) = server.tapped().await;
        let stream = async || client.receiver(Source::queue(&kept.name)).consumers(2).build_no_ack().await.unwrap();
        let mut stream: MessageStream = stream().await;
        let look = server.client().await;
        let look = channel(&look).await;
        until("all to be sent", async || look_at(&look, &kept.name).await.message_count() == 0).await;
        let first = within("a message", stream.recv()).await.unwrap().unwrap();
        assert_eq!(number(first.body()), 0);
        fill(&client, &kept.name, 20..21).await;
        tap.cut();
        until("the loss", async || client.state() == ClientState::Lost).await;
        // The confirm of the last one came over the same connection, behind the others.
        for _ in 1..20 {
            within("a message", stream.recv()).await.unwrap().unwrap();
        }
        fill(&server.client().await, &kept.name, 21..22).await;
        let mut last = 0;
        while last != 21 {
            last = number(within("a message", stream.recv()).await.unwrap().unwrap().body());
        }
        drop(stream);
        kept.delete().await;
    }

    /// The same where it does not begin again: what each of its consumers has is handed out before the reason is told.
    async fn messages_without_acks_are_dropped_with_the_stream(server: Server) {
        let kept = Kept::new(server).await;
        fill(&server.client().await, &kept.name, 0..20).await;
        let tap = Tap::new(server.url()).await;
        let client = within("a connection", Client::connect(tap.url())).await.unwrap();
        let builder = client.receiver(Source::queue(&kept.name)).consumers(2).recovery(RecoveryPolicy::never());
        let mut stream = builder.build_no_ack().await.unwrap();
        let look = server.client().await;
        let look = channel(&look).await;
        until("two consumers and nothing left", async || {
            let queue = look_at(&look, &kept.name).await;
            (queue.consumer_count(), queue.message_count()) == (2, 0)
        })
        .await;
        // Each has some: the first of them may have had all the others. The last confirm comes behind them.
        fill(&client, &kept.name, 20..40).await;
        until("all to be sent", async || look_at(&look, &kept.name).await.message_count() == 0).await;
        fill(&client, &kept.name, 40..41).await;
        tap.cut();
        until("the loss", async || client.state() == ClientState::Lost).await;
        let mut numbers = Vec::new();
        let reason = loop {
            match within("a message", stream.recv()).await.unwrap() {
                Ok(message) => numbers.push(number(message.body())),
                Err(reason) => break reason,
            }
        };
        assert_eq!(reason.kind(), ErrorKind::Io, "{reason}");
        numbers.sort_unstable();
        assert!(numbers.iter().take(40).copied().eq(0..40), "{numbers:?}");
        assert!(within("the end", stream.recv()).await.is_none());
        kept.delete().await;
    }

    /// What was delivered and not fetched cannot be settled any more: nobody works on it in vain.
    async fn deliveries_that_cannot_be_acked_are_handed_out(server: Server) {
        let kept = Kept::new(server).await;
        fill(&server.client().await, &kept.name, 0..20).await;
        let tap = Tap::new(server.url()).await;
        let client = within("a connection", Client::builder(tap.url()).unwrap().recovery(quick()).connect()).await.unwrap();
        let mut receiver = receiver(&client, &kept.name).await;
        let first = next(&mut receiver).await;
        let mut events = client.events();
        // The confirm of this one comes behind what is there.
        fill(&client, &kept.name, 20..21).await;
        tap.refuse(true);
        tap.cut();
        lost(&mut events).await;
        glance(&mut receiver).await;
        assert_eq!(first.accept().unwrap_err().kind(), ErrorKind::Stale);
        tap.refuse(false);
        assert_eq!(numbers(&mut receiver, 21).await, Vec::from_iter(0..21));
        drop(receiver);
        kept.delete().await;
    }

    /// Requests are answered after the loss as before it.
    async fn a_responder_that_answers_no_more(server: Server) {
        let kept = Kept::new(server).await;
        let (client, tap) = server.tapped().await;
        let responder = client.responder(Source::queue(&kept.name));
        let serves = tokio::spawn(responder.serve(async |request| {
            Ok::<_, std::convert::Infallible>(Message::new(request.body().to_vec()))
        }));
        let asks = server.client().await.requester().build().unwrap();
        for n in 0..3 {
            let reply = within("a reply", asks.request(Target::queue(&kept.name), n.to_string())).await.unwrap();
            assert_eq!(number(reply.body()), n);
            tap.cut();
        }
        serves.abort();
        let _ = serves.await;
        kept.delete().await;
    }

    /// amqp-client and Go wait a whole interval first. A server that lets one in and drops him is not asked in a busy loop
    /// (lapin 333), although each time it looked as if it had worked.
    async fn a_busy_loop_on_a_server_that_drops_everybody(server: Server) {
        let kept = Kept::new(server).await;
        let first = Duration::from_millis(20);
        let policy = RecoveryPolicy::default().backoff(Backoff { first, longest: HOUR });
        let tap = Tap::new(server.url()).await;
        let client = within("a connection", Client::builder(tap.url()).unwrap().recovery(policy).connect()).await.unwrap();
        let mut events = client.events();
        let mut receiver = receiver(&client, &kept.name).await;
        let begun = Instant::now();
        for _ in 0..5 {
            tap.cut();
            recovered(&mut receiver, &mut events).await;
        }
        // At once, and then after 20, 40, 80 and 160 ms, each shortened to no less than a half.
        assert!(begun.elapsed() >= first * 15 / 2, "{:?}", begun.elapsed());
        drop(receiver);
        kept.delete().await;
    }
}

/// Declares the queue that a test uses, wherever the client connects.
fn declares(queue: &str) -> impl Fn(Connection) -> DeclaredQueue + Send + Sync + 'static {
    let queue = queue.to_owned();
    move |connection| {
        let queue = queue.clone();
        Box::pin(async move {
            connection.open_channel().await?.queue_declare(&queue).durable(true).await?;
            Ok(())
        })
    }
}

type DeclaredQueue =
    std::pin::Pin<Box<dyn Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send>>;

/// Numbers that come to a handler, and a receiver of them that goes on when the server was away.
async fn away_and_back(server: &Own, leave: impl AsyncFnOnce(&Own)) {
    let queue = unique("queue");
    let builder = Client::builder(&server.url).unwrap().recovery(quick()).on_open(declares(&queue));
    let client = within("a connection", builder.connect()).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let receiver = receiver(&client, &queue).await;
    let handles = tokio::spawn(receiver.for_each(4, move |received| {
        tell.send(number(received.body())).unwrap();
        async { Ok::<_, std::convert::Infallible>(Disposition::Accept) }
    }));
    fill(&client, &queue, 0..1).await;
    assert_eq!(within("a message", told.recv()).await, Some(0));
    leave(server).await;
    until("the loss", async || client.state() == ClientState::Recovering).await;
    assert!(!handles.is_finished());
    server.start().await;
    until("the connection", async || client.state() == ClientState::Open).await;
    fill(&client, &queue, 1..2).await;
    // The ack of the first one may have been lost with the server.
    let mut last = 0;
    while last == 0 {
        last = within("a message", told.recv()).await.unwrap();
    }
    assert_eq!(last, 1);
    let report = within("the end", client.close()).await;
    assert!(report.is_clean(), "{report:?}");
    within("the end", handles).await.unwrap().unwrap();
}

on_every_server! {
    /// lapin 450: `docker restart rabbitmq`, here without the time for a goodbye.
    async fn the_server_is_killed_and_started_again(server: Own) {
        away_and_back(server, Own::kill).await;
    }

    /// The same, in order: connections are closed with 320.
    async fn the_server_is_stopped_and_started_again(server: Own) {
        away_and_back(server, Own::stop).await;
    }

    /// c143, c144: the server closes connections in words, and lets everybody in again.
    async fn the_operator_closes_connections_and_consumers_stay_away(server: Own) {
        let queue = unique("queue");
        let builder = Client::builder(&server.url).unwrap().on_open(declares(&queue));
        let client = within("a connection", builder.connect()).await.unwrap();
        let mut events = client.events();
        let mut receiver = receiver(&client, &queue).await;
        server.close_connections().await;
        assert_eq!(recovered(&mut receiver, &mut events).await, queue);
        fill(&client, &queue, 0..1).await;
        assert_eq!(numbers(&mut receiver, 1).await, [0]);
    }
}

/// An executor of one task, which knows nothing of tokio.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A broker that was there, and its URL.
async fn receiver_without_a_broker(policy: RecoveryPolicy) -> (Client, Receiver, std::net::SocketAddr) {
    let broker = Broker::start().await.unwrap();
    let address = broker.local_addr();
    let client = Client::builder(&broker.url()).unwrap().recovery(policy).connect().await.unwrap();
    let queue = exclusive_queue(&client).await;
    let receiver = receiver(&client, &queue).await;
    drop(broker);
    until("nobody to listen", async || TcpStream::connect(address).await.is_err()).await;
    (client, receiver, address)
}

on_its_own! {
    /// Deadlines hold wherever somebody waits, and are those of the client's runtime outside of any.
    async fn waits_where_there_is_no_runtime() {
        let broker = Arc::new(Broker::start().await.unwrap());
        let builder = Client::builder(&broker.url()).unwrap().spawn_on(tokio::runtime::Handle::current());
        let client = builder.connect().await.unwrap();
        let queue = exclusive_queue(&client).await;
        let (there, held) = (Target::queue(&queue), Arc::clone(&broker));
        // Where it was not said, it is the runtime that it was connected in.
        let other = Client::connect(&broker.url()).await.unwrap();
        let deaf = exclusive_queue(&other).await;
        let requester = other.requester().build().unwrap();
        requester.request(Target::queue("nobody"), "?").await.unwrap_err();
        let outside = std::thread::spawn(move || {
            block_on(async {
                client.ping(Duration::from_secs(20)).await.unwrap();
                let making = client.receiver_from(move |_channel| {
                    let queue = queue.clone();
                    async move { Ok(Source::queue(&queue)) }
                });
                let mut receiver = making.build().await.unwrap();
                assert!(receiver.recv_batch(1, Some(Duration::from_millis(10))).await.unwrap().is_empty());
                let asked = client.requester().build().unwrap().request(Target::queue("nobody"), "?").await;
                assert!(matches!(asked, Err(RequestError::NoRoute(_))), "{asked:?}");
                let requester = requester.with_timeout(Duration::from_millis(50));
                let asked = requester.request(Target::queue(&deaf), "?").await;
                assert!(matches!(asked, Err(RequestError::Timeout)), "{asked:?}");
                let sender = client.sender().build().unwrap();
                let error = sender.send(Target::queue("nobody"), "x").await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Returned);
                held.hold_confirms(true);
                let mut pending = sender.with_timeout(HOUR).send_pipelined(&there, "x").await.unwrap();
                assert!(pending.within(Duration::from_millis(10)).await.is_none());
                let hurried = sender.with_timeout(Duration::from_millis(100));
                let error = hurried.send(&there, "x").await.unwrap_err();
                assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown));
                assert!(!hurried.flush().await.is_ok() || hurried.in_flight() > 0);
                held.hold_confirms(false);
                pending.await.unwrap();
                assert!(sender.close().await.is_clean());
                assert!(client.close().await.is_clean());
            });
        });
        let outside = tokio::task::spawn_blocking(move || outside.join());
        within("the thread", outside).await.unwrap().unwrap();
    }

    /// Who has said for how long, is told after that: by the last error, which says how it began.
    async fn it_tries_longer_than_it_was_told() {
        let (client, mut receiver, _) = receiver_without_a_broker(quick().give_up_after(Duration::from_millis(50))).await;
        let begun = Instant::now();
        let error = within("the reason", receiver.recv()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
        assert!(error.to_string().contains("refused") && error.to_string().contains("the connection was lost ("), "{error}");
        assert!(begun.elapsed() >= Duration::from_millis(50));
        assert!(within("the end", receiver.recv()).await.is_none());
        assert_ne!(client.state(), ClientState::Recovering);
    }

    /// lapin 468: who has never been connected is told at once that nobody is there.
    async fn the_first_connect_hangs_while_nobody_is_there() {
        let (client, receiver, _) = receiver_without_a_broker(RecoveryPolicy::default()).await;
        drop(receiver);
        let config = client.config().clone();
        let error = within("the error", Client::from_config(config.clone()).connect()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
        let lazy = Client::from_config(config).lazy().unwrap();
        let error = within("the error", lazy.receiver(Source::queue("q")).build()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handshake, "{error}");
    }

    /// Not even once.
    async fn it_tries_although_it_was_told_not_to() {
        let (_, mut receiver, _) = receiver_without_a_broker(RecoveryPolicy::never()).await;
        let error = within("the reason", receiver.recv()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(within("the end", receiver.recv()).await.is_none());

        // One receiver by itself.
        let broker = Broker::start().await.unwrap();
        let client = Client::connect(&broker.url()).await.unwrap();
        let queue = exclusive_queue(&client).await;
        let builder = client.receiver(Source::queue(&queue)).recovery(RecoveryPolicy::never());
        let mut stream = builder.build_no_ack().await.unwrap();
        broker.drop_connections();
        let error = within("the reason", stream.recv()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    }

    /// lapin 333, 447: somebody listens, and hangs up on everybody. Many receivers do not make it worse.
    async fn a_hundred_consumers_knock_a_hundred_times() {
        let broker = Broker::start().await.unwrap();
        let address = broker.local_addr();
        let first = Duration::from_millis(40);
        let policy = RecoveryPolicy::default().backoff(Backoff { first, longest: HOUR });
        let client = Client::builder(&broker.url()).unwrap().recovery(policy).connect().await.unwrap();
        let queue = exclusive_queue(&client).await;
        let receivers = join_all((0..100).map(|_| receiver(&client, &queue))).await;
        drop(broker);
        let mut listener = TcpListener::bind(address).await;
        until("the port", async || {
            if listener.is_err() {
                listener = TcpListener::bind(address).await;
            }
            listener.is_ok()
        })
        .await;
        let listener = listener.unwrap();
        let begun = Instant::now();
        let knocks = async {
            // Once, and then after 40, 80 and 160 ms, each shortened to no less than a half.
            let mut knocks = 0;
            while knocks < 2 || begun.elapsed() < first * 7 {
                let limit = if knocks < 2 { PATIENCE } else { first * 7 };
                match tokio::time::timeout(limit, listener.accept()).await {
                    Ok(socket) => drop(socket.unwrap()),
                    Err(_) => break,
                }
                knocks += 1;
            }
            knocks
        };
        let mut tasks = JoinSet::new();
        for mut receiver in receivers {
            tasks.spawn(async move { receiver.recv().await });
        }
        tokio::select! {
            knocks = within("the knocking", knocks) => assert!((2..=20).contains(&knocks), "{knocks}"),
            ended = tasks.join_next() => panic!("{ended:?}"),
        }
    }

    /// The login was changed meanwhile: nobody tries on and on, until the account is locked.
    async fn an_endless_loop_on_a_refused_login() {
        let (_, mut receiver, address) = receiver_without_a_broker(quick()).await;
        let _broker = broker_at(address, || Broker::builder().user("guest", "another")).await;
        let error = within("the reason", receiver.recv()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        assert!(within("the end", receiver.recv()).await.is_none());
    }

    /// c19: the same of the virtual host, which is not there any more.
    async fn an_endless_loop_on_a_virtual_host_that_is_gone() {
        let (_, mut receiver, address) = receiver_without_a_broker(quick()).await;
        let _broker = broker_at(address, || Broker::builder().virtual_host("another")).await;
        let error = within("the reason", receiver.recv()).await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.reply_code().unwrap().0), (ErrorKind::ConnectionClosed, 530), "{error}");
        assert!(within("the end", receiver.recv()).await.is_none());
    }

    /// c143: whoever provides secrets is asked for each connection, for the last one may have expired meanwhile.
    async fn a_secret_that_has_expired_is_tried_again() {
        let broker = Broker::start().await.unwrap();
        let address = broker.local_addr();
        let asked = AtomicU32::new(0);
        let provider = move || {
            let secret = if asked.fetch_add(1, Ordering::Relaxed) == 0 { "guest" } else { "fresh" };
            let credentials = ExpiringCredentials::new(Credentials::new("guest", secret));
            std::future::ready(Ok::<_, std::io::Error>(credentials))
        };
        let builder = Client::builder(&broker.url()).unwrap().amqp(|builder| builder.credentials_provider(provider));
        let client = builder.recovery(quick()).on_open(declares("kept")).connect().await.unwrap();
        let mut receiver = receiver(&client, "kept").await;
        let mut events = client.events();
        broker.close_connections(320, "CONNECTION_FORCED - credential expired");
        drop(broker);
        let _broker = broker_at(address, || Broker::builder().user("guest", "fresh")).await;
        recovered(&mut receiver, &mut events).await;
    }

    /// A stream that was handed over is the only one of its kind, unless somebody says otherwise.
    async fn another_connection_in_place_of_a_stream_that_was_handed_over() {
        let broker = Broker::start().await.unwrap();
        for (policy, comes_back) in [(None, false), (Some(RecoveryPolicy::default()), true)] {
            let mut builder = Client::builder(&broker.url()).unwrap().on_open(declares("kept"));
            if let Some(policy) = policy {
                builder = builder.recovery(policy);
            }
            let stream = TcpStream::connect(broker.local_addr()).await.unwrap();
            let client = builder.connect_with(stream).await.unwrap();
            let mut receiver = receiver(&client, "kept").await;
            broker.drop_connections();
            if comes_back {
                recovered(&mut receiver, &mut client.events()).await;
            } else {
                let error = within("the reason", receiver.recv()).await.unwrap().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            }
        }
    }

    /// What `on_open` does is done before anybody has the connection, and each time; where it fails, so does connecting.
    async fn a_connection_is_used_before_its_queues_are_there() {
        let broker = Broker::start().await.unwrap();
        let client = Client::builder(&broker.url()).unwrap().on_open(declares("orders")).lazy().unwrap();
        fill(&client, "orders", 0..1).await;

        let taken = |connection: Connection| async move {
            connection.open_channel().await?.queue_declare("orders").await?;
            Ok(())
        };
        let client = Client::builder(&broker.url()).unwrap().on_open(taken).lazy().unwrap();
        let mut events = client.events();
        let error = client.ready().await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code().unwrap().0), (ErrorKind::ChannelClosed, 406), "{error}");
        assert!(error.to_string().starts_with("on_open has failed: "), "{error}");
        assert!(matches!(within("the event", events.next()).await, Some(Event::ConnectFailed(_))));
        assert_eq!(client.state(), ClientState::Idle);

        let own = |_| async { Err("no such tenant".into()) };
        let error = Client::builder(&broker.url()).unwrap().on_open(own).connect().await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (ErrorKind::Handshake, "on_open has failed: no such tenant".to_owned()));

        // The time may be over before there is a connection to be stuck with.
        let is_stuck = Arc::new(AtomicBool::new(false));
        until("the deadline of on_open", async || {
            let sticks = Arc::clone(&is_stuck);
            let stuck = move |_| {
                sticks.store(true, Ordering::SeqCst);
                std::future::pending()
            };
            let builder = Client::builder(&broker.url()).unwrap().connect_timeout(Duration::from_millis(50)).on_open(stuck);
            let error = builder.connect().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            let is_stuck = is_stuck.load(Ordering::SeqCst);
            assert_eq!(error.to_string().contains("on_open"), is_stuck, "{error}");
            is_stuck
        })
        .await;
    }

    /// As with `on_open`.
    async fn a_source_that_cannot_be_made() {
        let broker = Broker::start().await.unwrap();
        let client = Client::connect(&broker.url()).await.unwrap();
        let missing = |channel: Channel| async move {
            let queue = channel.queue_declare("nowhere").passive(true).await?;
            Ok(Source::queue(queue.name()))
        };
        let error = client.receiver_from(missing).build().await.unwrap_err();
        assert_eq!((error.kind(), error.reply_code().unwrap().0), (ErrorKind::ChannelClosed, 404), "{error}");
        assert!(error.to_string().starts_with("receiver_from has failed: "), "{error}");
        let topic = |_| async { Ok(Source::topic("t", "g")) };
        let error = client.receiver_from(topic).build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }

    /// Receivers are streams like others, for whatever executor: beginning again, and waiting before that, is done with the runtime
    /// that the receiver was built in.
    async fn whoever_polls_it_has_no_runtime() {
        let broker = Broker::start().await.unwrap();
        let client = Client::builder(&broker.url()).unwrap().recovery(quick()).on_open(declares("q")).connect().await.unwrap();
        let mut receiver = receiver(&client, "q").await;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let thread = std::thread::spawn(move || {
            while let Some(delivery) = block_on(receiver.recv()) {
                let delivery = delivery.unwrap();
                tell.send(number(delivery.body())).unwrap();
                // Too late where the connection is cut just now.
                let _ = delivery.accept();
            }
        });
        for n in 0..3 {
            fill(&Client::connect(&broker.url()).await.unwrap(), "q", n..n + 1).await;
            while within("a message", told.recv()).await != Some(n) {}
            let mut events = client.events();
            broker.drop_connections();
            within("the receiver to come back", async {
                while !matches!(events.next().await, Some(Event::Recovered(_))) {}
            })
            .await;
        }
        client.close().await;
        within("the end", async { while told.recv().await.is_some() {} }).await;
        thread.join().unwrap();
    }

    /// The same of the time that nothing comes.
    async fn whoever_polls_it_has_no_timers() {
        let broker = Broker::start().await.unwrap();
        let client = Client::connect(&broker.url()).await.unwrap();
        let queue = exclusive_queue(&client).await;
        let builder = || client.receiver(Source::queue(&queue)).idle_timeout(Duration::from_millis(20));
        let (mut receiver, mut stream) = (builder().build().await.unwrap(), builder().build_no_ack().await.unwrap());
        let (tell, told) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let ends = (block_on(receiver.recv()).is_none(), block_on(stream.recv()).is_none());
            tell.send(ends).unwrap();
        });
        assert_eq!(within("the end", told).await, Ok((true, true)));
        thread.join().unwrap();
    }

    /// Receivers can be anywhere.
    async fn receivers_belong_to_one_thread() {
        fn is_shared<T: Send + Sync + Unpin + 'static>() {}
        is_shared::<Receiver>();
        is_shared::<MessageStream>();
        is_shared::<leveret::messaging::ReceiverBuilder>();
    }
}
