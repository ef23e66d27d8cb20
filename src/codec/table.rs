//! Field tables: message headers and arguments, in RabbitMQ's dialect of the field types.
//!
//! The printed specification and what brokers do differ here; this is what they do:
//!
//! | tag | value | tag | value |
//! |---|---|---|---|
//! | `t` | bool | `f`, `d` | 32- and 64-bit float |
//! | `b`, `B` | signed and unsigned octet | `D` | decimal: scale octet and 32 bits |
//! | `s`, `u` | signed and unsigned 16 bits | `S` | long string, any octets |
//! | `I`, `i` | signed and unsigned 32 bits | `T` | timestamp in seconds |
//! | `l` (`L` is read, never written) | signed 64 bits | `F`, `A` | table, array |
//! | `V` | nothing | `x` | octets |
//!
//! A table is read with nom's complete parsers over a slice that is known to be whole. The nesting is limited to
//! [`MAX_DEPTH`], so a hostile header cannot exhaust the stack.

mod equal;
#[cfg(feature = "serde")]
mod plain;

use std::fmt;

use bytes::Bytes;
use nom::number::complete as number;
use nom::{IResult, Parser};

use super::{DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind, ShortString, write_short_string};

/// How deep tables and arrays may be nested, as in RabbitMQ's Java client.
pub const MAX_DEPTH: usize = 32;

/// Names with values, in the order of the wire.
///
/// A name may stand twice; [`get`](Self::get) answers with the last, [`insert`](Self::insert) replaces it.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldTable(Vec<(ShortString, FieldValue)>);

/// The values of an array, in order.
pub type FieldArray = Vec<FieldValue>;

/// A value of a table or an array. Equal are those that are the same on the wire: floats bit by bit.
#[non_exhaustive]
#[derive(Clone, Debug)]
#[doc(alias = "AMQPValue")]
pub enum FieldValue {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`; `L` is read as the same. RabbitMQ has no unsigned 64-bit integer.
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`: `value` divided by ten to the power of `scale`.
    Decimal {
        /// Places behind the point.
        scale: u8,
        /// The digits. The specification says signed, RabbitMQ reads them as unsigned.
        value: i32,
    },
    /// `S`: text or any other octets.
    LongString(Bytes),
    /// `A`
    Array(FieldArray),
    /// `T`: seconds since 1970.
    Timestamp(u64),
    /// `F`
    Table(FieldTable),
    /// `V`
    Void,
    /// `x`
    ByteArray(Bytes),
}

impl FieldTable {
    /// A table without entries.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value under `name`; the last one, where a peer sent several.
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.0.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Puts `value` under `name` and returns what stood there.
    pub fn insert(&mut self, name: impl Into<ShortString>, value: impl Into<FieldValue>) -> Option<FieldValue> {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().rev().find(|(key, _)| *key == name) {
            Some((_, old)) => Some(std::mem::replace(old, value)),
            None => {
                self.0.push((name, value));
                None
            }
        }
    }

    /// Puts `value` under `name` behind all others, even where the name is there already.
    pub fn push(&mut self, name: impl Into<ShortString>, value: impl Into<FieldValue>) {
        self.0.push((name.into(), value.into()));
    }

    /// Takes out every value under `name` and returns the last.
    pub fn remove(&mut self, name: &str) -> Option<FieldValue> {
        let mut removed = None;
        self.0.retain_mut(|(key, value)| {
            let keep = *key != name;
            if !keep {
                removed = Some(std::mem::replace(value, FieldValue::Void));
            }
            keep
        });
        removed
    }

    /// The table with `value` under `name`: for building one in a single expression.
    #[must_use]
    pub fn with(mut self, name: impl Into<ShortString>, value: impl Into<FieldValue>) -> Self {
        self.insert(name, value);
        self
    }

    /// The entries in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = (&ShortString, &FieldValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the entries of a table, without the 32-bit length before them.
    ///
    /// # Errors
    ///
    /// The octets are not a table in RabbitMQ's dialect, or are nested deeper than [`MAX_DEPTH`].
    pub fn decode(entries: &Bytes) -> Result<Self, DecodeError> {
        decode_table(entries, "field table", 0)
    }

    /// Appends the table with the 32-bit length before its entries. On an error `out` may hold a part of it.
    ///
    /// # Errors
    ///
    /// A name is longer than 255 octets, or it is nested deeper than [`MAX_DEPTH`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        encode_table(self, out, "field table")
    }
}

impl fmt::Debug for FieldTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Into<ShortString>, V: Into<FieldValue>> FromIterator<(K, V)> for FieldTable {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl<K: Into<ShortString>, V: Into<FieldValue>, const N: usize> From<[(K, V); N]> for FieldTable {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl IntoIterator for FieldTable {
    type Item = (ShortString, FieldValue);
    type IntoIter = std::vec::IntoIter<Self::Item>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FieldValue {
    /// The text of a long string, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::LongString(octets) => std::str::from_utf8(octets).ok(),
            _ => None,
        }
    }

    /// The value of any of the integer types.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::I8(value) => Some(value.into()),
            Self::U8(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I64(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a bool.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The nested table.
    pub fn as_table(&self) -> Option<&FieldTable> {
        match self {
            Self::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The nested array.
    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }
}

macro_rules! value_from {
    ($($from:ty => $variant:ident),* $(,)?) => {
        $( impl From<$from> for FieldValue {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        } )*
    };
}

value_from! {
    bool => Bool, i8 => I8, u8 => U8, i16 => I16, u16 => U16, i32 => I32, u32 => U32, i64 => I64, f32 => F32, f64 => F64,
    String => LongString, Bytes => LongString, FieldArray => Array, FieldTable => Table,
}

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self::LongString(Bytes::copy_from_slice(text.as_bytes()))
    }
}

// ---------------------------------------------------------------------------------------------------------- reading

/// Why and where a table could not be read; offsets become absolute in [`decode_table`].
#[derive(Debug)]
struct Failure<'a> {
    at: &'a [u8],
    kind: DecodeErrorKind,
}

impl<'a> nom::error::ParseError<&'a [u8]> for Failure<'a> {
    /// nom's own parsers fail in one way here: the input ends too early.
    fn from_error_kind(at: &'a [u8], _: nom::error::ErrorKind) -> Self {
        Self { at, kind: DecodeErrorKind::Truncated { needed: at.len() + 1, available: at.len() } }
    }

    fn append(_: &'a [u8], _: nom::error::ErrorKind, other: Self) -> Self {
        other
    }
}

type Parsed<'a, T> = IResult<&'a [u8], T, Failure<'a>>;

/// Reads the entries of a table; `offset` says where they stand in what the caller decodes.
pub(crate) fn decode_table(entries: &Bytes, what: &'static str, offset: usize) -> Result<FieldTable, DecodeError> {
    match table_entries(entries, 1)(entries) {
        Ok((_, table)) => Ok(table),
        Err(nom::Err::Error(failure) | nom::Err::Failure(failure)) => {
            let at = failure.at.as_ptr() as usize - entries.as_ptr() as usize;
            Err(DecodeError::new(failure.kind, what, offset + at))
        }
        // Complete parsers never ask for more.
        Err(nom::Err::Incomplete(_)) => {
            let kind = DecodeErrorKind::Truncated { needed: 1, available: 0 };
            Err(DecodeError::new(kind, what, offset + entries.len()))
        }
    }
}

fn table_entries<'a>(source: &Bytes, depth: usize) -> impl Fn(&'a [u8]) -> Parsed<'a, FieldTable> {
    move |mut input| {
        let mut table = Vec::new();
        while !input.is_empty() {
            let (rest, name) = sized(number::u8.map(u32::from)).parse(input)?;
            let (rest, value) = field_value(source, depth)(rest)?;
            table.push((ShortString::from(source.slice_ref(name)), value));
            input = rest;
        }
        Ok((input, FieldTable(table)))
    }
}

fn array_values<'a>(source: &Bytes, depth: usize) -> impl Fn(&'a [u8]) -> Parsed<'a, FieldArray> {
    move |mut input| {
        let mut values = Vec::new();
        while !input.is_empty() {
            let (rest, value) = field_value(source, depth)(input)?;
            values.push(value);
            input = rest;
        }
        Ok((input, values))
    }
}

/// Octets with a length before them. What is announced is compared with what is there before anything is done with it.
fn sized<'a>(
    mut length: impl Parser<&'a [u8], Output = u32, Error = Failure<'a>>,
) -> impl FnMut(&'a [u8]) -> Parsed<'a, &'a [u8]> {
    move |input| {
        let (rest, length) = length.parse(input)?;
        let needed = usize::try_from(length).unwrap_or(usize::MAX);
        match rest.split_at_checked(needed) {
            Some((octets, rest)) => Ok((rest, octets)),
            None => {
                let kind = DecodeErrorKind::Truncated { needed, available: rest.len() };
                Err(nom::Err::Failure(Failure { at: rest, kind }))
            }
        }
    }
}

fn long(input: &[u8]) -> Parsed<'_, &[u8]> {
    sized(number::be_u32)(input)
}

fn field_value<'a>(source: &Bytes, depth: usize) -> impl Fn(&'a [u8]) -> Parsed<'a, FieldValue> {
    move |input| {
        let (rest, tag) = number::u8(input)?;
        let octets = |octets| source.slice_ref(octets);
        let nested = |rest: &'a [u8]| -> Parsed<'a, &'a [u8]> {
            if depth == MAX_DEPTH {
                return Err(nom::Err::Failure(Failure { at: input, kind: DecodeErrorKind::TooDeep }));
            }
            long(rest)
        };
        match tag {
            b't' => number::u8.map(|octet| FieldValue::Bool(octet != 0)).parse(rest),
            b'b' => number::i8.map(FieldValue::I8).parse(rest),
            b'B' => number::u8.map(FieldValue::U8).parse(rest),
            b's' => number::be_i16.map(FieldValue::I16).parse(rest),
            b'u' => number::be_u16.map(FieldValue::U16).parse(rest),
            b'I' => number::be_i32.map(FieldValue::I32).parse(rest),
            b'i' => number::be_u32.map(FieldValue::U32).parse(rest),
            b'l' | b'L' => number::be_i64.map(FieldValue::I64).parse(rest),
            b'f' => number::be_f32.map(FieldValue::F32).parse(rest),
            b'd' => number::be_f64.map(FieldValue::F64).parse(rest),
            b'D' => (number::u8, number::be_i32).map(|(scale, value)| FieldValue::Decimal { scale, value }).parse(rest),
            b'S' => long.map(|text| FieldValue::LongString(octets(text))).parse(rest),
            b'x' => long.map(|array| FieldValue::ByteArray(octets(array))).parse(rest),
            b'T' => number::be_u64.map(FieldValue::Timestamp).parse(rest),
            b'V' => Ok((rest, FieldValue::Void)),
            b'A' => {
                let (rest, values) = nested(rest)?;
                let (_, values) = array_values(source, depth + 1)(values)?;
                Ok((rest, FieldValue::Array(values)))
            }
            b'F' => {
                let (rest, entries) = nested(rest)?;
                let (_, table) = table_entries(source, depth + 1)(entries)?;
                Ok((rest, FieldValue::Table(table)))
            }
            _ => Err(nom::Err::Failure(Failure { at: input, kind: DecodeErrorKind::UnknownFieldType(tag) })),
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- writing

/// Appends a table with its length.
pub(crate) fn encode_table(table: &FieldTable, out: &mut Vec<u8>, what: &'static str) -> Result<(), EncodeError> {
    write_table(table, out, what, 1)
}

/// As [`encode_table`], with one more entry at the end, in place of those of its name.
pub(crate) fn encode_table_with(
    table: Option<&FieldTable>,
    (name, value): (&str, i64),
    out: &mut Vec<u8>,
    what: &'static str,
) -> Result<(), EncodeError> {
    with_length(out, what, |out| {
        for (other, value) in table.into_iter().flat_map(|table| &table.0).filter(|(other, _)| *other != name) {
            write_short_string(out, other.as_bytes(), what)?;
            write_value(value, out, what, 1)?;
        }
        write_short_string(out, name.as_bytes(), what)?;
        write_value(&FieldValue::I64(value), out, what, 1)
    })
}

fn write_table(table: &FieldTable, out: &mut Vec<u8>, what: &'static str, depth: usize) -> Result<(), EncodeError> {
    with_length(out, what, |out| {
        for (name, value) in &table.0 {
            write_short_string(out, name.as_bytes(), what)?;
            write_value(value, out, what, depth)?;
        }
        Ok(())
    })
}

/// Leaves room for a 32-bit length, lets `content` write, and fills the length in.
fn with_length(
    out: &mut Vec<u8>,
    what: &'static str,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    content(out)?;
    let length = u32::try_from(out.len() - start - 4).map_err(|_| EncodeError::new(EncodeErrorKind::TooLong, what))?;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn write_value(value: &FieldValue, out: &mut Vec<u8>, what: &'static str, depth: usize) -> Result<(), EncodeError> {
    let mut put = |tag: u8, octets: &[u8]| {
        out.push(tag);
        out.extend_from_slice(octets);
    };
    match value {
        FieldValue::Bool(value) => put(b't', &[u8::from(*value)]),
        FieldValue::I8(value) => put(b'b', &value.to_be_bytes()),
        FieldValue::U8(value) => put(b'B', &[*value]),
        FieldValue::I16(value) => put(b's', &value.to_be_bytes()),
        FieldValue::U16(value) => put(b'u', &value.to_be_bytes()),
        FieldValue::I32(value) => put(b'I', &value.to_be_bytes()),
        FieldValue::U32(value) => put(b'i', &value.to_be_bytes()),
        FieldValue::I64(value) => put(b'l', &value.to_be_bytes()),
        FieldValue::F32(value) => put(b'f', &value.to_be_bytes()),
        FieldValue::F64(value) => put(b'd', &value.to_be_bytes()),
        FieldValue::Timestamp(value) => put(b'T', &value.to_be_bytes()),
        FieldValue::Void => put(b'V', &[]),
        FieldValue::Decimal { scale, value } => {
            put(b'D', &[*scale]);
            out.extend_from_slice(&value.to_be_bytes());
        }
        FieldValue::LongString(octets) | FieldValue::ByteArray(octets) => {
            put(if matches!(value, FieldValue::LongString(_)) { b'S' } else { b'x' }, &[]);
            with_length(out, what, |out| {
                out.extend_from_slice(octets);
                Ok(())
            })?;
        }
        FieldValue::Array(_) | FieldValue::Table(_) if depth == MAX_DEPTH => {
            return Err(EncodeError::new(EncodeErrorKind::TooDeep, what));
        }
        FieldValue::Array(values) => {
            put(b'A', &[]);
            with_length(out, what, |out| values.iter().try_for_each(|value| write_value(value, out, what, depth + 1)))?;
        }
        FieldValue::Table(table) => {
            put(b'F', &[]);
            write_table(table, out, what, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
