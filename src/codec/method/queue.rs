//! Class queue (50): declaring, binding, purging and deleting queues.

use crate::codec::{FieldTable, ShortString};

class! {
    "queue" = 50;

    /// Creates a queue, or checks that it is there.
    Declare = 10 "declare" (client -> 11) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The queue; empty for a name by the server.
        queue: ShortString,
        /// Only check that it exists.
        passive: bool,
        /// Survive a restart of the server.
        durable: bool,
        /// For this connection alone, and gone with it.
        exclusive: bool,
        /// Vanish with the last consumer.
        auto_delete: bool,
        /// Send no reply.
        no_wait: bool,
        /// Further arguments.
        arguments: FieldTable,
    }

    /// The queue is there.
    DeclareOk = 11 "declare-ok" (server) {
        /// The queue's name.
        queue: ShortString,
        /// Messages ready for delivery.
        message_count: u32,
        /// Active consumers.
        consumer_count: u32,
    }

    /// Routes from an exchange to a queue.
    Bind = 20 "bind" (client -> 21) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The queue.
        queue: ShortString,
        /// The exchange.
        exchange: ShortString,
        /// The routing key.
        routing_key: ShortString,
        /// Send no reply.
        no_wait: bool,
        /// Further arguments.
        arguments: FieldTable,
    }

    /// The binding is there.
    BindOk = 21 "bind-ok" (server) {}

    /// Removes all messages that are ready.
    Purge = 30 "purge" (client -> 31) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The queue.
        queue: ShortString,
        /// Send no reply.
        no_wait: bool,
    }

    /// The messages are gone.
    PurgeOk = 31 "purge-ok" (server) {
        /// How many there were.
        message_count: u32,
    }

    /// Removes a queue.
    Delete = 40 "delete" (client -> 41) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The queue.
        queue: ShortString,
        /// Only if it has no consumers.
        if_unused: bool,
        /// Only if it has no messages.
        if_empty: bool,
        /// Send no reply.
        no_wait: bool,
    }

    /// The queue is gone.
    DeleteOk = 41 "delete-ok" (server) {
        /// How many messages went with it.
        message_count: u32,
    }

    /// Removes a binding. There is no way to ask for no reply.
    Unbind = 50 "unbind" (client -> 51) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The queue.
        queue: ShortString,
        /// The exchange.
        exchange: ShortString,
        /// The routing key.
        routing_key: ShortString,
        /// The arguments it was made with.
        arguments: FieldTable,
    }

    /// The binding is gone.
    UnbindOk = 51 "unbind-ok" (server) {}
}
