//! Tables out of plain data: a map with strings, numbers, lists and maps in it, as configuration files have them.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{FieldTable, FieldValue};

impl<'de> Deserialize<'de> for FieldTable {
    /// A map. A name that stands twice has its last value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;

        impl<'de> Visitor<'de> for Table {
            type Value = FieldTable;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldTable, A::Error> {
                entries(&mut map)
            }
        }

        deserializer.deserialize_map(Table)
    }
}

impl<'de> Deserialize<'de> for FieldValue {
    /// Integers become `l`, floats `d`, text `S`, octets `x`, nothing `V`, lists `A`, maps `F`.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;

        impl<'de> Visitor<'de> for Value {
            type Value = FieldValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true or false, nothing, a list or a map")
            }

            fn visit_bool<E>(self, value: bool) -> Result<FieldValue, E> {
                Ok(FieldValue::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<FieldValue, E> {
                Ok(FieldValue::I64(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<FieldValue, E> {
                let value = i64::try_from(value).map_err(|_| E::custom("a number above 9223372036854775807"))?;
                Ok(FieldValue::I64(value))
            }

            fn visit_f64<E>(self, value: f64) -> Result<FieldValue, E> {
                Ok(FieldValue::F64(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<FieldValue, E> {
                Ok(value.into())
            }

            fn visit_bytes<E>(self, value: &[u8]) -> Result<FieldValue, E> {
                Ok(FieldValue::ByteArray(value.to_vec().into()))
            }

            fn visit_unit<E>(self) -> Result<FieldValue, E> {
                Ok(FieldValue::Void)
            }

            fn visit_none<E>(self) -> Result<FieldValue, E> {
                Ok(FieldValue::Void)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldValue, D::Error> {
                FieldValue::deserialize(deserializer)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FieldValue, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    values.push(value);
                }
                Ok(FieldValue::Array(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldValue, A::Error> {
                entries(&mut map).map(FieldValue::Table)
            }
        }

        deserializer.deserialize_any(Value)
    }
}

fn entries<'de, A: MapAccess<'de>>(map: &mut A) -> Result<FieldTable, A::Error> {
    let mut table = FieldTable::new();
    while let Some((name, value)) = map.next_entry::<String, FieldValue>()? {
        table.insert(name, value);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_map_is_a_table() {
        let text = r#"{"s": "text", "n": -3, "f": 0.5, "yes": true, "no": null, "list": [1, "a"], "map": {"x": 1}}"#;
        let table: FieldTable = serde_json::from_str(text).unwrap();
        let expected = FieldTable::new()
            .with("s", "text")
            .with("n", FieldValue::I64(-3))
            .with("f", FieldValue::F64(0.5))
            .with("yes", true)
            .with("no", FieldValue::Void)
            .with("list", FieldValue::Array(vec![FieldValue::I64(1), "a".into()]))
            .with("map", FieldValue::Table(FieldTable::new().with("x", FieldValue::I64(1))));
        assert_eq!(table, expected);
        assert!(serde_json::from_str::<FieldTable>("[1]").is_err());
        assert!(serde_json::from_str::<FieldTable>("{\"x\": 18446744073709551615}").is_err());
    }
}
