//! What was handed to librdkafka and is not reported yet: the messages, so that they can be handed back, and what became of those
//! that nobody waits for.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, Sleep};

use super::lock;
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::message::{Cargo, Receipt, SendError, Unsent};
use crate::wakes::keep;

type Fate = Result<Receipt, SendError>;

/// The messages of one sender that are on their way.
pub(super) struct Ledger {
    state: Mutex<Flights>,
    /// Something was reported.
    progress: Notify,
}

struct Flights {
    flights: HashMap<usize, Flight>,
    next: usize,
    /// How many are with librdkafka.
    unreported: usize,
    /// What became of those that nobody waited for, in the order of sending.
    fates: BTreeMap<usize, Fate>,
    /// How many fates are kept.
    keep: usize,
    /// Set when what fails is to be handed back in the report of closing.
    returned: Option<BTreeMap<usize, Unsent>>,
}

struct Flight {
    /// Not there after it was handed back.
    cargo: Option<Cargo>,
    holder: Holder,
    /// Its place in the window, until it is reported.
    permit: Option<OwnedSemaphorePermit>,
}

/// What is not needed any more, to be dropped where no lock is held: a payload may have an owner with code of its own, and a waker may
/// be the last of a task.
#[derive(Default)]
#[must_use = "it is dropped when the lock has been released"]
struct Remains {
    waker: Option<Waker>,
    cargo: Option<Cargo>,
    fate: Option<Fate>,
    /// Why a message that nobody waits for was not accepted, for the log.
    refused: Option<Error>,
}

impl Remains {
    fn log(&self) {
        if let Some(error) = &self.refused {
            tracing::debug!(%error, "a message that nobody waits for was not accepted");
        }
    }
}

enum Holder {
    Waits(Option<Waker>),
    /// What became of it, not fetched yet.
    Settled(Fate),
    /// Nobody waits, and the next flush tells.
    Loose,
    /// Whoever waited has been told that it took too long.
    GivenUp,
}

impl Holder {
    /// Nobody waits from now on. Gives back the waker of whoever did.
    fn leave(&mut self, now: Self) -> Option<Waker> {
        match std::mem::replace(self, now) {
            Self::Waits(waker) => waker,
            Self::Settled(_) | Self::Loose | Self::GivenUp => None,
        }
    }
}

impl Ledger {
    pub(super) fn new(keep: usize) -> Self {
        let state =
            Flights { flights: HashMap::new(), next: 0, unreported: 0, fates: BTreeMap::new(), keep, returned: None };
        Self { state: Mutex::new(state), progress: Notify::new() }
    }

    /// Hands a message over by `produce`, which gets its number. Where that fails, it stays where it is, and keeps its permit.
    pub(super) fn enter(
        self: &Arc<Self>,
        cargo: &mut Cargo,
        permit: &mut Option<OwnedSemaphorePermit>,
        until: Instant,
        produce: impl FnOnce(&Cargo, usize) -> Result<()>,
    ) -> Result<Pending> {
        // The lock is held until it is written down: its report may come at once, from another thread. `produce` does not wait,
        // and so the numbers are in the order of librdkafka's queue.
        let mut state = lock(&self.state);
        let serial = state.next;
        produce(cargo, serial)?;
        state.next = state.next.wrapping_add(1);
        state.unreported += 1;
        let flight = Flight { cargo: Some(cargo.take()), holder: Holder::Waits(None), permit: permit.take() };
        state.flights.insert(serial, flight);
        Ok(Pending { ledger: Arc::clone(self), serial, until, timer: None, known: false })
    }

    /// The delivery report of a message.
    pub(super) fn report(&self, serial: usize, result: Result<Receipt>) {
        let mut state = lock(&self.state);
        let permit = state.flights.get_mut(&serial).and_then(|flight| flight.permit.take());
        state.unreported = state.unreported.saturating_sub(1);
        let mut remains = state.land(serial, result);
        drop(state);
        // Somebody else's turn, and only after this one is counted.
        drop(permit);
        remains.log();
        if let Some(waker) = remains.waker.take() {
            waker.wake();
        }
        self.progress.notify_waiters();
    }

    pub(super) fn in_flight(&self) -> usize {
        lock(&self.state).unreported
    }

    /// Waits for the next report after this was called.
    pub(super) fn progress(&self) -> Notified<'_> {
        self.progress.notified()
    }

    /// Waits until everything that was handed over is reported.
    pub(super) async fn settled(&self) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            // From here on a report is not missed.
            progress.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            progress.await;
        }
    }

    /// What became of those that nobody waited for, since this was asked last, in the order of sending.
    pub(super) fn fates(&self) -> Vec<Fate> {
        let mut state = lock(&self.state);
        let mut fates = std::mem::take(&mut state.fates);
        // These stay, and are told again when they are known.
        let loose = state.flights.iter().filter(|(_, flight)| matches!(flight.holder, Holder::Loose));
        fates.extend(loose.map(|(serial, _)| (*serial, Err(SendError::new(late())))));
        fates.into_values().collect()
    }

    /// From now on what fails is kept for [`hand_back`](Self::hand_back).
    pub(super) fn begin_to_close(&self) {
        lock(&self.state).returned.get_or_insert_default();
    }

    /// Everything that was not accepted since closing began, in the order of sending.
    pub(super) fn hand_back(&self) -> Vec<Unsent> {
        let mut state = lock(&self.state);
        let mut returned = state.returned.replace(BTreeMap::new()).unwrap_or_default();
        for (serial, flight) in &mut state.flights {
            if matches!(flight.holder, Holder::Waits(_) | Holder::Loose | Holder::GivenUp)
                && let Some(cargo) = flight.cargo.take()
            {
                returned.insert(*serial, Unsent::new(cargo, Outcome::Unknown));
            }
        }
        returned.into_values().collect()
    }
}

impl Flights {
    /// Says what became of a message to whoever wants to know.
    fn land(&mut self, serial: usize, result: Result<Receipt>) -> Remains {
        let mut remains = Remains::default();
        let Some(flight) = self.flights.get_mut(&serial) else { return remains };
        let cargo = flight.cargo.take();
        let fate = match (result, cargo) {
            (Ok(receipt), cargo) => {
                remains.cargo = cargo;
                Ok(receipt)
            }
            (Err(error), Some(cargo)) => match &mut self.returned {
                Some(returned) => {
                    returned.insert(serial, Unsent::new(cargo, error.outcome()));
                    Err(SendError::new(error))
                }
                None => Err(SendError::new(error).with_message(cargo)),
            },
            (Err(error), None) => Err(SendError::new(error)),
        };
        match &mut flight.holder {
            Holder::Waits(waker) => {
                remains.waker = waker.take();
                flight.holder = Holder::Settled(fate);
            }
            Holder::Loose => {
                self.flights.remove(&serial);
                self.keep_fate(serial, fate, &mut remains);
            }
            Holder::GivenUp => {
                self.flights.remove(&serial);
                remains.fate = Some(fate);
            }
            Holder::Settled(_) => remains.fate = Some(fate),
        }
        remains
    }

    /// And leaves the oldest, where there are too many.
    fn keep_fate(&mut self, serial: usize, fate: Fate, remains: &mut Remains) {
        remains.refused = fate.as_ref().err().map(|error| error.error().clone());
        self.fates.insert(serial, fate);
        if self.fates.len() > self.keep {
            remains.fate = self.fates.pop_first().map(|(_, fate)| fate);
        }
    }

    fn take(&mut self, serial: usize) -> Option<Fate> {
        let flight = self.flights.get(&serial)?;
        if !matches!(flight.holder, Holder::Settled(_)) {
            return None;
        }
        match self.flights.remove(&serial)?.holder {
            Holder::Settled(fate) => Some(fate),
            _ => None,
        }
    }

    /// Nobody waits for this one any more.
    fn loosen(&mut self, serial: usize) -> Remains {
        let mut remains = Remains::default();
        if let Some(fate) = self.take(serial) {
            self.keep_fate(serial, fate, &mut remains);
        } else if let Some(flight) = self.flights.get_mut(&serial) {
            remains.waker = flight.holder.leave(Holder::Loose);
        }
        remains
    }

    /// The deadline of whoever waited has passed.
    fn give_up(&mut self, serial: usize) -> (Fate, Remains) {
        let mut remains = Remains::default();
        if let Some(fate) = self.take(serial) {
            return (fate, remains);
        }
        let closing = self.returned.is_some();
        let error = SendError::new(late());
        let Some(flight) = self.flights.get_mut(&serial) else { return (Err(error), remains) };
        remains.waker = flight.holder.leave(Holder::GivenUp);
        let error = match if closing { None } else { flight.cargo.take() } {
            Some(cargo) => error.with_message(cargo),
            None => error,
        };
        (Err(error), remains)
    }
}

fn late() -> Error {
    Error::new(ErrorKind::Timeout, "the brokers did not confirm the message in time").with_outcome(Outcome::Unknown)
}

/// Somebody who waits for what becomes of a message.
pub(crate) struct Pending {
    ledger: Arc<Ledger>,
    serial: usize,
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    known: bool,
}

impl Pending {
    pub(crate) fn is_settled(&self) -> bool {
        let state = lock(&self.ledger.state);
        state.flights.get(&self.serial).is_none_or(|flight| matches!(flight.holder, Holder::Settled(_)))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Fate> {
        let mut state = lock(&self.ledger.state);
        let fate = match state.take(self.serial) {
            Some(fate) => fate,
            None => {
                let replaced = match state.flights.get_mut(&self.serial) {
                    Some(Flight { holder: Holder::Waits(waker), .. }) => keep(waker, cx.waker()),
                    _ => None,
                };
                drop(state);
                drop(replaced);
                // Where there is no tokio, there are no timers.
                if self.timer.is_none() && Handle::try_current().is_ok() {
                    self.timer = Some(Box::pin(tokio::time::sleep_until(self.until)));
                }
                let Some(timer) = &mut self.timer else { return Poll::Pending };
                std::task::ready!(timer.as_mut().poll(cx));
                let (fate, remains) = lock(&self.ledger.state).give_up(self.serial);
                drop(remains);
                fate
            }
        };
        self.known = true;
        Poll::Ready(fate)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.known {
            let remains = lock(&self.ledger.state).loosen(self.serial);
            remains.log();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::error::ErrorKind;
    use crate::message::{Message, Target};

    /// The owner of a payload, and a task: each looks at the ledger when it is dropped.
    struct Watch(Arc<Ledger>);

    impl AsRef<[u8]> for Watch {
        fn as_ref(&self) -> &[u8] {
            b"payload"
        }
    }

    impl std::task::Wake for Watch {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            assert!(self.0.state.try_lock().is_ok(), "under the lock");
        }
    }

    /// Outside of tokio there are no deadlines, and no panic.
    #[test]
    fn who_waits_outside_of_tokio_is_told() {
        let ledger = Arc::new(Ledger::new(1));
        let mut cargo = Cargo::new(Target::topic("t"), Message::new("x"));
        let mut pending = ledger.enter(&mut cargo, &mut None, Instant::now(), |_, _| Ok(())).unwrap();
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(pending.poll(cx).is_pending());
        ledger.report(0, Ok(Receipt::kafka(0, None, None, true)));
        assert!(matches!(pending.poll(cx), Poll::Ready(Ok(_))));
    }

    /// Whatever becomes of a message, in whatever order: neither it nor a waker is dropped under the lock.
    #[tokio::test]
    async fn nothing_of_the_users_is_dropped_under_the_lock() {
        for (accepted, asked, dropped_before) in (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)) {
            let ledger = Arc::new(Ledger::new(1));
            for serial in 0..3 {
                let payload = Bytes::from_owner(Watch(Arc::clone(&ledger)));
                let mut cargo = Cargo::new(Target::topic("t"), Message::new(payload));
                let until = Instant::now() + std::time::Duration::from_secs(60);
                let mut pending = ledger.enter(&mut cargo, &mut None, until, |_, _| Ok(())).unwrap();
                for _ in 0..if asked { 2 } else { 0 } {
                    let waker = Arc::new(Watch(Arc::clone(&ledger))).into();
                    assert!(pending.poll(&mut Context::from_waker(&waker)).is_pending());
                }
                let report = || {
                    let refused = Error::new(ErrorKind::Kafka, "no");
                    ledger
                        .report(serial, if accepted { Ok(Receipt::kafka(0, None, None, true)) } else { Err(refused) });
                };
                if dropped_before {
                    drop(pending);
                    report();
                } else {
                    report();
                    drop(pending);
                }
            }
            drop(ledger.fates());
            assert_eq!(Arc::strong_count(&ledger), 1, "nothing is left");
        }
    }
}
