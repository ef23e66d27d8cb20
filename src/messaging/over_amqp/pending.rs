//! Somebody who waits for what becomes of a message.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use super::ledger::{Fate, Lane, fate};
use crate::amqp::Confirmation;
use crate::error::{Error, ErrorKind, Outcome};
use crate::message::{Receipt, SendError};

#[derive(Debug)]
pub(in crate::messaging) struct Pending {
    lane: Arc<Lane>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Where the ledger has the message.
    slot: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits,
    /// No confirm was asked for.
    Over,
    /// It has been told what became of it.
    Told,
}

impl Pending {
    /// Without a slot: no confirm was asked for.
    #[inline]
    pub(super) fn new(lane: Arc<Lane>, slot: Option<u32>) -> Self {
        let state = if slot.is_some() { State::Waits } else { State::Over };
        Self { lane, timer: None, slot: slot.unwrap_or_default(), state }
    }

    fn waited_for(&self) -> Option<(NonZeroU64, Instant)> {
        if self.state == State::Waits { self.lane.ledger.waited_for(self.slot) } else { None }
    }

    /// By when it is to be known.
    pub(in crate::messaging) fn until(&self) -> Option<Instant> {
        self.waited_for().map(|(_, until)| until)
    }

    pub(in crate::messaging) fn delivery_tag(&self) -> Option<u64> {
        self.waited_for().map(|(tag, _)| tag.get())
    }

    pub(in crate::messaging) fn is_settled(&self) -> bool {
        self.waited_for().is_none_or(|(tag, _)| self.lane.channel.inner.is_decided(tag.get()))
    }

    #[inline]
    pub(in crate::messaging) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Fate> {
        let Lane { channel, number, ledger, .. } = &*self.lane;
        // Most have been acked when somebody asks for the first time.
        if self.state == State::Waits
            && let Some(tag) = ledger.land_if_acked(self.slot, channel)
        {
            self.state = State::Told;
            return Poll::Ready(Ok(Receipt::amqp(*number, tag.get())));
        }
        self.poll_channel(cx)
    }

    #[inline(never)]
    fn poll_channel(&mut self, cx: &mut Context<'_>) -> Poll<Fate> {
        let Some((tag, until)) = self.waited_for() else {
            return Poll::Ready(match self.state {
                State::Over => Ok(Receipt::amqp(self.lane.number, 0)),
                State::Waits | State::Told => {
                    Err(SendError::new(Error::new(ErrorKind::Closed, "this has been told already")))
                }
            });
        };
        let Self { lane, slot, .. } = self;
        let Lane { channel, number, ledger, .. } = &**lane;
        let fate = match channel.inner.poll_confirm(tag.get(), cx.waker()) {
            Poll::Ready(Ok(Confirmation::Ack(None))) => {
                ledger.land(*slot);
                Ok(Receipt::amqp(*number, tag.get()))
            }
            Poll::Ready(confirmation) => {
                let refused = confirmation.is_ok();
                fate(confirmation, (*number, tag), || ledger.fail(*slot, refused))
            }
            Poll::Pending => {
                // No timer is made before somebody has to wait. And where there is no tokio, there are no timers.
                if self.timer.is_none() && Handle::try_current().is_err() {
                    return Poll::Pending;
                }
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
                ready!(timer.as_mut().poll(cx));
                channel.inner.forget_confirm(tag.get());
                let error = SendError::new(late());
                Err(match ledger.fail(*slot, false) {
                    Some(cargo) => error.with_message(cargo),
                    None => error,
                })
            }
        };
        self.state = State::Told;
        Poll::Ready(fate)
    }
}

impl Drop for Pending {
    #[inline]
    fn drop(&mut self) {
        if self.state == State::Waits {
            self.lane.ledger.loosen(self.slot);
        }
    }
}

pub(super) fn late() -> Error {
    Error::new(ErrorKind::Timeout, "the server did not confirm the message in time").with_outcome(Outcome::Unknown)
}
