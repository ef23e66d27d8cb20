//! Reading and writing the elementary types of the wire: integers, bits, strings, tables.
//!
//! Consecutive bits share an octet, the first in the lowest place (§4.2.5.2). The reader and the writer keep that octet
//! until something other than a bit follows, so a method's fields are simply listed in order.

#[cfg(feature = "arbitrary")]
use ::arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;

use super::table::{FieldTable, decode_table, encode_table};
use super::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind, ShortString};

/// The type of a method's field or of a property, by the protocol's own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// One bit; up to eight in a row share an octet.
    Bit,
    /// An unsigned octet.
    Octet,
    /// An unsigned 16-bit integer.
    Short,
    /// An unsigned 32-bit integer.
    Long,
    /// An unsigned 64-bit integer.
    LongLong,
    /// A string with one length octet.
    ShortStr,
    /// Octets with a 32-bit length.
    LongStr,
    /// Names and values with a 32-bit length.
    Table,
    /// Seconds since 1970 as an unsigned 64-bit integer.
    Timestamp,
}

/// Reads fields off a payload that is known to be whole.
pub(crate) struct Decoder<'a> {
    source: &'a Bytes,
    at: usize,
    bits: u8,
    bits_left: u8,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(source: &'a Bytes) -> Self {
        Self { source, at: 0, bits: 0, bits_left: 0 }
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// What has not been read yet.
    #[cfg(test)]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, needed: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        self.bits_left = 0;
        let available = self.source.len() - self.at;
        let octets = self.at.checked_add(needed).and_then(|end| self.source.get(self.at..end));
        let Some(octets) = octets else {
            return Err(DecodeError::new(DecodeErrorKind::Truncated { needed, available }, what, self.at));
        };
        self.at += needed;
        Ok(octets)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let mut octets = [0; N];
        octets.copy_from_slice(self.take(N, what)?);
        Ok(octets)
    }

    /// The next octets, sharing the source's memory.
    fn slice(&mut self, len: usize, what: &'static str) -> Result<Bytes, DecodeError> {
        let octets = self.take(len, what)?;
        Ok(self.source.slice_ref(octets))
    }

    fn bit(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        if self.bits_left == 0 {
            [self.bits] = self.array(what)?;
            self.bits_left = 8;
        }
        let bit = self.bits & 1 == 1;
        self.bits >>= 1;
        self.bits_left -= 1;
        Ok(bit)
    }
}

/// Writes fields after one another onto a buffer.
pub(crate) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    bits_used: u8,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, bits_used: 0 }
    }

    fn put(&mut self, octets: &[u8]) {
        self.bits_used = 0;
        self.out.extend_from_slice(octets);
    }

    fn bit(&mut self, bit: bool) {
        match self.out.last_mut() {
            Some(octet) if (1..8).contains(&self.bits_used) => {
                *octet |= u8::from(bit) << self.bits_used;
                self.bits_used += 1;
            }
            _ => {
                self.out.push(u8::from(bit));
                self.bits_used = 1;
            }
        }
    }
}

/// A type that a method's field or a property can have.
pub(crate) trait Field: Sized {
    const TYPE: FieldType;
    fn decode(decoder: &mut Decoder<'_>, what: &'static str) -> Result<Self, DecodeError>;
    fn encode(&self, encoder: &mut Encoder<'_>, what: &'static str) -> Result<(), EncodeError>;
    /// Here and not in the trait of the same name, which `Bytes` does not have.
    #[cfg(feature = "arbitrary")]
    fn arbitrary(u: &mut Unstructured<'_>) -> ::arbitrary::Result<Self>;
}

macro_rules! integer_field {
    ($integer:ty, $kind:ident) => {
        impl Field for $integer {
            const TYPE: FieldType = FieldType::$kind;
            fn decode(decoder: &mut Decoder<'_>, what: &'static str) -> Result<Self, DecodeError> {
                decoder.array(what).map(Self::from_be_bytes)
            }
            fn encode(&self, encoder: &mut Encoder<'_>, _: &'static str) -> Result<(), EncodeError> {
                encoder.put(&self.to_be_bytes());
                Ok(())
            }
            #[cfg(feature = "arbitrary")]
            fn arbitrary(u: &mut Unstructured<'_>) -> ::arbitrary::Result<Self> {
                Arbitrary::arbitrary(u)
            }
        }
    };
}

integer_field!(u8, Octet);
integer_field!(u16, Short);
integer_field!(u32, Long);
integer_field!(u64, LongLong);

impl Field for bool {
    const TYPE: FieldType = FieldType::Bit;
    fn decode(decoder: &mut Decoder<'_>, what: &'static str) -> Result<Self, DecodeError> {
        decoder.bit(what)
    }
    fn encode(&self, encoder: &mut Encoder<'_>, _: &'static str) -> Result<(), EncodeError> {
        encoder.bit(*self);
        Ok(())
    }
    #[cfg(feature = "arbitrary")]
    fn arbitrary(u: &mut Unstructured<'_>) -> ::arbitrary::Result<Self> {
        Arbitrary::arbitrary(u)
    }
}

impl Field for ShortString {
    const TYPE: FieldType = FieldType::ShortStr;
    fn decode(decoder: &mut Decoder<'_>, what: &'static str) -> Result<Self, DecodeError> {
        let [len] = decoder.array(what)?;
        decoder.slice(usize::from(len), what).map(Self::from)
    }
    fn encode(&self, encoder: &mut Encoder<'_>, what: &'static str) -> Result<(), EncodeError> {
        encoder.bits_used = 0;
        write_short_string(encoder.out, self.as_bytes(), what)
    }
    #[cfg(feature = "arbitrary")]
    fn arbitrary(u: &mut Unstructured<'_>) -> ::arbitrary::Result<Self> {
        Arbitrary::arbitrary(u)
    }
}

impl Field for Bytes {
    const TYPE: FieldType = FieldType::LongStr;
    fn decode(decoder: &mut Decoder<'_>, what: &'static str) -> Result<Self, DecodeError> {
        let len = u32::from_be_bytes(decoder.array(what)?);
        decoder.slice(usize::try_from(len).unwrap_or(usize::MAX), what)
    }
    fn encode(&self, encoder: &mut Encoder<'_>, what: &'static str) -> Result<(), EncodeError> {
        let Ok(len) = u32::try_from(self.len()) else { return Err(EncodeError::new(EncodeErrorKind::TooLong, what)) };
        encoder.put(&len.to_be_bytes());
        encoder.put(self);
        Ok(())
    }
    #[cfg(feature = "arbitrary")]
    fn arbitrary(u: &mut Unstructured<'_>) -> ::arbitrary::Result<Self> {
        super::arbitrary::octets(u, 300)
    }
}

impl Field for FieldTable {
    const TYPE: FieldType = FieldType::Table;
    fn decode(decoder: &mut Decoder<'_>, what: &'static str) -> Result<Self, DecodeError> {
        let start = decoder.offset();
        let content = <Bytes as Field>::decode(decoder, what)?;
        decode_table(&content, what, start + 4)
    }
    fn encode(&self, encoder: &mut Encoder<'_>, what: &'static str) -> Result<(), EncodeError> {
        encoder.bits_used = 0;
        encode_table(self, encoder.out, what)
    }
    #[cfg(feature = "arbitrary")]
    fn arbitrary(u: &mut Unstructured<'_>) -> ::arbitrary::Result<Self> {
        Arbitrary::arbitrary(u)
    }
}

/// Appends a string of at most 255 octets with its length octet.
pub(crate) fn write_short_string(out: &mut Vec<u8>, text: &[u8], what: &'static str) -> Result<(), EncodeError> {
    let Ok(len) = u8::try_from(text.len()) else {
        return Err(EncodeError::new(EncodeErrorKind::ShortStringTooLong { length: text.len() }, what));
    };
    out.push(len);
    out.extend_from_slice(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// c60: bits in a row share an octet, lowest first; a ninth opens a new one, and so does a bit after another field.
    #[test]
    fn c60_bits_pack_low_first() {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out);
        for bit in [true, false, true, false, false, false, false, true, true] {
            bit.encode(&mut encoder, "bit").unwrap();
        }
        7u8.encode(&mut encoder, "octet").unwrap();
        true.encode(&mut encoder, "bit").unwrap();
        assert_eq!(out, [0b1000_0101, 0b1, 7, 1]);

        let source = Bytes::from(out);
        let mut decoder = Decoder::new(&source);
        let bits: Vec<bool> = (0..9).map(|_| bool::decode(&mut decoder, "bit").unwrap()).collect();
        assert_eq!(bits, [true, false, true, false, false, false, false, true, true]);
        assert_eq!(u8::decode(&mut decoder, "octet"), Ok(7));
        assert_eq!(bool::decode(&mut decoder, "bit"), Ok(true));
    }

    /// c60: whatever stands between two bits, the second has an octet of its own.
    #[test]
    fn c60_a_bit_behind_another_field_opens_an_octet() {
        fn between(field: impl Field + PartialEq + std::fmt::Debug) {
            let mut out = Vec::new();
            let mut encoder = Encoder::new(&mut out);
            true.encode(&mut encoder, "bit").unwrap();
            field.encode(&mut encoder, "field").unwrap();
            true.encode(&mut encoder, "bit").unwrap();
            assert_eq!((out.first(), out.last()), (Some(&1), Some(&1)), "{field:?}: {out:?}");

            let source = Bytes::from(out);
            let mut decoder = Decoder::new(&source);
            assert_eq!(bool::decode(&mut decoder, "bit"), Ok(true));
            assert_eq!(Field::decode(&mut decoder, "field"), Ok(field));
            assert_eq!(bool::decode(&mut decoder, "bit"), Ok(true));
            assert!(decoder.rest().is_empty());
        }
        between(0u16);
        between(ShortString::from("s"));
        between(ShortString::default());
        between(Bytes::from_static(b"l"));
        between(FieldTable::from([("k", false)]));
        between(FieldTable::new());
    }

    #[test]
    fn a_length_is_compared_with_what_is_there() {
        let source = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 1]);
        let error = <Bytes as Field>::decode(&mut Decoder::new(&source), "test").unwrap_err();
        assert_eq!(*error.kind(), DecodeErrorKind::Truncated { needed: 0xffff_ffff, available: 1 });
        assert_eq!(error.offset(), 4);
    }
}
