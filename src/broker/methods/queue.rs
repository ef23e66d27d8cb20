//! Class queue: declaring, binding, purging, deleting.

use super::unimplemented_method;
use crate::broker::Place;
use crate::broker::dead::Limits;
use crate::broker::faults::{self, check_arguments, check_name, check_same, check_same_arguments, default_exchange};
use crate::broker::queue::{Queue, QueueId};
use crate::broker::routing::{Binding, Destination};
use crate::broker::state::State;
use crate::codec::method::queue::{self, Method};
use crate::codec::{FieldTable, ShortString};
use crate::protocol::server::Fault;

/// Where the consumer of direct replies consumes, and what answers' names begin with (c122).
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

impl State {
    pub(super) fn queue(&mut self, place: Place, method: Method) -> Result<(), Fault> {
        match method {
            Method::Declare(declare) => {
                let no_wait = declare.no_wait;
                let declared = self.declare_queue(place, declare)?;
                self.reply(place, no_wait, declared);
            }
            Method::Bind(queue::Bind { queue, exchange, routing_key, no_wait, arguments, .. }) => {
                self.bind_queue(place, true, &queue, &exchange, routing_key, arguments)?;
                self.reply(place, no_wait, queue::BindOk {});
            }
            Method::Unbind(queue::Unbind { queue, exchange, routing_key, arguments, .. }) => {
                self.bind_queue(place, false, &queue, &exchange, routing_key, arguments)?;
                self.send(place, queue::UnbindOk {});
            }
            Method::Purge(purge) => {
                let id = self.accessible_queue(place, &purge.queue)?;
                let message_count = count(self.queues.get_mut(&id).map_or(0, Queue::purge));
                self.reply(place, purge.no_wait, queue::PurgeOk { message_count });
            }
            Method::Delete(delete) => {
                let message_count = self.delete_queue(place, &delete)?;
                self.reply(place, delete.no_wait, queue::DeleteOk { message_count });
            }
            _ => return Err(unimplemented_method()),
        }
        Ok(())
    }

    fn declare_queue(&mut self, place: Place, declare: queue::Declare) -> Result<queue::DeclareOk, Fault> {
        let host = self.host_name(place);
        if declare.passive && declare.queue.as_bytes().starts_with(REPLY_TO.as_bytes()) {
            return self.reply_to_declared(declare.queue, &host);
        }
        let id = if declare.passive {
            self.accessible_queue(place, &declare.queue)?
        } else {
            self.declare_actively(place, &host, declare)?
        };
        let Some(queue) = self.queues.get(&id) else { return Ok(queue::DeclareOk::default()) };
        let declared = queue::DeclareOk {
            queue: queue.name.clone(),
            message_count: count(queue.len()),
            consumer_count: count(queue.consumers().len()),
        };
        if let Some(channel) = self.channel(place) {
            channel.last_queue = declared.queue.clone();
        }
        Ok(declared)
    }

    /// Asking for the pseudo queue tells whether somebody still waits for an answer.
    fn reply_to_declared(&self, name: ShortString, host: &ShortString) -> Result<queue::DeclareOk, Fault> {
        if name != REPLY_TO && !self.replies.contains_key(&name) {
            return Err(faults::no_queue(&name, host));
        }
        Ok(queue::DeclareOk { queue: name, message_count: 0, consumer_count: 1 })
    }

    fn declare_actively(
        &mut self,
        place: Place,
        host: &ShortString,
        declare: queue::Declare,
    ) -> Result<QueueId, Fault> {
        let queue::Declare { queue: name, durable, exclusive, auto_delete, arguments, .. } = declare;
        // What goes with its connection need not survive a restart.
        let durable = durable && !exclusive;
        let name = if name.is_empty() {
            self.names.fresh("amq.gen-")
        } else {
            check_name("queue", &name)?;
            name
        };
        let resource = faults::queue(&name, host);
        let owner = exclusive.then_some(place.connection);
        if let Some(id) = self.virtual_hosts.get(host).and_then(|host| host.queues.get(&name)).copied() {
            let Some(existing) = self.queues.get(&id) else { return Ok(id) };
            // c129: also when only one of the two declarations says exclusive.
            if existing.owner != owner && existing.owner != Some(place.connection) {
                return Err(faults::locked(&name, host));
            }
            check_same("durable", &resource, durable, existing.durable)?;
            check_same("auto_delete", &resource, auto_delete, existing.auto_delete)?;
            check_same_arguments(&resource, &arguments, &existing.arguments)?;
            return Ok(id);
        }
        check_arguments(&resource, &arguments)?;
        let id = QueueId(self.fresh_id());
        let mut queue = Queue::new(name.clone(), host.clone());
        queue.durable = durable;
        queue.auto_delete = auto_delete;
        queue.owner = owner;
        queue.limits = Limits::of(&arguments);
        queue.arguments = arguments;
        self.queues.insert(id, queue);
        if let Some(host) = self.virtual_hosts.get_mut(host) {
            host.queues.insert(name, id);
        }
        Ok(id)
    }

    /// c131, c133: unbinding what is not there succeeds.
    fn bind_queue(
        &mut self,
        place: Place,
        bind: bool,
        queue: &ShortString,
        exchange: &ShortString,
        key: ShortString,
        arguments: FieldTable,
    ) -> Result<(), Fault> {
        let name = self.expand(place, queue)?;
        // Where neither is named, the key is the name, too.
        let key = if queue.is_empty() && key.is_empty() { name.clone() } else { key };
        if exchange.is_empty() {
            return Err(default_exchange());
        }
        let (host, exchanges) = self.exchanges(place)?;
        let missing = exchanges.get(exchange).is_none();
        if bind && missing {
            return Err(faults::no_exchange(exchange, &host));
        }
        let queue = match self.accessible_queue(place, &name) {
            Err(fault) if fault.code == crate::codec::ReplyCode::NOT_FOUND && !bind => return Ok(()),
            found => found?,
        };
        let (_, exchanges) = self.exchanges(place)?;
        let binding = Binding { destination: Destination::Queue(queue), key, arguments };
        if bind {
            exchanges.bind(exchange, binding)
        } else {
            exchanges.unbind(exchange, &binding)
        }
        Ok(())
    }

    fn delete_queue(&mut self, place: Place, delete: &queue::Delete) -> Result<u32, Fault> {
        let id = match self.accessible_queue(place, &delete.queue) {
            // c131
            Err(fault) if fault.code == crate::codec::ReplyCode::NOT_FOUND && !delete.queue.is_empty() => {
                return Ok(0);
            }
            found => found?,
        };
        if let Some(queue) = self.queues.get(&id) {
            let resource = faults::queue(&queue.name, &queue.virtual_host);
            if delete.if_unused && queue.consumers().len() > 0 {
                return Err(faults::precondition(format!("{resource} in use")));
            }
            if delete.if_empty && !queue.is_empty() {
                return Err(faults::precondition(format!("{resource} not empty")));
            }
        }
        Ok(count(self.remove_queue(id)))
    }
}

/// A count as the wire carries it.
pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
