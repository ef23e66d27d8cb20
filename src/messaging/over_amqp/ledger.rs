//! What was published and not confirmed yet: the messages, so that they can be handed back, and what became of those that nobody
//! waits for.
//!
//! A message on its way takes 80 octets here, and its payload and its properties where they are: target and channel are
//! kept once for all messages that have them.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::convert;
use super::pending::{Pending, late};
use super::targets::{Targets, Unneeded};
use crate::amqp::{Channel, Confirmation, Posted};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::message::{Cargo, Message, Receipt, SendError, SharedProperties, Target, Unsent};

pub(super) type Fate = Result<Receipt, SendError>;

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
    pub(super) ledger: Arc<Ledger>,
    /// Its place in the ledger.
    place: u32,
}

#[derive(Debug)]
struct Flights {
    /// Slots are used again, so that a steady stream of messages allocates nothing.
    slots: Vec<Slot>,
    /// The first free slot.
    free: Option<u32>,
    lanes: Vec<Known>,
    targets: Targets,
    /// The number of the next flight.
    next: u64,
    /// Nobody waits for these, in the order in which they were given up.
    loose: VecDeque<u32>,
    /// What became of those that nobody waited for.
    fates: VecDeque<(u64, Fate)>,
    /// How many fates are kept.
    keep: usize,
    /// The properties of messages that say nothing themselves.
    defaults: SharedProperties,
    /// What fails from now on stays, for the report.
    closing: bool,
}

/// What the ledger keeps of a [`Lane`].
#[derive(Debug)]
struct Known {
    /// Whoever has it may still enter messages.
    lane: Weak<Lane>,
    channel: Channel,
    number: u16,
    /// How many messages are on their way there.
    messages: usize,
    /// When the first of those was published that wait for this turn of the driver. All of them count from then: the driver has been
    /// woken for them, and asking for the time takes longer than all the rest.
    clock: Option<(u64, Instant)>,
}

#[derive(Debug)]
enum Slot {
    Free { next: Option<u32> },
    Taken(Flight),
}

/// A message on its way.
#[derive(Debug)]
struct Flight {
    tag: NonZeroU64,
    serial: u64,
    payload: Option<Bytes>,
    properties: SharedProperties,
    until: Instant,
    /// The target's place; [`HANDED_BACK`] when the message is not there any more.
    target: u32,
    lane: u32,
}

const HANDED_BACK: u32 = u32::MAX;

/// By when a message is to be confirmed.
#[derive(Clone, Copy, Debug)]
pub(in crate::messaging) enum Due {
    At(Instant),
    /// So long after it was published.
    After(Duration),
}

impl Due {
    /// When that is; where it counts from publishing, from now.
    pub(in crate::messaging) fn instant(self) -> Instant {
        match self {
            Self::At(until) => until,
            Self::After(limit) => Instant::now() + limit,
        }
    }
}

/// A message that has arrived, to be dropped where no lock is held: a payload may have an owner with code of its own.
#[derive(Debug)]
#[expect(dead_code, reason = "it is dropped, and that is all")]
struct Landed(Option<Bytes>, SharedProperties, Unneeded);

impl Ledger {
    pub(super) fn new(keep: usize, defaults: SharedProperties) -> Arc<Self> {
        let state = Flights {
            slots: Vec::new(),
            free: None,
            lanes: Vec::new(),
            targets: Targets::default(),
            next: 0,
            loose: VecDeque::new(),
            fates: VecDeque::new(),
            keep,
            defaults,
            closing: false,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, Flights> {
        // Nothing panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new channel, in place of one that nobody uses any more.
    pub(super) fn open(self: &Arc<Self>, channel: Channel) -> Arc<Lane> {
        let number = channel.number();
        let mut flights = self.lock();
        let unused = |known: &Known| known.messages == 0 && known.lane.strong_count() == 0;
        let place = flights.lanes.iter().position(unused).unwrap_or(flights.lanes.len());
        let lane = Arc::new(Lane { channel, number, ledger: Arc::clone(self), place: small(place) });
        let (channel, known) = (lane.channel.clone(), Arc::downgrade(&lane));
        let mut known = Known { lane: known, channel, number, messages: 0, clock: None };
        match flights.lanes.get_mut(place) {
            Some(old) => std::mem::swap(old, &mut known),
            None => flights.lanes.push(known),
        }
        drop(flights);
        lane
    }

    /// Lets go of what has been settled and nobody waits for, a few at a time: more than come in.
    fn reap(&self) {
        for _ in 0..4 {
            let Some((serial, fate, landed)) = self.lock().first_loose() else { return };
            drop(landed);
            if let Err(error) = &fate {
                tracing::debug!(%error, "a message that nobody waits for was not accepted");
            }
            let forgotten = self.lock().remember(serial, fate);
            drop(forgotten);
        }
    }

    /// Nobody waits for this one any more.
    pub(super) fn loosen(&self, slot: u32) {
        self.lock().loose.push_back(slot);
        self.reap();
    }

    /// What a message is waited for by, and until when.
    pub(super) fn waited_for(&self, slot: u32) -> Option<(NonZeroU64, Instant)> {
        self.lock().get(slot).map(|flight| (flight.tag, flight.until))
    }

    /// A message was acked, and not returned.
    pub(super) fn land(&self, slot: u32) {
        let landed = self.lock().land(slot);
        drop(landed);
    }

    /// The same, if it is so: the tag of the message.
    #[inline(never)]
    pub(super) fn land_if_acked(&self, slot: u32, channel: &Channel) -> Option<NonZeroU64> {
        // Dropped last, without the lock.
        let _landed;
        let mut flights = self.lock();
        let tag = flights.get(slot)?.tag;
        if !channel.inner.watermark.has_passed(tag.get()) {
            return None;
        }
        _landed = flights.land(slot);
        Some(tag)
    }

    /// A message was not accepted: gives it back. While closing, that of which the server has said nothing stays for the report.
    pub(super) fn fail(&self, slot: u32, refused: bool) -> Option<Cargo> {
        let mut flights = self.lock();
        if flights.closing && !refused {
            return None;
        }
        let cargo = flights.cargo(slot);
        let landed = flights.land(slot);
        drop(flights);
        drop(landed);
        cargo
    }

    /// What became of those that nobody waited for, since this was asked last, in the order of sending.
    pub(super) fn fates(&self) -> Vec<Fate> {
        let mut flights = self.lock();
        let mut fates: Vec<_> = flights.fates.drain(..).collect();
        let mut landed = Vec::new();
        for slot in std::mem::take(&mut flights.loose) {
            if let Some((serial, fate, remains)) = flights.settle(slot) {
                fates.push((serial, fate));
                landed.push(remains);
            } else if let Some(flight) = flights.get(slot) {
                fates.push((flight.serial, Err(SendError::new(late()))));
                flights.loose.push_back(slot);
            }
        }
        drop(flights);
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
        let slots = 0..small(flights.slots.len());
        let mut cargoes: Vec<_> = slots.filter_map(|slot| flights.hand_back(slot)).collect();
        drop(flights);
        cargoes.sort_by_key(|(serial, _)| *serial);
        cargoes.into_iter().map(|(_, cargo)| Unsent::new(cargo, Outcome::Unknown)).collect()
    }
}

impl Lane {
    /// Remembers a message that was published here.
    #[inline]
    pub(super) fn enter(self: Arc<Self>, target: &Target, message: &mut Message, posted: Posted, due: Due) -> Pending {
        match NonZeroU64::new(posted.tag) {
            Some(tag) => {
                let slot = self.note((target, message), tag, posted.turn, due);
                Pending::new(self, Some(slot))
            }
            None => Pending::new(self, None),
        }
    }

    fn note(&self, (target, message): (&Target, &mut Message), tag: NonZeroU64, turn: u64, due: Due) -> u32 {
        let mut flights = self.ledger.lock();
        let (target, unneeded) = flights.targets.enter(target);
        let until = match (due, flights.lanes.get_mut(self.place as usize)) {
            (Due::At(until), Some(lane)) => {
                lane.messages += 1;
                until
            }
            (Due::After(limit), Some(lane)) => {
                lane.messages += 1;
                lane.time_of(turn) + limit
            }
            (due, None) => due.instant(),
        };
        let serial = flights.next;
        flights.next += 1;
        let (payload, properties) = (message.payload.take(), std::mem::take(&mut message.properties));
        let slot = flights.put(Flight { tag, serial, payload, properties, until, target, lane: self.place });
        let loose = !flights.loose.is_empty();
        drop(flights);
        drop(unneeded);
        if loose {
            self.ledger.reap();
        }
        slot
    }
}

impl Known {
    /// When the messages were published that wait for this turn.
    fn time_of(&mut self, turn: u64) -> Instant {
        match self.clock {
            Some((known, time)) if known == turn => time,
            _ => {
                let now = Instant::now();
                self.clock = Some((turn, now));
                now
            }
        }
    }
}

impl Flights {
    #[inline]
    fn put(&mut self, flight: Flight) -> u32 {
        if let Some(slot) = self.free
            && let Some(place @ &mut Slot::Free { next }) = self.slots.get_mut(slot as usize)
        {
            self.free = next;
            *place = Slot::Taken(flight);
            return slot;
        }
        self.slots.push(Slot::Taken(flight));
        small(self.slots.len() - 1)
    }

    fn get(&mut self, slot: u32) -> Option<&mut Flight> {
        match self.slots.get_mut(slot as usize) {
            Some(Slot::Taken(flight)) => Some(flight),
            Some(Slot::Free { .. }) | None => None,
        }
    }

    /// A message's journey is over.
    #[inline]
    fn land(&mut self, slot: u32) -> Option<Landed> {
        let place = self.slots.get_mut(slot as usize)?;
        let Slot::Taken(flight) = place else { return None };
        if let Some(lane) = self.lanes.get_mut(flight.lane as usize) {
            lane.messages -= 1;
        }
        let (payload, properties) = (flight.payload.take(), std::mem::take(&mut flight.properties));
        let landed = Landed(payload, properties, self.targets.leave(flight.target));
        *place = Slot::Free { next: self.free };
        self.free = Some(slot);
        Some(landed)
    }

    /// A message that is still there. It leaves a copy behind, which shares everything with it.
    fn cargo(&self, slot: u32) -> Option<Cargo> {
        let Some(Slot::Taken(flight)) = self.slots.get(slot as usize) else { return None };
        let target = self.targets.get(flight.target)?.clone();
        let mut message = Message { payload: flight.payload.clone(), properties: flight.properties.clone(), key: None };
        if message.says_nothing() {
            message.inherit(&self.defaults);
        }
        Some(Cargo::new(target, message))
    }

    fn hand_back(&mut self, slot: u32) -> Option<(u64, Cargo)> {
        let &mut Flight { tag, serial, lane, .. } = self.get(slot)?;
        if self.lanes.get(lane as usize)?.channel.inner.is_settled(tag.get()) {
            return None;
        }
        let cargo = self.cargo(slot)?;
        let flight = self.get(slot)?;
        // Nothing is dropped here: the copy has it all.
        (flight.payload, flight.properties) = (None, SharedProperties::default());
        let target = std::mem::replace(&mut flight.target, HANDED_BACK);
        let _ = self.targets.leave(target);
        Some((serial, cargo))
    }

    /// What became of a message that nobody waits for, if it is known.
    fn settle(&mut self, slot: u32) -> Option<(u64, Fate, Option<Landed>)> {
        let &mut Flight { tag, serial, lane, .. } = self.get(slot)?;
        let Known { channel, number, .. } = self.lanes.get(lane as usize)?;
        let (confirmation, number) = (channel.inner.confirmation(tag.get())?, *number);
        // While closing, what fails stays for the report.
        let stays = self.closing && confirmation.is_err();
        let cargo = if stays || matches!(confirmation, Ok(Confirmation::Ack(None))) { None } else { self.cargo(slot) };
        let landed = if stays { None } else { self.land(slot) };
        Some((serial, fate(confirmation, (number, tag), || cargo), landed))
    }

    /// The first of those that nobody waits for, if it is known what became of it. If not it goes to the end of the line, so that it
    /// does not stand in the way of what other channels have confirmed.
    fn first_loose(&mut self) -> Option<(u64, Fate, Option<Landed>)> {
        let slot = self.loose.pop_front()?;
        let settled = self.settle(slot);
        if settled.is_none() {
            self.loose.push_back(slot);
        }
        settled
    }

    fn remember(&mut self, serial: u64, fate: Fate) -> Option<(u64, Fate)> {
        let forgotten = if self.fates.len() >= self.keep { self.fates.pop_front() } else { None };
        self.fates.push_back((serial, fate));
        forgotten
    }
}

/// What the server's word means for a message; `cargo` is asked for the message where it was not accepted.
pub(super) fn fate(
    confirmation: Result<Confirmation>,
    (channel, tag): (u16, NonZeroU64),
    cargo: impl FnOnce() -> Option<Cargo>,
) -> Fate {
    let (error, returned) = match confirmation {
        Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => return Ok(Receipt::amqp(channel, tag.get())),
        Ok(Confirmation::Ack(Some(returned))) => {
            (Error::returned(returned.reply_code(), returned.reply_text().as_bytes()), Some(returned))
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
    Err(match cargo() {
        Some(cargo) => error.with_message(cargo),
        None => error,
    })
}

/// There are fewer messages on their way than this can count: each takes 80 octets.
fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_on_its_way_takes_no_more_than_it_says() {
        assert_eq!((size_of::<Slot>(), size_of::<Pending>()), (80, 24));
    }
}
