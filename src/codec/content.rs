//! The content header: what stands between a method that carries content and the body's frames.

use bytes::Bytes;

use super::wire::{Encoder, Field};
use super::{DecodeError, DecodeErrorKind, EncodeError, Properties, RawProperties};

/// The payload of a header frame: the body's size and the message's properties, not decoded yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContentHeader {
    /// Octets of body that follow. A peer may say anything here; it is compared with limits, never allocated.
    pub body_size: u64,
    /// The properties as they came.
    pub properties: RawProperties,
}

impl ContentHeader {
    /// Octets before the property flags: class id, weight, body size.
    pub(crate) const FIXED_LEN: usize = 12;

    /// Reads the payload of a header frame.
    ///
    /// # Errors
    ///
    /// It is too short, or of another class than basic (c78). The weight is ignored.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let (body_size, properties) = Self::split(payload)?;
        Ok(Self { body_size, properties: RawProperties::new(payload.slice_ref(properties)) })
    }

    /// Body size and properties of a header frame's payload, in place.
    #[inline]
    pub(crate) fn split(payload: &[u8]) -> Result<(u64, &[u8]), DecodeError> {
        let Some((&[c1, c0, _, _, s7, s6, s5, s4, s3, s2, s1, s0], properties @ [_, _, ..])) =
            payload.split_first_chunk::<{ Self::FIXED_LEN }>()
        else {
            let kind = DecodeErrorKind::Truncated { needed: Self::FIXED_LEN + 2, available: payload.len() };
            return Err(DecodeError::new(kind, "content header", 0));
        };
        let class = u16::from_be_bytes([c1, c0]);
        if class != super::method::basic::CLASS_ID {
            return Err(DecodeError::new(DecodeErrorKind::ContentClass(class), "content header class", 0));
        }
        Ok((u64::from_be_bytes([s7, s6, s5, s4, s3, s2, s1, s0]), properties))
    }

    /// Appends the payload of a header frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Self::write_fixed(out, self.body_size);
        out.extend_from_slice(self.properties.as_bytes());
    }

    /// Appends the payload of a header frame for properties that are not encoded yet.
    pub(crate) fn write(out: &mut Vec<u8>, body_size: u64, properties: Option<&Properties>) -> Result<(), EncodeError> {
        Self::write_fixed(out, body_size);
        match properties {
            Some(properties) => properties.encode(out),
            None => 0u16.encode(&mut Encoder::new(out), "property flags"),
        }
    }

    fn write_fixed(out: &mut Vec<u8>, body_size: u64) {
        let mut fixed = [0; Self::FIXED_LEN];
        let (ids, size) = fixed.split_at_mut(4);
        ids.copy_from_slice(&[0, 60, 0, 0]);
        size.copy_from_slice(&body_size.to_be_bytes());
        out.extend_from_slice(&fixed);
    }
}
