//! The door for testers: frames that break the rules, built, written and read **without any check**.
//!
//! [`Frame`](super::Frame) writes nothing that a peer could object to, and refuses to read what it would object to itself. Whoever tests
//! a peer needs the opposite: a frame of the type 7, a size that lies, another end octet, a method cut in the middle.
//!
//! ```
//! use leveret::codec::{Frame, UncheckedFrame};
//!
//! let mut frame = UncheckedFrame::from(&Frame::Heartbeat);
//! frame.end = 0xCD;
//! let mut octets = Vec::new();
//! frame.write_unchecked(&mut octets);
//! assert_eq!(octets, [8, 0, 0, 0, 0, 0, 0, 0xCD]);
//! ```

use bytes::{Buf, Bytes};

use super::frame::{FRAME_END, FRAME_HEAD};
use super::{ContentHeader, FRAME_OVERHEAD, Frame, FrameType, Method};

/// A frame as anybody could send it, legal or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncheckedFrame {
    /// The type octet.
    pub kind: u8,
    /// The channel.
    pub channel: u16,
    /// What the head says of the payload's size; `None` for the truth.
    pub size: Option<u32>,
    /// The payload.
    pub payload: Bytes,
    /// The octet behind the payload: `0xCE` in a legal frame.
    pub end: u8,
}

impl UncheckedFrame {
    /// A frame of this type, with an honest size and the right end.
    pub fn new(kind: u8, channel: u16, payload: impl Into<Bytes>) -> Self {
        Self { kind, channel, size: None, payload: payload.into(), end: FRAME_END }
    }

    /// A method frame, on any channel. A string that is too long for its length octet, which no frame can carry, is left out
    /// with everything behind it.
    pub fn method(channel: u16, method: impl Into<Method>) -> Self {
        let mut payload = Vec::new();
        // What cannot be encoded ends the payload early, as documented.
        let _ = method.into().encode(&mut payload);
        Self::new(FrameType::Method as u8, channel, payload)
    }

    /// A header frame.
    pub fn header(channel: u16, header: &ContentHeader) -> Self {
        let mut payload = Vec::new();
        header.encode(&mut payload);
        Self::new(FrameType::Header as u8, channel, payload)
    }

    /// A body frame.
    pub fn body(channel: u16, payload: impl Into<Bytes>) -> Self {
        Self::new(FrameType::Body as u8, channel, payload)
    }

    /// The size that stands in the head.
    pub fn announced(&self) -> u32 {
        self.size.unwrap_or_else(|| u32::try_from(self.payload.len()).unwrap_or(u32::MAX))
    }

    /// Appends the frame as it is: nothing is looked at, nothing is refused.
    pub fn write_unchecked(&self, out: &mut Vec<u8>) {
        out.push(self.kind);
        out.extend_from_slice(&self.channel.to_be_bytes());
        out.extend_from_slice(&self.announced().to_be_bytes());
        out.extend_from_slice(&self.payload);
        out.push(self.end);
    }

    /// Takes the first frame off `buffer`, by nothing but the size in its head; `None` when it is not whole yet. A size that lies
    /// is believed: it is the only thing that says where the next frame begins.
    pub fn read_unchecked(buffer: &mut Bytes) -> Option<Self> {
        let (&[kind, c1, c0, s3, s2, s1, s0], rest) = buffer.split_first_chunk::<FRAME_HEAD>()?;
        let size = usize::try_from(u32::from_be_bytes([s3, s2, s1, s0])).unwrap_or(usize::MAX);
        let (payload, &end) = (rest.get(..size)?, rest.get(size)?);
        let payload = buffer.slice_ref(payload);
        buffer.advance(FRAME_OVERHEAD + size);
        Some(Self { kind, channel: u16::from_be_bytes([c1, c0]), size: None, payload, end })
    }
}

impl From<&Frame> for UncheckedFrame {
    /// A legal frame, to be spoiled.
    fn from(frame: &Frame) -> Self {
        match frame {
            Frame::Method(channel, method) => Self::method(*channel, method.clone()),
            Frame::Header(channel, header) => Self::header(*channel, header),
            Frame::Body(channel, payload) => Self::body(*channel, payload.clone()),
            Frame::Heartbeat => Self::new(FrameType::Heartbeat as u8, 0, Bytes::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::method::{basic, queue};

    fn written(frame: &UncheckedFrame) -> Vec<u8> {
        let mut out = Vec::new();
        frame.write_unchecked(&mut out);
        out
    }

    #[test]
    fn a_legal_frame_is_the_same_through_either_door() {
        let frames = [
            Frame::Method(7, basic::Ack { delivery_tag: 3, multiple: true }.into()),
            Frame::Header(7, ContentHeader { body_size: 9, ..Default::default() }),
            Frame::Body(7, "body".into()),
            Frame::Heartbeat,
        ];
        for frame in frames {
            let mut checked = Vec::new();
            frame.encode(&mut checked, 4096).unwrap();
            let unchecked = UncheckedFrame::from(&frame);
            assert_eq!(written(&unchecked), checked);
            let mut octets = Bytes::from(checked);
            assert_eq!(UncheckedFrame::read_unchecked(&mut octets), Some(unchecked));
            assert!(octets.is_empty());
        }
    }

    #[test]
    fn what_nobody_would_send_is_written_and_read() {
        let illegal = UncheckedFrame { kind: 200, channel: 65535, size: None, payload: "?".into(), end: 0 };
        let mut octets = Bytes::from(written(&illegal));
        assert!(Frame::decode(&mut octets.clone(), 4096).is_err());
        assert_eq!(UncheckedFrame::read_unchecked(&mut octets), Some(illegal));
    }

    #[test]
    fn a_size_may_lie() {
        let lies = UncheckedFrame { size: Some(u32::MAX), ..UncheckedFrame::body(1, "short") };
        assert_eq!(lies.announced(), u32::MAX);
        let octets = written(&lies);
        assert_eq!(octets, b"\x03\x00\x01\xff\xff\xff\xffshort\xce");
        assert_eq!(UncheckedFrame::read_unchecked(&mut octets.into()), None);
        for cut in 0..8 {
            let whole = written(&UncheckedFrame::new(1, 0, ""));
            assert_eq!(UncheckedFrame::read_unchecked(&mut Bytes::copy_from_slice(whole.get(..cut).unwrap())), None);
        }
    }

    #[test]
    fn a_method_that_cannot_be_encoded_is_cut() {
        let declare = queue::Declare { queue: "x".repeat(256).into(), ..Default::default() };
        assert_eq!(UncheckedFrame::method(1, declare).payload, &[0, 50, 0, 10, 0, 0][..]);
    }
}
