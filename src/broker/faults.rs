//! What the broker says when it refuses something, in RabbitMQ's words.

use std::fmt::Display;

use super::routing::same_value;
use crate::codec::{FieldTable, FieldValue, ReplyCode, ShortString};
use crate::protocol::server::Fault;

pub(super) fn no_queue(name: &ShortString, virtual_host: &ShortString) -> Fault {
    Fault::new(ReplyCode::NOT_FOUND, format!("no {}", queue(name, virtual_host)))
}

pub(super) fn no_exchange(name: &ShortString, virtual_host: &ShortString) -> Fault {
    Fault::new(ReplyCode::NOT_FOUND, format!("no {}", exchange(name, virtual_host)))
}

pub(super) fn locked(name: &ShortString, virtual_host: &ShortString) -> Fault {
    let text = format!(
        "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the \
         exclusive property value does not match that of the original declaration.",
        queue(name, virtual_host)
    );
    Fault::new(ReplyCode::RESOURCE_LOCKED, text)
}

pub(super) fn precondition(text: impl Into<String>) -> Fault {
    Fault::new(ReplyCode::PRECONDITION_FAILED, text)
}

pub(super) fn refused(text: impl Into<String>) -> Fault {
    Fault::new(ReplyCode::ACCESS_REFUSED, text)
}

pub(super) fn not_implemented(text: impl Into<String>) -> Fault {
    Fault::new(ReplyCode::NOT_IMPLEMENTED, text)
}

/// c104
pub(super) fn default_exchange() -> Fault {
    refused("operation not permitted on the default exchange")
}

pub(super) fn queue(name: &ShortString, virtual_host: &ShortString) -> String {
    format!("queue '{name}' in vhost '{virtual_host}'")
}

pub(super) fn exchange(name: &ShortString, virtual_host: &ShortString) -> String {
    format!("exchange '{name}' in vhost '{virtual_host}'")
}

/// c125: names that begin with `amq.` are the broker's own.
pub(super) fn check_name(kind: &str, name: &ShortString) -> Result<(), Fault> {
    if name.as_bytes().starts_with(b"amq.") {
        return Err(refused(format!("{kind} name '{name}' contains reserved prefix 'amq.*'")));
    }
    Ok(())
}

/// c126: a second declaration has to say the same as the first.
pub(super) fn check_same<T: PartialEq + Display>(
    argument: &str,
    resource: &str,
    received: T,
    current: T,
) -> Result<(), Fault> {
    if received == current {
        return Ok(());
    }
    Err(inequivalent(argument, resource, &format!("'{received}'"), &format!("'{current}'")))
}

/// The same for those arguments that mean something to a broker; others are the application's own.
pub(super) fn check_same_arguments(resource: &str, received: &FieldTable, current: &FieldTable) -> Result<(), Fault> {
    let names = current.iter().chain(received.iter()).map(|(name, _)| name);
    for name in names.filter(|name| name.as_bytes().starts_with(b"x-") || **name == "alternate-exchange") {
        let Ok(name) = name.to_str() else { continue };
        match (received.get(name), current.get(name)) {
            (None, None) => {}
            (Some(received), Some(current)) if same_value(received, current) => {}
            (Some(received), Some(current)) => {
                let quoted = |value| format!("'{}'", show(value));
                return Err(inequivalent(name, resource, &quoted(received), &quoted(current)));
            }
            (received, current) => return Err(inequivalent(name, resource, &describe(received), &describe(current))),
        }
    }
    Ok(())
}

fn inequivalent(argument: &str, resource: &str, received: &str, current: &str) -> Fault {
    precondition(format!("inequivalent arg '{argument}' for {resource}: received {received} but current is {current}"))
}

pub(super) fn invalid_argument(resource: &str, name: &str, reason: &str) -> Fault {
    precondition(format!("invalid arg '{name}' for {resource}: {reason}"))
}

/// An argument that is to name an exchange.
pub(super) fn invalid_type(resource: &str, name: &str, value: &FieldValue) -> Fault {
    precondition(format!("invalid type '{}' for arg '{name}' in {resource}", type_name(value)))
}

fn describe(value: Option<&FieldValue>) -> String {
    match value {
        Some(value) => format!("the value '{}' of type '{}'", show(value), type_name(value)),
        None => "none".into(),
    }
}

pub(super) fn show(value: &FieldValue) -> String {
    match value {
        FieldValue::LongString(text) => String::from_utf8_lossy(text).into_owned(),
        FieldValue::Bool(value) => value.to_string(),
        value => match value.as_i64() {
            Some(number) => number.to_string(),
            None => format!("{value:?}"),
        },
    }
}

/// RabbitMQ's names for the field types.
pub(super) fn type_name(value: &FieldValue) -> &'static str {
    match value {
        FieldValue::Bool(_) => "bool",
        FieldValue::I8(_) => "byte",
        FieldValue::U8(_) => "unsignedbyte",
        FieldValue::I16(_) => "short",
        FieldValue::U16(_) => "unsignedshort",
        FieldValue::I32(_) => "signedint",
        FieldValue::U32(_) => "unsignedint",
        FieldValue::I64(_) => "long",
        FieldValue::F32(_) => "float",
        FieldValue::F64(_) => "double",
        FieldValue::Decimal { .. } => "decimal",
        FieldValue::LongString(_) => "longstr",
        FieldValue::Array(_) => "array",
        FieldValue::Timestamp(_) => "timestamp",
        FieldValue::Table(_) => "table",
        FieldValue::Void => "void",
        FieldValue::ByteArray(_) => "binary",
    }
}
