//! What was published and not confirmed yet: the messages, so that they can be handed back, and what became of those that nobody
//! waits for.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use super::convert;
use crate::amqp::{Confirm, Confirmation};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::message::{Cargo, Receipt, SendError, Unsent};

type Fate = Result<Receipt, SendError>;

/// The messages of one sender that are on their way.
#[derive(Debug)]
pub(super) struct Ledger {
    state: Mutex<Flights>,
}

#[derive(Debug)]
struct Flights {
    /// Slots are used again, so that a steady stream of messages allocates nothing.
    slots: Vec<Option<Flight>>,
    free: Vec<usize>,
    /// The number of the next flight.
    next: u64,
    /// Nobody waits for these, in the order of sending.
    loose: VecDeque<Ticket>,
    /// What became of those that nobody waited for.
    fates: VecDeque<(u64, Fate)>,
    /// How many fates are kept.
    keep: usize,
    /// What fails from now on stays, for the report.
    closing: bool,
}

/// A message on its way.
#[derive(Debug)]
struct Flight {
    serial: u64,
    channel: u16,
    confirm: Confirm,
    /// Not there after it was handed back.
    cargo: Option<Cargo>,
}

#[derive(Clone, Copy, Debug)]
struct Ticket {
    slot: usize,
    serial: u64,
}

impl Ledger {
    pub(super) fn new(keep: usize) -> Self {
        let state = Flights {
            slots: Vec::new(),
            free: Vec::new(),
            next: 0,
            loose: VecDeque::new(),
            fates: VecDeque::new(),
            keep,
            closing: false,
        };
        Self { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, Flights> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a message that was published.
    pub(super) fn enter(
        self: &Arc<Self>,
        cargo: &mut Cargo,
        channel: u16,
        confirm: Confirm,
        until: Instant,
    ) -> Pending {
        let mut flights = self.lock();
        let serial = flights.next;
        flights.next += 1;
        let flight = Flight { serial, channel, confirm, cargo: Some(cargo.take()) };
        let slot = match flights.free.pop() {
            Some(slot) => slot,
            None => {
                flights.slots.push(None);
                flights.slots.len() - 1
            }
        };
        if let Some(place) = flights.slots.get_mut(slot) {
            *place = Some(flight);
        }
        let loose = !flights.loose.is_empty();
        drop(flights);
        if loose {
            self.reap();
        }
        Pending { ledger: Arc::clone(self), ticket: Ticket { slot, serial }, until, timer: None, known: false }
    }

    /// Lets go of what has been settled and nobody waits for, a few at a time: more than come in.
    fn reap(&self) {
        for _ in 0..4 {
            let Some((serial, mut landing)) = self.lock().first_loose() else { return };
            let fate = landing.fate();
            if let Err(error) = &fate {
                tracing::debug!(%error, "a message that nobody waits for was not accepted");
            }
            self.lock().remember(serial, fate);
        }
    }

    /// Nobody waits for this one any more.
    fn loosen(&self, ticket: Ticket) {
        self.lock().loose.push_back(ticket);
        self.reap();
    }

    /// What became of those that nobody waited for, since this was asked last, in the order of sending.
    pub(super) fn fates(&self) -> Vec<Fate> {
        let mut flights = self.lock();
        let mut fates: Vec<_> = flights.fates.drain(..).collect();
        let mut landed = Vec::new();
        for ticket in std::mem::take(&mut flights.loose) {
            match flights.poll(ticket, Waker::noop()) {
                Poll::Ready(landing) => landed.push((ticket.serial, landing)),
                Poll::Pending => {
                    flights.loose.push_back(ticket);
                    fates.push((ticket.serial, Err(SendError::new(late()))));
                }
            }
        }
        drop(flights);
        fates.extend(landed.into_iter().map(|(serial, mut landing)| (serial, landing.fate())));
        fates.sort_by_key(|(serial, _)| *serial);
        fates.into_iter().map(|(_, fate)| fate).collect()
    }

    /// From now on what fails is kept for [`hand_back`](Self::hand_back).
    pub(super) fn begin_to_close(&self) {
        self.lock().closing = true;
    }

    /// Everything that the server has said nothing of, in the order of sending.
    pub(super) fn hand_back(&self) -> Vec<Unsent> {
        let mut flights = self.lock();
        let unsettled = flights.slots.iter_mut().flatten().filter(|flight| !flight.confirm.is_settled());
        let mut cargoes: Vec<_> = unsettled.filter_map(|flight| Some((flight.serial, flight.cargo.take()?))).collect();
        drop(flights);
        cargoes.sort_by_key(|(serial, _)| *serial);
        cargoes.into_iter().map(|(_, cargo)| Unsent::new(cargo, Outcome::Unknown)).collect()
    }
}

impl Flights {
    fn get(&mut self, ticket: Ticket) -> Option<&mut Flight> {
        self.slots.get_mut(ticket.slot)?.as_mut().filter(|flight| flight.serial == ticket.serial)
    }

    fn take(&mut self, ticket: Ticket) -> Option<Flight> {
        let flight = self.slots.get_mut(ticket.slot)?.take_if(|flight| flight.serial == ticket.serial)?;
        self.free.push(ticket.slot);
        Some(flight)
    }

    /// What became of a message, and the message. It is known once.
    fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Poll<Landing> {
        let closing = self.closing;
        let Some(flight) = self.get(ticket) else {
            let error = Error::new(ErrorKind::Closed, "this has been told already");
            return Poll::Ready(Landing { flight: None, confirmation: Err(error) });
        };
        let Poll::Ready(confirmation) = Pin::new(&mut flight.confirm).poll(&mut Context::from_waker(waker)) else {
            return Poll::Pending;
        };
        let stays = closing && confirmation.is_err();
        Poll::Ready(Landing { flight: if stays { None } else { self.take(ticket) }, confirmation })
    }

    /// The deadline of whoever waited has passed.
    fn give_up(&mut self, ticket: Ticket) -> SendError {
        let error = SendError::new(late());
        let cargo = if self.closing { None } else { self.take(ticket).and_then(|flight| flight.cargo) };
        match cargo {
            Some(cargo) => error.with_message(cargo),
            None => error,
        }
    }

    /// The first of those that nobody waits for, if it is known what became of it. If not it goes to the end of the line, so that it
    /// does not stand in the way of what other channels have confirmed.
    fn first_loose(&mut self) -> Option<(u64, Landing)> {
        let ticket = self.loose.pop_front()?;
        if self.get(ticket).is_none_or(|flight| flight.confirm.is_decided())
            && let Poll::Ready(landing) = self.poll(ticket, Waker::noop())
        {
            return Some((ticket.serial, landing));
        }
        self.loose.push_back(ticket);
        None
    }

    fn remember(&mut self, serial: u64, fate: Fate) {
        if self.fates.len() >= self.keep {
            self.fates.pop_front();
        }
        self.fates.push_back((serial, fate));
    }
}

/// A message whose journey is over. What it was is dropped without a lock: a payload may have an owner with code of its own.
#[derive(Debug)]
struct Landing {
    flight: Option<Flight>,
    confirmation: Result<Confirmation>,
}

impl Landing {
    fn fate(&mut self) -> Fate {
        let confirmation = std::mem::replace(&mut self.confirmation, Ok(Confirmation::NotRequested));
        let (error, returned) = match confirmation {
            Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => {
                let (channel, tag) =
                    self.flight.as_ref().map_or((0, 0), |flight| (flight.channel, flight.confirm.delivery_tag()));
                return Ok(Receipt::amqp(channel, tag));
            }
            Ok(Confirmation::Ack(Some(returned))) => {
                let error = Error::returned(returned.reply_code(), returned.reply_text().as_bytes());
                (error, Some(returned))
            }
            Ok(Confirmation::Nack(returned)) => {
                let message = "the server did not take responsibility for the message";
                (Error::new(ErrorKind::Nacked, message).with_outcome(Outcome::Refused), returned)
            }
            Err(error) => (error.with_outcome(Outcome::Unknown), None),
        };
        let mut error = SendError::new(error);
        if let Some(returned) = returned {
            error = error.with_returned(convert::returned(&returned));
        }
        Err(match self.flight.as_mut().and_then(|flight| flight.cargo.take()) {
            Some(cargo) => error.with_message(cargo),
            None => error,
        })
    }
}

fn late() -> Error {
    Error::new(ErrorKind::Timeout, "the server did not confirm the message in time").with_outcome(Outcome::Unknown)
}

/// Somebody who waits for what becomes of a message.
#[derive(Debug)]
pub(in crate::messaging) struct Pending {
    ledger: Arc<Ledger>,
    ticket: Ticket,
    until: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    known: bool,
}

impl Pending {
    pub(in crate::messaging) fn delivery_tag(&self) -> Option<u64> {
        self.ledger.lock().get(self.ticket).map(|flight| flight.confirm.delivery_tag())
    }

    pub(in crate::messaging) fn is_settled(&self) -> bool {
        self.ledger.lock().get(self.ticket).is_none_or(|flight| flight.confirm.is_decided())
    }

    pub(in crate::messaging) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Fate> {
        let polled = self.ledger.lock().poll(self.ticket, cx.waker());
        let fate = match polled {
            Poll::Ready(mut landing) => landing.fate(),
            Poll::Pending => {
                // Most messages are confirmed when somebody asks for the first time: no timer is made for those. And where there is
                // no tokio, there are no timers.
                if self.timer.is_none() && Handle::try_current().is_err() {
                    return Poll::Pending;
                }
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.until)));
                std::task::ready!(timer.as_mut().poll(cx));
                Err(self.ledger.lock().give_up(self.ticket))
            }
        };
        self.known = true;
        Poll::Ready(fate)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.known {
            self.ledger.loosen(self.ticket);
        }
    }
}
