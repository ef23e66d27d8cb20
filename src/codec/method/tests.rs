//! Holds every method against octets written by hand from the specification, and the decoder against octets that are wrong.

use super::*;
use crate::codec::{AckView, DeliverView, EncodeErrorKind, FieldTable, Frame};

/// The table of every sample; on the wire `\0\0\0\x04\x01kt\x01`.
fn table() -> FieldTable {
    FieldTable::from([("k", true)])
}

const TAG: u64 = 0x0102_0304_0506_0708;

/// One of each method, its octets beside it. Values differ from the default wherever the field can carry another one.
#[rustfmt::skip]
fn samples() -> Vec<(&'static [u8], Method)> {
    let mut samples: Vec<(&'static [u8], Method)> = Vec::new();
    let mut add = |octets: &'static [u8], method: Method| samples.push((octets, method));

    add(b"\0\x0a\0\x0a\0\x09\0\0\0\x04\x01kt\x01\0\0\0\x05PLAIN\0\0\0\x05en_US", connection::Start {
        version_major: 0, version_minor: 9, server_properties: table(),
        mechanisms: Bytes::from_static(b"PLAIN"), locales: Bytes::from_static(b"en_US"),
    }.into());
    add(b"\0\x0a\0\x0b\0\0\0\x04\x01kt\x01\x05PLAIN\0\0\0\x04\0u\0p\x05en_US", connection::StartOk {
        client_properties: table(), mechanism: "PLAIN".into(), response: Bytes::from_static(b"\0u\0p"), locale: "en_US".into(),
    }.into());
    add(b"\0\x0a\0\x14\0\0\0\x03who", connection::Secure { challenge: Bytes::from_static(b"who") }.into());
    add(b"\0\x0a\0\x15\0\0\0\x02me", connection::SecureOk { response: Bytes::from_static(b"me") }.into());
    add(b"\0\x0a\0\x1e\x07\xff\0\x02\0\0\0\x3c",
        connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 }.into());
    add(b"\0\x0a\0\x1f\x07\xff\0\x02\0\0\0\x3c",
        connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 }.into());
    add(b"\0\x0a\0\x28\x01/\x01r\x01",
        connection::Open { virtual_host: "/".into(), reserved_1: "r".into(), reserved_2: true }.into());
    add(b"\0\x0a\0\x29\x01r", connection::OpenOk { reserved_1: "r".into() }.into());
    add(b"\0\x0a\0\x32\x01\x40\x04gone\0\x3c\0\x28",
        connection::Close { reply_code: 320, reply_text: "gone".into(), class_id: 60, method_id: 40 }.into());
    add(b"\0\x0a\0\x33", connection::CloseOk {}.into());
    add(b"\0\x0a\0\x3c\x0dlow on memory", connection::Blocked { reason: "low on memory".into() }.into());
    add(b"\0\x0a\0\x3d", connection::Unblocked {}.into());
    add(b"\0\x0a\0\x46\0\0\0\x02s3\x03old",
        connection::UpdateSecret { new_secret: Bytes::from_static(b"s3"), reason: "old".into() }.into());
    add(b"\0\x0a\0\x47", connection::UpdateSecretOk {}.into());

    add(b"\0\x14\0\x0a\x01r", channel::Open { reserved_1: "r".into() }.into());
    add(b"\0\x14\0\x0b\0\0\0\x01r", channel::OpenOk { reserved_1: Bytes::from_static(b"r") }.into());
    add(b"\0\x14\0\x14\x01", channel::Flow { active: true }.into());
    add(b"\0\x14\0\x15\x01", channel::FlowOk { active: true }.into());
    add(b"\0\x14\0\x28\x01\x94\x09NOT_FOUND\0\x32\0\x0a",
        channel::Close { reply_code: 404, reply_text: "NOT_FOUND".into(), class_id: 50, method_id: 10 }.into());
    add(b"\0\x14\0\x29", channel::CloseOk {}.into());

    add(b"\0\x1e\0\x0a\x01r\x0d", access::Request {
        realm: "r".into(), exclusive: true, passive: false, active: true, write: true, read: false,
    }.into());
    add(b"\0\x1e\0\x0b\x01\x02", access::RequestOk { ticket: 0x0102 }.into());

    add(b"\0\x28\0\x0a\0\x01\x01e\x05topic\x1a\0\0\0\x04\x01kt\x01", exchange::Declare {
        reserved_1: 1, exchange: "e".into(), kind: "topic".into(), passive: false, durable: true, auto_delete: false,
        internal: true, no_wait: true, arguments: table(),
    }.into());
    add(b"\0\x28\0\x0b", exchange::DeclareOk {}.into());
    add(b"\0\x28\0\x14\0\x01\x01e\x02",
        exchange::Delete { reserved_1: 1, exchange: "e".into(), if_unused: false, no_wait: true }.into());
    add(b"\0\x28\0\x15", exchange::DeleteOk {}.into());
    add(b"\0\x28\0\x1e\0\x01\x02to\x04from\x03key\x01\0\0\0\x04\x01kt\x01", exchange::Bind {
        reserved_1: 1, destination: "to".into(), source: "from".into(), routing_key: "key".into(), no_wait: true,
        arguments: table(),
    }.into());
    add(b"\0\x28\0\x1f", exchange::BindOk {}.into());
    add(b"\0\x28\0\x28\0\x01\x02to\x04from\x03key\x01\0\0\0\x04\x01kt\x01", exchange::Unbind {
        reserved_1: 1, destination: "to".into(), source: "from".into(), routing_key: "key".into(), no_wait: true,
        arguments: table(),
    }.into());
    add(b"\0\x28\0\x33", exchange::UnbindOk {}.into());

    add(b"\0\x32\0\x0a\0\x01\x01q\x1a\0\0\0\x04\x01kt\x01", queue::Declare {
        reserved_1: 1, queue: "q".into(), passive: false, durable: true, exclusive: false, auto_delete: true,
        no_wait: true, arguments: table(),
    }.into());
    add(b"\0\x32\0\x0b\x01q\0\0\0\x03\0\0\0\x02",
        queue::DeclareOk { queue: "q".into(), message_count: 3, consumer_count: 2 }.into());
    add(b"\0\x32\0\x14\0\x01\x01q\x01e\x03key\x01\0\0\0\x04\x01kt\x01", queue::Bind {
        reserved_1: 1, queue: "q".into(), exchange: "e".into(), routing_key: "key".into(), no_wait: true,
        arguments: table(),
    }.into());
    add(b"\0\x32\0\x15", queue::BindOk {}.into());
    add(b"\0\x32\0\x1e\0\x01\x01q\x01", queue::Purge { reserved_1: 1, queue: "q".into(), no_wait: true }.into());
    add(b"\0\x32\0\x1f\0\0\0\x05", queue::PurgeOk { message_count: 5 }.into());
    add(b"\0\x32\0\x28\0\x01\x01q\x06",
        queue::Delete { reserved_1: 1, queue: "q".into(), if_unused: false, if_empty: true, no_wait: true }.into());
    add(b"\0\x32\0\x29\0\0\0\x05", queue::DeleteOk { message_count: 5 }.into());
    add(b"\0\x32\0\x32\0\x01\x01q\x01e\x03key\0\0\0\x04\x01kt\x01", queue::Unbind {
        reserved_1: 1, queue: "q".into(), exchange: "e".into(), routing_key: "key".into(), arguments: table(),
    }.into());
    add(b"\0\x32\0\x33", queue::UnbindOk {}.into());

    add(b"\0\x3c\0\x0a\x01\x02\x03\x04\0\xc8\x01",
        basic::Qos { prefetch_size: 0x0102_0304, prefetch_count: 200, global: true }.into());
    add(b"\0\x3c\0\x0b", basic::QosOk {}.into());
    add(b"\0\x3c\0\x14\0\x01\x01q\x03tag\x0a\0\0\0\x04\x01kt\x01", basic::Consume {
        reserved_1: 1, queue: "q".into(), consumer_tag: "tag".into(), no_local: false, no_ack: true, exclusive: false,
        no_wait: true, arguments: table(),
    }.into());
    add(b"\0\x3c\0\x15\x03tag", basic::ConsumeOk { consumer_tag: "tag".into() }.into());
    add(b"\0\x3c\0\x1e\x03tag\x01", basic::Cancel { consumer_tag: "tag".into(), no_wait: true }.into());
    add(b"\0\x3c\0\x1f\x03tag", basic::CancelOk { consumer_tag: "tag".into() }.into());
    add(b"\0\x3c\0\x28\0\x01\x01e\x03key\x01", basic::Publish {
        reserved_1: 1, exchange: "e".into(), routing_key: "key".into(), mandatory: true, immediate: false,
    }.into());
    add(b"\0\x3c\0\x32\x01\x38\x08NO_ROUTE\x01e\x03key", basic::Return {
        reply_code: 312, reply_text: "NO_ROUTE".into(), exchange: "e".into(), routing_key: "key".into(),
    }.into());
    add(b"\0\x3c\0\x3c\x03tag\x01\x02\x03\x04\x05\x06\x07\x08\x01\x01e\x03key", basic::Deliver {
        consumer_tag: "tag".into(), delivery_tag: TAG, redelivered: true, exchange: "e".into(), routing_key: "key".into(),
    }.into());
    add(b"\0\x3c\0\x46\0\x01\x01q\x01", basic::Get { reserved_1: 1, queue: "q".into(), no_ack: true }.into());
    add(b"\0\x3c\0\x47\x01\x02\x03\x04\x05\x06\x07\x08\x01\x01e\x03key\0\0\0\x07", basic::GetOk {
        delivery_tag: TAG, redelivered: true, exchange: "e".into(), routing_key: "key".into(), message_count: 7,
    }.into());
    add(b"\0\x3c\0\x48\x01r", basic::GetEmpty { reserved_1: "r".into() }.into());
    add(b"\0\x3c\0\x50\x01\x02\x03\x04\x05\x06\x07\x08\x01", basic::Ack { delivery_tag: TAG, multiple: true }.into());
    add(b"\0\x3c\0\x5a\x01\x02\x03\x04\x05\x06\x07\x08\x01", basic::Reject { delivery_tag: TAG, requeue: true }.into());
    add(b"\0\x3c\0\x64\x01", basic::RecoverAsync { requeue: true }.into());
    add(b"\0\x3c\0\x6e\x01", basic::Recover { requeue: true }.into());
    add(b"\0\x3c\0\x6f", basic::RecoverOk {}.into());
    add(b"\0\x3c\0\x78\x01\x02\x03\x04\x05\x06\x07\x08\x02",
        basic::Nack { delivery_tag: TAG, multiple: false, requeue: true }.into());

    add(b"\0\x55\0\x0a\x01", confirm::Select { no_wait: true }.into());
    add(b"\0\x55\0\x0b", confirm::SelectOk {}.into());

    add(b"\0\x5a\0\x0a", tx::Select {}.into());
    add(b"\0\x5a\0\x0b", tx::SelectOk {}.into());
    add(b"\0\x5a\0\x14", tx::Commit {}.into());
    add(b"\0\x5a\0\x15", tx::CommitOk {}.into());
    add(b"\0\x5a\0\x1e", tx::Rollback {}.into());
    add(b"\0\x5a\0\x1f", tx::RollbackOk {}.into());
    samples
}

fn encoded(method: impl Into<Method>) -> Vec<u8> {
    let mut out = Vec::new();
    method.into().encode(&mut out).unwrap();
    out
}

fn decode(octets: &[u8]) -> Result<Method, DecodeError> {
    Method::decode(&Bytes::copy_from_slice(octets))
}

#[test]
fn every_method_has_a_sample() {
    let sampled: Vec<&str> = samples().iter().map(|(_, method)| method.info().name).collect();
    let all: Vec<&str> = ALL.iter().copied().flatten().map(|info| info.name).collect();
    let missing: Vec<_> = all.iter().filter(|name| !sampled.contains(name)).collect();
    assert!(missing.is_empty(), "no sample for {missing:?}");
    assert_eq!((all.len(), sampled.len()), (66, 66));
}

/// c59, c60, c61: integers, packed bits and strings of all methods, both ways.
#[test]
fn c59_every_method_reads_and_writes_the_octets_of_the_specification() {
    for (octets, method) in samples() {
        let name = method.info().name;
        assert_eq!(encoded(method.clone()), octets, "{name}");
        assert_eq!(decode(octets), Ok(method), "{name}");
    }
}

#[test]
fn the_tables_agree_with_the_octets() {
    for (octets, method) in samples() {
        let info = method.info();
        assert_eq!(octets[..4], [info.class_id.to_be_bytes(), info.method_id.to_be_bytes()].concat(), "{}", info.name);
        for reply in info.replies {
            let found = ALL.iter().copied().flatten().find(|m| (m.class_id, m.method_id) == (info.class_id, *reply));
            let answers = found.is_some_and(|reply| reply.sender == Sender::Both || reply.sender != info.sender);
            assert!(answers, "{} is answered by {reply}, which the other side does not send", info.name);
        }
    }
}

#[test]
fn four_methods_carry_content() {
    let with_content = ALL.iter().copied().flatten().filter(|info| info.has_content).map(|info| info.name);
    assert_eq!(with_content.collect::<Vec<_>>(), ["basic.publish", "basic.return", "basic.deliver", "basic.get-ok"]);
}

/// c60: the five bits of queue.declare, each alone, and all.
#[test]
fn c60_queue_declare_packs_five_bits() {
    for bits in [1, 2, 4, 8, 16, 31] {
        let method = queue::Declare {
            passive: bits & 1 != 0,
            durable: bits & 2 != 0,
            exclusive: bits & 4 != 0,
            auto_delete: bits & 8 != 0,
            no_wait: bits & 16 != 0,
            ..Default::default()
        };
        let octets = encoded(method.clone());
        assert_eq!(octets, [0, 50, 0, 10, 0, 0, 0, bits, 0, 0, 0, 0]);
        assert_eq!(decode(&octets), Ok(method.into()));
    }
}

/// c60: the four bits of basic.consume.
#[test]
fn c60_basic_consume_packs_four_bits() {
    for bits in [1, 2, 4, 8, 15] {
        let method = basic::Consume {
            no_local: bits & 1 != 0,
            no_ack: bits & 2 != 0,
            exclusive: bits & 4 != 0,
            no_wait: bits & 8 != 0,
            ..Default::default()
        };
        let octets = encoded(method.clone());
        assert_eq!(octets, [0, 60, 0, 20, 0, 0, 0, 0, bits, 0, 0, 0, 0]);
        assert_eq!(decode(&octets), Ok(method.into()));
    }
}

/// c60: what the unused bits of an octet say does not matter.
#[test]
fn c60_unused_bits_are_ignored() {
    assert_eq!(decode(b"\0\x14\0\x14\xfe"), Ok(channel::Flow { active: false }.into()));
    assert_eq!(decode(b"\0\x14\0\x14\xff"), Ok(channel::Flow { active: true }.into()));
}

/// c132, c134: exchange.unbind-ok is 51; 41 is nothing.
#[test]
fn c132_exchange_unbind_ok_is_51() {
    assert_eq!(exchange::Unbind::INFO.replies, [51]);
    assert_eq!(decode(&[0, 40, 0, 51]), Ok(exchange::UnbindOk {}.into()));
    let error = decode(&[0, 40, 0, 41]).unwrap_err();
    assert_eq!(*error.kind(), DecodeErrorKind::UnknownMethod { class: 40, method: 41 });
}

/// c35: every cut of every method, the empty payload and those of one to three octets among them.
#[test]
fn c35_a_method_cut_short_anywhere_is_truncated() {
    for (octets, method) in samples() {
        for cut in 0..octets.len() {
            let error = decode(&octets[..cut]).unwrap_err();
            let name = method.info().name;
            assert!(matches!(error.kind(), DecodeErrorKind::Truncated { .. }), "{name} cut at {cut}: {error}");
            assert!(error.offset() <= cut, "{name} cut at {cut}: {error}");
        }
    }
}

/// c35: what is missing from a payload of 0 to 3 octets is one of the two ids.
#[test]
fn c35_a_payload_without_ids_is_truncated() {
    for (octets, what, offset) in
        [(&b""[..], "class id", 0), (b"\0", "class id", 0), (b"\0\x0a", "method id", 2), (b"\0\x0a\0", "method id", 2)]
    {
        let error = decode(octets).unwrap_err();
        let kind = DecodeErrorKind::Truncated { needed: 2, available: octets.len() - offset };
        assert_eq!((error.kind(), error.what(), error.offset()), (&kind, what, offset));
    }
}

/// c36: a peer may append fields of a later version.
#[test]
fn c36_octets_behind_the_last_field_are_ignored() {
    for (octets, method) in samples() {
        assert_eq!(decode(&[octets, b"more"].concat()), Ok(method));
    }
}

#[test]
fn unknown_methods_are_errors_that_carry_the_ids() {
    for (octets, class, method, offset) in [
        ([0, 0, 0, 0], 0, 0, 0),
        ([0, 11, 0, 10], 11, 10, 0),
        ([0xff, 0xff, 0xff, 0xfe], 0xffff, 0xfffe, 0),
        ([0, 10, 0, 12], 10, 12, 2),
        ([0, 60, 1, 40], 60, 296, 2),
        ([0, 90, 0, 0], 90, 0, 2),
    ] {
        let error = decode(&octets).unwrap_err();
        assert_eq!(*error.kind(), DecodeErrorKind::UnknownMethod { class, method });
        assert_eq!(error.offset(), offset);
        assert!(error.to_string().ends_with(&format!("unknown method {class}.{method}")), "{error}");
    }
}

/// c61: 255 octets fit; 256 are an error that names the field, whatever their number of characters.
#[test]
fn c61_a_short_string_has_255_octets_at_most() {
    let publish = |key: String| Method::from(basic::Publish { routing_key: key.into(), ..Default::default() });
    let longest = publish("x".repeat(255));
    assert_eq!(decode(&encoded(longest.clone())), Ok(longest));

    let error = publish("é".repeat(128)).encode(&mut Vec::new()).unwrap_err();
    assert_eq!(*error.kind(), EncodeErrorKind::ShortStringTooLong { length: 256 });
    assert_eq!(error.what(), "basic.publish.routing_key");
}

/// c53: a reply text in another encoding is read as it came.
#[test]
fn c53_a_reply_text_need_not_be_utf8() {
    let Ok(Method::Connection(connection::Method::Close(close))) = decode(b"\0\x0a\0\x32\x01\x40\x04caf\xe9\0\0\0\0")
    else {
        panic!("no connection.close")
    };
    assert_eq!(close.reply_text.as_bytes(), b"caf\xe9");
    assert_eq!(close.reply_text.to_string(), "caf\u{fffd}");
}

/// The offset of an error inside a table counts from the start of the payload.
#[test]
fn an_error_in_a_table_names_the_field_and_the_offset() {
    let error = decode(b"\0\x32\0\x0a\0\0\x01q\0\0\0\0\x04\x01kQ\x01").unwrap_err();
    assert_eq!(*error.kind(), DecodeErrorKind::UnknownFieldType(b'Q'));
    assert_eq!((error.what(), error.offset()), ("queue.declare.arguments", 15));
}

/// A password, a token or an answer to a challenge is not for logs.
#[test]
fn secrets_are_not_shown() {
    let secret = Bytes::from_static(b"hunter2");
    for (method, shown) in [
        (
            Method::from(connection::StartOk {
                response: secret.clone(),
                mechanism: "PLAIN".into(),
                ..Default::default()
            }),
            "StartOk { client_properties: {}, mechanism: \"PLAIN\", response: [7 octets], locale: \"\" }",
        ),
        (connection::SecureOk { response: secret.clone() }.into(), "SecureOk { response: [7 octets] }"),
        (
            connection::UpdateSecret { new_secret: secret, reason: "old".into() }.into(),
            "UpdateSecret { new_secret: [7 octets], reason: \"old\" }",
        ),
    ] {
        let text = format!("{method:?}");
        assert!(text.contains(shown) && !text.contains("hunter2"), "{text}");
        assert!(!format!("{:#?}", Frame::Method(0, method)).contains("hunter2"));
    }
}

/// c89: the views that are read in place see what the decoder sees, and fail where it fails.
#[test]
fn c89_the_views_agree_with_the_decoder() {
    for (octets, method) in samples() {
        let fields = &octets[4..];
        match method {
            Method::Basic(basic::Method::Deliver(deliver)) => {
                assert_eq!(octets[..4], DeliverView::ID);
                let view = DeliverView::parse(fields).unwrap();
                assert_eq!(view.consumer_tag, deliver.consumer_tag.as_bytes());
                assert_eq!((view.delivery_tag, view.redelivered), (deliver.delivery_tag, deliver.redelivered));
                assert_eq!(view.address, b"\x01e\x03key");
                assert!((0..fields.len()).all(|cut| DeliverView::parse(&fields[..cut]).is_err()));
            }
            Method::Basic(basic::Method::Ack(ack)) => {
                assert_eq!(octets[..4], AckView::ACK);
                let view = AckView::parse(fields).unwrap();
                assert_eq!((view.delivery_tag, view.multiple), (ack.delivery_tag, ack.multiple));
                assert!((0..fields.len()).all(|cut| AckView::parse(&fields[..cut]).is_err()));
            }
            Method::Basic(basic::Method::Nack(nack)) => {
                assert_eq!(octets[..4], AckView::NACK);
                let view = AckView::parse(fields).unwrap();
                assert_eq!((view.delivery_tag, view.multiple), (nack.delivery_tag, nack.multiple));
            }
            _ => {}
        }
    }
}
