//! What is to be written: small things flat in one buffer, large bodies as they are.
//!
//! Frames are encoded straight into `flat`. A body that is large enough to make copying it the greater cost is remembered
//! beside it, with the place in `flat` where it belongs:
//!
//! ```text
//! flat     method header head | end method header head | end ...
//! spliced                     ^ body                    ^ body
//! ```

use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::codec::{
    ContentHeader, EncodeError, FRAME_OVERHEAD, Frame, FrameType, Method, Properties, frame_head, write_frame,
};

/// From this size on a shared body is written from where it lies.
const SPLICE_FROM: usize = 8 * 1024;

/// A memory that has grown beyond this is given back once it is empty. What publishers may leave unwritten fits it, unless they
/// are allowed more than by default.
const KEEP_CAPACITY: usize = 1024 * 1024;

/// Octets to be written, in order.
#[derive(Default)]
pub struct OutBuffer {
    flat: Vec<u8>,
    /// Octets of `flat` that have been written.
    written: usize,
    /// Bodies with the place in `flat` before which they stand, in order.
    spliced: std::collections::VecDeque<(usize, Bytes)>,
    spliced_len: usize,
}

/// A message's body: octets to be copied, or such as need not be.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// Copied into the buffer.
    Borrowed(&'a [u8]),
    /// Written from where it lies, when it is large.
    Shared(&'a Bytes),
    /// The same.
    Owned(Bytes),
}

impl Body<'_> {
    /// The octets.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(octets) => octets,
            Self::Shared(octets) => octets,
            Self::Owned(octets) => octets,
        }
    }

    fn as_shared(&self) -> Option<&Bytes> {
        match self {
            Self::Borrowed(_) => None,
            Self::Shared(octets) => Some(octets),
            Self::Owned(octets) => Some(octets),
        }
    }
}

impl std::fmt::Debug for OutBuffer {
    /// Only how much there is: what waits to be written may be a password, or somebody's message.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OutBuffer({} octets)", self.len())
    }
}

impl OutBuffer {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self { flat: Vec::new(), written: 0, spliced: std::collections::VecDeque::new(), spliced_len: 0 }
    }

    /// Octets that are still to be written.
    #[inline]
    pub fn len(&self) -> usize {
        self.flat.len() - self.written + self.spliced_len
    }

    /// Whether everything has been written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends octets as they are.
    #[inline]
    pub fn put(&mut self, octets: &[u8]) {
        self.flat.extend_from_slice(octets);
    }

    /// Appends a method frame. On an error nothing is appended.
    pub(crate) fn put_method(&mut self, channel: u16, method: &Method, max_payload: usize) -> Result<(), EncodeError> {
        let what = method.info().name;
        write_frame(&mut self.flat, FrameType::Method, channel, max_payload, what, |out| method.encode(out))
    }

    /// Appends a heartbeat.
    pub(crate) fn put_heartbeat(&mut self) {
        self.flat.extend_from_slice(&Frame::HEARTBEAT);
    }

    /// Appends method, header and body of a message as one unit (c32). On an error nothing is appended.
    pub(crate) fn put_content(
        &mut self,
        channel: u16,
        max_payload: usize,
        what: &'static str,
        method: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
        properties: impl FnOnce(&mut Vec<u8>, u64) -> Result<(), EncodeError>,
        body: &Body<'_>,
    ) -> Result<(), EncodeError> {
        let start = self.flat.len();
        let size = body.as_slice().len();
        write_frame(&mut self.flat, FrameType::Method, channel, max_payload, what, method)?;
        let header = |out: &mut Vec<u8>| properties(out, size as u64);
        if let Err(error) =
            write_frame(&mut self.flat, FrameType::Header, channel, max_payload, "content header", header)
        {
            self.flat.truncate(start);
            return Err(error);
        }
        self.put_body(channel, max_payload, body);
        Ok(())
    }

    /// Whether a body is copied, and fills no more than one frame. An empty one fills none (c79).
    #[inline]
    pub(crate) fn is_small(body: &[u8], max_payload: usize) -> bool {
        let len = body.len();
        len > 0 && len < SPLICE_FROM && len <= max_payload
    }

    /// Appends a message with a small body, for which everything up to the head of the body's frame is there already.
    #[inline(always)] // as a call: 2 % more instructions for a small publish
    pub(crate) fn put_small(&mut self, head: &[u8], octets: &[u8]) {
        self.flat.reserve(head.len() + octets.len() + 1);
        self.flat.extend_from_slice(head);
        self.flat.extend_from_slice(octets);
        self.flat.push(0xCE);
    }

    /// The same, with a stamp whose number is written to this place of the head.
    #[inline(always)] // as the one without
    pub(crate) fn put_small_stamped(&mut self, head: &[u8], stamp: Option<(usize, (&str, i64))>, octets: &[u8]) {
        let start = self.flat.len();
        self.put_small(head, octets);
        if let Some((at, (_, number))) = stamp
            && let Some(place) = self.flat.get_mut(start + at..).and_then(|rest| rest.first_chunk_mut())
        {
            *place = number.to_be_bytes();
        }
    }

    /// Appends a message whose method frame is there already; otherwise as [`put_content`](Self::put_content).
    #[inline]
    pub(crate) fn put_message(
        &mut self,
        channel: u16,
        max_payload: usize,
        method_frame: &[u8],
        properties: Option<&Properties>,
        stamp: Option<(&str, i64)>,
        body: &Body<'_>,
    ) -> Result<(), EncodeError> {
        let size = body.as_slice().len() as u64;
        let start = self.flat.len();
        self.flat.extend_from_slice(method_frame);
        if let Err(error) = put_header(&mut self.flat, channel, max_payload, (properties, stamp), size) {
            self.flat.truncate(start);
            return Err(error);
        }
        self.put_body(channel, max_payload, body);
        Ok(())
    }

    /// Splits a body into frames. An empty body has none (c79).
    fn put_body(&mut self, channel: u16, max_payload: usize, body: &Body<'_>) {
        let mut at = 0;
        for piece in body.as_slice().chunks(max_payload.max(1)) {
            // A piece is no longer than a frame, whose size the protocol counts in 32 bits.
            let size = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            self.flat.extend_from_slice(&frame_head(FrameType::Body, channel, size));
            match body.as_shared() {
                Some(octets) if piece.len() >= SPLICE_FROM => {
                    self.spliced.push_back((self.flat.len(), octets.slice(at..at + piece.len())));
                    self.spliced_len += piece.len();
                }
                _ => self.flat.extend_from_slice(piece),
            }
            self.flat.push(0xCE);
            at += piece.len();
        }
    }

    /// What is to be written, where no body lies elsewhere.
    #[inline]
    pub fn in_one_piece(&self) -> Option<&[u8]> {
        self.flat.get(self.written..).filter(|_| self.spliced.is_empty())
    }

    /// Fills `slices` with what comes next and returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut at, mut filled) = (self.written, 0);
        let mut put = |octets: &'a [u8]| {
            if octets.is_empty() {
                return true;
            }
            let Some(slot) = slices.get_mut(filled) else { return false };
            *slot = IoSlice::new(octets);
            filled += 1;
            true
        };
        for (place, body) in &self.spliced {
            if !put(self.flat.get(at..*place).unwrap_or_default()) || !put(body) {
                return filled;
            }
            at = *place;
        }
        put(self.flat.get(at..).unwrap_or_default());
        filled
    }

    /// Marks `count` octets as written. When nothing is left the memory is kept for the next use.
    pub fn advance(&mut self, mut count: usize) {
        while let Some((place, body)) = self.spliced.front_mut() {
            let flat = (*place - self.written).min(count);
            self.written += flat;
            count -= flat;
            let spliced = body.len().min(count);
            body.advance(spliced);
            self.spliced_len -= spliced;
            count -= spliced;
            if !body.is_empty() || self.written < *place {
                return;
            }
            self.spliced.pop_front();
        }
        self.written += count.min(self.flat.len() - self.written);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Forgets everything that is not written.
    pub fn clear(&mut self) {
        self.flat.clear();
        if self.flat.capacity() > KEEP_CAPACITY {
            self.flat = Vec::new();
        }
        self.written = 0;
        self.spliced.clear();
        self.spliced_len = 0;
    }

    /// The octets as one piece, for tests and for peers in the same process.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); 2 * self.spliced.len() + 1];
        let filled = self.slices(&mut slices);
        slices.iter().take(filled).flat_map(|slice| slice.iter().copied()).collect()
    }
}

/// Appends a header frame. Returns where in `out` the stamp's number stands, if there is a stamp.
pub(crate) fn put_header(
    out: &mut Vec<u8>,
    channel: u16,
    max_payload: usize,
    (properties, stamp): (Option<&Properties>, Option<(&str, i64)>),
    size: u64,
) -> Result<Option<usize>, EncodeError> {
    let mut stamp_at = None;
    if properties.is_none() && stamp.is_none() {
        out.extend_from_slice(&bare_header(channel, size));
        return Ok(stamp_at);
    }
    write_frame(out, FrameType::Header, channel, max_payload, "content header", |out| match stamp {
        None => ContentHeader::write(out, size, properties),
        Some(stamp) => {
            stamp_at = Some(ContentHeader::write_with_header(out, size, properties, stamp)?);
            Ok(())
        }
    })?;
    Ok(stamp_at)
}

/// Octets of a header frame without properties.
const BARE_HEADER: usize = FRAME_OVERHEAD + ContentHeader::FIXED_LEN + 2;

/// A header frame without properties.
#[inline]
pub(crate) fn bare_header(channel: u16, size: u64) -> [u8; BARE_HEADER] {
    let ([c1, c0], [s7, s6, s5, s4, s3, s2, s1, s0]) = (channel.to_be_bytes(), size.to_be_bytes());
    [2, c1, c0, 0, 0, 0, 14, 0, 60, 0, 0, s7, s6, s5, s4, s3, s2, s1, s0, 0, 0, 0xCE]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes the payload of a content header for `put_content`.
    fn content_header(
        properties: Option<&Properties>,
    ) -> impl FnOnce(&mut Vec<u8>, u64) -> Result<(), EncodeError> + '_ {
        move |out, size| ContentHeader::write(out, size, properties)
    }

    fn large() -> Bytes {
        (0..SPLICE_FROM * 2 + 5).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    fn with_body(body: Body<'_>) -> OutBuffer {
        let mut out = OutBuffer::new();
        for channel in 1..3 {
            out.put_content(channel, SPLICE_FROM, "test", |_| Ok(()), content_header(None), &body).unwrap();
        }
        out
    }

    /// The order of octets does not depend on whether a body was copied, nor on how much a socket takes at a time.
    #[test]
    fn a_shared_body_is_written_in_its_place() {
        let body = large();
        let copied = with_body(Body::Borrowed(&body)).to_vec();
        for step in [1, 7, 8, 13, SPLICE_FROM - 1, SPLICE_FROM, usize::MAX] {
            let mut out = with_body(Body::Shared(&body));
            assert_eq!(out.spliced.len(), 4, "two large pieces and a small one, twice");
            let mut written = Vec::new();
            while !out.is_empty() {
                let mut slices = [IoSlice::new(&[]); 3];
                let filled = out.slices(&mut slices);
                let next: Vec<u8> = slices.iter().take(filled).flat_map(|slice| slice.to_vec()).take(step).collect();
                assert!(!next.is_empty());
                written.extend_from_slice(&next);
                out.advance(next.len());
            }
            assert_eq!(written, copied, "in steps of {step}");
        }
    }

    /// c79
    #[test]
    fn c79_an_empty_body_has_no_frame() {
        let out = with_body(Body::Borrowed(b""));
        let header = 7 + 14 + 1;
        assert_eq!(out.len(), 2 * (FRAME_OVERHEAD + header));
    }

    /// Two ways to the same octets.
    #[test]
    fn a_message_is_the_same_with_and_without_the_short_cut() {
        let properties = Properties::new().message_id("1");
        let mut method = Vec::new();
        write_frame(&mut method, FrameType::Method, 3, 4096, "test", |_| Ok(())).unwrap();
        for properties in [None, Some(&properties)] {
            for body in [&b""[..], b"x", &[7; 9000]] {
                let (mut long, mut short) = (OutBuffer::new(), OutBuffer::new());
                let body = Body::Borrowed(body);
                long.put_content(3, 4096, "test", |_| Ok(()), content_header(properties), &body).unwrap();
                short.put_message(3, 4096, &method, properties, None, &body).unwrap();
                assert_eq!(short.to_vec(), long.to_vec());
            }
        }
    }

    /// What publishers write before they have to wait is written to the same memory again and again.
    #[test]
    fn a_buffer_that_publishers_have_filled_is_kept() {
        let (mut out, small) = (OutBuffer::new(), [7; SPLICE_FROM - 1]);
        while out.len() < crate::protocol::client::Config::default().max_unwritten {
            out.put_small(&[], &small);
        }
        out.advance(out.len());
        assert!(out.is_empty() && out.flat.capacity() > 0);
    }

    #[test]
    fn nothing_is_left_of_a_message_that_cannot_be_written() {
        let mut out = OutBuffer::new();
        out.put(b"before");
        let properties = Properties::new().reply_to("x".repeat(300));
        let header = content_header(Some(&properties));
        out.put_content(1, 4096, "test", |_| Ok(()), header, &Body::Borrowed(b"body")).unwrap_err();
        assert_eq!(out.to_vec(), b"before");
    }
}
