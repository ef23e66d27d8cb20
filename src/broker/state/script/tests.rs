//! Scripts, turn by turn: what a driver is told to do, and what is kept.

use std::time::{Duration, Instant};

use super::*;
use crate::broker::settings::Settings;
use crate::codec::method::{channel, confirm, connection, queue};
use crate::codec::{ContentHeader, Frame, ProtocolHeader, RawProperties};

/// A connection with a script, turn by turn, with time that is moved by hand.
struct Connection {
    state: State,
    id: ConnectionId,
    input: BytesMut,
    output: OutBuffer,
    now: Instant,
}

impl Connection {
    /// With channel 1 open, which confirms, and the queue `q`.
    fn open(script: &str) -> Self {
        let now = Instant::now();
        let mut state = State::new(Settings::default(), now);
        state.add_scripts(vec![script.parse().unwrap()]);
        let id = state.admit(now).unwrap();
        let input = ProtocolHeader::AMQP_0_9_1.to_bytes()[..].into();
        let mut connection = Self { state, id, input, output: OutBuffer::new(), now };
        let login =
            connection::StartOk { mechanism: "PLAIN".into(), response: "\0guest\0guest".into(), ..Default::default() };
        let tune = connection::TuneOk { channel_max: 9, frame_max: 131_072, heartbeat: 10 };
        connection.say(Frame::Method(0, login.into()));
        connection.say(Frame::Method(0, tune.into()));
        connection.say(Frame::Method(0, connection::Open { virtual_host: "/".into(), ..Default::default() }.into()));
        connection.say(Frame::Method(1, channel::Open::default().into()));
        connection.say(Frame::Method(1, confirm::Select { no_wait: false }.into()));
        connection.say(Frame::Method(1, queue::Declare { queue: "q".into(), ..Default::default() }.into()));
        connection
    }

    fn say(&mut self, frame: Frame) {
        let mut octets = Vec::new();
        frame.encode(&mut octets, 1000).unwrap();
        self.input.extend_from_slice(&octets);
    }

    fn publish(&mut self) {
        self.say(Frame::Method(1, basic::Publish { routing_key: "q".into(), ..Default::default() }.into()));
        self.say(Frame::Header(1, ContentHeader { body_size: 0, properties: RawProperties::default() }));
    }

    /// A turn so much later, in which the client takes nothing of the output.
    fn turn(&mut self, later: u64) -> Next {
        self.now += Duration::from_millis(later);
        let next = self.state.turn(self.id, &mut self.input, &mut self.output, None, Waker::noop(), self.now);
        drop(self.state.take_wakes());
        next
    }

    /// Turns as long as there is something to be written, all of which is: how many octets that are.
    fn write(&mut self, later: u64) -> usize {
        let mut written = 0;
        loop {
            self.turn(if written == 0 { later } else { 0 });
            if self.output.is_empty() {
                return written;
            }
            written += self.output.len();
            self.output.clear();
        }
    }

    /// Whether a turn so much later calls for the next one at once: a driver would spin.
    fn spins(&mut self, later: u64) -> bool {
        let now = self.now + Duration::from_millis(later);
        self.turn(later).deadline.is_some_and(|deadline| deadline <= now)
    }
}

const ACK: usize = 21;

#[test]
fn late_confirms_that_are_held_are_not_waited_for() {
    let mut connection = Connection::open("published 1: delay confirm 20ms");
    assert!(connection.write(0) > 400);
    connection.state.hold_confirms(true);
    connection.publish();
    assert_eq!(connection.write(0), 0);
    assert!(!connection.spins(30), "what is held has no time");
    connection.state.hold_confirms(false);
    assert_eq!(connection.write(0), ACK);
}

/// It is not the script's, but the client's, who does not read.
#[test]
fn a_stall_that_is_over_is_not_waited_for() {
    let mut connection = Connection::open("published 1: stall writing 20ms");
    connection.turn(0);
    assert!(!connection.output.is_empty());
    connection.publish();
    connection.turn(0);
    assert!(!connection.spins(30));
    assert!(connection.write(0) > 400 + ACK);
}

/// Octets of the script's own, behind frames that end where something is to be done.
#[test]
fn nothing_passes_a_moment() {
    let mut connection = Connection::open("frame sent 5: stall writing 20ms; frame sent 6: cut; published 1: send ff");
    connection.write(0);
    connection.publish();
    assert_eq!(connection.write(0), 0, "stalled");
    connection.turn(20);
    assert!(connection.output.to_vec().ends_with(&[0xce]), "the sixth frame, and no more");
    assert!(!connection.turn(0).finished, "it is not written yet");
    connection.output.clear();
    assert!(connection.turn(0).finished);
}

/// It is not heard, however long: nothing is read, which the client feels, and its silence is not held against it.
#[test]
fn a_deaf_broker_is_patient() {
    let mut connection = Connection::open("frame sent 6: stall reading 2000s");
    connection.write(0);
    for _ in 0..100 {
        let next = connection.turn(5_000);
        assert!(!next.finished && !next.read);
        connection.output.clear();
    }
    connection.publish();
    assert_eq!(connection.write(0), 0);
    assert!(connection.write(1_600_000) > 0);
}

/// What was handed over and what was not, and what comes yet.
#[test]
fn nothing_is_kept_of_what_has_ended() {
    let mut connection = Connection::open("frame sent 6: stall reading; published 1: cut");
    connection.turn(0);
    assert!(!connection.output.is_empty());
    connection.publish();
    assert!(connection.turn(0).finished && connection.output.is_empty());

    let mut connection = Connection::open("frame sent 6: stall writing; frame sent 6: stall reading");
    connection.write(0);
    connection.state.close_all(ReplyCode::CONNECTION_FORCED, "", connection.now);
    let next = connection.turn(31_000);
    assert!(!next.finished && next.read, "the close is not written, but the client may go");
    connection.publish();
    connection.turn(0);
    assert!(connection.input.is_empty());
}

/// A client that asks and asks is not read for ever.
#[test]
fn what_waits_for_a_stall_is_bounded() {
    let mut connection = Connection::open("frame sent 6: stall writing");
    connection.write(0);
    let mut asked = 0;
    while connection.turn(0).read {
        for _ in 0..1000 {
            connection.say(Frame::Method(1, basic::Qos::default().into()));
        }
        asked += 1000;
        assert!(asked < 100_000);
    }
    let client = &connection.state.clients[&connection.id];
    let play = client.play.as_ref().unwrap();
    let waiting = play.outbox.len() + client.machine.buffered();
    assert!(waiting < 300 * 1024, "{waiting}");
}
