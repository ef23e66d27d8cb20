//! Fetching messages one by one, and settling them in every way.

use leveret::amqp::{Channel, Delivery};
use leveret::codec::method::{basic, channel as channel_class};
use leveret::error::{ErrorKind, Outcome};

use crate::scripted::{channel_of, connected, content};
use crate::support::{
    Server, assert_channel_closed, assert_works, exclusive_queue, fill, next, number, ready, until, within,
};

async fn get(channel: &Channel, queue: &str) -> Delivery {
    channel.basic_get(queue).await.unwrap().unwrap().delivery
}

on_every_server! {
    /// c117
    async fn fetching(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        assert!(channel.basic_get(&queue).await.unwrap().is_none());
        assert!(channel.basic_get(&queue).no_ack().await.unwrap().is_none());
        fill(&channel, &queue, 0..3).await;
        let got = channel.basic_get(&queue).await.unwrap().unwrap();
        assert_eq!((number(&got.delivery), got.message_count), (0, 2));
        assert_eq!((got.delivery.routing_key().to_string(), got.delivery.redelivered()), (queue.clone(), false));
        got.delivery.ack().unwrap();
        assert_eq!(number(&channel.basic_get(&queue).no_ack().await.unwrap().unwrap()), 1);
        assert_eq!(ready(&channel, &queue).await, 1);
    }

    async fn each_way_of_settling(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..7).await;

        get(&channel, &queue).await.ack().unwrap();
        assert_eq!(ready(&channel, &queue).await, 6);
        get(&channel, &queue).await.nack(false).unwrap();
        assert_eq!(ready(&channel, &queue).await, 5);
        get(&channel, &queue).await.reject(false).unwrap();
        assert_eq!(ready(&channel, &queue).await, 4);

        get(&channel, &queue).await.nack(true).unwrap();
        until("it to be back", async || ready(&channel, &queue).await == 4).await;
        let again = get(&channel, &queue).await;
        assert_eq!((number(&again), again.redelivered()), (3, true), "c121: back at its old place");
        again.reject(true).unwrap();
        until("it to be back", async || ready(&channel, &queue).await == 4).await;

        let [_, second, third, fourth] = [
            get(&channel, &queue).await, get(&channel, &queue).await, get(&channel, &queue).await,
            get(&channel, &queue).await,
        ];
        second.nack_multiple(true).unwrap();
        until("two to be back", async || ready(&channel, &queue).await == 2).await;
        fourth.ack_multiple().unwrap();
        assert_eq!(ready(&channel, &queue).await, 2);
        assert_eq!(third.ack().unwrap_err().kind(), ErrorKind::Stale, "it was settled with the fourth");
        assert_works(&channel).await;
        let last = [get(&channel, &queue).await, get(&channel, &queue).await];
        assert_eq!([number(&last[0]), number(&last[1])], [3, 4]);
        let [_, last] = last;
        last.nack_multiple(false).unwrap();
        assert_eq!(ready(&channel, &queue).await, 0);
    }

    /// What belongs to a channel goes back when the channel closes (c50).
    async fn closing_a_channel_gives_back_what_is_unsettled(server: Server) {
        let (channel, other, queue) = server.filled(0..10).await;
        let mut consumer = channel.basic_consume(&queue).await.unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!(number(&delivery), 0);
        channel.close().await.unwrap();
        until("all to be back", async || ready(&other, &queue).await == 10).await;

        // c111: and settling it now is a mistake that harms nobody.
        let error = delivery.ack().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Stale, Outcome::NotSent), "{error}");
        assert_works(&other).await;
        let again = get(&other, &queue).await;
        assert_eq!((number(&again), again.redelivered()), (0, true));
    }

    /// c109: channels count their deliveries apart, and a delivery knows its own.
    async fn a_delivery_is_settled_on_its_own_channel(server: Server) {
        let connection = server.connect().await;
        let (one, two) = (connection.open_channel().await.unwrap(), connection.open_channel().await.unwrap());
        let queue = exclusive_queue(&one).await;
        fill(&one, &queue, 0..4).await;
        let [first, second] = [get(&one, &queue).await, get(&two, &queue).await];
        assert_eq!((first.delivery_tag(), second.delivery_tag()), (1, 1));
        let (message, acker) = second.detach();
        assert_eq!((number(&message), acker.delivery_tag()), (1, 1));
        // On another thread, without a runtime.
        std::thread::spawn(move || acker.ack().unwrap()).join().unwrap();
        first.ack().unwrap();
        assert_works(&one).await;
        assert_works(&two).await;
        assert_eq!(ready(&one, &queue).await, 2);
    }

    /// c118, c110
    async fn recovering(server: Server) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..2).await;
        let first = get(&channel, &queue).await;
        channel.basic_recover().await.unwrap();
        until("it to be back", async || ready(&channel, &queue).await == 2).await;
        let again = get(&channel, &queue).await;
        assert_eq!((number(&again), again.redelivered()), (0, true));
        again.ack().unwrap();

        // The tag of the first time is unknown now.
        first.ack().expect("nobody here knows");
        let error = channel.queue_declare(&queue).passive(true).await.unwrap_err();
        assert_channel_closed(&error, 406);
        assert!(error.reply_text().unwrap().contains("unknown delivery tag 1"), "{error}");
        assert!(connection.is_open());
        let channel = connection.open_channel().await.unwrap();
        until("the rest", async || ready(&channel, &queue).await == 1).await;
    }

    /// Thousands of acks, one by one and by the hundred, from several tasks.
    async fn many_acks(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..3000).await;
        let mut consumer = channel.basic_consume(&queue).prefetch(500).await.unwrap();
        let mut tasks = Vec::new();
        for n in 0..3000 {
            let delivery = next(&mut consumer).await;
            if n < 1500 {
                tasks.push(tokio::spawn(async move { delivery.ack().unwrap() }));
            } else {
                if n == 1500 {
                    for task in tasks.drain(..) {
                        task.await.unwrap();
                    }
                }
                if n % 100 == 99 {
                    delivery.ack_multiple().unwrap();
                }
            }
        }
        assert_works(&channel).await;
        channel.close().await.unwrap();
    }
}

on_its_own! {
    /// c111: after the end of its channel nothing is sent for a delivery, and its number may belong to another by then.
    async fn settling_after_the_channel_was_closed_by_the_server() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let fetch = async { channel.basic_get("q").await };
        let (got, ()) = tokio::join!(fetch, async {
            expect!(peer, Basic(basic)::Get);
            peer.frames(&content(1, basic::GetOk { delivery_tag: 1, ..Default::default() }, b"x")).await;
        });
        let delivery = got.unwrap().unwrap().delivery;
        let text = "PRECONDITION_FAILED - delivery acknowledgement timed out".into();
        peer.send(1, channel_class::Close { reply_code: 406, reply_text: text, class_id: 0, method_id: 0 }).await;
        expect!(peer, Channel(channel)::CloseOk);
        until("the channel to end", async || !channel.is_open()).await;
        let other = channel_of(&connection, &mut peer).await;
        assert_eq!(other.number(), 2);
        let error = delivery.ack().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale);
        assert!(error.to_string().contains("timed out"), "pain 18: {error}");
        assert_eq!(error.reply_code().map(|code| code.0), Some(406));
        let (closed, ()) = tokio::join!(within("close-ok", connection.close()), peer.agree_to_close());
        closed.unwrap();
    }
}
