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

enum Held {
    Frames(BytesMut),
    /// The script's own octets, which need not be frames.
    Verbatim(Bytes),
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
        let (octets, frames) = (self.received.octets, self.received.frames);
        self.look(|moment| match moment {
            Moment::Received(at) => at <= octets,
            Moment::FrameReceived(at) => at <= frames,
            _ => false,
        });
    }

    /// Everything that was let pass to the driver has been written.
    pub(super) fn has_written(&mut self) {
        let (octets, frames) = (self.sent.octets, self.sent.frames);
        self.look(|moment| match moment {
            Moment::Sent(at) => at <= octets,
            Moment::FrameSent(at) => at <= frames,
            _ => false,
        });
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

    /// Octets of the script's own: right where writing is, or behind all frames that wait.
    pub(super) fn say(&mut self, octets: Bytes, moment: Moment) {
        match moment {
            Moment::Sent(_) | Moment::FrameSent(_) => self.ahead.extend_from_slice(&octets),
            _ => {
                self.hold();
                self.held.push_back(Held::Verbatim(octets));
            }
        }
    }

    /// Whether something waits to be let pass.
    pub(super) fn holds_back(&self) -> bool {
        !self.ahead.is_empty() || !self.held.is_empty() || !self.outbox.is_empty()
    }

    /// Hands over what may be written now, up to the next moment, when `output` is empty. Returns whether it did.
    pub(super) fn send(&mut self, output: &mut OutBuffer, now: Instant) -> bool {
        if !output.is_empty() || !self.writing.is_open(now) {
            return false;
        }
        if self.held.is_empty() {
            self.hold();
        }
        let said = self.sent.pass_verbatim(&self.steps, self.ahead.len());
        output.put(&self.ahead.split_to(said));
        while self.ahead.is_empty()
            && let Some(first) = self.held.front_mut()
        {
            let left = match first {
                Held::Frames(octets) => {
                    let count = self.sent.pass(&self.steps, octets);
                    output.put(&octets.split_to(count));
                    octets.len()
                }
                Held::Verbatim(octets) => {
                    let count = self.sent.pass_verbatim(&self.steps, octets.len());
                    output.put(&octets.split_to(count));
                    octets.len()
                }
            };
            if left > 0 {
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
            self.held.push_back(Held::Frames(row));
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
    /// The counts of octets and of frames at which something is to be done.
    fn marks(&self, steps: &[(Moment, Act)]) -> (u64, u64) {
        let (mut octets, mut frames) = (u64::MAX, u64::MAX);
        for (moment, _) in steps {
            match (self.side, *moment) {
                (Side::Client, Moment::Received(at)) | (Side::Broker, Moment::Sent(at)) => octets = octets.min(at),
                (Side::Client, Moment::FrameReceived(at)) | (Side::Broker, Moment::FrameSent(at)) => {
                    frames = frames.min(at)
                }
                _ => {}
            }
        }
        (octets, frames)
    }

    /// Lets octets pass up to the next moment, and returns how many.
    fn pass(&mut self, steps: &[(Moment, Act)], octets: &[u8]) -> usize {
        let (octet_mark, frame_mark) = self.marks(steps);
        let mut passed = 0;
        while self.frames < frame_mark {
            let most = usize::try_from(octet_mark.saturating_sub(self.octets)).unwrap_or(usize::MAX);
            let rest = octets.get(passed..).unwrap_or_default();
            let rest = rest.get(..most).unwrap_or(rest);
            if rest.is_empty() {
                break;
            }
            let (count, is_whole) = self.walk.step(rest);
            passed += count;
            self.octets += count as u64;
            self.frames += u64::from(is_whole);
        }
        passed
    }

    /// The same of octets that are not frames.
    fn pass_verbatim(&mut self, steps: &[(Moment, Act)], count: usize) -> usize {
        let (octet_mark, frame_mark) = self.marks(steps);
        if self.frames >= frame_mark {
            return 0;
        }
        let most = usize::try_from(octet_mark.saturating_sub(self.octets)).unwrap_or(usize::MAX);
        let count = count.min(most);
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
