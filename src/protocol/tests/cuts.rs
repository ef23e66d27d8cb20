//! A whole conversation, with the octets cut at every place in both directions: it always comes to the same (c34).

use std::task::Poll;

use bytes::BytesMut;
use proptest::prelude::*;

use super::pair::{Cut, Pair};
use crate::codec::method::{basic, queue};
use crate::codec::{ContentHeader, Frame, Method, RawProperties};
use crate::protocol::client::{Config, Confirmation};

/// Declares, publishes messages of all kinds of sizes, consumes and settles them. Returns how many octets went each way.
fn conversation(cut: Cut) -> (usize, usize) {
    let config = Config { frame_max: 8192, ..Config::default() };
    let mut pair = Pair::new(config, cut);
    pair.drive();
    let channel = pair.open_channel();
    pair.confirm_select(channel);
    let declare = pair.call(channel, queue::Declare { queue: "q".into(), ..Default::default() });
    let consumer = pair.consume(channel, false);
    match pair.reply(channel, declare) {
        Poll::Ready(Ok(reply)) => assert!(matches!(
            reply.method,
            Method::Queue(queue::Method::DeclareOk(ok)) if ok.queue == "q" && ok.message_count == 3
        )),
        other => panic!("{other:?}"),
    }

    let bodies: Vec<Vec<u8>> = [0, 1, 100, 8184, 8185, 9000].map(|size| vec![7; size]).to_vec();
    for body in &bodies {
        assert!(pair.publish(channel, "deliver", body).is_ready());
    }
    pair.drive();
    let (delivered, _) = pair.deliveries(channel, consumer);
    for (tag, body) in (1u64..).zip(&bodies) {
        assert!(matches!(pair.confirmed(channel, tag), Poll::Ready(Ok(Confirmation::Ack(None)))), "{cut:?}, {tag}");
        let (delivery_tag, content) = &delivered[usize::try_from(tag).unwrap() - 1];
        assert_eq!((*delivery_tag, content.body()), (tag, body.as_slice()), "{cut:?}");
        assert_eq!(content.exchange(), "exchange");
        assert_eq!(content.routing_key(), "key");
        assert_eq!(content.properties().decode().unwrap().message_id, Some("id".into()));
    }
    assert_eq!(delivered.len(), bodies.len());
    (pair.received_by_client(), pair.received_by_server())
}

#[test]
fn c34_in_pieces_of_every_size() {
    let whole = conversation(Cut::Never);
    for size in (1..64).chain([100, 1000, 8191, 8192, 8193]) {
        assert_eq!(conversation(Cut::Every(size)), whole);
    }
}

#[test]
fn c34_cut_once_at_every_place() {
    let (to_client, to_server) = conversation(Cut::Never);
    // Inside the large bodies one place is as good as another.
    for place in (0..to_client.max(to_server)).filter(|place| *place < 2000 || place % 97 == 0) {
        conversation(Cut::At(place));
    }
}

/// What a server sends: bodies of several frames on two channels, in whatever order.
#[derive(Clone, Debug)]
enum Sent {
    /// A delivery and its header on one of two channels, if that has none under way.
    Begin {
        channel: u16,
        size: usize,
    },
    /// A piece of the body that is under way.
    Body {
        channel: u16,
        size: usize,
    },
    Heartbeat,
}

const FRAME_MAX: usize = 40_000;

fn sent() -> impl Strategy<Value = Sent> {
    let sizes = vec![0, 1, 100, 16_383, 16_384, 20_000, FRAME_MAX - 8];
    let bodies = vec![1, 100, 20_000, FRAME_MAX - 8, FRAME_MAX - 7, 60_000, 100_000];
    prop_oneof![
        2 => (1..3_u16, prop::sample::select(bodies)).prop_map(|(channel, size)| Sent::Begin { channel, size }),
        6 => (1..3_u16, prop::sample::select(sizes)).prop_map(|(channel, size)| Sent::Body { channel, size }),
        1 => Just(Sent::Heartbeat),
    ]
}

/// The octets that a server sends, and the bodies that they make up, channel by channel.
fn flood(all: &[Sent], frame_max: usize) -> (Vec<u8>, [Vec<Vec<u8>>; 2]) {
    let (mut octets, mut bodies) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut under_way = [None, None];
    let mut put = |frame: &Frame| frame.encode(&mut octets, frame_max - 8).unwrap();
    for (serial, sent) in (0_u64..).zip(all) {
        match *sent {
            Sent::Begin { channel, size } => {
                let slot = &mut under_way[usize::from(channel - 1)];
                if slot.is_none() {
                    let deliver =
                        basic::Deliver { consumer_tag: "tag".into(), delivery_tag: serial, ..Default::default() };
                    put(&Frame::Method(channel, deliver.into()));
                    put(&Frame::Header(
                        channel,
                        ContentHeader { body_size: size as u64, properties: RawProperties::new(vec![0, 0].into()) },
                    ));
                    *slot = Some((Vec::new(), size));
                }
            }
            Sent::Body { channel, size } => {
                let slot = &mut under_way[usize::from(channel - 1)];
                if let Some((body, whole)) = slot {
                    let piece = vec![serial as u8; size.min(*whole - body.len())];
                    put(&Frame::Body(channel, piece.clone().into()));
                    body.extend_from_slice(&piece);
                    if body.len() == *whole {
                        bodies[usize::from(channel - 1)].extend(slot.take().map(|(body, _)| body));
                    }
                }
            }
            Sent::Heartbeat => put(&Frame::Heartbeat),
        }
    }
    (octets, bodies)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Bodies that are put together where they were read are the same, however they come, and nobody is told to stop where he should not.
    #[test]
    fn bodies_of_several_frames_come_together(all in prop::collection::vec(sent(), 0..40), cuts in prop::collection::vec(1..50_000_usize, 1..20)) {
        let (octets, bodies) = flood(&all, FRAME_MAX);
        let config = Config { frame_max: FRAME_MAX as u32, ..Config::default() };
        let mut pair = Pair::new(config, Cut::Never);
        pair.drive();
        let channels = [pair.open_channel(), pair.open_channel()];
        let consumers = channels.map(|channel| pair.consume(channel, false));
        let (mut input, mut rest, mut obedient) = (BytesMut::new(), octets.as_slice(), true);
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            // By turns as the machine wants it, and not.
            let ahead = pair.client.ahead(&input);
            prop_assert!(ahead.stop <= ahead.together + FRAME_MAX);
            obedient = !obedient;
            let size = if obedient && ahead.stop > 0 { ahead.stop } else { *cuts.next().unwrap() };
            let (now, later) = rest.split_at(size.min(rest.len()));
            input.extend_from_slice(now);
            rest = later;
            pair.client.feed(&mut input, pair.now);
        }
        prop_assert!(pair.client.end().is_none(), "{:?}", pair.client.end());
        for ((channel, consumer), bodies) in channels.into_iter().zip(consumers).zip(bodies) {
            let (delivered, _) = pair.deliveries(channel, consumer);
            prop_assert_eq!(delivered.len(), bodies.len());
            for ((_, content), body) in delivered.iter().zip(&bodies) {
                prop_assert!(content.body() == body.as_slice());
            }
        }
    }
}

/// Read as the machine wants it, a body of several frames is where it was read, and the octets between its pieces are read over.
#[test]
fn a_body_of_several_frames_is_not_copied() {
    let (mut pair, channel) = Pair::with_channel();
    let consumer = pair.consume(channel, false);
    let pieces = [131_064, 131_064, 50_000];
    let mut all = vec![Sent::Begin { channel: 1, size: pieces.iter().sum() }];
    all.extend(pieces.map(|size| Sent::Body { channel: 1, size }));
    let (octets, [bodies, _]) = flood(&all, 131_072);
    let mut input = BytesMut::with_capacity(400_000);
    let (head, mut rest) = octets.split_at(100);
    input.extend_from_slice(head);
    pair.client.feed(&mut input, pair.now);
    let (place, mut reads) = (input.as_ptr().addr(), 0);
    while !rest.is_empty() {
        let ahead = pair.client.ahead(&input);
        assert!(ahead.stop > 0 && ahead.together >= ahead.stop);
        let (now, later) = rest.split_at(ahead.stop);
        (rest, reads) = (later, reads + 1);
        input.extend_from_slice(now);
        pair.client.feed(&mut input, pair.now);
    }
    let (delivered, _) = pair.deliveries(channel, consumer);
    let [(_, content)] = delivered.as_slice() else { panic!("{} messages", delivered.len()) };
    assert!(content.body() == bodies[0].as_slice());
    assert_eq!(
        (reads, content.body().as_ptr().addr()),
        (3, place + 7),
        "one read for each frame, and where it was read"
    );
}

/// Whatever is announced.
#[test]
fn a_body_that_will_never_be_whole_is_told_of_without_overflow() {
    let mut pair = Pair::new(Config { max_message_size: u64::MAX, ..Config::default() }, Cut::Never);
    pair.drive();
    let channel = pair.open_channel();
    pair.consume(channel, false);
    let pieces = [131_064, 131_064];
    let mut all = vec![Sent::Begin { channel: 1, size: usize::MAX }];
    all.extend(pieces.map(|size| Sent::Body { channel: 1, size }));
    let (octets, _) = flood(&all, 131_072);
    let mut input = BytesMut::new();
    for piece in octets.chunks(1000) {
        input.extend_from_slice(piece);
        pair.client.feed(&mut input, pair.now);
        let ahead = pair.client.ahead(&input);
        assert!(ahead.stop <= 131_072 + 8 && (ahead.together == 0 || ahead.together > usize::MAX / 2), "{ahead:?}");
    }
    assert_eq!(input.len(), 2 * 131_064 + 1, "what has come is there, and the end of a frame with nothing behind it");
}
