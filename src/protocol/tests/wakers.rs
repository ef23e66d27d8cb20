//! Whose waker is replaced, or who goes without waiting to the end: the waker leaves the machine through its owner's hands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Wake, Waker};

use super::pair::{Pair, plain};
use crate::codec::Frame;
use crate::codec::method::{basic, confirm, connection, queue};
use crate::protocol::client::{ChannelId, Connection, Place, Waiting};
use crate::protocol::{Body, OutBuffer, Wakes};

struct Task;

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

/// Asks with a waker, then with another one, goes away, and looks where the wakers are meanwhile.
fn check(pair: &mut Pair, ask: &mut dyn FnMut(&mut Connection, &Waker), go: &mut dyn FnMut(&mut Connection)) {
    let tasks = [Arc::new(Task), Arc::new(Task)];
    let kept = || tasks.each_ref().map(|task| Arc::strong_count(task) - 1);
    let mut wakes = Wakes::default();
    for _ in 0..2 {
        ask(&mut pair.client, &Arc::clone(&tasks[0]).into());
        assert_eq!(kept(), [1, 0], "who asks twice is one");
    }
    ask(&mut pair.client, &Arc::clone(&tasks[1]).into());
    assert_eq!(kept(), [1, 1], "the first was dropped in the machine");
    assert!(pair.client.has_wakes());
    pair.client.take_wakes(&mut wakes);
    wakes.release();
    assert_eq!(kept(), [0, 1]);
    go(&mut pair.client);
    assert_eq!(kept(), [0, 1], "the second was dropped in the machine");
    pair.client.take_wakes(&mut wakes);
    assert!(wakes.woken().is_empty(), "it is dropped, and not woken");
    wakes.release();
    assert_eq!(kept(), [0, 0]);
}

fn publish(machine: &mut Connection, channel: ChannelId, waiting: &mut Option<Waiting>, waker: &Waker) {
    let publish = plain("", Body::Borrowed(b""));
    let _ = machine.poll_publish(channel, &publish, waiting, waker);
}

/// A pair of which the server does not answer from now on, and a channel with one message unconfirmed, as many as may be.
fn waiting() -> (Pair, ChannelId) {
    let (mut pair, channel) = Pair::with_channel();
    let select = pair.client.call(channel, confirm::Select::default().into(), 1).unwrap();
    pair.drive();
    assert!(pair.reply(channel, select).is_ready());
    pair.answering = false;
    publish(&mut pair.client, channel, &mut None, Waker::noop());
    (pair, channel)
}

#[test]
fn a_confirm() {
    let (mut pair, channel) = waiting();
    check(
        &mut pair,
        &mut |machine, waker| assert!(machine.poll_confirm(channel, 1, waker).is_pending()),
        &mut |machine| machine.forget_confirm(channel, 1),
    );
}

#[test]
fn a_call() {
    let (mut pair, channel) = waiting();
    let call = pair.client.call(channel, queue::Declare::default().into(), 0).unwrap();
    check(
        &mut pair,
        &mut |machine, waker| assert!(machine.poll_call(channel, call, waker).is_pending()),
        &mut |machine| machine.abandon_call(channel, call),
    );
    let call = pair.client.update_secret("new", "because").unwrap();
    check(
        &mut pair,
        &mut |machine, waker| assert!(machine.poll_connection_call(call, waker).is_pending()),
        &mut |machine| machine.abandon_connection_call(call),
    );
}

#[test]
fn a_consumer() {
    let (mut pair, channel) = waiting();
    let (consumer, _) = pair.client.consume(channel, basic::Consume::default()).unwrap();
    check(
        &mut pair,
        &mut |machine, waker| {
            assert!(machine.poll_deliveries(channel, consumer, &mut VecDeque::new(), waker).is_pending());
        },
        &mut |machine| machine.release_consumer(channel, consumer, &[]),
    );
}

#[test]
fn a_publisher() {
    for blocked in [false, true] {
        let (mut pair, channel) = waiting();
        if blocked {
            let mut octets = Vec::new();
            let blocked = connection::Blocked { reason: "short of everything".into() };
            Frame::Method(0, blocked.into()).encode(&mut octets, 4096).unwrap();
            pair.client.feed(&mut octets.as_slice().into(), pair.now);
        }
        let place = std::cell::RefCell::new(None);
        check(
            &mut pair,
            &mut |machine, waker| publish(machine, channel, &mut place.borrow_mut(), waker),
            &mut |machine| {
                machine.leave(channel, place.take().unwrap());
            },
        );
    }
}

/// Who was not woken, and finds room all the same.
#[test]
fn a_publisher_who_comes_unasked() {
    let (mut pair, channel) = waiting();
    pair.client.take_output(&mut OutBuffer::new(), pair.now);
    let (task, mut place, mut wakes) = (Arc::new(Task), None, Wakes::default());
    let (waker, mut first) = (Waker::from(Arc::clone(&task)), None);
    publish(&mut pair.client, channel, &mut first, Waker::noop());
    publish(&mut pair.client, channel, &mut place, &waker);
    drop(waker);
    let mut octets = Vec::new();
    Frame::Method(1, basic::Ack { delivery_tag: 1, multiple: false }.into()).encode(&mut octets, 4096).unwrap();
    pair.client.feed(&mut octets.as_slice().into(), pair.now);
    publish(&mut pair.client, channel, &mut place, Waker::noop());
    assert!(place.is_none(), "it was published");
    assert_eq!(Arc::strong_count(&task), 2, "dropped in the machine");
    pair.client.take_wakes(&mut wakes);
    wakes.release();
    assert_eq!(Arc::strong_count(&task), 1);
}

#[test]
fn a_watcher() {
    let (mut pair, _) = waiting();
    let place = std::cell::RefCell::<Option<Place>>::new(None);
    check(
        &mut pair,
        &mut |machine, waker| assert!(machine.poll_ended(&mut place.borrow_mut(), waker).is_pending()),
        &mut |machine| machine.unwatch(place.take().unwrap()),
    );
}

#[test]
fn somebody_who_waits_for_all_confirms() {
    let (mut pair, channel) = waiting();
    let place = std::cell::RefCell::<Option<Place>>::new(None);
    check(
        &mut pair,
        &mut |machine, waker| {
            assert!(machine.poll_settled(channel, 1, &mut place.borrow_mut(), waker).is_pending());
        },
        &mut |machine| machine.leave_settled(channel, place.take().unwrap()),
    );
}

#[test]
fn somebody_who_waits_for_returned_messages() {
    let (mut pair, channel) = waiting();
    let place = std::cell::RefCell::<Option<Place>>::new(None);
    check(
        &mut pair,
        &mut |machine, waker| {
            assert!(machine.poll_returned(channel, &mut place.borrow_mut(), waker).is_pending());
        },
        &mut |machine| machine.leave_returned(channel, place.take().unwrap()),
    );
}

/// Nobody would ever come for it.
#[test]
fn a_channel_that_has_ended_keeps_none() {
    let (mut pair, channel) = waiting();
    let call = pair.client.call(channel, queue::Declare::default().into(), 0).unwrap();
    pair.client.close_channel(channel, crate::codec::ReplyCode::REPLY_SUCCESS, "").unwrap();
    let task = Arc::new(Task);
    let waker = Waker::from(Arc::clone(&task));
    assert!(pair.client.poll_confirm(channel, 1, &waker).is_ready());
    assert!(pair.client.poll_settled(channel, 1, &mut None, &waker).is_ready());
    assert!(pair.client.poll_call(channel, call, &waker).is_ready());
    assert!(pair.client.poll_returned(channel, &mut None, &waker).is_ready());
    publish(&mut pair.client, channel, &mut None, &waker);
    assert_eq!(Arc::strong_count(&task), 2);
}
