//! A stream of frames: a connection driven frame by frame, without a machine that keeps the rules.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stream;
use crate::codec::{FRAME_OVERHEAD, Frame, Method, ProtocolHeader, UncheckedFrame};

/// Frames over a [`Stream`], for testers, fuzzers and analysers: whoever holds it is the client, or the server, and keeps the
/// rules or breaks them. Nothing is sent that was not asked for, no heartbeats either.
///
/// ```
/// # async fn example() -> std::io::Result<()> {
/// use leveret::codec::{Frame, ProtocolHeader, UncheckedFrame};
/// use leveret::transport::{FrameStream, Stream};
///
/// let socket = tokio::net::TcpStream::connect("localhost:5672").await?;
/// let mut frames = FrameStream::new(Stream::tcp(socket)?);
/// frames.send_header(ProtocolHeader::AMQP_0_9_1).await?;
/// let start = frames.next().await?;
/// assert!(matches!(start, Some(Frame::Method(0, _))));
/// frames.send_unchecked(&UncheckedFrame::new(42, 7, "what do you make of this?")).await?;
/// println!("{:?}", frames.next().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FrameStream {
    stream: Stream,
    input: BytesMut,
    max_payload: usize,
}

impl FrameStream {
    /// Frames over this stream. None may be larger than 128 KiB, unless [`frame_max`](Self::frame_max) says otherwise.
    pub fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::new(), max_payload: 131_072 - FRAME_OVERHEAD }
    }

    /// The largest frame, with head and end, that is sent and read from now on. It does not hold for what is unchecked.
    #[must_use]
    pub fn frame_max(mut self, octets: u32) -> Self {
        self.max_payload = usize::try_from(octets).unwrap_or(usize::MAX).saturating_sub(FRAME_OVERHEAD);
        self
    }

    /// The next frame; `None` when the other side has closed the stream behind a whole one.
    ///
    /// # Errors
    ///
    /// The stream fails, or ends in the middle of a frame (`UnexpectedEof`); or what came is no frame (`InvalidData`, with the
    /// [`DecodeError`](crate::codec::DecodeError) as its source): it is still there for [`next_unchecked`](Self::next_unchecked)
    /// or [`take`](Self::take).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: what has come of a frame is kept.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let mut octets = Bytes::copy_from_slice(self.whole());
            let decoded = Frame::decode(&mut octets, self.max_payload);
            let frame = match decoded {
                // A size that is too large, or a wrong type, shows before the frame is whole.
                Ok(None) => Frame::decode(&mut Bytes::copy_from_slice(&self.input), self.max_payload),
                decoded => decoded,
            };
            match frame {
                Ok(Some(frame)) => {
                    self.input.advance(self.whole().len());
                    return Ok(Some(frame));
                }
                Ok(None) => {
                    if !self.read().await? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    /// The next frame by nothing but the size in its head, whatever it is; `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// The stream fails, or ends in the middle of a frame.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: what has come of a frame is kept.
    pub async fn next_unchecked(&mut self) -> io::Result<Option<UncheckedFrame>> {
        loop {
            let mut octets = Bytes::copy_from_slice(self.whole());
            if let Some(frame) = UncheckedFrame::read_unchecked(&mut octets) {
                self.input.advance(self.whole().len());
                return Ok(Some(frame));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// What has come and was not read as a frame: the answer of a server that speaks something else, for example.
    pub fn take(&mut self) -> Bytes {
        self.input.split().freeze()
    }

    /// The octets of the first frame, if it is whole.
    fn whole(&self) -> &[u8] {
        let size = match self.input.get(3..7) {
            Some(&[s3, s2, s1, s0]) => usize::try_from(u32::from_be_bytes([s3, s2, s1, s0])).unwrap_or(usize::MAX),
            _ => return &[],
        };
        self.input.get(..size.saturating_add(FRAME_OVERHEAD)).unwrap_or_default()
    }

    /// Reads more. Returns whether there may be a frame.
    async fn read(&mut self) -> io::Result<bool> {
        match self.stream.read_buf(&mut self.input).await? {
            0 if self.input.is_empty() => Ok(false),
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(true),
        }
    }

    /// Sends the protocol header, or that of another protocol.
    ///
    /// # Errors
    ///
    /// The stream fails.
    pub async fn send_header(&mut self, header: ProtocolHeader) -> io::Result<()> {
        self.send_octets(&header.to_bytes()).await
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// The stream fails, or the frame cannot be sent (`InvalidInput`, with the [`EncodeError`](crate::codec::EncodeError) as its
    /// source): then nothing was.
    pub async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        let mut octets = Vec::new();
        let encoded = frame.encode(&mut octets, self.max_payload);
        encoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.send_octets(&octets).await
    }

    /// Sends a method on a channel.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_method(&mut self, channel: u16, method: impl Into<Method>) -> io::Result<()> {
        self.send(&Frame::Method(channel, method.into())).await
    }

    /// Sends a frame as it is, legal or not.
    ///
    /// # Errors
    ///
    /// The stream fails.
    pub async fn send_unchecked(&mut self, frame: &UncheckedFrame) -> io::Result<()> {
        let mut octets = Vec::new();
        frame.write_unchecked(&mut octets);
        self.send_octets(&octets).await
    }

    /// Sends any octets.
    ///
    /// # Errors
    ///
    /// The stream fails.
    pub async fn send_octets(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.write_all(octets).await?;
        self.stream.flush().await
    }

    /// The stream, and what has come over it and was not read as a frame.
    pub fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.input.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::DecodeError;
    use crate::codec::method::{basic, channel};

    fn pair() -> (FrameStream, FrameStream) {
        let (a, b) = Stream::pipe();
        (FrameStream::new(a), FrameStream::new(b).frame_max(4096))
    }

    #[tokio::test]
    async fn frames_arrive_as_they_were_sent_in_pieces_of_any_size() {
        let (mut ours, mut theirs) = pair();
        let frames = [
            Frame::Method(1, channel::Open::default().into()),
            Frame::Body(1, vec![7; 1000].into()),
            Frame::Heartbeat,
            Frame::Method(1, basic::Ack { delivery_tag: 1, multiple: false }.into()),
        ];
        let mut octets = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut octets, 4096).unwrap());
        for octet in octets {
            ours.send_octets(&[octet]).await.unwrap();
        }
        for frame in &frames {
            assert_eq!(theirs.next().await.unwrap().as_ref(), Some(frame));
            theirs.send(frame).await.unwrap();
            assert_eq!(ours.next_unchecked().await.unwrap(), Some(UncheckedFrame::from(frame)));
        }
        drop(ours);
        assert!(theirs.next().await.unwrap().is_none());
        assert!(theirs.next_unchecked().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_illegal_goes_through_the_door_for_it_only() {
        let (mut ours, mut theirs) = pair();
        let illegal = UncheckedFrame { kind: 99, channel: 7, size: None, payload: "?".into(), end: 1 };
        ours.send_unchecked(&illegal).await.unwrap();
        let error = theirs.next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.get_ref().is_some_and(|source| source.is::<DecodeError>()));
        assert_eq!(theirs.next_unchecked().await.unwrap(), Some(illegal));

        let large = Frame::Body(1, vec![0; 5000].into());
        assert_eq!(theirs.send(&large).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        ours.send(&large).await.unwrap();
        assert_eq!(theirs.next().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(theirs.next_unchecked().await.unwrap(), Some(UncheckedFrame::from(&large)));

        ours.send_header(ProtocolHeader::AMQP_0_9_1).await.unwrap();
        assert_eq!(theirs.next().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(theirs.take(), "AMQP\0\0\x09\x01");
        ours.send_octets(&[1, 0]).await.unwrap();
        drop(ours);
        assert_eq!(theirs.next().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
