//! When values are equal: when they are the same on the wire.
//!
//! So floats are compared by their bits: a NaN equals itself, and the two zeroes differ. Tables can therefore be keys of a map.

use std::hash::{Hash, Hasher};

use super::FieldValue;

impl PartialEq for FieldValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::I8(a), Self::I8(b)) => a == b,
            (Self::U8(a), Self::U8(b)) => a == b,
            (Self::I16(a), Self::I16(b)) => a == b,
            (Self::U16(a), Self::U16(b)) => a == b,
            (Self::I32(a), Self::I32(b)) => a == b,
            (Self::U32(a), Self::U32(b)) => a == b,
            (Self::I64(a), Self::I64(b)) => a == b,
            (Self::F32(a), Self::F32(b)) => a.to_bits() == b.to_bits(),
            (Self::F64(a), Self::F64(b)) => a.to_bits() == b.to_bits(),
            (Self::Decimal { scale: a, value: x }, Self::Decimal { scale: b, value: y }) => (a, x) == (b, y),
            (Self::LongString(a), Self::LongString(b)) | (Self::ByteArray(a), Self::ByteArray(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Table(a), Self::Table(b)) => a == b,
            (Self::Void, Self::Void) => true,
            _ => false,
        }
    }
}

impl Eq for FieldValue {}

impl Hash for FieldValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Bool(value) => value.hash(state),
            Self::I8(value) => value.hash(state),
            Self::U8(value) => value.hash(state),
            Self::I16(value) => value.hash(state),
            Self::U16(value) => value.hash(state),
            Self::I32(value) => value.hash(state),
            Self::U32(value) => value.hash(state),
            Self::I64(value) => value.hash(state),
            Self::F32(value) => value.to_bits().hash(state),
            Self::F64(value) => value.to_bits().hash(state),
            Self::Decimal { scale, value } => (scale, value).hash(state),
            Self::LongString(octets) | Self::ByteArray(octets) => octets.hash(state),
            Self::Array(values) => values.hash(state),
            Self::Timestamp(seconds) => seconds.hash(state),
            Self::Table(table) => table.hash(state),
            Self::Void => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::FieldTable;

    fn hash(value: &FieldValue) -> u64 {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        value.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn equal_means_the_same_octets() {
        let nan = || FieldValue::Table(FieldTable::new().with("x", FieldValue::F64(f64::NAN)));
        assert_eq!(nan(), nan());
        assert_eq!(hash(&nan()), hash(&nan()));
        assert_ne!(FieldValue::F32(0.0), FieldValue::F32(-0.0));
        assert_ne!(FieldValue::I32(1), FieldValue::I64(1), "another tag");
        assert_ne!(FieldValue::LongString("a".into()), FieldValue::ByteArray("a".into()));
        assert_ne!(hash(&FieldValue::I32(1)), hash(&FieldValue::I64(1)));
        assert_eq!(FieldValue::Array(vec![FieldValue::Void]), FieldValue::Array(vec![FieldValue::Void]));
    }
}
