//! Somebody who waits for what becomes of a message.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::time::Sleep;

use super::flights::Fate;
use super::ledger::Lane;
use super::pages;
use crate::error::{Error, ErrorKind, Outcome};
use crate::message::{Receipt, SendError};

/// Two words, which are handed on in registers: what is larger, and was just written, is not moved for free.
#[derive(Debug)]
pub(in crate::messaging) struct Pending {
    lane: Arc<Lane>,
    /// The delivery tag, 0 where no confirm was asked for; and [`TOLD`] and [`AT_ONCE`], with which it is beyond every watermark.
    tag: u64,
}

/// It has been told what became of it.
const TOLD: u64 = 1 << 63;

/// The message is to be let go as soon as it is acked: it is large, or has a timer, which keeps the task of who waits.
pub(super) const AT_ONCE: u64 = 1 << 62;

impl Pending {
    #[inline]
    pub(super) fn new(lane: Arc<Lane>, tag: u64) -> Self {
        Self { lane, tag }
    }

    fn tag(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.tag & !(TOLD | AT_ONCE))
    }

    /// Where the connection lives.
    pub(in crate::messaging) fn runtime(&self) -> &Handle {
        self.lane.runtime()
    }

    fn is_told(&self) -> bool {
        self.tag & TOLD != 0
    }

    pub(in crate::messaging) fn delivery_tag(&self) -> Option<u64> {
        self.tag().map(NonZeroU64::get)
    }

    pub(in crate::messaging) fn is_settled(&self) -> bool {
        self.is_told() || self.tag().is_none_or(|tag| self.lane.channel.inner.is_decided(tag.get()))
    }

    /// What became of the message. Whoever has a place for a timer spares the books one of their own.
    #[inline]
    pub(in crate::messaging) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timer: Option<Pin<&mut Option<Sleep>>>,
    ) -> Poll<Fate> {
        let tag = self.tag;
        // Most have been acked when somebody asks for the first time.
        if self.lane.watermark.has_passed(tag) {
            self.tag |= TOLD;
            // Those that are not large are let go when a page of them has gathered, or when the newest has been acked.
            if pages::ends_page(tag) || tag == self.lane.newest.load(Ordering::Relaxed) {
                self.lane.sweep();
            }
        } else {
            match self.poll_channel(cx, timer) {
                Ok(()) => {}
                Err(Some(error)) => return Poll::Ready(Err(error)),
                Err(None) => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(Receipt::amqp(self.lane.number, tag & !(TOLD | AT_ONCE))))
    }

    /// Asks the channel; `Err(None)` says that nothing is known yet. Not a `Poll` of a receipt, which is larger, and would not come back in
    /// registers.
    #[inline(never)]
    fn poll_channel(
        &mut self,
        cx: &mut Context<'_>,
        timer: Option<Pin<&mut Option<Sleep>>>,
    ) -> Result<(), Option<SendError>> {
        let Some(tag) = self.tag() else { return Ok(()) };
        if self.is_told() {
            return Err(Some(SendError::new(Error::new(ErrorKind::Closed, "this has been told already"))));
        }
        let fate = match self.lane.poll(tag, cx.waker()) {
            Poll::Ready(fate) => fate.map(drop),
            Poll::Pending if self.poll_timer(tag, cx, timer).is_pending() => return Err(None),
            Poll::Pending => {
                let error = SendError::new(late());
                Err(match self.lane.give_up(tag) {
                    Some(cargo) => error.with_message(cargo),
                    None => error,
                })
            }
        };
        self.tag |= TOLD;
        fate.map_err(Some)
    }

    /// Ready when its time is over.
    fn poll_timer(
        &mut self,
        tag: NonZeroU64,
        cx: &mut Context<'_>,
        timer: Option<Pin<&mut Option<Sleep>>>,
    ) -> Poll<()> {
        // No timer is made before somebody has to wait.
        let new = || {
            let until = self.lane.until(tag)?;
            Some(self.lane.timer(|| tokio::time::sleep_until(until)))
        };
        if let Some(mut timer) = timer {
            if timer.is_none() {
                timer.set(new());
            }
            return timer.as_pin_mut().map_or(Poll::Pending, |timer| timer.poll(cx));
        }
        // This one is kept, and may be polled on another runtime when the first has ended.
        let kept = || {
            let _inside = self.lane.runtime().enter();
            new().map(Box::pin)
        };
        let Some(mut timer) = self.lane.take_timer(tag).or_else(kept) else { return Poll::Pending };
        let polled = timer.as_mut().poll(cx);
        if polled.is_pending() {
            self.lane.keep_timer(tag, timer);
            self.tag |= AT_ONCE;
        }
        polled
    }
}

impl Drop for Pending {
    #[inline]
    fn drop(&mut self) {
        if !self.is_told()
            && let Some(tag) = self.tag()
        {
            self.lane.loosen(tag);
        }
    }
}

pub(super) fn late() -> Error {
    Error::new(ErrorKind::Timeout, "the server did not confirm the message in time").with_outcome(Outcome::Unknown)
}
