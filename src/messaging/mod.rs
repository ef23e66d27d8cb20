//! One way to send and receive, over AMQP 0-9-1 and Kafka.
//!
//! # The seam between the transports
//!
//! What both sides have in common is plain data, in the room `message`. The transports are `amqp` and `kafka`; they know that
//! room and nothing of this one. Each handle here (`Client`, `Sender`, `Receiver`) holds a private enum with one variant for each
//! transport and does itself whatever does not depend on it: defaults, hooks, deadlines, retries.

pub use crate::message::{
    Address, Backoff, BatchError, BatchReport, CloseReport, DeliveryDetail, Disposition, Message, Modify, OnDrop,
    OnUnknown, Receipt, ReceiptDetail, Received, RetryDecision, RetryPolicy, Returned, SendError, Source, Status,
    Target, Unsent,
};
