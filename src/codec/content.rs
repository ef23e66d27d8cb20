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

    /// As [`write`](Self::write), with one more header among the properties. Returns where its value stands.
    pub(crate) fn write_with_header(
        out: &mut Vec<u8>,
        body_size: u64,
        properties: Option<&Properties>,
        header: (&str, i64),
    ) -> Result<usize, EncodeError> {
        Self::write_fixed(out, body_size);
        match properties {
            Some(properties) => properties.encode_with_header(header, out),
            None => Properties::default().encode_with_header(header, out),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(octets: &'static [u8]) -> Result<ContentHeader, DecodeError> {
        ContentHeader::decode(&Bytes::from_static(octets))
    }

    fn encoded(header: &ContentHeader) -> Vec<u8> {
        let mut out = Vec::new();
        header.encode(&mut out);
        out
    }

    #[test]
    fn c77_a_header_reads_and_writes_the_octets_of_the_specification() {
        let octets = b"\0\x3c\0\0\0\0\0\0\0\0\x01\x02\x90\0\x0atext/plain\x02";
        let header = decode(octets).unwrap();
        assert_eq!(header.body_size, 258);
        assert_eq!(header.properties.decode(), Ok(Properties::new().content_type("text/plain").persistent()));
        assert_eq!(encoded(&header), octets);

        let mut out = Vec::new();
        ContentHeader::write(&mut out, 258, Some(&header.properties.decode().unwrap())).unwrap();
        assert_eq!(out, octets);
    }

    /// c78: content belongs to class basic and to no other.
    #[test]
    fn c78_a_header_of_another_class_is_an_error() {
        let error = decode(b"\0\x32\0\0\0\0\0\0\0\0\0\0\0\0").unwrap_err();
        assert_eq!((error.kind(), error.offset()), (&DecodeErrorKind::ContentClass(50), 0));
    }

    /// c78: the weight is zero when written and of no interest when read.
    #[test]
    fn c78_the_weight_is_ignored() {
        let header = decode(b"\0\x3c\x12\x34\0\0\0\0\0\0\0\x05\0\0").unwrap();
        assert_eq!(encoded(&header), b"\0\x3c\0\0\0\0\0\0\0\0\0\x05\0\0");
    }

    /// c79, c85: a size is a number. That of nothing and that of everything decode alike, and neither makes room for a body.
    #[test]
    fn c85_any_body_size_decodes() {
        assert_eq!(decode(b"\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0").map(|header| header.body_size), Ok(0));
        let largest = decode(b"\0\x3c\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0");
        assert_eq!(largest.map(|header| header.body_size), Ok(u64::MAX));
    }

    #[test]
    fn a_header_cut_short_is_truncated() {
        let octets = b"\0\x3c\0\0\0\0\0\0\0\0\0\x05\0\0";
        for cut in 0..octets.len() {
            let error = ContentHeader::decode(&Bytes::copy_from_slice(octets.get(..cut).unwrap())).unwrap_err();
            assert!(matches!(error.kind(), DecodeErrorKind::Truncated { .. }), "cut at {cut}: {error}");
        }
    }

    /// No properties are still two octets of flags; a header without them could not be read.
    #[test]
    fn the_header_without_properties_can_be_read_again() {
        let octets = encoded(&ContentHeader::default());
        assert_eq!(octets, b"\0\x3c\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(ContentHeader::decode(&octets.into()), Ok(ContentHeader::default()));

        let mut out = Vec::new();
        ContentHeader::write(&mut out, 0, None).unwrap();
        assert_eq!(ContentHeader::decode(&out.into()), Ok(ContentHeader::default()));
    }
}
