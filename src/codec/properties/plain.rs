//! Properties out of plain data: a map, as configuration files and scripts have them.

use serde::Deserialize;
use serde::de::Deserializer;

use super::Properties;
use crate::codec::{FieldTable, ShortString};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entries {
    content_type: Option<String>,
    content_encoding: Option<String>,
    headers: Option<FieldTable>,
    delivery_mode: Option<u8>,
    priority: Option<u8>,
    correlation_id: Option<String>,
    reply_to: Option<String>,
    expiration: Option<String>,
    message_id: Option<String>,
    timestamp: Option<u64>,
    #[serde(alias = "type", alias = "message_type")]
    kind: Option<String>,
    user_id: Option<String>,
    app_id: Option<String>,
    cluster_id: Option<String>,
}

impl<'de> Deserialize<'de> for Properties {
    /// A map with the names of the fields; `type` and `message_type` stand for `kind`. An unknown name is an error that lists the
    /// known ones.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Entries::deserialize(deserializer)?;
        let short = |text: Option<String>| text.map(ShortString::from);
        Ok(Self {
            content_type: short(entries.content_type),
            content_encoding: short(entries.content_encoding),
            headers: entries.headers,
            delivery_mode: entries.delivery_mode,
            priority: entries.priority,
            correlation_id: short(entries.correlation_id),
            reply_to: short(entries.reply_to),
            expiration: short(entries.expiration),
            message_id: short(entries.message_id),
            timestamp: entries.timestamp,
            kind: short(entries.kind),
            user_id: short(entries.user_id),
            app_id: short(entries.app_id),
            cluster_id: short(entries.cluster_id),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ka3_a_plain_map_becomes_properties() {
        let text = r#"{
            "content_type": "text/plain", "content_encoding": "gzip", "headers": {"x-foo": "bar", "n": 1}, "delivery_mode": 2,
            "priority": 0, "correlation_id": "c", "reply_to": "r", "expiration": "60000", "message_id": "m",
            "timestamp": 1700000000, "type": "t", "user_id": "guest", "app_id": "", "cluster_id": "x"
        }"#;
        let expected = Properties::new()
            .content_type("text/plain")
            .content_encoding("gzip")
            .header("x-foo", "bar")
            .header("n", 1i64)
            .delivery_mode(2)
            .priority(0)
            .correlation_id("c")
            .reply_to("r")
            .expiration("60000")
            .message_id("m")
            .timestamp(1_700_000_000u64)
            .kind("t")
            .user_id("guest")
            .app_id("")
            .cluster_id("x");
        assert_eq!(serde_json::from_str::<Properties>(text).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Properties>("{}").unwrap(), Properties::new());
        let error = serde_json::from_str::<Properties>(r#"{"contenttype": "x"}"#).unwrap_err().to_string();
        assert!(error.contains("contenttype") && error.contains("content_type"), "{error}");
    }
}
