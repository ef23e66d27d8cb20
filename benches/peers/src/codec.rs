//! The codec alone, beside amq-protocol's: the three frames of a message with properties and headers, and 100 octets of body.
//!
//! Both decode everything, the properties too, and encode what they have decoded. In every round they take turns; what counts is
//! the ratio.

use std::hint::black_box;
use std::time::Instant;

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame, parse_frame};
use bytes::Bytes;
use leveret::codec::method::Method;
use leveret::codec::{Frame, Properties};

use crate::message::{self, MAX_PAYLOAD, header};

const MESSAGES: u32 = 200_000;

pub(crate) fn measure(rounds: usize) {
    println!(
        "{:<46} {:>10} {:>14} {:>22}",
        "the codec alone, one message", "leveret ns", "amq-protocol ns", "amq-protocol / leveret"
    );
    let methods = [("basic.publish", Method::from(message::publish())), ("basic.deliver", message::deliver().into())];
    for (name, method) in methods {
        let with_headers = (format!("{name}, headers with a table"), message::properties());
        for (name, properties) in [(name.to_owned(), Properties::new()), with_headers] {
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

fn octets(method: &Method, properties: &Properties) -> Bytes {
    let mut octets = Vec::new();
    for frame in [Frame::Method(1, method.clone()), header(properties), message::body()] {
        frame.encode(&mut octets, MAX_PAYLOAD).unwrap();
    }
    octets.into()
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
