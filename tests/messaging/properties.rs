//! What a message is when it arrives: properties, defaults, hooks, and payloads of any octets.

use std::time::Duration;

use leveret::amqp::{FieldTable, FieldValue, Properties};
use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{DeliveryDetail, Message, Target};

use crate::support::{Server, channel, exclusive_queue, next, receiver, unique, within};

on_every_server! {
    /// Scenario 10; Z3, Z5, Z6, KB6: what a message says itself counts, even zero and empty; what it does not say comes from the
    /// defaults; what nobody says is not there.
    async fn scenario_10_which_properties_arrive(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let defaults = Properties::new().priority(5).app_id("template").content_type("text/plain").header("a", 1i32);
        let sender = client.sender().defaults(defaults).build().unwrap();
        let bare = client.sender().build().unwrap();
        let target = Target::queue(&queue);
        let own = Message::new("own").priority(0).app_id("").header("a", 2i32).header("b", true).transient();
        let kept = own.clone();
        sender.send(&target, own.clone()).await.unwrap();
        assert_eq!(own, kept, "the caller's message is the caller's");
        sender.send(&target, "inherited").await.unwrap();
        bare.send(&target, "bare").await.unwrap();
        bare.send(&target, Message::new(vec![0xff, 0x00, 0xfe]).expires_after(Duration::from_secs(3600))).await.unwrap();

        let mut receiver = receiver(&client, &queue).await;
        let first = next(&mut receiver).await;
        let expected = Properties::new()
            .priority(0)
            .app_id("")
            .content_type("text/plain")
            .header("a", 2i32)
            .header("b", true)
            .delivery_mode(1);
        assert_eq!(*first.properties(), expected);
        let second = next(&mut receiver).await;
        let expected =
            Properties::new().priority(5).app_id("template").content_type("text/plain").header("a", 1i32).persistent();
        assert_eq!(*second.properties(), expected);
        let third = next(&mut receiver).await;
        assert_eq!(*third.properties(), Properties::new().persistent(), "no expiration, no header, nothing");
        let fourth = next(&mut receiver).await;
        assert_eq!(fourth.body(), [0xff, 0x00, 0xfe], "octets, not text");
        assert_eq!(fourth.properties().expiration, Some("3600000".into()));
        assert_eq!(fourth.message().time_to_live(), Some(Duration::from_secs(3600)));

        for message in [
            Message::new("x").message_id("y".repeat(256)),
            Message::new("x").reply_to("y".repeat(256)),
            Message::new("x").header("y".repeat(256), 1i32),
        ] {
            let error = within("an error", sender.send(&target, message)).await.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidArgument, Outcome::NotSent), "{error}");
            assert!(error.message().is_some());
        }
        let error = sender.send(Target::queue("q".repeat(256)), "x").await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidArgument, Outcome::NotSent));
        sender.send(&target, "the channel is still there").await.unwrap();
    }

    /// KB6, U41, U42, Z3: all fourteen, both ways; and where a message was published to.
    async fn all_fourteen_properties(server: Server) {
        let client = server.client().await;
        let (queue, exchange) = (exclusive_queue(&client).await, unique("topic"));
        let setup = channel(&client).await;
        setup.exchange_declare(&exchange, "topic").auto_delete(true).await.unwrap();
        setup.queue_bind(&queue, &exchange, "a.#").await.unwrap();
        // RabbitMQ 4 gives them back sorted.
        let headers = FieldTable::new()
            .with("list", FieldValue::Array(vec![1i32.into(), "two".into()]))
            .with("nothing", FieldValue::Void)
            .with("number", FieldValue::I64(-7))
            .with("table", FieldValue::Table(FieldTable::new().with("inner", 1i32)))
            .with("text", "x")
            .with("yes", true);
        let message = Message::new("all")
            .content_type("text/plain")
            .content_encoding("identity")
            .delivery_mode(2)
            .priority(7)
            .correlation_id("c")
            .reply_to("r")
            .expiration("60000")
            .message_id("m")
            .timestamp(1_700_000_000u64)
            .kind("t")
            .user_id("guest")
            .app_id("a")
            .cluster_id("x");
        let mut message = message;
        message.properties.headers = Some(headers);
        let sender = client.sender().build().unwrap();
        sender.send(Target::exchange(&exchange, "a.b.c"), message.clone()).await.unwrap();
        let delivery = next(&mut receiver(&client, &queue).await).await;
        assert_eq!(delivery.message(), message);
        assert!(!delivery.redelivered());
        assert_eq!((delivery.delivery_tag(), delivery.delivery_count()), (Some(1), None));
        match delivery.detail() {
            DeliveryDetail::Amqp { exchange: from, routing_key, delivery_tag: 1, .. } => {
                assert_eq!((from.to_string(), routing_key.to_string()), (exchange, "a.b.c".to_owned()));
            }
            other => panic!("{other:?}"),
        }
    }

    /// Z4: a hook adds what a message does not say itself, and sees what it inherited.
    async fn a_hook_for_each_message(server: Server) {
        let client = server.client().await;
        let queue = exclusive_queue(&client).await;
        let sender = client.sender().defaults(Properties::new().app_id("zato")).map_message(|target, message| {
            assert_eq!(message.properties.app_id, Some("zato".into()), "after the defaults");
            let to = target.to_string();
            let headers = message.properties.headers.get_or_insert_default();
            if headers.get("X-Zato-Msg-TS").is_none() {
                headers.insert("X-Zato-Msg-TS", "now");
            }
            headers.insert("X-To", to);
        });
        let sender = sender.build().unwrap();
        let target = Target::queue(&queue);
        sender.send(&target, "a").await.unwrap();
        drop(sender.send_pipelined(&target, Message::new("b").header("X-Zato-Msg-TS", "own")).await.unwrap());
        let mut receiver = receiver(&client, &queue).await;
        for time in ["now", "own"] {
            let delivery = next(&mut receiver).await;
            assert_eq!(delivery.get_header("X-Zato-Msg-TS").and_then(FieldValue::as_str), Some(time));
            let to = delivery.get_header("X-To").and_then(FieldValue::as_str);
            assert_eq!(to, Some(format!("/queues/{queue}").as_str()));
        }
    }

    /// A message that is passed on carries the private header of its first journey to nobody.
    async fn passing_a_message_on(server: Server) {
        let client = server.client().await;
        let (first, second) = (exclusive_queue(&client).await, exclusive_queue(&client).await);
        let sender = client.sender().build().unwrap();
        sender.send(Target::queue(&first), Message::new("x").header("k", 1i32)).await.unwrap();
        let delivery = next(&mut receiver(&client, &first).await).await;
        let (message, acker) = delivery.detach();
        sender.send(Target::queue(&second), message).await.unwrap();
        acker.accept().unwrap();
        let delivery = next(&mut receiver(&client, &second).await).await;
        assert_eq!(delivery.properties().headers, Some(FieldTable::new().with("k", 1i32)));
        // In the protocol's own words it is there: the tag of the second journey, once.
        delivery.release().unwrap();
        let raw = channel(&client).await.basic_get(&second).no_ack().await.unwrap().unwrap();
        let headers = raw.message.properties().unwrap().headers.unwrap();
        assert_eq!(headers.get("x-leveret-seq").and_then(FieldValue::as_i64), Some(2));
        assert_eq!(headers.len(), 2);
    }
}
