//! A script under way on one connection: what has happened there so far, what is due because of it, and the octets that a moment holds
//! back.
//!
//! It stands between the driver and the client's machine: input is passed on up to the next moment, and no octet of the output goes to the
//! driver that a moment or a stall has not let pass. So a cut in the middle of a frame is exact, over whatever stream. No I/O, no timer: a
//! stall is one of the times at which a turn of the driver is due.

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};

use super::channel::{ConfirmTime, Due};
use super::script::{Act, ConfirmOrder, Dice, Moment, Script};
use crate::codec::ShortString;
use crate::protocol::OutBuffer;

pub(super) struct Play {
    /// What is still to come, in the order of the script.
    steps: Vec<(Moment, Act)>,
    /// Its time has come.
    due: VecDeque<(Moment, Act)>,
    received: Way,
    sent: Way,
    published: u64,
    delivered: u64,
    /// What was received and let pass, but for what the machine has used up.
    pub(super) inbox: BytesMut,
    /// What the machine has handed over.
    pub(super) outbox: OutBuffer,
    /// The script's own octets, where writing is.
    ahead: BytesMut,
    /// What is let pass to the driver bit by bit.
    held: VecDeque<Held>,
    pub(super) reading: Gate,
    pub(super) writing: Gate,
    /// The connection is short of something.
    blocked: Option<(ShortString, Gate)>,
    /// What becomes of the message that is being published, and of the next.
    fate: Fate,
    next_fate: Fate,
    order: ConfirmOrder,
    dice: Dice,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub(super) refusal: Option<Refusal>,
    pub(super) confirm: ConfirmTime,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    Nack,
    Return,
}

struct Held {
    octets: Bytes,
    /// The script's own octets, which need not be frames.
    verbatim: bool,
}

/// Whether something may go on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Gate {
    #[default]
    Open,
    ShutUntil(Instant),
    Shut,
}

/// One direction of the connection.
#[derive(Debug)]
struct Way {
    side: Side,
    octets: u64,
    frames: u64,
    walk: Walk,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Broker,
}

/// How far along its direction a moment is.
enum Mark {
    Octets(u64),
    Frames(u64),
}

/// Where one is in a row of frames. Whether they are good ones is nobody's concern here.
#[derive(Debug, Default)]
struct Walk {
    /// The client's protocol header is still to come, in whole or in part.
    greeting: bool,
    head: [u8; HEAD],
    /// Octets of `head` that have come.
    have: usize,
    /// Octets that are missing, once the head is there.
    left: u64,
}

/// Type, channel, size.
const HEAD: usize = 7;
const GREETING: u64 = 8;

impl Play {
    pub(super) fn new(script: Script) -> Self {
        let greeting = Walk { greeting: true, have: HEAD, left: GREETING, ..Walk::default() };
        let mut play = Self {
            steps: script.into_steps(),
            due: VecDeque::new(),
            received: Way { side: Side::Client, octets: 0, frames: 0, walk: greeting },
            sent: Way { side: Side::Broker, octets: 0, frames: 0, walk: Walk::default() },
            published: 0,
            delivered: 0,
            inbox: BytesMut::new(),
            outbox: OutBuffer::new(),
            ahead: BytesMut::new(),
            held: VecDeque::new(),
            reading: Gate::Open,
            writing: Gate::Open,
            blocked: None,
            fate: Fate::default(),
            next_fate: Fate::default(),
            order: ConfirmOrder::Together,
            dice: Dice::new(0),
        };
        play.look(|moment| moment.count() == 0);
        play
    }

    // ---------------------------------------------------------------------------------------------------- what is due

    /// Finds the steps whose moments have come.
    fn look(&mut self, has_come: impl Fn(Moment) -> bool) {
        self.due.extend(self.steps.extract_if(.., |(moment, _)| has_come(*moment)));
    }

    /// Everything that was let pass to the machine has been acted on.
    pub(super) fn has_acted(&mut self) {
        self.due.extend(self.steps.extract_if(.., |(moment, _)| self.received.has_reached(*moment)));
    }

    /// Everything that was let pass to the driver has been written.
    pub(super) fn has_written(&mut self) {
        self.due.extend(self.steps.extract_if(.., |(moment, _)| self.sent.has_reached(*moment)));
    }

    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    pub(super) fn next_due(&mut self) -> Option<(Moment, Act)> {
        self.due.pop_front()
    }

    /// What the connection is short of.
    pub(super) fn shortage(&self) -> Option<&ShortString> {
        self.blocked.as_ref().map(|(reason, _)| reason)
    }

    pub(super) fn block(&mut self, reason: ShortString, gate: Gate) {
        self.blocked = Some((reason, gate));
    }

    /// Returns whether it was blocked.
    pub(super) fn unblock(&mut self) -> bool {
        self.blocked.take().is_some()
    }

    /// Ends a shortage whose time is over. Returns whether it did.
    pub(super) fn unblock_in_time(&mut self, now: Instant) -> bool {
        self.blocked.take_if(|(_, gate)| gate.is_open(now)).is_some()
    }

    /// When something goes on by itself.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let blocked = self.blocked.as_ref().map(|(_, gate)| *gate).unwrap_or_default();
        [self.reading, self.writing, blocked].into_iter().filter_map(Gate::opens).min()
    }

    // ------------------------------------------------------------------------------------------------------- messages

    /// A message has come, whose [fate](Self::take_fate) is decided now.
    pub(super) fn count_publish(&mut self) {
        self.published += 1;
        self.fate = std::mem::take(&mut self.next_fate);
        let now = Moment::Published(self.published);
        let Self { steps, fate, .. } = self;
        steps.retain(|(moment, act)| *moment != now || !fate.decide(act));
        self.look(|moment| moment == now);
    }

    pub(super) fn take_fate(&mut self) -> Fate {
        std::mem::take(&mut self.fate)
    }

    /// The next message is dealt with like this, if that is an act on a message.
    pub(super) fn decide_next(&mut self, act: &Act) {
        self.next_fate.decide(act);
    }

    pub(super) fn count_delivery(&mut self) {
        self.delivered += 1;
        let now = Moment::Delivered(self.delivered);
        self.look(|moment| moment == now);
    }

    pub(super) fn set_order(&mut self, order: ConfirmOrder) {
        self.order = order;
        if let ConfirmOrder::Shuffled(seed) = order {
            self.dice = Dice::new(seed);
        }
    }

    /// Whether a `multiple` confirm may be sent.
    pub(super) fn joins_confirms(&self) -> bool {
        self.order == ConfirmOrder::Together
    }

    pub(super) fn put_in_order(&mut self, confirms: &mut [Due]) {
        match self.order {
            ConfirmOrder::Together | ConfirmOrder::Singly => {}
            ConfirmOrder::Reversed => confirms.reverse(),
            ConfirmOrder::Shuffled(_) => self.dice.shuffle(confirms),
        }
    }

    // --------------------------------------------------------------------------------------------------------- octets

    /// Moves input on to the machine's, up to the next moment. Returns whether there was any.
    pub(super) fn receive(&mut self, input: &mut BytesMut, inbox: &mut BytesMut, now: Instant) -> bool {
        if !self.reading.is_open(now) {
            return false;
        }
        let count = self.received.pass(&self.steps, input);
        inbox.extend_from_slice(input.get(..count).unwrap_or_default());
        input.advance(count);
        count > 0
    }

    /// Octets of the script's own: right where writing is, or behind the frames that are on their way.
    pub(super) fn say(&mut self, octets: Bytes, moment: Moment) {
        if self.sent.mark(moment).is_some() {
            self.ahead.extend_from_slice(&octets);
        } else if !octets.is_empty() {
            self.held.push_back(Held { octets, verbatim: true });
        }
    }

    /// Whether something waits to be let pass.
    pub(super) fn holds_back(&self) -> bool {
        !self.ahead.is_empty() || !self.held.is_empty() || !self.outbox.is_empty()
    }

    /// Hands over what may be written now, up to the next moment, when `output` is empty. Returns whether it did.
    pub(super) fn send(&mut self, output: &mut OutBuffer, now: Instant) -> bool {
        // A gate whose time is over opens also where nothing can pass yet: nobody waits for it any more.
        if !self.writing.is_open(now) || !output.is_empty() {
            return false;
        }
        if self.held.is_empty() {
            self.hold();
        }
        let said = self.sent.pass_verbatim(&self.steps, self.ahead.len());
        output.put(&self.ahead.split_to(said));
        while let Some(first) = self.held.front_mut() {
            let count = match first.verbatim {
                true => self.sent.pass_verbatim(&self.steps, first.octets.len()),
                false => self.sent.pass(&self.steps, &first.octets),
            };
            output.put(&first.octets.split_to(count));
            if !first.octets.is_empty() {
                break;
            }
            self.held.pop_front();
        }
        !output.is_empty()
    }

    /// Makes one row of what the machine has handed over.
    fn hold(&mut self) {
        let mut row = BytesMut::with_capacity(self.outbox.len());
        while !self.outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = self.outbox.slices(&mut slices);
            let before = row.len();
            slices.iter().take(filled).for_each(|slice| row.extend_from_slice(slice));
            self.outbox.advance(row.len() - before);
        }
        if !row.is_empty() {
            self.held.push_back(Held { octets: row.freeze(), verbatim: false });
        }
    }
}

impl fmt::Debug for Play {
    /// Without octets, which may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Play").field("steps", &self.steps).field("due", &self.due).finish_non_exhaustive()
    }
}

impl Fate {
    /// Returns whether the act is one on a message.
    fn decide(&mut self, act: &Act) -> bool {
        match act {
            Act::Nack => self.refusal = Some(Refusal::Nack),
            Act::Return => self.refusal = Some(Refusal::Return),
            Act::LoseConfirm => self.confirm = ConfirmTime::Never,
            Act::DelayConfirm(time) => self.confirm = ConfirmTime::After(*time),
            _ => return false,
        }
        true
    }
}

impl Gate {
    /// Shut for a time, or for ever.
    pub(super) fn shut(now: Instant, time: Option<Duration>) -> Self {
        time.and_then(|time| now.checked_add(time)).map_or(Self::Shut, Self::ShutUntil)
    }

    pub(super) fn is_open(&mut self, now: Instant) -> bool {
        if matches!(self, Self::ShutUntil(until) if *until <= now) {
            *self = Self::Open;
        }
        matches!(self, Self::Open)
    }

    fn opens(self) -> Option<Instant> {
        match self {
            Self::ShutUntil(until) => Some(until),
            Self::Open | Self::Shut => None,
        }
    }
}

impl Way {
    /// Where on this way a moment is, if it is on this one.
    fn mark(&self, moment: Moment) -> Option<Mark> {
        match (self.side, moment) {
            (Side::Client, Moment::Received(at)) | (Side::Broker, Moment::Sent(at)) => Some(Mark::Octets(at)),
            (Side::Client, Moment::FrameReceived(at)) | (Side::Broker, Moment::FrameSent(at)) => Some(Mark::Frames(at)),
            _ => None,
        }
    }

    fn has_reached(&self, moment: Moment) -> bool {
        match self.mark(moment) {
            Some(Mark::Octets(at)) => at <= self.octets,
            Some(Mark::Frames(at)) => at <= self.frames,
            None => false,
        }
    }

    /// How many octets may pass before the next moment, unless a frame ends among them.
    fn room(&self, steps: &[(Moment, Act)]) -> usize {
        let marks = steps.iter().filter_map(|(moment, _)| self.mark(*moment));
        let room = marks.map(|mark| match mark {
            Mark::Octets(at) => at.saturating_sub(self.octets),
            Mark::Frames(at) if at <= self.frames => 0,
            Mark::Frames(_) => u64::MAX,
        });
        room.min().and_then(|room| usize::try_from(room).ok()).unwrap_or(usize::MAX)
    }

    /// Lets octets pass up to the next moment, and returns how many.
    fn pass(&mut self, steps: &[(Moment, Act)], octets: &[u8]) -> usize {
        let mut passed = 0;
        loop {
            let rest = octets.get(passed..).unwrap_or_default();
            let rest = rest.get(..self.room(steps)).unwrap_or(rest);
            if rest.is_empty() {
                return passed;
            }
            let (count, is_whole) = self.walk.step(rest);
            passed += count;
            self.octets += count as u64;
            self.frames += u64::from(is_whole);
        }
    }

    /// The same of octets that are not frames.
    fn pass_verbatim(&mut self, steps: &[(Moment, Act)], count: usize) -> usize {
        let count = count.min(self.room(steps));
        self.octets += count as u64;
        count
    }
}

impl Walk {
    /// Goes to the end of the frame, if these octets, of which there is one at least, have it. Returns how many it took, and whether the
    /// frame is whole.
    fn step(&mut self, octets: &[u8]) -> (usize, bool) {
        let mut taken = 0;
        if let Some(missing) = self.head.get_mut(self.have..)
            && !missing.is_empty()
        {
            taken = missing.len().min(octets.len());
            missing.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
            self.have += taken;
            if self.have < HEAD {
                return (taken, false);
            }
            let [_, _, _, size @ ..] = self.head;
            self.left = u64::from(u32::from_be_bytes(size)) + 1;
        }
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(octets.len() - taken);
        self.left -= count as u64;
        if self.left > 0 {
            return (taken + count, false);
        }
        self.have = 0;
        (taken + count, !std::mem::take(&mut self.greeting))
    }
}
