//! Just enough of AMQP 0-9-1's wire format, written by hand, for the raw server and the floor.
//!
//! Nothing of the crate is used here: what measures it must not get faster or slower with it.

use std::io::{self, Read, Write};

/// The largest frame both sides announce, envelope included.
pub(crate) const FRAME_MAX: usize = 131_072;
/// Frame header (type, channel, length) and end octet.
pub(crate) const ENVELOPE: usize = 8;
const END: u8 = 0xCE;
/// As much is read with one system call.
const READ: usize = 256 * 1024;

pub(crate) const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;
pub(crate) const HEARTBEAT: u8 = 8;

/// (class, method), as far as somebody here says or understands it.
pub(crate) type MethodId = (u16, u16);
pub(crate) const CONNECTION_START: MethodId = (10, 10);
pub(crate) const CONNECTION_START_OK: MethodId = (10, 11);
pub(crate) const CONNECTION_TUNE: MethodId = (10, 30);
pub(crate) const CONNECTION_TUNE_OK: MethodId = (10, 31);
pub(crate) const CONNECTION_OPEN: MethodId = (10, 40);
pub(crate) const CONNECTION_OPEN_OK: MethodId = (10, 41);
pub(crate) const CONNECTION_CLOSE: MethodId = (10, 50);
pub(crate) const CONNECTION_CLOSE_OK: MethodId = (10, 51);
pub(crate) const CHANNEL_OPEN: MethodId = (20, 10);
pub(crate) const CHANNEL_OPEN_OK: MethodId = (20, 11);
pub(crate) const CHANNEL_CLOSE: MethodId = (20, 40);
pub(crate) const CHANNEL_CLOSE_OK: MethodId = (20, 41);
pub(crate) const QUEUE_DECLARE: MethodId = (50, 10);
pub(crate) const QUEUE_DECLARE_OK: MethodId = (50, 11);
pub(crate) const BASIC_QOS: MethodId = (60, 10);
pub(crate) const BASIC_QOS_OK: MethodId = (60, 11);
pub(crate) const BASIC_CONSUME: MethodId = (60, 20);
pub(crate) const BASIC_CONSUME_OK: MethodId = (60, 21);
pub(crate) const BASIC_CANCEL: MethodId = (60, 30);
pub(crate) const BASIC_CANCEL_OK: MethodId = (60, 31);
pub(crate) const BASIC_PUBLISH: MethodId = (60, 40);
pub(crate) const BASIC_DELIVER: MethodId = (60, 60);
pub(crate) const BASIC_ACK: MethodId = (60, 80);
pub(crate) const BASIC_REJECT: MethodId = (60, 90);
pub(crate) const BASIC_NACK: MethodId = (60, 120);
pub(crate) const CONFIRM_SELECT: MethodId = (85, 10);
pub(crate) const CONFIRM_SELECT_OK: MethodId = (85, 11);

pub(crate) fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One frame, its payload still where it was read.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) channel: u16,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The method's id, and its arguments.
    pub(crate) fn method(&self) -> io::Result<(MethodId, Arguments<'a>)> {
        let mut arguments = Arguments(self.payload);
        let id = (arguments.u16()?, arguments.u16()?);
        Ok((id, arguments))
    }

    /// The size of the body that follows a content header.
    pub(crate) fn body_size(&self) -> io::Result<u64> {
        let mut arguments = Arguments(self.payload);
        arguments.u32()?; // class and weight
        arguments.u64()
    }
}

/// Reads arguments one after the other.
pub(crate) struct Arguments<'a>(&'a [u8]);

impl<'a> Arguments<'a> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk().ok_or_else(|| broken("arguments end early"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn u8(&mut self) -> io::Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> io::Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn short_string(&mut self) -> io::Result<&'a [u8]> {
        let length = usize::from(self.u8()?);
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(|| broken("a string ends early"))?;
        self.0 = rest;
        Ok(text)
    }
}

/// What frames go over: TCP, or TLS on top of it.
pub(crate) trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

/// What was read and not yet taken, walked frame by frame.
pub(crate) struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self { buffer: vec![0; READ + FRAME_MAX], start: 0, end: 0 }
    }

    /// Reads one block behind what is left, which is always less than a frame. 0 is the end of the stream.
    pub(crate) fn fill(&mut self, stream: &mut dyn Stream) -> io::Result<usize> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let count = stream.read(&mut self.buffer[self.end..][..READ])?;
        self.end += count;
        Ok(count)
    }

    /// The next frame that has arrived completely.
    pub(crate) fn frame(&mut self) -> io::Result<Option<Frame<'_>>> {
        let bytes = &self.buffer[self.start..self.end];
        let Some(&[kind, c1, c0, l3, l2, l1, l0]) = bytes.first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes([l3, l2, l1, l0]) as usize;
        if length > FRAME_MAX - ENVELOPE {
            return Err(broken("a frame is larger than agreed"));
        }
        let Some(&end) = bytes.get(length + ENVELOPE - 1) else { return Ok(None) };
        if end != END {
            return Err(broken("a frame does not end where it says"));
        }
        self.start += length + ENVELOPE;
        Ok(Some(Frame { kind, channel: u16::from_be_bytes([c1, c0]), payload: &bytes[7..][..length] }))
    }
}

pub(crate) fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(END);
}

/// Appends a method frame; `arguments` are already encoded.
pub(crate) fn method(out: &mut Vec<u8>, channel: u16, (class, method): MethodId, arguments: &[&[u8]]) {
    let mut payload = Vec::with_capacity(64);
    payload.extend_from_slice(&class.to_be_bytes());
    payload.extend_from_slice(&method.to_be_bytes());
    for argument in arguments {
        payload.extend_from_slice(argument);
    }
    frame(out, METHOD, channel, &payload);
}

/// Appends a content header without properties, and the body in as many frames as it needs.
pub(crate) fn content(out: &mut Vec<u8>, channel: u16, body: &[u8]) {
    let mut header = vec![0, 60, 0, 0];
    header.extend_from_slice(&(body.len() as u64).to_be_bytes());
    header.extend_from_slice(&[0, 0]);
    frame(out, HEADER, channel, &header);
    for part in body.chunks(FRAME_MAX - ENVELOPE) {
        frame(out, BODY, channel, part);
    }
}

/// A short string's encoding; everything said here is shorter than 256 octets.
pub(crate) fn short(text: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
    out.extend_from_slice(text);
    out
}

/// A long string's or a table's encoding: both are a length and what it counts.
pub(crate) fn long(content: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    out.extend_from_slice(content);
    out
}
