//! Properties of the codec over arbitrary values and arbitrary octets, through its public API alone.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use bytes::Bytes;
use leveret::codec::method::{self, MethodInfo};
use leveret::codec::{
    ContentHeader, DecodeError, FRAME_OVERHEAD, FieldTable, FieldType, FieldValue, Frame, Method, Properties,
    ProtocolHeader, RawFrame, RawProperties, ShortString,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const LIMIT: usize = 131_072 - FRAME_OVERHEAD;

// ------------------------------------------------------------------------------------------------ arbitrary values

fn octets(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=most).prop_map(Bytes::from)
}

/// Mostly short, sometimes as long as it may be; any octets.
fn short_string() -> impl Strategy<Value = ShortString> {
    prop_oneof![8 => octets(12), 1 => octets(255)].prop_map(ShortString::from)
}

fn leaf() -> impl Strategy<Value = FieldValue> {
    prop_oneof![
        any::<bool>().prop_map(FieldValue::Bool),
        any::<i8>().prop_map(FieldValue::I8),
        any::<u8>().prop_map(FieldValue::U8),
        any::<i16>().prop_map(FieldValue::I16),
        any::<u16>().prop_map(FieldValue::U16),
        any::<i32>().prop_map(FieldValue::I32),
        any::<u32>().prop_map(FieldValue::U32),
        any::<i64>().prop_map(FieldValue::I64),
        any::<u32>().prop_map(|bits| FieldValue::F32(f32::from_bits(bits))),
        any::<u64>().prop_map(|bits| FieldValue::F64(f64::from_bits(bits))),
        (any::<u8>(), any::<i32>()).prop_map(|(scale, value)| FieldValue::Decimal { scale, value }),
        octets(20).prop_map(FieldValue::LongString),
        any::<u64>().prop_map(FieldValue::Timestamp),
        Just(FieldValue::Void),
        octets(20).prop_map(FieldValue::ByteArray),
    ]
}

/// Names may stand twice: a table keeps them.
fn table_of(value: impl Strategy<Value = FieldValue>) -> impl Strategy<Value = FieldTable> {
    vec((short_string(), value), 0..5).prop_map(FieldTable::from_iter)
}

fn value() -> impl Strategy<Value = FieldValue> {
    leaf().prop_recursive(5, 24, 4, |inner| {
        prop_oneof![vec(inner.clone(), 0..5).prop_map(FieldValue::Array), table_of(inner).prop_map(FieldValue::Table)]
    })
}

fn table() -> impl Strategy<Value = FieldTable> {
    table_of(value())
}

prop_compose! {
    fn properties()(
        (content_type, content_encoding, headers, delivery_mode, priority, correlation_id, reply_to) in (
            option::of(short_string()), option::of(short_string()), option::of(table()), option::of(any::<u8>()),
            option::of(any::<u8>()), option::of(short_string()), option::of(short_string()),
        ),
        (expiration, message_id, timestamp, kind, user_id, app_id, cluster_id) in (
            option::of(short_string()), option::of(short_string()), option::of(any::<u64>()), option::of(short_string()),
            option::of(short_string()), option::of(short_string()), option::of(short_string()),
        ),
    ) -> Properties {
        Properties {
            content_type, content_encoding, headers, delivery_mode, priority, correlation_id, reply_to, expiration,
            message_id, timestamp, kind, user_id, app_id, cluster_id,
        }
    }
}

/// What a method's fields may hold; every field takes the value of its own type.
#[derive(Clone, Debug)]
struct Ingredients {
    bits: u16,
    number: u64,
    short: Vec<ShortString>,
    long: Bytes,
    table: FieldTable,
}

prop_compose! {
    fn ingredients()(
        bits in any::<u16>(), number in any::<u64>(), short in vec(short_string(), 4), long in octets(40), table in table(),
    ) -> Ingredients {
        Ingredients { bits, number, short, long, table }
    }
}

/// The octets of a method, put together from the table of its fields: a second writer, apart from the one under test.
fn written(info: MethodInfo, with: &Ingredients) -> Vec<u8> {
    let mut out = [info.class_id.to_be_bytes(), info.method_id.to_be_bytes()].concat();
    let (mut bits_before, mut short) = (0, with.short.iter().cycle());
    for (at, (_, kind)) in info.fields.iter().enumerate() {
        let number = with.number.rotate_left(u32::try_from(at).unwrap() * 8).to_be_bytes();
        match kind {
            FieldType::Bit => {
                if bits_before % 8 == 0 {
                    out.push(0);
                }
                let bit = u8::from(with.bits >> at & 1 == 1) << (bits_before % 8);
                *out.last_mut().unwrap() |= bit;
                bits_before += 1;
                continue;
            }
            FieldType::Octet => out.extend(&number[..1]),
            FieldType::Short => out.extend(&number[..2]),
            FieldType::Long => out.extend(&number[..4]),
            FieldType::LongLong | FieldType::Timestamp => out.extend(&number),
            FieldType::ShortStr => {
                let text = short.next().unwrap();
                out.push(u8::try_from(text.len()).unwrap());
                out.extend(text.as_bytes());
            }
            FieldType::LongStr => {
                out.extend(u32::try_from(with.long.len()).unwrap().to_be_bytes());
                out.extend(&with.long);
            }
            FieldType::Table => out.extend(table_octets(&with.table)),
        }
        bits_before = 0;
    }
    out
}

fn method() -> impl Strategy<Value = (Vec<u8>, Method)> {
    let all: Vec<MethodInfo> = method::ALL.iter().copied().flatten().copied().collect();
    (proptest::sample::select(all), ingredients()).prop_map(|(info, with)| {
        let octets = written(info, &with);
        let method = Method::decode(&Bytes::from(octets.clone())).unwrap();
        (octets, method)
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        3 => (any::<u16>(), method()).prop_map(|(channel, (_, method))| Frame::Method(channel, method)),
        2 => (any::<u16>(), any::<u64>(), properties()).prop_map(|(channel, body_size, properties)| {
            let properties = RawProperties::new(properties_octets(&properties).into());
            Frame::Header(channel, ContentHeader { body_size, properties })
        }),
        2 => (any::<u16>(), octets(300)).prop_map(|(channel, body)| Frame::Body(channel, body)),
        1 => Just(Frame::Heartbeat),
    ]
}

// ---------------------------------------------------------------------------------------- writing, and reading again

/// With the length.
fn table_octets(table: &FieldTable) -> Vec<u8> {
    let mut out = Vec::new();
    table.encode(&mut out).unwrap();
    out
}

fn read_table(octets: &[u8]) -> Result<FieldTable, DecodeError> {
    FieldTable::decode(&Bytes::copy_from_slice(octets))
}

fn properties_octets(properties: &Properties) -> Vec<u8> {
    let mut out = Vec::new();
    properties.encode(&mut out).unwrap();
    out
}

fn read_properties(octets: &[u8]) -> Result<Properties, DecodeError> {
    RawProperties::new(Bytes::copy_from_slice(octets)).decode()
}

fn method_octets(method: &Method) -> Vec<u8> {
    let mut out = Vec::new();
    method.encode(&mut out).unwrap();
    out
}

fn frame_octets(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out, LIMIT).unwrap();
    out
}

fn read_frame(octets: &[u8]) -> Result<Option<Frame>, DecodeError> {
    Frame::decode(&mut Bytes::copy_from_slice(octets), LIMIT)
}

/// Equal by what it looks like, which is true of a NaN as well. What it encodes to is compared apart.
macro_rules! prop_assert_same {
    ($left:expr, $right:expr) => {
        prop_assert_eq!(format!("{:?}", $left), format!("{:?}", $right))
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_survives(table in table()) {
        let octets = table_octets(&table);
        let (length, entries) = octets.split_first_chunk().unwrap();
        prop_assert_eq!(u32::from_be_bytes(*length), u32::try_from(entries.len()).unwrap());
        let again = read_table(entries).unwrap();
        prop_assert_same!(&again, &table);
        prop_assert_eq!(table_octets(&again), octets);
    }

    /// c64: of a table no proper prefix is the same table, and most are none.
    #[test]
    fn a_table_cut_short_is_an_error_or_has_fewer_entries(table in table(), cut in any::<prop::sample::Index>()) {
        let entries = table_octets(&table).split_off(4);
        prop_assume!(!entries.is_empty());
        let cut = cut.index(entries.len());
        if let Ok(shorter) = read_table(&entries[..cut]) {
            prop_assert!(shorter.len() < table.len());
            prop_assert_eq!(&table_octets(&shorter)[4..], &entries[..cut]);
        }
    }

    #[test]
    fn properties_survive(properties in properties()) {
        let octets = properties_octets(&properties);
        let again = read_properties(&octets).unwrap();
        prop_assert_same!(&again, &properties);
        prop_assert_eq!(&properties_octets(&again), &octets);

        let without = RawProperties::new(octets.into()).decode_without_headers().unwrap();
        prop_assert_eq!(without, Properties { headers: None, ..properties });
    }

    /// c59, c60: the tables of the methods and the methods say the same.
    #[test]
    fn a_method_survives((octets, method) in method()) {
        prop_assert_eq!(method_octets(&method), octets);
    }

    #[test]
    fn a_frame_survives(frame in frame()) {
        let octets = frame_octets(&frame);
        let again = read_frame(&octets).unwrap().unwrap();
        prop_assert_same!(&again, &frame);
        prop_assert_eq!(frame_octets(&again), octets);
    }

    /// c34: a stream of frames, handed over in pieces of any size, gives the frames.
    #[test]
    fn a_stream_in_pieces_gives_its_frames(frames in vec(frame(), 0..6), pieces in vec(1..64usize, 1..8)) {
        let stream: Vec<u8> = frames.iter().flat_map(frame_octets).collect();
        let (mut rest, mut buffer, mut read) = (&stream[..], Vec::new(), Vec::new());
        for piece in pieces.iter().cycle() {
            let (piece, later) = rest.split_at(rest.len().min(*piece));
            (rest, buffer) = (later, [&buffer, piece].concat());
            let mut octets = Bytes::from(buffer);
            while let Some(frame) = Frame::decode(&mut octets, LIMIT).unwrap() {
                read.push(frame);
            }
            buffer = octets.to_vec();
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_same!(read, frames);
    }
}

/// Octets that lead further into the decoders than any octets would: tags, small lengths, ids.
fn likely_octets() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop_oneof![
        4 => 0..=4u8,
        4 => proptest::sample::select(b"tbBsuIilLfdDSATFVxk".to_vec()),
        1 => proptest::sample::select(vec![10, 20, 30, 40, 50, 60, 85, 90, 0xCE]),
        1 => any::<u8>(),
    ];
    prop_oneof![vec(octet, 0..120), vec(any::<u8>(), 0..120)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_are_a_table_or_an_error(octets in likely_octets()) {
        match read_table(&octets) {
            Ok(table) => {
                let canonical = table_octets(&table);
                let again = read_table(&canonical[4..]).unwrap();
                prop_assert_same!(&again, &table);
                prop_assert_eq!(table_octets(&again), canonical);
            }
            Err(error) => prop_assert!(error.offset() <= octets.len()),
        }
    }

    #[test]
    fn any_octets_are_properties_or_an_error(octets in likely_octets()) {
        let raw = RawProperties::new(Bytes::from(octets.clone()));
        let without_headers = raw.decode_without_headers();
        match raw.decode() {
            Ok(properties) => {
                let canonical = properties_octets(&properties);
                let again = read_properties(&canonical).unwrap();
                prop_assert_same!(&again, &properties);
                prop_assert_eq!(properties_octets(&again), canonical);
                prop_assert!(without_headers.is_ok());
            }
            Err(error) => prop_assert!(error.offset() <= octets.len()),
        }
    }

    #[test]
    fn any_octets_are_a_method_or_an_error(
        octets in likely_octets(), info in proptest::sample::select(method::ALL.concat()), known in any::<bool>(),
    ) {
        let ids = if known { [info.class_id.to_be_bytes(), info.method_id.to_be_bytes()].concat() } else { Vec::new() };
        let octets = [ids, octets].concat();
        match Method::decode(&Bytes::from(octets.clone())) {
            Ok(method) => {
                let canonical = method_octets(&method);
                let again = Method::decode(&Bytes::from(canonical.clone())).unwrap();
                prop_assert_same!(&again, &method);
                prop_assert_eq!(method_octets(&again), canonical);
            }
            Err(error) => prop_assert!(error.offset() <= octets.len()),
        }
    }

    #[test]
    fn any_octets_are_a_content_header_or_an_error(octets in likely_octets(), known in any::<bool>()) {
        let octets = if known { [&[0, 60], &octets[..]].concat() } else { octets };
        match ContentHeader::decode(&Bytes::from(octets.clone())) {
            Ok(header) => {
                let mut canonical = Vec::new();
                header.encode(&mut canonical);
                prop_assert_eq!(ContentHeader::decode(&canonical.into()).unwrap(), header);
            }
            Err(error) => prop_assert!(error.offset() <= octets.len()),
        }
    }

    /// Around arbitrary payloads too, so that not every input fails at the end octet.
    #[test]
    fn any_octets_are_frames_or_an_error(
        octets in likely_octets(), kind in proptest::sample::select(vec![1, 2, 3, 8u8]), framed in any::<bool>(),
        limit in prop_oneof![Just(0), Just(50), Just(LIMIT), Just(usize::MAX)],
    ) {
        let octets = if framed {
            let size = u32::try_from(octets.len()).unwrap().to_be_bytes();
            [&[kind, 0, 1], &size[..], &octets, &[0xCE]].concat()
        } else {
            octets
        };
        let split = RawFrame::split(&octets, limit);
        let mut buffer = Bytes::from(octets.clone());
        match Frame::decode(&mut buffer, limit) {
            Ok(Some(frame)) => {
                prop_assert_eq!(split.unwrap().unwrap().wire_len(), octets.len() - buffer.len());
                let canonical = frame_octets(&frame);
                let again = read_frame(&canonical).unwrap().unwrap();
                prop_assert_same!(&again, &frame);
                prop_assert_eq!(frame_octets(&again), canonical);
            }
            Ok(None) => prop_assert_eq!(split, Ok(None)),
            Err(error) => prop_assert!(error.offset() <= octets.len()),
        }
    }

    #[test]
    fn any_eight_octets_are_a_protocol_header_or_an_error(octets in any::<[u8; 8]>()) {
        for octets in [octets, [b'A', b'M', b'Q', b'P', octets[0], octets[1], octets[2], octets[3]]] {
            match ProtocolHeader::decode(octets) {
                Ok(header) => prop_assert_eq!(header.to_bytes(), octets),
                Err(_) => prop_assert!(!octets.starts_with(b"AMQP")),
            }
        }
    }
}
