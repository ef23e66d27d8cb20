//! Class connection (10): the handshake, the end, and RabbitMQ's blocked, unblocked and update-secret.

use bytes::Bytes;

use crate::codec::{FieldTable, ShortString};

class! {
    "connection" = 10;

    /// The server's first method: who it is and how one may log in.
    Start = 10 "start" (server -> 11) {
        /// Major version, 0.
        version_major: u8,
        /// Minor version, 9.
        version_minor: u8,
        /// Product, version, capabilities.
        server_properties: FieldTable,
        /// SASL mechanisms, with spaces between.
        mechanisms: Bytes,
        /// Locales, with spaces between.
        locales: Bytes,
    }

    /// The client says who it is and how it logs in.
    StartOk = 11 "start-ok" (client) {
        /// Product, version, capabilities, connection name.
        client_properties: FieldTable,
        /// The SASL mechanism chosen.
        mechanism: ShortString,
        /// The mechanism's first response.
        response: Bytes [secret],
        /// The locale chosen.
        locale: ShortString,
    }

    /// The server asks for another round of the SASL mechanism.
    Secure = 20 "secure" (server -> 21) {
        /// The mechanism's challenge.
        challenge: Bytes,
    }

    /// The client's answer to a challenge.
    SecureOk = 21 "secure-ok" (client) {
        /// The mechanism's response.
        response: Bytes [secret],
    }

    /// The server's limits.
    Tune = 30 "tune" (server -> 31) {
        /// Highest channel number, 0 for no limit.
        channel_max: u16,
        /// Largest frame in octets with head and end, 0 for no limit.
        frame_max: u32,
        /// Heartbeat interval in seconds, 0 for none.
        heartbeat: u16,
    }

    /// The limits that hold.
    TuneOk = 31 "tune-ok" (client) {
        /// Highest channel number, 0 for no limit.
        channel_max: u16,
        /// Largest frame in octets with head and end, 0 for no limit.
        frame_max: u32,
        /// Heartbeat interval in seconds, 0 for none.
        heartbeat: u16,
    }

    /// The client picks a virtual host.
    Open = 40 "open" (client -> 41) {
        /// The virtual host.
        virtual_host: ShortString,
        /// Reserved; empty.
        reserved_1: ShortString,
        /// Reserved; zero.
        reserved_2: bool,
    }

    /// The connection is ready.
    OpenOk = 41 "open-ok" (server) {
        /// Reserved; empty.
        reserved_1: ShortString,
    }

    /// One side ends the connection.
    Close = 50 "close" (both -> 51) {
        /// Why, as a number.
        reply_code: u16,
        /// Why, in words.
        reply_text: ShortString,
        /// Class of the method at fault, or 0.
        class_id: u16,
        /// Method at fault, or 0.
        method_id: u16,
    }

    /// The other side agrees; the socket may be closed.
    CloseOk = 51 "close-ok" (both) {}

    /// RabbitMQ: the server has run out of memory or disk and no longer reads what is published.
    Blocked = 60 "blocked" (server) {
        /// Which resource is short.
        reason: ShortString,
    }

    /// RabbitMQ: the shortage is over.
    Unblocked = 61 "unblocked" (server) {}

    /// RabbitMQ: the client replaces the secret it logged in with, before it expires.
    UpdateSecret = 70 "update-secret" (client -> 71) {
        /// The new secret.
        new_secret: Bytes [secret],
        /// Why, for the server's log.
        reason: ShortString,
    }

    /// RabbitMQ: the new secret holds.
    UpdateSecretOk = 71 "update-secret-ok" (server) {}
}
