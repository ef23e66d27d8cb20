//! A message's way from a client to queues, or back.

use std::sync::Arc;

use super::queue::REPLY_TO;
use crate::broker::Place;
use crate::broker::channel::{Mode, Routed};
use crate::broker::faults::{self, not_implemented, precondition};
use crate::broker::message::Message;
use crate::broker::queue::Entry;
use crate::broker::state::State;
use crate::codec::method::basic;
use crate::codec::{ReplyCode, ShortString};
use crate::protocol::Content;
use crate::protocol::server::{Fault, Publish};

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
        self.enqueue(place, routed);
        if let Some(client) = self.client(place) {
            client.accepted(place.channel);
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
        if let Some(expiration) = properties.expiration
            && !expiration.to_str().is_ok_and(|text| text.parse::<u64>().is_ok())
        {
            return Err(precondition(format!("invalid expiration '{expiration}': no_integer")));
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
    /// precedes the confirm).
    pub(super) fn enqueue(&mut self, place: Place, routed: Routed) {
        let Routed { message, queues, reply, mandatory } = routed;
        let mut taken = reply && self.answer(&message);
        for id in queues {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.push(Arc::clone(&message));
                self.serve(id);
                taken = true;
            }
        }
        let now = self.now;
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
    }

    /// Delivers an answer to whoever waits for it.
    fn answer(&mut self, message: &Arc<Message>) -> bool {
        let Some(&(place, consumer)) = self.replies.get(&message.routing_key) else { return false };
        self.deliver(place, consumer, Entry::of_no_queue(Arc::clone(message)));
        true
    }
}
