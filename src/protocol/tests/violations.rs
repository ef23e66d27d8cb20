//! A server that breaks the rules: each time a typed error for everybody, and a code for the server.

use std::task::{Poll, Waker};
use std::time::Instant;

use bytes::BytesMut;

use super::pair::{Cut, Pair};
use crate::codec::method::{basic, channel, connection, queue};
use crate::codec::{ContentHeader, Frame, Method, Properties, RawFrame, RawProperties};
use crate::error::{Error, ErrorKind};
use crate::protocol::OutBuffer;
use crate::protocol::client::{ChannelId, Config, Connection};

/// A client with one channel, and what the server says now.
fn after(said: &[u8]) -> (Connection, ChannelId) {
    let (mut pair, channel) = Pair::with_channel();
    pair.consume(channel, false);
    pair.client.take_output(&mut OutBuffer::new(), pair.now);
    pair.client.feed(&mut said.into(), pair.now);
    (pair.client, channel)
}

fn octets(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        frame.encode(&mut out, usize::MAX).unwrap();
    }
    out
}

fn method(channel: u16, method: impl Into<Method>) -> Frame {
    Frame::Method(channel, method.into())
}

fn header(body_size: u64) -> Frame {
    Frame::Header(1, ContentHeader { body_size, properties: RawProperties::default() })
}

fn deliver(tag: &str) -> Frame {
    method(1, basic::Deliver { consumer_tag: tag.into(), delivery_tag: 1, ..Default::default() })
}

fn body(octets: &'static [u8]) -> Frame {
    Frame::Body(1, octets.into())
}

/// The code of the `connection.close` that the client sends.
fn said_to_server(client: &mut Connection) -> Option<u16> {
    let mut out = OutBuffer::new();
    client.take_output(&mut out, Instant::now());
    let octets = out.to_vec();
    let mut rest = bytes::Bytes::from(octets);
    while let Some(frame) = Frame::decode(&mut rest, usize::MAX).unwrap() {
        if let Frame::Method(0, Method::Connection(connection::Method::Close(close))) = frame {
            return Some(close.reply_code);
        }
    }
    None
}

/// c85, too: limits hold where the frames of a small message come together, and are taken together.
#[test]
fn c25_a_small_message_keeps_to_the_limits() {
    let frames = || Config { frame_max: 8192, ..Config::default() };
    let messages = || Config { max_message_size: 10, ..Config::default() };
    for (config, len, end) in [
        (frames(), 8192 - 8, None),
        (frames(), 8192 - 7, Some(ErrorKind::Protocol)),
        (messages(), 10, None),
        (messages(), 11, Some(ErrorKind::MessageTooLarge)),
    ] {
        let mut pair = Pair::new(config, Cut::Never);
        pair.drive();
        let channel = pair.open_channel();
        pair.consume(channel, false);
        let said = octets(&[deliver("tag"), header(len as u64), Frame::Body(1, vec![7; len].into())]);
        pair.client.feed(&mut said.as_slice().into(), pair.now);
        assert_eq!(pair.client.end().map(Error::kind), end, "{len}");
    }
}

#[test]
fn every_violation_ends_the_connection_with_its_code() {
    let cases: Vec<(&str, Vec<u8>, u16, ErrorKind)> = vec![
        ("c31 a channel that is not open", octets(&[method(9, queue::PurgeOk::default())]), 504, ErrorKind::Protocol),
        (
            "c30 a connection method on a channel",
            octets(&[method(1, connection::Unblocked {})]),
            503,
            ErrorKind::Protocol,
        ),
        ("c29 a channel method on channel 0", octets(&[method(0, basic::QosOk {})]), 503, ErrorKind::Protocol),
        ("c29 content on channel 0", octets(&[Frame::Body(0, "x".into())]), 503, ErrorKind::Protocol),
        ("c77 a body without a header", octets(&[body(b"x")]), 505, ErrorKind::Protocol),
        ("c77 a header without a method", octets(&[header(1)]), 505, ErrorKind::Protocol),
        (
            "c32 a method in the middle of a message",
            octets(&[deliver("tag"), method(1, basic::QosOk {})]),
            505,
            ErrorKind::Protocol,
        ),
        (
            "c32 a delivery in the middle of a message",
            octets(&[deliver("tag"), deliver("tag")]),
            505,
            ErrorKind::Protocol,
        ),
        ("c84 more body than announced", octets(&[deliver("tag"), header(1), body(b"xy")]), 501, ErrorKind::Protocol),
        ("c85 a body of 2^64-1 octets", octets(&[deliver("tag"), header(u64::MAX)]), 311, ErrorKind::MessageTooLarge),
        ("a delivery for an unknown consumer", octets(&[deliver("who?"), header(0)]), 503, ErrorKind::Protocol),
        ("a reply that nobody asked for", octets(&[method(1, queue::PurgeOk::default())]), 503, ErrorKind::Protocol),
        (
            "a confirm without confirm.select",
            octets(&[method(1, basic::Ack { delivery_tag: 1, multiple: false })]),
            503,
            ErrorKind::Protocol,
        ),
        ("a second open-ok", octets(&[method(1, channel::OpenOk::default())]), 503, ErrorKind::Protocol),
        ("a second connection.start", octets(&[method(0, connection::Start::default())]), 503, ErrorKind::Protocol),
        ("c23 a wrong frame end", vec![1, 0, 1, 0, 0, 0, 1, 7, 0], 501, ErrorKind::Protocol),
        ("c24 an unknown frame type", vec![4, 0, 0, 0, 0, 0, 0, 0xCE], 501, ErrorKind::Protocol),
        ("c25 a frame of 4 GiB", vec![3, 0, 1, 0xff, 0xff, 0xff, 0xff], 501, ErrorKind::Protocol),
        ("c35 a method frame of two octets", vec![1, 0, 1, 0, 0, 0, 2, 0, 60, 0xCE], 501, ErrorKind::Protocol),
        ("c38 a heartbeat on a channel", vec![8, 0, 1, 0, 0, 0, 0, 0xCE], 501, ErrorKind::Protocol),
        ("an unknown method", vec![1, 0, 1, 0, 0, 0, 4, 0, 99, 0, 1, 0xCE], 503, ErrorKind::Protocol),
    ];
    for (what, said, code, kind) in cases {
        let (mut client, channel) = after(&said);
        let error = client.end().cloned().unwrap_or_else(|| panic!("{what}: nothing happened"));
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(client.is_finished(), "{what}");
        assert_eq!(said_to_server(&mut client), Some(code), "{what}: {error}");
        assert_eq!(client.channel_end(channel).map(Error::kind), Some(kind), "{what}");
        assert!(matches!(client.poll_ended(&mut None, Waker::noop()), Poll::Ready(Err(_))), "{what}");
    }
}

#[test]
fn what_others_stumble_over_is_none_of_our_business() {
    let fine: Vec<(&str, Vec<u8>)> = vec![
        (
            "c33 a heartbeat in the middle of a message",
            octets(&[deliver("tag"), Frame::Heartbeat, header(1), body(b"x")]),
        ),
        (
            "c33 methods of the connection and of another channel in the middle of a message",
            octets(&[
                deliver("tag"),
                method(0, connection::Blocked { reason: "low on memory".into() }),
                header(1),
                method(2, channel::Flow { active: true }),
                body(b"x"),
            ]),
        ),
        ("c86 an empty body frame", octets(&[deliver("tag"), header(1), body(b""), body(b"x")])),
        ("c79 no body frame for an empty body", octets(&[deliver("tag"), header(0)])),
        (
            "c36 octets behind the last property",
            [&octets(&[deliver("tag")]), &b"\x02\0\x01\0\0\0\x10\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0\x07\x07\xce"[..]]
                .concat(),
        ),
    ];
    for (what, said) in fine {
        let (mut pair, channel) = Pair::with_channel();
        pair.open_channel();
        let consumer = pair.consume(channel, false);
        pair.client.feed(&mut said.as_slice().into(), pair.now);
        assert!(pair.client.end().is_none(), "{what}: {:?}", pair.client.end());
        let (delivered, _) = pair.deliveries(channel, consumer);
        let [(1, content)] = delivered.as_slice() else { panic!("{what}: {} messages", delivered.len()) };
        assert_eq!(content.properties().decode(), Ok(Properties::new()), "{what}");
    }
    let others: Vec<(&str, Vec<u8>)> = vec![
        ("c36 octets behind the last field", vec![1, 0, 1, 0, 0, 0, 9, 0, 60, 0, 30, 1, b'?', 1, 9, 9, 0xCE]),
        ("c87 a close in the middle of a message", octets(&[deliver("tag"), method(1, super::pair::not_found())])),
    ];
    for (what, said) in others {
        assert!(after(&said).0.end().is_none(), "{what}");
    }
}

/// c2, c3, c4: what other servers answer to a protocol header they do not know. Who is neither of these is not called by their names.
#[test]
fn c4_a_server_of_another_protocol_is_named() {
    for said in [&b"HELO mail.example\r\n"[..], b"HTP", b"AUTH", b"AMQX\x00\x00\x09\x01", b"220 mail.example ESMTP\r\n"]
    {
        let mut client = Connection::new(Config::default(), Instant::now());
        client.feed(&mut said.into(), Instant::now());
        assert_eq!(client.end().map(Error::kind), Some(ErrorKind::Protocol), "{:?}", client.end());
    }
    for (said, words) in [
        (&b"AMQP\x00\x00\x08\x00"[..], "AMQP 0-0-8-0"),
        (b"AMQP\x03\x01\x00\x00", "AMQP 3-1-0-0"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "TLS"),
    ] {
        for cut in 1..said.len() {
            let now = Instant::now();
            let mut client = Connection::new(Config::default(), now);
            let mut input = BytesMut::from(&said[..cut]);
            client.feed(&mut input, now);
            input.extend_from_slice(&said[cut..]);
            client.feed(&mut input, now);
            let error = client.end().cloned().unwrap_or_else(|| panic!("{words}, cut at {cut}"));
            let kind = if words == "TLS" { ErrorKind::Tls } else { ErrorKind::Unsupported };
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}

/// Everything a client may receive at any point of the handshake, in any order: never a panic, and at worst an error.
#[test]
fn any_method_at_any_point_of_the_handshake_is_survived() {
    for info in crate::codec::method::ALL.iter().copied().flatten() {
        for number in [0, 1] {
            let now = Instant::now();
            let mut payload = vec![0; 64];
            payload[..2].copy_from_slice(&info.class_id.to_be_bytes());
            payload[2..4].copy_from_slice(&info.method_id.to_be_bytes());
            let mut frame = vec![1, 0, number, 0, 0, 0, 64];
            frame.extend(payload);
            frame.push(0xCE);
            assert!(RawFrame::split(&frame, 100).unwrap().is_some());
            let mut client = Connection::new(Config::default(), now);
            client.feed(&mut frame.as_slice().into(), now);
            let (mut open, _) = after(&frame);
            open.feed(&mut frame.as_slice().into(), now);
        }
    }
}

/// c53, c57: it is told, however much there is to say.
#[test]
fn what_is_wrong_is_said_in_255_octets_at_most() {
    for tag in ["t".repeat(255), "\u{e9}".repeat(127)] {
        let mut out = OutBuffer::new();
        let (mut client, _) = after(&octets(&[deliver(&tag)]));
        client.take_output(&mut out, Instant::now());
        let mut rest = bytes::Bytes::from(out.to_vec());
        let Ok(Some(Frame::Method(0, Method::Connection(connection::Method::Close(close))))) =
            Frame::decode(&mut rest, usize::MAX)
        else {
            panic!("nothing is said");
        };
        let text = close.reply_text.to_str().unwrap();
        assert!(
            close.reply_code == 503 && text.starts_with("a delivery for the unknown consumer") && text.len() > 250,
            "{text}"
        );
    }
}

/// A peer that breaks the rules while it is being left is not told so in a second close.
#[test]
fn nothing_is_said_behind_a_close() {
    let (mut pair, _) = Pair::with_channel();
    pair.client.close(crate::codec::ReplyCode::REPLY_SUCCESS, "", pair.now, std::time::Duration::from_secs(9)).unwrap();
    pair.client.take_output(&mut OutBuffer::new(), pair.now);
    pair.client.feed(&mut BytesMut::from(&b"nonsense"[..]), pair.now);
    assert!(pair.client.is_finished());
    assert_eq!(said_to_server(&mut pair.client), None);
}

/// c47: what comes for a channel that is being closed is discarded, however it comes: here a message that is broken, in one block.
#[test]
fn a_broken_message_on_a_closing_channel_is_discarded() {
    let (mut pair, channel) = Pair::with_channel();
    pair.consume(channel, false);
    pair.client.close_channel(channel, crate::codec::ReplyCode::REPLY_SUCCESS, "").unwrap();
    let mut said = octets(&[deliver("tag")]);
    said.extend_from_slice(&[2, 0, 1, 0, 0, 0, 14, 0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xCE]);
    said.extend(octets(&[body(b"x")]));
    pair.client.feed(&mut said.as_slice().into(), pair.now);
    assert!(pair.client.end().is_none(), "{:?}", pair.client.end());
}
