//! The fourteen properties of a message.
//!
//! On the wire they are one or more 16-bit words of flags, then the values that are there, in a fixed order (§4.2.6.1).
//! The highest bit of a word stands for the first property; the lowest says that another word follows.

use bytes::Bytes;

use super::table::encode_table_with;
use super::wire::{Decoder, Encoder, Field, FieldType};
use super::{DecodeError, EncodeError, FieldTable, ShortString};

/// What the table says of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PropertyInfo {
    /// The protocol's name: `content-type`.
    pub name: &'static str,
    /// The bit of the first flag word.
    pub bit: u8,
    /// The type of the value.
    pub kind: FieldType,
}

macro_rules! properties {
    ($( $(#[$doc:meta])* $field:ident: $kind:ty = $bit:literal $name:literal $([$wire:ident])?; )*) => {
        /// The properties of a message, each there or not. Not set is not the same as empty or zero.
        ///
        /// Every field can be set directly or with the method of the same name:
        ///
        /// ```
        /// use leveret::codec::Properties;
        ///
        /// let properties = Properties::new().content_type("text/plain").message_id("42").persistent();
        /// assert_eq!(properties.delivery_mode, Some(2));
        /// ```
        #[derive(Clone, Debug, Default, PartialEq)]
        #[doc(alias = "BasicProperties")]
        #[doc(alias = "AMQPProperties")]
        pub struct Properties {
            $( $(#[$doc])* pub $field: Option<$kind>, )*
        }

        #[cfg(feature = "arbitrary")]
        impl<'a> ::arbitrary::Arbitrary<'a> for Properties {
            fn arbitrary(u: &mut ::arbitrary::Unstructured<'a>) -> ::arbitrary::Result<Self> {
                let mut properties = Self::default();
                $(
                    if u.arbitrary()? {
                        properties.$field = Some(Field::arbitrary(u)?);
                    }
                )*
                Ok(properties)
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> ::serde::Deserialize<'de> for Properties {
            /// A map. Names are those of the fields or of the protocol (`content_type`, `content-type`), and `kind` may be called
            /// `type` or `message_type`. What is null is not set; an unknown name is an error that lists the known ones.
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Entries;

                impl<'de> ::serde::de::Visitor<'de> for Entries {
                    type Value = Properties;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a map of properties")
                    }

                    fn visit_map<A: ::serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Properties, A::Error> {
                        let mut properties = Properties::default();
                        while let Some(name) = map.next_key::<String>()? {
                            let name = if name == "message_type" { "type" } else { name.as_str() };
                            $(
                                if name == $name || name == stringify!($field) {
                                    properties.$field = map.next_value()?;
                                    continue;
                                }
                            )*
                            return Err(::serde::de::Error::unknown_field(name, &[$(stringify!($field)),*]));
                        }
                        Ok(properties)
                    }
                }

                deserializer.deserialize_map(Entries)
            }
        }

        impl Properties {
            /// No properties.
            pub const fn new() -> Self {
                Self { $( $field: None, )* }
            }

            /// Every property, in the order of the wire.
            pub const ALL: &'static [PropertyInfo] = &[$(
                PropertyInfo { name: $name, bit: $bit, kind: properties!(@kind $kind $(, $wire)?) },
            )*];

            $(
                $(#[$doc])*
                #[must_use]
                pub fn $field(mut self, value: impl Into<$kind>) -> Self {
                    self.$field = Some(value.into());
                    self
                }
            )*

            fn flags(&self) -> u16 {
                $( (u16::from(self.$field.is_some()) << $bit) | )* 0
            }

            /// Appends the flags and the values. On an error `out` may hold a part of them.
            ///
            /// # Errors
            ///
            /// A string is longer than 255 octets, or the headers cannot be encoded.
            pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
                let mut encoder = Encoder::new(out);
                self.flags().encode(&mut encoder, "property flags")?;
                $(
                    if let Some(value) = &self.$field {
                        Field::encode(value, &mut encoder, concat!("property ", $name))?;
                    }
                )*
                Ok(())
            }

            /// As [`encode`](Self::encode), with one more header, in place of those of its name. Returns where in `out` the eight
            /// octets of its value stand.
            pub(crate) fn encode_with_header(
                &self,
                header: (&str, i64),
                out: &mut Vec<u8>,
            ) -> Result<usize, EncodeError> {
                let mut encoder = Encoder::new(out);
                (self.flags() | 1 << HEADERS).encode(&mut encoder, "property flags")?;
                let mut value_at = 0;
                $(
                    if $bit == HEADERS {
                        encode_table_with(self.headers.as_ref(), header, out, "property headers")?;
                        value_at = out.len() - size_of::<i64>();
                    } else if let Some(value) = &self.$field {
                        Field::encode(value, &mut Encoder::new(out), concat!("property ", $name))?;
                    }
                )*
                Ok(value_at)
            }

            fn decode(source: &Bytes) -> Result<Self, DecodeError> {
                let mut decoder = Decoder::new(source);
                let flags = read_flags(&mut decoder)?;
                let mut properties = Self::default();
                $(
                    if flags & (1 << $bit) != 0 {
                        properties.$field = Some(Field::decode(&mut decoder, concat!("property ", $name))?);
                    }
                )*
                Ok(properties)
            }

            /// All but the headers, which are only stepped over.
            fn decode_without_headers(source: &Bytes) -> Result<Self, DecodeError> {
                let mut decoder = Decoder::new(source);
                let flags = read_flags(&mut decoder)?;
                let mut properties = Self::default();
                $(
                    if flags & (1 << $bit) != 0 {
                        if $bit == HEADERS {
                            <Bytes as Field>::decode(&mut decoder, "property headers")?;
                        } else {
                            properties.$field = Some(Field::decode(&mut decoder, concat!("property ", $name))?);
                        }
                    }
                )*
                Ok(properties)
            }
        }
    };
    (@kind $kind:ty) => { <$kind as Field>::TYPE };
    (@kind $kind:ty, $wire:ident) => { FieldType::$wire };
}

const HEADERS: u32 = 13;

properties! {
    /// MIME type of the body.
    content_type: ShortString = 15 "content-type";
    /// MIME encoding of the body.
    content_encoding: ShortString = 14 "content-encoding";
    /// The application's own headers; a headers exchange routes by them.
    headers: FieldTable = 13 "headers";
    /// 1 for transient, 2 for persistent.
    delivery_mode: u8 = 12 "delivery-mode";
    /// 0 to 9 (quorum queues of RabbitMQ 4.3: to 31).
    priority: u8 = 11 "priority";
    /// Which request a message answers.
    correlation_id: ShortString = 10 "correlation-id";
    /// The queue for answers.
    reply_to: ShortString = 9 "reply-to";
    /// Time to live in milliseconds, as a decimal string.
    expiration: ShortString = 8 "expiration";
    /// The application's name for the message.
    message_id: ShortString = 7 "message-id";
    /// Seconds since 1970.
    timestamp: u64 = 6 "timestamp" [Timestamp];
    /// The kind of message (`type` on the wire).
    kind: ShortString = 5 "type";
    /// The user who published it; RabbitMQ refuses another name than the connection's (406).
    user_id: ShortString = 4 "user-id";
    /// The application that published it.
    app_id: ShortString = 3 "app-id";
    /// Reserved by the specification, in use all the same.
    cluster_id: ShortString = 2 "cluster-id";
}

impl Properties {
    /// Delivery mode 2: the message survives a restart of the server in a durable queue.
    #[must_use]
    pub fn persistent(self) -> Self {
        self.delivery_mode(2)
    }

    /// Puts one header into the table of headers.
    #[must_use]
    pub fn header(mut self, name: impl Into<ShortString>, value: impl Into<super::FieldValue>) -> Self {
        self.headers.get_or_insert_default().insert(name, value);
        self
    }
}

/// Reads all flag words and returns the first; the properties of further words do not exist (c80).
fn read_flags(decoder: &mut Decoder<'_>) -> Result<u16, DecodeError> {
    let first = u16::decode(decoder, "property flags")?;
    let mut word = first;
    while word & 1 == 1 {
        word = u16::decode(decoder, "property flags")?;
    }
    Ok(first)
}

/// The properties of a received message as they came, decoded when they are asked for.
///
/// So a message whose headers are broken can still be received, looked at and settled: only asking for the headers fails.
#[derive(Clone, PartialEq, Eq)]
pub struct RawProperties(Bytes);

impl RawProperties {
    /// The flag words and values of a content header.
    pub fn new(octets: Bytes) -> Self {
        Self(octets)
    }

    /// The flag words and values as they came.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// All properties.
    ///
    /// # Errors
    ///
    /// A value is cut off, or the headers are not a table in RabbitMQ's dialect.
    pub fn decode(&self) -> Result<Properties, DecodeError> {
        Properties::decode(&self.0)
    }

    /// All properties but the headers, which may be broken.
    ///
    /// # Errors
    ///
    /// A value is cut off.
    pub fn decode_without_headers(&self) -> Result<Properties, DecodeError> {
        Properties::decode_without_headers(&self.0)
    }
}

impl Default for RawProperties {
    /// No properties: one word of flags, none of them set.
    fn default() -> Self {
        Self(Bytes::from_static(&[0, 0]))
    }
}

impl std::fmt::Debug for RawProperties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.decode() {
            Ok(properties) => properties.fmt(f),
            Err(error) => write!(f, "RawProperties({error})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c80_every_property_round_trips_alone_and_with_all_others() {
        let all = Properties::new()
            .content_type("text/plain")
            .content_encoding("gzip")
            .header("k", 1i32)
            .persistent()
            .priority(9)
            .correlation_id("c")
            .reply_to("r")
            .expiration("60000")
            .message_id("m")
            .timestamp(1_700_000_000u64)
            .kind("t")
            .user_id("guest")
            .app_id("a")
            .cluster_id("x");
        let mut octets = Vec::new();
        all.encode(&mut octets).unwrap();
        assert_eq!(octets.get(..2), Some(&[0b1111_1111, 0b1111_1100][..]), "c81: bits 15 to 2");
        assert_eq!(RawProperties::new(octets.into()).decode(), Ok(all));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn kb6_kb7_properties_are_read_from_a_plain_map() {
        let read = |text: &str| serde_json::from_str::<Properties>(text).map_err(|error| error.to_string());
        let properties = read(
            r#"{"content_type": "text/plain", "content-encoding": "gzip", "headers": {"x-foo": "bar", "n": 1},
                "delivery_mode": 2, "priority": 0, "correlation_id": "c", "reply_to": "r", "expiration": 60000,
                "message_id": "m", "timestamp": 1700000000, "message_type": "t", "user_id": "guest", "app_id": "",
                "cluster_id": null}"#,
        )
        .unwrap();
        let expected = Properties::new()
            .content_type("text/plain")
            .content_encoding("gzip")
            .header("x-foo", "bar")
            .header("n", 1i64)
            .persistent()
            .priority(0)
            .correlation_id("c")
            .reply_to("r")
            .expiration("60000")
            .message_id("m")
            .timestamp(1_700_000_000u64)
            .kind("t")
            .user_id("guest")
            .app_id("");
        assert_eq!(properties, expected, "zero and empty are values, null is none");
        assert_eq!(read("{}").unwrap(), Properties::new());
        let error = read(r#"{"prioritty": 1}"#).unwrap_err();
        assert!(error.contains("prioritty") && error.contains("message_id"), "{error}");
        let error = read(&format!(r#"{{"app_id": "{}"}}"#, "x".repeat(256))).unwrap_err();
        assert!(error.contains("255"), "{error}");
    }

    #[test]
    fn one_more_header_takes_the_place_of_its_namesake() {
        let properties = Properties::new().content_type("text/plain").app_id("a");
        let with_headers = properties.clone().header("k", 1i32).header("own", "old").header("l", true);
        for (before, after) in [
            (Properties::new(), Properties::new().header("own", 7i64)),
            (properties.clone(), properties.clone().header("own", 7i64)),
            (with_headers, properties.header("k", 1i32).header("l", true).header("own", 7i64)),
        ] {
            let mut octets = Vec::new();
            let value_at = before.encode_with_header(("own", 7), &mut octets).unwrap();
            assert_eq!(octets.get(value_at..value_at + 8), Some(&7i64.to_be_bytes()[..]));
            assert_eq!(RawProperties::new(octets.into()).decode(), Ok(after));
        }
    }

    #[test]
    fn c80_further_flag_words_are_read_and_their_unknown_properties_ignored() {
        let octets = Bytes::from_static(&[0x08, 0x01, 0xff, 0xff, 0x80, 0x00, 7]);
        assert_eq!(RawProperties::new(octets).decode(), Ok(Properties::new().priority(7)));
    }

    #[test]
    fn broken_headers_leave_the_other_properties_readable() {
        let octets = Bytes::from_static(b"\x20\x80\0\0\0\x03\x01kQ\x02id");
        let raw = RawProperties::new(octets);
        assert!(raw.decode().is_err());
        assert_eq!(raw.decode_without_headers().unwrap().message_id, Some("id".into()));
    }

    #[test]
    fn a_long_short_string_is_an_error_that_names_the_property() {
        let error = Properties::new().reply_to("x".repeat(256)).encode(&mut Vec::new()).unwrap_err();
        assert_eq!(error.what(), "property reply-to");
    }
}
