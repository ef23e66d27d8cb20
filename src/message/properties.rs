//! The properties of a message, in one word: most messages of a sender have the same.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::codec::Properties;

/// The fourteen properties of a [`Message`](super::Message), headers among them: to be read and set as if they were
/// [`Properties`].
///
/// They take one word, and no memory as long as none of them is set. Clones share them, and get their own when they are changed. So messages
/// can share what is the same for all of them, and it is encoded once:
///
/// ```
/// use leveret::amqp::Properties;
/// use leveret::messaging::{Message, SharedProperties};
///
/// let all = SharedProperties::from(Properties::new().content_type("text/plain").persistent());
/// let messages = ["one", "two"].map(|text| Message::new(text).with_properties(all.clone()));
/// let other = messages[0].clone().priority(9);
/// assert_eq!((messages[1].properties.priority, other.properties.priority), (None, Some(9)));
/// ```
#[derive(Clone, Default)]
pub struct SharedProperties(Option<Arc<Properties>>);

static NONE: Properties = Properties::new();

impl SharedProperties {
    pub(crate) const NONE: Self = Self(None);

    /// Whether none was ever set.
    #[inline]
    pub(super) fn is_unset(&self) -> bool {
        self.0.is_none()
    }

    /// The properties, and whether others have them, too.
    #[inline]
    pub(crate) fn get(&self) -> Option<(&Arc<Properties>, bool)> {
        self.0.as_ref().map(|properties| (properties, Arc::strong_count(properties) > 1))
    }
}

impl Deref for SharedProperties {
    type Target = Properties;

    fn deref(&self) -> &Properties {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for SharedProperties {
    fn deref_mut(&mut self) -> &mut Properties {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl From<Properties> for SharedProperties {
    fn from(properties: Properties) -> Self {
        Self(Some(Arc::new(properties)))
    }
}

impl From<SharedProperties> for Properties {
    fn from(properties: SharedProperties) -> Self {
        properties.0.map(Arc::unwrap_or_clone).unwrap_or_default()
    }
}

impl PartialEq for SharedProperties {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(&raw const **self, &raw const **other) || **self == **other
    }
}

impl PartialEq<Properties> for SharedProperties {
    fn eq(&self, other: &Properties) -> bool {
        **self == *other
    }
}

impl fmt::Debug for SharedProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_changes_the_others_do_not_see() {
        let mut one = SharedProperties::default();
        assert!(one.is_unset() && one == Properties::new());
        let set = SharedProperties::from(Properties::new());
        assert_eq!(one, set);
        let other = one.clone();
        one.priority = Some(1);
        let third = one.clone();
        one.priority = Some(2);
        assert_eq!((one.priority, other.priority, third.priority), (Some(2), None, Some(1)));
        assert_ne!(one, third);
        assert_eq!(Properties::from(third), Properties::new().priority(1));
        assert_eq!(size_of::<SharedProperties>(), size_of::<usize>());
    }
}
