//! What scripts do to their connections.

use std::task::Waker;

use bytes::BytesMut;

use super::{State, finished};
use crate::broker::play::Gate;
use crate::broker::script::{Act, Script};
use crate::broker::{ConnectionId, Place};
use crate::codec::method::basic;
use crate::codec::{ReplyCode, ShortString};
use crate::error::Error;
use crate::protocol::OutBuffer;
use crate::protocol::server::reply_text;
use crate::transport::Next;

impl State {
    pub(in crate::broker) fn add_scripts(&mut self, scripts: Vec<Script>) {
        self.scripts.extend(scripts);
    }

    /// A turn of a client that has a script, which stands between the driver's buffers and the machine.
    pub(super) fn scripted_turn(
        &mut self,
        id: ConnectionId,
        input: &mut BytesMut,
        output: &mut OutBuffer,
        ended: Option<Error>,
        driver: &Waker,
    ) -> Next {
        let now = self.now;
        let Some(client) = self.clients.get_mut(&id) else { return finished() };
        let Some(play) = &mut client.play else { return finished() };
        if output.is_empty() {
            play.has_written();
        }
        if !play.reading.is_open(now) {
            client.machine.excuse_silence(now);
        }
        let (mut inbox, mut outbox) = (std::mem::take(&mut play.inbox), std::mem::take(&mut play.outbox));
        if play.unblock_in_time(now) && self.blocked.is_none() {
            client.tell_unblocked();
        }
        let taken = self.begin(id, &mut outbox);
        self.read_scripted(id, input, &mut inbox, ended.is_some());
        self.look_after(id, ended);
        let mut next = self.write(id, &mut outbox, taken, driver);

        let Some(client) = self.clients.get_mut(&id) else { return finished() };
        if client.cut {
            output.clear();
            return finished();
        }
        // Not those that are held, whose time may be over.
        let late = if self.hold_confirms { None } else { client.next_late() };
        let Some(play) = &mut client.play else { return finished() };
        (play.inbox, play.outbox) = (inbox, outbox);
        let called_for = play.send(output, now) || play.has_due();
        let (holds_back, reads, timeout) = (play.holds_back(), play.reading.is_open(now), play.timeout());
        if next.finished && holds_back {
            // There is more to be said, and the client may go before it is.
            next = Next { read: true, finished: false, ..next };
            client.asleep(driver, &mut self.wakes);
            if !reads {
                // What it says meanwhile is of no account, and must not gather.
                input.clear();
            }
        } else {
            next.read &= reads;
        }
        next.deadline = [next.deadline, late, timeout].into_iter().flatten().min();
        if called_for {
            // What is handed over may leave at once, which may be a moment; nothing else would call for the next turn.
            client.touch(&mut self.wakes);
        }
        next
    }

    /// Lets input pass from one moment to the next, and acts on it.
    fn read_scripted(&mut self, id: ConnectionId, input: &mut BytesMut, inbox: &mut BytesMut, last: bool) {
        loop {
            self.read(id, inbox, last);
            let now = self.now;
            let Some(client) = self.clients.get_mut(&id) else { return };
            let Some(play) = &mut client.play else { return };
            if client.cut || client.paused {
                return;
            }
            play.has_acted();
            if !play.has_due() && !play.receive(input, inbox, now) {
                return;
            }
        }
    }

    /// Does the next step that is due.
    pub(super) fn perform(&mut self, id: ConnectionId) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(play) = &mut client.play else { return };
        let Some((moment, act)) = play.next_due() else { return };
        match act {
            Act::Cut => self.cut(id),
            Act::StallReading(time) => play.reading = Gate::shut(now, time),
            Act::StallWriting(time) => play.writing = Gate::shut(now, time),
            Act::Send(octets) => play.say(octets, moment),
            Act::CloseConnection { code, text } => self.close_with(id, ReplyCode(code), &text, (0, 0)),
            Act::CloseChannels { code, text } => self.close_channels(id, ReplyCode(code), &text),
            Act::CancelConsumers => self.cancel_consumers(id),
            Act::Block { reason, time } => {
                let reason = reply_text(&reason);
                play.block(reason.clone(), Gate::shut(now, time));
                client.tell_blocked(&reason);
            }
            Act::Confirm(order) => play.set_order(order),
            Act::Nack | Act::Return | Act::LoseConfirm | Act::DelayConfirm(_) => play.decide_next(&act),
        }
    }

    fn close_channels(&mut self, id: ConnectionId, code: ReplyCode, text: &str) {
        self.confirm(Place { connection: id, channel: 0 });
        let Some(client) = self.clients.get_mut(&id) else { return };
        for number in client.channels.keys() {
            client.machine.close_channel(*number, code, text, (0, 0));
        }
        client.held = None;
        self.end_channels(id, None);
    }

    fn cancel_consumers(&mut self, id: ConnectionId) {
        let Some(client) = self.clients.get(&id) else { return };
        let wants_cancel = client.wants_cancel;
        let mut consumers: Vec<(u16, ShortString)> = Vec::new();
        for (number, channel) in &client.channels {
            consumers.extend(channel.tags.keys().map(|tag| (*number, tag.clone())));
        }
        // The same order in every run.
        consumers.sort_unstable();
        for (channel, consumer_tag) in consumers {
            let place = Place { connection: id, channel };
            let queue = self.cancel(place, &consumer_tag);
            self.reply(place, !wants_cancel, basic::Cancel { consumer_tag, no_wait: true });
            queue.into_iter().for_each(|queue| self.serve(queue));
        }
    }
}

#[cfg(test)]
mod tests;
