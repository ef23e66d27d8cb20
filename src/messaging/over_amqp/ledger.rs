//! What was published and not confirmed yet: the messages, so that they can be handed back, and what became of those that nobody
//! waits for.
//!
//! A message is published and entered in one step, under the ledger's lock, and the connection's lock is taken within that: so the
//! entries of a channel are in the order of their delivery tags. Nobody is woken and nothing of the user's is dropped under it.

use std::num::NonZeroU64;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker, ready};

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::flights::{Due, Fate, Flights, fate, is_answer};
use super::pages::Timer;
use super::pending::Pending;
use crate::amqp::{BasicPublish, Channel, Confirmation, Posted, Watermark};
use crate::error::{Error, Outcome};
use crate::message::{Cargo, Receipt, SharedProperties, Unsent};

/// The messages of one sender that are on their way.
#[derive(Debug)]
pub(super) struct Ledger {
    state: Mutex<Flights>,
}

/// One channel of a sender.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) channel: Channel,
    pub(super) number: u16,
    /// The channel's, at hand.
    pub(super) watermark: Watermark,
    pub(super) ledger: Arc<Ledger>,
    /// Its place in the ledger.
    pub(super) place: u32,
    /// The tag of the message that was entered last.
    pub(super) newest: AtomicU64,
}

impl Ledger {
    /// For so many channels at a time. Of those that nobody waits for, so many fates are kept.
    pub(super) fn new(channels: usize, keep: usize, defaults: SharedProperties) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(Flights::new(channels, keep, defaults)) })
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, Flights> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the books, and drops what is not needed any more when the lock is released.
    fn with<R>(&self, act: impl FnOnce(&mut Flights) -> R) -> R {
        let mut flights = self.lock();
        let result = act(&mut flights);
        if !flights.remains.is_empty() {
            let mut remains = std::mem::take(&mut flights.remains);
            drop(flights);
            remains.clear();
            let _not_needed = self.lock().reuse(remains);
        }
        result
    }

    /// A new channel.
    pub(super) fn open(self: &Arc<Self>, channel: Channel) -> Arc<Lane> {
        let (number, watermark, ledger) = (channel.number(), channel.inner.watermark.clone(), Arc::clone(self));
        let mut flights = self.lock();
        let (place, newest) = (flights.unused(), AtomicU64::new(0));
        let lane = Arc::new(Lane { channel, number, watermark, ledger, place, newest });
        let unused = flights.open(&lane);
        drop(flights);
        drop(unused);
        lane
    }

    /// A message was handed over: releases the books, wakes who is waiting for that channel's connection, and sees to those that nobody waits
    /// for.
    #[inline]
    pub(super) fn conclude(&self, flights: MutexGuard<'_, Flights>, to_wake: Option<&Channel>) {
        let loose = flights.has_loose();
        drop(flights);
        if let Some(channel) = to_wake {
            channel.wake();
        }
        if loose {
            self.reap();
        }
    }

    /// From now on messages take this lane at this place, or have to ask for one.
    pub(super) fn set_current(&self, at: usize, lane: Option<Arc<Lane>>) {
        let _unused = self.lock().set_current(at, lane);
    }

    /// Lets go of what has been settled and nobody waits for, a few at a time: more than come in.
    #[cold]
    fn reap(&self) {
        for _ in 0..4 {
            let error = self.with(|flights| Some(flights.settle_first_loose()?.as_ref().err().cloned()));
            match error {
                Some(Some(error)) => tracing::debug!(%error, "a message that nobody waits for was not accepted"),
                Some(None) => {}
                None => return,
            }
        }
    }

    /// What became of those that nobody waited for, since this was asked last, in the order of sending.
    pub(super) fn fates(&self) -> Vec<Fate> {
        self.with(Flights::fates).into_iter().map(|(_, fate)| fate).collect()
    }

    /// From now on what fails is kept for [`hand_back`](Self::hand_back).
    pub(super) fn begin_to_close(&self) {
        let _unused = self.lock().begin_to_close();
    }

    /// Everything that the server has said nothing of, in the order of sending.
    pub(super) fn hand_back(&self) -> Vec<Unsent> {
        let cargoes = self.with(Flights::hand_back);
        cargoes.into_iter().map(|cargo| Unsent::new(cargo, Outcome::Unknown)).collect()
    }
}

impl Lane {
    /// Where the connection lives: timers there outlive the runtime of whoever waits.
    pub(super) fn runtime(&self) -> &Handle {
        self.channel.inner.guard.shared.runtime()
    }

    /// Makes a timer: outside of any runtime the connection's keeps the time.
    pub(super) fn timer<T>(&self, make: impl FnOnce() -> T) -> T {
        self.channel.inner.guard.shared.timer(make)
    }

    /// Publishes a message if there is room, and enters it; `Err(None)` says that there is none.
    pub(super) fn post(
        self: &Arc<Self>,
        publish: &mut BasicPublish<'_>,
        waker: &Waker,
        Cargo { target, message }: &Cargo,
        due: Due,
    ) -> Result<Pending, Option<Error>> {
        let mut posted = Posted::default();
        let mut flights = self.ledger.lock();
        let entered = publish.post(waker, &mut posted).map(|tag| match tag {
            0 => 0,
            tag => flights.enter(self, tag, posted.turn, (target.clone(), &mut message.clone()), due),
        });
        self.ledger.conclude(flights, posted.wakes.then_some(&self.channel));
        entered.map(|tag| Pending::new(Arc::clone(self), tag))
    }

    /// Lets go of what has been acked.
    #[inline(never)]
    pub(super) fn sweep(&self) {
        self.ledger.with(|flights| flights.sweep(self.place));
    }

    /// What became of a message; the waker is woken when that is known.
    pub(super) fn poll(&self, tag: NonZeroU64, waker: &Waker) -> Poll<Fate> {
        // In one step: what the server has said is told once, and after that the message looks as if it had been acked.
        self.ledger.with(|flights| {
            let confirmation = ready!(self.channel.inner.poll_confirm(tag.get(), waker));
            if let Ok(Confirmation::Ack(None)) = confirmation {
                flights.land(self.place, tag);
                return Poll::Ready(Ok(Receipt::amqp(self.number, tag.get())));
            }
            let refused = is_answer(&confirmation);
            let came_back = self.channel.inner.came_back(tag.get(), &confirmation);
            let cargo = || flights.fail(self.place, tag, refused);
            Poll::Ready(fate((confirmation, came_back), (self.number, tag), cargo))
        })
    }

    /// Its time is over: gives the message back.
    pub(super) fn give_up(&self, tag: NonZeroU64) -> Option<Cargo> {
        self.ledger.with(|flights| {
            self.channel.inner.forget_confirm(tag.get());
            flights.fail(self.place, tag, false)
        })
    }

    /// Nobody waits for this message any more.
    pub(super) fn loosen(&self, tag: NonZeroU64) {
        let timer = self.ledger.lock().loosen(self.place, tag);
        drop(timer);
        self.ledger.reap();
    }

    /// By when it is to be known what became of a message, while it is not.
    pub(super) fn until(&self, tag: NonZeroU64) -> Option<Instant> {
        self.ledger.lock().until(self.place, tag)
    }

    /// The timer of somebody who waits for a message, if he has one already.
    pub(super) fn take_timer(&self, tag: NonZeroU64) -> Option<Timer> {
        self.ledger.lock().timer(self.place, tag)?.take()
    }

    /// Keeps it until the next time. Nobody needs it when the message is not there any more.
    pub(super) fn keep_timer(&self, tag: NonZeroU64, timer: Timer) {
        let mut timer = Some(timer);
        if let Some(place) = self.ledger.lock().timer(self.place, tag) {
            std::mem::swap(place, &mut timer);
        }
    }
}
