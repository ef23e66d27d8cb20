//! What the broker's handle does to all clients at once.

use std::time::Instant;

use super::State;
use crate::broker::ConnectionId;
use crate::codec::ReplyCode;
use crate::codec::method::channel;
use crate::protocol::server::reply_text;

impl State {
    /// The reason is cut to what the wire can carry.
    pub(in crate::broker) fn block(&mut self, reason: &str) {
        let reason = reply_text(reason);
        for client in self.clients.values_mut() {
            client.tell_blocked(&reason);
            client.touch(&mut self.wakes);
        }
        self.blocked = Some(reason);
    }

    pub(in crate::broker) fn unblock(&mut self) {
        self.blocked = None;
        for client in self.clients.values_mut() {
            if let Some(play) = &mut client.play {
                play.unblock();
            }
            client.tell_unblocked();
            client.touch(&mut self.wakes);
        }
    }

    pub(in crate::broker) fn hold_confirms(&mut self, hold: bool) {
        self.hold_confirms = hold;
        // The drivers' turns send what has gathered.
        self.clients.values_mut().for_each(|client| client.touch(&mut self.wakes));
    }

    pub(in crate::broker) fn nack_publishes(&mut self, nack: bool) {
        self.nacks_publishes = nack;
    }

    /// c137
    pub(in crate::broker) fn set_flow(&mut self, active: bool) {
        for client in self.clients.values_mut() {
            for number in client.channels.keys() {
                client.machine.send(*number, channel::Flow { active });
            }
            client.touch(&mut self.wakes);
        }
    }

    pub(in crate::broker) fn close_all(&mut self, code: ReplyCode, text: &str, now: Instant) {
        self.now = now;
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            self.close_with(id, code, text, (0, 0));
        }
    }

    pub(in crate::broker) fn cut_all(&mut self, now: Instant) {
        self.now = now;
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            self.cut(id);
        }
    }

    pub(super) fn cut(&mut self, id: ConnectionId) {
        self.end_session(id);
        if let Some(client) = self.clients.get_mut(&id) {
            client.cut = true;
            client.touch(&mut self.wakes);
        }
    }

    pub(in crate::broker) fn stop(&mut self) {
        self.stopping = true;
    }
}
