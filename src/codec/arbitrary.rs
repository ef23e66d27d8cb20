//! Values for a fuzzer to begin with: [`Arbitrary`] for everything that goes over the wire.
//!
//! What comes of it can be encoded: no short string is too long, no table too deep. Names are mostly one of a few short ones, so that
//! the queue that is declared is now and then the one that is consumed from.

use ::arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;

use super::{
    ContentHeader, FieldTable, FieldValue, Frame, FrameType, Method, Properties, ProtocolHeader, RawProperties,
    ReplyCode, ShortString, UncheckedFrame,
};

/// Names that stand for something in the protocol, or are likely to be met twice.
const NAMES: [&str; 16] = [
    "",
    "a",
    "b",
    "c",
    "amq.direct",
    "amq.fanout",
    "amq.topic",
    "amq.headers",
    "direct",
    "fanout",
    "topic",
    "headers",
    "a.b",
    "*.#",
    "amq.rabbitmq.reply-to",
    "x-match",
];

/// Nothing is nested deeper: what is interesting about depth is at the limit, and a fuzzer of octets finds that.
const DEEPEST: usize = 3;
const MOST_ENTRIES: usize = 4;
/// The longest string of octets.
const LONGEST: usize = 64;

/// Octets, and not many of them.
pub(crate) fn octets(u: &mut Unstructured<'_>, most: usize) -> Result<Bytes> {
    let length = u.int_in_range(0..=most)?.min(u.len());
    u.bytes(length).map(Bytes::copy_from_slice)
}

impl<'a> Arbitrary<'a> for ShortString {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        match u.arbitrary::<u8>()? {
            choice @ 0..240 => Ok(NAMES.get(usize::from(choice) % NAMES.len()).copied().unwrap_or_default().into()),
            _ => octets(u, 255).map(Self::from),
        }
    }
}

impl<'a> Arbitrary<'a> for FieldTable {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        table(u, 1)
    }
}

fn table(u: &mut Unstructured<'_>, depth: usize) -> Result<FieldTable> {
    let entries = u.int_in_range(0..=MOST_ENTRIES)?;
    (0..entries).map(|_| Ok((u.arbitrary::<ShortString>()?, value(u, depth)?))).collect()
}

impl<'a> Arbitrary<'a> for FieldValue {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        value(u, 1)
    }
}

fn value(u: &mut Unstructured<'_>, depth: usize) -> Result<FieldValue> {
    Ok(match u.int_in_range(0..=16)? {
        0 => FieldValue::Bool(u.arbitrary()?),
        1 => FieldValue::I8(u.arbitrary()?),
        2 => FieldValue::U8(u.arbitrary()?),
        3 => FieldValue::I16(u.arbitrary()?),
        4 => FieldValue::U16(u.arbitrary()?),
        5 => FieldValue::I32(u.arbitrary()?),
        6 => FieldValue::U32(u.arbitrary()?),
        7 => FieldValue::I64(u.arbitrary()?),
        8 => FieldValue::F32(u.arbitrary()?),
        9 => FieldValue::F64(u.arbitrary()?),
        10 => FieldValue::Decimal { scale: u.arbitrary()?, value: u.arbitrary()? },
        11 => FieldValue::LongString(octets(u, LONGEST)?),
        12 => FieldValue::Timestamp(u.arbitrary()?),
        13 => FieldValue::ByteArray(octets(u, LONGEST)?),
        14 if depth < DEEPEST => FieldValue::Table(table(u, depth + 1)?),
        15 if depth < DEEPEST => {
            let values = u.int_in_range(0..=MOST_ENTRIES)?;
            FieldValue::Array((0..values).map(|_| value(u, depth + 1)).collect::<Result<_>>()?)
        }
        _ => FieldValue::Void,
    })
}

impl<'a> Arbitrary<'a> for RawProperties {
    /// Mostly those of a message, now and then any octets, two at least: that much a header frame needs.
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut octets = Vec::new();
        if u.ratio(1, 8)? {
            octets.extend_from_slice(&u.arbitrary::<[u8; 2]>()?);
            octets.extend_from_slice(&self::octets(u, LONGEST)?);
            return Ok(Self::new(octets.into()));
        }
        // Cannot fail: the strings are short enough, and the table is not deep.
        let _ = u.arbitrary::<Properties>()?.encode(&mut octets);
        Ok(Self::new(octets.into()))
    }
}

impl<'a> Arbitrary<'a> for ContentHeader {
    /// Mostly of a body that could follow.
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let body_size = if u.ratio(1, 16)? { u.arbitrary()? } else { u.int_in_range(0..=64)? };
        Ok(Self { body_size, properties: u.arbitrary()? })
    }
}

impl<'a> Arbitrary<'a> for ReplyCode {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        match u.ratio(1, 4)? {
            true => u.arbitrary().map(Self),
            false => u.choose(Self::ALL).map(|(code, ..)| *code),
        }
    }
}

impl<'a> Arbitrary<'a> for ProtocolHeader {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        u.arbitrary().map(Self)
    }
}

impl<'a> Arbitrary<'a> for FrameType {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        u.choose(&[Self::Method, Self::Header, Self::Body, Self::Heartbeat]).copied()
    }
}

/// A channel's number: mostly 0 to 3.
fn channel(u: &mut Unstructured<'_>) -> Result<u16> {
    match u.arbitrary::<u8>()? {
        few @ 0..248 => Ok(u16::from(few % 4)),
        _ => u.arbitrary(),
    }
}

impl<'a> Arbitrary<'a> for Frame {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.arbitrary()? {
            FrameType::Method => Self::Method(channel(u)?, u.arbitrary::<Method>()?),
            FrameType::Header => Self::Header(channel(u)?, u.arbitrary()?),
            FrameType::Body => Self::Body(channel(u)?, octets(u, LONGEST)?),
            FrameType::Heartbeat => Self::Heartbeat,
        })
    }
}

impl<'a> Arbitrary<'a> for UncheckedFrame {
    /// A legal frame of which one thing may be wrong, or any octets in the place of a payload.
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut frame = match u.ratio(1, 4)? {
            true => Self::new(u.arbitrary()?, channel(u)?, octets(u, LONGEST)?),
            false => Self::from(&u.arbitrary::<Frame>()?),
        };
        match u.arbitrary::<u8>()? {
            0 => frame.kind = u.arbitrary()?,
            1 => frame.channel = u.arbitrary()?,
            2 => frame.size = Some(u.arbitrary()?),
            3 => frame.end = u.arbitrary()?,
            4 => frame.payload.truncate(u.int_in_range(0..=LONGEST)?),
            _ => {}
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::method;

    /// Octets without a pattern, the same in every run.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_be_bytes()[3]
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn every_kind_of_frame_and_every_method_comes_up_and_can_be_encoded() {
        let mut methods = std::collections::BTreeSet::new();
        let mut others = [0; 3];
        for seed in 1..20_000 {
            let noise = noise(seed, 400);
            let frame: Frame = Unstructured::new(&noise).arbitrary().unwrap();
            let mut octets = Vec::new();
            frame.encode(&mut octets, usize::MAX).unwrap();
            let again = Frame::decode(&mut octets.into(), usize::MAX).unwrap();
            assert_eq!(again, Some(frame.clone()));
            match frame {
                Frame::Method(_, method) => drop(methods.insert(method.info().name)),
                Frame::Header(..) => others[0] += 1,
                Frame::Body(..) => others[1] += 1,
                Frame::Heartbeat => others[2] += 1,
            }
        }
        let all = method::ALL.iter().copied().flatten().count();
        assert_eq!(methods.len(), all);
        assert!(others.iter().all(|count| *count > 1000), "{others:?}");
    }

    /// What has no octets left is not an error: a fuzzer's inputs are short.
    #[test]
    fn nothing_is_a_frame_too() {
        assert!(Unstructured::new(&[]).arbitrary::<Frame>().is_ok());
        assert!(Unstructured::new(&[]).arbitrary::<UncheckedFrame>().is_ok());
    }
}
