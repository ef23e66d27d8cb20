//! A client's life: what it does is acted on, what it may not is refused, and what it leaves behind is cleared away.

use super::State;
use crate::broker::channel::{Channel, Mode};
use crate::broker::queue::QueueId;
use crate::broker::{ConnectionId, Place};
use crate::codec::method::{MethodFields, basic};
use crate::codec::{ReplyCode, ShortString};
use crate::protocol::server::{Event, Fault, Login};

impl State {
    pub(super) fn act(&mut self, id: ConnectionId, event: Event) {
        let place = |channel| Place { connection: id, channel };
        match event {
            Event::Publish(number, publish, content) => {
                if let Err(fault) = self.publish(place(number), publish, content) {
                    self.raise(place(number), fault, basic::Publish::INFO.class_id, basic::Publish::INFO.method_id);
                }
            }
            Event::Method(number, method) => {
                self.confirm(place(number));
                let info = method.info();
                if let Err(fault) = self.method(place(number), method) {
                    self.raise(place(number), fault, info.class_id, info.method_id);
                }
            }
            Event::ChannelOpened(number) => {
                if let Some(client) = self.clients.get_mut(&id) {
                    client.channels.insert(number, Channel::default());
                }
            }
            Event::ChannelClose(number) => {
                self.confirm(place(number));
                self.end_channels(id, Some(number));
                if let Some(client) = self.clients.get_mut(&id) {
                    client.machine.accept_close(number);
                }
            }
            Event::ChannelClosed(number) => self.end_channels(id, Some(number)),
            Event::Close => {
                self.confirm(place(0));
                self.end_session(id);
                if let Some(client) = self.clients.get_mut(&id) {
                    client.machine.accept_close(0);
                }
            }
            Event::Closed(_) => self.end_session(id),
            Event::Authenticate(login) => self.authenticate(id, &login),
            Event::Open { virtual_host } => self.open(id, virtual_host),
        }
    }

    fn authenticate(&mut self, id: ConnectionId, login: &Login) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        match self.settings.user(&login.credentials) {
            Some(user) => client.logged_in(user, &login.client_properties),
            None => {
                let text = format!(
                    "ACCESS_REFUSED - Login was refused using authentication mechanism {}. For details see the broker \
                     logfile.",
                    login.mechanism
                );
                client.machine.refuse_login(&text, self.now);
            }
        }
    }

    /// c18, c19
    fn open(&mut self, id: ConnectionId, virtual_host: ShortString) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let refusal = if !self.virtual_hosts.contains_key(&virtual_host) {
            format!("vhost {virtual_host} not found")
        } else if !self.settings.may_enter(&client.user, &virtual_host) {
            format!("access to vhost '{virtual_host}' refused for user '{}'", client.user)
        } else {
            client.virtual_host = virtual_host;
            client.machine.accept_open();
            return;
        };
        self.close(id, &Fault::new(ReplyCode::NOT_ALLOWED, refusal).of(10, 40));
    }

    /// A request is refused: its channel is closed, or for a hard error the connection.
    fn raise(&mut self, place: Place, fault: Fault, class: u16, method: u16) {
        self.confirm(place);
        let fault = fault.of(class, method);
        if fault.code.is_hard() || place.channel == 0 {
            self.close(place.connection, &fault);
            return;
        }
        self.end_channels(place.connection, Some(place.channel));
        if let Some(client) = self.clients.get_mut(&place.connection) {
            let text = fault.reply_text();
            client.machine.close_channel(place.channel, fault.code, &text.to_string_lossy(), fault.method);
        }
    }

    fn close(&mut self, id: ConnectionId, fault: &Fault) {
        self.close_with(id, fault.code, &fault.reply_text().to_string_lossy(), fault.method);
    }

    pub(super) fn close_with(&mut self, id: ConnectionId, code: ReplyCode, text: &str, method: (u16, u16)) {
        self.confirm(Place { connection: id, channel: 0 });
        self.end_session(id);
        if let Some(client) = self.clients.get_mut(&id) {
            client.machine.close_connection(code, text, method, self.now);
            client.touch(&mut self.wakes);
        }
    }

    /// Sends confirms that are due on a channel, or on all for channel 0, before anything else is said there.
    pub(super) fn confirm(&mut self, place: Place) {
        if !self.hold_confirms
            && let Some(client) = self.clients.get_mut(&place.connection)
        {
            client.confirm((place.channel != 0).then_some(place.channel));
        }
    }

    /// One channel ends, or all of a connection: consumers leave first, so that nothing comes back to them, then what was
    /// not acknowledged returns to its queues (c50).
    pub(super) fn end_channels(&mut self, id: ConnectionId, only: Option<u16>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let channels: Vec<Channel> = match only {
            Some(number) => client.channels.remove(&number).into_iter().collect(),
            None => std::mem::take(&mut client.channels).into_values().collect(),
        };
        let mut queues = Vec::new();
        for channel in &channels {
            if let Some((_, name)) = &channel.replies {
                self.replies.remove(name);
            }
            for (id, consumer) in &channel.consumers {
                if let Some(queue) = consumer.queue {
                    self.unsubscribe(queue, *id);
                    if !queues.contains(&queue) {
                        queues.push(queue);
                    }
                }
            }
        }
        for mut channel in channels {
            let mut returned = channel.take_all();
            if let Mode::Tx(transaction) = channel.mode {
                returned.extend(transaction.settled.into_iter().flat_map(|(_, deliveries)| deliveries));
            }
            for (_, unacked) in returned {
                if let Some(queue) = self.queues.get_mut(&unacked.queue) {
                    queue.requeue(unacked.entry);
                    if !queues.contains(&unacked.queue) {
                        queues.push(unacked.queue);
                    }
                }
            }
        }
        for queue in queues {
            self.serve(queue);
        }
    }

    /// A connection has ended, whatever its machine still has to say: its channels and its exclusive queues go (c130).
    pub(super) fn end_session(&mut self, id: ConnectionId) {
        self.end_channels(id, None);
        if let Some(client) = self.clients.get_mut(&id) {
            client.held = None;
        }
        let owned: Vec<QueueId> =
            self.queues.iter().filter(|(_, queue)| queue.owner == Some(id)).map(|(id, _)| *id).collect();
        for queue in owned {
            self.remove_queue(queue);
        }
    }
}
