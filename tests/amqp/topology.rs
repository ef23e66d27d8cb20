//! Exchanges, queues and bindings.

use leveret::amqp::{Channel, Confirmation, ExchangeKind, FieldTable, Properties};
use leveret::error::{ErrorKind, Origin};

use crate::support::{
    Server, assert_channel_closed, assert_works, exclusive_queue, fill, look_at, number, ready, unique, until, within,
};

/// An exchange that the test removes, or that goes with its last binding.
async fn exchange(channel: &Channel, kind: ExchangeKind) -> String {
    let name = unique("exchange");
    channel.exchange_declare(&name, kind).auto_delete(true).await.unwrap();
    name
}

/// Whether a message with this key finds its way through an exchange to any queue.
async fn routes(channel: &Channel, exchange: &str, key: &str) -> bool {
    routes_with(channel, exchange, key, &Properties::new()).await
}

async fn routes_with(channel: &Channel, exchange: &str, key: &str, properties: &Properties) -> bool {
    channel.confirm_select().await.unwrap();
    let confirm = channel.basic_publish(exchange, key, "x").properties(properties).mandatory(true).await.unwrap();
    match within("a confirm", confirm).await.unwrap() {
        Confirmation::Ack(returned) => returned.is_none(),
        other => panic!("{other:?}"),
    }
}

on_every_server! {
    async fn the_life_of_a_queue(server: Server) {
        let channel = server.channel().await;
        let name = unique("queue");
        let queue = channel.queue_declare(&name).exclusive(true).await.unwrap();
        assert_eq!((queue.name(), queue.message_count(), queue.consumer_count()), (name.as_str(), 0, 0));

        fill(&channel, &name, 0..3).await;
        let consumer = channel.basic_consume(&name).prefetch(1).await.unwrap();
        until("one delivery", async || ready(&channel, &name).await == 2).await;
        let seen = look_at(&channel, &name).await;
        assert_eq!((seen.name(), seen.message_count(), seen.consumer_count()), (name.as_str(), 2, 1));
        drop(consumer);
        until("the consumer to go", async || look_at(&channel, &name).await.consumer_count() == 0).await;

        assert_eq!(channel.queue_purge(&name).await.unwrap(), 3);
        assert_eq!(channel.queue_purge(&name).await.unwrap(), 0);
        fill(&channel, &name, 0..2).await;
        assert_eq!(channel.queue_delete(&name).await.unwrap(), 2);
        assert_eq!(channel.queue_delete(&name).await.unwrap(), 0, "c131: what is not there is easily removed");

        let error = channel.queue_declare(&name).passive(true).await.unwrap_err();
        assert_channel_closed(&error, 404);
        assert_eq!(error.failing_method(), Some((50, 10)), "c126");
        assert_eq!(error.origin(), Origin::Caller);
        assert!(error.reply_text().unwrap().contains(&name), "{error}");
        assert_eq!(channel.end().unwrap().reply_code().map(|code| code.0), Some(404));
    }

    /// c123, c104
    async fn the_server_names_a_queue(server: Server) {
        let channel = server.channel().await;
        let [one, two] = [
            channel.queue_declare("").exclusive(true).await.unwrap(),
            channel.queue_declare("").exclusive(true).await.unwrap(),
        ];
        assert!(one.name().starts_with("amq.gen-"), "{one:?}");
        assert_ne!(one.name(), two.name());
        assert!(routes(&channel, "", one.name()).await, "the default exchange knows every queue");
        assert!(!routes(&channel, "", &unique("nothing")).await);
    }

    async fn a_direct_exchange(server: Server) {
        let channel = server.channel().await;
        let (exchange, queue) = (exchange(&channel, ExchangeKind::Direct).await, exclusive_queue(&channel).await);
        for key in ["red", "green"] {
            channel.queue_bind(&queue, &exchange, key).await.unwrap();
        }
        assert!(routes(&channel, &exchange, "red").await);
        assert!(routes(&channel, &exchange, "green").await);
        assert!(!routes(&channel, &exchange, "blue").await);
        channel.queue_unbind(&queue, &exchange, "red").await.unwrap();
        assert!(!routes(&channel, &exchange, "red").await);
        channel.queue_unbind(&queue, &exchange, "red").await.expect("c131");
        assert_eq!(ready(&channel, &queue).await, 2);
        let message = channel.basic_get(&queue).no_ack().await.unwrap().unwrap();
        assert_eq!((message.exchange().to_string(), message.routing_key().to_string()), (exchange, "red".to_owned()));
    }

    async fn a_fanout_exchange(server: Server) {
        let channel = server.channel().await;
        let exchange = exchange(&channel, "fanout".into()).await;
        let queues = [exclusive_queue(&channel).await, exclusive_queue(&channel).await];
        for queue in &queues {
            channel.queue_bind(queue, &exchange, "whatever").await.unwrap();
        }
        assert!(routes(&channel, &exchange, "something else").await);
        for queue in &queues {
            assert_eq!(ready(&channel, queue).await, 1);
        }
    }

    async fn a_topic_exchange(server: Server) {
        let channel = server.channel().await;
        let (exchange, queue) = (exchange(&channel, ExchangeKind::Topic).await, exclusive_queue(&channel).await);
        channel.queue_bind(&queue, &exchange, "stock.*.nyse").await.unwrap();
        channel.queue_bind(&queue, &exchange, "log.#").await.unwrap();
        for (key, goes_through) in [
            ("stock.ibm.nyse", true), ("stock.nyse", false), ("stock.ibm.old.nyse", false), ("log", true),
            ("log.a.b.c", true), ("logs", false), ("", false),
        ] {
            assert_eq!(routes(&channel, &exchange, key).await, goes_through, "{key:?}");
        }
    }

    /// c133: an unbind has to name the same arguments.
    async fn a_headers_exchange(server: Server) {
        let channel = server.channel().await;
        let (exchange, queue) = (exchange(&channel, ExchangeKind::Headers).await, exclusive_queue(&channel).await);
        let both = FieldTable::new().with("x-match", "all").with("colour", "red").with("size", 4);
        channel.queue_bind(&queue, &exchange, "").arguments(both.clone()).await.unwrap();
        channel.queue_bind(&queue, &exchange, "").argument("x-match", "any").argument("shape", "round").await.unwrap();
        let red = Properties::new().header("colour", "red");
        assert!(!routes_with(&channel, &exchange, "", &red).await);
        let red_and_large = red.clone().header("size", 4);
        assert!(routes_with(&channel, &exchange, "", &red_and_large).await);
        assert!(routes_with(&channel, &exchange, "", &red.header("shape", "round")).await);
        channel.queue_unbind(&queue, &exchange, "").await.unwrap();
        assert!(routes_with(&channel, &exchange, "", &red_and_large).await, "that was another binding");
        channel.queue_unbind(&queue, &exchange, "").arguments(both).await.unwrap();
        assert!(!routes_with(&channel, &exchange, "", &red_and_large).await);
    }

    /// c132, c134
    async fn exchanges_bound_to_exchanges(server: Server) {
        let channel = server.channel().await;
        let (source, target) = (unique("source"), unique("target"));
        channel.exchange_declare(&source, ExchangeKind::Direct).await.unwrap();
        channel.exchange_declare(&target, ExchangeKind::Fanout).internal(true).await.unwrap();
        let queue = exclusive_queue(&channel).await;
        channel.queue_bind(&queue, &target, "").await.unwrap();
        assert!(!routes(&channel, &source, "key").await);
        channel.exchange_bind(&target, &source, "key").argument("why", "a test").await.unwrap();
        assert!(routes(&channel, &source, "key").await);
        assert!(!routes(&channel, &source, "other").await);
        channel.exchange_unbind(&target, &source, "key").argument("why", "a test").await.unwrap();
        assert!(!routes(&channel, &source, "key").await);
        assert_works(&channel).await;

        channel.exchange_delete(&source).await.unwrap();
        channel.exchange_delete(&source).await.expect("c131");
        channel.exchange_delete(&target).await.unwrap();
    }

    /// c100
    async fn an_internal_exchange_takes_nothing_from_outside(server: Server) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let exchange = unique("internal");
        channel.exchange_declare(&exchange, ExchangeKind::Fanout).internal(true).await.unwrap();
        channel.confirm_select().await.unwrap();
        let confirm = channel.basic_publish(&exchange, "", "x").await.unwrap();
        assert_channel_closed(&within("an error", confirm).await.unwrap_err(), 403);
        connection.open_channel().await.unwrap().exchange_delete(&exchange).await.unwrap();
    }

    async fn an_alternate_exchange(server: Server) {
        let channel = server.channel().await;
        let (first, other, queue) = (unique("first"), unique("other"), exclusive_queue(&channel).await);
        channel.exchange_declare(&other, ExchangeKind::Fanout).auto_delete(true).await.unwrap();
        channel.queue_bind(&queue, &other, "").await.unwrap();
        let declare = channel.exchange_declare(&first, ExchangeKind::Direct).argument("alternate-exchange", other.as_str());
        declare.await.unwrap();
        assert!(routes(&channel, &first, "nowhere").await);
        assert_eq!(ready(&channel, &queue).await, 1);
        channel.exchange_delete(&first).await.unwrap();
    }

    async fn deleting_only_what_nobody_needs(server: Server) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        fill(&channel, &queue, 0..1).await;
        let error = channel.queue_delete(&queue).if_empty(true).await.unwrap_err();
        assert_channel_closed(&error, 406);

        let channel = connection.open_channel().await.unwrap();
        channel.queue_purge(&queue).await.unwrap();
        let consumer = channel.basic_consume(&queue).await.unwrap();
        let other = connection.open_channel().await.unwrap();
        assert_channel_closed(&other.queue_delete(&queue).if_unused(true).await.unwrap_err(), 406);
        consumer.cancel().await.unwrap();
        assert_eq!(channel.queue_delete(&queue).if_unused(true).if_empty(true).await.unwrap(), 0);

        let (exchange, queue) = (unique("exchange"), exclusive_queue(&channel).await);
        channel.exchange_declare(&exchange, ExchangeKind::Fanout).await.unwrap();
        channel.queue_bind(&queue, &exchange, "").await.unwrap();
        let other = connection.open_channel().await.unwrap();
        assert_channel_closed(&other.exchange_delete(&exchange).if_unused(true).await.unwrap_err(), 406);
        channel.queue_unbind(&queue, &exchange, "").await.unwrap();
        channel.exchange_delete(&exchange).if_unused(true).await.unwrap();
    }

    /// c126, c74, c75
    async fn declaring_again_with_other_arguments(server: Server) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = unique("queue");
        let with_ttl = |ttl: i64| channel.queue_declare(&queue).exclusive(true).argument("x-message-ttl", ttl);
        with_ttl(60_000).await.unwrap();
        with_ttl(60_000).await.unwrap();
        let as_a_short_integer = channel.queue_declare(&queue).exclusive(true).argument("x-message-ttl", 60_000i32);
        as_a_short_integer.await.unwrap();
        let error = with_ttl(70_000).await.unwrap_err();
        assert_channel_closed(&error, 406);
        assert!(error.reply_text().unwrap().contains("inequivalent arg 'x-message-ttl'"), "{error}");

        let channel = connection.open_channel().await.unwrap();
        let as_text = channel.queue_declare(&unique("queue")).exclusive(true).argument("x-message-ttl", "60000");
        assert_channel_closed(&as_text.await.unwrap_err(), 406);

        let channel = connection.open_channel().await.unwrap();
        let exchange = unique("exchange");
        channel.exchange_declare(&exchange, ExchangeKind::Fanout).await.unwrap();
        channel.exchange_declare(&exchange, ExchangeKind::Fanout).passive(true).await.unwrap();
        let other = channel.exchange_declare(&exchange, ExchangeKind::Direct).await.unwrap_err();
        assert_channel_closed(&other, 406);
        let channel = connection.open_channel().await.unwrap();
        channel.exchange_delete(&exchange).await.unwrap();
        assert_channel_closed(&channel.exchange_declare(&exchange, "fanout").passive(true).await.unwrap_err(), 404);
    }

    /// c104, c125
    async fn reserved_names(server: Server) {
        let connection = server.connect().await;
        let channel = async || connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel().await).await;
        assert_channel_closed(&channel().await.queue_declare("amq.mine").await.unwrap_err(), 403);
        assert_channel_closed(&channel().await.exchange_declare("amq.mine", "fanout").await.unwrap_err(), 403);
        assert_channel_closed(&channel().await.exchange_delete("amq.direct").await.unwrap_err(), 403);
        assert_channel_closed(&channel().await.queue_bind(&queue, "", "key").await.unwrap_err(), 403);
        channel().await.exchange_declare("amq.fanout", "fanout").passive(true).durable(true).await.unwrap();
    }

    async fn binding_what_is_not_there(server: Server) {
        let connection = server.connect().await;
        let channel = async || connection.open_channel().await.unwrap();
        let (queue, nothing) = (exclusive_queue(&channel().await).await, unique("nothing"));
        assert_channel_closed(&channel().await.queue_bind(&queue, &nothing, "").await.unwrap_err(), 404);
        assert_channel_closed(&channel().await.queue_bind(&nothing, "amq.fanout", "").await.unwrap_err(), 404);
        assert_channel_closed(&channel().await.exchange_bind(&nothing, "amq.fanout", "").await.unwrap_err(), 404);
        assert_channel_closed(&channel().await.queue_purge(&nothing).await.unwrap_err(), 404);
    }

    /// c129, c130
    async fn an_exclusive_queue(server: Server) {
        let (here, there) = (server.connect().await, server.connect().await);
        let queue = exclusive_queue(&here.open_channel().await.unwrap()).await;
        assert_works(&here.open_channel().await.unwrap()).await;
        let other = there.open_channel().await.unwrap();
        let error = other.queue_declare(&queue).passive(true).await.unwrap_err();
        assert_channel_closed(&error, 405);
        assert!(error.is_transient(), "its owner may leave");
        let other = there.open_channel().await.unwrap();
        assert_channel_closed(&other.basic_consume(&queue).await.unwrap_err(), 405);

        here.close().await.unwrap();
        until("the queue to go with its connection", async || {
            let other = there.open_channel().await.unwrap();
            let error = other.queue_declare(&queue).passive(true).await.unwrap_err();
            error.reply_code().map(|code| code.0) == Some(404)
        })
        .await;
    }

    /// c130
    async fn a_queue_that_goes_with_its_last_consumer(server: Server) {
        let connection = server.connect().await;
        let channel = connection.open_channel().await.unwrap();
        let queue = unique("queue");
        channel.queue_declare(&queue).auto_delete(true).await.unwrap();
        look_at(&channel, &queue).await;
        let consumer = channel.basic_consume(&queue).await.unwrap();
        consumer.cancel().await.unwrap();
        until("the queue to go", async || {
            let channel = connection.open_channel().await.unwrap();
            channel.queue_declare(&queue).passive(true).await.is_err()
        })
        .await;
    }

    /// Names that the protocol cannot carry, and arguments that fit no frame (c61, c76): nothing is sent.
    async fn requests_that_cannot_be_written(server: Server) {
        let channel = server.channel().await;
        let long = "n".repeat(256);
        for error in [
            channel.queue_declare(&long).await.unwrap_err(),
            channel.exchange_declare("x", ExchangeKind::Other(long.as_str().into())).await.unwrap_err(),
            channel.queue_bind("q", "x", &long).await.unwrap_err(),
            channel.queue_declare("q").argument("large", "x".repeat(200_000)).await.unwrap_err(),
            channel.queue_declare("q").argument(long.as_str(), 1).await.unwrap_err(),
            channel.basic_get(&long).await.unwrap_err(),
            channel.basic_consume(&long).await.unwrap_err(),
            channel.basic_consume("q").consumer_tag(long.as_str()).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
        assert_works(&channel).await;
        let name = "\u{e9}".repeat(127) + "e";
        let queue = channel.queue_declare(&name).exclusive(true).await.unwrap();
        assert_eq!(queue.name(), name, "255 octets, and any letters");
    }
}

on_every_server! {
    async fn a_queue_with_a_limit_drops_its_oldest(server: Server) {
        let channel = server.channel().await;
        let queue = unique("queue");
        channel.queue_declare(&queue).exclusive(true).argument("x-max-length", 2).await.unwrap();
        fill(&channel, &queue, 0..5).await;
        let message = channel.basic_get(&queue).no_ack().await.unwrap().unwrap();
        assert_eq!(number(&message), 3);
        assert_eq!(ready(&channel, &queue).await, 1);
    }

    async fn rejected_messages_are_dead_lettered(server: Server) {
        let channel = server.channel().await;
        let (queue, dead) = (unique("queue"), exclusive_queue(&channel).await);
        let declare = channel.queue_declare(&queue).exclusive(true).argument("x-dead-letter-exchange", "");
        declare.argument("x-dead-letter-routing-key", dead.as_str()).await.unwrap();
        fill(&channel, &queue, 7..8).await;
        channel.basic_get(&queue).await.unwrap().unwrap().delivery.reject(false).unwrap();
        until("the message to move", async || ready(&channel, &dead).await == 1).await;
        let message = channel.basic_get(&dead).no_ack().await.unwrap().unwrap();
        assert_eq!(number(&message), 7);
        let headers = message.properties().unwrap().headers.unwrap();
        assert!(headers.get("x-death").and_then(|deaths| deaths.as_array()).is_some(), "{headers:?}");
    }
}
