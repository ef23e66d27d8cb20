//! The machine against a script, with the bytes cut at every point and the time moved by hand.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::codec::method::{basic, channel, connection, queue};
use crate::codec::{ContentHeader, Frame, ProtocolHeader, RawProperties, ReplyCode};
use crate::protocol::OutBuffer;

/// A client that says what the test tells it to, and an owner that accepts everything.
struct Script {
    machine: Connection,
    now: Instant,
    input: BytesMut,
    /// Octets handed in at a time.
    step: usize,
    events: Vec<String>,
    received: Bytes,
}

impl Script {
    fn new(step: usize) -> Self {
        let now = Instant::now();
        let config = Config { max_message_size: 100_000, ..Config::default() };
        Self {
            machine: Connection::new(config, now),
            now,
            input: BytesMut::new(),
            step,
            events: vec![],
            received: Bytes::new(),
        }
    }

    /// After the handshake, with channel 1 open.
    fn open(step: usize) -> Self {
        let mut script = Self::new(step);
        script.raw(&ProtocolHeader::AMQP_0_9_1.to_bytes());
        script.method(0, start_ok("PLAIN", true));
        script.method(0, connection::TuneOk { channel_max: 2, frame_max: 8192, heartbeat: 10 });
        script.method(0, connection::Open { virtual_host: "/".into(), ..Default::default() });
        script.method(1, channel::Open::default());
        let said = script.said();
        assert_eq!(said, ["connection.start", "connection.tune", "connection.open-ok", "1 channel.open-ok"]);
        script.events.clear();
        script
    }

    fn raw(&mut self, octets: &[u8]) {
        for piece in octets.chunks(self.step) {
            self.input.extend_from_slice(piece);
            loop {
                self.machine.feed(&mut self.input, self.now);
                let Some(event) = self.machine.next_event() else { break };
                self.act(event);
            }
        }
        let mut out = OutBuffer::new();
        self.machine.take_output(&mut out, self.now);
        self.received = [self.received.as_ref(), &out.to_vec()].concat().into();
    }

    fn act(&mut self, event: Event) {
        self.events.push(match event {
            Event::Authenticate(login) => {
                self.machine.accept_login();
                format!("login {}", login.mechanism)
            }
            Event::Open { virtual_host } => {
                self.machine.accept_open();
                format!("open {virtual_host}")
            }
            Event::ChannelOpened(number) => format!("opened {number}"),
            Event::Method(number, method) => format!("{number} {}", method.info().name),
            Event::Publish(number, publish, content) => format!(
                "{number} publish {}/{} {} {:?}",
                content.exchange(),
                content.routing_key(),
                content.body().len(),
                publish.mandatory
            ),
            Event::ChannelClose(number) => {
                self.machine.accept_close(number);
                format!("close {number}")
            }
            Event::ChannelClosed(number) => format!("closed {number}"),
            Event::Close => {
                self.machine.accept_close(0);
                "close".into()
            }
            Event::Closed(error) => format!("ended {:?}", error.kind()),
        });
    }

    fn frame(&mut self, frame: &Frame) {
        let mut octets = Vec::new();
        frame.encode(&mut octets, usize::MAX).unwrap();
        self.raw(&octets);
    }

    fn method(&mut self, number: u16, method: impl Into<Method>) {
        self.frame(&Frame::Method(number, method.into()));
    }

    fn publish(&mut self, number: u16) {
        self.method(number, basic::Publish { routing_key: "q".into(), mandatory: true, ..Default::default() });
    }

    fn header(&mut self, number: u16, body_size: u64) {
        let properties = RawProperties::new(Bytes::from_static(&[0, 0]));
        self.frame(&Frame::Header(number, ContentHeader { body_size, properties }));
    }

    fn body(&mut self, number: u16, len: usize) {
        self.frame(&Frame::Body(number, vec![7; len].into()));
    }

    /// What the server has said since the last time: names of methods, or closes with code and text.
    fn said(&mut self) -> Vec<String> {
        let mut said = vec![];
        while let Some(frame) = Frame::decode(&mut self.received, usize::MAX).unwrap() {
            said.push(match frame {
                Frame::Method(0, Method::Connection(connection::Method::Close(close))) => {
                    format!("{} {} ({}.{})", close.reply_code, close.reply_text, close.class_id, close.method_id)
                }
                Frame::Method(number, Method::Channel(channel::Method::Close(close))) => {
                    format!("{number}: {} {}", close.reply_code, close.reply_text)
                }
                Frame::Method(0, method) => method.info().name.into(),
                Frame::Method(number, method) => format!("{number} {}", method.info().name),
                Frame::Header(number, header) => format!("{number} header {}", header.body_size),
                Frame::Body(number, body) => format!("{number} body {}", body.len()),
                Frame::Heartbeat => "heartbeat".into(),
            });
        }
        said
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.machine.handle_timeout(self.now);
        self.raw(&[]);
        while let Some(event) = self.machine.next_event() {
            self.act(event);
        }
    }
}

fn start_ok(mechanism: &str, wants_close: bool) -> connection::StartOk {
    let capabilities = FieldTable::new().with("authentication_failure_close", wants_close);
    connection::StartOk {
        client_properties: FieldTable::new().with("capabilities", capabilities),
        mechanism: mechanism.into(),
        response: "\0guest\0guest".into(),
        locale: "en_US".into(),
    }
}

/// c32, c33, c34: two channels' messages interleaved, with heartbeats between, cut at every point.
#[test]
fn c34_every_cut_gives_the_same_events() {
    let mut expected = None;
    for step in (1..64).chain([4096, usize::MAX]) {
        let mut script = Script::open(step);
        script.method(2, channel::Open::default());
        script.publish(1);
        script.publish(2);
        script.header(2, 30_000);
        script.frame(&Frame::Heartbeat);
        script.header(1, 0);
        script.body(2, 8000);
        script.method(1, queue::Declare { queue: "q".into(), ..Default::default() });
        for len in [0, 8000, 8000, 6000] {
            script.body(2, len);
        }
        script.method(1, channel::Close::default());
        script.method(0, connection::Close::default());
        let said = script.said();
        assert_eq!(said, ["2 channel.open-ok", "1 channel.close-ok", "connection.close-ok"]);
        assert!(script.machine.is_finished());
        let events = script.events;
        assert_eq!(*expected.get_or_insert_with(|| events.clone()), events, "in steps of {step}");
    }
    assert_eq!(
        expected.unwrap(),
        ["opened 2", "1 publish /q 0 true", "1 queue.declare", "2 publish /q 30000 true", "close 1", "close"]
    );
}

#[test]
fn c2_a_foreign_header_is_answered_with_our_own() {
    for octets in [b"AMQP\0\0\x09\x02".as_slice(), b"GET / HTTP/1.1", b"\x16\x03\x01", b"AMQX"] {
        let mut script = Script::new(3);
        script.raw(octets);
        assert_eq!(script.received, ProtocolHeader::AMQP_0_9_1.to_bytes().as_slice());
        assert!(script.machine.is_finished());
        assert_eq!(script.events, ["ended Protocol"]);
    }
}

#[test]
fn c11_a_refused_login_is_told_to_those_who_want_to_hear_it() {
    for wants_close in [true, false] {
        let mut script = Script::new(usize::MAX);
        script.input.extend_from_slice(&ProtocolHeader::AMQP_0_9_1.to_bytes());
        let mut octets = Vec::new();
        Frame::Method(0, start_ok("PLAIN", wants_close).into()).encode(&mut octets, 8192).unwrap();
        script.input.extend_from_slice(&octets);
        script.machine.feed(&mut script.input, script.now);
        let Some(Event::Authenticate(login)) = script.machine.next_event() else { panic!("no login") };
        let expected = Credentials::Password { user: "guest".into(), password: "guest".into() };
        assert_eq!(login.credentials, expected);
        script.machine.refuse_login("ACCESS_REFUSED - no", script.now);
        script.raw(&[]);
        assert_eq!(script.said().get(1).cloned(), wants_close.then(|| "403 ACCESS_REFUSED - no (0.0)".into()));
        assert_eq!(script.machine.is_finished(), !wants_close);
    }
}

#[test]
fn c14_c15_tune_ok_stays_within_the_proposal() {
    let max = 131_072;
    for (channel_max, frame_max, text) in [
        (2047, 4096, "negotiated frame_max = 4096 is lower than the minimum allowed value (8192)"),
        (2047, 0, "negotiated frame_max = 0 is higher than the maximum allowed value (131072)"),
        (2047, max + 1, "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
        (0, max, "negotiated channel_max = 0 is higher than the maximum allowed value (2047)"),
        (2048, max, "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"),
    ] {
        let mut script = Script::new(usize::MAX);
        script.raw(&ProtocolHeader::AMQP_0_9_1.to_bytes());
        script.method(0, start_ok("PLAIN", true));
        script.method(0, connection::TuneOk { channel_max, frame_max, heartbeat: 0 });
        assert_eq!(script.said().last().unwrap(), &format!("530 NOT_ALLOWED - {text} (10.30)"));
    }
}

#[test]
fn a_mechanism_that_was_not_offered_ends_the_connection() {
    let mut script = Script::new(usize::MAX);
    script.raw(&ProtocolHeader::AMQP_0_9_1.to_bytes());
    script.method(0, start_ok("EXTERNAL", true));
    assert_eq!(script.said(), ["connection.start"]);
    assert!(script.machine.is_finished(), "c12: without a word");
}

/// c23 to c31, c35, c36, c77, c78, c84: RabbitMQ's codes, and the method at fault where there is one.
#[test]
fn what_is_out_of_place_closes_the_connection_with_the_right_code() {
    type Act = fn(&mut Script);
    let cases: &[(&str, Act)] = &[
        ("504 CHANNEL_ERROR - unexpected method in connection state running (50.10)", |s| {
            s.method(0, queue::Declare::default());
        }),
        ("504 CHANNEL_ERROR - unexpected method in connection state running (10.11)", |s| {
            s.method(0, start_ok("PLAIN", true));
        }),
        ("505 UNEXPECTED_FRAME - content on channel 0 (0.0)", |s| s.body(0, 1)),
        ("503 COMMAND_INVALID - unimplemented method (10.50)", |s| s.method(1, connection::Close::default())),
        ("503 COMMAND_INVALID - unimplemented method (60.60)", |s| s.method(1, basic::Deliver::default())),
        ("504 CHANNEL_ERROR - expected 'channel.open' (60.10)", |s| s.method(2, basic::Qos::default())),
        ("504 CHANNEL_ERROR - second 'channel.open' seen (20.10)", |s| s.method(1, channel::Open::default())),
        ("530 NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2) (20.10)", |s| {
            s.method(2, channel::Open::default());
            s.method(3, channel::Open::default());
        }),
        ("505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0.0)", |s| s.body(1, 1)),
        ("505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0.0)", |s| s.header(2, 1)),
        ("505 UNEXPECTED_FRAME - expected content, got a method frame instead (60.10)", |s| {
            s.publish(1);
            s.method(1, basic::Qos::default());
        }),
        (
            "505 UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead (60.40)",
            |s| {
                s.publish(1);
                s.body(1, 1);
            },
        ),
        ("505 UNEXPECTED_FRAME - expected content body, got non content body frame instead (60.40)", |s| {
            s.publish(1);
            s.header(1, 1);
            s.header(1, 1);
        }),
        ("501 FRAME_ERROR - the body is longer than its header announced (60.40)", |s| {
            s.publish(1);
            s.header(1, 1);
            s.body(1, 2);
        }),
        ("505 UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead (60.40)", |s| {
            s.publish(1);
            s.raw(b"\x02\0\x01\0\0\0\x0e\0\x32\0\0\0\0\0\0\0\0\0\0\0\0\xce");
        }),
        ("501 FRAME_ERROR - cannot decode frame end at offset 11: the frame ends in 0xcd instead of 0xce (0.0)", |s| {
            s.raw(b"\x01\0\x01\0\0\0\x04\0\x0a\0\x0a\xcd");
        }),
        ("501 FRAME_ERROR - cannot decode frame type at offset 0: unknown frame type 4 (0.0)", |s| {
            s.raw(b"\x04\0\0\0\0\0\0\xce");
        }),
        (
            "501 FRAME_ERROR - cannot decode frame size at offset 3: a frame of 8185 octets where 8184 are allowed (0.0)",
            |s| s.raw(b"\x03\0\x01\0\0\x1f\xf9"),
        ),
        ("501 FRAME_ERROR - cannot decode class id at offset 0: needs 2 octets where 1 are left (0.0)", |s| {
            s.raw(b"\x01\0\x01\0\0\0\x01\0\xce");
        }),
        ("540 NOT_IMPLEMENTED - cannot decode method id at offset 2: unknown method 60.99 (60.99)", |s| {
            s.raw(b"\x01\0\x01\0\0\0\x04\0\x3c\0\x63\xce");
        }),
    ];
    for (expected, act) in cases {
        for step in [1, usize::MAX] {
            let mut script = Script::open(step);
            act(&mut script);
            assert_eq!(script.said().last().map(String::as_str), Some(*expected));
            assert_eq!(script.events.last().map(String::as_str), Some("ended Protocol"), "{expected}");
        }
    }
}

#[test]
fn c36_octets_behind_a_method_are_ignored() {
    let mut script = Script::open(1);
    script.raw(b"\x01\0\x01\0\0\0\x07\0\x5a\0\x0a\x01\x02\x03\xce");
    assert_eq!(script.events, ["1 tx.select"]);
}

#[test]
fn c88_a_message_that_is_too_large_closes_its_channel_only() {
    let mut script = Script::open(usize::MAX);
    script.publish(1);
    script.header(1, 100_001);
    let text = "1: 406 PRECONDITION_FAILED - message size 100001 is larger than configured max size 100000";
    assert_eq!(script.said(), [text]);
    script.body(1, 8000);
    script.body(1, 8000);
    script.method(1, channel::CloseOk {});
    script.method(1, channel::Open::default());
    assert_eq!(script.said(), ["1 channel.open-ok"]);
    assert_eq!(script.events, ["closed 1", "opened 1"]);
}

/// c46, c47, c48, c49, c87
#[test]
fn c47_after_closing_a_channel_everything_but_the_answer_is_discarded() {
    let mut script = Script::open(1);
    script.publish(1);
    script.machine.close_channel(1, ReplyCode::NOT_FOUND, "NOT_FOUND - no", (60, 40));
    script.machine.send(1, basic::QosOk {});
    script.header(1, 3);
    script.body(1, 3);
    script.method(1, queue::Declare::default());
    script.method(1, channel::Open::default());
    script.method(1, channel::Close::default());
    assert_eq!(script.said(), ["1: 404 NOT_FOUND - no", "1 channel.close-ok"], "a crossing close is answered");
    script.method(1, channel::CloseOk {});
    script.method(1, channel::Open::default());
    assert_eq!(script.said(), ["1 channel.open-ok"]);
    assert_eq!(script.events, ["opened 1"]);
}

#[test]
fn c47_after_closing_the_connection_everything_but_the_answer_is_discarded() {
    let mut script = Script::open(1);
    script.machine.close_connection(ReplyCode::CONNECTION_FORCED, "CONNECTION_FORCED - bye", (0, 0), script.now);
    script.machine.send(1, basic::QosOk {});
    script.publish(1);
    script.body(1, 3);
    script.body(0, 3);
    script.method(2, channel::Open::default());
    script.method(0, connection::Close::default());
    assert_eq!(script.said(), ["320 CONNECTION_FORCED - bye (0.0)", "connection.close-ok"]);
    assert!(!script.machine.is_finished());
    script.method(0, connection::CloseOk {});
    assert!(script.machine.is_finished());
    assert!(script.events.is_empty());
}

#[test]
fn c54_a_client_that_does_not_answer_is_left() {
    let mut script = Script::open(1);
    script.machine.close_connection(ReplyCode::CONNECTION_FORCED, "bye", (0, 0), script.now);
    for _ in 0..29 {
        script.pass(1);
        script.frame(&Frame::Heartbeat);
    }
    assert!(!script.machine.is_finished());
    assert!(script.said().contains(&"heartbeat".into()), "c42");
    script.pass(1);
    assert!(script.machine.is_finished());
}

#[test]
fn a_handshake_has_a_deadline() {
    let mut script = Script::new(1);
    script.raw(b"AMQP");
    assert_eq!(script.machine.timeout(), Some(script.now + Duration::from_secs(10)));
    script.pass(10);
    assert_eq!(script.events, ["ended Timeout"]);
    assert!(script.machine.is_finished() && script.received.is_empty());
}

/// c37, c39, c40, c41
#[test]
fn c40_heartbeats_are_sent_when_idle_and_their_absence_ends_the_connection() {
    let mut script = Script::open(usize::MAX);
    script.pass(4);
    assert!(script.said().is_empty());
    script.pass(1);
    assert_eq!(script.said(), ["heartbeat"]);
    script.raw(b"\x03"); // c41: a part of a frame is a sign of life
    script.pass(5);
    assert_eq!(script.said(), ["heartbeat"]);
    script.pass(14);
    script.machine.excuse_silence(script.now);
    script.pass(19);
    assert!(!script.machine.is_finished());
    script.said();
    script.pass(1);
    assert_eq!(script.events, ["ended Heartbeat"]);
    assert!(script.machine.is_finished() && script.said().is_empty());
}

#[test]
fn a_lost_stream_is_an_event_once() {
    let mut script = Script::open(usize::MAX);
    script.machine.terminate(Error::new(crate::error::ErrorKind::Io, "lost"));
    script.pass(100);
    assert_eq!(script.events, ["ended Io"]);
}

/// c25, c79
#[test]
fn content_is_cut_to_the_frames_agreed_on() {
    let mut script = Script::open(usize::MAX);
    let properties = RawProperties::new(Bytes::from_static(&[0, 0]));
    for len in [0, 8184, 8185] {
        script.machine.send_content(1, basic::Deliver::default(), &properties, &vec![0; len].into(), script.now);
    }
    script.machine.send_content(9, basic::Deliver::default(), &properties, &Bytes::new(), script.now);
    script.raw(&[]);
    let deliver = "1 basic.deliver";
    assert_eq!(
        script.said(),
        [
            deliver,
            "1 header 0",
            deliver,
            "1 header 8184",
            "1 body 8184",
            deliver,
            "1 header 8185",
            "1 body 8184",
            "1 body 1"
        ]
    );
}

/// An owner may take its time with a channel's close, and its client may leave altogether meanwhile.
#[test]
fn nothing_is_said_behind_the_end_of_the_connection() {
    let mut script = Script::open(usize::MAX);
    let close = |number, method: Method| {
        let mut octets = Vec::new();
        Frame::Method(number, method).encode(&mut octets, 4096).unwrap();
        octets
    };
    let mut input = BytesMut::from(close(1, channel::Close::default().into()).as_slice());
    script.machine.feed(&mut input, script.now);
    assert!(matches!(script.machine.next_event(), Some(Event::ChannelClose(1))));
    input.extend_from_slice(&close(0, connection::Close::default().into()));
    script.machine.feed(&mut input, script.now);
    assert!(matches!(script.machine.next_event(), Some(Event::Close)));
    script.machine.accept_close(0);
    script.machine.accept_close(1);
    let mut out = OutBuffer::new();
    script.machine.take_output(&mut out, script.now);
    script.received = out.to_vec().into();
    assert_eq!(script.said(), ["connection.close-ok"]);
}
