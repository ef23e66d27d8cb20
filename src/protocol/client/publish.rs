//! Publishing: admission, the delivery tag, and the frames, in one step under one lock.

use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};

use super::confirms::{Look, fingerprint};
use super::wakers::Place;
use super::{ChannelId, Connection, State};
use crate::codec::{EncodeError, FrameType, Properties, frame_head, write_frame, write_short_string};
use crate::error::{Error, ErrorKind, Outcome};
use crate::protocol::outbound::put_header;
use crate::protocol::{Body, OutBuffer};

/// The header that a stamped message's delivery tag is written to.
pub const STAMP: &str = "x-leveret-seq";

/// A message that is to be published (`basic.publish`).
#[derive(Clone, Debug)]
pub struct Publish<'a> {
    /// The exchange; empty for the default one.
    pub exchange: &'a [u8],
    /// The routing key.
    pub routing_key: &'a [u8],
    /// Return the message when no queue takes it.
    pub mandatory: bool,
    /// Return the message when no consumer takes it at once.
    pub immediate: bool,
    /// Write the delivery tag among the headers, as [`STAMP`], so that a returned message is known for certain. It takes the place
    /// of a header of that name. Nothing is written where no confirm is asked for, or the message would not come back.
    pub stamped: bool,
    /// The properties.
    pub properties: Option<PropertiesRef<'a>>,
    /// The body.
    pub body: Body<'a>,
}

/// A message's properties.
#[derive(Clone, Copy, Debug)]
pub enum PropertiesRef<'a> {
    /// This message's alone.
    Own(&'a Properties),
    /// Those of other messages, too: where such messages follow each other, they are encoded once.
    Shared(&'a Arc<Properties>),
}

impl<'a> PropertiesRef<'a> {
    fn get(self) -> &'a Properties {
        match self {
            Self::Own(properties) => properties,
            Self::Shared(properties) => properties,
        }
    }
}

impl<'a> From<&'a Properties> for PropertiesRef<'a> {
    fn from(properties: &'a Properties) -> Self {
        Self::Own(properties)
    }
}

/// Where a publisher waits.
#[derive(Debug)]
pub enum Waiting {
    /// For the connection: it is blocked, paused, or has too much to write.
    Connection(Option<Place>),
    /// For the channel's window of unconfirmed messages.
    Window(Option<Place>),
}

impl Connection {
    /// Publishes a message as soon as it is admitted. The answer is its delivery tag, 0 where nothing is confirmed.
    ///
    /// An error means that nothing was sent.
    #[inline(always)] // as a call: 5 % more instructions for a small publish
    pub fn poll_publish(
        &mut self,
        id: ChannelId,
        publish: &Publish<'_>,
        waiting: &mut Option<Waiting>,
        waker: &Waker,
    ) -> Poll<Result<u64, Error>> {
        let unwritten = self.out.len();
        let Some(channel) = self.channels.get_mut(id.0).and_then(Option::as_mut) else {
            return Poll::Ready(Err(gone()));
        };
        if channel.state != State::Open {
            let error = channel.end.clone().unwrap_or_else(gone);
            return Poll::Ready(Err(error.with_outcome(Outcome::NotSent)));
        }
        if self.blocked.is_some() || !channel.flow || unwritten >= self.config.max_unwritten {
            if matches!(waiting, Some(Waiting::Window(_)))
                && let Some(Waiting::Window(Some(place))) = waiting.take()
                && let Some(confirms) = &mut channel.confirms
            {
                // Woken because there is room, and not able to use it: somebody else may be by the time it can be used.
                confirms.waiting.leave(place, &mut self.wakes);
            }
            let place = match waiting {
                Some(Waiting::Connection(place)) => place,
                other => match other.insert(Waiting::Connection(None)) {
                    Waiting::Connection(place) | Waiting::Window(place) => place,
                },
            };
            self.publishers.wait(place, waker, &mut self.wakes);
            return Poll::Pending;
        }
        if let Some(confirms) = &mut channel.confirms
            && confirms.is_full()
        {
            let place = match waiting {
                Some(Waiting::Window(place)) => place,
                other => match other.insert(Waiting::Window(None)) {
                    Waiting::Connection(place) | Waiting::Window(place) => place,
                },
            };
            confirms.waiting.wait(place, waker, &mut self.wakes);
            return Poll::Pending;
        }
        let held = match waiting.take() {
            Some(Waiting::Window(place)) => place,
            _ => None,
        };
        let stamp = match &channel.confirms {
            Some(confirms) if publish.stamped && publish.mandatory => Some((STAMP, confirms.next_tag().cast_signed())),
            _ => None,
        };
        let (number, max_payload, envelope) = (channel.number, self.max_payload, &mut channel.envelope);
        let octets = publish.body.as_slice();
        let small = OutBuffer::is_small(octets, max_payload);
        let written = match publish.properties {
            None if small && stamp.is_none() => {
                envelope.whole(number, max_payload, publish, octets.len()).map(|head| self.out.put_small(head, octets))
            }
            Some(PropertiesRef::Shared(properties)) if small => {
                match envelope.shared(number, max_payload, publish, (properties, octets.len()), stamp) {
                    Ok((head, stamp_at)) => {
                        self.out.put_small_stamped(head, stamp_at.zip(stamp), octets);
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            properties => envelope.method(number, max_payload, publish).and_then(|frame| {
                let properties = properties.map(PropertiesRef::get);
                self.out.put_message(number, max_payload, frame, properties, stamp, &publish.body)
            }),
        };
        if let (Some(place), Some(confirms)) = (held, &mut channel.confirms) {
            match written {
                Ok(()) => confirms.waiting.quit(&place, &mut self.wakes),
                // The room is still there, for the next in line.
                Err(_) => confirms.waiting.leave(place, &mut self.wakes),
            }
        }
        Poll::Ready(match (written, &mut channel.confirms) {
            (Err(error), _) => Err(Error::from(error).with_outcome(Outcome::NotSent)),
            (Ok(()), None) => Ok(0),
            (Ok(()), Some(confirms)) => Ok(confirms.publish(publish.mandatory.then(|| {
                let Publish { exchange, routing_key, body, .. } = publish;
                match publish.stamped {
                    true => Look::Stamped,
                    false => Look::Fingerprint(fingerprint(exchange, routing_key, body.as_slice())),
                }
            }))),
        })
    }

    /// A publisher no longer waits.
    pub fn leave(&mut self, id: ChannelId, waiting: Waiting) {
        match waiting {
            Waiting::Connection(Some(place)) => self.publishers.leave(place, &mut self.wakes),
            Waiting::Window(Some(place)) => {
                let Self { channels, wakes, .. } = self;
                let channel = channels.get_mut(id.0).and_then(Option::as_mut);
                if let Some(confirms) = channel.and_then(|channel| channel.confirms.as_mut()) {
                    confirms.waiting.leave(place, wakes);
                }
            }
            Waiting::Connection(None) | Waiting::Window(None) => {}
        }
    }

    /// Why a publisher has to wait, for the error of one whose deadline has passed.
    pub fn why_publishing_waits(&self) -> Error {
        match &self.blocked {
            Some(reason) => Error::new(ErrorKind::Blocked, format!("the server takes no messages: {reason}")),
            None => {
                Error::new(ErrorKind::Timeout, "no room to publish before the deadline").with_outcome(Outcome::NotSent)
            }
        }
    }
}

/// What stood before the body of the last publish on a channel: the next one most likely has the same address, and often the
/// same size and the same properties.
///
/// ```text
/// method frame | header frame | head of the body's frame, the only one
///              method_end
/// ```
#[derive(Debug, Default)]
pub(crate) struct Envelope {
    octets: Vec<u8>,
    /// Whom it is for.
    exchange: Vec<u8>,
    routing_key: Vec<u8>,
    /// `None` while there is nothing in it.
    bits: Option<u8>,
    method_end: usize,
    /// The size of the body that head and header are for, where the header has no properties; 0 otherwise.
    size: usize,
    /// The same, where it has properties that messages share.
    shared: Option<SharedHeader>,
}

#[derive(Debug)]
struct SharedHeader {
    size: usize,
    /// Whose they are. As long as this is kept nothing else has that address, and they cannot be changed where they are; and
    /// dropping it runs nobody's code.
    of: Weak<Properties>,
    /// Where the stamp's number stands, if there is a stamp.
    stamp_at: Option<usize>,
}

impl Envelope {
    /// The frame of `basic.publish` for this message.
    #[inline]
    fn method(&mut self, channel: u16, max_payload: usize, publish: &Publish<'_>) -> Result<&[u8], EncodeError> {
        if !self.is_for(publish) {
            self.address(channel, max_payload, publish)?;
        }
        Ok(self.octets.get(..self.method_end).unwrap_or_default())
    }

    /// All that stands before the body of a message that is [small](OutBuffer::is_small) and has no properties.
    #[inline(always)] // as a call: 4 % more instructions for a small publish
    fn whole(
        &mut self,
        channel: u16,
        max_payload: usize,
        publish: &Publish<'_>,
        size: usize,
    ) -> Result<&[u8], EncodeError> {
        if self.size != size || !self.is_for(publish) {
            self.head(channel, max_payload, publish, (None, None), size)?;
            self.size = size;
        }
        Ok(&self.octets)
    }

    /// The same for a message with these properties; and where the number of its stamp is to be written.
    #[inline(always)]
    fn shared(
        &mut self,
        channel: u16,
        max_payload: usize,
        publish: &Publish<'_>,
        (properties, size): (&Arc<Properties>, usize),
        stamp: Option<(&str, i64)>,
    ) -> Result<(&[u8], Option<usize>), EncodeError> {
        if let Some(shared) = &self.shared
            && shared.size == size
            && shared.of.as_ptr() == Arc::as_ptr(properties)
            && shared.stamp_at.is_some() == stamp.is_some()
            && self.is_for(publish)
        {
            return Ok((&self.octets, shared.stamp_at));
        }
        let stamp_at = self.head(channel, max_payload, publish, (Some(properties), stamp), size)?;
        self.shared = Some(SharedHeader { size, of: Arc::downgrade(properties), stamp_at });
        Ok((&self.octets, stamp_at))
    }

    #[cold]
    fn head(
        &mut self,
        channel: u16,
        max_payload: usize,
        publish: &Publish<'_>,
        header: (Option<&Properties>, Option<(&str, i64)>),
        size: usize,
    ) -> Result<Option<usize>, EncodeError> {
        self.address(channel, max_payload, publish)?;
        let stamp_at = put_header(&mut self.octets, channel, max_payload, header, size as u64)?;
        // Small bodies fit a frame.
        self.octets.extend_from_slice(&frame_head(FrameType::Body, channel, size as u32));
        Ok(stamp_at)
    }

    #[inline(always)] // as a call: 2 % more instructions for a small publish
    fn is_for(&self, publish: &Publish<'_>) -> bool {
        self.bits == Some(bits(publish))
            && same(&self.exchange, publish.exchange)
            && same(&self.routing_key, publish.routing_key)
    }

    #[cold]
    fn address(&mut self, channel: u16, max_payload: usize, publish: &Publish<'_>) -> Result<(), EncodeError> {
        let Publish { exchange, routing_key, .. } = publish;
        (self.bits, self.size, self.shared) = (None, 0, None);
        self.octets.clear();
        write_frame(&mut self.octets, FrameType::Method, channel, max_payload, "basic.publish", |out| {
            out.extend_from_slice(&[0, 60, 0, 40, 0, 0]);
            write_short_string(out, exchange, "basic.publish.exchange")?;
            write_short_string(out, routing_key, "basic.publish.routing_key")?;
            out.push(bits(publish));
            Ok(())
        })?;
        self.method_end = self.octets.len();
        self.exchange.clear();
        self.exchange.extend_from_slice(exchange);
        self.routing_key.clear();
        self.routing_key.extend_from_slice(routing_key);
        self.bits = Some(bits(publish));
        Ok(())
    }
}

/// Whether they are the same. The default exchange has the empty name, and comparing nothing is not free: a vectorised
/// `memcmp` may load from where an empty string points, under an empty mask, and pay dearly for the fault it suppresses
/// (60 ns were seen).
#[inline]
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && (one.is_empty() || one == other)
}

fn bits(publish: &Publish<'_>) -> u8 {
    u8::from(publish.mandatory) | u8::from(publish.immediate) << 1
}

#[cold]
fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the channel is not open").with_outcome(Outcome::NotSent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is remembered of one message must not leak into the next.
    #[test]
    fn an_envelope_is_used_for_its_own_address_only() {
        fn publish<'a>(exchange: &'a str, routing_key: &'a str, mandatory: bool) -> Publish<'a> {
            let (exchange, routing_key) = (exchange.as_bytes(), routing_key.as_bytes());
            let body = Body::Borrowed(b"a body");
            Publish { exchange, routing_key, mandatory, immediate: false, stamped: false, properties: None, body }
        }
        let mut envelope = Envelope::default();
        let long = "x".repeat(256);
        for next in [
            publish("", "", false),
            publish("", "", true),
            publish("ab", "c", true),
            publish("a", "bc", true),
            publish("a", "bc", true),
            publish(&long, "", false),
            publish("", &long, false),
            publish("", "a", false),
        ] {
            let used = envelope.method(1, 4096, &next).map(<[u8]>::to_vec);
            assert_eq!(used, Envelope::default().method(1, 4096, &next).map(<[u8]>::to_vec), "{next:?}");
            for body in ["a body", "a b0dy", "another body", "a"] {
                let next = Publish { body: Body::Borrowed(body.as_bytes()), ..next.clone() };
                let used = envelope.whole(1, 4096, &next, body.len());
                assert_eq!(used, Envelope::default().whole(1, 4096, &next, body.len()), "{next:?}");
            }
        }
    }

    /// Nor must what is remembered of its properties, wherever those are.
    #[test]
    fn an_envelope_is_used_for_its_own_properties_only() {
        let plain = Arc::new(Properties::new().persistent());
        let mut changed = Arc::new(Properties::new().header("k", 1i32).app_id("a"));
        let too_long = Arc::new(Properties::new().reply_to("x".repeat(256)));
        let mut envelope = Envelope::default();
        let mut check = |properties: Option<&Arc<Properties>>, stamp: Option<i64>, body: &[u8]| {
            let body = Body::Borrowed(body);
            let (exchange, routing_key): (&[u8], &[u8]) = (b"", b"k");
            let properties_ref = properties.map(PropertiesRef::Shared);
            let publish = Publish {
                exchange,
                routing_key,
                mandatory: true,
                immediate: false,
                stamped: stamp.is_some(),
                properties: properties_ref,
                body,
            };
            let stamp = stamp.map(|tag| (STAMP, tag));
            let (mut used, mut expected) = (OutBuffer::new(), OutBuffer::new());
            let octets = publish.body.as_slice();
            let head = match properties {
                Some(properties) => envelope
                    .shared(1, 4096, &publish, (properties, octets.len()), stamp)
                    .map(|(head, stamp_at)| used.put_small_stamped(head, stamp_at.zip(stamp), octets)),
                None => envelope.whole(1, 4096, &publish, octets.len()).map(|head| used.put_small(head, octets)),
            };
            let mut other = Envelope::default();
            let method = other.method(1, 4096, &publish).unwrap();
            let properties = properties.map(|properties| &**properties);
            assert_eq!(head, expected.put_message(1, 4096, method, properties, stamp, &publish.body));
            assert_eq!(used.to_vec(), expected.to_vec(), "{properties:?} {stamp:?}");
        };
        for (stamp, body) in [(None, "a"), (Some(1), "a"), (Some(2), "ab"), (None, "ab"), (Some(i64::MAX), "ab")] {
            for properties in [&plain, &plain, &changed, &too_long, &plain] {
                check(Some(properties), stamp, body.as_bytes());
                check(None, None, body.as_bytes());
                check(Some(properties), stamp, body.as_bytes());
            }
        }
        // The last one that has it changes it.
        check(Some(&changed), None, b"x");
        Arc::make_mut(&mut changed).app_id = Some("b".into());
        check(Some(&changed), None, b"x");
        // Another one, where the memory of the last one may have been.
        for n in 0..10i32 {
            check(Some(&Arc::new(Properties::new().header("n", n))), Some(n.into()), b"x");
        }
    }

    /// The short way and the usual one come to the same octets.
    #[test]
    fn a_small_message_is_written_as_any_other() {
        let octets = [7; 20_000];
        for (len, max_payload) in
            [(1, 100), (99, 100), (100, 100), (101, 100), (5000, 4096), (8191, 9000), (8192, 9000)]
        {
            let body = Body::Borrowed(&octets[..len]);
            let publish = Publish {
                exchange: b"e",
                routing_key: b"k",
                mandatory: true,
                immediate: false,
                stamped: false,
                properties: None,
                body,
            };
            let body = &publish.body;
            let (mut short, mut usual, mut envelope) = (OutBuffer::new(), OutBuffer::new(), Envelope::default());
            let method = envelope.method(3, max_payload, &publish).unwrap();
            usual.put_message(3, max_payload, method, None, None, body).unwrap();
            if OutBuffer::is_small(&octets[..len], max_payload) {
                short.put_small(envelope.whole(3, max_payload, &publish, len).unwrap(), body.as_slice());
                assert!(short.to_vec() == usual.to_vec(), "{len} of {max_payload}");
            } else {
                assert!(len > max_payload || len >= 8192, "{len} of {max_payload}");
            }
        }
    }
}
