//! The client's machine alone: no runtime, no lock, no socket; octets in, octets out.

use std::collections::VecDeque;
use std::task::{Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use leveret::codec::method::{basic, confirm};
use leveret::protocol::client::{ChannelId, Config, Confirmation, Connection, Publish, Settle};
use leveret::protocol::{Body, OutBuffer};

use crate::peer::{Deliveries, answer, confirm, handshake};
use crate::wire::{self, MethodId};

/// As many messages are in one block of octets.
const BLOCK: u64 = 100;

struct Client {
    machine: Connection,
    channel: ChannelId,
    input: BytesMut,
    output: OutBuffer,
    now: Instant,
}

impl Client {
    fn new() -> Self {
        let now = Instant::now();
        let mut machine = Connection::new(Config { heartbeat: 0, ..Config::default() }, now);
        let mut input = BytesMut::from(handshake().as_slice());
        machine.feed(&mut input, now);
        let (channel, _) = machine.open_channel().unwrap();
        let mut client = Self { machine, channel, input, output: OutBuffer::new(), now };
        client.answer(wire::CHANNEL_OPEN);
        client
    }

    /// One turn of a driver whose socket takes everything.
    fn turn(&mut self, octets: &[u8]) {
        self.input.extend_from_slice(octets);
        self.machine.feed(&mut self.input, self.now);
        self.machine.take_output(&mut self.output, self.now);
        self.output.clear();
    }

    fn answer(&mut self, request: MethodId) {
        let mut octets = Vec::new();
        answer(&mut octets, request, b"c");
        self.turn(&octets);
    }
}

pub(crate) fn publish(messages: u64, each: bool) {
    let mut client = Client::new();
    let channel = client.channel;
    client.machine.call(channel, confirm::Select::default().into(), 1000).unwrap();
    client.answer(wire::CONFIRM_SELECT);
    let body = Bytes::from(vec![b'x'; 100]);
    let (mut confirmed, mut confirms) = (0, Vec::new());
    while confirmed < messages {
        for _ in 0..BLOCK {
            let publish = Publish {
                exchange: b"",
                routing_key: b"queue",
                mandatory: false,
                immediate: false,
                stamped: false,
                properties: None,
                body: Body::Shared(&body),
            };
            let tag = client.machine.poll_publish(channel, &publish, &mut None, Waker::noop());
            assert!(matches!(tag, Poll::Ready(Ok(_))));
        }
        confirms.clear();
        confirm(&mut confirms, confirmed, confirmed + BLOCK, each);
        client.turn(&confirms);
        for tag in confirmed + 1..=confirmed + BLOCK {
            let told = client.machine.poll_confirm(channel, tag, Waker::noop());
            assert!(matches!(told, Poll::Ready(Ok(Confirmation::Ack(None)))));
        }
        confirmed += BLOCK;
    }
}

pub(crate) fn consume(messages: u64, coalesced: bool) {
    let mut client = Client::new();
    let channel = client.channel;
    let consume = basic::Consume { queue: "queue".into(), consumer_tag: "c".into(), ..Default::default() };
    let ack = if coalesced { Settle::CoalescedAck } else { Settle::Ack { multiple: false } };
    if coalesced {
        client.machine.coalesce_acks(channel).unwrap();
    }
    let (consumer, _) = client.machine.consume(channel, consume).unwrap();
    client.answer(wire::BASIC_CONSUME);
    let (mut deliveries, mut taken, mut received) = (Deliveries::new(b"c", 100, BLOCK), VecDeque::new(), 0);
    while received < messages {
        client.turn(deliveries.next(BLOCK));
        assert!(client.machine.poll_deliveries(channel, consumer, &mut taken, Waker::noop()).is_ready());
        for delivered in taken.drain(..).flat_map(|batch| batch.delivered().to_vec()) {
            received += 1;
            client.machine.settle(channel, delivered.delivery_tag, ack).unwrap();
        }
    }
}
