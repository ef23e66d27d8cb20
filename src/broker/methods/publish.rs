//! A message's way from a client to queues, or back.

use std::sync::Arc;
use std::time::Duration;

use super::queue::REPLY_TO;
use crate::broker::Place;
use crate::broker::channel::{Channel, Mode, Routed};
use crate::broker::death::Reason;
use crate::broker::faults::{self, not_implemented, precondition};
use crate::broker::message::Message;
use crate::broker::play::Refusal;
use crate::broker::queue::{Entry, QueueId};
use crate::broker::rules::{LONGEST, Overflow};
use crate::broker::state::{Dead, State};
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
        message.read_copies()?;
        let routed = self.route(place, message, publish.mandatory)?;
        let Some(client) = self.client(place) else { return Ok(()) };
        if let Some(Channel { mode: Mode::Tx(transaction), .. }) = client.channels.get_mut(&place.channel) {
            transaction.publishes.push(routed);
            return Ok(());
        }
        let fate = client.take_fate();
        let accepted = match fate.refusal {
            None => !self.nacks_publishes && self.enqueue(place, routed),
            Some(Refusal::Nack) => false,
            Some(Refusal::Return) => {
                if routed.mandatory {
                    self.send_back(place, &routed.message);
                }
                true
            }
        };
        let now = self.now;
        if let Some(client) = self.client(place) {
            client.published(place.channel, accepted, fate.confirm, now);
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
        message.priority = properties.priority.unwrap_or(0);
        if let Some(expiration) = properties.expiration {
            let wrong = |reason| precondition(format!("invalid expiration '{expiration}': {reason}"));
            message.time_to_live = Some(milliseconds(&expiration.to_string_lossy()).map_err(wrong)?);
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
        if !exchange.is_empty() {
            let known = found.exchanges.get(exchange).ok_or_else(|| faults::no_exchange(exchange, &host))?;
            if known.internal {
                let resource = faults::exchange(exchange, &host);
                return Err(faults::refused(format!("cannot publish to internal {resource}")));
            }
        }
        let queues = self.destinations(&host, &message);
        let reply = exchange.is_empty() && self.replies.contains_key(key);
        Ok(Routed { message: Arc::new(message), queues, reply, mandatory })
    }

    /// The queues that a message goes to; none where there is no such exchange.
    pub(in crate::broker) fn destinations(&self, host: &ShortString, message: &Message) -> Vec<QueueId> {
        let Some(host) = self.virtual_hosts.get(host) else { return Vec::new() };
        let find = |key: &ShortString| match message.exchange.is_empty() {
            true => host.queues.get(key).copied().into_iter().collect(),
            false => host.exchanges.route(&message.exchange, key, &|| message.headers()),
        };
        let mut queues = find(&message.routing_key);
        for id in message.cc.iter().chain(&message.bcc).flat_map(find) {
            if !queues.contains(&id) {
                queues.push(id);
            }
        }
        queues
    }

    /// Puts a message into its queues, hands it to the consumer of an answer, or returns it (c92: at once, so that it
    /// precedes the confirm). Says whether no queue has refused it.
    pub(super) fn enqueue(&mut self, place: Place, routed: Routed) -> bool {
        let Routed { message, queues, reply, mandatory } = routed;
        let mut taken = reply && self.answer(&message);
        let (mut accepted, now) = (true, self.now);
        for id in queues {
            let Some(queue) = self.queues.get_mut(&id) else { continue };
            taken = true;
            if !queue.refuses(&message) {
                queue.push(Arc::clone(&message), now);
                self.serve(id);
                continue;
            }
            accepted = false;
            if queue.rules.overflow == Overflow::RejectPublishDlx {
                self.bury(vec![Dead { queue: id, reason: Reason::MaxLength, message: Arc::clone(&message) }]);
            }
        }
        if !taken && mandatory {
            self.send_back(place, &message);
        }
        accepted
    }

    fn send_back(&mut self, place: Place, message: &Message) {
        let returned = basic::Return {
            reply_code: ReplyCode::NO_ROUTE.0,
            reply_text: ShortString::from_static("NO_ROUTE"),
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
        };
        let now = self.now;
        if let Some(client) = self.client(place) {
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

/// A time to live, or why it is none, in RabbitMQ's words.
fn milliseconds(text: &str) -> Result<Duration, String> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let rest = digits.trim_start_matches(|char: char| char.is_ascii_digit());
    if rest.len() == digits.len() {
        return Err("no_integer".into());
    }
    if !rest.is_empty() {
        return Err(format!("{{leftover_string,\"{rest}\"}}"));
    }
    let number = match digits.trim_start_matches('0') {
        "" => "0",
        number => number,
    };
    if text.starts_with('-') && number != "0" {
        return Err(format!("{{value_negative,-{number}}}"));
    }
    let millis = number.parse().ok().filter(|millis| *millis <= LONGEST);
    millis.map(Duration::from_millis).ok_or_else(|| format!("{{value_too_large,{number}}}"))
}
