//! How channels, consumers and connections end, and what becomes of whoever waits.

use std::collections::VecDeque;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::pair::{Cut, Pair, not_found, plain};
use crate::codec::method::{basic, channel, connection, queue};
use crate::codec::{Frame, Method, Properties, RawProperties, ReplyCode};
use crate::error::{Error, ErrorKind, Outcome};
use crate::protocol::client::{Batch, Config, Confirmation, Connection, Deliveries, Publish, STAMP, Settle};
use crate::protocol::server::Event;
use crate::protocol::{Body, OutBuffer, Wakes};

fn error<T: std::fmt::Debug>(polled: Poll<Result<T, Error>>) -> Error {
    match polled {
        Poll::Ready(Err(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn c50_c51_a_channel_closed_by_the_server_ends_its_waits_and_no_others() {
    let (mut pair, channel) = Pair::with_channel();
    let other = pair.open_channel();
    pair.confirm_select(channel);
    let consumer = pair.consume(channel, false);
    pair.deliver(1, "tag", b"unseen");
    pair.answering = false;
    let call = pair.call(channel, queue::Declare::default());
    let elsewhere = pair.call(other, queue::Declare::default());
    pair.drive();
    let Poll::Ready(Ok(tag)) = pair.publish(channel, "x", b"") else { panic!() };
    let close = not_found();
    pair.server.close_channel(1, ReplyCode(close.reply_code), "NOT_FOUND", (50, 10));
    pair.drive();

    for error in [error(pair.reply(channel, call)), error(pair.confirmed(channel, tag))] {
        assert_eq!((error.kind(), error.reply_code()), (ErrorKind::ChannelClosed, Some(ReplyCode::NOT_FOUND)));
        assert_eq!((error.reply_text(), error.failing_method()), (Some("NOT_FOUND"), Some((50, 10))));
        assert_eq!(error.outcome(), Outcome::Unknown);
    }
    let (delivered, end) = pair.deliveries(channel, consumer);
    assert!(delivered.is_empty(), "what nobody has seen goes back to the queue and is not handled here");
    assert!(matches!(end, Poll::Ready(Deliveries::End(Some(error))) if error.kind() == ErrorKind::ChannelClosed));
    assert_eq!(error(pair.publish(channel, "x", b"")).outcome(), Outcome::NotSent);
    let stale = pair.client.settle(channel, 1, Settle::Ack { multiple: false }).unwrap_err();
    assert_eq!((stale.kind(), stale.reply_code()), (ErrorKind::Stale, Some(ReplyCode::NOT_FOUND)));

    assert!(pair.reply(other, elsewhere).is_pending());
    pair.server.send(2, queue::DeclareOk::default());
    pair.drive();
    assert!(matches!(pair.reply(other, elsewhere), Poll::Ready(Ok(_))));
}

#[test]
fn c49_a_number_is_used_again_after_close_ok() {
    let (mut pair, first) = Pair::with_channel();
    let call = pair.client.close_channel(first, ReplyCode::REPLY_SUCCESS, "").unwrap().unwrap();
    let (second, _) = pair.client.open_channel().unwrap();
    assert_eq!(pair.client.channel_number(second), Some(2), "the first is not free yet");
    pair.drive();
    assert!(matches!(pair.reply(first, call), Poll::Ready(Ok(_))));
    let (third, _) = pair.client.open_channel().unwrap();
    assert_eq!(pair.client.channel_number(third), Some(1));
}

/// amqprs leaks the numbers of channels that the server closed.
#[test]
fn thousands_of_channels_can_come_and_go() {
    let mut pair = Pair::new(Config { channel_max: 2, ..Config::default() }, Cut::Never);
    pair.drive();
    for round in 0..3000 {
        let channel = pair.open_channel();
        if round % 2 == 0 {
            let number = pair.client.channel_number(channel).unwrap();
            pair.server.close_channel(number, ReplyCode::NOT_FOUND, "", (0, 0));
            pair.drive();
        }
        pair.client.release_channel(channel);
        pair.drive();
    }
    pair.client.open_channel().unwrap();
    pair.client.open_channel().unwrap();
    assert_eq!(pair.client.open_channel().unwrap_err().kind(), ErrorKind::LimitReached);
}

#[test]
fn c47_what_comes_for_a_closing_channel_is_discarded() {
    let (mut pair, channel) = Pair::with_channel();
    let consumer = pair.consume(channel, true);
    pair.deliver(1, "tag", &[7; 9000]);
    let call = pair.client.close_channel(channel, ReplyCode::REPLY_SUCCESS, "").unwrap().unwrap();
    pair.drive();
    assert!(matches!(pair.reply(channel, call), Poll::Ready(Ok(_))));
    let (delivered, end) = pair.deliveries(channel, consumer);
    assert!(delivered.is_empty());
    assert!(matches!(end, Poll::Ready(Deliveries::End(Some(error))) if error.kind() == ErrorKind::Closed));
    assert!(pair.client.end().is_none());
}

#[test]
fn c46_crossing_closes_of_a_channel_are_both_answered() {
    let (mut pair, channel) = Pair::with_channel();
    pair.server.close_channel(1, ReplyCode::NOT_FOUND, "", (0, 0));
    let call = pair.client.close_channel(channel, ReplyCode::REPLY_SUCCESS, "").unwrap().unwrap();
    pair.drive();
    assert!(matches!(pair.reply(channel, call), Poll::Ready(Ok(_))), "{:?}", pair.events);
    assert!(pair.client.end().is_none());
    let next = pair.client.open_channel().map(|(id, _)| pair.client.channel_number(id));
    assert_eq!(next.unwrap(), Some(2), "1 rests for a while");
}

#[test]
fn c46_crossing_closes_of_a_connection_end_both_sides() {
    let mut pair = Pair::open();
    let limit = Duration::from_secs(5);
    pair.server.close_connection(ReplyCode::CONNECTION_FORCED, "bye", (0, 0), pair.now);
    pair.client.close(ReplyCode::REPLY_SUCCESS, "", pair.now, limit).unwrap();
    pair.drive();
    assert!(pair.server.is_finished());
    pair.client.terminate(Error::new(ErrorKind::Io, "end of stream"));
    assert!(matches!(pair.client.poll_ended(&mut None, Waker::noop()), Poll::Ready(Ok(()))), "c56");
}

#[test]
fn c52_a_connection_closed_by_the_server_says_why_everywhere() {
    let (mut pair, channel) = Pair::with_channel();
    pair.answering = false;
    let call = pair.call(channel, queue::Declare::default());
    pair.server.close_connection(ReplyCode::CONNECTION_FORCED, "CONNECTION_FORCED - bye", (0, 0), pair.now);
    pair.drive();
    assert!(pair.client.is_finished() && pair.server.is_finished(), "close-ok was sent");
    let ended = error(pair.client.poll_ended(&mut None, Waker::noop()));
    for error in [ended, error(pair.reply(channel, call)), pair.client.open_channel().unwrap_err()] {
        assert_eq!(
            (error.kind(), error.reply_code()),
            (ErrorKind::ConnectionClosed, Some(ReplyCode::CONNECTION_FORCED))
        );
        assert!(error.is_transient(), "c144");
    }
}

#[test]
fn c108_a_consumer_cancelled_by_the_server_ends_with_its_reason() {
    let (mut pair, channel) = Pair::with_channel();
    let consumer = pair.consume(channel, false);
    pair.deliver(1, "tag", b"first");
    pair.server.send(1, basic::Cancel { consumer_tag: "tag".into(), no_wait: false });
    pair.drive();
    let (delivered, end) = pair.deliveries(channel, consumer);
    assert_eq!(delivered.len(), 1, "what came before can still be settled");
    assert!(matches!(end, Poll::Ready(Deliveries::End(Some(error))) if error.kind() == ErrorKind::Cancelled));
    assert!(pair.seen().contains(&"basic.cancel-ok"), "an answer was asked for: {:?}", pair.seen());

    // Its tag is free, and is the next one's whatever becomes of it.
    let next = pair.consume(channel, false);
    pair.deliver(1, "tag", b"second");
    pair.client.consume(channel, basic::Consume { consumer_tag: "other".into(), ..Default::default() }).unwrap();
    pair.drive();
    pair.client.release_consumer(channel, consumer, &[]);
    pair.deliver(1, "tag", b"third");
    pair.drive();
    assert_eq!(pair.deliveries(channel, next).0.len(), 2);

    pair.events.clear();
    pair.server.send(1, basic::Cancel { consumer_tag: "tag".into(), no_wait: true });
    pair.drive();
    assert!(pair.seen().is_empty(), "RabbitMQ asks for no answer");
    assert!(matches!(pair.deliveries(channel, next).1, Poll::Ready(Deliveries::End(Some(_)))));
}

#[test]
fn c107_a_dropped_consumer_puts_back_what_nobody_has_seen() {
    let (mut pair, channel) = Pair::with_channel();
    let consumer = pair.consume(channel, false);
    pair.deliver(1, "tag", b"taken");
    pair.drive();
    let mut taken = VecDeque::new();
    assert!(pair.client.poll_deliveries(channel, consumer, &mut taken, Waker::noop()).is_ready());
    pair.deliver(1, "tag", b"queued");
    pair.drive();
    // This one is under way when the consumer goes.
    pair.deliver(1, "tag", b"late");
    let taken: Vec<u64> = taken.iter().flat_map(Batch::delivered).map(|delivered| delivered.delivery_tag).collect();
    pair.client.release_consumer(channel, consumer, &taken);
    pair.drive();
    let put_back: Vec<u64> = pair.events.iter().filter_map(rejected).collect();
    assert_eq!(put_back, [1, 2, 3]);
    assert!(pair.seen().contains(&"basic.cancel"));
    // Nothing is left of it: the tag is free, and deliveries for it would be a violation.
    pair.consume(channel, false);
}

/// Whoever cancels may get more until the server agrees, and nothing after that.
#[test]
fn c107_deliveries_may_come_until_cancel_ok_and_no_longer() {
    for dropped in [false, true] {
        let (mut pair, channel) = Pair::with_channel();
        let consumer = pair.consume(channel, false);
        let call = match dropped {
            true => {
                pair.client.release_consumer(channel, consumer, &[]);
                None
            }
            false => pair.client.cancel(channel, consumer).unwrap(),
        };
        pair.deliver(1, "tag", b"crosses");
        pair.drive();
        assert!(pair.client.end().is_none());
        if let Some(call) = call {
            assert!(pair.reply(channel, call).is_ready());
            let (delivered, end) = pair.deliveries(channel, consumer);
            assert_eq!((delivered.len(), matches!(end, Poll::Ready(Deliveries::End(None)))), (1, true));
            pair.client.settle(channel, 1, Settle::Ack { multiple: false }).unwrap();
        }
        pair.drive();
        let said = if dropped { "basic.reject" } else { "basic.ack" };
        assert_eq!(pair.seen().iter().filter(|name| **name == said).count(), 1, "{:?}", pair.seen());

        pair.deliver(1, "tag", b"late");
        pair.drive();
        let end = pair.client.end().unwrap();
        assert_eq!(end.kind(), ErrorKind::Protocol);
        assert!(end.to_string().contains("unknown consumer \"tag\""), "{end}");
    }
}

/// A channel of RabbitMQ (3.10) that is to cancel a consumer which it is still starting dies of it.
#[test]
fn a_consumer_is_not_cancelled_before_it_has_started() {
    let (mut pair, channel) = Pair::with_channel();
    pair.answering = false;
    let consume = basic::Consume { consumer_tag: "tag".into(), ..Default::default() };
    let (consumer, _) = pair.client.consume(channel, consume).unwrap();
    pair.client.release_consumer(channel, consumer, &[]);
    pair.drive();
    assert_eq!(pair.seen(), ["basic.consume"]);
    pair.server.send(1, basic::ConsumeOk { consumer_tag: "tag".into() });
    pair.drive();
    assert_eq!(pair.seen(), ["basic.consume", "basic.cancel"]);
}

fn rejected(event: &Event) -> Option<u64> {
    match event {
        Event::Method(_, Method::Basic(basic::Method::Reject(reject))) if reject.requeue => Some(reject.delivery_tag),
        _ => None,
    }
}

#[test]
fn c137_a_channel_without_flow_publishes_nothing() {
    let (mut pair, channel) = Pair::with_channel();
    let other = pair.open_channel();
    pair.server.send(1, channel::Flow { active: false });
    pair.drive();
    assert!(pair.seen().contains(&"channel.flow-ok"));
    assert!(pair.publish(channel, "x", b"").is_pending());
    assert!(pair.publish(other, "x", b"").is_ready(), "other channels go on");
    pair.server.send(1, channel::Flow { active: true });
    pair.drive();
    assert!(pair.publish(channel, "x", b"").is_ready());
}

#[test]
fn c139_c141_a_blocked_connection_publishes_nothing_and_settles_on() {
    use crate::codec::method::connection::{Blocked, Unblocked};
    let (mut pair, channel) = Pair::with_channel();
    pair.server.send(0, Blocked { reason: "low on memory".into() });
    pair.drive();
    assert_eq!(pair.client.blocked(), Some("low on memory"));
    assert!(pair.publish(channel, "x", b"").is_pending());
    assert_eq!(pair.client.why_publishing_waits().kind(), ErrorKind::Blocked);
    pair.client.settle(channel, 1, Settle::Ack { multiple: false }).unwrap();
    pair.drive();
    assert!(pair.seen().contains(&"basic.ack"));
    pair.server.send(0, Unblocked {});
    pair.drive();
    assert!(pair.publish(channel, "x", b"").is_ready());
}

#[test]
fn c11_the_end_of_the_stream_during_the_login_is_most_likely_a_wrong_password() {
    let start = connection::Start { version_minor: 9, mechanisms: "PLAIN".into(), ..Default::default() };
    let mut said = Vec::new();
    Frame::Method(0, start.into()).encode(&mut said, 4096).unwrap();
    for (said, kind) in [(&b""[..], ErrorKind::Handshake), (&said, ErrorKind::Auth)] {
        let now = Instant::now();
        let mut client = Connection::new(Config::default(), now);
        client.feed(&mut said.into(), now);
        client.terminate(Error::new(ErrorKind::Io, "end of stream"));
        assert_eq!(error(client.poll_open(&mut None, Waker::noop())).kind(), kind);
    }
}

#[test]
fn the_window_holds_publishers_back() {
    let (mut pair, channel) = Pair::with_channel();
    let select = pair.client.call(channel, crate::codec::method::confirm::Select::default().into(), 2).unwrap();
    pair.drive();
    assert!(pair.reply(channel, select).is_ready());
    assert!(pair.publish(channel, "x", b"").is_ready());
    assert!(pair.publish(channel, "x", b"").is_ready());
    assert!(pair.publish(channel, "x", b"").is_pending());
    pair.drive();
    assert_eq!(pair.client.unconfirmed(channel), 0);
    assert!(matches!(pair.publish(channel, "x", b""), Poll::Ready(Ok(3))));
}

/// A channel's handle can be cloned: several may wait for what is returned.
#[test]
fn everybody_who_waits_for_returned_messages_is_woken() {
    use crate::protocol::fuzzing::Bell;
    let wake = |pair: &mut Pair| {
        let mut wakes = Wakes::default();
        pair.client.take_wakes(&mut wakes);
        wakes.release();
    };
    let bells = [Bell::new(), Bell::new()];
    let (mut pair, channel) = Pair::with_channel();
    for bell in &bells {
        assert!(pair.client.poll_returned(channel, &mut None, bell.waker()).is_pending());
    }
    pair.server.close_channel(1, ReplyCode::NOT_FOUND, "NOT_FOUND", (50, 10));
    pair.drive();
    wake(&mut pair);
    assert_eq!(bells.each_ref().map(Bell::take), [true, true]);
}

/// However many they are: who has nothing to be told sleeps.
#[test]
fn those_who_wait_for_returned_messages_do_not_wake_each_other() {
    use crate::protocol::fuzzing::Bell;
    let (mut pair, channel) = Pair::with_channel();
    let bells: Vec<Bell> = (0..200).map(|_| Bell::new()).collect();
    for bell in &bells {
        assert!(pair.client.poll_returned(channel, &mut None, bell.waker()).is_pending());
    }
    let mut wakes = Wakes::default();
    pair.client.take_wakes(&mut wakes);
    wakes.release();
    assert_eq!(bells.iter().filter(|bell| bell.take()).count(), 0);
}

/// Who is woken because there is room, and cannot use it, leaves the room to the next.
#[test]
fn a_publish_that_fails_passes_its_place_on() {
    use crate::protocol::fuzzing::Bell;
    let (mut pair, channel) = Pair::with_channel();
    pair.answering = false;
    let select = pair.client.call(channel, crate::codec::method::confirm::Select::default().into(), 1).unwrap();
    assert!(pair.reply(channel, select).is_pending());
    assert!(pair.publish(channel, "first", b"").is_ready());
    let (too_long, bells) = ("k".repeat(256), [Bell::new(), Bell::new()]);
    let (mut spoilt, mut good) = (None, None);
    let poll = |pair: &mut Pair, key: &str, waiting: &mut _, bell: &Bell| {
        let publish = plain(key, Body::Borrowed(b""));
        pair.client.poll_publish(channel, &publish, waiting, bell.waker())
    };
    assert!(poll(&mut pair, &too_long, &mut spoilt, &bells[0]).is_pending());
    assert!(poll(&mut pair, "second", &mut good, &bells[1]).is_pending());
    let ack = Frame::Method(1, basic::Ack { delivery_tag: 1, multiple: false }.into());
    let mut octets = Vec::new();
    ack.encode(&mut octets, 4096).unwrap();
    pair.client.feed(&mut octets.as_slice().into(), pair.now);
    let mut wakes = Wakes::default();
    pair.client.take_wakes(&mut wakes);
    wakes.release();
    assert_eq!(bells.each_ref().map(Bell::take), [true, false]);
    assert!(matches!(poll(&mut pair, &too_long, &mut spoilt, &bells[0]), Poll::Ready(Err(_))));
    pair.client.take_wakes(&mut wakes);
    wakes.release();
    assert!(bells[1].take(), "the second waits for ever");
    assert!(poll(&mut pair, "second", &mut good, &bells[1]).is_ready());
}

/// Who publishes without having been woken (another branch of its task was) does not leave a name in the queue, for which somebody
/// else would not be woken.
#[test]
fn a_publish_that_comes_unasked_leaves_the_queue() {
    use crate::protocol::fuzzing::Bell;
    use crate::protocol::{Body, OutBuffer};
    let (mut pair, channel) = Pair::with_channel();
    pair.answering = false;
    let select = pair.client.call(channel, crate::codec::method::confirm::Select::default().into(), 1).unwrap();
    assert!(pair.reply(channel, select).is_pending());
    assert!(pair.publish(channel, "first", b"").is_ready());
    let bells = [Bell::new(), Bell::new()];
    let mut waiting = [None, None];
    let mut poll = |pair: &mut Pair, at: usize| {
        let publish = plain("", Body::Borrowed(b""));
        pair.client.poll_publish(channel, &publish, &mut waiting[at], bells[at].waker())
    };
    let acked = |pair: &mut Pair, delivery_tag| {
        pair.client.take_output(&mut OutBuffer::new(), pair.now);
        let mut octets = Vec::new();
        Frame::Method(1, basic::Ack { delivery_tag, multiple: false }.into()).encode(&mut octets, 4096).unwrap();
        pair.client.feed(&mut octets.as_slice().into(), pair.now);
        let mut wakes = Wakes::default();
        pair.client.take_wakes(&mut wakes);
        wakes.release();
        bells.each_ref().map(Bell::take)
    };
    assert!(poll(&mut pair, 0).is_pending() && poll(&mut pair, 1).is_pending());
    assert_eq!(acked(&mut pair, 1), [true, false]);
    assert!(poll(&mut pair, 1).is_ready(), "it was quicker than the one who was woken");
    assert!(poll(&mut pair, 0).is_pending());
    assert_eq!(acked(&mut pair, 2), [true, false]);
    assert!(poll(&mut pair, 0).is_ready());
}

/// Both have closed a channel, its number is in use again, and the answer to the first close comes late, when the second
/// channel is being closed as well before it was open. It is not the answer to that.
#[test]
fn a_late_close_ok_is_not_for_the_next_channel_of_the_number() {
    let config = Config { channel_max: 1, ..Config::default() };
    let mut pair = Pair::new(config, Cut::Never);
    pair.drive();
    let first = pair.open_channel();
    let say = |pair: &mut Pair, method: Method| {
        let mut octets = Vec::new();
        Frame::Method(1, method).encode(&mut octets, 4096).unwrap();
        pair.client.feed(&mut octets.as_slice().into(), pair.now);
    };
    let close = |pair: &mut Pair, id| pair.client.close_channel(id, ReplyCode::REPLY_SUCCESS, "").unwrap().unwrap();
    let closing = close(&mut pair, first);
    say(&mut pair, not_found().into());
    assert!(matches!(pair.reply(first, closing), Poll::Ready(Ok(_))));
    let (second, opening) = pair.client.open_channel().unwrap();
    let closing = close(&mut pair, second);
    say(&mut pair, channel::CloseOk {}.into());
    assert!(pair.reply(second, closing).is_pending(), "that was for the first");
    say(&mut pair, channel::OpenOk::default().into());
    assert!(pair.reply(second, opening).is_ready());
    say(&mut pair, channel::CloseOk {}.into());
    assert!(matches!(pair.reply(second, closing), Poll::Ready(Ok(_))));
    assert!(pair.client.end().is_none());
}

/// What the server has said counts, also where the ack that was to follow it never came.
#[test]
fn c92_a_message_that_came_back_is_refused_when_its_channel_ends() {
    for stamped in [false, true] {
        let (mut pair, channel) = Pair::with_channel();
        pair.confirm_select(channel);
        for key in ["nowhere", "somewhere"] {
            let publish = Publish { mandatory: true, stamped, ..plain(key, Body::Borrowed(b"x")) };
            assert!(pair.client.poll_publish(channel, &publish, &mut None, Waker::noop()).is_ready());
        }
        let mut properties = Vec::new();
        Properties::new().header(STAMP, 1i64).encode(&mut properties).unwrap();
        let method = basic::Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
            exchange: "".into(),
            routing_key: "nowhere".into(),
        };
        pair.server.send_content(1, method, &RawProperties::new(properties.into()), &"x".into(), pair.now);
        pair.hear();
        assert_eq!(pair.client.take_returned(channel, 1), None, "its confirm has it, should there be one");
        pair.server.close_channel(1, ReplyCode::NOT_FOUND, "NOT_FOUND", (60, 40));
        pair.hear();

        let returned = error(pair.confirmed(channel, 1));
        assert_eq!((returned.kind(), returned.outcome()), (ErrorKind::Returned, Outcome::Refused));
        assert_eq!((returned.reply_code(), returned.reply_text()), (Some(ReplyCode::NO_ROUTE), Some("NO_ROUTE")));
        let message = pair.client.take_returned(channel, 1).unwrap();
        assert_eq!((message.reply_code, message.content.body()), (ReplyCode::NO_ROUTE, &b"x"[..]));
        assert_eq!(pair.client.take_returned(channel, 1), None, "it is told once");
        let unknown = error(pair.confirmed(channel, 2));
        assert_eq!((unknown.kind(), unknown.outcome()), (ErrorKind::ChannelClosed, Outcome::Unknown));
    }
}

/// Whoever does not ask for it leaves nothing behind.
#[test]
fn what_came_back_goes_with_its_confirm() {
    let (mut pair, channel) = Pair::with_channel();
    pair.confirm_select(channel);
    let publish = Publish { mandatory: true, ..plain("nowhere", Body::Borrowed(b"x")) };
    assert!(pair.client.poll_publish(channel, &publish, &mut None, Waker::noop()).is_ready());
    let method = basic::Return { routing_key: "nowhere".into(), ..basic::Return::default() };
    pair.server.send_content(1, method, &RawProperties::default(), &"x".into(), pair.now);
    pair.server.close_channel(1, ReplyCode::NOT_FOUND, "NOT_FOUND", (60, 40));
    pair.hear();
    assert_eq!(error(pair.confirmed(channel, 1)).kind(), ErrorKind::Returned);
    pair.client.forget_confirm(channel, 1);
    assert_eq!(pair.client.take_returned(channel, 1), None);
}

/// Nobody confirms what was published before confirms were asked for, whatever is asked for later.
#[test]
fn c90_a_message_without_a_tag_is_never_acked() {
    let (mut pair, channel) = Pair::with_channel();
    assert!(matches!(pair.publish(channel, "x", b""), Poll::Ready(Ok(0))));
    // Or the server of these tests would confirm it.
    pair.client.take_output(&mut OutBuffer::new(), pair.now);
    for _ in 0..2 {
        assert!(matches!(pair.confirmed(channel, 0), Poll::Ready(Ok(Confirmation::NotRequested))));
        pair.confirm_select(channel);
    }
}
