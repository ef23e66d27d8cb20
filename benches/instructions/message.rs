//! The message with which the codec is measured, here and beside amq-protocol's (`benches/peers`): properties with a table among
//! their headers, and 100 octets of body.

use bytes::Bytes;
use leveret::codec::method::basic;
use leveret::codec::{ContentHeader, FieldTable, Frame, Properties, RawProperties};

pub(crate) const MAX_PAYLOAD: usize = 131_064;

pub(crate) fn publish() -> basic::Publish {
    basic::Publish { exchange: "orders".into(), routing_key: "created".into(), ..Default::default() }
}

pub(crate) fn deliver() -> basic::Deliver {
    basic::Deliver {
        consumer_tag: "consumer-1".into(),
        delivery_tag: 1,
        exchange: "orders".into(),
        routing_key: "created".into(),
        ..Default::default()
    }
}

pub(crate) fn properties() -> Properties {
    let nested = FieldTable::new().with("attempt", 3).with("from", "somewhere");
    Properties::new()
        .content_type("application/json")
        .message_id("8f6c1a0e-41a7-4a53-9b5c-2c1a4a8d6f3e")
        .persistent()
        .header("x-trace", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("x-attempts", nested)
}

pub(crate) fn header(properties: &Properties) -> Frame {
    let mut octets = Vec::new();
    properties.encode(&mut octets).unwrap();
    Frame::Header(1, ContentHeader { body_size: 100, properties: RawProperties::new(octets.into()) })
}

pub(crate) fn body() -> Frame {
    Frame::Body(1, Bytes::from(vec![b'x'; 100]))
}
