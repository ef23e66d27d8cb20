//! One client's connection: its machine, its channels, and the waker of its driver.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;
use std::time::Instant;

use super::channel::{Channel, ConfirmTime, Due, Mode, Unacked};
use super::play::{Fate, Play};
use super::queue::{ConsumerId, Entry, QueueId, Subscriber};
use crate::codec::method::{basic, connection};
use crate::codec::{FieldTable, ShortString};
use crate::protocol::Wakes;
use crate::protocol::server::{Config, Connection, Event, has_capability};
use crate::wakes::keep;

/// Octets that may wait for a client before nothing more is delivered to it, nor read from it.
pub(super) const FULL: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) machine: Connection,
    driver: Option<Waker>,
    /// The driver is neither awake nor about to be.
    asleep: bool,
    pub(super) virtual_host: ShortString,
    pub(super) user: ShortString,
    pub(super) channels: BTreeMap<u16, Channel>,
    pub(super) wants_cancel: bool,
    wants_blocked: bool,
    told_blocked: bool,
    /// A message that came while the broker is blocked. Nothing behind it is read (c43, c55).
    pub(super) held: Option<Event>,
    /// Something was not delivered because too much waits to be written.
    pub(super) congested: bool,
    /// Reading has stopped.
    pub(super) paused: bool,
    /// The socket is to be closed without a word.
    pub(super) cut: bool,
    /// Channels on which confirms are due.
    unconfirmed: BTreeSet<u16>,
    /// The script that it has, under way.
    pub(super) play: Option<Box<Play>>,
}

impl Client {
    pub(super) fn new(config: Config, play: Option<Box<Play>>, now: Instant) -> Self {
        Self {
            machine: Connection::new(config, now),
            driver: None,
            asleep: false,
            virtual_host: ShortString::default(),
            user: ShortString::default(),
            channels: BTreeMap::new(),
            wants_cancel: false,
            wants_blocked: false,
            told_blocked: false,
            held: None,
            congested: false,
            paused: false,
            cut: false,
            unconfirmed: BTreeSet::new(),
            play,
        }
    }

    pub(super) fn logged_in(&mut self, user: ShortString, properties: &FieldTable) {
        self.user = user;
        self.wants_cancel = has_capability(properties, "consumer_cancel_notify");
        self.wants_blocked = has_capability(properties, "connection.blocked");
        self.machine.accept_login();
    }

    pub(super) fn asleep(&mut self, driver: &Waker, wakes: &mut Wakes) {
        wakes.drop_later(keep(&mut self.driver, driver));
        self.asleep = true;
    }

    pub(super) fn awake(&mut self) {
        self.asleep = false;
    }

    /// The driver is gone.
    pub(super) fn forget_driver(&mut self, wakes: &mut Wakes) {
        wakes.drop_later(self.driver.take());
    }

    /// There is something to write, or to do: the driver is woken, once.
    pub(super) fn touch(&mut self, wakes: &mut Wakes) {
        if std::mem::take(&mut self.asleep) {
            wakes.wake(self.driver.take());
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.machine.buffered() >= FULL
    }

    /// Whether a consumer of this client may get a message now.
    pub(super) fn can_take(&mut self, subscriber: &Subscriber) -> bool {
        let room =
            self.channels.get(&subscriber.place.channel).is_some_and(|channel| channel.has_room_for(subscriber.id));
        if room && self.is_full() {
            self.congested = true;
            return false;
        }
        room
    }

    /// Delivers a message of a queue to a consumer.
    pub(super) fn deliver(&mut self, number: u16, id: ConsumerId, from: Option<QueueId>, entry: Entry, now: Instant) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let delivery_tag = channel.next_delivery_tag();
        let Some(consumer) = channel.consumers.get(&id) else { return };
        let deliver = basic::Deliver {
            consumer_tag: consumer.tag.clone(),
            delivery_tag,
            redelivered: entry.redelivered,
            exchange: entry.message.exchange.clone(),
            routing_key: entry.message.routing_key.clone(),
        };
        self.machine.send_content(number, deliver, &entry.message.properties, &entry.message.body, now);
        if !consumer.no_ack
            && let Some(queue) = from
        {
            channel.remember(delivery_tag, Unacked { queue, consumer: Some(id), entry });
        }
        if let Some(play) = &mut self.play {
            play.count_delivery();
        }
    }

    /// What becomes of the message that is being published.
    pub(super) fn take_fate(&mut self) -> Fate {
        self.play.as_mut().map(|play| play.take_fate()).unwrap_or_default()
    }

    /// A message of a confirming channel has come, and all queues that it goes to have it, or not.
    pub(super) fn published(&mut self, number: u16, accepted: bool, confirm: ConfirmTime, now: Instant) {
        if let Some(Channel { mode: Mode::Confirm(confirms), .. }) = self.channels.get_mut(&number) {
            confirms.published(accepted, confirm, now);
            self.unconfirmed.insert(number);
        }
    }

    /// Sends the confirms that are due, of one channel or of all: one ack for as many messages as were accepted in a row, unless a script
    /// wants it otherwise.
    pub(super) fn confirm(&mut self, only: Option<u16>) {
        self.unconfirmed.retain(|number| {
            if only.is_some_and(|only| only != *number) {
                return true;
            }
            if let Some(Channel { mode: Mode::Confirm(confirms), .. }) = self.channels.get_mut(number) {
                match &mut self.play {
                    None => {
                        while let Some(due) = confirms.take(true) {
                            say(&mut self.machine, *number, due);
                        }
                    }
                    Some(play) => {
                        let joined = play.joins_confirms();
                        let mut all: Vec<Due> = std::iter::from_fn(|| confirms.take(joined)).collect();
                        play.put_in_order(&mut all);
                        all.into_iter().for_each(|due| say(&mut self.machine, *number, due));
                    }
                }
            }
            false
        });
    }

    /// Sends the confirms that a script had delayed until now.
    pub(super) fn confirm_late(&mut self, now: Instant) {
        for (number, channel) in &mut self.channels {
            if let Mode::Confirm(confirms) = &mut channel.mode {
                confirms.take_late(now).into_iter().for_each(|due| say(&mut self.machine, *number, due));
            }
        }
    }

    /// When the script, or a confirm that it has delayed, goes on by itself.
    pub(super) fn play_timeout(&self) -> Option<Instant> {
        let late = self.channels.values().filter_map(|channel| match &channel.mode {
            Mode::Confirm(confirms) => confirms.next_late(),
            _ => None,
        });
        late.chain(self.play.as_ref().and_then(|play| play.timeout())).min()
    }

    /// c139: tells the client, if it wants to hear it, that messages are not read.
    pub(super) fn tell_blocked(&mut self, reason: &ShortString) {
        if self.wants_blocked && !self.told_blocked && !self.virtual_host.is_empty() {
            self.told_blocked = true;
            self.machine.send(0, connection::Blocked { reason: reason.clone() });
        }
    }

    /// c141
    pub(super) fn tell_unblocked(&mut self) {
        if std::mem::take(&mut self.told_blocked) {
            self.machine.send(0, connection::Unblocked {});
        }
    }

    /// The queues that this client consumes from.
    pub(super) fn consumed_queues(&self) -> Vec<QueueId> {
        let consumers = self.channels.values().flat_map(|channel| channel.consumers.values());
        let mut queues: Vec<QueueId> = consumers.filter_map(|consumer| consumer.queue).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }
}

fn say(machine: &mut Connection, number: u16, due: Due) {
    match due {
        Due::Ack { tag, multiple } => machine.send(number, basic::Ack { delivery_tag: tag, multiple }),
        Due::Nack { tag } => machine.send(number, basic::Nack { delivery_tag: tag, multiple: false, requeue: false }),
    }
}
