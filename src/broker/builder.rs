//! Settings for a broker, and its start.

use std::io;

use tokio::net::{TcpListener, ToSocketAddrs};

use super::Broker;
use super::script::Script;
use super::settings::{Settings, User};

/// Settings for a [`Broker`].
///
/// The first [`user`](Self::user) takes the place of `guest`, and the first [`virtual_host`](Self::virtual_host) that of `/`.
#[derive(Clone, Debug)]
pub struct Builder {
    settings: Settings,
    own_users: bool,
    own_virtual_hosts: bool,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { settings: Settings::default(), own_users: false, own_virtual_hosts: false }
    }

    /// A user who may use every virtual host.
    #[must_use]
    pub fn user(self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.add_user(name.into(), User { password: password.into(), virtual_hosts: None })
    }

    /// A user who may use only these virtual hosts.
    #[must_use]
    pub fn restricted_user<'a>(
        self,
        name: impl Into<String>,
        password: impl Into<String>,
        virtual_hosts: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let virtual_hosts = Some(virtual_hosts.into_iter().map(Into::into).collect());
        self.add_user(name.into(), User { password: password.into(), virtual_hosts })
    }

    fn add_user(mut self, name: String, user: User) -> Self {
        if !std::mem::replace(&mut self.own_users, true) {
            self.settings.users.clear();
            self.settings.first.clone_from(&name);
        }
        self.settings.users.insert(name, user);
        self
    }

    /// A virtual host.
    #[must_use]
    pub fn virtual_host(mut self, name: &str) -> Self {
        if !std::mem::replace(&mut self.own_virtual_hosts, true) {
            self.settings.virtual_hosts.clear();
        }
        self.settings.virtual_hosts.insert(name.into());
        self
    }

    /// The heartbeat interval proposed to clients, in seconds; 0 for none. Default: 60.
    #[must_use]
    pub fn heartbeat(mut self, seconds: u16) -> Self {
        self.settings.machine.heartbeat = seconds;
        self
    }

    /// The largest frame, in octets with head and end; 0 for no limit. Default: 131 072.
    #[must_use]
    pub fn frame_max(mut self, octets: u32) -> Self {
        self.settings.machine.frame_max = octets;
        self
    }

    /// The highest number of channels of a connection; 0 for no limit. Default: 2047.
    #[must_use]
    pub fn channel_max(mut self, channels: u16) -> Self {
        self.settings.machine.channel_max = channels;
        self
    }

    /// The largest message, in octets. Default: 128 MiB.
    #[must_use]
    pub fn max_message_size(mut self, octets: u64) -> Self {
        self.settings.machine.max_message_size = octets;
        self
    }

    /// The SASL mechanisms offered, with spaces between. Default: `PLAIN AMQPLAIN`.
    ///
    /// `EXTERNAL`, `ANONYMOUS` and `RABBIT-CR-DEMO` are understood, too. There are no certificates: whoever says EXTERNAL is believed.
    #[must_use]
    pub fn mechanisms(mut self, names: impl Into<String>) -> Self {
        self.settings.machine.mechanisms = names.into();
        self
    }

    /// What goes wrong on every connection that gets no script of its own from [`Broker::script`]. Default: nothing.
    #[must_use]
    pub fn script(mut self, script: Script) -> Self {
        self.settings.script = script;
        self
    }

    /// Starts the broker on a free loopback port, as [`Broker::start`] does.
    ///
    /// # Errors
    ///
    /// The system gives no port.
    pub async fn start(self) -> io::Result<Broker> {
        self.bind("127.0.0.1:0").await
    }

    /// Listens on an address and starts the broker.
    ///
    /// # Errors
    ///
    /// The address is taken, or is none.
    pub async fn bind(self, address: impl ToSocketAddrs) -> io::Result<Broker> {
        Broker::run(self.settings, TcpListener::bind(address).await?)
    }
}
