//! Publishing: admission, the delivery tag, and the frames, in one step under one lock.

use std::task::{Poll, Waker};

use super::confirms::fingerprint;
use super::wakers::Place;
use super::{ChannelId, Connection, State};
use crate::codec::{EncodeError, Properties, write_short_string};
use crate::error::{Error, ErrorKind, Outcome};
use crate::protocol::{Body, content_header};

/// A message that is to be published (`basic.publish`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publish<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    pub(crate) mandatory: bool,
    pub(crate) immediate: bool,
    pub(crate) properties: Option<&'a Properties>,
    pub(crate) body: Body<'a>,
}

/// Where a publisher waits.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// For the connection: it is blocked, paused, or has too much to write.
    Connection(Option<Place>),
    /// For the channel's window of unconfirmed messages.
    Window(Option<Place>),
}

impl Connection {
    /// Publishes a message as soon as it is admitted. The answer is its delivery tag, 0 where nothing is confirmed.
    ///
    /// An error means that nothing was sent.
    #[inline]
    pub(crate) fn poll_publish(
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
            self.publishers.wait(place, waker);
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
            confirms.waiting.wait(place, waker);
            return Poll::Pending;
        }
        *waiting = None;
        let written = self.out.put_content(
            channel.number,
            self.max_payload,
            "basic.publish",
            |out| method(out, publish),
            content_header(publish.properties),
            publish.body,
        );
        Poll::Ready(match (written, &mut channel.confirms) {
            (Err(error), _) => Err(Error::from(error).with_outcome(Outcome::NotSent)),
            (Ok(()), None) => Ok(0),
            (Ok(()), Some(confirms)) => Ok(confirms.publish(publish.mandatory.then(|| {
                let Publish { exchange, routing_key, body, .. } = publish;
                fingerprint(exchange.as_bytes(), routing_key.as_bytes(), body.as_slice())
            }))),
        })
    }

    /// A publisher no longer waits.
    pub(crate) fn leave(&mut self, id: ChannelId, waiting: Waiting) {
        match waiting {
            Waiting::Connection(Some(place)) => self.publishers.leave(place, &mut self.wakes),
            Waiting::Window(Some(place)) => {
                if let Some(confirms) = self.channel(id).and_then(|channel| channel.confirms.as_mut()) {
                    // Two fields of self, which the helper above cannot tell apart.
                    let mut wakes = Vec::new();
                    confirms.waiting.leave(place, &mut wakes);
                    self.wakes.append(&mut wakes);
                }
            }
            Waiting::Connection(None) | Waiting::Window(None) => {}
        }
    }

    /// Why a publisher has to wait, for the error of one whose deadline has passed.
    pub(crate) fn why_publishing_waits(&self) -> Error {
        match &self.blocked {
            Some(reason) => Error::new(ErrorKind::Blocked, format!("the server takes no messages: {reason}")),
            None => {
                Error::new(ErrorKind::Timeout, "no room to publish before the deadline").with_outcome(Outcome::NotSent)
            }
        }
    }
}

/// The payload of `basic.publish`.
#[inline]
fn method(out: &mut Vec<u8>, publish: &Publish<'_>) -> Result<(), EncodeError> {
    out.extend_from_slice(&[0, 60, 0, 40, 0, 0]);
    write_short_string(out, publish.exchange.as_bytes(), "basic.publish.exchange")?;
    write_short_string(out, publish.routing_key.as_bytes(), "basic.publish.routing_key")?;
    out.push(u8::from(publish.mandatory) | u8::from(publish.immediate) << 1);
    Ok(())
}

#[cold]
fn gone() -> Error {
    Error::new(ErrorKind::Closed, "the channel is not open").with_outcome(Outcome::NotSent)
}
