//! The codec alone, beside amq-protocol's: the three frames of a message with properties and headers, and 100 octets of body.
//!
//! Both decode everything, the properties too, and encode what they have decoded. In every round they take turns; what counts is
//! the ratio.

use std::hint::black_box;
use std::time::Instant;

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame, parse_frame};
use bytes::Bytes;
use leveret::codec::method::{Method, basic};
use leveret::codec::{ContentHeader, FieldTable, Frame, Properties, RawProperties};

const MAX_PAYLOAD: usize = 131_064;
const MESSAGES: u32 = 200_000;

pub(crate) fn measure(rounds: usize) {
    println!(
        "{:<46} {:>10} {:>14} {:>22}",
        "the codec alone, one message", "leveret ns", "amq-protocol ns", "amq-protocol / leveret"
    );
    let publish = basic::Publish { exchange: "orders".into(), routing_key: "created".into(), ..Default::default() };
    let deliver = basic::Deliver {
        consumer_tag: "consumer-1".into(),
        delivery_tag: 1,
        exchange: "orders".into(),
        routing_key: "created".into(),
        ..Default::default()
    };
    for (name, method) in [("basic.publish", Method::from(publish)), ("basic.deliver", deliver.into())] {
        for (name, properties) in
            [(name.to_owned(), Properties::new()), (format!("{name}, headers with a table"), rich())]
        {
            let octets = octets(&method, &properties);
            let (ours, theirs) = (decode(&octets), decode_theirs(&octets));
            row(
                &format!("decode {name}"),
                rounds,
                || drop(black_box(decode(&octets))),
                || drop(black_box(decode_theirs(&octets))),
            );
            let (mut out, mut their_out) = (Vec::new(), Vec::new());
            encode(&ours, &mut out);
            encode_theirs(&theirs, &mut their_out);
            assert_eq!(out.len(), their_out.len(), "both write the same message");
            row(
                &format!("encode {name}"),
                rounds,
                || encode(&ours, &mut out),
                || encode_theirs(&theirs, &mut their_out),
            );
        }
    }
}

fn rich() -> Properties {
    let nested = FieldTable::new().with("attempt", 3).with("from", "somewhere");
    Properties::new()
        .content_type("application/json")
        .message_id("8f6c1a0e-41a7-4a53-9b5c-2c1a4a8d6f3e")
        .persistent()
        .header("x-trace", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("x-attempts", nested)
}

fn octets(method: &Method, properties: &Properties) -> Bytes {
    let mut octets = Vec::new();
    let body = Frame::Body(1, Bytes::from(vec![b'x'; 100]));
    for frame in [Frame::Method(1, method.clone()), header(properties), body] {
        frame.encode(&mut octets, MAX_PAYLOAD).unwrap();
    }
    octets.into()
}

fn header(properties: &Properties) -> Frame {
    let mut octets = Vec::new();
    properties.encode(&mut octets).unwrap();
    Frame::Header(1, ContentHeader { body_size: 100, properties: RawProperties::new(octets.into()) })
}

fn decode(octets: &Bytes) -> (Vec<Frame>, Properties) {
    let (mut rest, mut frames, mut properties) = (octets.clone(), Vec::with_capacity(3), Properties::new());
    while let Some(frame) = Frame::decode(&mut rest, MAX_PAYLOAD).unwrap() {
        if let Frame::Header(_, header) = &frame {
            properties = header.properties.decode().unwrap();
        }
        frames.push(frame);
    }
    (frames, properties)
}

fn encode((frames, properties): &(Vec<Frame>, Properties), out: &mut Vec<u8>) {
    out.clear();
    for frame in frames {
        match frame {
            Frame::Header(..) => header(properties).encode(out, MAX_PAYLOAD).unwrap(),
            frame => frame.encode(out, MAX_PAYLOAD).unwrap(),
        }
    }
}

fn decode_theirs(octets: &Bytes) -> Vec<AMQPFrame> {
    let (mut rest, mut frames) = (&octets[..], Vec::with_capacity(3));
    while !rest.is_empty() {
        let (behind, frame) = parse_frame(rest).unwrap();
        rest = behind;
        frames.push(frame);
    }
    frames
}

fn encode_theirs(frames: &[AMQPFrame], out: &mut Vec<u8>) {
    let mut octets = std::mem::take(out);
    octets.clear();
    let mut context = WriteContext::from(octets);
    for frame in frames {
        context = gen_frame(frame)(context).unwrap();
    }
    *out = context.into_inner().0;
}

fn row(name: &str, rounds: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
    let mut runs: Vec<(f64, f64)> = (0..rounds).map(|_| (time(&mut ours), time(&mut theirs))).collect();
    let median = |runs: &mut Vec<(f64, f64)>, value: fn(&(f64, f64)) -> f64| {
        runs.sort_by(|a, b| value(a).total_cmp(&value(b)));
        value(&runs[runs.len() / 2])
    };
    println!(
        "{name:<46} {:>10.0} {:>14.0} {:>22.2}",
        median(&mut runs, |run| run.0),
        median(&mut runs, |run| run.1),
        median(&mut runs, |run| run.1 / run.0),
    );
}

/// Nanoseconds for one.
fn time(work: &mut impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..MESSAGES).for_each(|_| work());
    start.elapsed().as_secs_f64() * 1e9 / f64::from(MESSAGES)
}
