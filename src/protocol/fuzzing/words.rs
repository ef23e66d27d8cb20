//! What one side says, held against the rules: frames whole and no larger than agreed, nothing on a channel that is not open,
//! messages in one piece, and silence behind a goodbye.

use std::collections::BTreeMap;

use ::bytes::{Buf, Bytes, BytesMut};

use crate::codec::method::{Sender, channel, connection};
use crate::codec::{FRAME_OVERHEAD, Frame, Method, ProtocolHeader};

/// What has been heard of one side.
#[derive(Debug)]
pub(super) struct Words {
    /// Whose words they are.
    by: Sender,
    octets: BytesMut,
    header_due: bool,
    channels: BTreeMap<u16, Channel>,
    goodbye: Goodbye,
}

#[derive(Debug, PartialEq, Eq)]
enum Goodbye {
    None,
    /// `connection.close` was said: close-ok and heartbeats may follow.
    Close,
    /// `connection.close-ok` was said to the other's close: nothing may follow.
    CloseOk,
}

/// Of a channel that this side has reason to think open.
#[derive(Debug, PartialEq, Eq)]
enum Channel {
    Open,
    /// A method with content was said.
    Header,
    /// So many octets of body are due.
    Body(u64),
    /// `channel.close` was said.
    Closing,
}

impl Words {
    pub(super) fn of(by: Sender) -> Self {
        Self {
            by,
            octets: BytesMut::new(),
            header_due: by == Sender::Client,
            channels: BTreeMap::new(),
            goodbye: Goodbye::None,
        }
    }

    /// Hears octets, and gives back the frames in them.
    pub(super) fn hear(&mut self, octets: &[u8], frame_max: u32) -> Vec<Frame> {
        self.octets.extend_from_slice(octets);
        if std::mem::take(&mut self.header_due) {
            assert!(self.octets.starts_with(&ProtocolHeader::AMQP_0_9_1.to_bytes()), "{:?}", self.octets);
            self.octets.advance(ProtocolHeader::LEN);
        }
        let mut rest = self.octets.split().freeze();
        let max_payload = usize::try_from(frame_max).unwrap_or(usize::MAX) - FRAME_OVERHEAD;
        let mut frames = Vec::new();
        loop {
            match Frame::decode(&mut rest, max_payload) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => unreachable!("{error} in what was said: {rest:?}"),
            }
        }
        self.octets.extend_from_slice(&rest);
        for frame in &frames {
            self.check(frame);
        }
        frames
    }

    /// Nothing may be left that is not a whole frame.
    pub(super) fn is_whole(&self) -> bool {
        self.octets.is_empty()
    }

    fn check(&mut self, frame: &Frame) {
        assert_ne!(self.goodbye, Goodbye::CloseOk, "{frame:?} behind connection.close-ok");
        match frame {
            Frame::Heartbeat => {}
            Frame::Method(0, method) => self.on_connection(method),
            _ if self.goodbye == Goodbye::Close => unreachable!("{frame:?} behind connection.close"),
            Frame::Method(number, method) => self.on_channel(*number, method),
            Frame::Header(number, header) => {
                let channel = self.channels.get_mut(number);
                assert_eq!(channel, Some(&mut Channel::Header), "{frame:?}");
                if let Some(channel) = channel {
                    *channel = if header.body_size == 0 { Channel::Open } else { Channel::Body(header.body_size) };
                }
            }
            Frame::Body(number, octets) => self.body(*number, octets),
        }
    }

    fn body(&mut self, number: u16, octets: &Bytes) {
        let Some(Channel::Body(due)) = self.channels.get_mut(&number) else {
            unreachable!("a body on channel {number}, which is {:?}", self.channels.get(&number))
        };
        assert!(!octets.is_empty() && *due >= octets.len() as u64, "{} octets where {due} are due", octets.len());
        *due -= octets.len() as u64;
        if *due == 0 {
            self.channels.insert(number, Channel::Open);
        }
    }

    fn on_connection(&mut self, method: &Method) {
        let Method::Connection(method) = method else { unreachable!("{method:?} on channel 0") };
        let ours = method.info().sender;
        assert!(ours == self.by || ours == Sender::Both, "{method:?} by {:?}", self.by);
        match (method, &self.goodbye) {
            (connection::Method::Close(_), Goodbye::None) => self.goodbye = Goodbye::Close,
            (connection::Method::CloseOk(_), Goodbye::None) => self.goodbye = Goodbye::CloseOk,
            (connection::Method::CloseOk(_), Goodbye::Close) => {}
            (_, Goodbye::None) => {}
            _ => unreachable!("{method:?} behind a goodbye"),
        }
    }

    fn on_channel(&mut self, number: u16, method: &Method) {
        let info = method.info();
        let state = self.channels.get(&number);
        assert!(info.sender == self.by || info.sender == Sender::Both, "{method:?} by {:?}", self.by);
        let next = match (method, state) {
            (Method::Connection(_), _) => unreachable!("{method:?} on channel {number}"),
            (Method::Channel(channel::Method::Open(_) | channel::Method::OpenOk(_)), None | Some(Channel::Closing)) => {
                Some(Channel::Open)
            }
            (Method::Channel(channel::Method::Close(_)), Some(Channel::Open)) => Some(Channel::Closing),
            // It may come in the middle of a message, which is then void.
            (Method::Channel(channel::Method::CloseOk(_)), Some(Channel::Closing)) => Some(Channel::Closing),
            (Method::Channel(channel::Method::CloseOk(_)), Some(Channel::Open)) => None,
            (_, Some(Channel::Open)) if info.has_content => Some(Channel::Header),
            (_, Some(Channel::Open)) => Some(Channel::Open),
            _ => unreachable!("{method:?} on channel {number}, which is {state:?}"),
        };
        match next {
            Some(next) => drop(self.channels.insert(number, next)),
            None => drop(self.channels.remove(&number)),
        }
    }
}
