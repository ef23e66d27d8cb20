//! Names, keys and tags: strings that the wire gives one length octet.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

/// A string of at most 255 octets, as used for names, routing keys and most properties.
///
/// The protocol says UTF-8; what a peer sends is kept as it came, so that a name in another encoding can be read, compared
/// and sent back unharmed. The length is checked where it matters, when the string is encoded: a longer one is an
/// [`EncodeError`](super::EncodeError) there, never a panic and never cut short.
///
/// Cloning is cheap: a received string is a slice of the frame it came in.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortString(Bytes);

impl ShortString {
    /// A string that lives in the program's text, without an allocation.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The string, when it is UTF-8.
    ///
    /// # Errors
    ///
    /// The peer sent something else.
    pub fn to_str(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.0)
    }

    /// The string, with U+FFFD for what is not UTF-8.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The length in octets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Bytes> for ShortString {
    fn from(octets: Bytes) -> Self {
        Self(octets)
    }
}

impl From<&str> for ShortString {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for ShortString {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&String> for ShortString {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

// Equal and ordered as its octets are, so maps can be asked with a slice.
impl std::borrow::Borrow<[u8]> for ShortString {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for ShortString {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq<str> for ShortString {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for ShortString {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ShortString {
    /// A text of at most 255 octets; a whole number is its decimal text.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl serde::de::Visitor<'_> for Text {
            type Value = ShortString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text of at most 255 octets")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ShortString, E> {
                if text.len() > 255 { Err(E::invalid_length(text.len(), &self)) } else { Ok(text.into()) }
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<ShortString, E> {
                Ok(number.to_string().into())
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<ShortString, E> {
                Ok(number.to_string().into())
            }
        }

        deserializer.deserialize_any(Text)
    }
}

impl fmt::Display for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_string_lossy())
    }
}

impl fmt::Debug for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string_lossy(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_octets_that_are_not_utf8() {
        let name = ShortString::from(Bytes::from_static(b"caf\xe9"));
        assert!(name.to_str().is_err());
        assert_eq!(name.to_string(), "caf\u{fffd}");
        assert_eq!(name.as_bytes(), b"caf\xe9");
    }
}
