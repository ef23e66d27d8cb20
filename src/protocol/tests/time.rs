//! Heartbeats and deadlines, with the time moved by hand.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::pair::{Cut, Pair, plain};
use crate::codec::method::{connection, queue};
use crate::codec::{Frame, Method, ReplyCode};
use crate::error::ErrorKind;
use crate::protocol::client::{Config, Connection, Sasl, SaslMechanism, Settle};
use crate::protocol::{Body, OutBuffer};

#[test]
fn c39_c42_an_idle_connection_lives_by_its_heartbeats() {
    let mut pair = Pair::open();
    let before = (pair.received_by_client(), pair.received_by_server());
    pair.pass(Duration::from_secs(3600));
    assert!(pair.client.end().is_none() && !pair.server.is_finished());
    // One of eight octets every half interval of 60 s, and no flood.
    let heartbeats = (pair.received_by_server() - before.1) / 8;
    assert!((100..=125).contains(&heartbeats), "{heartbeats}");
    assert!(pair.received_by_client() > before.0);
}

#[test]
fn c40_silence_of_two_intervals_ends_every_wait() {
    let (mut pair, channel) = Pair::with_channel();
    pair.confirm_select(channel);
    let consumer = pair.consume(channel, false);
    pair.connected = false;
    let call = pair.call(channel, queue::Declare::default());
    let tag = match pair.publish(channel, "x", b"body") {
        Poll::Ready(Ok(tag)) => tag,
        other => panic!("{other:?}"),
    };
    pair.pass(Duration::from_secs(119));
    assert!(pair.reply(channel, call).is_pending());
    pair.pass(Duration::from_secs(2));

    assert!(pair.client.is_finished());
    let kind = |error: &crate::error::Error| error.kind();
    assert_eq!(
        pair.reply(channel, call).map(|reply| reply.as_ref().map_err(kind).err()),
        Poll::Ready(Some(ErrorKind::Heartbeat))
    );
    let confirmed = pair.confirmed(channel, tag).map(|confirmation| confirmation.as_ref().map_err(kind).err());
    assert_eq!(confirmed, Poll::Ready(Some(ErrorKind::Heartbeat)));
    let (_, end) = pair.deliveries(channel, consumer);
    assert!(format!("{end:?}").contains("Heartbeat"), "{end:?}");
    let ended = pair.client.poll_ended(&mut None, Waker::noop());
    assert_eq!(ended.map(|ended| ended.as_ref().map_err(kind).err()), Poll::Ready(Some(ErrorKind::Heartbeat)));
    let next = pair.publish(channel, "x", b"late").map(|published| published.as_ref().map_err(kind).err());
    assert_eq!(next, Poll::Ready(Some(ErrorKind::Heartbeat)));
}

/// A body may have an owner with code of its own, which is not run while the machine is locked.
#[test]
fn what_is_not_written_any_more_is_dropped_by_the_owner() {
    use std::sync::Arc;
    struct Owner(#[expect(dead_code, reason = "it is counted")] Arc<()>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            const { &[7; 100_000] }
        }
    }
    for closing in [false, true] {
        let (mut pair, channel) = Pair::with_channel();
        pair.connected = false;
        let alive = Arc::new(());
        let body = Body::Owned(bytes::Bytes::from_owner(Owner(Arc::clone(&alive))));
        let publish = plain("", body);
        assert!(pair.client.poll_publish(channel, &publish, &mut None, Waker::noop()).is_ready());
        drop(publish);
        if closing {
            pair.client.close(ReplyCode::REPLY_SUCCESS, "", pair.now, Duration::from_secs(5)).unwrap();
        }
        pair.client.handle_timeout(pair.now + Duration::from_secs(1000));
        assert!(pair.client.is_finished());
        assert_eq!(Arc::strong_count(&alive), 2, "dropped in the machine");
        drop(pair.client.take_unsent());
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}

/// A server may be long about `connection.open`, and hears that the client is there; that it says nothing itself is not held against it
/// until it has opened the connection.
#[test]
fn c21_heartbeats_are_sent_from_tune_ok_on_and_awaited_from_open_ok_on() {
    let mut now = Instant::now();
    let mut client = Connection::new(Config::default(), now);
    let hear = |client: &mut Connection, method: Method, now| {
        let mut octets = Vec::new();
        Frame::Method(0, method).encode(&mut octets, 4096).unwrap();
        client.feed(&mut octets.as_slice().into(), now);
        client.take_output(&mut OutBuffer::new(), now);
    };
    let start = connection::Start { version_minor: 9, mechanisms: "PLAIN".into(), ..Default::default() };
    hear(&mut client, start.into(), now);
    assert_eq!(client.timeout(), None, "no interval is agreed on yet");
    hear(&mut client, connection::Tune { heartbeat: 10, ..Default::default() }.into(), now);
    let mut pass = |client: &mut Connection, seconds: u64| {
        let mut heartbeats = 0;
        for _ in 0..seconds {
            now += Duration::from_secs(1);
            client.handle_timeout(now);
            let mut out = OutBuffer::new();
            client.take_output(&mut out, now);
            heartbeats += out.to_vec().len() / 8;
        }
        (now, heartbeats)
    };
    let (late, heartbeats) = pass(&mut client, 60);
    assert_eq!((heartbeats, client.end().map(crate::error::Error::kind)), (12, None));
    hear(&mut client, connection::OpenOk::default().into(), late);
    assert!(client.poll_open(&mut None, Waker::noop()).is_ready());
    pass(&mut client, 19);
    assert!(client.end().is_none());
    pass(&mut client, 1);
    assert_eq!(client.end().map(crate::error::Error::kind), Some(ErrorKind::Heartbeat));
}

#[test]
fn c17_without_heartbeats_nothing_is_due() {
    let mut pair = Pair::new(Config { heartbeat: 0, ..Config::default() }, Cut::Never);
    pair.drive();
    assert_eq!(pair.client.timeout(), None);
    pair.connected = false;
    pair.pass(Duration::from_secs(100_000));
    assert!(pair.client.end().is_none());
}

#[test]
fn c55_closing_has_a_deadline() {
    let mut pair = Pair::open();
    pair.connected = false;
    pair.client.close(ReplyCode::REPLY_SUCCESS, "", pair.now, Duration::from_secs(5)).unwrap();
    pair.pass(Duration::from_secs(4));
    assert!(!pair.client.is_finished());
    pair.pass(Duration::from_secs(2));
    assert!(pair.client.is_finished());
    let ended = pair.client.poll_ended(&mut None, Waker::noop());
    assert!(matches!(ended, Poll::Ready(Err(error)) if error.kind() == ErrorKind::Timeout));
}

/// Whichever limit is the shorter: a server that says nothing has not agreed.
#[test]
fn c55_silence_is_no_answer_to_a_close() {
    let mut pair = Pair::new(Config { heartbeat: 1, ..Config::default() }, Cut::Never);
    pair.drive();
    pair.connected = false;
    pair.client.close(ReplyCode::REPLY_SUCCESS, "", pair.now, Duration::from_secs(60)).unwrap();
    pair.pass(Duration::from_secs(3));
    assert!(pair.client.is_finished());
    let ended = pair.client.poll_ended(&mut None, Waker::noop());
    assert!(matches!(&ended, Poll::Ready(Err(error)) if error.kind() == ErrorKind::Heartbeat), "{ended:?}");
}

/// A close may take its time, and the socket is open as long.
#[test]
fn c42_heartbeats_go_on_while_closing() {
    let Pair { mut client, mut now, .. } = Pair::open();
    client.close(ReplyCode::REPLY_SUCCESS, "", now, Duration::from_secs(3600)).unwrap();
    client.take_output(&mut OutBuffer::new(), now);
    for _ in 0..10 {
        now += Duration::from_secs(30);
        client.feed(&mut (&Frame::HEARTBEAT[..]).into(), now);
        client.handle_timeout(now);
        let mut out = OutBuffer::new();
        client.take_output(&mut out, now);
        assert_eq!(out.to_vec(), Frame::HEARTBEAT);
    }
    assert!(!client.is_finished());
}

/// A server that reads nothing is dead after a while, unless it has said that it will not read for now.
#[test]
fn c43_a_blocked_server_may_leave_acks_unread() {
    for blocked in [false, true] {
        let (mut pair, channel) = Pair::with_channel();
        if blocked {
            pair.server.send(0, connection::Blocked { reason: "low on memory".into() });
            pair.drive();
        }
        let mut tag = 0;
        while pair.client.wants_input() {
            tag += 1;
            pair.client.settle(channel, tag, Settle::Ack { multiple: false }).unwrap();
        }
        pair.connected = false;
        for _ in 0..10 {
            pair.now += Duration::from_secs(60);
            pair.client.handle_timeout(pair.now);
        }
        let end = (!blocked).then_some(ErrorKind::Heartbeat);
        assert_eq!(pair.client.end().map(crate::error::Error::kind), end);
    }
}

/// Answers that the server calls for again and again, and does not read, take no memory without end.
#[test]
fn what_is_said_to_a_flood_does_not_pile_up() {
    fn hear(client: &mut Connection, method: &Method) {
        let mut octets = Vec::new();
        Frame::Method(0, method.clone()).encode(&mut octets, 4096).unwrap();
        client.feed(&mut octets.as_slice().into(), Instant::now());
    }
    let closing = {
        let mut pair = Pair::open();
        pair.client.close(ReplyCode::REPLY_SUCCESS, "", pair.now, Duration::from_secs(5)).unwrap();
        pair.client
    };
    let logging_in = {
        let mechanisms: Vec<Arc<dyn SaslMechanism>> = vec![Arc::new(Sasl::RabbitCrDemo)];
        let mut client = Connection::new(Config { mechanisms, ..Config::default() }, Instant::now());
        let mechanisms = "RABBIT-CR-DEMO".into();
        hear(&mut client, &connection::Start { version_minor: 9, mechanisms, ..Default::default() }.into());
        client
    };
    let secure = connection::Secure { challenge: "Please tell me your password".into() };
    for (mut client, flood) in [(closing, connection::Close::default().into()), (logging_in, secure.into())] {
        let mut heard = 0;
        while client.wants_input() {
            hear(&mut client, &flood);
            heard += 1;
            assert!(!client.is_finished() && heard < 500_000, "{flood:?}");
        }
    }
}

/// A paused reader hears nothing, and must not take that for the peer's silence.
#[test]
fn a_pause_of_our_own_is_not_the_peers_death() {
    let mut pair = Pair::new(Config { max_buffered: 10, ..Config::default() }, Cut::Never);
    pair.drive();
    let channel = pair.open_channel();
    let consumer = pair.consume(channel, false);
    pair.deliver(1, "tag", &[7; 100]);
    pair.drive();
    assert!(!pair.client.wants_input(), "more than may wait is waiting");
    pair.connected = false;
    pair.pass(Duration::from_secs(1000));
    assert!(pair.client.end().is_none());
    assert_eq!(pair.deliveries(channel, consumer).0.len(), 1);
    assert!(pair.client.wants_input());
}

/// Where there is nothing to ack, nothing else would ever wake a driver that has stopped reading.
#[test]
fn reading_goes_on_when_what_waited_is_taken() {
    let mut pair = Pair::new(Config { max_buffered: 10, ..Config::default() }, Cut::Never);
    pair.drive();
    let channel = pair.open_channel();
    let consumer = pair.consume(channel, true);
    pair.deliver(1, "tag", &[7; 100]);
    pair.drive();
    assert!(!pair.client.wants_input());
    pair.client.set_driver(Waker::noop());
    assert!(pair.client.wake_driver().is_none());
    assert_eq!(pair.deliveries(channel, consumer).0.len(), 1);
    assert!(pair.client.wake_driver().is_some());
}

/// "Wait for ever" is a limit like any other.
#[test]
fn a_limit_that_is_longer_than_any_program_does_not_overflow() {
    let mut pair = Pair::open();
    pair.client.close(ReplyCode::REPLY_SUCCESS, "", pair.now, Duration::MAX).unwrap();
    pair.drive();
    assert!(pair.client.is_finished());
}
