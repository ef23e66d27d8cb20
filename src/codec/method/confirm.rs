//! Class confirm (85): RabbitMQ's publisher confirms.

class! {
    "confirm" = 85;

    /// Asks the server to confirm what is published on this channel from now on.
    Select = 10 "select" (client -> 11) {
        /// Send no reply.
        no_wait: bool,
    }

    /// It will.
    SelectOk = 11 "select-ok" (server) {}
}
