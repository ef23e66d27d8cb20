//! Publishing: confirms, returns, windows, and what is told when it goes wrong.

use std::time::Duration;

use futures_util::future::join_all;
use leveret::amqp::{Confirmation, Connection, Properties};
use leveret::broker::Broker;
use leveret::codec::Frame;
use leveret::codec::method::{basic, connection};
use leveret::error::{ErrorKind, Outcome};

use crate::scripted::{TUNE, channel_of, connected, connected_as};
use crate::support::{
    PATIENCE, Server, assert_channel_closed, assert_works, exclusive_queue, fill, next, number, ready, ready_at_once,
    unique, until, within,
};

on_every_server! {
    /// c90: tags count what was published after the select.
    async fn confirms_are_counted_from_the_select_on(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        let before = channel.basic_publish("", &queue, "0").await.unwrap();
        assert_eq!(before.delivery_tag(), 0);
        let confirmation = within("no confirm", before).await.unwrap();
        assert_eq!(confirmation, Confirmation::NotRequested);
        // lmnr 2408: nobody is to take that for a yes.
        let error = confirmation.accepted().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidArgument, Outcome::Unknown));
        channel.confirm_select().await.unwrap();
        channel.confirm_select().await.expect("a second time is fine");
        for tag in 1..4 {
            let confirm = channel.basic_publish("", &queue, tag.to_string()).await.unwrap();
            assert_eq!(confirm.delivery_tag(), tag);
            assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
        }
        assert_eq!(channel.unconfirmed(), 0);
        for expected in 0..4 {
            let message = channel.basic_get(&queue).no_ack().await.unwrap().unwrap();
            assert_eq!(number(&message), expected);
        }
    }

    /// c91, c96: thousands in flight, confirmed by a few acks of many; and asked in any order.
    async fn thousands_of_confirms_in_flight(server: Server) {
        const MANY: u32 = 10_000;
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        let mut confirms = Vec::new();
        for _ in 0..MANY {
            confirms.push(channel.basic_publish("", &queue, "x").await.unwrap());
        }
        let last = confirms.pop().unwrap();
        assert_eq!(within("the last confirm", last).await.unwrap(), Confirmation::Ack(None));
        for confirm in confirms.into_iter().rev() {
            assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
        }
        assert_eq!(channel.unconfirmed(), 0);
        assert_eq!(ready(&channel, &queue).await, MANY);
    }

    /// Persistent messages are written to disk before they are confirmed, together where there are many (c96).
    async fn persistent_messages_in_a_durable_queue(server: Server) {
        let channel = server.channel().await;
        let queue = unique("durable");
        channel.queue_declare(&queue).durable(true).await.unwrap();
        channel.confirm_select().await.unwrap();
        let properties = Properties::new().persistent();
        let publish = |n: u32| channel.basic_publish("", &queue, n.to_string()).properties(&properties);
        for confirm in join_all((0..1000).map(publish)).await {
            assert_eq!(within("a confirm", confirm.unwrap()).await.unwrap(), Confirmation::Ack(None));
        }
        assert_eq!(channel.queue_delete(&queue).await.unwrap(), 1000);
    }

    /// c97: what is published and what is delivered on one channel is counted apart, from 1 each.
    async fn confirms_and_deliveries_are_counted_apart(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..3).await;
        let mut consumer = channel.basic_consume(&queue).await.unwrap();
        for expected in 0..3 {
            let delivery = next(&mut consumer).await;
            assert_eq!((number(&delivery), delivery.delivery_tag()), (expected, u64::from(expected) + 1));
            delivery.ack().unwrap();
            let confirm = channel.basic_publish("", "nowhere.at.all", "x").await.unwrap();
            assert_eq!(confirm.delivery_tag(), u64::from(expected) + 4);
            assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
        }
        assert_works(&channel).await;
    }

    /// c92, c94: what no queue takes is acked, and says that it came back.
    async fn an_unroutable_mandatory_message_comes_back(server: Server) {
        let channel = server.channel().await;
        channel.confirm_select().await.unwrap();
        let key = unique("nowhere");
        let properties = Properties::new().message_id("m-1").header("k", 7);
        let publish = channel.basic_publish("amq.direct", &key, "body").properties(&properties).mandatory(true);
        let confirm = publish.await.unwrap();
        let Confirmation::Ack(Some(returned)) = within("a confirm", confirm).await.unwrap() else {
            panic!("it was not returned");
        };
        assert_eq!(returned.reply_code().0, 312);
        assert_eq!(returned.reply_text(), "NO_ROUTE");
        let message = returned.message();
        assert_eq!(message.body(), b"body");
        assert_eq!((message.exchange().to_string(), message.routing_key().to_string()), ("amq.direct".into(), key.clone()));
        assert_eq!(message.properties().unwrap(), properties);

        let confirm = channel.basic_publish("amq.direct", &key, "body").await.unwrap();
        assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None), "nobody asked for it back");
    }

    /// c93: without confirms returns come by themselves.
    async fn returns_without_confirms(server: Server) {
        let channel = server.channel().await;
        let key = unique("nowhere");
        let mut returns = channel.returned_messages();
        for n in 0..3 {
            let confirm = channel.basic_publish("", &key, n.to_string()).mandatory(true).await.unwrap();
            assert_eq!(within("no confirm", confirm).await.unwrap(), Confirmation::NotRequested);
        }
        for n in 0..3 {
            let (returned, lost) = within("a return", returns.next()).await.unwrap();
            assert_eq!((number(&returned.message()), lost, returned.reply_code().0), (n, 0, 312));
        }
        channel.close().await.unwrap();
        assert!(within("the end of returns", returns.next()).await.is_none());
    }

    /// The last 1024 returns are kept for whoever asks, and the loss of older ones is told.
    async fn returns_that_nobody_asks_for(server: Server) {
        let channel = server.channel().await;
        let key = unique("nowhere");
        for n in 0..1500u32 {
            drop(channel.basic_publish("", &key, n.to_string()).mandatory(true).await.unwrap());
        }
        assert_works(&channel).await; // whose answer stands behind all returns
        let mut returns = channel.returned_messages();
        for n in 476..1500 {
            let (returned, lost) = within("a return", returns.next()).await.unwrap();
            assert_eq!((number(&returned.message()), lost), (n, if n == 476 { 476 } else { 0 }));
        }
    }

    /// c93: among a thousand that are published at the same time exactly those come back that no queue takes.
    async fn exactly_the_unroutable_ones_come_back(server: Server) {
        let channel = server.channel().await;
        let (queue, nowhere) = (exclusive_queue(&channel).await, unique("nowhere"));
        channel.confirm_select().await.unwrap();
        let tasks = (0..1000u32).map(|n| {
            let (channel, key) = (channel.clone(), if n % 2 == 1 { nowhere.clone() } else { queue.clone() });
            tokio::spawn(async move {
                let confirm = channel.basic_publish("", &key, n.to_string()).mandatory(true).await.unwrap();
                match within("a confirm", confirm).await.unwrap() {
                    Confirmation::Ack(Some(returned)) => {
                        assert_eq!(number(&returned.message()), n, "it is the very same message");
                        true
                    }
                    Confirmation::Ack(None) => false,
                    other => panic!("{other:?}"),
                }
            })
        });
        for (n, came_back) in join_all(tasks).await.into_iter().enumerate() {
            assert_eq!(came_back.unwrap(), n % 2 == 1, "message {n}");
        }
        assert_eq!(ready(&channel, &queue).await, 500);
    }

    /// As above, where only the exchange, only the key, or nothing but the body tells the messages apart.
    async fn returns_of_messages_that_look_alike(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        let direct = unique("direct");
        channel.exchange_declare(&direct, "direct").auto_delete(true).await.unwrap();
        channel.queue_bind(&queue, &direct, "a").await.unwrap();
        channel.confirm_select().await.unwrap();
        let mut expected = Vec::new();
        let mut confirms = Vec::new();
        for round in 0..100 {
            for (exchange, key, goes_back) in
                [(direct.as_str(), "a", false), ("amq.direct", "a", true), (&direct, "b", true), ("", &queue, false)]
            {
                let publish = channel.basic_publish(exchange, key, "the same").mandatory(round % 2 == 0);
                confirms.push(publish.await.unwrap());
                expected.push(goes_back && round % 2 == 0);
            }
        }
        for (confirm, expected) in confirms.into_iter().zip(expected) {
            let came_back = matches!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(Some(_)));
            assert_eq!(came_back, expected);
        }
    }

    /// c50, c51, c99, c102: all that is outstanding ends with the server's words, and the neighbour does not notice.
    async fn publishing_to_an_exchange_that_is_not_there(server: Server) {
        let connection = server.connect().await;
        let (channel, neighbour) = (connection.open_channel().await.unwrap(), connection.open_channel().await.unwrap());
        let (queue, nothing) = (exclusive_queue(&neighbour).await, unique("nothing"));
        channel.confirm_select().await.unwrap();
        fill(&neighbour, &queue, 0..1).await;
        // Behind the wrong one, so that the server never sees them.
        let mut confirms = vec![channel.basic_publish(&nothing, "", "wrong").await.unwrap()];
        for _ in 0..100 {
            match channel.basic_publish("", &queue, "right").await {
                Ok(confirm) => confirms.push(confirm),
                Err(error) => assert_eq!(error.outcome(), Outcome::NotSent),
            }
        }
        for confirm in confirms {
            let error = within("an error", confirm).await.unwrap_err();
            assert_channel_closed(&error, 404);
            assert_eq!(error.outcome(), Outcome::Unknown);
            assert!(error.reply_text().unwrap().contains(&nothing), "{error}");
            assert_eq!(error.failing_method(), Some((60, 40)), "basic.publish");
        }
        let error = channel.basic_publish("", &queue, "late").await.unwrap_err();
        assert_channel_closed(&error, 404);
        assert_eq!(error.outcome(), Outcome::NotSent);
        fill(&neighbour, &queue, 1..2).await;
        assert_eq!(ready(&neighbour, &queue).await, 2, "what stood behind the wrong one was dropped");
        assert_works(&connection.open_channel().await.unwrap()).await;
    }

    /// c101: the only way to have it is to ask for it.
    async fn immediate_is_not_implemented(server: Server) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        channel.confirm_select().await.unwrap();
        let confirm = channel.basic_publish("", "nowhere", "x").immediate(true).await.unwrap();
        let error = within("an error", confirm).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionClosed, "{error}");
        assert_eq!(error.reply_code().map(|code| code.0), Some(540));
        assert_eq!(error.failing_method(), Some((60, 40)), "c52");
        let end = within("the end", connection.closed()).await.unwrap_err();
        assert_eq!(end.reply_code().map(|code| code.0), Some(540));
    }

    /// c83
    async fn somebody_elses_user_id_is_refused(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        let properties = Properties::new().user_id("guest");
        let own = channel.basic_publish("", &queue, "x").properties(&properties).await.unwrap();
        assert_eq!(within("a confirm", own).await.unwrap(), Confirmation::Ack(None));
        let properties = Properties::new().user_id("somebody else");
        let other = channel.basic_publish("", &queue, "x").properties(&properties).await.unwrap();
        assert_channel_closed(&within("an error", other).await.unwrap_err(), 406);
    }

    /// Nothing grows with confirms that nobody asks for.
    async fn forgotten_confirms(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        for _ in 0..5000 {
            drop(channel.basic_publish("", &queue, "x").mandatory(true).await.unwrap());
            drop(channel.basic_publish("", "nowhere.at.all", "x").mandatory(true).await.unwrap());
        }
        until("all to be confirmed", async || channel.unconfirmed() == 0).await;
        assert_eq!(ready(&channel, &queue).await, 5000);
        let confirm = channel.basic_publish("", &queue, "x").await.unwrap();
        assert_eq!(confirm.delivery_tag(), 10_001);
        assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
    }

    /// Everything that was published so far is settled, whatever is published meanwhile, and whoever has dropped his confirm.
    async fn waiting_for_all_confirms(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        within("nothing to wait for", channel.wait_for_confirms()).await.unwrap();
        channel.confirm_select().await.unwrap();
        within("nothing to wait for", channel.wait_for_confirms()).await.unwrap();
        let mut returned = None;
        for n in 0..500 {
            drop(channel.basic_publish("", &queue, "x").mandatory(true).await.unwrap());
            if n == 250 {
                returned = Some(channel.basic_publish("", "nowhere.at.all", "x").mandatory(true).await.unwrap());
            }
        }
        let more = async {
            for _ in 0..500 {
                drop(channel.basic_publish("", &queue, "x").await.unwrap());
                tokio::task::yield_now().await;
            }
        };
        let (waited, ()) = tokio::join!(within("the confirms", channel.wait_for_confirms()), more);
        waited.unwrap();
        let confirmation = ready_at_once(&mut Box::pin(returned.unwrap())).await;
        assert!(confirmation, "it is known by now");
        within("the rest", channel.wait_for_confirms()).await.unwrap();
        assert_eq!((channel.unconfirmed(), ready(&channel, &queue).await), (0, 1000));
        // What will never be confirmed is not waited for.
        drop(channel.basic_publish("no.such.exchange", "", "x").await.unwrap());
        let error = within("an error", channel.wait_for_confirms()).await.unwrap_err();
        assert_channel_closed(&error, 404);
        assert_eq!(error.outcome(), Outcome::Unknown);
    }

    /// A confirm that was waited for, given up, and waited for again.
    async fn a_confirm_can_be_asked_twice(server: Server) {
        let channel = server.channel().await;
        channel.confirm_select().await.unwrap();
        let mut confirm = channel.basic_publish("", "nowhere.at.all", "x").mandatory(true).await.unwrap();
        let confirmation = match tokio::time::timeout(Duration::ZERO, &mut confirm).await {
            Ok(at_once) => at_once,
            Err(_) => within("the confirm", &mut confirm).await,
        };
        assert!(matches!(confirmation.unwrap(), Confirmation::Ack(Some(_))));
        let error = within("an error", &mut confirm).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "it is not told twice, and not otherwise: {error}");
    }

    /// No more messages are unconfirmed than the window allows, and everybody has his turn.
    async fn a_window_of_ten_for_a_thousand_tasks(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select_with_window(10).await.unwrap();
        let tasks = (0..1000u32).map(|n| {
            let (channel, queue) = (channel.clone(), queue.clone());
            tokio::spawn(async move {
                let confirm = channel.basic_publish("", &queue, n.to_string()).deadline(PATIENCE).await.unwrap();
                let seen = channel.unconfirmed();
                assert!(seen <= 10, "{seen} are unconfirmed");
                within("a confirm", confirm).await.unwrap()
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            assert_eq!(task.await.unwrap(), Confirmation::Ack(None));
        }
        assert_eq!(ready(&channel, &queue).await, 1000);
    }

    /// Futures of publishes that are dropped while they wait take nobody's turn and no tag (pain 6).
    async fn publishers_that_give_up(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select_with_window(2).await.unwrap();
        let mut sent = 0;
        let tasks: Vec<_> = (0..500u32)
            .map(|n| {
                let (channel, queue) = (channel.clone(), queue.clone());
                tokio::spawn(async move {
                    let limit = if n % 2 == 0 { Duration::from_millis(u64::from(n % 5)) } else { PATIENCE };
                    let publish = async { channel.basic_publish("", &queue, n.to_string()).deadline(PATIENCE).await };
                    match tokio::time::timeout(limit, publish).await {
                        Ok(confirm) => {
                            within("a confirm", confirm.unwrap()).await.unwrap().accepted().unwrap();
                            1
                        }
                        Err(_) => 0,
                    }
                })
            })
            .collect();
        for task in tasks {
            sent += task.await.unwrap();
        }
        assert!(sent >= 250);
        assert_eq!(ready(&channel, &queue).await, sent, "exactly those that did not give up were sent");
    }

    /// c61: a routing key of 255 octets is sent, one of 256 is not, and harms nothing.
    async fn routing_keys_at_the_limit(server: Server) {
        let channel = server.channel().await;
        let (queue, exchange) = (exclusive_queue(&channel).await, unique("exchange"));
        channel.exchange_declare(&exchange, "topic").auto_delete(true).await.unwrap();
        channel.queue_bind(&queue, &exchange, "#").await.unwrap();
        channel.confirm_select().await.unwrap();
        let longest = "k".repeat(255);
        for key in [longest.as_str(), &"\u{e9}".repeat(127), ""] {
            let confirm = channel.basic_publish(&exchange, key, "x").mandatory(true).await.unwrap();
            assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
            let message = channel.basic_get(&queue).no_ack().await.unwrap().unwrap();
            assert_eq!(message.routing_key(), *key);
        }
        for error in [
            channel.basic_publish(&exchange, &"k".repeat(256), "x").await.unwrap_err(),
            channel.basic_publish(&exchange, &"\u{e9}".repeat(128), "x").await.unwrap_err(),
            channel.basic_publish(&"e".repeat(256), "", "x").await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert_eq!(error.outcome(), Outcome::NotSent);
        }
        assert_eq!(channel.unconfirmed(), 0, "they took no tag");
        let confirm = channel.basic_publish(&exchange, &longest, "x").mandatory(true).await.unwrap();
        assert_eq!(confirm.delivery_tag(), 4);
        assert_eq!(within("a confirm", confirm).await.unwrap(), Confirmation::Ack(None));
    }
}

on_every_server! {
    /// c95
    async fn a_full_queue_refuses(server: Server) {
        let channel = server.channel().await;
        let queue = unique("full");
        let declare = channel.queue_declare(&queue).exclusive(true).argument("x-max-length", 1);
        declare.argument("x-overflow", "reject-publish").await.unwrap();
        channel.confirm_select().await.unwrap();
        let mut nacks = 0;
        for _ in 0..3 {
            match within("a confirm", channel.basic_publish("", &queue, "x").await.unwrap()).await.unwrap() {
                Confirmation::Ack(None) => {}
                Confirmation::Nack(None) => nacks += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(nacks >= 1, "the queue has room for one");
        // Nobody waits for these, and they are nacked all the same.
        for _ in 0..100 {
            drop(channel.basic_publish("", &queue, "x").await.unwrap());
        }
        until("all to be settled", async || channel.unconfirmed() == 0).await;
    }
}

on_its_own! {
    /// c92: what came back is there also where its channel ended before the ack.
    async fn a_message_that_came_back_before_its_channel_ended() {
        let broker = Broker::start().await.unwrap();
        broker.script(["published 2: close channels 404 \"NOT_FOUND - gone\"".parse().unwrap()]);
        let connection = Connection::open(&broker.url()).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        channel.confirm_select().await.unwrap();
        broker.hold_confirms(true);
        let mut confirm = channel.basic_publish("", "nowhere", "back").mandatory(true).await.unwrap();
        assert!(confirm.take_returned().is_none(), "nothing is known yet");
        let mut lost = channel.basic_publish("", "nowhere", "lost").await.unwrap();
        for _ in 0..2 {
            let error = within("an error", &mut confirm).await.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Returned, Outcome::Refused), "{error}");
        }
        let returned = confirm.take_returned().unwrap();
        assert_eq!((returned.reply_code().0, returned.message().body()), (312, &b"back"[..]));
        assert!(confirm.take_returned().is_none(), "it is told once");
        let error = within("an error", &mut lost).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::ChannelClosed, Outcome::Unknown), "{error}");
        assert!(lost.take_returned().is_none());
    }

    /// What was not sent is not on the wire, and tags have no gaps.
    async fn a_publisher_dropped_while_it_waits_for_the_window() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let (selected, ()) = tokio::join!(channel.confirm_select_with_window(1), async {
            expect!(peer, Confirm(confirm)::Select);
            peer.send(1, leveret::codec::method::confirm::SelectOk {}).await;
        });
        selected.unwrap();
        let first = channel.basic_publish("", "q", "first").await.unwrap();
        for _ in 0..3 {
            let publish = async { channel.basic_publish("", "q", "given up").await };
            tokio::time::timeout(Duration::from_millis(5), publish).await.expect_err("the window is full");
        }
        let full = channel.basic_publish("", "q", "too late").deadline(Duration::from_millis(5)).await.unwrap_err();
        assert_eq!((full.kind(), full.outcome()), (ErrorKind::Timeout, Outcome::NotSent));
        assert_eq!(peer.published().await.1, "first");
        peer.send(1, basic::Ack { delivery_tag: 1, multiple: false }).await;
        assert_eq!(within("a confirm", first).await.unwrap(), Confirmation::Ack(None));
        let second = channel.basic_publish("", "q", "second").await.unwrap();
        assert_eq!(second.delivery_tag(), 2);
        assert_eq!(peer.published().await.1, "second");
    }

    /// Somebody who has room but may not send, because the server is blocked meanwhile, passes the room on when he goes.
    async fn a_publisher_who_leaves_passes_the_room_on() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let (selected, ()) = tokio::join!(channel.confirm_select_with_window(1), async {
            expect!(peer, Confirm(confirm)::Select);
            peer.send(1, leveret::codec::method::confirm::SelectOk {}).await;
        });
        selected.unwrap();
        let _first = channel.basic_publish("", "q", "first").await.unwrap();
        assert_eq!(peer.published().await.1, "first");
        let (gone, stays) = (channel.clone(), channel.clone());
        let mut leaver = Box::pin(async { gone.basic_publish("", "q", "given up").await.map(drop) });
        assert!(!ready_at_once(&mut leaver).await);
        let never = Duration::from_secs(3600);
        let mut stayer = Box::pin(async move { stays.basic_publish("", "q", "second").deadline(never).await.map(drop) });
        assert!(!ready_at_once(&mut stayer).await);
        let stayer = tokio::spawn(stayer);
        peer.frames(&[
            Frame::Method(0, connection::Blocked { reason: "for a while".into() }.into()),
            Frame::Method(1, basic::Ack { delivery_tag: 1, multiple: false }.into()),
        ])
        .await;
        until("the ack", async || channel.unconfirmed() == 0).await;
        assert!(!ready_at_once(&mut leaver).await, "there is room, but the server is blocked");
        drop(leaver);
        peer.send(0, connection::Unblocked {}).await;
        within("the one who stayed", stayer).await.unwrap().unwrap();
        assert_eq!(peer.published().await.1, "second");
    }

    /// c137: the server stops the content of one channel, and nothing else.
    async fn the_server_stops_the_flow_of_a_channel() {
        use leveret::codec::method::channel;
        let (connection, mut peer) = connected().await;
        let stopped = channel_of(&connection, &mut peer).await;
        let other = channel_of(&connection, &mut peer).await;
        peer.send(1, channel::Flow { active: false }).await;
        assert_eq!(expect!(peer, Channel(channel)::FlowOk), (1, channel::FlowOk { active: false }));
        let limit = Duration::from_millis(20);
        let error = stopped.basic_publish("", "q", "x").deadline(limit).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotSent));
        drop(other.basic_publish("", "q", "other").await.unwrap());
        assert_eq!(peer.published().await, (2, "other".into()));
        let (published, ()) = tokio::join!(stopped.basic_publish("", "q", "later"), async {
            peer.send(1, channel::Flow { active: true }).await;
            assert_eq!(expect!(peer, Channel(channel)::FlowOk), (1, channel::FlowOk { active: true }));
        });
        drop(published.unwrap());
        assert_eq!(peer.published().await, (1, "later".into()));
    }

    /// Confirms that no publish has asked for break the protocol; the client says so and does not guess.
    async fn a_confirm_for_nothing() {
        let (connection, mut peer) = connected_as(TUNE, |builder| builder).await;
        let channel = channel_of(&connection, &mut peer).await;
        peer.send(1, basic::Ack { delivery_tag: 9, multiple: false }).await;
        let error = within("the end", connection.closed()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(!channel.is_open());
        let (_, close) = expect!(peer, Connection(connection)::Close);
        assert_eq!(close.reply_code, 503, "c57: the peer is told");
    }
}
