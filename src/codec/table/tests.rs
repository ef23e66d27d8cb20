//! Holds field tables against octets written by hand: every tag of RabbitMQ's dialect, every way to lie about a length, depth.

use super::*;

/// The entries of a table with one value, tag included, under the name `k`.
fn entry(value: &[u8]) -> Vec<u8> {
    [b"\x01k", value].concat()
}

fn decode(entries: impl Into<Vec<u8>>) -> Result<FieldTable, DecodeError> {
    FieldTable::decode(&Bytes::from(entries.into()))
}

fn decode_value(value: &[u8]) -> FieldValue {
    decode(entry(value)).unwrap().remove("k").unwrap()
}

/// The table with its length.
fn encoded(table: &FieldTable) -> Vec<u8> {
    let mut out = Vec::new();
    table.encode(&mut out).unwrap();
    out
}

fn encode_value(value: FieldValue) -> Vec<u8> {
    encoded(&FieldTable::new().with("k", value)).split_off(6)
}

fn truncated(needed: usize, available: usize) -> DecodeErrorKind {
    DecodeErrorKind::Truncated { needed, available }
}

/// c69, with c63, c70, c71 and c72: every tag that is written, both ways. `s` is 16 bits and not a string, `l` is signed.
#[test]
fn c69_every_tag_reads_and_writes() {
    let octets = Bytes::from_static;
    for (bytes, value) in [
        (&b"t\0"[..], FieldValue::Bool(false)),
        (b"t\x01", FieldValue::Bool(true)),
        (b"b\xff", FieldValue::I8(-1)),
        (b"B\xff", FieldValue::U8(255)),
        (b"s\xff\xfe", FieldValue::I16(-2)),
        (b"u\xff\xfe", FieldValue::U16(65_534)),
        (b"I\xff\xff\xff\xfe", FieldValue::I32(-2)),
        (b"i\xff\xff\xff\xfe", FieldValue::U32(4_294_967_294)),
        (b"l\xff\xff\xff\xff\xff\xff\xff\xfe", FieldValue::I64(-2)),
        (b"l\x7f\xff\xff\xff\xff\xff\xff\xff", FieldValue::I64(i64::MAX)),
        (b"f\x3f\xc0\0\0", FieldValue::F32(1.5)),
        (b"d\xbf\xf8\0\0\0\0\0\0", FieldValue::F64(-1.5)),
        (b"D\x02\0\0\x01\x3a", FieldValue::Decimal { scale: 2, value: 314 }),
        (b"S\0\0\0\x02hi", FieldValue::LongString(octets(b"hi"))),
        (b"S\0\0\0\0", FieldValue::LongString(octets(b""))),
        (b"T\0\0\0\0\x65\x53\xf1\0", FieldValue::Timestamp(1_700_000_000)),
        (b"V", FieldValue::Void),
        (b"x\0\0\0\x03\0\x01\xff", FieldValue::ByteArray(octets(b"\0\x01\xff"))),
        (b"A\0\0\0\0", FieldValue::Array(Vec::new())),
        (b"A\0\0\0\x04t\x01VV", FieldValue::Array(vec![FieldValue::Bool(true), FieldValue::Void, FieldValue::Void])),
        (b"F\0\0\0\0", FieldValue::Table(FieldTable::new())),
        (b"F\0\0\0\x05\x02idB\x07", FieldValue::Table(FieldTable::from([("id", 7u8)]))),
    ] {
        assert_eq!(decode_value(bytes), value);
        assert_eq!(encode_value(value), bytes);
    }
}

/// c69: `L` stands for the same as `l`, and only `l` is written.
#[test]
fn c69_capital_l_is_read_and_never_written() {
    let value = decode_value(b"L\xff\xff\xff\xff\xff\xff\xff\xfe");
    assert_eq!(value, FieldValue::I64(-2));
    assert_eq!(encode_value(value), b"l\xff\xff\xff\xff\xff\xff\xff\xfe");
}

/// Any octet but 0 is true, and is written as 1.
#[test]
fn a_bool_of_another_octet_is_true() {
    assert_eq!(encode_value(decode_value(b"t\x80")), b"t\x01");
}

/// c63: a timestamp has all 64 bits, and counts seconds.
#[test]
fn c63_a_timestamp_is_unsigned() {
    let value = decode_value(b"T\xff\xff\xff\xff\xff\xff\xff\xff");
    assert_eq!(value, FieldValue::Timestamp(u64::MAX));
    assert_eq!(encode_value(value), b"T\xff\xff\xff\xff\xff\xff\xff\xff");
}

/// c70: the 32 bits of a decimal survive, whichever way a peer means the highest.
#[test]
fn c70_a_decimal_keeps_its_bits() {
    let value = decode_value(b"D\xff\xff\xff\xff\xff");
    assert_eq!(value, FieldValue::Decimal { scale: 255, value: -1 });
    assert_eq!(encode_value(value), b"D\xff\xff\xff\xff\xff");
}

/// A signalling NaN is not made quiet on its way through.
#[test]
fn floats_keep_their_bits() {
    for bytes in [&b"f\x7f\xa0\0\x01"[..], b"d\x7f\xf4\0\0\0\0\0\x01", b"d\x80\0\0\0\0\0\0\0"] {
        assert_eq!(encode_value(decode_value(bytes)), bytes);
    }
}

/// c69: RabbitMQ does not accept `U`, and neither do we.
#[test]
fn c69_capital_u_is_an_error_that_names_it() {
    let error = decode(entry(b"U\0\x01")).unwrap_err();
    assert_eq!(*error.kind(), DecodeErrorKind::UnknownFieldType(b'U'));
    assert_eq!(error.to_string(), "cannot decode field table at offset 2: unknown field type 0x55");
}

/// c73: what has an unknown tag cannot be skipped. All tags that are not in the dialect, with the offset of the tag.
#[test]
fn c73_an_unknown_tag_is_an_error_with_its_offset() {
    for tag in (0..=255).filter(|tag| !b"tbBsuIilLfdDSATFVx".contains(tag)) {
        for (before, offset) in [(&b""[..], 2), (b"\x01aV", 5)] {
            let error = decode([before, &entry(&[tag]), &[0; 16]].concat()).unwrap_err();
            assert_eq!((error.kind(), error.offset()), (&DecodeErrorKind::UnknownFieldType(tag), offset));
        }
    }
    let inside = decode(b"\x01aF\0\0\0\x08\x01bA\0\0\0\x01?".to_vec()).unwrap_err();
    assert_eq!((inside.kind(), inside.offset()), (&DecodeErrorKind::UnknownFieldType(b'?'), 14));
}

/// c64, c67: lengths are unsigned and bounded by what holds them: the input, the table around, the array around.
#[test]
fn c64_a_length_that_overruns_is_truncated() {
    for (entries, kind, offset) in [
        // A name, in the outermost table.
        (&b"\x05k"[..], truncated(5, 1), 1),
        // A string, octets, an array, a table: the length alone is too much.
        (b"\x01kS\0\0\0\x03hi", truncated(3, 2), 7),
        (b"\x01kx\xff\xff\xff\xffhi", truncated(0xffff_ffff, 2), 7),
        (b"\x01kA\x80\0\0\0V", truncated(0x8000_0000, 1), 7),
        (b"\x01kF\0\0\0\x01", truncated(1, 0), 7),
        // The inner length is too much for the table around it, though not for the input.
        (b"\x01kF\0\0\0\x09\x01jS\0\0\0\x03hi\x01lV", truncated(3, 2), 14),
        (b"\x01kA\0\0\0\x07S\0\0\0\x03hi\x01lV", truncated(3, 2), 12),
        (b"\x01kF\0\0\0\x03\x05lV\x01mV", truncated(5, 2), 8),
    ] {
        let error = decode(entries).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (&kind, offset), "{entries:?}");
    }
}

/// c64: every proper prefix of a value is too short, at the outermost level and inside of an array that ends there.
#[test]
fn c64_a_value_cut_short_anywhere_is_truncated() {
    for value in [
        &b"t\x01"[..],
        b"b\x01",
        b"B\x01",
        b"s\0\x01",
        b"u\0\x01",
        b"I\0\0\0\x01",
        b"i\0\0\0\x01",
        b"l\0\0\0\0\0\0\0\x01",
        b"L\0\0\0\0\0\0\0\x01",
        b"f\0\0\0\0",
        b"d\0\0\0\0\0\0\0\0",
        b"D\0\0\0\0\0",
        b"S\0\0\0\x01x",
        b"x\0\0\0\x01x",
        b"T\0\0\0\0\0\0\0\0",
        b"A\0\0\0\x01V",
        b"F\0\0\0\x03\x01kV",
    ] {
        assert!(decode(entry(value)).is_ok());
        for cut in 1..value.len() {
            let alone = decode(entry(&value[..cut])).unwrap_err();
            assert!(matches!(alone.kind(), DecodeErrorKind::Truncated { .. }), "{value:?} at {cut}: {alone}");

            let length = u32::try_from(cut).unwrap().to_be_bytes();
            let array = [b"A", &length[..], &value[..cut]].concat();
            let inside = decode([entry(&array), entry(b"V")].concat()).unwrap_err();
            assert!(matches!(inside.kind(), DecodeErrorKind::Truncated { .. }), "{value:?} at {cut}: {inside}");
        }
    }
}

/// A name with nothing behind it, not even a tag.
#[test]
fn a_name_without_a_value_is_truncated() {
    let error = decode(entry(b"")).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (&truncated(1, 0), 2));
}

/// The entries of a table that is `levels` deep, in six octets a level: no name, a tag, a length.
fn nested_tables(levels: usize) -> Vec<u8> {
    let inner = (0..levels - 1).rev().map(|level| u32::try_from(6 * level).unwrap().to_be_bytes());
    inner.flat_map(|length| [b"\0F".as_slice(), &length].concat()).collect()
}

/// The same with arrays below the outermost table.
fn nested_arrays(levels: usize) -> Vec<u8> {
    let inner = (0..levels - 1).rev().map(|level| u32::try_from(5 * level).unwrap().to_be_bytes());
    [vec![0], inner.flat_map(|length| [b"A".as_slice(), &length].concat()).collect()].concat()
}

/// c68: 32 levels are read, 33 are not, and what comes after the limit is not looked at.
#[test]
fn c68_decoding_stops_at_32_levels() {
    for nested in [nested_tables, nested_arrays] {
        let table = decode(nested(MAX_DEPTH)).unwrap();
        assert_eq!(encoded(&table)[4..], nested(MAX_DEPTH));
        assert_eq!(*decode(nested(MAX_DEPTH + 1)).unwrap_err().kind(), DecodeErrorKind::TooDeep);
    }
    assert_eq!(decode(nested_tables(MAX_DEPTH + 1)).unwrap_err().offset(), 6 * 31 + 1);
}

/// c68: 120 KB that nest 20000 deep fit into a frame, and must not cost the stack.
#[test]
fn c68_a_table_nested_20000_deep_is_an_error() {
    let entries = nested_tables(20_001);
    assert_eq!(entries.len(), 120_000);
    assert_eq!(*decode(entries).unwrap_err().kind(), DecodeErrorKind::TooDeep);
    assert_eq!(*decode(nested_arrays(20_001)).unwrap_err().kind(), DecodeErrorKind::TooDeep);
}

/// c68: the same limit when writing.
#[test]
fn c68_encoding_stops_at_32_levels() {
    let tables = |levels| (1..levels).fold(FieldTable::new(), |inner, _| FieldTable::new().with("k", inner));
    let arrays =
        |levels| (1..levels - 1).fold(FieldValue::Array(Vec::new()), |inner, _| FieldValue::Array(vec![inner]));
    assert!(tables(MAX_DEPTH).encode(&mut Vec::new()).is_ok());
    assert!(FieldTable::new().with("k", arrays(MAX_DEPTH)).encode(&mut Vec::new()).is_ok());
    for table in [tables(MAX_DEPTH + 1), tables(500), FieldTable::new().with("k", arrays(MAX_DEPTH + 1))] {
        let error = table.encode(&mut Vec::new()).unwrap_err();
        assert_eq!((error.kind(), error.what()), (&EncodeErrorKind::TooDeep, "field table"));
    }
}

/// c62: octets that are not UTF-8 are neither refused nor changed, in names and in values.
#[test]
fn c62_octets_that_are_not_utf8_survive() {
    let bytes = b"\x04caf\xe9S\0\0\0\x02\xff\0";
    let table = decode(bytes).unwrap();
    let (name, value) = table.iter().next().unwrap();
    assert_eq!(name.as_bytes(), b"caf\xe9");
    assert_eq!(*value, FieldValue::LongString(Bytes::from_static(b"\xff\0")));
    assert_eq!(value.as_str(), None);
    assert_eq!(encoded(&table)[4..], *bytes);
}

/// c65: the specification's rules for names are nobody's in practice: 255 octets, no first letter, controls, nothing.
#[test]
fn c65_any_name_is_read_and_written() {
    for name in [&b""[..], b"1", b" ", b"\0", b"x-\n", b"k\xc3\xa9y", &[b'n'; 129], &[b'n'; 255]] {
        let bytes = [&[u8::try_from(name.len()).unwrap()], name, b"V"].concat();
        let table = decode(bytes.clone()).unwrap();
        assert_eq!(table.iter().next().unwrap().0.as_bytes(), name);
        assert_eq!(encoded(&table)[4..], bytes);
    }
}

/// c61: a name of 256 octets cannot be written, at any level.
#[test]
fn c61_a_name_of_256_octets_is_an_error() {
    let table = FieldTable::new().with("n".repeat(256), true);
    for table in [table.clone(), FieldTable::new().with("k", table)] {
        let error = table.encode(&mut Vec::new()).unwrap_err();
        assert_eq!(*error.kind(), EncodeErrorKind::ShortStringTooLong { length: 256 });
    }
    assert!(FieldTable::new().with("n".repeat(255), true).encode(&mut Vec::new()).is_ok());
}

/// c66: a name that stands twice is kept twice, in order; the last counts, is replaced, and all are removed.
#[test]
fn c66_of_a_duplicate_name_the_last_counts() {
    let bytes = b"\x01kB\x01\x01jB\x02\x01kB\x03";
    let mut table = decode(bytes).unwrap();
    assert_eq!(encoded(&table)[4..], *bytes);
    assert_eq!((table.len(), table.get("k")), (3, Some(&FieldValue::U8(3))));

    assert_eq!(table.insert("k", 4u8), Some(FieldValue::U8(3)));
    assert_eq!(encoded(&table)[4..], *b"\x01kB\x01\x01jB\x02\x01kB\x04");

    assert_eq!(table.remove("k"), Some(FieldValue::U8(4)));
    assert_eq!(table, FieldTable::from([("j", 2u8)]));
    assert_eq!(table.remove("k"), None);
}

#[test]
fn an_empty_table_is_a_length_of_zero() {
    assert_eq!(decode(b""), Ok(FieldTable::new()));
    assert_eq!(encoded(&FieldTable::new()), [0, 0, 0, 0]);
}

/// c74, c75: an integer has an integer's tag, whatever its width.
#[test]
fn c74_integers_are_written_as_integers() {
    assert_eq!(encode_value(60_000i32.into()), b"I\0\0\xea\x60");
    assert_eq!(encode_value(60_000i64.into()), b"l\0\0\0\0\0\0\xea\x60");
    for value in [FieldValue::I8(7), 7u8.into(), 7i16.into(), 7u16.into(), 7i32.into(), 7u32.into(), 7i64.into()] {
        assert_eq!(value.as_i64(), Some(7));
    }
    assert_eq!(FieldValue::from("7").as_i64(), None);
}

/// What is read shares the frame's memory.
#[test]
fn strings_are_slices_of_the_input() {
    let entries = Bytes::from_static(b"\x01kS\0\0\0\x02hi");
    let table = FieldTable::decode(&entries).unwrap();
    let Some(FieldValue::LongString(text)) = table.get("k") else { panic!("no string") };
    assert_eq!(text.as_ptr(), entries[7..].as_ptr());
}
