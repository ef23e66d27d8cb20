//! The floor: the least a client can do for the same work, against which the others are measured.
//!
//! A blocking loop over frames built beforehand. It keeps no account of single messages: publishing it remembers the
//! highest tag that was confirmed, consuming it counts frames and sends one acknowledgement per message, all those of a
//! block read with one write.
//!
//! Publishing, it copies each prebuilt message into a buffer before that is written, as a client must that is handed one
//! message at a time. A second variant spares itself even that and writes blocks of messages that were built before.
//!
//! Several connections are served in turns: all write, then all read. Over TLS it is the same loop on rustls's blocking stream.

use std::hint::black_box;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};

use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use crate::tls;
use crate::usage::{Meter, Usage};
use crate::wire::{self, Frame, Input, MethodId, Stream, broken, long, short};
use crate::work::{Direction, Outcome, Work};

/// Publishes or consumes, and does one of the two where both are done.
const CHANNEL: u16 = 1;
/// Does the other.
const SECOND_CHANNEL: u16 = 2;

pub(crate) fn run(port: u16, work: &Work) -> Outcome {
    work_through(port, work, true)
}

pub(crate) fn run_prebuilt(port: u16, work: &Work) -> Outcome {
    work_through(port, work, false)
}

fn work_through(port: u16, work: &Work, copying: bool) -> Outcome {
    let usage = match work.direction {
        Direction::Publish => publish(port, work, copying)?,
        Direction::Consume { acks } => consume(port, work, acks)?,
        Direction::Both => publish_and_consume(port, work)?,
    };
    Ok(usage)
}

fn publish(port: u16, work: &Work, copying: bool) -> io::Result<Usage> {
    let mut parts = Vec::new();
    for _ in 0..work.connections {
        let mut connection = Connection::open(port, work)?;
        let publishing = Publishing::start(&mut connection, work, copying)?;
        parts.push((connection, publishing));
    }
    let mut meter = Meter::start(work);
    while parts.iter().any(|(_, publishing)| publishing.is_under_way()) {
        meter.tick();
        for (connection, publishing) in &mut parts {
            publishing.send(connection)?;
        }
        for (connection, publishing) in &mut parts {
            if publishing.is_under_way() {
                connection.fill()?;
            }
            while let Some(frame) = connection.input.frame()? {
                publishing.take(&frame)?;
            }
        }
    }
    Ok(meter.stop(parts.iter().map(|(_, publishing)| publishing.confirmed).sum()))
}

fn consume(port: u16, work: &Work, acks: u64) -> io::Result<Usage> {
    let mut connection = Connection::open(port, work)?;
    let mut consuming = Consuming::prepare(&mut connection, CHANNEL, work, acks)?;
    let meter = Meter::start(work);
    consuming.start(&mut connection, work)?;
    while consuming.is_under_way() {
        while connection.input.frame()?.is_some() {
            consuming.take();
        }
        consuming.settle(&mut connection)?;
        if consuming.is_under_way() {
            connection.fill()?;
        }
    }
    Ok(meter.stop(consuming.received))
}

fn publish_and_consume(port: u16, work: &Work) -> io::Result<Usage> {
    let mut connection = Connection::open(port, work)?;
    connection.call(SECOND_CHANNEL, wire::CHANNEL_OPEN, &[&[0]], wire::CHANNEL_OPEN_OK)?;
    let mut publishing = Publishing::start(&mut connection, work, true)?;
    let mut consuming = Consuming::prepare(&mut connection, SECOND_CHANNEL, work, 1)?;
    let meter = Meter::start(work);
    consuming.start(&mut connection, work)?;
    while publishing.is_under_way() || consuming.is_under_way() {
        publishing.send(&mut connection)?;
        connection.fill()?;
        while let Some(frame) = connection.input.frame()? {
            match frame.channel {
                CHANNEL => publishing.take(&frame)?,
                _ => consuming.take(),
            }
        }
        consuming.settle(&mut connection)?;
    }
    Ok(meter.stop(publishing.confirmed.min(consuming.received)))
}

struct Connection {
    stream: Box<dyn Stream>,
    input: Input,
}

impl Connection {
    /// With a channel.
    fn open(port: u16, work: &Work) -> io::Result<Self> {
        let socket = connect(port)?;
        Self::over(if work.tls { encrypted(socket, port)? } else { Box::new(socket) }, work)
    }

    fn over(stream: Box<dyn Stream>, work: &Work) -> io::Result<Self> {
        let mut connection = Self { stream, input: Input::new() };
        connection.stream.write_all(wire::PROTOCOL_HEADER)?;
        connection.wait_for(wire::CONNECTION_START)?;
        let start_ok: [&[u8]; 4] = [&long(b""), &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")];
        connection.call(0, wire::CONNECTION_START_OK, &start_ok, wire::CONNECTION_TUNE)?;
        let mut tune_ok = Vec::new();
        let limits: [&[u8]; 3] =
            [&2047_u16.to_be_bytes(), &(wire::FRAME_MAX as u32).to_be_bytes(), &0_u16.to_be_bytes()];
        wire::method(&mut tune_ok, 0, wire::CONNECTION_TUNE_OK, &limits);
        connection.stream.write_all(&tune_ok)?;
        let virtual_host = short(work.virtual_host.as_bytes());
        connection.call(0, wire::CONNECTION_OPEN, &[&virtual_host, &[0, 0]], wire::CONNECTION_OPEN_OK)?;
        connection.call(CHANNEL, wire::CHANNEL_OPEN, &[&[0]], wire::CHANNEL_OPEN_OK)?;
        Ok(connection)
    }

    fn call(&mut self, channel: u16, id: MethodId, arguments: &[&[u8]], reply: MethodId) -> io::Result<()> {
        let mut bytes = Vec::new();
        wire::method(&mut bytes, channel, id, arguments);
        self.stream.write_all(&bytes)?;
        self.wait_for(reply)
    }

    fn wait_for(&mut self, reply: MethodId) -> io::Result<()> {
        loop {
            if let Some(frame) = self.input.frame()? {
                return if frame.method()?.0 == reply { Ok(()) } else { Err(broken("another reply than expected")) };
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        match self.input.fill(&mut *self.stream)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

fn encrypted(socket: TcpStream, port: u16) -> io::Result<Box<dyn Stream>> {
    let connection = ClientConnection::new(tls::client_config(port)?, Ipv4Addr::LOCALHOST.into());
    Ok(Box::new(StreamOwned::new(connection.map_err(io::Error::other)?, socket)))
}

/// A connection over TCP on which messages can be published, and one of them.
pub(crate) fn prepare_to_publish(port: u16, work: &Work) -> io::Result<(TcpStream, Vec<u8>)> {
    let socket = connect(port)?;
    let mut connection = Connection::over(Box::new(socket.try_clone()?), work)?;
    Ok((socket, Publishing::start(&mut connection, work, true)?.one))
}

/// One connection's part of the publishing.
struct Publishing {
    /// One message.
    one: Vec<u8>,
    /// As many as go out with one write, built before.
    block: Vec<u8>,
    /// As many, copied together for each write.
    out: Option<Vec<u8>>,
    per_write: u64,
    window: u64,
    messages: u64,
    sent: u64,
    confirmed: u64,
}

impl Publishing {
    fn start(connection: &mut Connection, work: &Work, copying: bool) -> io::Result<Self> {
        connection.call(CHANNEL, wire::CONFIRM_SELECT, &[&[0]], wire::CONFIRM_SELECT_OK)?;
        let mut one = Vec::new();
        let arguments: [&[u8]; 4] = [&[0, 0], &short(b""), &short(work.queue().as_bytes()), &[0]];
        wire::method(&mut one, CHANNEL, wire::BASIC_PUBLISH, &arguments);
        wire::content(&mut one, CHANNEL, &vec![b'x'; work.body]);
        let [window, messages] = [work.window, work.messages].map(|number| number / u64::from(work.connections));
        let per_write = window.min((1024 * 1024 / one.len() as u64).max(1));
        let block = one.repeat(per_write as usize);
        let out = copying.then(|| Vec::with_capacity(block.len()));
        Ok(Self { one, block, out, per_write, window, messages, sent: 0, confirmed: 0 })
    }

    fn is_under_way(&self) -> bool {
        self.confirmed < self.messages
    }

    /// As many as the window has room for.
    fn send(&mut self, connection: &mut Connection) -> io::Result<()> {
        let mut room = (self.window - (self.sent - self.confirmed)).min(self.messages - self.sent);
        self.sent += room;
        while room > 0 {
            let count = room.min(self.per_write);
            match &mut self.out {
                Some(out) => {
                    out.clear();
                    for _ in 0..count {
                        out.extend_from_slice(black_box(&self.one));
                    }
                    connection.stream.write_all(out)?;
                }
                None => connection.stream.write_all(&self.block[..count as usize * self.one.len()])?,
            }
            room -= count;
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let (id, mut arguments) = frame.method()?;
        if id != wire::BASIC_ACK {
            return Err(broken("a confirmation was expected"));
        }
        self.confirmed = arguments.u64()?;
        Ok(())
    }
}

/// Frames are counted, and messages acknowledged by their count.
struct Consuming {
    channel: u16,
    /// One acknowledgement for so many messages, or 0 for none.
    acks: u64,
    /// The size of one, and a window's worth of them, their tags to be filled in.
    ack: usize,
    block: Vec<u8>,
    frames_per_delivery: u64,
    messages: u64,
    frames: u64,
    received: u64,
    acked: u64,
}

impl Consuming {
    fn prepare(connection: &mut Connection, channel: u16, work: &Work, acks: u64) -> io::Result<Self> {
        let qos: [&[u8]; 3] = [&[0; 4], &work.prefetch().to_be_bytes(), &[0]];
        connection.call(channel, wire::BASIC_QOS, &qos, wire::BASIC_QOS_OK)?;
        let mut ack = Vec::new();
        wire::method(&mut ack, channel, wire::BASIC_ACK, &[&[0; 8], &[u8::from(acks > 1)]]);
        let block = ack.repeat(if acks > 0 { work.window as usize } else { 0 });
        let mut one = Vec::new();
        wire::content(&mut one, channel, &vec![b'x'; work.body]);
        let (ack, frames_per_delivery) = (ack.len(), 1 + count_frames(&one)?);
        let messages = work.messages;
        Ok(Self { channel, acks, ack, block, frames_per_delivery, messages, frames: 0, received: 0, acked: 0 })
    }

    fn start(&self, connection: &mut Connection, work: &Work) -> io::Result<()> {
        let bits = if self.acks > 0 { 0 } else { 2 };
        let arguments: [&[u8]; 5] = [&[0, 0], &short(work.queue().as_bytes()), &short(b"floor"), &[bits], &long(b"")];
        connection.call(self.channel, wire::BASIC_CONSUME, &arguments, wire::BASIC_CONSUME_OK)
    }

    fn is_under_way(&self) -> bool {
        self.received < self.messages
    }

    fn take(&mut self) {
        self.frames += 1;
        if self.frames == self.frames_per_delivery {
            self.frames = 0;
            self.received += 1;
        }
    }

    /// Sends all acknowledgements that are due, and none beyond the last message.
    fn settle(&mut self, connection: &mut Connection) -> io::Result<()> {
        let received = self.received.min(self.messages);
        if let Some(due) = (received - self.acked).checked_div(self.acks) {
            let part = &mut self.block[..due as usize * self.ack];
            for one in part.chunks_exact_mut(self.ack) {
                self.acked += self.acks;
                one[11..][..8].copy_from_slice(&self.acked.to_be_bytes());
            }
            connection.stream.write_all(part)?;
        }
        Ok(())
    }
}

fn count_frames(mut bytes: &[u8]) -> io::Result<u64> {
    let mut count = 0;
    while let Some((header, rest)) = bytes.split_first_chunk::<7>() {
        let length = u32::from_be_bytes([header[3], header[4], header[5], header[6]]) as usize;
        bytes = rest.get(length + 1..).ok_or_else(|| broken("a frame is cut"))?;
        count += 1;
    }
    Ok(count)
}
