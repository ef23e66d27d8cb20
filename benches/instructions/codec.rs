//! The codec alone: the three frames of a message with properties and headers, 100 octets in its body.

use std::hint::black_box;

use bytes::Bytes;
use leveret::codec::method::basic;
use leveret::codec::{ContentHeader, FieldTable, Frame, Properties, RawProperties};

const MAX_PAYLOAD: usize = 131_064;

fn properties() -> Properties {
    let nested = FieldTable::new().with("attempt", 3).with("from", "somewhere");
    Properties::new()
        .content_type("application/json")
        .message_id("8f6c1a0e-41a7-4a53-9b5c-2c1a4a8d6f3e")
        .persistent()
        .header("x-trace", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("x-attempts", nested)
}

fn header(properties: &Properties) -> Frame {
    let mut octets = Vec::new();
    properties.encode(&mut octets).unwrap();
    Frame::Header(1, ContentHeader { body_size: 100, properties: RawProperties::new(octets.into()) })
}

pub(crate) fn encode(messages: u64) {
    let (properties, body) = (properties(), Bytes::from(vec![b'x'; 100]));
    let publish = basic::Publish { exchange: "orders".into(), routing_key: "created".into(), ..Default::default() };
    let publish = Frame::Method(1, publish.into());
    let body = Frame::Body(1, body);
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
    let deliver = basic::Deliver {
        consumer_tag: "consumer-1".into(),
        delivery_tag: 1,
        exchange: "orders".into(),
        routing_key: "created".into(),
        ..Default::default()
    };
    let mut octets = Vec::new();
    Frame::Method(1, deliver.into()).encode(&mut octets, MAX_PAYLOAD).unwrap();
    header(&properties()).encode(&mut octets, MAX_PAYLOAD).unwrap();
    Frame::Body(1, Bytes::from(vec![b'x'; 100])).encode(&mut octets, MAX_PAYLOAD).unwrap();
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
