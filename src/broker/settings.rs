//! What a broker is told before it starts: who may log in, which virtual hosts there are, the limits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;

use super::script::Script;
use crate::codec::ShortString;
use crate::protocol::server::{Config, Credentials};

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) machine: Config,
    pub(super) users: BTreeMap<String, User>,
    /// The user that the broker's URL is for.
    pub(super) first: String,
    pub(super) virtual_hosts: BTreeSet<ShortString>,
    /// For connections that have none of their own.
    pub(super) script: Script,
}

#[derive(Clone)]
pub(super) struct User {
    pub(super) password: String,
    /// `None` for all.
    pub(super) virtual_hosts: Option<BTreeSet<ShortString>>,
}

impl Default for Settings {
    fn default() -> Self {
        let mut machine = Config::default();
        machine.server_properties.insert("product", "leveret broker");
        let guest = User { password: "guest".into(), virtual_hosts: None };
        let (users, virtual_hosts) = (BTreeMap::from([("guest".into(), guest)]), BTreeSet::from(["/".into()]));
        Self { machine, users, first: "guest".into(), virtual_hosts, script: Script::new() }
    }
}

impl Settings {
    /// A URL for the first user, with `/` or another virtual host that is open to this one.
    pub(super) fn url(&self, address: SocketAddr) -> String {
        let user = self.users.get(&self.first);
        let open = |host: &&ShortString| {
            let only = user.and_then(|user| user.virtual_hosts.as_ref());
            only.is_none_or(|hosts| hosts.contains(*host))
        };
        let mut hosts = self.virtual_hosts.iter().filter(open);
        let host = hosts.clone().find(|host| **host == "/").or_else(|| hosts.next());
        let (password, host) =
            (user.map_or("", |user| &user.password), host.map(ToString::to_string).unwrap_or_default());
        format!("amqp://{}:{}@{address}/{}", escape(&self.first), escape(password), escape(&host))
    }

    /// The user that credentials stand for, when they are good. Over a socket without certificates EXTERNAL is believed,
    /// and ANONYMOUS is the guest; neither is offered unless the test asks for it.
    pub(super) fn user(&self, credentials: &Credentials) -> Option<ShortString> {
        let known = |name: &Bytes| {
            let name = std::str::from_utf8(name).ok()?;
            self.users.get_key_value(name)
        };
        let (name, _) = match credentials {
            Credentials::Password { user, password } => {
                known(user).filter(|(_, user)| user.password.as_bytes() == password)?
            }
            Credentials::External(identity) if identity.is_empty() => self.users.first_key_value()?,
            Credentials::External(identity) => known(identity)?,
            Credentials::Anonymous(_) => self.users.get_key_value("guest")?,
        };
        Some(name.into())
    }

    pub(super) fn may_enter(&self, user: &ShortString, virtual_host: &ShortString) -> bool {
        let user = user.to_str().ok().and_then(|name| self.users.get(name));
        user.is_some_and(|user| user.virtual_hosts.as_ref().is_none_or(|hosts| hosts.contains(virtual_host)))
    }
}

impl std::fmt::Debug for Settings {
    /// Without the passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("users", &self.users.keys().collect::<Vec<_>>())
            .field("virtual_hosts", &self.virtual_hosts)
            .finish_non_exhaustive()
    }
}

/// Percent-encodes what may not stand in a URL.
fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, octet| {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            escaped.push(char::from(octet));
        } else {
            escaped.push_str(&format!("%{octet:02x}"));
        }
        escaped
    })
}
