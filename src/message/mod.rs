//! What is sent, where to, what comes back, and what became of it: plain data, the same for AMQP and Kafka.
//!
//! Touches the values of the codec and nothing that sends. Users see it as part of `messaging`.

mod address;
mod cargo;
mod content;
mod outcome;
mod properties;
mod received;
mod recovery;
mod report;
mod retry;

pub use address::{Address, Source, Target};
pub(crate) use cargo::Cargo;
pub use content::Message;
pub use outcome::{Receipt, ReceiptDetail, Returned, SendError, Status};
pub use properties::SharedProperties;
#[cfg(feature = "kafka")]
pub(crate) use received::Arrived;
pub use received::{DeliveryDetail, Disposition, Modify, OnDrop};
pub use recovery::RecoveryPolicy;
pub use report::{BatchError, BatchReport, CloseReport, Unsent};
pub(crate) use retry::EVER;
pub use retry::{Backoff, OnUnknown, RetryDecision, RetryPolicy};
