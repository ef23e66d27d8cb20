//! What a message carries comes back as it was sent.

use bytes::Bytes;
use leveret::amqp::{Channel, Confirmation, FieldTable, FieldValue, Message, Properties};
use leveret::codec::method::{basic, connection};
use leveret::codec::{ContentHeader, Frame, RawProperties};
use leveret::error::{ErrorKind, Outcome};

use crate::scripted::{TUNE, channel_of, connected, connected_as};
use crate::support::{Server, assert_works, exclusive_queue, next, within};

/// Sends a message through a queue and fetches it.
async fn round_trip(channel: &Channel, queue: &str, body: Bytes, properties: &Properties) -> Message {
    let publish = channel.basic_publish("", queue, body).properties(properties).mandatory(true);
    assert_eq!(within("a confirm", publish.await.unwrap()).await.unwrap(), Confirmation::Ack(None));
    within("the message", async { channel.basic_get(queue).no_ack().await }).await.unwrap().unwrap().message
}

/// Octets in which every place is recognised.
fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| u8::try_from((at ^ (at >> 8) ^ (at >> 16)) & 0xFF).unwrap()).collect()
}

/// A table with a value of every type that goes over the wire.
fn all_types() -> FieldTable {
    FieldTable::new()
        .with("bool", true)
        .with("i8", -8i8)
        .with("u8", 200u8)
        .with("i16", -30_000i16)
        .with("u16", 60_000u16)
        .with("i32", i32::MIN)
        .with("u32", u32::MAX)
        .with("i64", i64::MIN)
        .with("f32", 1.5f32)
        .with("f64", -2.25e100f64)
        .with("decimal", FieldValue::Decimal { scale: 2, value: 12_345 })
        .with("text", "caf\u{e9}")
        .with("not utf-8", Bytes::from_static(b"\xff\xfe\x00 text"))
        .with("empty", "")
        .with("octets", FieldValue::ByteArray(Bytes::from_static(b"\x00\x01\x02")))
        .with("time", FieldValue::Timestamp(1_700_000_000))
        .with("nothing", FieldValue::Void)
        .with("array", vec![FieldValue::I32(1), "two".into(), FieldValue::Array(vec![FieldValue::Void])])
        .with("table", FieldTable::new().with("inner", FieldTable::new().with("deep", 1i64)))
        .with("", "an empty name")
}

on_every_server! {
    /// c80, c81, c63, c69
    async fn all_properties_and_all_types_of_headers(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        let all = Properties::new()
            .content_type("application/json")
            .content_encoding("utf-8")
            .persistent()
            .priority(9)
            .correlation_id("c-1")
            .reply_to("somewhere")
            .expiration("600000")
            .message_id("m-1")
            .timestamp(1_700_000_000u64)
            .kind("event")
            .user_id("guest")
            .app_id("tests")
            .cluster_id("none");
        let message = round_trip(&channel, &queue, "x".into(), &all).await;
        assert_eq!(message.properties().unwrap(), all);

        let headers = all_types();
        let with_headers = Properties { headers: Some(headers.clone()), ..all };
        let message = round_trip(&channel, &queue, "x".into(), &with_headers).await;
        let mut received = message.properties().unwrap();
        let came = received.headers.take().unwrap();
        assert_eq!(came.len(), headers.len());
        for (name, value) in headers.iter() {
            assert_eq!(came.get(name.to_str().unwrap()), Some(value), "{name}");
        }
        assert_eq!(received, Properties { headers: None, ..with_headers });

        let none = round_trip(&channel, &queue, "x".into(), &Properties::new()).await;
        assert_eq!(none.properties().unwrap(), Properties::new());
    }

    /// c62: longer than a short string, and no text at all.
    async fn header_values_are_octets(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        let every_octet: Bytes = (0..=255u8).cycle().take(1000).collect();
        let properties = Properties::new().header("k", every_octet.clone());
        let message = round_trip(&channel, &queue, "x".into(), &properties).await;
        let headers = message.properties().unwrap().headers.unwrap();
        assert_eq!(headers.get("k"), Some(&FieldValue::LongString(every_octet)));
        assert_eq!(headers.get("k").unwrap().as_str(), None);
    }

    /// c79, c25, c84: no body, one octet, and the sizes around one and two frames.
    async fn bodies_around_the_size_of_a_frame(server: Server) {
        let connection = within("a connection", server.builder().frame_max(8192).open()).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        let payload = connection.tuning().frame_max as usize - 8;
        for len in [0, 1, payload - 1, payload, payload + 1, 2 * payload - 1, 2 * payload, 2 * payload + 1, 10 * payload] {
            let body = pattern(len);
            let message = round_trip(&channel, &queue, body.clone(), &Properties::new()).await;
            assert!(*message.body() == body, "{len} octets");
            // Borrowed octets go another way through the buffer.
            let confirm = channel.basic_publish("", &queue, &body).await.unwrap();
            within("a confirm", confirm).await.unwrap().accepted().unwrap();
            let message = channel.basic_get(&queue).no_ack().await.unwrap().unwrap();
            assert!(message.message.into_body() == body, "{len} octets, borrowed");
        }
    }

    /// Messages of many frames, by `basic.get` and by a consumer, and small ones between.
    async fn large_messages(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        let frame = channel_frame(&channel).await;
        let bodies = [0, 1, frame - 8, frame - 7, 1 << 20, 5 << 20, 3].map(pattern);
        for body in &bodies {
            let message = round_trip(&channel, &queue, body.clone(), &Properties::new()).await;
            assert!(message.body() == body, "{} octets", body.len());
        }
        let mut consumer = channel.basic_consume(&queue).prefetch(3).await.unwrap();
        let mut confirms = Vec::new();
        for body in bodies.iter().cycle().take(3 * bodies.len()) {
            confirms.push(channel.basic_publish("", &queue, body.clone()).await.unwrap());
        }
        for body in bodies.iter().cycle().take(3 * bodies.len()) {
            let delivery = next(&mut consumer).await;
            assert!(delivery.body() == body, "{} octets", body.len());
            delivery.ack().unwrap();
        }
        for confirm in confirms {
            within("a confirm", confirm).await.unwrap().accepted().unwrap();
        }
    }

    /// c26: a header that fits no frame is not sent.
    async fn headers_larger_than_a_frame(server: Server) {
        let channel = server.channel().await;
        let queue = exclusive_queue(&channel).await;
        channel.confirm_select().await.unwrap();
        let frame = channel_frame(&channel).await;
        let fits = Properties::new().header("k", "x".repeat(frame - 100));
        let message = round_trip(&channel, &queue, "x".into(), &fits).await;
        assert_eq!(message.properties().unwrap(), fits);
        for properties in [
            Properties::new().header("k", "x".repeat(frame)),
            Properties::new().message_id("x".repeat(256)),
            Properties::new().header("n".repeat(256), 1),
        ] {
            let error = channel.basic_publish("", &queue, "x").properties(&properties).await.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidArgument, Outcome::NotSent), "{error}");
        }
        assert_works(&channel).await;
        let message = round_trip(&channel, &queue, "still".into(), &Properties::new()).await;
        assert_eq!(message.body(), b"still");
    }
}

/// The largest frame that both servers and this client agree on by default.
async fn channel_frame(channel: &Channel) -> usize {
    assert_works(channel).await;
    131_072
}

on_its_own! {
    /// c73, c33, c86, c36: what a server may send, and a message that nobody can read, harm neither the next message nor the connection.
    async fn unusual_messages() {
        let (connection, mut peer) = connected().await;
        let channel = channel_of(&connection, &mut peer).await;
        let (consumer, ()) = tokio::join!(async { channel.basic_consume("q").await }, async {
            expect!(peer, Basic(basic)::Qos);
            peer.send(1, basic::QosOk {}).await;
            let (_, consume) = expect!(peer, Basic(basic)::Consume);
            peer.send(1, basic::ConsumeOk { consumer_tag: consume.consumer_tag }).await;
        });
        let mut consumer = consumer.unwrap();
        let tag = consumer.consumer_tag();
        let deliver = |delivery_tag| {
            let exchange = "".into();
            let deliver =
                basic::Deliver { consumer_tag: tag.clone(), delivery_tag, redelivered: false, exchange, routing_key: "q".into() };
            Frame::Method(1, deliver.into())
        };
        let header = |body_size, octets: &'static [u8]| {
            Frame::Header(1, ContentHeader { body_size, properties: RawProperties::new(Bytes::from_static(octets)) })
        };
        let body = |octets: &'static [u8]| Frame::Body(1, Bytes::from_static(octets));
        peer.frames(&[
            // c73: a header of the unknown type Q.
            deliver(1), header(1, b"\x20\x80\0\0\0\x03\x01kQ\x02id"), body(b"a"),
            // c86, c33: empty frames and heartbeats in between.
            deliver(2), header(4, b"\0\0"), body(b""), body(b"fo"), Frame::Heartbeat, body(b""), body(b"ur"),
            // c80: unknown properties in a second word of flags.
            deliver(3), header(0, b"\x08\x01\xff\xff\x80\x00\x07"),
        ])
        .await;
        let broken = next(&mut consumer).await;
        assert_eq!(broken.properties().unwrap_err().kind(), ErrorKind::Protocol);
        assert_eq!(broken.raw_properties().decode_without_headers().unwrap().message_id, Some("id".into()));
        broken.reject(false).unwrap();
        assert_eq!(expect!(peer, Basic(basic)::Reject).1, basic::Reject { delivery_tag: 1, requeue: false });
        assert_eq!(next(&mut consumer).await.body(), b"four");
        assert_eq!(next(&mut consumer).await.properties().unwrap().priority, Some(7));
        assert!(connection.is_open());
    }

    /// c25: where the server takes smaller frames than the client would, that is what both keep to.
    async fn frames_of_the_servers_size() {
        let tune = connection::Tune { frame_max: 8192, ..TUNE };
        let (connection, mut peer) = connected_as(tune, |builder| builder).await;
        let channel = channel_of(&connection, &mut peer).await;
        for (len, pieces) in [(8184, &[8184][..]), (8185, &[8184, 1]), (20_000, &[8184, 8184, 3632])] {
            let body = pattern(len);
            drop(channel.basic_publish("", "q", &body).await.unwrap());
            drop(channel.basic_publish("", "q", body).await.unwrap());
            for _ in 0..2 {
                expect!(peer, Basic(basic)::Publish);
                let Some(Frame::Header(1, header)) = peer.frame().await else { panic!("no header") };
                assert_eq!(header.body_size, len as u64);
                for size in pieces {
                    let Some(Frame::Body(1, piece)) = peer.frame().await else { panic!("no body") };
                    assert_eq!(piece.len(), *size);
                }
            }
        }
        let error = channel.queue_declare("q").argument("k", "x".repeat(8192)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "c76: {error}");
        peer.raw(b"\x03\0\x01\0\0\x1f\xf9").await;
        assert_eq!(within("the end", connection.closed()).await.unwrap_err().kind(), ErrorKind::Protocol);
        assert_eq!(expect!(peer, Connection(connection)::Close).1.reply_code, 501);
    }

    /// c85: a size that nobody has room for ends the connection, and allocates nothing.
    async fn a_message_too_large_to_be_true() {
        for (size, limit) in [(u64::MAX, 128 << 20), (1001, 1000)] {
            let tune = TUNE;
            let (connection, mut peer) =
                connected_as(tune, |builder| builder.max_message_size(limit)).await;
            let channel = channel_of(&connection, &mut peer).await;
            let get = async { channel.basic_get("q").await };
            let (got, ()) = tokio::join!(within("an error", get), async {
                expect!(peer, Basic(basic)::Get);
                let header = ContentHeader { body_size: size, ..Default::default() };
                peer.frames(&[Frame::Method(1, basic::GetOk::default().into()), Frame::Header(1, header)]).await;
            });
            assert_eq!(got.unwrap_err().kind(), ErrorKind::MessageTooLarge);
            assert_eq!(within("the end", connection.closed()).await.unwrap_err().kind(), ErrorKind::MessageTooLarge);
        }
    }
}
