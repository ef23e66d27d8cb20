//! Class access (30): a leftover of AMQP 0-8. RabbitMQ answers it and does nothing.

use crate::codec::ShortString;

class! {
    "access" = 30;

    /// Asks for a ticket.
    Request = 10 "request" (client -> 11) {
        /// The realm.
        realm: ShortString,
        /// For this client alone.
        exclusive: bool,
        /// For passive declarations.
        passive: bool,
        /// For everything active.
        active: bool,
        /// For writing.
        write: bool,
        /// For reading.
        read: bool,
    }

    /// A ticket, which nothing asks for any more.
    RequestOk = 11 "request-ok" (server) {
        /// The ticket.
        ticket: u16,
    }
}
