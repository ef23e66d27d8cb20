//! What is to go wrong on one connection, and when: data that can be written down, read again and made out of a seed.
//!
//! Nothing here acts. A script under way is a [`Play`](super::play::Play).

mod dice;
mod random;
mod text;

pub(super) use dice::Dice;
pub use text::ScriptError;

use std::time::Duration;

use bytes::Bytes;

/// What a broker does wrong on one connection: steps, each an [`Act`] and the [`Moment`] for it.
///
/// Connections get scripts from [`Broker::script`](super::Broker::script) and [`Builder::script`](super::Builder::script). A step is
/// done once. Steps whose moments come together are done in the order in which they stand; one whose moment never comes, or comes when
/// everything is said and the connection ends, is never done.
///
/// A script can be printed and parsed, so that it may stand on a command line or in the message of a test that has failed:
///
/// ```
/// use leveret::broker::{Act, Moment, Script};
///
/// let script: Script = r#"published 3: nack; frame sent 20: close connection 320 "maintenance""#.parse()?;
/// let close = Act::CloseConnection { code: 320, text: "maintenance".into() };
/// assert_eq!(script, Script::new().at(Moment::Published(3), Act::Nack).at(Moment::FrameSent(20), close));
/// assert_eq!(script.to_string().parse(), Ok(script));
/// # Ok::<(), leveret::broker::ScriptError>(())
/// ```
///
/// # The text
///
/// Steps are `MOMENT: ACT`, one to a line or with `;` between them.
///
/// | moment | |
/// |---|---|
/// | `received N`, `sent N` | [`Moment::Received`], [`Moment::Sent`] |
/// | `frame received N`, `frame sent N` | [`Moment::FrameReceived`], [`Moment::FrameSent`] |
/// | `published N`, `delivered N` | [`Moment::Published`], [`Moment::Delivered`] |
///
/// | act | |
/// |---|---|
/// | `cut` | [`Act::Cut`] |
/// | `stall reading 20ms`, `stall reading` | [`Act::StallReading`] for so long, or for ever; times are in `ns`, `us`, `ms` or `s` |
/// | `stall writing 20ms`, `stall writing` | [`Act::StallWriting`] |
/// | `send 0800000000000000ce` | [`Act::Send`], octets in hexadecimal |
/// | `close connection 320 "text"`, `close channels 406 "text"` | [`Act::CloseConnection`], [`Act::CloseChannels`] |
/// | `cancel consumers` | [`Act::CancelConsumers`] |
/// | `block "reason" 20ms`, `block "reason"` | [`Act::Block`] for so long, or until [`Broker::unblock`](super::Broker::unblock) |
/// | `nack`, `return`, `lose confirm`, `delay confirm 20ms` | [`Act::Nack`], [`Act::Return`], [`Act::LoseConfirm`], [`Act::DelayConfirm`] |
/// | `confirm together`, `confirm singly`, `confirm reversed`, `confirm shuffled SEED` | [`Act::Confirm`] |
///
/// In quoted text `\"`, `\\`, `\n` and `\r` stand for a quote, a backslash, a line feed and a carriage return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    steps: Vec<(Moment, Act)>,
}

/// When, on a connection: everything is counted from its beginning, and from 1. Number 0 is the beginning itself, before anything
/// is read or written.
///
/// What has come is acted on before the step is done, and what the broker says to it is not yet on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Moment {
    /// So many octets have come from the client, with the protocol header. The broker has acted on the whole frames among them.
    Received(u64),
    /// So many octets have been written to the client, and no more.
    Sent(u64),
    /// So many frames have come from the client. Its protocol header is none; a heartbeat is one.
    FrameReceived(u64),
    /// So many frames have been written to the client, and nothing behind them.
    FrameSent(u64),
    /// So many messages have been published, on all channels together. The last has come with all of its body.
    Published(u64),
    /// So many messages have been delivered to consumers. The last is ready to be written: a [cut](Act::Cut) now may keep it from the client.
    Delivered(u64),
}

/// Something that a broker does to a client.
///
/// Those on a message are about the one that was [published](Moment::Published) then, and at any other moment about the next that will be;
/// what is published in a transaction is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Act {
    /// Closes the stream without a word. What is not yet written is lost.
    Cut,
    /// Reads nothing for a time, or for ever (`None`): not even that the client has gone. Its silence is not held against it, but the broker
    /// still gives up on a connection that is not open after 10 s, or on a close that is not answered within 30 s.
    StallReading(Option<Duration>),
    /// Writes nothing for a time, or for ever (`None`).
    StallWriting(Option<Duration>),
    /// Writes these octets: at a moment of sending right there, if need be within a frame, otherwise between two frames.
    Send(Bytes),
    /// `connection.close` with this code and text, of which 255 octets are sent. A client that has not logged in is left without a word.
    CloseConnection {
        /// The reply code.
        code: u16,
        /// The reply text.
        text: String,
    },
    /// `channel.close` with this code and text, of which 255 octets are sent, on every open channel.
    CloseChannels {
        /// The reply code.
        code: u16,
        /// The reply text.
        text: String,
    },
    /// Ends every consumer, with `basic.cancel` to a client that wants to hear of it.
    CancelConsumers,
    /// Is short of something, as after [`Broker::block`](super::Broker::block) but for this connection alone, for a time or (`None`) until
    /// [`Broker::unblock`](super::Broker::unblock).
    Block {
        /// What the client is told, in 255 octets at most.
        reason: String,
        /// For how long.
        time: Option<Duration>,
    },
    /// On a message: it reaches no queue, and is answered with `basic.nack` on a channel with confirms.
    Nack,
    /// On a message: it reaches no queue, as if none were bound. If it is mandatory it is sent back with `basic.return` (312); then it is
    /// confirmed.
    Return,
    /// On a message: it reaches its queues, but is never confirmed.
    LoseConfirm,
    /// On a message: it is confirmed so much later, by itself. What was published behind it does not wait.
    DelayConfirm(Duration),
    /// Confirms in another way from now on, on all channels of the connection.
    Confirm(ConfirmOrder),
}

/// How messages that wait for their confirms are confirmed: those that have come with one read of the broker, mostly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfirmOrder {
    /// One `multiple` confirm for as many as it is true of, as brokers do.
    #[default]
    Together,
    /// Each by itself, in the order of publishing.
    Singly,
    /// Each by itself, the last one first.
    Reversed,
    /// Each by itself, in an order that this seed gives.
    Shuffled(u64),
}

impl Script {
    /// A script without any step.
    pub const fn new() -> Self {
        Self { steps: Vec::new() }
    }

    /// The same with one more step.
    #[must_use]
    pub fn at(mut self, moment: Moment, act: Act) -> Self {
        self.steps.push((moment, act));
        self
    }

    /// A few steps by chance: always the same for the same seed, on every platform (and perhaps others with another version of leveret).
    ///
    /// They are such as a client that connects again and publishes again lives through: losses, closes with codes of operators and of
    /// faults, refused and returned messages, lost, late and disordered confirms, cancelled consumers, and waits of 20 ms at most.
    ///
    /// ```
    /// use leveret::broker::Script;
    ///
    /// assert_eq!(Script::seeded(7), Script::seeded(7));
    /// println!("{}", Script::seeded(7));
    /// ```
    pub fn seeded(seed: u64) -> Self {
        random::script(&mut Dice::new(seed))
    }

    /// The steps, in order.
    pub fn steps(&self) -> &[(Moment, Act)] {
        &self.steps
    }

    pub(super) fn into_steps(self) -> Vec<(Moment, Act)> {
        self.steps
    }
}

impl Moment {
    pub(super) fn count(self) -> u64 {
        match self {
            Self::Received(count)
            | Self::Sent(count)
            | Self::FrameReceived(count)
            | Self::FrameSent(count)
            | Self::Published(count)
            | Self::Delivered(count) => count,
        }
    }
}
