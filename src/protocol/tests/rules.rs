//! Rules of the protocol that no other file of tests is about.

use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::pair::Pair;
use crate::codec::{Frame, ReplyCode};
use crate::error::{Error, ErrorKind};
use crate::protocol::OutBuffer;
use crate::protocol::client::{Config, Connection, Deliveries};

/// The header is there before anything has come, and only once.
#[test]
fn c1_the_client_speaks_first() {
    let now = Instant::now();
    let mut client = Connection::new(Config::default(), now);
    let mut out = OutBuffer::new();
    client.take_output(&mut out, now);
    assert_eq!(out.to_vec(), b"AMQP\0\0\x09\x01");
    let mut more = OutBuffer::new();
    client.take_output(&mut more, now);
    assert!(more.is_empty());
}

/// After a long sleep of the whole process what the peer sent in the meantime counts first; only when nothing came is it dead.
#[test]
fn c45_a_late_turn_is_not_the_peers_death() {
    for said in [&Frame::HEARTBEAT[..], b""] {
        let mut pair = Pair::open();
        let late = pair.now + Duration::from_secs(1000);
        pair.client.feed(&mut said.into(), late);
        pair.client.handle_timeout(late);
        assert_eq!(pair.client.end().map(Error::kind), said.is_empty().then_some(ErrorKind::Heartbeat));
    }
}

/// RabbitMQ closes the channel of a consumer that was too slow to acknowledge; its words reach the consumer.
#[test]
fn c116_a_consumer_that_is_too_slow_learns_why() {
    let (mut pair, channel) = Pair::with_channel();
    let consumer = pair.consume(channel, false);
    let text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out";
    pair.server.close_channel(1, ReplyCode::PRECONDITION_FAILED, text, (0, 0));
    pair.drive();
    let (_, Poll::Ready(Deliveries::End(Some(error)))) = pair.deliveries(channel, consumer) else { panic!() };
    assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ChannelClosed, Some(ReplyCode::PRECONDITION_FAILED)));
    assert_eq!((error.reply_text(), error.is_transient()), (Some(text), false));
}

/// With a fresh secret another try may succeed.
#[test]
fn c143_expired_credentials_are_worth_another_try() {
    let mut pair = Pair::open();
    let text = "CONNECTION_FORCED - credential expired";
    pair.server.close_connection(ReplyCode::CONNECTION_FORCED, text, (0, 0), pair.now);
    pair.drive();
    let Poll::Ready(Err(error)) = pair.client.poll_ended(&mut None, Waker::noop()) else { panic!() };
    assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ConnectionClosed, Some(ReplyCode::CONNECTION_FORCED)));
    assert_eq!((error.reply_text(), error.is_transient()), (Some(text), true));
}
