//! A peer that does what a test says: it reads and writes frames, and answers nothing of its own accord.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use leveret::amqp::{Connection, ConnectionBuilder};
use leveret::codec::method::connection;
use leveret::codec::{ContentHeader, FieldTable, Frame, Method, Properties, RawProperties};
use leveret::transport::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::within;

const LARGEST: usize = 1024 * 1024;

/// The next method has to be this one: `expect!(peer, Queue(queue)::Declare)` is its channel and its value.
macro_rules! expect {
    ($peer:expr, $class:ident($module:ident)::$method:ident) => {
        match $peer.method().await {
            (channel, leveret::codec::Method::$class(leveret::codec::method::$module::Method::$method(method))) => {
                (channel, method)
            }
            other => {
                panic!(concat!("{:?} came where ", stringify!($module), ".", stringify!($method), " was due"), other)
            }
        }
    };
}

/// A port, and the script's place to begin.
#[derive(Debug)]
pub(crate) struct Stage {
    listener: TcpListener,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub(crate) fn builder(&self) -> ConnectionBuilder {
        Connection::builder(&format!("amqp://127.0.0.1:{}", self.port())).unwrap()
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = within("somebody who connects", self.listener.accept()).await.unwrap();
        Peer::new(Stream::tcp(stream).unwrap())
    }
}

/// The limits that the peer proposes unless a test has others.
pub(crate) const TUNE: connection::Tune = connection::Tune { channel_max: 100, frame_max: 131_072, heartbeat: 0 };

/// A client's connection and the peer that it talks to.
pub(crate) async fn connected() -> (Connection, Peer) {
    connected_as(TUNE, |builder| builder).await
}

/// As [`connected`], with other limits and another client.
pub(crate) async fn connected_as(
    tune: connection::Tune,
    change: impl FnOnce(ConnectionBuilder) -> ConnectionBuilder,
) -> (Connection, Peer) {
    let stage = Stage::new().await;
    let (connection, peer) = tokio::join!(change(stage.builder()).open(), async {
        let mut peer = stage.accept().await;
        peer.open(tune).await;
        peer
    });
    (connection.unwrap(), peer)
}

/// As [`connected_as`], through memory alone: in a test with tokio's paused clock, no time passes while anybody has something to do.
pub(crate) async fn connected_in_memory(
    tune: connection::Tune,
    change: impl FnOnce(ConnectionBuilder) -> ConnectionBuilder,
) -> (Connection, Peer) {
    let (ours, theirs) = Stream::pipe();
    let mut peer = Peer::new(theirs);
    let (connection, ()) = tokio::join!(change(ConnectionBuilder::default()).open_with(ours), peer.open(tune));
    (connection.unwrap(), peer)
}

/// A channel of a connection, whose opening the peer has answered.
pub(crate) async fn channel_of(connection: &Connection, peer: &mut Peer) -> leveret::amqp::Channel {
    let (channel, ()) = tokio::join!(connection.open_channel(), peer.open_channel());
    channel.unwrap()
}

/// One connection, on the server's side.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: Stream,
    input: BytesMut,
}

impl Peer {
    fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    /// c1: the client speaks first, and this is what it says.
    pub(crate) async fn header(&mut self) {
        let mut header = [0; 8];
        within("the protocol header", self.stream.read_exact(&mut header)).await.unwrap();
        assert_eq!(&header, b"AMQP\0\0\x09\x01");
    }

    /// The handshake, until the server's limits are due.
    pub(crate) async fn open_until_tune(&mut self) {
        self.header().await;
        self.send(0, start()).await;
        expect!(self, Connection(connection)::StartOk);
    }

    /// The handshake, up to open-ok.
    pub(crate) async fn open(&mut self, tune: connection::Tune) {
        self.open_until_tune().await;
        self.send(0, tune).await;
        expect!(self, Connection(connection)::TuneOk);
        expect!(self, Connection(connection)::Open);
        self.send(0, connection::OpenOk::default()).await;
    }

    pub(crate) async fn open_channel(&mut self) {
        let (number, _) = expect!(self, Channel(channel)::Open);
        self.send(number, leveret::codec::method::channel::OpenOk::default()).await;
    }

    /// The client closes the connection, and the peer agrees.
    pub(crate) async fn agree_to_close(&mut self) {
        expect!(self, Connection(connection)::Close);
        self.send(0, connection::CloseOk {}).await;
        self.end().await;
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            let mut octets = Bytes::copy_from_slice(&self.input);
            if let Some(frame) = Frame::decode(&mut octets, LARGEST).unwrap() {
                self.input.advance(self.input.len() - octets.len());
                return Some(frame);
            }
            match within("a frame of the client", self.stream.read_buf(&mut self.input)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next method, whatever heartbeats come before it.
    pub(crate) async fn method(&mut self) -> (u16, Method) {
        loop {
            match self.frame().await {
                Some(Frame::Heartbeat) => {}
                Some(Frame::Method(channel, method)) => return (channel, method),
                other => panic!("{other:?} came where a method was due"),
            }
        }
    }

    /// The next message that is published: its channel and its body.
    pub(crate) async fn published(&mut self) -> (u16, Bytes) {
        let (channel, _) = expect!(self, Basic(basic)::Publish);
        let Some(Frame::Header(on, header)) = self.frame().await else { panic!("a publish without a header") };
        assert_eq!(on, channel);
        let mut body = BytesMut::new();
        while (body.len() as u64) < header.body_size {
            let Some(Frame::Body(on, piece)) = self.frame().await else { panic!("a body that is too short") };
            assert_eq!(on, channel, "c32");
            body.extend_from_slice(&piece);
        }
        (channel, body.freeze())
    }

    pub(crate) async fn send(&mut self, channel: u16, method: impl Into<Method>) {
        self.frames(&[Frame::Method(channel, method.into())]).await;
    }

    /// Sends frames with a single write, so that they arrive together.
    pub(crate) async fn frames(&mut self, frames: &[Frame]) {
        let mut octets = Vec::new();
        for frame in frames {
            frame.encode(&mut octets, LARGEST).unwrap();
        }
        self.raw(&octets).await;
    }

    /// Sends frames as far as the client takes them within `patience` of its last octet, and gives back the rest.
    pub(crate) async fn frames_for(&mut self, frames: &[Frame], patience: Duration) -> Option<Vec<u8>> {
        let mut octets = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut octets, LARGEST).unwrap());
        while !octets.is_empty() {
            match tokio::time::timeout(patience, self.stream.write(&octets)).await {
                Ok(written) => drop(octets.drain(..written.ok()?)),
                Err(_) => break,
            }
        }
        Some(octets)
    }

    pub(crate) async fn raw(&mut self, octets: &[u8]) {
        within("room to write", self.stream.write_all(octets)).await.unwrap();
    }

    /// Closes the socket without a word, and without waiting for what the client says.
    pub(crate) async fn hang_up(&mut self) {
        within("the socket to close", self.stream.shutdown()).await.unwrap();
    }

    /// The client has nothing more to say, and has closed its socket.
    pub(crate) async fn end(&mut self) {
        while let Some(frame) = self.frame().await {
            assert_eq!(frame, Frame::Heartbeat, "nothing comes after the end");
        }
    }
}

/// `connection.start` as RabbitMQ sends it.
pub(crate) fn start() -> connection::Start {
    connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: FieldTable::new().with("product", "a script"),
        mechanisms: Bytes::from_static(b"AMQPLAIN PLAIN"),
        locales: Bytes::from_static(b"en_US"),
    }
}

/// A method that carries content, with its header and its body in one frame.
pub(crate) fn content(channel: u16, method: impl Into<Method>, body: &[u8]) -> Vec<Frame> {
    let mut properties = Vec::new();
    Properties::new().encode(&mut properties).unwrap();
    let header = ContentHeader { body_size: body.len() as u64, properties: RawProperties::new(properties.into()) };
    let mut frames = vec![Frame::Method(channel, method.into()), Frame::Header(channel, header)];
    if !body.is_empty() {
        frames.push(Frame::Body(channel, Bytes::copy_from_slice(body)));
    }
    frames
}
