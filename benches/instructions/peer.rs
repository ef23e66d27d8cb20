//! The server's end: the least that a client can talk to, so that what is counted is the client.
//!
//! It looks at no message: knowing how many octets one has, it counts octets.

use leveret::transport::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::wire::{self, MethodId, long, short};

const CHANNEL: u16 = 1;

/// Octets of `basic.ack`.
const ACK: usize = 21;

/// What answers the client's requests up to the first message, in the order in which they come.
const ANSWERS: [(MethodId, MethodId); 4] = [
    (wire::CHANNEL_OPEN, wire::CHANNEL_OPEN_OK),
    (wire::CONFIRM_SELECT, wire::CONFIRM_SELECT_OK),
    (wire::BASIC_QOS, wire::BASIC_QOS_OK),
    (wire::BASIC_CONSUME, wire::BASIC_CONSUME_OK),
];

/// Everything up to connection.open-ok. The client reads it step by step, so it can be sent at once.
pub(crate) fn handshake() -> Vec<u8> {
    let mut out = Vec::new();
    let start: [&[u8]; 4] = [&[0, 9], &long(b""), &long(b"PLAIN"), &long(b"en_US")];
    wire::method(&mut out, 0, wire::CONNECTION_START, &start);
    let tune: [&[u8]; 3] = [&2047_u16.to_be_bytes(), &(wire::FRAME_MAX as u32).to_be_bytes(), &[0, 0]];
    wire::method(&mut out, 0, wire::CONNECTION_TUNE, &tune);
    wire::method(&mut out, 0, wire::CONNECTION_OPEN_OK, &[&[0]]);
    out
}

/// What answers this request; a consumer has this tag.
pub(crate) fn answer(out: &mut Vec<u8>, request: MethodId, consumer: &[u8]) {
    let Some((_, answer)) = ANSWERS.iter().find(|(asked, _)| *asked == request) else { return };
    let arguments = match *answer {
        wire::CHANNEL_OPEN_OK => vec![0; 4],
        wire::BASIC_CONSUME_OK => short(consumer),
        _ => Vec::new(),
    };
    wire::method(out, CHANNEL, *answer, &[&arguments]);
}

/// Confirmations of the messages behind `from`, up to `to`.
pub(crate) fn confirm(out: &mut Vec<u8>, from: u64, to: u64, each: bool) {
    if each {
        (from + 1..=to).for_each(|tag| wire::method(out, CHANNEL, wire::BASIC_ACK, &[&tag.to_be_bytes(), &[0]]));
    } else if to > from {
        wire::method(out, CHANNEL, wire::BASIC_ACK, &[&to.to_be_bytes(), &[1]]);
    }
}

/// Deliveries, whose tags are written into them one after the other.
pub(crate) struct Deliveries {
    block: Vec<u8>,
    size: usize,
    /// Where the delivery tag stands in each of them.
    tag_at: usize,
    tag: u64,
}

impl Deliveries {
    /// To the consumer of this tag. Room for `count` at a time.
    pub(crate) fn new(consumer: &[u8], body: usize, count: u64) -> Self {
        let mut one = Vec::new();
        let consumer = short(consumer);
        wire::method(&mut one, CHANNEL, wire::BASIC_DELIVER, &[&consumer, &[0; 8], &[0, 0], &short(b"queue")]);
        let tag_at = 11 + consumer.len();
        wire::content(&mut one, CHANNEL, &vec![b'x'; body]);
        Self { size: one.len(), block: one.repeat(count as usize), tag_at, tag: 0 }
    }

    pub(crate) fn next(&mut self, count: u64) -> &[u8] {
        let part = &mut self.block[..count as usize * self.size];
        for one in part.chunks_exact_mut(self.size) {
            self.tag += 1;
            one[self.tag_at..][..8].copy_from_slice(&self.tag.to_be_bytes());
        }
        part
    }
}

/// Octets of a message that is published to "queue" without properties.
pub(crate) fn published_size(body: usize) -> usize {
    let mut one = Vec::new();
    let arguments: [&[u8]; 4] = [&[0, 0], &short(b""), &short(b"queue"), &[0]];
    wire::method(&mut one, CHANNEL, wire::BASIC_PUBLISH, &arguments);
    wire::content(&mut one, CHANNEL, &vec![b'x'; body]);
    one.len()
}

/// The end of the pipe.
pub(crate) struct Peer {
    stream: Stream,
    /// The tag of the client's consumer.
    consumer: &'static str,
    block: Vec<u8>,
}

impl Peer {
    /// Answers until the request `last` is answered.
    pub(crate) async fn open(mut stream: Stream, last: MethodId, consumer: &'static str) -> Self {
        stream.write_all(&handshake()).await.unwrap();
        let (mut read, mut at) = (Vec::new(), 8);
        loop {
            stream.read_buf(&mut read).await.unwrap();
            while let Some(&[kind, _, _, l3, l2, l1, l0]) = read.get(at..).and_then(|rest| rest.first_chunk()) {
                let length = 7 + u32::from_be_bytes([l3, l2, l1, l0]) as usize + 1;
                let Some(&[a, b, c, d]) = read.get(at + 7..at + 11) else { break };
                if kind != wire::METHOD || read.len() < at + length {
                    break;
                }
                at += length;
                let (id, mut out) = ((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])), Vec::new());
                answer(&mut out, id, consumer.as_bytes());
                stream.write_all(&out).await.unwrap();
                if id == last {
                    return Self { stream, consumer, block: vec![0; 256 * 1024] };
                }
            }
        }
    }

    async fn read(&mut self) -> usize {
        self.stream.read(&mut self.block).await.unwrap_or(0)
    }

    /// Confirms messages of so many octets until the client leaves.
    pub(crate) async fn confirm(mut self, size: usize, each: bool) {
        let (mut octets, mut confirmed, mut out) = (0, 0, Vec::new());
        loop {
            let count = self.read().await;
            if count == 0 {
                return;
            }
            octets += count;
            let complete = (octets / size) as u64;
            out.clear();
            confirm(&mut out, confirmed, complete, each);
            confirmed = complete;
            if self.stream.write_all(&out).await.is_err() {
                return;
            }
        }
    }

    /// Delivers `messages`, of which at most `window` are unsettled, until the client leaves.
    pub(crate) async fn deliver(mut self, messages: u64, body: usize, window: u64) {
        let (mut deliveries, mut octets) = (Deliveries::new(self.consumer.as_bytes(), body, window), 0);
        loop {
            let room = (octets / ACK) as u64 + window - deliveries.tag;
            let room = room.min(messages - deliveries.tag);
            if self.stream.write_all(deliveries.next(room)).await.is_err() {
                return;
            }
            let count = self.read().await;
            if count == 0 {
                return;
            }
            octets += count;
        }
    }
}
