//! A peer that knows frames and nothing else.

use bytes::{Buf, Bytes, BytesMut};
use leveret::codec::method::{basic, channel, confirm, connection};
use leveret::codec::{ContentHeader, FieldTable, Frame, Method, ProtocolHeader, RawProperties};
use leveret::transport::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) const TUNE: connection::Tune = connection::Tune { channel_max: 10, frame_max: 131_072, heartbeat: 60 };

pub(crate) struct Peer {
    stream: Stream,
    input: BytesMut,
    /// The other side has answered with a protocol header.
    foreign: bool,
}

impl Peer {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::new(), foreign: false }
    }

    /// Says octets. The other side may be gone already, which is its right.
    pub(crate) async fn raw(&mut self, octets: &[u8]) -> bool {
        self.stream.write_all(octets).await.is_ok()
    }

    pub(crate) async fn send(&mut self, number: u16, method: impl Into<Method>) -> bool {
        self.raw(&octets(&[Frame::Method(number, method.into())])).await
    }

    /// The client's protocol header.
    pub(crate) async fn header(&mut self) {
        while self.input.len() < ProtocolHeader::LEN {
            assert!(self.read().await, "the client has gone");
        }
        assert_eq!(&self.input[..ProtocolHeader::LEN], ProtocolHeader::AMQP_0_9_1.to_bytes());
        self.input.advance(ProtocolHeader::LEN);
    }

    async fn read(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.input).await, Ok(1..))
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            if self.input.starts_with(b"AMQP") && self.input.len() >= ProtocolHeader::LEN {
                // A server that was spoken to in another protocol.
                self.input.advance(ProtocolHeader::LEN);
                self.foreign = true;
            }
            if self.input.starts_with(b"A") {
                if !self.read().await {
                    return None;
                }
                continue;
            }
            let mut octets = Bytes::copy_from_slice(&self.input);
            if let Some(frame) = Frame::decode(&mut octets, usize::MAX).unwrap() {
                self.input.advance(self.input.len() - octets.len());
                return Some(frame);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// Reads on until this method comes. What else is asked for on the way is granted.
    pub(crate) async fn until(&mut self, name: &str) -> (u16, Method) {
        loop {
            match self.frame().await {
                Some(Frame::Method(number, method)) if method.info().name == name => return (number, method),
                Some(Frame::Method(number, method)) => self.grant(number, method).await,
                Some(_) => {}
                None => panic!("the client has gone, {name} was due"),
            }
        }
    }

    /// Grants whatever is asked for, until the other side hangs up.
    pub(crate) async fn serve(&mut self) {
        while let Some(frame) = self.frame().await {
            if let Frame::Method(number, method) = frame {
                self.grant(number, method).await;
            }
        }
    }

    /// Grants what is asked for.
    pub(crate) async fn grant(&mut self, number: u16, method: Method) {
        match method {
            Method::Channel(channel::Method::Open(_)) => self.send(number, channel::OpenOk::default()).await,
            Method::Confirm(confirm::Method::Select(_)) => self.send(number, confirm::SelectOk {}).await,
            Method::Basic(basic::Method::Qos(_)) => self.send(number, basic::QosOk {}).await,
            Method::Basic(basic::Method::Consume(consume)) => {
                self.send(number, basic::ConsumeOk { consumer_tag: consume.consumer_tag }).await
            }
            Method::Channel(channel::Method::Close(_)) => self.send(number, channel::CloseOk {}).await,
            Method::Connection(connection::Method::Close(_)) => self.send(0, connection::CloseOk {}).await,
            _ => true,
        };
    }

    /// The server's side of the handshake, up to a point.
    pub(crate) async fn shake_hands_until(&mut self, due: &str) {
        self.header().await;
        if due == "connection.start" {
            return;
        }
        self.send(0, start()).await;
        self.until("connection.start-ok").await;
        if due == "connection.tune" {
            return;
        }
        self.send(0, TUNE).await;
        self.until("connection.open").await;
        if due == "connection.open-ok" {
            return;
        }
        self.send(0, connection::OpenOk::default()).await;
    }

    /// Listens until the other side hangs up: the names of what it says, and the codes of closes.
    pub(crate) async fn listen(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(frame) = self.frame().await {
            said.push(match frame {
                Frame::Method(0, Method::Connection(connection::Method::Close(close))) => {
                    format!("connection.close {}", close.reply_code)
                }
                Frame::Method(number, Method::Channel(channel::Method::Close(close))) => {
                    format!("{number} channel.close {}", close.reply_code)
                }
                Frame::Method(0, method) => method.info().name.to_owned(),
                Frame::Method(number, method) => format!("{number} {}", method.info().name),
                Frame::Header(number, _) => format!("{number} header"),
                Frame::Body(number, _) => format!("{number} body"),
                Frame::Heartbeat => continue,
            });
        }
        if self.foreign {
            said.push("AMQP 0-9-1".to_owned());
        }
        said
    }
}

pub(crate) fn start() -> connection::Start {
    connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: FieldTable::new().with("product", "a villain"),
        mechanisms: Bytes::from_static(b"PLAIN AMQPLAIN"),
        locales: Bytes::from_static(b"en_US"),
    }
}

pub(crate) fn octets(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut out, usize::MAX).unwrap());
    out
}

pub(crate) fn method(number: u16, method: impl Into<Method>) -> Vec<u8> {
    octets(&[Frame::Method(number, method.into())])
}

pub(crate) fn header(number: u16, body_size: u64) -> Vec<u8> {
    octets(&[Frame::Header(number, ContentHeader { body_size, properties: RawProperties::default() })])
}

pub(crate) fn body(number: u16, body: &[u8]) -> Vec<u8> {
    octets(&[Frame::Body(number, Bytes::copy_from_slice(body))])
}
