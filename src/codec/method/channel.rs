//! Class channel (20): opening, flow and closing of one of a connection's channels.

use bytes::Bytes;

use crate::codec::ShortString;

class! {
    "channel" = 20;

    /// The client opens the channel whose number the frame carries.
    Open = 10 "open" (client -> 11) {
        /// Reserved; empty.
        reserved_1: ShortString,
    }

    /// The channel is open.
    OpenOk = 11 "open-ok" (server) {
        /// Reserved; empty.
        reserved_1: Bytes,
    }

    /// One side asks the other to stop or to resume sending content.
    Flow = 20 "flow" (both -> 21) {
        /// Whether content may be sent.
        active: bool,
    }

    /// The flow is as asked.
    FlowOk = 21 "flow-ok" (both) {
        /// Whether content may be sent.
        active: bool,
    }

    /// One side ends the channel.
    Close = 40 "close" (both -> 41) {
        /// Why, as a number.
        reply_code: u16,
        /// Why, in words.
        reply_text: ShortString,
        /// Class of the method at fault, or 0.
        class_id: u16,
        /// Method at fault, or 0.
        method_id: u16,
    }

    /// The other side agrees; the number may be used again.
    CloseOk = 41 "close-ok" (both) {}
}
