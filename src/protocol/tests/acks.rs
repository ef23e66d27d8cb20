//! Coalesced acks: what the server hears of what the program settles.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::pair::Pair;
use crate::codec::method::{basic, channel, tx};
use crate::codec::{Frame, Method, RawProperties, ReplyCode};
use crate::error::ErrorKind;
use crate::protocol::OutBuffer;
use crate::protocol::client::{ChannelId, ConsumerId, Settle};
use crate::protocol::server::Event;

const NACK: Settle = Settle::Nack { multiple: false, requeue: true };

/// A channel on which acks are coalesced, with a consumer that has got so many deliveries.
fn consuming(deliveries: u64) -> (Pair, ChannelId, ConsumerId) {
    let (mut pair, channel) = Pair::with_channel();
    pair.client.coalesce_acks(channel).unwrap();
    let consumer = pair.consume(channel, false);
    deliver(&mut pair, deliveries);
    (pair, channel, consumer)
}

fn deliver(pair: &mut Pair, count: u64) {
    for _ in 0..count {
        pair.deliver(1, "tag", b"body");
    }
    pair.drive();
    pair.events.clear();
}

fn settle(pair: &mut Pair, channel: ChannelId, tags: impl IntoIterator<Item = u64>, how: Settle) {
    for tag in tags {
        pair.client.settle(channel, tag, how).unwrap();
    }
}

fn ack(pair: &mut Pair, channel: ChannelId, tags: impl IntoIterator<Item = u64>) {
    settle(pair, channel, tags, Settle::CoalescedAck);
}

/// What the server has heard since it was last asked: how a tag was settled, or the name of another method.
fn heard(pair: &mut Pair) -> Vec<String> {
    pair.drive();
    let word = |event| match event {
        Event::Method(_, Method::Basic(basic::Method::Ack(ack))) => {
            format!("ack {}{}", if ack.multiple { "to " } else { "" }, ack.delivery_tag)
        }
        Event::Method(_, Method::Basic(basic::Method::Nack(nack))) => {
            format!("nack {}{}", if nack.multiple { "to " } else { "" }, nack.delivery_tag)
        }
        Event::Method(_, Method::Basic(basic::Method::Reject(reject))) => format!("reject {}", reject.delivery_tag),
        Event::Method(_, method) => method.info().name.to_owned(),
        Event::ChannelClose(_) => "channel.close".to_owned(),
        Event::Close => "connection.close".to_owned(),
        other => format!("{other:?}"),
    };
    std::mem::take(&mut pair.events).into_iter().map(word).collect()
}

#[test]
fn acks_of_one_turn_are_one_ack() {
    let (mut pair, channel, _) = consuming(9);
    ack(&mut pair, channel, 1..=5);
    assert_eq!(heard(&mut pair), ["ack to 5"]);
    ack(&mut pair, channel, [6]);
    assert_eq!(heard(&mut pair), ["ack 6"], "there is nothing to be coalesced");
    ack(&mut pair, channel, [9, 7, 8]);
    assert_eq!(heard(&mut pair), ["ack to 9"], "in whatever order");
    pair.drive();
    assert!(heard(&mut pair).is_empty());
}

#[test]
fn a_delivery_that_the_program_holds_is_never_settled_by_those_behind_it() {
    let (mut pair, channel, _) = consuming(300);
    ack(&mut pair, channel, (1..=300).filter(|tag| *tag != 3));
    let singly: Vec<String> = (4..=300).map(|tag| format!("ack {tag}")).collect();
    let mut acks = heard(&mut pair);
    assert!(acks.contains(&"ack to 2".to_owned()));
    acks.retain(|ack| ack != "ack to 2");
    acks.sort_by_key(|ack| ack[4..].parse::<u64>().unwrap());
    assert_eq!(acks, singly);
    ack(&mut pair, channel, [3]);
    assert_eq!(heard(&mut pair), ["ack 3"], "everything behind it is settled");
    deliver(&mut pair, 2);
    ack(&mut pair, channel, [301, 302]);
    assert_eq!(heard(&mut pair), ["ack to 302"]);
}

/// Tags are the channel's, whoever got them.
#[test]
fn what_another_consumer_or_a_get_holds_is_not_settled_either() {
    let (mut pair, channel, _) = consuming(0);
    for (tag, no_ack) in [("plain", false), ("no-ack", true)] {
        let consume = basic::Consume { consumer_tag: tag.into(), no_ack, ..Default::default() };
        pair.client.consume(channel, consume).unwrap();
    }
    pair.drive();
    for tag in ["tag", "no-ack", "tag", "plain", "tag", "no-ack", "tag"] {
        pair.deliver(1, tag, b"body");
    }
    pair.drive();
    pair.events.clear();
    ack(&mut pair, channel, [1, 3, 5, 7]);
    assert_eq!(heard(&mut pair), ["ack 5", "ack 7", "ack to 3"]);
    settle(&mut pair, channel, [4], Settle::Ack { multiple: false });
    assert_eq!(heard(&mut pair), ["ack 4"]);

    pair.answering = false;
    for no_ack in [false, true] {
        pair.call(channel, basic::Get { no_ack, ..Default::default() });
        pair.drive();
        pair.get_ok(1);
    }
    deliver(&mut pair, 2);
    ack(&mut pair, channel, [10, 11]);
    assert_eq!(heard(&mut pair), ["ack 10", "ack 11"], "8 is held");
    settle(&mut pair, channel, [8], Settle::Reject { requeue: true });
    assert_eq!(heard(&mut pair), ["reject 8"]);
}

/// Whatever depends on the order comes behind the acks, and what was settled by it is settled.
#[test]
fn acks_come_before_whatever_follows_them() {
    let (mut pair, channel, consumer) = consuming(30);
    let _taken = pair.deliveries(channel, consumer);
    ack(&mut pair, channel, [1, 2]);
    settle(&mut pair, channel, [3], NACK);
    ack(&mut pair, channel, [4, 5]);
    settle(&mut pair, channel, [6], Settle::Reject { requeue: false });
    ack(&mut pair, channel, [7, 8]);
    assert_eq!(heard(&mut pair), ["ack to 2", "nack 3", "ack to 5", "reject 6", "ack to 8"]);
    ack(&mut pair, channel, [9, 12]);
    settle(&mut pair, channel, [13], Settle::Ack { multiple: true });
    settle(&mut pair, channel, [15], Settle::Nack { multiple: true, requeue: true });
    ack(&mut pair, channel, [17, 16]);
    assert_eq!(heard(&mut pair), ["ack 12", "ack 9", "ack to 13", "nack to 15", "ack to 17"]);
    // One that did not ask for it is as it was.
    ack(&mut pair, channel, [18]);
    settle(&mut pair, channel, [19], Settle::Ack { multiple: false });
    ack(&mut pair, channel, [20]);
    assert_eq!(heard(&mut pair), ["ack 19", "ack to 20"]);

    ack(&mut pair, channel, [21]);
    pair.call(channel, basic::Qos::default());
    ack(&mut pair, channel, [22]);
    pair.client.cancel(channel, consumer).unwrap();
    ack(&mut pair, channel, [23, 24]);
    pair.client.release_consumer(channel, consumer, &[30]);
    ack(&mut pair, channel, [25, 26]);
    pair.client.close_channel(channel, ReplyCode::REPLY_SUCCESS, "").unwrap();
    let expected =
        ["ack 21", "basic.qos", "ack 22", "basic.cancel", "ack to 24", "reject 30", "ack to 26", "channel.close"];
    assert_eq!(heard(&mut pair), expected);
    let stale = pair.client.settle(channel, 27, Settle::CoalescedAck).unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Stale);
    assert!(heard(&mut pair).is_empty());
}

#[test]
fn acks_come_before_the_end_of_the_connection() {
    let (mut pair, channel, _) = consuming(2);
    ack(&mut pair, channel, [1, 2]);
    pair.client.close(ReplyCode::REPLY_SUCCESS, "", pair.now, Duration::from_secs(1)).unwrap();
    assert_eq!(heard(&mut pair), ["ack to 2", "connection.close"]);

    let (mut pair, channel, _) = consuming(2);
    ack(&mut pair, channel, [1, 2]);
    // A method that no server sends.
    pair.client.feed(&mut (&[1, 0, 1, 0, 0, 0, 4, 0, 60, 0, 20, 0xCE][..]).into(), pair.now);
    assert_eq!(heard(&mut pair), ["ack to 2", "connection.close"]);
}

/// After a rollback the acks have never been, and the program has nothing left to settle the deliveries with: no ack may reach them.
#[test]
fn a_rollback_ends_the_coalescing() {
    let (mut pair, channel, _) = consuming(9);
    pair.call(channel, tx::Select::default());
    ack(&mut pair, channel, [1, 2]);
    pair.call(channel, tx::Commit::default());
    ack(&mut pair, channel, [3, 4]);
    pair.call(channel, tx::Rollback::default());
    ack(&mut pair, channel, [5, 6]);
    let expected = ["tx.select", "ack to 2", "tx.commit", "ack to 4", "tx.rollback", "ack 5", "ack 6"];
    assert_eq!(heard(&mut pair), expected);
}

/// What a recover brings back comes with another tag; the old one is nobody's any more.
#[test]
fn what_was_recovered_is_held_by_nobody() {
    let (mut pair, channel, _) = consuming(4);
    ack(&mut pair, channel, [1, 2]);
    pair.call(channel, basic::Recover { requeue: true });
    assert_eq!(heard(&mut pair), ["ack to 2", "basic.recover"]);
    pair.server.send(1, basic::RecoverOk {});
    deliver(&mut pair, 3);
    ack(&mut pair, channel, [5, 6, 7]);
    assert_eq!(heard(&mut pair), ["ack to 7"]);
}

#[test]
fn it_is_asked_for_before_anything_that_has_to_be_settled() {
    let (mut pair, channel) = Pair::with_channel();
    pair.call(channel, basic::Get { no_ack: true, ..Default::default() });
    pair.client.coalesce_acks(channel).unwrap();
    pair.call(channel, basic::Get::default());
    pair.client.coalesce_acks(channel).unwrap();
    let other = pair.open_channel();
    pair.call(other, basic::Get::default());
    assert_eq!(pair.client.coalesce_acks(other).unwrap_err().kind(), ErrorKind::InvalidArgument);
    // Without it an ack is an ack.
    ack(&mut pair, other, [1, 2]);
    pair.drive();
    assert!(heard(&mut pair).ends_with(&["ack 1".to_owned(), "ack 2".to_owned()]));
}

/// Nobody knows what is between two tags of a server that does not count.
#[test]
fn a_server_that_does_not_count_gets_each_ack() {
    let (mut pair, channel, _) = consuming(2);
    ack(&mut pair, channel, [1]);
    for delivery_tag in [5, 6] {
        let deliver = basic::Deliver { consumer_tag: "tag".into(), delivery_tag, ..Default::default() };
        pair.server.send_content(1, deliver, &RawProperties::default(), &"body".into(), pair.now);
    }
    pair.drive();
    ack(&mut pair, channel, [2, 5, 6]);
    assert_eq!(heard(&mut pair), ["ack 1", "ack 2", "ack 5", "ack 6"]);
}

/// Acks that wait die with their channel: whatever came behind close-ok would close the connection.
#[test]
fn c48_nothing_is_acked_on_a_channel_that_the_server_has_closed() {
    let (mut pair, channel, _) = consuming(2);
    ack(&mut pair, channel, [1, 2]);
    pair.server.close_channel(1, ReplyCode::NOT_FOUND, "NOT_FOUND", (0, 0));
    pair.hear();
    let (mut out, mut close_ok) = (OutBuffer::new(), Vec::new());
    pair.client.take_output(&mut out, pair.now);
    Frame::Method(1, channel::CloseOk {}.into()).encode(&mut close_ok, 4096).unwrap();
    assert_eq!(out.to_vec(), close_ok);
}

/// The program holds neither what was fetched without acks nor what has gone back by itself: acks behind them are coalesced.
#[test]
fn what_nobody_holds_is_in_nobodys_way() {
    let (mut pair, channel, consumer) = consuming(1);
    pair.answering = false;
    pair.call(channel, basic::Get { no_ack: true, ..Default::default() });
    pair.drive();
    pair.get_ok(1);
    pair.hear();
    pair.answering = true;
    pair.client.release_consumer(channel, consumer, &[]);
    // On its way when the consumer was dropped.
    pair.deliver(1, "tag", b"body");
    pair.hear();
    assert_eq!(heard(&mut pair), ["basic.get", "basic.cancel", "reject 1", "reject 3"]);
    pair.consume(channel, false);
    deliver(&mut pair, 2);
    ack(&mut pair, channel, [4, 5]);
    assert_eq!(heard(&mut pair), ["ack to 5"]);
}

/// What a rollback takes back can be settled again, each by itself, too.
#[test]
fn what_was_settled_with_a_later_one_is_not_after_a_rollback() {
    let (mut pair, channel) = Pair::with_channel();
    pair.call(channel, tx::Select::default());
    let single = Settle::Ack { multiple: false };
    pair.client.settle(channel, 2, Settle::Ack { multiple: true }).unwrap();
    assert_eq!(pair.client.settle(channel, 1, single).unwrap_err().kind(), ErrorKind::Stale);
    pair.call(channel, tx::Rollback::default());
    pair.client.settle(channel, 1, single).unwrap();
}

/// Acks that the server does not read take no memory where they are coalesced, and where they are not there is the same end to them.
#[test]
fn acks_that_nobody_reads_do_not_pile_up() {
    let (mut pair, channel, consumer) = consuming(0);
    let mut tags = 1..;
    let mut take = |pair: &mut Pair, held: u64| {
        for tag in tags.by_ref().take(1000) {
            pair.deliver(1, "tag", b"x");
            pair.hear();
            if tag != held {
                ack(pair, channel, [tag]);
            }
        }
        drop(pair.deliveries(channel, consumer));
        pair.client.wants_input()
    };
    assert!((0..80).all(|_| take(&mut pair, 0)), "they are one ack");
    let held = 80_001;
    assert!((0..70).all(|_| take(&mut pair, held)));
    assert!(!(0..10).all(|_| take(&mut pair, held)), "there are too many of them");
    pair.drive();
    assert!(pair.client.wants_input());
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    Deliver(&'static str),
    Get {
        no_ack: bool,
    },
    /// One of those that are held, as a part of 256 of them.
    Settle(u8, Settle),
    Qos,
    Recover,
    Turn,
}

fn happens() -> impl Strategy<Value = Happens> {
    let single = [Settle::Ack { multiple: false }, NACK, Settle::Reject { requeue: true }];
    let multiple = [Settle::Ack { multiple: true }, Settle::Nack { multiple: true, requeue: false }];
    prop_oneof![
        8 => prop::sample::select(&["tag", "tag", "tag", "other", "no-ack"]).prop_map(Happens::Deliver),
        1 => any::<bool>().prop_map(|no_ack| Happens::Get { no_ack }),
        6 => any::<u8>().prop_map(|at| Happens::Settle(at, Settle::CoalescedAck)),
        // In order, as most programs do.
        6 => Just(Happens::Settle(0, Settle::CoalescedAck)),
        2 => (any::<u8>(), prop::sample::select(single.to_vec())).prop_map(|(at, how)| Happens::Settle(at, how)),
        1 => (0..64u8, prop::sample::select(multiple.to_vec())).prop_map(|(at, how)| Happens::Settle(at, how)),
        1 => Just(Happens::Qos),
        1 => Just(Happens::Recover),
        2 => Just(Happens::Turn),
    ]
}

/// What RabbitMQ does with what it hears: an unknown tag closes the channel.
fn server_settles(unsettled: &mut BTreeSet<u64>, tag: u64, multiple: bool) {
    assert!(unsettled.remove(&tag), "the server knows no delivery {tag}");
    if multiple {
        unsettled.retain(|other| *other > tag);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// The server has settled exactly what the program has, once everything is sent, and never what it holds.
    #[test]
    fn agrees_with_a_set(all in prop::collection::vec(happens(), 0..250)) {
        let (mut pair, channel, _) = consuming(0);
        for (tag, no_ack) in [("other", false), ("no-ack", true)] {
            pair.client.consume(channel, basic::Consume { consumer_tag: tag.into(), no_ack, ..Default::default() }).unwrap();
        }
        pair.drive();
        pair.answering = false;
        pair.events.clear();
        let (mut held, mut unsettled, mut last) = (BTreeSet::new(), BTreeSet::new(), 0);
        for happens in all.into_iter().chain([Happens::Turn]) {
            match happens {
                Happens::Deliver(consumer) => {
                    last += 1;
                    pair.deliver(1, consumer, b"body");
                    if consumer != "no-ack" {
                        held.insert(last);
                        unsettled.insert(last);
                    }
                    pair.hear();
                    continue;
                }
                Happens::Get { no_ack } => drop(pair.call(channel, basic::Get { no_ack, ..Default::default() })),
                Happens::Turn => {}
                Happens::Settle(at, how) => {
                    let Some(tag) = held.iter().nth(usize::from(at) * held.len() / 256).copied() else { continue };
                    pair.client.settle(channel, tag, how).unwrap();
                    held.remove(&tag);
                    if matches!(how, Settle::Ack { multiple: true } | Settle::Nack { multiple: true, .. }) {
                        held.retain(|other| *other > tag);
                    }
                    continue;
                }
                Happens::Qos => drop(pair.call(channel, basic::Qos::default())),
                Happens::Recover => drop(pair.call(channel, basic::Recover { requeue: true })),
            }
            pair.drive();
            for event in std::mem::take(&mut pair.events) {
                match event {
                    Event::Method(_, Method::Basic(basic::Method::Ack(ack))) => {
                        server_settles(&mut unsettled, ack.delivery_tag, ack.multiple);
                    }
                    Event::Method(_, Method::Basic(basic::Method::Nack(nack))) => {
                        server_settles(&mut unsettled, nack.delivery_tag, nack.multiple);
                    }
                    Event::Method(_, Method::Basic(basic::Method::Reject(reject))) => {
                        server_settles(&mut unsettled, reject.delivery_tag, false);
                    }
                    Event::Method(_, Method::Basic(basic::Method::Qos(_))) => pair.server.send(1, basic::QosOk {}),
                    Event::Method(_, Method::Basic(basic::Method::Get(get))) => {
                        last += 1;
                        pair.get_ok(1);
                        if !get.no_ack {
                            held.insert(last);
                            unsettled.insert(last);
                        }
                    }
                    Event::Method(_, Method::Basic(basic::Method::Recover(_))) => {
                        // Everything is the queue's again.
                        unsettled.clear();
                        held.clear();
                        pair.server.send(1, basic::RecoverOk {});
                    }
                    other => panic!("{other:?}"),
                }
            }
            pair.drive();
            prop_assert_eq!(&unsettled, &held);
        }
    }
}
