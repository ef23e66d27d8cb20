//! What time and limits do to messages and queues: given up, and passed on to where dead letters go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::State;
use crate::broker::death::{Reason, goes_round};
use crate::broker::message::Message;
use crate::broker::queue::QueueId;
use crate::broker::rules::Overflow;

/// A message that a queue has given up.
#[derive(Debug)]
pub(in crate::broker) struct Dead {
    pub(in crate::broker) queue: QueueId,
    pub(in crate::broker) reason: Reason,
    pub(in crate::broker) message: Arc<Message>,
}

/// So many messages at most are given up because others were, before those are passed on themselves: queues that send all that they give
/// up to each other breed, and one message would become millions.
const ROOM: usize = 1024;

impl State {
    /// Something expires then: some driver has to look.
    pub(in crate::broker) fn expect(&mut self, at: Option<Instant>) {
        self.due = [self.due, at].into_iter().flatten().min();
    }

    /// Gives up whatever has expired: messages at the head of their queues, and queues that nobody has used.
    pub(super) fn expire(&mut self) {
        if self.due.is_none_or(|due| due > self.now) {
            return;
        }
        self.due = None;
        for id in self.queues.keys().copied().collect::<Vec<_>>() {
            if self.queues.get(&id).is_some_and(|queue| queue.has_ended(self.now)) {
                self.remove_queue(id);
            } else {
                self.serve(id);
            }
        }
    }

    /// Passes on what queues have given up, and what other queues give up for it, and so on. What comes back to a queue
    /// without anybody having rejected it is dropped, and so is what there is no [`ROOM`] for.
    pub(in crate::broker) fn bury(&mut self, dead: Vec<Dead>) {
        let mut dead = VecDeque::from(dead);
        let most = dead.len() + ROOM;
        while let Some(Dead { queue, reason, message }) = dead.pop_front() {
            let Some(from) = self.queues.get(&queue) else { continue };
            let Some(to) = &from.rules.dead_letters else { continue };
            let message = Arc::new(message.dead_letter(&from.name, reason, to));
            let headers = message.headers().unwrap_or_default();
            for target in self.destinations(&from.virtual_host, &message) {
                let Some(queue) = self.queues.get_mut(&target) else { continue };
                if goes_round(&headers, &queue.name) {
                    continue;
                }
                let given_up = if !queue.refuses(&message) {
                    queue.push(Arc::clone(&message), self.now);
                    self.deliver_and_trim(target)
                } else if queue.rules.overflow == Overflow::RejectPublishDlx {
                    vec![Dead { queue: target, reason: Reason::MaxLength, message: Arc::clone(&message) }]
                } else {
                    Vec::new()
                };
                dead.extend(given_up.into_iter().take(most.saturating_sub(dead.len())));
            }
        }
    }
}
