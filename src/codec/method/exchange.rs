//! Class exchange (40): declaring and deleting exchanges, and RabbitMQ's bindings between them.

use crate::codec::{FieldTable, ShortString};

class! {
    "exchange" = 40;

    /// Creates an exchange, or checks that it is there.
    Declare = 10 "declare" (client -> 11) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The exchange.
        exchange: ShortString,
        /// Its type: direct, fanout, topic, headers, or a plugin's.
        kind: ShortString,
        /// Only check that it exists.
        passive: bool,
        /// Survive a restart of the server.
        durable: bool,
        /// Vanish with the last binding.
        auto_delete: bool,
        /// Accept no messages from clients, only from other exchanges.
        internal: bool,
        /// Send no reply.
        no_wait: bool,
        /// Further arguments.
        arguments: FieldTable,
    }

    /// The exchange is there.
    DeclareOk = 11 "declare-ok" (server) {}

    /// Removes an exchange.
    Delete = 20 "delete" (client -> 21) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The exchange.
        exchange: ShortString,
        /// Only if nothing is bound to it.
        if_unused: bool,
        /// Send no reply.
        no_wait: bool,
    }

    /// The exchange is gone.
    DeleteOk = 21 "delete-ok" (server) {}

    /// RabbitMQ: routes from one exchange to another.
    Bind = 30 "bind" (client -> 31) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The exchange that receives.
        destination: ShortString,
        /// The exchange that routes.
        source: ShortString,
        /// The routing key.
        routing_key: ShortString,
        /// Send no reply.
        no_wait: bool,
        /// Further arguments.
        arguments: FieldTable,
    }

    /// RabbitMQ: the binding is there.
    BindOk = 31 "bind-ok" (server) {}

    /// RabbitMQ: removes a binding between exchanges.
    Unbind = 40 "unbind" (client -> 51) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The exchange that receives.
        destination: ShortString,
        /// The exchange that routes.
        source: ShortString,
        /// The routing key.
        routing_key: ShortString,
        /// Send no reply.
        no_wait: bool,
        /// The arguments it was made with.
        arguments: FieldTable,
    }

    /// RabbitMQ: the binding is gone. Its id is 51, not 41.
    UnbindOk = 51 "unbind-ok" (server) {}
}
