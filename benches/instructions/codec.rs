//! The codec alone: the three frames of a message with properties and headers, 100 octets in its body.

use std::hint::black_box;

use bytes::Bytes;
use leveret::codec::Frame;

use crate::message::{MAX_PAYLOAD, body, deliver, header, properties, publish};

pub(crate) fn encode(messages: u64) {
    let (publish, properties, body) = (Frame::Method(1, publish().into()), properties(), body());
    let mut out = Vec::new();
    for _ in 0..messages {
        out.clear();
        for frame in [black_box(&publish), &header(black_box(&properties)), black_box(&body)] {
            frame.encode(&mut out, MAX_PAYLOAD).unwrap();
        }
        black_box(&out);
    }
}

pub(crate) fn decode(messages: u64) {
    let mut octets = Vec::new();
    for frame in [Frame::Method(1, deliver().into()), header(&properties()), body()] {
        frame.encode(&mut octets, MAX_PAYLOAD).unwrap();
    }
    let octets = Bytes::from(octets);
    for _ in 0..messages {
        let mut rest = black_box(octets.clone());
        while let Some(frame) = Frame::decode(&mut rest, MAX_PAYLOAD).unwrap() {
            if let Frame::Header(_, header) = &frame {
                black_box(header.properties.decode().unwrap());
            }
            black_box(frame);
        }
    }
}
