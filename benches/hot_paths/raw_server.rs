//! A server that costs next to nothing, so that what is measured is the client.
//!
//! It runs as a process of its own (the benchmark starts itself again with an argument), so that its time is not the
//! client's. One thread per connection, blocking; it stores nothing. Publishes are walked frame by frame and answered
//! with one `basic.ack` (multiple) per channel and block read, or, on the virtual host "each", with one for each message, which is
//! the most that a broker can make of it, or on "none" not at all. A consumer is flooded with deliveries built beforehand:
//! the queue's name is the size of their bodies ("100"), at most the prefetch count are out, and they go out in large
//! writes: once half of the window is free it is filled again, as one confirmation more does not wake a real broker either.
//! A channel has one consumer at a time, who acknowledges in order (or everything one by one). On "million" a consumer gets that
//! many and no more; on "mixed" there is a heartbeat behind each frame of a delivery. Whoever begins with a TLS handshake gets TLS, on the same port.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::{env, fs, process, thread};

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::cores::Cores;
use crate::tls;
use crate::wire::{self, Arguments, Frame, Input, MethodId, Stream, broken, long, short};

/// The argument with which the benchmark becomes this server.
pub(crate) const ARGUMENT: &str = "--raw-server";

/// With this begins a TLS handshake, and no AMQP.
const HANDSHAKE: u8 = 22;

const MILLION: u64 = 1_000_000;

/// The server's process, seen from the benchmark; it ends when this is dropped.
pub(crate) struct RawServer {
    child: Child,
    pub(crate) port: u16,
}

impl RawServer {
    pub(crate) fn start(cores: Cores) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(ARGUMENT).args(cores.of_the_server().map(|core| core.to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(port) => Ok(Self { child, port }),
            Err(_) => {
                child.kill()?;
                child.wait()?;
                Err(broken("the raw server did not say its port"))
            }
        }
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        // It ends with its stdin; it may also have ended by itself, and then there is nobody to tell.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The server's own main: says its port on stdout and serves until stdin ends.
pub(crate) fn serve_until_stdin_ends() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    let tls = tls::server_config(port)?;
    println!("{port}");
    thread::spawn(move || {
        // When the benchmark goes away, however it does, so does its end of the pipe.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        let _ = fs::remove_file(tls::certificate_file(port));
        process::exit(0);
    });
    serve_all(&listener, Some(&tls))
}

/// Serves whoever connects, each in a thread of its own.
pub(crate) fn serve_all(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) -> io::Result<()> {
    for socket in listener.incoming() {
        let (socket, tls) = (socket?, tls.cloned());
        thread::spawn(move || match accept(&socket, tls).and_then(|mut stream| serve(&socket, &mut *stream)) {
            Ok(()) => {}
            // Clients under measurement leave in the middle of a flood, and some without a word in TLS.
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
                ) => {}
            Err(e) => eprintln!("raw server: {e}"),
        });
    }
    Ok(())
}

fn accept(socket: &TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Box<dyn Stream + '_>> {
    socket.set_nodelay(true)?;
    let mut first = [0];
    socket.peek(&mut first)?;
    Ok(match tls {
        Some(config) if first == [HANDSHAKE] => {
            let connection = ServerConnection::new(config).map_err(io::Error::other)?;
            Box::new(StreamOwned::new(connection, socket))
        }
        _ => Box::new(socket),
    })
}

fn serve(socket: &TcpStream, stream: &mut dyn Stream) -> io::Result<()> {
    let mut header = [0; 8];
    stream.read_exact(&mut header)?;
    if header != *wire::PROTOCOL_HEADER {
        return stream.write_all(wire::PROTOCOL_HEADER);
    }
    let mut session = Session::default();
    session.start();
    let mut input = Input::new();
    while !session.closed {
        session.flush(stream)?;
        let more_to_send = session.flood(stream)?;
        if more_to_send {
            // Without a limit there is no answer to wait for: look what came, and go on sending.
            socket.set_nonblocking(true)?;
            let read = input.fill(stream);
            socket.set_nonblocking(false)?;
            match read {
                Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                Ok(0) => return Ok(()),
                read => read?,
            };
        } else if input.fill(stream)? == 0 {
            return Ok(());
        }
        while let Some(frame) = input.frame()? {
            session.take(&frame)?;
        }
        session.confirm_all();
    }
    session.flush(stream)
}

/// One connection.
#[derive(Default)]
struct Session {
    /// By number; channel 0 is the connection's and stays empty.
    channels: Vec<Option<Channel>>,
    /// The channels on which something was published in this block.
    published: Vec<u16>,
    /// The channels that have a consumer.
    consuming: Vec<u16>,
    out: Vec<u8>,
    /// Every message is confirmed by itself.
    confirms_each: bool,
    /// No message is ever confirmed.
    confirms_none: bool,
    /// A consumer gets a million messages and no more.
    has_a_million: bool,
    /// Behind each frame of a delivery comes one that has nothing to do with it.
    mixes: bool,
    closed: bool,
}

fn channel(channels: &mut [Option<Channel>], number: u16) -> io::Result<&mut Channel> {
    let channel = channels.get_mut(usize::from(number)).and_then(Option::as_mut);
    channel.ok_or_else(|| broken("a channel is used that is not open"))
}

#[derive(Default)]
struct Channel {
    confirms: bool,
    /// What of the content that is being published is still to come.
    incoming: Incoming,
    /// Complete messages so far, which is the highest tag; and how far they are confirmed.
    complete: u64,
    confirmed: u64,
    prefetch: u16,
    consumer: Option<Consumer>,
    /// The last delivery tag used.
    delivery_tag: u64,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Incoming {
    #[default]
    Method,
    Header,
    Body(u64),
}

impl Session {
    fn start(&mut self) {
        let mut capabilities = Vec::new();
        for name in ["publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked"] {
            capabilities.extend_from_slice(&short(name.as_bytes()));
            capabilities.extend_from_slice(b"t\x01");
        }
        let mut properties = short(b"capabilities");
        properties.push(b'F');
        properties.extend_from_slice(&long(&capabilities));
        let arguments: [&[u8]; 4] = [&[0, 9], &long(&properties), &long(b"PLAIN"), &long(b"en_US")];
        wire::method(&mut self.out, 0, wire::CONNECTION_START, &arguments);
    }

    fn flush(&mut self, stream: &mut dyn Stream) -> io::Result<()> {
        stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn channel(&mut self, number: u16) -> io::Result<&mut Channel> {
        channel(&mut self.channels, number)
    }

    fn take(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        match frame.kind {
            wire::METHOD => {
                let (id, arguments) = frame.method()?;
                if id == wire::BASIC_PUBLISH {
                    self.channel(frame.channel)?.incoming = Incoming::Header;
                    Ok(())
                } else {
                    self.method(frame.channel, id, arguments)
                }
            }
            wire::HEADER => self.content(frame.channel, Incoming::Header, frame.body_size()?),
            wire::BODY => {
                let Incoming::Body(rest) = self.channel(frame.channel)?.incoming else {
                    return Err(broken("a body comes that nobody announced"));
                };
                let length = frame.payload.len() as u64;
                let rest = rest.checked_sub(length).ok_or_else(|| broken("a body is longer than announced"))?;
                self.content(frame.channel, Incoming::Body(rest + length), rest)
            }
            wire::HEARTBEAT => Ok(()),
            _ => Err(broken("a frame of unknown type")),
        }
    }

    /// A part of a content came, and `rest` octets of it are still to come.
    fn content(&mut self, number: u16, expected: Incoming, rest: u64) -> io::Result<()> {
        let channel = channel(&mut self.channels, number)?;
        if channel.incoming != expected {
            return Err(broken("a content header comes that nobody announced"));
        }
        if rest > 0 {
            channel.incoming = Incoming::Body(rest);
            return Ok(());
        }
        channel.incoming = Incoming::Method;
        let first = channel.complete == channel.confirmed;
        channel.complete += 1;
        if self.confirms_each {
            return self.confirm(number);
        }
        if first && !self.confirms_none {
            self.published.push(number);
        }
        Ok(())
    }

    /// Confirms what was published on one channel, or forgets about it where nobody wants to know.
    fn confirm(&mut self, number: u16) -> io::Result<()> {
        let channel = self.channel(number)?;
        let (confirms, complete) = (channel.confirms, channel.complete);
        if channel.confirmed == complete {
            return Ok(());
        }
        channel.confirmed = complete;
        if confirms {
            let multiple = u8::from(!self.confirms_each);
            wire::method(&mut self.out, number, wire::BASIC_ACK, &[&complete.to_be_bytes(), &[multiple]]);
        }
        Ok(())
    }

    fn confirm_all(&mut self) {
        for number in std::mem::take(&mut self.published) {
            // A channel that was closed meanwhile was answered then.
            let _ = self.confirm(number);
        }
    }

    fn method(&mut self, number: u16, id: MethodId, mut arguments: Arguments<'_>) -> io::Result<()> {
        match id {
            wire::BASIC_ACK | wire::BASIC_NACK | wire::BASIC_REJECT => {
                let (tag, bits) = (arguments.u64()?, arguments.u8()?);
                let multiple = id != wire::BASIC_REJECT && bits & 1 != 0;
                if let Some(consumer) = &mut self.channel(number)?.consumer {
                    consumer.settle(tag, multiple);
                }
            }
            wire::CONNECTION_START_OK => {
                let arguments: [&[u8]; 3] =
                    [&2047_u16.to_be_bytes(), &(wire::FRAME_MAX as u32).to_be_bytes(), &0_u16.to_be_bytes()];
                wire::method(&mut self.out, 0, wire::CONNECTION_TUNE, &arguments);
            }
            wire::CONNECTION_TUNE_OK | wire::CHANNEL_CLOSE_OK => {}
            wire::CONNECTION_OPEN => {
                let virtual_host = arguments.short_string()?;
                (self.confirms_each, self.confirms_none) = (virtual_host == b"each", virtual_host == b"none");
                self.has_a_million = virtual_host == b"million";
                self.mixes = virtual_host == b"mixed";
                wire::method(&mut self.out, 0, wire::CONNECTION_OPEN_OK, &[&[0]]);
            }
            wire::CONNECTION_CLOSE => {
                self.confirm_all();
                wire::method(&mut self.out, 0, wire::CONNECTION_CLOSE_OK, &[]);
                self.closed = true;
            }
            wire::CHANNEL_OPEN => {
                let place = usize::from(number);
                if self.channels.len() <= place {
                    self.channels.resize_with(place + 1, || None);
                }
                self.channels[place] = Some(Channel::default());
                wire::method(&mut self.out, number, wire::CHANNEL_OPEN_OK, &[&long(b"")]);
            }
            wire::CHANNEL_CLOSE => {
                self.confirm(number)?;
                self.channels[usize::from(number)] = None;
                self.consuming.retain(|&other| other != number);
                wire::method(&mut self.out, number, wire::CHANNEL_CLOSE_OK, &[]);
            }
            wire::QUEUE_DECLARE => {
                arguments.u16()?;
                let name = arguments.short_string()?;
                if arguments.u8()? & 16 == 0 {
                    let arguments: [&[u8]; 2] = [&short(name), &[0; 8]];
                    wire::method(&mut self.out, number, wire::QUEUE_DECLARE_OK, &arguments);
                }
            }
            wire::BASIC_QOS => {
                arguments.u32()?;
                self.channel(number)?.prefetch = arguments.u16()?;
                wire::method(&mut self.out, number, wire::BASIC_QOS_OK, &[]);
            }
            wire::CONFIRM_SELECT => {
                let channel = self.channel(number)?;
                channel.confirms = true;
                (channel.complete, channel.confirmed) = (0, 0);
                if arguments.u8()? & 1 == 0 {
                    wire::method(&mut self.out, number, wire::CONFIRM_SELECT_OK, &[]);
                }
            }
            wire::BASIC_CONSUME => self.consume(number, arguments)?,
            wire::BASIC_CANCEL => {
                let tag = arguments.short_string()?;
                self.channel(number)?.consumer = None;
                self.consuming.retain(|&other| other != number);
                if arguments.u8()? & 1 == 0 {
                    wire::method(&mut self.out, number, wire::BASIC_CANCEL_OK, &[&short(tag)]);
                }
            }
            (class, method) => return Err(broken(&format!("method {class}.{method} is not understood here"))),
        }
        Ok(())
    }

    fn consume(&mut self, number: u16, mut arguments: Arguments<'_>) -> io::Result<()> {
        arguments.u16()?;
        let queue = arguments.short_string()?;
        let size = str::from_utf8(queue).ok().and_then(|name| name.parse::<usize>().ok());
        let size = size.ok_or_else(|| broken("a queue's name here is the size of its messages"))?;
        let tag = match arguments.short_string()? {
            b"" => b"chosen-by-the-raw-server",
            tag => tag,
        };
        let bits = arguments.u8()?;
        let messages = if self.has_a_million { MILLION } else { u64::MAX };
        let mixed = self.mixes;
        let channel = self.channel(number)?;
        if channel.consumer.is_some() {
            return Err(broken("a channel has one consumer here"));
        }
        let window = if bits & 2 != 0 || channel.prefetch == 0 { None } else { Some(u64::from(channel.prefetch)) };
        let consumer = Consumer::new(number, tag, queue, (size, mixed), window, channel.delivery_tag);
        channel.consumer = Some(Consumer { messages, ..consumer });
        self.consuming.push(number);
        if bits & 8 == 0 {
            wire::method(&mut self.out, number, wire::BASIC_CONSUME_OK, &[&short(tag)]);
        }
        Ok(())
    }

    /// Sends to every consumer who has room. True: there is one without a limit.
    fn flood(&mut self, stream: &mut dyn Stream) -> io::Result<bool> {
        let mut more_to_send = false;
        for &number in &self.consuming {
            let channel = self.channels.get_mut(usize::from(number)).and_then(Option::as_mut);
            let Some(Channel { consumer: Some(consumer), delivery_tag, .. }) = channel else { continue };
            more_to_send |= consumer.flood(stream, delivery_tag)?;
        }
        Ok(more_to_send)
    }
}

struct Consumer {
    /// As many deliveries as go out with one write, their tags to be filled in.
    block: Vec<u8>,
    /// The size of one, and where in it its tag is.
    size: usize,
    tag_at: usize,
    /// How many may be unsettled; none: no limit.
    window: Option<u64>,
    /// The channel's delivery tag before the first one.
    before: u64,
    /// How many there are for it.
    messages: u64,
    sent: u64,
    settled: u64,
}

impl Consumer {
    fn new(
        channel: u16,
        tag: &[u8],
        queue: &[u8],
        (size, mixed): (usize, bool),
        window: Option<u64>,
        before: u64,
    ) -> Self {
        let mut one = Vec::new();
        let arguments: [&[u8]; 4] = [&short(tag), &[0; 8], &[0, 0], &short(queue)];
        wire::method(&mut one, channel, wire::BASIC_DELIVER, &arguments);
        let tag_at = 7 + 4 + 1 + tag.len();
        wire::content(&mut one, channel, &vec![b'x'; size]);
        if mixed {
            one = with_heartbeats(&one);
        }
        let per_write = (256 * 1024 / one.len()).max(1);
        let (block, messages) = (one.repeat(per_write), u64::MAX);
        Self { size: one.len(), block, tag_at, window, before, messages, sent: 0, settled: 0 }
    }

    fn settle(&mut self, tag: u64, multiple: bool) {
        let Some(place) = tag.checked_sub(self.before) else { return };
        self.settled = if multiple { self.settled.max(place) } else { self.settled + 1 }.min(self.sent);
    }

    fn flood(&mut self, stream: &mut dyn Stream, delivery_tag: &mut u64) -> io::Result<bool> {
        let per_write = (self.block.len() / self.size) as u64;
        let room = match self.window {
            None => per_write,
            Some(window) => {
                let free = window - (self.sent - self.settled);
                if free * 2 < window { 0 } else { free }
            }
        };
        let mut room = room.min(self.messages - self.sent);
        while room > 0 {
            let count = room.min(per_write);
            let part = &mut self.block[..count as usize * self.size];
            for delivery in part.chunks_exact_mut(self.size) {
                *delivery_tag += 1;
                delivery[self.tag_at..][..8].copy_from_slice(&delivery_tag.to_be_bytes());
            }
            stream.write_all(part)?;
            self.sent += count;
            room -= count;
        }
        Ok(self.window.is_none() && self.sent < self.messages)
    }
}

/// A heartbeat behind each of these frames.
fn with_heartbeats(mut frames: &[u8]) -> Vec<u8> {
    let mut mixed = Vec::new();
    while let Some(&[_, _, _, s3, s2, s1, s0]) = frames.first_chunk() {
        let (frame, rest) = frames.split_at(u32::from_be_bytes([s3, s2, s1, s0]) as usize + wire::ENVELOPE);
        mixed.extend_from_slice(frame);
        wire::frame(&mut mixed, wire::HEARTBEAT, 0, &[]);
        frames = rest;
    }
    mixed
}
