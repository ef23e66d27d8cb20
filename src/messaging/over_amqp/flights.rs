//! The books of a sender: which messages are on their way on which of its channels, and what became of those that nobody waits
//! for.
//!
//! A message on its way takes 64 octets here, and its payload, properties and target where they are.
//!
//! ```text
//!   entered ──► on its way ──┬── acked ──► let go, together with others: when the newest is asked for, or some have gathered
//!                            ├── anything else ──► handed back in the error
//!                            └── nobody waits ──► loose ──► a fate, for the next flush
//! ```
//!
//! [`Ledger`](super::ledger::Ledger) has the lock around this.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::convert;
use super::ledger::Lane;
use super::pages::{Flight, Page, Pages, Timer};
use super::pending::{AT_ONCE, late};
use crate::amqp::{Channel, Confirmation, Returned};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::message::{Cargo, Message, Receipt, SendError, SharedProperties, Target};

pub(super) type Fate = Result<Receipt, SendError>;

#[derive(Debug)]
pub(super) struct Flights {
    /// The channels that messages take at present.
    current: Box<[Option<Arc<Lane>>]>,
    lanes: Vec<Known>,
    /// How many lanes there have been.
    opened: u64,
    /// From when the milliseconds of deadlines are counted.
    epoch: Instant,
    /// Nobody waits for these, in the order in which they were given up.
    loose: VecDeque<Loose>,
    /// What became of those that nobody waited for.
    fates: VecDeque<(Sent, Fate)>,
    /// How many fates are kept.
    keep: usize,
    /// The properties of messages that say nothing themselves.
    defaults: SharedProperties,
    /// What fails from now on stays, for the report.
    closing: bool,
    /// Empty pages.
    spare: Vec<Page>,
    pub(super) remains: Remains,
}

/// Where a message stands among others, in the order of sending: its lane in the order in which they were opened, and its delivery tag.
type Sent = (u64, u64);

/// What is kept of a [`Lane`].
#[derive(Debug)]
pub(super) struct Known {
    /// Whoever has it may still enter messages.
    lane: Weak<Lane>,
    channel: Channel,
    number: u16,
    /// Its number among all lanes there have been.
    order: u64,
    flights: Pages,
    /// How many messages nobody waits for, on their way or not.
    loose: usize,
    /// When the first of those was published that wait for this turn of the driver, in milliseconds. All of them count from then: the driver
    /// has been woken for them, and asking for the time takes longer than all the rest.
    clock: Option<(u64, u64)>,
}

/// A message that nobody waits for.
#[derive(Clone, Copy, Debug)]
struct Loose {
    lane: u32,
    tag: NonZeroU64,
}

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

/// What is not needed any more, to be dropped where no lock is held: a payload or a name may have an owner with code of its own.
#[derive(Debug, Default)]
pub(super) struct Remains {
    pages: Vec<Page>,
    flights: Vec<Flight>,
    fates: Vec<Fate>,
}

/// So many empty pages are kept, and room for so many messages.
const SPARE: usize = 32;

impl Remains {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.flights.is_empty() && self.fates.is_empty()
    }

    /// Drops everything but some memory that can be used again.
    pub(super) fn clear(&mut self) {
        self.pages.truncate(SPARE);
        self.pages.iter_mut().for_each(Page::clear);
        self.flights.clear();
        self.flights.shrink_to(SPARE);
        self.fates.clear();
        self.fates.shrink_to(SPARE);
    }
}

impl Flights {
    /// For so many channels at a time, and so many fates.
    pub(super) fn new(channels: usize, keep: usize, defaults: SharedProperties) -> Self {
        Self {
            current: vec![None; channels].into(),
            lanes: Vec::new(),
            opened: 0,
            epoch: Instant::now(),
            loose: VecDeque::new(),
            fates: VecDeque::new(),
            keep,
            defaults,
            closing: false,
            spare: Vec::new(),
            remains: Remains::default(),
        }
    }

    /// The place for a new lane: where nobody uses the old one any more.
    pub(super) fn unused(&self) -> u32 {
        let unused = |known: &Known| known.flights.is_empty() && known.loose == 0 && known.lane.strong_count() == 0;
        small(self.lanes.iter().position(unused).unwrap_or(self.lanes.len()))
    }

    /// A new lane, in the place of another one, which is returned.
    pub(super) fn open(&mut self, lane: &Arc<Lane>) -> Option<Known> {
        self.opened += 1;
        let known = Known {
            lane: Arc::downgrade(lane),
            channel: lane.channel.clone(),
            number: lane.number,
            order: self.opened,
            flights: Pages::default(),
            loose: 0,
            clock: None,
        };
        match self.lanes.get_mut(lane.place as usize) {
            Some(old) => Some(std::mem::replace(old, known)),
            None => {
                self.lanes.push(known);
                None
            }
        }
    }

    /// The lane that messages take at this place.
    #[inline]
    pub(super) fn current(&self, at: usize) -> Option<Arc<Lane>> {
        self.current.get(at)?.clone()
    }

    /// From now on messages take this one. What is not needed any more comes back.
    pub(super) fn set_current(&mut self, at: usize, lane: Option<Arc<Lane>>) -> Option<Arc<Lane>> {
        match self.current.get_mut(at) {
            Some(place) if !self.closing || lane.is_none() => std::mem::replace(place, lane),
            _ => lane,
        }
    }

    /// Remembers a message that was published with this tag, which is not 0; takes what it consists of. Returns the tag as a
    /// [`Pending`](super::pending::Pending) has it.
    #[inline(always)] // as publishing is
    pub(super) fn enter(
        &mut self,
        lane: &Lane,
        tag: u64,
        turn: u64,
        (target, message): (Target, &mut Message),
        due: Due,
    ) -> u64 {
        let Self { lanes, epoch, spare, .. } = self;
        let Some(known) = lanes.get_mut(lane.place as usize) else { return 0 };
        let until = match due {
            Due::At(until) => millis(until.saturating_duration_since(*epoch)) + 1,
            Due::After(limit) => known.time_of(turn, *epoch) + millis(limit),
        };
        // Filled in where it stays: what was written in pieces is not read as a whole for a while, or the processor stalls.
        let is_large = message.body().len() > SMALL;
        if let Some(flight) = known.flights.enter(tag, spare) {
            flight.payload = message.payload.take();
            flight.properties = std::mem::take(&mut message.properties);
            flight.target = Some(target);
            flight.until = until;
        }
        lane.newest.store(tag, Ordering::Relaxed);
        if is_large { tag | AT_ONCE } else { tag }
    }

    #[inline]
    pub(super) fn has_loose(&self) -> bool {
        !self.loose.is_empty()
    }

    /// Nobody waits for this one any more. The timer of who did comes back: it keeps his task.
    pub(super) fn loosen(&mut self, lane: u32, tag: NonZeroU64) -> Option<Timer> {
        let known = self.lanes.get_mut(lane as usize)?;
        known.loose += 1;
        self.loose.push_back(Loose { lane, tag });
        self.timer(lane, tag)?.take()
    }

    /// By when it is to be known what became of a message.
    pub(super) fn until(&mut self, lane: u32, tag: NonZeroU64) -> Option<Instant> {
        let (epoch, flight) = (self.epoch, self.get(lane, tag)?);
        Some(epoch + Duration::from_millis(flight.until))
    }

    /// The timer of somebody who waits for a message: to be polled where no lock is held.
    pub(super) fn timer(&mut self, lane: u32, tag: NonZeroU64) -> Option<&mut Option<Timer>> {
        self.get(lane, tag).map(|flight| &mut flight.timer)
    }

    /// Lets go of what has been acked, at the front of a lane.
    pub(super) fn sweep(&mut self, lane: u32) {
        let Self { lanes, spare, remains, .. } = self;
        let Some(Known { flights, channel, .. }) = lanes.get_mut(lane as usize) else { return };
        flights.sweep(|tag| channel.inner.watermark.has_passed(tag), spare, &mut remains.pages);
    }

    /// Takes memory that can be used again, so that a steady stream of messages allocates nothing. Gives back what is too much.
    pub(super) fn reuse(&mut self, mut cleared: Remains) -> Remains {
        let count = cleared.pages.len().min(SPARE.saturating_sub(self.spare.len()));
        self.spare.extend(cleared.pages.drain(..count));
        // As long as pages remain there, every look into the books would clear them again.
        if self.remains.is_empty() && cleared.is_empty() {
            std::mem::replace(&mut self.remains, cleared)
        } else {
            cleared
        }
    }

    /// This message's journey is over.
    pub(super) fn land(&mut self, lane: u32, tag: NonZeroU64) {
        self.remove(lane, tag);
        self.sweep(lane);
    }

    /// Takes a message out.
    fn remove(&mut self, lane: u32, tag: NonZeroU64) {
        let Some(known) = self.lanes.get_mut(lane as usize) else { return };
        let Some((flight, page)) = known.flights.take(tag.get()) else { return };
        self.remains.flights.push(flight);
        self.remains.pages.extend(page);
    }

    /// A message was not accepted: gives it back. While closing, that of which the server has said nothing stays for the report.
    pub(super) fn fail(&mut self, lane: u32, tag: NonZeroU64, refused: bool) -> Option<Cargo> {
        if self.closing && !refused {
            return None;
        }
        let cargo = self.cargo(lane, tag);
        self.land(lane, tag);
        cargo
    }

    fn get(&mut self, lane: u32, tag: NonZeroU64) -> Option<&mut Flight> {
        self.lanes.get_mut(lane as usize)?.flights.get(tag.get())
    }

    /// A message that is still there. It leaves a copy behind, which shares everything with it.
    fn cargo(&mut self, lane: u32, tag: NonZeroU64) -> Option<Cargo> {
        let Flight { payload, properties, target, .. } = self.get(lane, tag)?;
        let (payload, properties, target) = (payload.clone(), properties.clone(), target.clone()?);
        let mut message = Message { payload, properties, key: None };
        if message.says_nothing() {
            message.inherit(&self.defaults);
        }
        Some(Cargo::new(target, message))
    }

    /// What fails from now on is kept for [`hand_back`](Self::hand_back). Returns the lanes, which nothing takes any more.
    pub(super) fn begin_to_close(&mut self) -> Box<[Option<Arc<Lane>>]> {
        self.closing = true;
        std::mem::take(&mut self.current)
    }

    /// Everything that the server has said nothing of, in the order of sending.
    pub(super) fn hand_back(&mut self) -> Vec<Cargo> {
        let mut unsettled = Vec::new();
        for (lane, known) in (0..).zip(&self.lanes) {
            let open = known.flights.tags().filter(|tag| !known.channel.inner.is_answered(*tag));
            unsettled.extend(open.map(|tag| (known.order, tag, lane)));
        }
        unsettled.sort_unstable();
        let mut cargoes = Vec::with_capacity(unsettled.len());
        for (_, tag, lane) in unsettled {
            let Some(tag) = NonZeroU64::new(tag) else { continue };
            cargoes.extend(self.cargo(lane, tag));
            self.remove(lane, tag);
        }
        cargoes
    }

    /// What became of a message that nobody waits for, if it is known.
    fn settle(&mut self, Loose { lane, tag }: Loose) -> Option<(Sent, Fate)> {
        let known = self.lanes.get_mut(lane as usize)?;
        let confirmation = known.channel.inner.confirmation(tag.get())?;
        let came_back = known.channel.inner.came_back(tag.get(), &confirmation);
        let (sent, number) = ((known.order, tag.get()), known.number);
        known.loose -= 1;
        // While closing, what fails stays for the report.
        let stays = self.closing && !is_answer(&confirmation);
        let cargo = if stays || is_plain_ack(&confirmation) { None } else { self.cargo(lane, tag) };
        if !stays {
            self.land(lane, tag);
        }
        Some((sent, fate((confirmation, came_back), (number, tag), || cargo)))
    }

    /// The first of those that nobody waits for, if it is known what became of it. If not it goes to the end of the line, so that it
    /// does not stand in the way of what other channels have confirmed.
    pub(super) fn settle_first_loose(&mut self) -> Option<&Fate> {
        let first = self.loose.pop_front()?;
        let Some(fate) = self.settle(first) else {
            self.loose.push_back(first);
            return None;
        };
        if self.fates.len() >= self.keep {
            self.remains.fates.extend(self.fates.pop_front().map(|(_, fate)| fate));
        }
        self.fates.push_back(fate);
        self.fates.back().map(|(_, fate)| fate)
    }

    /// What became of those that nobody waited for, since this was asked last, in the order of sending.
    pub(super) fn fates(&mut self) -> Vec<(Sent, Fate)> {
        let mut fates: Vec<_> = self.fates.drain(..).collect();
        for loose in std::mem::take(&mut self.loose) {
            fates.extend(self.settle(loose).or_else(|| {
                self.loose.push_back(loose);
                let known = self.lanes.get(loose.lane as usize)?;
                Some(((known.order, loose.tag.get()), Err(SendError::new(late()))))
            }));
        }
        fates.sort_unstable_by_key(|(sent, _)| *sent);
        fates
    }
}

/// Payloads of more octets than this are let go as soon as they are acked.
const SMALL: usize = 1024;

impl Known {
    /// When the messages were published that wait for this turn.
    #[inline]
    fn time_of(&mut self, turn: u64, epoch: Instant) -> u64 {
        match self.clock {
            Some((known, time)) if known == turn => time,
            _ => self.read_clock(turn, epoch),
        }
    }

    #[cold]
    fn read_clock(&mut self, turn: u64, epoch: Instant) -> u64 {
        let now = millis(epoch.elapsed());
        self.clock = Some((turn, now));
        now
    }
}

/// Whole milliseconds. No limit that a sender takes is too long for them.
fn millis(time: Duration) -> u64 {
    time.as_secs() * 1000 + u64::from(time.subsec_millis())
}

/// Whether the server has said what became of a message, even if the channel has ended since.
pub(super) fn is_answer(confirmation: &Result<Confirmation>) -> bool {
    confirmation.as_ref().map_or_else(|error| error.kind() == ErrorKind::Returned, |_| true)
}

fn is_plain_ack(confirmation: &Result<Confirmation>) -> bool {
    matches!(confirmation, Ok(Confirmation::Ack(None)))
}

/// What the server's word means for a message, with what had come back of it before its channel ended; `cargo` is asked for the message
/// where it was not accepted.
pub(super) fn fate(
    (confirmation, came_back): (Result<Confirmation>, Option<Box<Returned>>),
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
        Err(error) if error.kind() == ErrorKind::Returned => (error, came_back),
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

/// A sender has had fewer channels at a time than this can count.
fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
impl Flights {
    /// How many places for messages there are, and how many lanes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.lanes.iter().map(|known| known.flights.places()).sum(), self.lanes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::super::pending::Pending;
    use super::*;

    #[test]
    fn a_message_on_its_way_takes_no_more_than_it_says() {
        assert_eq!((size_of::<Flight>(), size_of::<Pending>()), (64, 16));
    }
}
