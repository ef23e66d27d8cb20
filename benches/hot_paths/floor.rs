//! The floor: the least a client can do for the same work, against which the others are measured.
//!
//! A blocking loop over frames built beforehand. It keeps no account of single messages: publishing it remembers the
//! highest tag that was confirmed, consuming it counts frames and sends one acknowledgement per message, all those of a
//! block read with one write.
//!
//! Publishing, it copies each prebuilt message into a buffer before that is written, as a client must that is handed one
//! message at a time. A second variant spares itself even that and writes blocks of messages that were built before.

use std::hint::black_box;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::usage::{Meter, Usage};
use crate::wire::{self, Input, MethodId, broken, long, short};
use crate::work::{Direction, Outcome, Work};

const CHANNEL: u16 = 1;

pub(crate) fn run(port: u16, work: &Work) -> Outcome {
    work_through(port, work, true)
}

pub(crate) fn run_prebuilt(port: u16, work: &Work) -> Outcome {
    work_through(port, work, false)
}

fn work_through(port: u16, work: &Work, copying: bool) -> Outcome {
    let mut floor = Floor::connect(port, work.virtual_host)?;
    let usage = match work.direction {
        Direction::Publish => floor.publish(work, copying)?,
        Direction::Consume { acks } => floor.consume(work, acks)?,
    };
    Ok(usage)
}

struct Floor {
    stream: TcpStream,
    input: Input,
}

impl Floor {
    fn connect(port: u16, virtual_host: &str) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        let mut floor = Self { stream, input: Input::new() };
        floor.stream.write_all(wire::PROTOCOL_HEADER)?;
        floor.wait_for(wire::CONNECTION_START)?;
        let start_ok: [&[u8]; 4] = [&long(b""), &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")];
        floor.call(0, wire::CONNECTION_START_OK, &start_ok, wire::CONNECTION_TUNE)?;
        let mut tune_ok = Vec::new();
        let limits: [&[u8]; 3] =
            [&2047_u16.to_be_bytes(), &(wire::FRAME_MAX as u32).to_be_bytes(), &0_u16.to_be_bytes()];
        wire::method(&mut tune_ok, 0, wire::CONNECTION_TUNE_OK, &limits);
        floor.stream.write_all(&tune_ok)?;
        floor.call(0, wire::CONNECTION_OPEN, &[&short(virtual_host.as_bytes()), &[0, 0]], wire::CONNECTION_OPEN_OK)?;
        floor.call(CHANNEL, wire::CHANNEL_OPEN, &[&[0]], wire::CHANNEL_OPEN_OK)?;
        Ok(floor)
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
        match self.input.fill(&self.stream)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn publish(&mut self, work: &Work, copying: bool) -> io::Result<Usage> {
        self.call(CHANNEL, wire::CONFIRM_SELECT, &[&[0]], wire::CONFIRM_SELECT_OK)?;
        let mut one = Vec::new();
        let arguments: [&[u8]; 4] = [&[0, 0], &short(b""), &short(work.queue().as_bytes()), &[0]];
        wire::method(&mut one, CHANNEL, wire::BASIC_PUBLISH, &arguments);
        wire::content(&mut one, CHANNEL, &vec![b'x'; work.body]);
        let per_write = work.window.min((1024 * 1024 / one.len() as u64).max(1));
        let block = one.repeat(per_write as usize);
        let mut out = Vec::with_capacity(block.len());

        let meter = Meter::start(work);
        let (mut sent, mut confirmed) = (0, 0);
        while confirmed < work.messages {
            let mut room = (work.window - (sent - confirmed)).min(work.messages - sent);
            sent += room;
            while room > 0 {
                let count = room.min(per_write);
                if copying {
                    out.clear();
                    for _ in 0..count {
                        out.extend_from_slice(black_box(&one));
                    }
                    self.stream.write_all(&out)?;
                } else {
                    self.stream.write_all(&block[..count as usize * one.len()])?;
                }
                room -= count;
            }
            self.fill()?;
            while let Some(frame) = self.input.frame()? {
                let (id, mut arguments) = frame.method()?;
                if id != wire::BASIC_ACK {
                    return Err(broken("a confirmation was expected"));
                }
                confirmed = arguments.u64()?;
            }
        }
        Ok(meter.stop(confirmed))
    }

    fn consume(&mut self, work: &Work, acks: u64) -> io::Result<Usage> {
        let qos: [&[u8]; 3] = [&[0; 4], &work.prefetch().to_be_bytes(), &[0]];
        self.call(CHANNEL, wire::BASIC_QOS, &qos, wire::BASIC_QOS_OK)?;
        let mut ack = Vec::new();
        wire::method(&mut ack, CHANNEL, wire::BASIC_ACK, &[&[0; 8], &[u8::from(acks > 1)]]);
        let mut block = ack.repeat(if acks > 0 { work.window as usize } else { 0 });
        let bits = if acks > 0 { 0 } else { 2 };
        let frames_per_delivery = {
            let mut one = Vec::new();
            wire::content(&mut one, CHANNEL, &vec![b'x'; work.body]);
            1 + count_frames(&one)?
        };

        let meter = Meter::start(work);
        let arguments: [&[u8]; 5] = [&[0, 0], &short(work.queue().as_bytes()), &short(b"floor"), &[bits], &long(b"")];
        self.call(CHANNEL, wire::BASIC_CONSUME, &arguments, wire::BASIC_CONSUME_OK)?;
        let (mut frames, mut received, mut acked) = (0, 0, 0_u64);
        while received < work.messages {
            while self.input.frame()?.is_some() {
                frames += 1;
                if frames == frames_per_delivery {
                    frames = 0;
                    received += 1;
                }
            }
            if let Some(due) = (received - acked).checked_div(acks) {
                let part = &mut block[..due as usize * ack.len()];
                for one in part.chunks_exact_mut(ack.len()) {
                    acked += acks;
                    one[11..][..8].copy_from_slice(&acked.to_be_bytes());
                }
                self.stream.write_all(part)?;
            }
            if received < work.messages {
                self.fill()?;
            }
        }
        Ok(meter.stop(received))
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
