//! A message's way from a client to queues, or back.

use std::sync::Arc;
use std::time::Duration;

use super::queue::REPLY_TO;
use crate::broker::Place;
use crate::broker::channel::{Mode, Routed};
use crate::broker::faults::{self, not_implemented, precondition};
use crate::broker::message::Message;
use crate::broker::queue::{Entry, Queue, QueueId};
use crate::broker::state::State;
use crate::codec::method::basic;
use crate::codec::{ReplyCode, ShortString};
use crate::protocol::Content;
use crate::protocol::server::{Fault, Publish};

/// Dead letters that are sent on in one turn.
const MANY: usize = 64;

impl State {
    pub(in crate::broker) fn publish(&mut self, place: Place, publish: Publish, content: Content) -> Result<(), Fault> {
        // c101
        if publish.immediate {
            return Err(not_implemented("immediate=true"));
        }
        let mut message = Message::new(content);
        self.check_properties(place, &mut message)?;
        let routed = self.route(place, message, publish.mandatory)?;
        if let Some(channel) = self.channel(place)
            && let Mode::Tx(transaction) = &mut channel.mode
        {
            transaction.publishes.push(routed);
            return Ok(());
        }
        let accepted = !self.nacks_publishes && self.enqueue(place, routed);
        if let Some(client) = self.client(place) {
            client.published(place.channel, accepted);
        }
        Ok(())
    }

    /// c82, c83, c122: the properties that mean something to a broker.
    fn check_properties(&mut self, place: Place, message: &mut Message) -> Result<(), Fault> {
        let Some(properties) = message.concerning_properties() else { return Ok(()) };
        if let Some(user) = properties.user_id {
            let actual = self.client(place).map(|client| client.user.clone()).unwrap_or_default();
            if user != actual {
                let text = format!("user_id property set to '{user}' but authenticated user was '{actual}'");
                return Err(precondition(text));
            }
        }
        if let Some(expiration) = properties.expiration {
            let millis = expiration.to_str().ok().and_then(|text| text.parse().ok());
            let no_integer = || precondition(format!("invalid expiration '{expiration}': no_integer"));
            message.time_to_live = Some(Duration::from_millis(millis.ok_or_else(no_integer)?));
        }
        if properties.reply_to.is_some_and(|name| name == REPLY_TO) {
            let replies = self.channel(place).and_then(|channel| channel.replies.clone());
            let (_, name) = replies.ok_or_else(|| precondition("fast reply consumer does not exist"))?;
            // Headers that cannot be read make the message useless to whoever would answer it.
            message.set_reply_to(name).map_err(|error| Fault::from(&error))?;
        }
        Ok(())
    }

    /// c99, c100: finds the queues. The default exchange knows them by name.
    fn route(&self, place: Place, message: Message, mandatory: bool) -> Result<Routed, Fault> {
        let host = self.host_name(place);
        let Some(found) = self.virtual_hosts.get(&host) else {
            return Err(Fault::new(ReplyCode::NOT_ALLOWED, format!("vhost {host} not found")));
        };
        let (exchange, key) = (&message.exchange, &message.routing_key);
        let queues = if exchange.is_empty() {
            found.queues.get(key).copied().into_iter().collect()
        } else {
            let exchanges = &found.exchanges;
            let known = exchanges.get(exchange).ok_or_else(|| faults::no_exchange(exchange, &host))?;
            if known.internal {
                let resource = faults::exchange(exchange, &host);
                return Err(faults::refused(format!("cannot publish to internal {resource}")));
            }
            exchanges.route(exchange, key, &|| message.headers())
        };
        let reply = exchange.is_empty() && self.replies.contains_key(key);
        Ok(Routed { message: Arc::new(message), queues, reply, mandatory })
    }

    /// Puts a message into its queues, hands it to the consumer of an answer, or returns it (c92: at once, so that it
    /// precedes the confirm). Says whether no queue has refused it.
    pub(super) fn enqueue(&mut self, place: Place, routed: Routed) -> bool {
        let Routed { message, queues, reply, mandatory } = routed;
        let mut taken = reply && self.answer(&message);
        let mut accepted = true;
        let now = self.now;
        for id in queues {
            if let Some(queue) = self.queues.get_mut(&id) {
                taken = true;
                if queue.refuses() {
                    accepted = false;
                } else {
                    queue.push(Arc::clone(&message), now);
                    self.serve(id);
                }
            }
        }
        if !taken
            && mandatory
            && let Some(client) = self.client(place)
        {
            let returned = basic::Return {
                reply_code: ReplyCode::NO_ROUTE.0,
                reply_text: ShortString::from_static("NO_ROUTE"),
                exchange: message.exchange.clone(),
                routing_key: message.routing_key.clone(),
            };
            client.machine.send_content(place.channel, returned, &message.properties, &message.body, now);
        }
        accepted
    }

    /// Sends dead letters to where they go: many, and what is left in another turn.
    pub(in crate::broker) fn bury(&mut self) {
        for _ in 0..MANY {
            let Some(letter) = self.dead.next() else { return };
            let Some(host) = self.virtual_hosts.get(&letter.virtual_host) else { continue };
            let Message { exchange, routing_key, .. } = &letter.message;
            let mut queues: Vec<QueueId> = match exchange.is_empty() {
                true => host.queues.get(routing_key).copied().into_iter().collect(),
                false => host.exchanges.route(exchange, routing_key, &|| letter.message.headers()),
            };
            let queue_takes = |queue: &Queue| !queue.refuses() && !letter.goes_round(&queue.name);
            queues.retain(|id| self.queues.get(id).is_some_and(queue_takes));
            let (message, now) = (letter.into_message(), self.now);
            for id in queues {
                if let Some(queue) = self.queues.get_mut(&id) {
                    queue.push(Arc::clone(&message), now);
                    self.serve(id);
                }
            }
        }
    }

    /// Delivers an answer to whoever waits for it.
    fn answer(&mut self, message: &Arc<Message>) -> bool {
        let Some(&(place, consumer)) = self.replies.get(&message.routing_key) else { return false };
        self.deliver(place, consumer, Entry::of_no_queue(Arc::clone(message)));
        true
    }
}
