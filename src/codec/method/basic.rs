//! Class basic (60): publishing, consuming, fetching and settling messages.

use crate::codec::{FieldTable, ShortString};

class! {
    "basic" = 60;

    /// Limits how much the server delivers ahead of acknowledgements.
    Qos = 10 "qos" (client -> 11) {
        /// Octets; RabbitMQ refuses anything but 0.
        prefetch_size: u32,
        /// Messages; 0 for no limit.
        prefetch_count: u16,
        /// RabbitMQ: for the whole channel rather than for each consumer started from now on.
        global: bool,
    }

    /// The limit holds.
    QosOk = 11 "qos-ok" (server) {}

    /// Starts a consumer.
    Consume = 20 "consume" (client -> 21) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The queue.
        queue: ShortString,
        /// The consumer tag; empty for one by the server.
        consumer_tag: ShortString,
        /// Do not deliver what this connection published. RabbitMQ ignores it.
        no_local: bool,
        /// Messages count as acknowledged when they are sent.
        no_ack: bool,
        /// No other consumer on this queue.
        exclusive: bool,
        /// Send no reply.
        no_wait: bool,
        /// Further arguments.
        arguments: FieldTable,
    }

    /// The consumer is there.
    ConsumeOk = 21 "consume-ok" (server) {
        /// The consumer tag.
        consumer_tag: ShortString,
    }

    /// Ends a consumer. RabbitMQ sends it too, when the queue is gone.
    Cancel = 30 "cancel" (both -> 31) {
        /// The consumer tag.
        consumer_tag: ShortString,
        /// Send no reply.
        no_wait: bool,
    }

    /// The consumer is gone.
    CancelOk = 31 "cancel-ok" (both) {
        /// The consumer tag.
        consumer_tag: ShortString,
    }

    /// A message for an exchange.
    Publish = 40 "publish" (client, content) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The exchange; empty for the default one.
        exchange: ShortString,
        /// The routing key.
        routing_key: ShortString,
        /// Return the message when no queue takes it.
        mandatory: bool,
        /// Return the message when no consumer takes it at once. RabbitMQ closes the connection.
        immediate: bool,
    }

    /// A mandatory or immediate message comes back.
    Return = 50 "return" (server, content) {
        /// Why, as a number.
        reply_code: u16,
        /// Why, in words.
        reply_text: ShortString,
        /// The exchange it was published to.
        exchange: ShortString,
        /// The routing key it was published with.
        routing_key: ShortString,
    }

    /// A message for a consumer.
    Deliver = 60 "deliver" (server, content) {
        /// The consumer tag.
        consumer_tag: ShortString,
        /// The delivery tag.
        delivery_tag: u64,
        /// It may have been delivered before.
        redelivered: bool,
        /// The exchange it was published to.
        exchange: ShortString,
        /// The routing key it was published with.
        routing_key: ShortString,
    }

    /// Fetches one message.
    Get = 70 "get" (client -> 71 | 72) {
        /// Reserved; zero.
        reserved_1: u16,
        /// The queue.
        queue: ShortString,
        /// The message counts as acknowledged when it is sent.
        no_ack: bool,
    }

    /// Here it is.
    GetOk = 71 "get-ok" (server, content) {
        /// The delivery tag.
        delivery_tag: u64,
        /// It may have been delivered before.
        redelivered: bool,
        /// The exchange it was published to.
        exchange: ShortString,
        /// The routing key it was published with.
        routing_key: ShortString,
        /// Messages left in the queue.
        message_count: u32,
    }

    /// There is none.
    GetEmpty = 72 "get-empty" (server) {
        /// Reserved; empty.
        reserved_1: ShortString,
    }

    /// Messages were handled; as a publisher confirm, the server has taken responsibility for them.
    Ack = 80 "ack" (both) {
        /// The delivery tag.
        delivery_tag: u64,
        /// All up to and including the tag; with tag 0, all there are.
        multiple: bool,
    }

    /// A message is refused.
    Reject = 90 "reject" (client) {
        /// The delivery tag.
        delivery_tag: u64,
        /// Put it back into the queue rather than drop or dead-letter it.
        requeue: bool,
    }

    /// Redelivers everything unacknowledged, without a reply. Deprecated.
    RecoverAsync = 100 "recover-async" (client) {
        /// To anybody, rather than to the same consumer.
        requeue: bool,
    }

    /// Redelivers everything unacknowledged.
    Recover = 110 "recover" (client -> 111) {
        /// To anybody, rather than to the same consumer; RabbitMQ demands it.
        requeue: bool,
    }

    /// The messages are back in their queues.
    RecoverOk = 111 "recover-ok" (server) {}

    /// RabbitMQ: messages are refused; as a publisher confirm, the server did not take responsibility for them.
    Nack = 120 "nack" (both) {
        /// The delivery tag.
        delivery_tag: u64,
        /// All up to and including the tag; with tag 0, all there are.
        multiple: bool,
        /// Put them back into the queue rather than drop or dead-letter them.
        requeue: bool,
    }
}
