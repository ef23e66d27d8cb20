//! The envelope of everything: type, channel, size, payload, end octet (§4.2.3).
//!
//! ```text
//!  0      1         3             7                  size+7
//! +------+---------+-------------+------------------+------+
//! | type | channel |    size     |     payload      | 0xCE |
//! +------+---------+-------------+------------------+------+
//! ```
//!
//! [`RawFrame`] borrows a frame out of a buffer and looks no further, so that a reader can decide what is worth decoding;
//! [`Frame`] is the decoded value. For frames that break the rules there is [`UncheckedFrame`](super::UncheckedFrame).

use bytes::Bytes;

use super::{ContentHeader, DecodeError, DecodeErrorKind, EncodeError, EncodeErrorKind, Method};

/// Octets of a frame that are not payload: seven before it and one behind.
pub const FRAME_OVERHEAD: usize = 8;

/// Those before it.
pub(crate) const FRAME_HEAD: usize = 7;
pub(super) const FRAME_END: u8 = 0xCE;

/// The type octet of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// A method.
    Method = 1,
    /// A content header.
    Header = 2,
    /// A piece of a body.
    Body = 3,
    /// A heartbeat. The printed grammar says 4; the protocol's XML and everybody on the wire say 8.
    Heartbeat = 8,
}

impl FrameType {
    fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            1 => Some(Self::Method),
            2 => Some(Self::Header),
            3 => Some(Self::Body),
            8 => Some(Self::Heartbeat),
            _ => None,
        }
    }
}

/// A frame as it stands in a buffer, its payload not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame<'a> {
    /// The type.
    pub kind: FrameType,
    /// The channel.
    pub channel: u16,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> RawFrame<'a> {
    /// The first frame in `buffer`, or `None` when it is not whole yet.
    ///
    /// `max_payload` is the negotiated frame-max less [`FRAME_OVERHEAD`]. The size is compared with it as soon as the head is
    /// there, so nobody waits or makes room for a frame that is not allowed.
    ///
    /// # Errors
    ///
    /// An unknown type, a payload over the limit, a wrong end octet, or a heartbeat that is not empty and on channel 0. After
    /// any of them the stream is of no further use.
    #[inline]
    pub fn split(buffer: &'a [u8], max_payload: usize) -> Result<Option<Self>, DecodeError> {
        let Some((&[kind, c1, c0, s3, s2, s1, s0], rest)) = buffer.split_first_chunk::<FRAME_HEAD>() else {
            return match buffer.first() {
                Some(&octet) if FrameType::from_octet(octet).is_none() => Err(unknown_type(octet)),
                _ => Ok(None),
            };
        };
        let Some(frame_type) = FrameType::from_octet(kind) else { return Err(unknown_type(kind)) };
        let channel = u16::from_be_bytes([c1, c0]);
        let size = usize::try_from(u32::from_be_bytes([s3, s2, s1, s0])).unwrap_or(usize::MAX);
        if size > max_payload {
            let kind = DecodeErrorKind::FrameTooLarge { size, limit: max_payload };
            return Err(DecodeError::new(kind, "frame size", 3));
        }
        if frame_type == FrameType::Heartbeat && (size != 0 || channel != 0) {
            return Err(DecodeError::new(DecodeErrorKind::BadHeartbeat, "heartbeat", 1));
        }
        let (Some(payload), Some(&end)) = (rest.get(..size), rest.get(size)) else { return Ok(None) };
        check_frame_end(end, size)?;
        Ok(Some(Self { kind: frame_type, channel, payload }))
    }

    /// The payload of the first frame in `buffer` if that is whole, of this type, on this channel, and in order: what is expected is
    /// told with fewer questions than [`split`](Self::split) has to ask.
    #[inline]
    pub(crate) fn expected(buffer: &'a [u8], kind: FrameType, channel: u16, max_payload: usize) -> Option<&'a [u8]> {
        let (&[octet, c1, c0, s3, s2, s1, s0], rest) = buffer.split_first_chunk::<FRAME_HEAD>()?;
        let size = usize::try_from(u32::from_be_bytes([s3, s2, s1, s0])).unwrap_or(usize::MAX);
        let (payload, behind) = rest.split_at_checked(size)?;
        let fits = octet == kind as u8 && u16::from_be_bytes([c1, c0]) == channel && size <= max_payload;
        (fits && behind.first() == Some(&FRAME_END)).then_some(payload)
    }

    /// The octets that the frame takes on the wire.
    pub fn wire_len(&self) -> usize {
        self.payload.len() + FRAME_OVERHEAD
    }
}

/// Whether this is the octet that belongs behind a payload of `size` octets.
#[inline]
pub(crate) fn check_frame_end(octet: u8, size: usize) -> Result<(), DecodeError> {
    match octet {
        FRAME_END => Ok(()),
        octet => Err(DecodeError::new(DecodeErrorKind::FrameEnd(octet), "frame end", FRAME_HEAD + size)),
    }
}

/// Channel and size of the body frame at the front of `buffer`, if it is one. Whether they are allowed is for
/// [`RawFrame::split`] to say.
pub(crate) fn body_head(buffer: &[u8]) -> Option<(u16, usize)> {
    match *buffer.first_chunk::<FRAME_HEAD>()? {
        [kind, c1, c0, size @ ..] if kind == FrameType::Body as u8 => {
            Some((u16::from_be_bytes([c1, c0]), usize::try_from(u32::from_be_bytes(size)).ok()?))
        }
        _ => None,
    }
}

#[cold]
fn unknown_type(octet: u8) -> DecodeError {
    DecodeError::new(DecodeErrorKind::UnknownFrameType(octet), "frame type", 0)
}

/// A decoded frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// A method.
    Method(u16, Method),
    /// A content header.
    Header(u16, ContentHeader),
    /// A piece of a body.
    Body(u16, Bytes),
    /// A heartbeat.
    Heartbeat,
}

impl Frame {
    /// The frame of eight octets that is a heartbeat.
    pub const HEARTBEAT: [u8; FRAME_OVERHEAD] = [8, 0, 0, 0, 0, 0, 0, FRAME_END];

    /// Takes the first frame off `buffer`, or `None` when it is not whole yet. The payload is shared, not copied.
    ///
    /// # Errors
    ///
    /// As [`RawFrame::split`], and whatever is wrong with the payload; offsets then count from the payload's start.
    pub fn decode(buffer: &mut Bytes, max_payload: usize) -> Result<Option<Self>, DecodeError> {
        let Some(raw) = RawFrame::split(buffer, max_payload)? else { return Ok(None) };
        let (kind, channel, payload, len) = (raw.kind, raw.channel, buffer.slice_ref(raw.payload), raw.wire_len());
        let frame = match kind {
            FrameType::Method => Self::Method(channel, Method::decode(&payload)?),
            FrameType::Header => Self::Header(channel, ContentHeader::decode(&payload)?),
            FrameType::Body => Self::Body(channel, payload),
            FrameType::Heartbeat => Self::Heartbeat,
        };
        bytes::Buf::advance(buffer, len);
        Ok(Some(frame))
    }

    /// Appends the frame. When it cannot be encoded, `out` is as before.
    ///
    /// # Errors
    ///
    /// A value does not fit its field, or the payload is over `max_payload`.
    pub fn encode(&self, out: &mut Vec<u8>, max_payload: usize) -> Result<(), EncodeError> {
        match self {
            Self::Method(channel, method) => {
                let what = method.info().name;
                write_frame(out, FrameType::Method, *channel, max_payload, what, |out| method.encode(out))
            }
            Self::Header(channel, header) => {
                write_frame(out, FrameType::Header, *channel, max_payload, "content header", |out| {
                    header.encode(out);
                    Ok(())
                })
            }
            Self::Body(channel, payload) => {
                write_frame(out, FrameType::Body, *channel, max_payload, "body frame", |out| {
                    out.extend_from_slice(payload);
                    Ok(())
                })
            }
            Self::Heartbeat => {
                out.extend_from_slice(&Self::HEARTBEAT);
                Ok(())
            }
        }
    }
}

/// The seven octets before a payload of `size` octets.
pub(crate) fn frame_head(kind: FrameType, channel: u16, size: u32) -> [u8; FRAME_HEAD] {
    let ([c1, c0], [s3, s2, s1, s0]) = (channel.to_be_bytes(), size.to_be_bytes());
    [kind as u8, c1, c0, s3, s2, s1, s0]
}

/// Appends a frame whose payload `content` writes. When it fails or the payload is over the limit, `out` is as before.
pub(crate) fn write_frame(
    out: &mut Vec<u8>,
    kind: FrameType,
    channel: u16,
    max_payload: usize,
    what: &'static str,
    content: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&frame_head(kind, channel, 0));
    let written = content(out).and_then(|()| {
        let size = out.len() - start - FRAME_HEAD;
        match u32::try_from(size) {
            Ok(length) if size <= max_payload => Ok(length),
            _ => Err(EncodeError::new(EncodeErrorKind::FrameTooLarge { size, limit: max_payload }, what)),
        }
    });
    match written {
        Ok(length) => {
            if let Some(place) = out.get_mut(start + 3..start + FRAME_HEAD) {
                place.copy_from_slice(&length.to_be_bytes());
            }
            out.push(FRAME_END);
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
