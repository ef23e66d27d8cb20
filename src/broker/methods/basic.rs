//! Class basic but for publishing: limits, consumers, fetching, settling.

use super::queue::{REPLY_TO, count};
use super::unimplemented_method;
use crate::broker::Place;
use crate::broker::channel::{Consumer, Mode, Unacked, Verdict};
use crate::broker::faults::{self, not_implemented, precondition};
use crate::broker::queue::{ConsumerId, QueueId, Subscriber};
use crate::broker::rules;
use crate::broker::state::State;
use crate::codec::method::basic::{self, Method};
use crate::codec::{ReplyCode, ShortString};
use crate::protocol::server::Fault;

impl State {
    pub(super) fn basic(&mut self, place: Place, method: Method) -> Result<(), Fault> {
        match method {
            Method::Qos(qos) => self.qos(place, &qos),
            Method::Consume(consume) => self.consume(place, consume),
            Method::Cancel(cancel) => {
                let queue = self.cancel(place, &cancel.consumer_tag);
                self.reply(place, cancel.no_wait, basic::CancelOk { consumer_tag: cancel.consumer_tag });
                // It may be somebody else's turn now.
                queue.into_iter().for_each(|queue| self.serve(queue));
                Ok(())
            }
            // The answer to a cancel of ours, which asks for none.
            Method::CancelOk(_) => Ok(()),
            Method::Get(get) => self.get(place, &get),
            Method::Ack(basic::Ack { delivery_tag, multiple }) => {
                self.judge(place, delivery_tag, multiple, Verdict::Done)
            }
            Method::Nack(basic::Nack { delivery_tag, multiple, requeue }) => {
                self.judge(place, delivery_tag, multiple, verdict(requeue))
            }
            Method::Reject(basic::Reject { delivery_tag, requeue }) => {
                self.judge(place, delivery_tag, false, verdict(requeue))
            }
            Method::Recover(basic::Recover { requeue }) => self.recover(place, requeue, true),
            Method::RecoverAsync(basic::RecoverAsync { requeue }) => self.recover(place, requeue, false),
            _ => Err(unimplemented_method()),
        }
    }

    /// c113, c114
    fn qos(&mut self, place: Place, qos: &basic::Qos) -> Result<(), Fault> {
        if qos.prefetch_size != 0 {
            return Err(not_implemented(format!("prefetch_size!=0 ({})", qos.prefetch_size)));
        }
        let mut queues = Vec::new();
        if let Some(channel) = self.channel(place) {
            if qos.global {
                channel.limit = qos.prefetch_count;
                let consumers: Vec<ConsumerId> = channel.consumers.keys().copied().collect();
                channel.queues_to_serve(&consumers, &mut queues);
            } else {
                channel.prefetch = qos.prefetch_count;
            }
        }
        self.send(place, basic::QosOk {});
        queues.into_iter().for_each(|queue| self.serve(queue));
        Ok(())
    }

    fn consume(&mut self, place: Place, consume: basic::Consume) -> Result<(), Fault> {
        let basic::Consume { queue, consumer_tag, no_ack, exclusive, no_wait, arguments, .. } = consume;
        let tag = if consumer_tag.is_empty() { self.names.fresh("amq.ctag-") } else { consumer_tag };
        // c105
        if self.channel(place).is_some_and(|channel| channel.tags.contains_key(&tag)) {
            return Err(Fault::new(ReplyCode::NOT_ALLOWED, format!("attempt to reuse consumer tag '{tag}'")));
        }
        let id = ConsumerId(self.fresh_id());
        if queue == REPLY_TO {
            return self.consume_replies(place, id, tag, no_ack, no_wait);
        }
        let queue = self.accessible_queue(place, &queue)?;
        if let Some(found) = self.queues.get(&queue)
            && (found.is_exclusively_consumed()
                || (exclusive && (found.rules.single_active_consumer || found.consumers().len() > 0)))
        {
            let resource = faults::queue(&found.name, &found.virtual_host);
            return Err(faults::refused(format!("{resource} in exclusive use")));
        }
        let found = self.queues.get(&queue);
        let resource = found.map(|queue| faults::queue(&queue.name, &queue.virtual_host)).unwrap_or_default();
        let priority = rules::integer(&resource, &arguments, "x-priority")?.unwrap_or(0);
        let Some(channel) = self.channel(place) else { return Ok(()) };
        let consumer = Consumer::new(tag.clone(), Some(queue), no_ack, channel.prefetch);
        channel.consumers.insert(id, consumer);
        channel.tags.insert(tag.clone(), id);
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.subscribe(Subscriber { id, place, exclusive, priority });
        }
        self.reply(place, no_wait, basic::ConsumeOk { consumer_tag: tag });
        self.serve(queue);
        Ok(())
    }

    /// c122: a queue that is none; answers go from the publisher straight to this consumer.
    fn consume_replies(
        &mut self,
        place: Place,
        id: ConsumerId,
        tag: ShortString,
        no_ack: bool,
        no_wait: bool,
    ) -> Result<(), Fault> {
        let name = self.names.fresh("amq.rabbitmq.reply-to.");
        let Some(channel) = self.channel(place) else { return Ok(()) };
        if channel.replies.is_some() {
            return Err(precondition("reply consumer already set"));
        }
        if !no_ack {
            return Err(precondition("reply consumer cannot acknowledge"));
        }
        channel.replies = Some((id, name.clone()));
        channel.consumers.insert(id, Consumer::new(tag.clone(), None, true, 0));
        channel.tags.insert(tag.clone(), id);
        self.replies.insert(name, (place, id));
        self.reply(place, no_wait, basic::ConsumeOk { consumer_tag: tag });
        Ok(())
    }

    /// A consumer that is not there is cancelled already. Gives the queue that it consumed from.
    pub(in crate::broker) fn cancel(&mut self, place: Place, tag: &ShortString) -> Option<QueueId> {
        let channel = self.channel(place)?;
        let id = channel.tags.remove(tag)?;
        let consumer = channel.consumers.remove(&id);
        if channel.replies.as_ref().is_some_and(|(consumer, _)| *consumer == id)
            && let Some((_, name)) = channel.replies.take()
        {
            self.replies.remove(&name);
        }
        let queue = consumer?.queue?;
        self.unsubscribe(queue, id);
        Some(queue)
    }

    /// c117: an empty queue is a normal answer.
    fn get(&mut self, place: Place, get: &basic::Get) -> Result<(), Fault> {
        let id = self.accessible_queue(place, &get.queue)?;
        let now = self.now;
        let Some(queue) = self.queues.get_mut(&id) else { return Ok(()) };
        queue.touch(now);
        let Some(entry) = queue.pop() else {
            self.send(place, basic::GetEmpty::default());
            return Ok(());
        };
        let message_count = count(queue.len());
        // What comes next may have waited for its time to be over.
        self.serve(id);
        let Some(channel) = self.channel(place) else { return Ok(()) };
        let delivery_tag = channel.next_delivery_tag();
        let (message, redelivered) = (std::sync::Arc::clone(&entry.message), entry.redelivered);
        if !get.no_ack {
            channel.remember(delivery_tag, Unacked { queue: id, consumer: None, entry });
        }
        let get_ok = basic::GetOk {
            delivery_tag,
            redelivered,
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
            message_count,
        };
        if let Some(client) = self.client(place) {
            client.machine.send_content(place.channel, get_ok, &message.properties, &message.body, now);
        }
        Ok(())
    }

    /// In a transaction the verdict waits for the commit, but the deliveries are gone at once.
    fn judge(&mut self, place: Place, tag: u64, multiple: bool, verdict: Verdict) -> Result<(), Fault> {
        let Some(channel) = self.channel(place) else { return Ok(()) };
        let deliveries = channel.take(tag, multiple)?;
        match &mut channel.mode {
            Mode::Tx(transaction) => transaction.settled.push((verdict, deliveries)),
            _ => self.settle(place, verdict, deliveries),
        }
        Ok(())
    }

    /// c118
    fn recover(&mut self, place: Place, requeue: bool, answer: bool) -> Result<(), Fault> {
        if !requeue {
            return Err(not_implemented("requeue=false"));
        }
        let deliveries = self.channel(place).map(|channel| channel.take_all()).unwrap_or_default();
        self.reply(place, !answer, basic::RecoverOk {});
        self.settle(place, Verdict::Requeue, deliveries);
        Ok(())
    }
}

fn verdict(requeue: bool) -> Verdict {
    if requeue { Verdict::Requeue } else { Verdict::Refuse }
}
