//! What is handed over: octets, and the fields by which they are routed.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde_json::{Map, Value};

/// One message or log event: its octets, the fields by which it is routed, and the id that tells a consumer that it comes a
/// second time.
#[derive(Clone, PartialEq)]
pub struct Record {
    payload: Bytes,
    fields: Map<String, Value>,
    id: String,
}

/// A line that is no record.
#[derive(Debug)]
pub struct RecordError(String);

impl Record {
    /// A record without fields. Its id is made up by chance.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        let id = format!("{:032x}", fastrand::u128(..));
        Self { payload: payload.into(), fields: Map::new(), id }
    }

    /// A record out of JSON: an object, whose members are the fields. The payload is the text as it stands.
    ///
    /// # Errors
    ///
    /// It is not JSON, or not an object. The error says where and does not repeat what stands there.
    pub fn from_json(text: impl Into<Bytes>) -> Result<Self, RecordError> {
        let payload: Bytes = text.into();
        match serde_json::from_slice(&payload) {
            Ok(Value::Object(fields)) => Ok(Self { fields, ..Self::new(payload) }),
            Ok(_) => Err(RecordError("not an object".into())),
            Err(error) => {
                Err(RecordError(format!("not JSON: {:?} error at column {}", error.classify(), error.column())))
            }
        }
    }

    /// Sets a field.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    /// What a consumer recognises it by that gets it twice: the id that the host has for it, the same for each attempt. A route may
    /// say otherwise.
    #[must_use]
    #[doc(alias = "message_id")]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// The octets.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The id.
    pub fn message_id(&self) -> &str {
        &self.id
    }

    /// A field by its path, with dots between the members of objects inside objects: `meta.tenant`. A member whose name has a dot
    /// in it comes first.
    pub fn get(&self, path: &str) -> Option<&Value> {
        find(&self.fields, path)
    }

    /// A field as text: texts, numbers, `true` and `false`.
    pub(super) fn text(&self, path: &str) -> Option<Cow<'_, str>> {
        match self.get(path)? {
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => Some(Cow::Owned(number.to_string())),
            Value::Bool(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// About how much memory it takes, in octets. A text of two octets a value (`[1,1,1`) takes many times its length.
    pub(super) fn weight(&self) -> usize {
        256 + self.payload.len() + self.id.len() + members(&self.fields)
    }
}

fn members(fields: &Map<String, Value>) -> usize {
    fields.iter().map(|(name, value)| size_of::<String>() + name.len() + size(value)).sum()
}

fn size(value: &Value) -> usize {
    let inside = match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Object(fields) => members(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + inside
}

fn find<'a>(fields: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = fields.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    find(fields.get(first)?.as_object()?, rest)
}

impl fmt::Debug for Record {
    /// Without the payload and the fields, which are somebody's mail.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let payload = format_args!("{} octets", self.payload.len());
        f.debug_struct("Record").field("id", &self.id).field("payload", &payload).finish_non_exhaustive()
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no record: {}", self.0)
    }
}

impl std::error::Error for RecordError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_path() {
        let record = Record::from_json(r#"{"a": {"b": {"c": 1}, "b.c": true}, "a.b": "dotted", "n": null}"#).unwrap();
        let text = |path| record.text(path).map(Cow::into_owned);
        assert_eq!(text("a.b.c").as_deref(), Some("true"), "the name with the dot comes first");
        assert_eq!(text("a.b").as_deref(), Some("dotted"));
        for path in ["n", "a", "x", "a.x", "", ".", "n.x", "a.b.c.d"] {
            assert_eq!(text(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_no_record_is_not_repeated() {
        for text in ["", "hush", "[\"hush\"]", "{\"hush\": }", "{\"hush\": 1} x"] {
            let error = Record::from_json(text).unwrap_err();
            assert!(!error.to_string().contains("hush"), "{error}");
        }
        let shown = format!("{:?}", Record::from_json(r#"{"to": "somebody"}"#).unwrap());
        assert!(!shown.contains("somebody"), "{shown}");
    }

    #[test]
    fn many_small_values_weigh_what_they_take() {
        let record = |text: &str| Record::from_json(text.to_owned()).unwrap().weight();
        let many = format!("{{\"a\": [{}1]}}", "1,".repeat(1000));
        assert!(record(&many) > 1000 * size_of::<Value>());
        assert!(record("{\"a\": \"x\"}") < 500);
        let text = format!("{{\"a\": \"{}\"}}", "x".repeat(1000));
        assert!(record(&text) > 2000, "as text and as a field");
    }

    #[test]
    fn records_have_different_ids() {
        assert_ne!(Record::new("x").message_id(), Record::new("x").message_id());
        assert_eq!(Record::new("x").id("7").message_id(), "7");
    }
}
