//! Everything the broker knows, behind the one lock: virtual hosts, queues, clients.
//!
//! A [turn](State::turn) of one client's driver reads what has come from it and does it; what that means for other clients
//! goes into their machines' buffers at once, and their drivers are woken after the lock.

mod burial;
mod control;
mod script;
mod session;

pub(super) use burial::Dead;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::Waker;
use std::time::Instant;

use bytes::BytesMut;

use super::channel::{Channel, Unacked, Verdict};
use super::client::Client;
use super::death::Reason;
use super::faults;
use super::names::Names;
use super::play::Play;
use super::queue::{ConsumerId, Entry, Queue, QueueId};
use super::routing::{Destination, Exchanges};
use super::script::Script;
use super::settings::Settings;
use super::{ConnectionId, Place};
use crate::codec::method::basic;
use crate::codec::{Method, ReplyCode, ShortString};
use crate::error::Error;
use crate::protocol::server::{Event, Fault};
use crate::protocol::{Ahead, OutBuffer, Wakes};
use crate::transport::Next;

#[derive(Debug)]
pub(super) struct State {
    settings: Settings,
    pub(super) virtual_hosts: HashMap<ShortString, VirtualHost>,
    pub(super) queues: HashMap<QueueId, Queue>,
    pub(super) clients: BTreeMap<ConnectionId, Client>,
    /// Consumers of direct replies, by the name under which answers reach them.
    pub(super) replies: HashMap<ShortString, (Place, ConsumerId)>,
    pub(super) names: Names,
    last_id: u64,
    blocked: Option<ShortString>,
    hold_confirms: bool,
    pub(super) nacks_publishes: bool,
    /// For the next connections, one each.
    scripts: VecDeque<Script>,
    /// No new clients.
    stopping: bool,
    pub(super) now: Instant,
    /// When a message or a queue may expire, or sooner.
    due: Option<Instant>,
    /// Drivers to be woken, or dropped, when the lock is released.
    wakes: Wakes,
}

#[derive(Debug)]
pub(super) struct VirtualHost {
    pub(super) exchanges: Exchanges,
    pub(super) queues: HashMap<ShortString, QueueId>,
}

impl State {
    pub(super) fn new(settings: Settings, now: Instant) -> Self {
        let host = || VirtualHost { exchanges: Exchanges::predeclared(), queues: HashMap::new() };
        let virtual_hosts = settings.virtual_hosts.iter().map(|name| (name.clone(), host())).collect();
        Self {
            settings,
            virtual_hosts,
            queues: HashMap::new(),
            clients: BTreeMap::new(),
            replies: HashMap::new(),
            names: Names::default(),
            last_id: 0,
            blocked: None,
            hold_confirms: false,
            nacks_publishes: false,
            scripts: VecDeque::new(),
            stopping: false,
            now,
            due: None,
            wakes: Wakes::default(),
        }
    }

    /// A new client; `None` when the broker is shutting down.
    pub(super) fn admit(&mut self, now: Instant) -> Option<ConnectionId> {
        let id = ConnectionId(self.fresh_id());
        if self.stopping {
            return None;
        }
        let script = self.scripts.pop_front().unwrap_or_else(|| self.settings.script.clone());
        let play = (!script.steps().is_empty()).then(|| Box::new(Play::new(script)));
        self.clients.insert(id, Client::new(self.settings.machine.clone(), play, now));
        Some(id)
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn take_wakes(&mut self) -> Wakes {
        std::mem::take(&mut self.wakes)
    }

    // ------------------------------------------------------------------------------------------------- a driver's turn

    pub(super) fn turn(
        &mut self,
        id: ConnectionId,
        input: &mut BytesMut,
        output: &mut OutBuffer,
        ended: Option<Error>,
        driver: &Waker,
        now: Instant,
    ) -> Next {
        self.now = now;
        self.expire();
        let Some(client) = self.clients.get_mut(&id) else { return finished() };
        client.awake();
        let next = if client.play.is_some() {
            self.scripted_turn(id, input, output, ended, driver)
        } else {
            let taken = self.begin(id, output);
            self.read(id, input, ended.is_some());
            self.look_after(id, ended);
            self.write(id, output, taken, driver)
        };
        if next.finished {
            self.remove(id);
        }
        next
    }

    /// Before reading: what waited to be written counts no more, or a client to whom much is delivered would never be heard. Returns
    /// whether it is handed over now.
    fn begin(&mut self, id: ConnectionId, output: &mut OutBuffer) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        if std::mem::take(&mut client.paused) {
            client.machine.excuse_silence(self.now);
        }
        client.machine.take_output(output, self.now)
    }

    /// Acts on what has come, until it is used up, or too much waits to be written, or the broker is blocked.
    fn read(&mut self, id: ConnectionId, input: &mut BytesMut, last: bool) {
        while let Some(client) = self.clients.get_mut(&id) {
            if client.cut {
                return;
            }
            if client.play.as_ref().is_some_and(|play| play.has_due()) {
                self.perform(id);
                continue;
            }
            if client.is_full() && !last {
                client.paused = true;
                return;
            }
            let event = match client.held.take() {
                Some(event) => event,
                None => {
                    client.machine.feed(input, self.now);
                    let Some(event) = client.machine.next_event() else { return };
                    event
                }
            };
            if let Event::Publish(..) = &event {
                let own = client.play.as_ref().and_then(|play| play.shortage().cloned());
                if let Some(reason) = own.as_ref().or(self.blocked.as_ref()) {
                    client.tell_blocked(reason);
                    client.held = Some(event);
                    client.paused = true;
                    return;
                }
                if let Some(play) = &mut client.play {
                    play.count_publish();
                }
            }
            self.act(id, event);
        }
    }

    /// What the end of the stream and the time make of a connection.
    fn look_after(&mut self, id: ConnectionId, ended: Option<Error>) {
        if let Some(client) = self.clients.get_mut(&id) {
            if let Some(error) = ended {
                client.machine.terminate(error);
            }
            client.machine.handle_timeout(self.now);
        }
        while let Some(event) = self.clients.get_mut(&id).and_then(|client| client.machine.next_event()) {
            self.act(id, event);
        }
    }

    /// Hands over what is to be written, if nothing was `taken` before.
    fn write(&mut self, id: ConnectionId, output: &mut OutBuffer, taken: bool, driver: &Waker) -> Next {
        let Some(client) = self.clients.get_mut(&id) else { return finished() };
        if client.cut {
            output.clear();
            return finished();
        }
        if !self.hold_confirms {
            client.confirm(None);
            if client.play.is_some() {
                client.confirm_late(self.now);
            }
        }
        let taken = client.machine.take_output(output, self.now) || taken;
        if taken && std::mem::take(&mut client.congested) {
            for queue in client.consumed_queues() {
                self.serve(queue);
            }
        }
        let Some(client) = self.clients.get_mut(&id) else { return finished() };
        let more = client.machine.buffered() > 0;
        if client.machine.is_finished() && !more {
            return finished();
        }
        client.asleep(driver, &mut self.wakes);
        if taken && (more || (client.paused && client.held.is_none())) {
            // What was taken may leave at once, and nothing else would call for the rest.
            client.touch(&mut self.wakes);
        }
        let deadline = [client.machine.timeout(), self.due].into_iter().flatten().min();
        Next { deadline, read: !client.paused, ahead: Ahead::default(), finished: false }
    }

    /// The driver is gone, with or without a last turn.
    pub(super) fn forget(&mut self, id: ConnectionId, now: Instant) {
        self.now = now;
        self.end_session(id);
        self.remove(id);
    }

    fn remove(&mut self, id: ConnectionId) {
        if let Some(mut client) = self.clients.remove(&id) {
            client.forget_driver(&mut self.wakes);
        }
        // It may have been the one that would have noticed.
        if self.due.is_some()
            && let Some(client) = self.clients.values_mut().next()
        {
            client.touch(&mut self.wakes);
        }
    }

    // ---------------------------------------------------------------------------------------------------- common parts

    pub(super) fn client(&mut self, place: Place) -> Option<&mut Client> {
        self.clients.get_mut(&place.connection)
    }

    pub(super) fn channel(&mut self, place: Place) -> Option<&mut Channel> {
        self.client(place)?.channels.get_mut(&place.channel)
    }

    pub(super) fn host_name(&self, place: Place) -> ShortString {
        self.clients.get(&place.connection).map(|client| client.virtual_host.clone()).unwrap_or_default()
    }

    pub(super) fn reply(&mut self, place: Place, no_wait: bool, method: impl Into<Method>) {
        if !no_wait {
            self.send(place, method);
        }
    }

    pub(super) fn send(&mut self, place: Place, method: impl Into<Method>) {
        if let Some(client) = self.clients.get_mut(&place.connection) {
            client.machine.send(place.channel, method);
            client.touch(&mut self.wakes);
        }
    }

    /// A queue by its name; an empty one means the last that was declared on the channel (c124).
    pub(super) fn find_queue(&mut self, place: Place, name: &ShortString) -> Result<QueueId, Fault> {
        let name = self.expand(place, name)?;
        let host = self.host_name(place);
        let found = self.virtual_hosts.get(&host).and_then(|host| host.queues.get(&name)).copied();
        found.ok_or_else(|| faults::no_queue(&name, &host))
    }

    pub(super) fn expand(&mut self, place: Place, name: &ShortString) -> Result<ShortString, Fault> {
        if !name.is_empty() {
            return Ok(name.clone());
        }
        let last = self.channel(place).map(|channel| channel.last_queue.clone()).unwrap_or_default();
        if last.is_empty() {
            return Err(Fault::new(ReplyCode::NOT_FOUND, "no previously declared queue"));
        }
        Ok(last)
    }

    /// A queue that this connection may use (c129).
    pub(super) fn accessible_queue(&mut self, place: Place, name: &ShortString) -> Result<QueueId, Fault> {
        let id = self.find_queue(place, name)?;
        match self.queues.get(&id) {
            Some(queue) if queue.owner.is_some_and(|owner| owner != place.connection) => {
                Err(faults::locked(&queue.name, &queue.virtual_host))
            }
            _ => Ok(id),
        }
    }

    /// Delivers what a queue has to whoever can take it, and gives up what it does not keep.
    pub(super) fn serve(&mut self, id: QueueId) {
        let dead = self.deliver_and_trim(id);
        self.bury(dead);
    }

    fn deliver_and_trim(&mut self, id: QueueId) -> Vec<Dead> {
        let Self { queues, clients, wakes, now, .. } = self;
        let Some(queue) = queues.get_mut(&id) else { return Vec::new() };
        let mut dead = Vec::new();
        let mut give_up = |reason, entry: Entry| dead.push(Dead { queue: id, reason, message: entry.message });
        loop {
            while let Some(entry) = queue.pop_expired(*now) {
                give_up(Reason::Expired, entry);
            }
            if queue.is_empty() {
                break;
            }
            let next = queue.next_consumer(|subscriber| {
                clients.get_mut(&subscriber.place.connection).is_some_and(|client| client.can_take(subscriber))
            });
            let Some(subscriber) = next else { break };
            let Some(client) = clients.get_mut(&subscriber.place.connection) else { break };
            let Some(entry) = queue.pop() else { break };
            client.deliver(subscriber.place.channel, subscriber.id, Some(id), entry, *now);
            client.touch(wakes);
        }
        while let Some((reason, entry)) = queue.pop_surplus(*now) {
            give_up(reason, entry);
        }
        let due = queue.due();
        self.expect(due);
        dead
    }

    /// Delivers a message that is in no queue to one consumer.
    pub(super) fn deliver(&mut self, place: Place, consumer: ConsumerId, entry: Entry) {
        let now = self.now;
        if let Some(client) = self.clients.get_mut(&place.connection) {
            client.deliver(place.channel, consumer, None, entry, now);
            client.touch(&mut self.wakes);
        }
    }

    /// Removes a queue: its bindings, its messages, its consumers, who are told (c108). Returns how many messages there were.
    pub(super) fn remove_queue(&mut self, id: QueueId) -> usize {
        let Some(mut queue) = self.queues.remove(&id) else { return 0 };
        if let Some(host) = self.virtual_hosts.get_mut(&queue.virtual_host) {
            host.queues.remove(&queue.name);
            host.exchanges.remove_destination(&Destination::Queue(id));
        }
        for subscriber in queue.consumers() {
            let Some(client) = self.clients.get_mut(&subscriber.place.connection) else { continue };
            let Some(channel) = client.channels.get_mut(&subscriber.place.channel) else { continue };
            let Some(consumer) = channel.consumers.remove(&subscriber.id) else { continue };
            channel.tags.remove(&consumer.tag);
            if client.wants_cancel {
                let cancel = basic::Cancel { consumer_tag: consumer.tag, no_wait: true };
                client.machine.send(subscriber.place.channel, cancel);
                client.touch(&mut self.wakes);
            }
        }
        queue.purge()
    }

    /// Takes a consumer out of its queue; an auto-delete queue goes with its last (c130).
    pub(super) fn unsubscribe(&mut self, queue: QueueId, consumer: ConsumerId) {
        let Some(found) = self.queues.get_mut(&queue) else { return };
        found.unsubscribe(consumer);
        if found.consumers().len() > 0 {
            return;
        }
        found.touch(self.now);
        let due = found.due();
        if found.auto_delete {
            self.remove_queue(queue);
        } else {
            self.expect(due);
        }
    }

    /// Settles deliveries: they stop counting, come back where that is asked for, and make room for others.
    pub(super) fn settle(&mut self, place: Place, verdict: Verdict, deliveries: Vec<(u64, Unacked)>) {
        let (mut consumers, mut queues, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for (_, unacked) in deliveries {
            if let Some(channel) = self.channel(place) {
                channel.release(&unacked);
            }
            if let Some(id) = unacked.consumer.filter(|id| !consumers.contains(id)) {
                consumers.push(id);
            }
            if verdict == Verdict::Refuse {
                dead.push(Dead { queue: unacked.queue, reason: Reason::Rejected, message: unacked.entry.message });
            } else if verdict == Verdict::Requeue
                && let Some(queue) = self.queues.get_mut(&unacked.queue)
            {
                queue.requeue(unacked.entry);
                if !queues.contains(&unacked.queue) {
                    queues.push(unacked.queue);
                }
            }
        }
        self.bury(dead);
        if let Some(channel) = self.channel(place) {
            channel.queues_to_serve(&consumers, &mut queues);
        }
        for queue in queues {
            self.serve(queue);
        }
    }
}

fn finished() -> Next {
    Next { deadline: None, read: false, ahead: Ahead::default(), finished: true }
}
