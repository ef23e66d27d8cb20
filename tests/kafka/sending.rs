//! Rows KK2 and KK4: what is sent arrives as it is, where it should, in order; what cannot be sent is told before.

use std::collections::HashMap;

use leveret::error::{ErrorKind, Outcome};
use leveret::messaging::{ConfirmMode, Message, ReceiptDetail, SendState, Status, Target};
use rdkafka::message::{Headers, Message as _};

use crate::support::{LONG, SECOND, cluster, lazy, place, read, sender, within};

#[tokio::test]
async fn kk2_a_message_arrives_with_key_headers_partition_and_timestamp() {
    let cluster = cluster();
    cluster.create_topic("hares", 4, 1).unwrap();
    let client = lazy(&cluster, &[]);
    let message = Message::new(&b"one \xff hare"[..])
        .key(&b"\xfe\x00k"[..])
        .timestamp(1_700_000_000u64)
        .append_header("h", "1")
        .append_header("g", leveret::codec::FieldValue::ByteArray(vec![0xff, 0].into()))
        .append_header("h", "3")
        .append_header("n", leveret::codec::FieldValue::Void);
    let receipt = within(sender(&client, LONG).send(Target::topic("hares").partition(3), message)).await;
    assert_eq!(place(receipt), (3, 0));

    let records = read(&cluster, "hares", 3, 1);
    let record = records.first().unwrap();
    assert_eq!(record.payload(), Some(&b"one \xff hare"[..]));
    assert_eq!(record.key(), Some(&b"\xfe\x00k"[..]));
    assert_eq!(record.timestamp().to_millis(), Some(1_700_000_000_000));
    let headers = record.headers().unwrap();
    let headers: Vec<_> = headers.iter().map(|header| (header.key, header.value)).collect();
    let expected: [(&str, Option<&[u8]>); 4] =
        [("h", Some(b"1")), ("g", Some(b"\xff\x00")), ("h", Some(b"3")), ("n", None)];
    assert_eq!(headers, expected, "octets, in order, and repeated");
}

#[tokio::test]
async fn kk2_a_tombstone_has_no_value_and_an_empty_payload_has_one() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[]);
    let sender = sender(&client, LONG);
    assert_eq!(place(within(sender.send(Target::topic("hares"), Message::tombstone().key("k"))).await), (0, 0));
    assert_eq!(place(within(sender.send(Target::topic("hares"), "")).await), (0, 1));
    let records = read(&cluster, "hares", 0, 2);
    let payloads: Vec<_> = records.iter().map(|record| (record.key(), record.payload())).collect();
    let expected = [(Some(&b"k"[..]), None), (None, Some(&b""[..]))];
    assert_eq!(payloads, expected);
}

#[tokio::test]
async fn kk2_the_key_decides_the_partition() {
    let cluster = cluster();
    cluster.create_topic("hares", 16, 1).unwrap();
    let client = lazy(&cluster, &[]);
    let sender = sender(&client, LONG);
    let mut partitions: HashMap<String, i32> = HashMap::new();
    for n in 0..64 {
        let key = format!("key {}", n % 8);
        let message = Message::new("x").key(key.clone());
        let (partition, _) = place(within(sender.send(Target::topic("hares"), message)).await);
        assert_eq!(*partitions.entry(key).or_insert(partition), partition);
    }
    let different: std::collections::HashSet<_> = partitions.values().collect();
    assert!(different.len() > 1, "all keys went to one partition");
}

#[tokio::test]
async fn kk2_what_kafka_cannot_do_is_told_before_anything_is_sent() {
    let cluster = cluster();
    let client = lazy(&cluster, &[]);
    let sender = sender(&client, LONG);
    for (target, message) in [
        (Target::queue("q"), Message::new("x")),
        (Target::topic("t"), Message::new("x").priority(0)),
        (Target::topic("t"), Message::new("x").header("n", 1i32)),
    ] {
        let error = within(sender.send(&target, message.clone())).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unsupported, Outcome::NotSent), "{error}");
        assert_eq!(error.into_message(), Some((target, message)), "it is handed back");
    }
    let error = within(sender.send(Target::topic("no such name"), "x")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::InvalidArgument, Outcome::NotSent));
    assert_eq!(sender.in_flight(), 0);
    assert_eq!(client.sender().mandatory(true).build().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(client.requester().build().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(within(client.as_amqp()).await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn kk4_a_batch_keeps_its_order_and_names_those_that_failed() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[]);
    // A window smaller than the batch: it still goes through, in order.
    let sender = client.sender().timeout(LONG).max_in_flight(7).build().unwrap();
    let target = |n| if n == 13 { Target::topic("bad topic") } else { Target::topic("hares") };
    let report = within(sender.send_batch((0..100).map(|n| (target(n), format!("{n}"))))).await;
    assert_eq!(report.len(), 100);
    let failed: Vec<_> = report.failed().map(|(at, error)| (at, error.kind())).collect();
    assert_eq!(failed, [(13, ErrorKind::InvalidArgument)]);
    let offsets: Vec<_> = report.into_iter().flatten().map(|receipt| place(Ok(receipt)).1).collect();
    assert_eq!(offsets, (0..99).collect::<Vec<_>>());
    let payloads: Vec<_> =
        read(&cluster, "hares", 0, 99).iter().map(|record| record.payload().unwrap().to_vec()).collect();
    let expected: Vec<_> = (0..100).filter(|n| *n != 13).map(|n| n.to_string().into_bytes()).collect();
    assert_eq!(payloads, expected);
    assert!(within(sender.send_batch(Vec::<(Target, Message)>::new())).await.is_ok());
}

#[tokio::test]
async fn kk2_without_acks_there_is_no_offset() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let plain = lazy(&cluster, &[]);
    let by_mode = plain.sender().confirms(ConfirmMode::None).timeout(LONG).build().unwrap();
    let by_property = lazy(&cluster, &[("acks", "0")]);
    for sender in [by_mode, sender(&by_property, LONG)] {
        let receipt = within(sender.send(Target::topic("hares"), "x")).await.unwrap();
        assert_eq!(receipt.status, Status::NotRequested);
        assert!(matches!(receipt.detail, ReceiptDetail::Kafka { partition: 0, offset: None, .. }), "{receipt:?}");
    }
}

#[tokio::test]
async fn receipts_can_be_awaited_later_or_dropped() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[]);
    let sender = sender(&client, LONG);
    let first = within(sender.send_pipelined(Target::topic("hares"), "a")).await.unwrap();
    for text in ["b", "c"] {
        drop(within(sender.send_pipelined(Target::topic("hares"), text)).await.unwrap());
    }
    let report = within(sender.flush()).await;
    assert!(report.is_ok(), "{report:?}");
    assert_eq!(report.len(), 2, "those whose receipts were dropped");
    assert_eq!((sender.in_flight(), first.state()), (0, SendState::Settled));
    assert_eq!(place(within(first).await), (0, 0));
    assert_eq!(within(sender.flush()).await.len(), 0, "told once");
}

#[tokio::test]
async fn flushing_does_not_wait_for_linger() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[("linger.ms", "20000")]);
    let sender = sender(&client, 2 * LONG);
    let pending = within(sender.send_pipelined(Target::topic("hares"), "x")).await.unwrap();
    tokio::time::timeout(10 * SECOND, sender.flush()).await.map(|_| ()).unwrap();
    assert_eq!(place(within(pending).await), (0, 0));
}

#[tokio::test]
async fn defaults_and_the_hook_are_the_facades() {
    let cluster = cluster();
    cluster.create_topic("hares", 1, 1).unwrap();
    let client = lazy(&cluster, &[]);
    let defaults = leveret::amqp::Properties::new().header("a", "default").header("b", "default");
    let sender = client
        .sender()
        .defaults(defaults)
        .map_message(|_, message| {
            let stamped = std::mem::take(message).append_header("c", "hook");
            *message = stamped;
        })
        .max_message_size(10)
        .timeout(LONG)
        .build()
        .unwrap();
    place(within(sender.send(Target::topic("hares"), Message::new("x").header("b", "own"))).await);
    let error = within(sender.send(Target::topic("hares"), "01234567890")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::MessageTooLarge, Outcome::NotSent));
    let records = read(&cluster, "hares", 0, 1);
    let headers = records.first().unwrap().headers().unwrap();
    let headers: Vec<_> = headers.iter().map(|header| (header.key, header.value.unwrap())).collect();
    let expected: [(&str, &[u8]); 3] = [("b", b"own"), ("a", b"default"), ("c", b"hook")];
    assert_eq!(headers, expected);
}
