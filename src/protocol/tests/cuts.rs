//! A whole conversation, with the octets cut at every place in both directions: it always comes to the same (c34).

use super::pair::{Cut, Pair};
use crate::codec::Method;
use crate::codec::method::queue;
use crate::protocol::client::{Config, Confirmation};
use std::task::Poll;

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
