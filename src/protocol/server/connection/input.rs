//! What comes in: frames, sorted by the state of the connection and of the channel.

use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};

use super::{Connection, Phase};
use crate::codec::method::{Sender, channel, connection};
use crate::codec::{FrameType, Method, ProtocolHeader, RawFrame, ReplyCode};
use crate::error::{Error, ErrorKind};
use crate::protocol::server::channel::{Channel, PublishView, content_fault};
use crate::protocol::server::handshake::{ExpectStartOk, Greeting, Handshake, Started, unexpected};
use crate::protocol::server::{Event, Fault, Publish};
use crate::protocol::{Assembler, Incoming, KEEP_IN_PLACE_FROM};

/// What becomes of a frame.
type Handled = Result<(), Fault>;

impl Connection {
    /// Acts on one frame. Returns whether there may be more to do.
    pub(super) fn step(&mut self, input: &mut BytesMut, now: Instant) -> bool {
        match &self.phase {
            Phase::Finished | Phase::Leaving => return false,
            Phase::Handshake(Handshake::LoginVerdict(_) | Handshake::OpenVerdict(_)) => return false,
            Phase::Handshake(Handshake::ProtocolHeader(state)) => {
                return match state.read(input) {
                    Greeting::Partial => false,
                    Greeting::Ours => {
                        let start = state.start(&self.config);
                        self.put(0, start.into());
                        self.phase = Phase::Handshake(Handshake::StartOk(ExpectStartOk));
                        true
                    }
                    Greeting::Foreign => {
                        self.out.put(&ProtocolHeader::AMQP_0_9_1.to_bytes());
                        self.end(Error::new(ErrorKind::Protocol, "the client does not speak AMQP 0-9-1"));
                        false
                    }
                };
            }
            _ => {}
        }
        let frame = match RawFrame::split(input, self.max_payload()) {
            Ok(Some(frame)) => frame,
            Ok(None) => return false,
            Err(error) => {
                // Where the next frame begins is unknown: the words go out, no answer is waited for (c23).
                self.fail(&Fault::from(&error), now);
                self.phase = Phase::Finished;
                return false;
            }
        };
        let (kind, number, len) = (frame.kind, frame.channel, frame.wire_len());
        let handled = match kind {
            FrameType::Heartbeat => Ok(()),
            FrameType::Body if frame.payload.len() >= KEEP_IN_PLACE_FROM => {
                let payload_len = frame.payload.len();
                let mut frame = input.split_to(len);
                frame.advance(len - 1 - payload_len);
                frame.truncate(payload_len);
                let handled = self.body(number, Incoming::Kept(frame.freeze()));
                return self.finish_step(handled, number, now);
            }
            FrameType::Body => self.body(number, Incoming::Borrowed(frame.payload)),
            FrameType::Header => self.header(number, frame.payload),
            FrameType::Method => self.method(number, frame.payload, now),
        };
        input.advance(len);
        self.finish_step(handled, number, now)
    }

    fn finish_step(&mut self, handled: Handled, number: u16, now: Instant) -> bool {
        if let Err(fault) = handled {
            if fault.code.is_hard() || number == 0 {
                self.fail(&fault, now);
            } else {
                self.close_channel(number, fault.code, &fault.reply_text().to_string_lossy(), fault.method);
                self.event = Some(Event::ChannelClosed(number));
            }
        }
        true
    }

    fn method(&mut self, number: u16, payload: &[u8], now: Instant) -> Handled {
        if matches!(self.phase, Phase::Running)
            && let Some((&PublishView::ID, fields)) = payload.split_first_chunk()
            && let Some(Channel::Open(assembler)) = self.channels.get_mut(&number)
            && assembler.is_idle()
        {
            let view = PublishView::parse(fields).map_err(|error| Fault::from(&error).of(60, 40))?;
            assembler.begin(view.publish, view.address);
            return Ok(());
        }
        // Copied: what is kept of a method (a queue's name) must not pin the block it was read in.
        let method = match Method::decode(&Bytes::copy_from_slice(payload)) {
            Ok(method) => method,
            Err(_) if matches!(self.phase, Phase::Closing) => return Ok(()),
            Err(error) => {
                let (class, method) = match payload.split_first_chunk() {
                    Some((&[c1, c0, m1, m0], _)) => (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0])),
                    None => (0, 0),
                };
                return Err(Fault::from(&error).of(class, method));
            }
        };
        match &self.phase {
            Phase::Handshake(_) => self.handshake(number, method, now),
            Phase::Running if number == 0 => self.on_connection(method),
            Phase::Running => self.on_channel(number, method),
            Phase::Closing => {
                self.while_closing(number, &method);
                Ok(())
            }
            Phase::Leaving | Phase::Finished => Ok(()),
        }
    }

    fn handshake(&mut self, number: u16, method: Method, now: Instant) -> Handled {
        let Phase::Handshake(state) = &self.phase else { return Ok(()) };
        if number != 0 {
            return Err(Fault::new(ReplyCode::UNEXPECTED_FRAME, "a channel's frame before the connection is open"));
        }
        if let Method::Connection(connection::Method::Close(_)) = method {
            self.phase = Phase::Leaving;
            self.event = Some(Event::Close);
            return Ok(());
        }
        let next = match state {
            Handshake::StartOk(state) => match state.receive(method, &self.config)? {
                Started::Login(next, event) => {
                    self.event = Some(event);
                    Handshake::LoginVerdict(next)
                }
                Started::Challenge(next, secure) => {
                    self.put(0, secure.into());
                    Handshake::SecureOk(next)
                }
            },
            Handshake::SecureOk(state) => {
                let (next, event) = state.receive(method)?;
                self.event = Some(event);
                Handshake::LoginVerdict(next)
            }
            Handshake::TuneOk(state) => {
                let (next, tuned) = state.receive(method, &self.config)?;
                self.tuned = tuned;
                self.heartbeat.start(tuned.heartbeat, now);
                Handshake::Open(next)
            }
            Handshake::Open(state) => {
                let (next, event) = state.receive(method)?;
                self.event = Some(event);
                Handshake::OpenVerdict(next)
            }
            // No input is looked at in these.
            Handshake::ProtocolHeader(_) | Handshake::LoginVerdict(_) | Handshake::OpenVerdict(_) => return Ok(()),
        };
        self.phase = Phase::Handshake(next);
        Ok(())
    }

    /// c29: channel 0 is for the connection class.
    fn on_connection(&mut self, method: Method) -> Handled {
        match method {
            Method::Connection(connection::Method::Close(_)) => {
                self.phase = Phase::Leaving;
                self.event = Some(Event::Close);
                Ok(())
            }
            Method::Connection(connection::Method::CloseOk(_)) => Ok(()),
            method @ Method::Connection(connection::Method::UpdateSecret(_)) => {
                self.event = Some(Event::Method(0, method));
                Ok(())
            }
            method => Err(unexpected(&method, "running")),
        }
    }

    fn on_channel(&mut self, number: u16, method: Method) -> Handled {
        let info = method.info();
        let fault = |code, text: &str| Err(Fault::new(code, text).of(info.class_id, info.method_id));
        let Some(channel) = self.channels.get_mut(&number) else {
            return match method {
                Method::Channel(channel::Method::Open(_)) => self.open_channel(number),
                _ => fault(ReplyCode::CHANNEL_ERROR, "expected 'channel.open'"),
            };
        };
        let Channel::Open(assembler) = channel else {
            if matches!(channel, Channel::Closing) {
                match method {
                    Method::Channel(channel::Method::CloseOk(_)) => {
                        self.channels.remove(&number);
                    }
                    Method::Channel(channel::Method::Close(_)) => self.put(number, channel::CloseOk {}.into()),
                    _ => {}
                }
            }
            return Ok(());
        };
        if !assembler.is_idle() {
            return fault(ReplyCode::UNEXPECTED_FRAME, "expected content, got a method frame instead");
        }
        match method {
            Method::Channel(channel::Method::Open(_)) => fault(ReplyCode::CHANNEL_ERROR, "second 'channel.open' seen"),
            Method::Channel(channel::Method::Close(_)) => {
                *channel = Channel::Leaving;
                self.event = Some(Event::ChannelClose(number));
                Ok(())
            }
            // c30
            Method::Connection(_) | Method::Channel(channel::Method::CloseOk(_)) => {
                fault(ReplyCode::COMMAND_INVALID, "unimplemented method")
            }
            _ if info.sender == Sender::Server => fault(ReplyCode::COMMAND_INVALID, "unimplemented method"),
            method => {
                self.event = Some(Event::Method(number, method));
                Ok(())
            }
        }
    }

    fn open_channel(&mut self, number: u16) -> Handled {
        let (open, max) = (self.channels.len(), usize::from(self.tuned.channel_max));
        if max != 0 && open >= max {
            let text = format!("number of channels opened ({open}) has reached the negotiated channel_max ({max})");
            return Err(Fault::new(ReplyCode::NOT_ALLOWED, text).of(20, 10));
        }
        self.channels.insert(number, Channel::new());
        self.put(number, channel::OpenOk::default().into());
        self.event = Some(Event::ChannelOpened(number));
        Ok(())
    }

    /// c46, c47: after close only close and close-ok count.
    fn while_closing(&mut self, number: u16, method: &Method) {
        match method {
            Method::Connection(connection::Method::Close(_)) if number == 0 => {
                self.put(0, connection::CloseOk {}.into());
            }
            Method::Connection(connection::Method::CloseOk(_)) if number == 0 => self.phase = Phase::Finished,
            _ => {}
        }
    }

    fn header(&mut self, number: u16, payload: &[u8]) -> Handled {
        let limit = self.config.max_message_size;
        let Some(assembler) = self.assembler(number)? else { return Ok(()) };
        let complete = assembler
            .header(payload, limit)
            .map_err(|error| content_fault(&error, "expected content body, got non content body frame instead"))?;
        self.event = complete.map(|(publish, whole)| Event::Publish(number, publish, whole.into_content()));
        Ok(())
    }

    fn body(&mut self, number: u16, payload: Incoming<'_>) -> Handled {
        let Some(assembler) = self.assembler(number)? else { return Ok(()) };
        let complete = assembler.body(payload).map_err(|error| {
            content_fault(&error, "expected content header for class 60, got non content header frame instead")
        })?;
        self.event = complete.map(|(publish, whole)| Event::Publish(number, publish, whole.into_content()));
        Ok(())
    }

    /// Where a content frame of a channel belongs; `None` when it is to be discarded.
    fn assembler(&mut self, number: u16) -> Result<Option<&mut Assembler<Publish>>, Fault> {
        let fault = |text: &str| Err(Fault::new(ReplyCode::UNEXPECTED_FRAME, text));
        match (&self.phase, self.channels.get_mut(&number)) {
            (Phase::Running, Some(Channel::Open(assembler))) if !assembler.is_idle() => Ok(Some(assembler)),
            (Phase::Running, None) if number == 0 => fault("content on channel 0"),
            (Phase::Running, None | Some(Channel::Open(_))) => {
                fault("expected method frame, got non method frame instead")
            }
            (Phase::Handshake(_), _) => fault("content before the connection is open"),
            _ => Ok(None),
        }
    }
}
