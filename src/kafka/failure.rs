//! What librdkafka and the brokers say when something fails, in this library's words.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::config::is_secret;
use crate::error::{Error, ErrorKind, Outcome};

/// Kafka's own number for an error, where it has one; negative ones are librdkafka's.
///
/// ```
/// # fn example(error: &leveret::messaging::SendError) {
/// // 19: NOT_ENOUGH_REPLICAS
/// if leveret::kafka::code(error.error()) == Some(19) {
///     println!("too few replicas are in sync");
/// }
/// # }
/// ```
pub fn code(error: &Error) -> Option<i32> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<KafkaError>() {
            return error.rdkafka_error_code().map(|code| code as i32);
        }
        source = error.source();
    }
    None
}

/// The kind of an error, and what became of a message that has met it.
fn classify(code: Code) -> (ErrorKind, Outcome) {
    use Outcome::{NotSent, Refused, Unknown};
    match code {
        Code::QueueFull => (ErrorKind::Timeout, NotSent),
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut | Code::TimedOutQueue => {
            (ErrorKind::Timeout, Unknown)
        }
        Code::PurgeQueue => (ErrorKind::Closed, NotSent),
        Code::PurgeInflight | Code::BrokerDestroy => (ErrorKind::Closed, Unknown),
        Code::UnknownTopic | Code::UnknownPartition => (ErrorKind::NotFound, NotSent),
        Code::UnknownTopicOrPartition => (ErrorKind::NotFound, Refused),
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => (ErrorKind::MessageTooLarge, Refused),
        Code::InvalidArgument => (ErrorKind::InvalidArgument, NotSent),
        Code::InvalidTopic
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::InvalidMessage
        | Code::PolicyViolation => (ErrorKind::InvalidArgument, Refused),
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => (ErrorKind::Auth, Refused),
        Code::SSL => (ErrorKind::Tls, NotSent),
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve => (ErrorKind::Io, Unknown),
        Code::NotImplemented | Code::UnsupportedFeature | Code::UnsupportedVersion => (ErrorKind::Unsupported, Unknown),
        Code::NotEnoughReplicas
        | Code::NotLeaderForPartition
        | Code::LeaderNotAvailable
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::ThrottlingQuotaExceeded => (ErrorKind::Nacked, Refused),
        // It was written, and not everywhere.
        Code::NotEnoughReplicasAfterAppend => (ErrorKind::Nacked, Unknown),
        _ => (ErrorKind::Kafka, Unknown),
    }
}

/// What became of a message, by its delivery report.
pub(super) fn delivery(error: KafkaError) -> Error {
    let (kind, outcome) = error.rdkafka_error_code().map_or((ErrorKind::Kafka, Outcome::Unknown), classify);
    let message = match kind {
        ErrorKind::Timeout => "the brokers did not confirm the message in time",
        ErrorKind::Closed => "the sender was closed before the message was confirmed",
        ErrorKind::NotFound => "there is no such topic or partition",
        ErrorKind::MessageTooLarge => "the brokers refused the message",
        _ => "the message was not accepted",
    };
    Error::with_source(kind, message, error).with_outcome(outcome)
}

/// Why librdkafka did not even take a message.
pub(super) fn not_taken(error: KafkaError) -> Error {
    let kind = error.rdkafka_error_code().map_or(ErrorKind::InvalidArgument, |code| classify(code).0);
    let message = match kind {
        ErrorKind::Timeout => "the local queue is full",
        ErrorKind::MessageTooLarge => "the message is larger than message.max.bytes allows",
        ErrorKind::NotFound => "there is no such topic or partition",
        _ => "the message cannot be sent",
    };
    Error::with_source(kind, message, error).with_outcome(Outcome::NotSent)
}

/// Something that is no message's business.
pub(super) fn general(message: &'static str, error: KafkaError) -> Error {
    let kind = error.rdkafka_error_code().map_or(ErrorKind::Kafka, |code| classify(code).0);
    Error::with_source(kind, message, error)
}

/// Why librdkafka does not take its properties. A value that may be a secret is not shown.
pub(super) fn configuration(error: KafkaError) -> Error {
    let message = match &error {
        KafkaError::ClientConfig(_, _, name, _) if is_secret(name) => format!("a wrong property: {name}"),
        KafkaError::ClientConfig(_, description, name, _) if description.contains(name.as_str()) => {
            format!("a wrong property: {description}")
        }
        KafkaError::ClientConfig(_, description, name, _) => format!("a wrong property: {name}: {description}"),
        KafkaError::Nul(_) => "a wrong property: there is a NUL in its name or its value".to_owned(),
        error => format!("the properties make no sense together: {error}"),
    };
    Error::new(ErrorKind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_says_what_became_of_the_message() {
        for (number, kind, outcome) in [
            (Code::MessageTimedOut, ErrorKind::Timeout, Outcome::Unknown),
            (Code::PurgeQueue, ErrorKind::Closed, Outcome::NotSent),
            (Code::PurgeInflight, ErrorKind::Closed, Outcome::Unknown),
            (Code::UnknownTopic, ErrorKind::NotFound, Outcome::NotSent),
            (Code::MessageSizeTooLarge, ErrorKind::MessageTooLarge, Outcome::Refused),
            (Code::NotEnoughReplicasAfterAppend, ErrorKind::Nacked, Outcome::Unknown),
            (Code::OutOfOrderSequenceNumber, ErrorKind::Kafka, Outcome::Unknown),
        ] {
            let error = delivery(KafkaError::MessageProduction(number));
            assert_eq!((error.kind(), error.outcome()), (kind, outcome), "{error}");
            assert_eq!(code(&error), Some(number as i32));
        }
        assert_eq!(not_taken(KafkaError::MessageProduction(Code::QueueFull)).outcome(), Outcome::NotSent);
        assert_eq!(code(&Error::new(ErrorKind::Io, "x")), None, "no error of Kafka");
    }
}
