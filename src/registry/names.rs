//! The registry itself: names, what stands for them at the moment, and sending under them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::entry::{Entry, Stamp, Taken};
use super::error::RegistryError;
use super::retired::Retired;
use super::settings::{Outgoing, RegistryConfig};
use crate::error::Error;
use crate::messaging::{BatchReport, Client, ClientBuilder, CloseReport, Message, PendingReceipt, Receipt, Target};

/// Connections and outgoing entries by their names, to send with and to change while it runs.
///
/// A cheap handle: clones share everything. Nothing connects before it is used. Methods without `async` take a short lock and never
/// wait.
#[derive(Clone, Default)]
#[doc(alias = "amqp_api")]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Held for moments, and never over an await. Building a sender takes its client's own lock inside of it; no client asks back.
    state: Mutex<State>,
    stamp: Option<Stamp>,
    runtime: Option<Handle>,
}

#[derive(Default)]
struct State {
    connections: BTreeMap<String, Client>,
    outgoing: BTreeMap<String, Entry>,
    closed: bool,
}

/// What all connections and entries of a registry have in common.
#[derive(Clone, Default)]
#[must_use = "nothing happens until build()"]
pub struct RegistryBuilder {
    stamp: Option<Stamp>,
    runtime: Option<Handle>,
}

impl RegistryBuilder {
    /// Looks at each message, and may change it, after it got its entry's defaults and before it is sent: once, however often it is
    /// tried. The first argument is the entry's name. For headers that say where and when a message came from. It must not block.
    pub fn stamp(mut self, stamp: impl Fn(&str, &Target, &mut Message) + Send + Sync + 'static) -> Self {
        self.stamp = Some(Arc::new(stamp));
        self
    }

    /// The runtime that connections live on, where it is not that of whoever happens to send first.
    pub fn spawn_on(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// An empty registry.
    pub fn build(self) -> Registry {
        let Self { stamp, runtime } = self;
        Registry { inner: Arc::new(Inner { state: Mutex::default(), stamp, runtime }) }
    }

    /// A registry with these connections and entries.
    ///
    /// # Errors
    ///
    /// `Settings` or `UnknownConnection` name the first one that is wrong.
    pub fn build_from(self, config: RegistryConfig) -> Result<Registry, RegistryError> {
        let registry = self.build();
        for (name, config) in config.connections {
            // Nothing was there before.
            drop(registry.set_connection(&name, config)?);
        }
        for (name, outgoing) in config.outgoing {
            drop(registry.set_outgoing(&name, outgoing)?);
        }
        Ok(registry)
    }
}

impl fmt::Debug for RegistryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryBuilder").field("stamp", &self.stamp.is_some()).finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a registry with a stamp for all messages, or a runtime for all connections.
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::default()
    }

    /// A registry with these connections and entries.
    ///
    /// # Errors
    ///
    /// As [`RegistryBuilder::build_from`].
    pub fn from_config(config: RegistryConfig) -> Result<Self, RegistryError> {
        Self::builder().build_from(config)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ------------------------------------------------------------------------------------------------- connections

    /// Creates a connection, or replaces the one of this name, whose entries use the new one from now on. It connects when it
    /// is first used.
    ///
    /// # Errors
    ///
    /// `Settings`: they make no sense together; nothing was changed. `Closed`.
    #[doc(alias = "change_password")]
    pub fn set_connection(&self, name: &str, client: impl Into<ClientBuilder>) -> Result<Retired, RegistryError> {
        let mut builder = client.into();
        if let Some(runtime) = &self.inner.runtime {
            builder = builder.spawn_on(runtime.clone());
        }
        let client = builder.lazy().map_err(settings(name))?;
        let mut state = self.state();
        if state.closed {
            return Err(RegistryError::Closed);
        }
        // All new entries first: the old ones stay when one of them fails.
        let mut entries = Vec::new();
        for (entry_name, entry) in state.outgoing.iter().filter(|(_, entry)| entry.outgoing.connection == name) {
            entries.push((entry_name.clone(), self.entry(entry_name, entry.outgoing.clone(), &client)?));
        }
        let mut retired = Retired::default();
        for (entry_name, entry) in entries {
            if let Some(old) = state.outgoing.insert(entry_name, entry) {
                retired.append(old.retire());
            }
        }
        retired.clients.extend(state.connections.insert(name.to_owned(), client));
        Ok(retired)
    }

    /// Removes a connection that no entry uses.
    ///
    /// # Errors
    ///
    /// `UnknownConnection`; `InUse` names the entries.
    pub fn remove_connection(&self, name: &str) -> Result<Retired, RegistryError> {
        let mut state = self.state();
        let uses = state.outgoing.iter().filter(|(_, entry)| entry.outgoing.connection == name);
        let by: Vec<String> = uses.map(|(entry, _)| entry.clone()).collect();
        if !by.is_empty() {
            return Err(RegistryError::InUse { name: name.to_owned(), by });
        }
        match state.connections.remove(name) {
            Some(client) => Ok(Retired { clients: vec![client], ..Retired::default() }),
            None => Err(RegistryError::UnknownConnection { name: name.to_owned() }),
        }
    }

    /// The client of a connection: to ping it, to look at its state and its events, to declare things, to receive. It is the one of this
    /// moment: when the connection is replaced and the old one closed, it is closed.
    ///
    /// # Errors
    ///
    /// `UnknownConnection`.
    pub fn client(&self, name: &str) -> Result<Client, RegistryError> {
        let client = self.state().connections.get(name).cloned();
        client.ok_or_else(|| RegistryError::UnknownConnection { name: name.to_owned() })
    }

    /// The names of the connections, sorted.
    pub fn connection_names(&self) -> Vec<String> {
        self.state().connections.keys().cloned().collect()
    }

    // ----------------------------------------------------------------------------------------------------- entries

    /// Creates an outgoing entry, or replaces the one of this name.
    ///
    /// # Errors
    ///
    /// `UnknownConnection`; `Settings`: they make no sense together; `Closed`. Nothing was changed then.
    #[doc(alias = "create_outconn")]
    pub fn set_outgoing(&self, name: &str, outgoing: Outgoing) -> Result<Retired, RegistryError> {
        self.put(&mut self.state(), name, &outgoing)
    }

    /// The settings are copied, so that those that are refused are dropped by the caller, without the lock.
    fn put(&self, state: &mut State, name: &str, outgoing: &Outgoing) -> Result<Retired, RegistryError> {
        if state.closed {
            return Err(RegistryError::Closed);
        }
        let Some(client) = state.connections.get(&outgoing.connection) else {
            return Err(RegistryError::UnknownConnection { name: outgoing.connection.clone() });
        };
        let entry = self.entry(name, outgoing.clone(), client)?;
        Ok(state.outgoing.insert(name.to_owned(), entry).map_or_else(Retired::default, Entry::retire))
    }

    /// Changes an entry. Of several who do so at the same time the last one's settings stay, as a whole.
    ///
    /// # Errors
    ///
    /// `UnknownOutgoing`; as [`set_outgoing`](Self::set_outgoing).
    #[doc(alias = "edit_outconn")]
    pub fn edit_outgoing(&self, name: &str, change: impl FnOnce(&mut Outgoing)) -> Result<Retired, RegistryError> {
        let mut outgoing = self.outgoing(name)?;
        change(&mut outgoing);
        let mut state = self.state();
        // Code of the program's has run meanwhile, and without the lock.
        if !state.outgoing.contains_key(name) {
            return Err(unknown(name));
        }
        self.put(&mut state, name, &outgoing)
    }

    /// Gives an entry another name; an entry that has that name already is replaced.
    ///
    /// # Errors
    ///
    /// `UnknownOutgoing`; as [`set_outgoing`](Self::set_outgoing).
    pub fn rename_outgoing(&self, from: &str, to: &str) -> Result<Retired, RegistryError> {
        let mut state = self.state();
        let outgoing = state.outgoing.get(from).map(|entry| entry.outgoing.clone()).ok_or_else(|| unknown(from))?;
        let mut retired = self.put(&mut state, to, &outgoing)?;
        if from != to
            && let Some(entry) = state.outgoing.remove(from)
        {
            retired.append(entry.retire());
        }
        Ok(retired)
    }

    /// Removes an entry. Its connection stays.
    ///
    /// # Errors
    ///
    /// `UnknownOutgoing`.
    #[doc(alias = "delete_outconn")]
    pub fn remove_outgoing(&self, name: &str) -> Result<Retired, RegistryError> {
        let entry = self.state().outgoing.remove(name);
        entry.map(Entry::retire).ok_or_else(|| unknown(name))
    }

    /// Switches an entry on.
    ///
    /// # Errors
    ///
    /// As [`edit_outgoing`](Self::edit_outgoing).
    pub fn activate(&self, name: &str) -> Result<(), RegistryError> {
        if self.outgoing(name)?.active {
            return Ok(());
        }
        // An inactive one has nothing on its way.
        self.edit_outgoing(name, |outgoing| outgoing.active = true).map(drop)
    }

    /// Switches an entry off: sending under its name is an error of the kind `Inactive`.
    ///
    /// # Errors
    ///
    /// As [`edit_outgoing`](Self::edit_outgoing).
    pub fn deactivate(&self, name: &str) -> Result<Retired, RegistryError> {
        self.edit_outgoing(name, |outgoing| outgoing.active = false)
    }

    /// The settings of an entry.
    ///
    /// # Errors
    ///
    /// `UnknownOutgoing`.
    pub fn outgoing(&self, name: &str) -> Result<Outgoing, RegistryError> {
        self.state().outgoing.get(name).map(|entry| entry.outgoing.clone()).ok_or_else(|| unknown(name))
    }

    /// The names of the entries, sorted.
    pub fn outgoing_names(&self) -> Vec<String> {
        self.state().outgoing.keys().cloned().collect()
    }

    fn entry(&self, name: &str, outgoing: Outgoing, client: &Client) -> Result<Entry, RegistryError> {
        Entry::new(name, outgoing, client, self.inner.stamp.as_ref()).map_err(settings(name))
    }

    // ----------------------------------------------------------------------------------------------------- sending

    fn take(&self, name: &str) -> Result<Arc<Taken>, RegistryError> {
        let state = self.state();
        if state.closed {
            return Err(RegistryError::Closed);
        }
        state.outgoing.get(name).ok_or_else(|| unknown(name))?.take(name)
    }

    fn take_with_target(&self, name: &str) -> Result<(Arc<Taken>, Target), RegistryError> {
        let taken = self.take(name)?;
        match taken.target.clone() {
            Some(target) => Ok((taken, target)),
            None => Err(RegistryError::NoTarget { name: name.to_owned() }),
        }
    }

    /// Sends a message to where the entry says, and waits for what becomes of it; as [`Sender::send`](crate::messaging::Sender::send).
    ///
    /// # Errors
    ///
    /// `UnknownOutgoing`, `Inactive`, `NoTarget`, `Closed`: it was not sent. `Send`: what the sender says.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for room, the message is not sent; dropped later, its fate is not known.
    #[doc(alias = "amqp_invoke")]
    pub async fn send(&self, name: &str, message: impl Into<Message>) -> Result<Receipt, RegistryError> {
        let (taken, target) = self.take_with_target(name)?;
        Ok(taken.sender.send(target, message).await?)
    }

    /// As [`send`](Self::send), to a target of the message's own.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub async fn send_to(
        &self,
        name: &str,
        target: impl Into<Target>,
        message: impl Into<Message>,
    ) -> Result<Receipt, RegistryError> {
        let taken = self.take(name)?;
        Ok(taken.sender.send(target, message).await?)
    }

    /// As [`send_to`](Self::send_to), one message at a time on a channel of the entry's own. When the server closes the channel, because of
    /// an exchange that is not there for example, this message is the reason: other messages share the blame. Nothing is sent again. While the
    /// server has not said what became of one, those behind it wait, and each of them until its own deadline.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub async fn send_alone(
        &self,
        name: &str,
        target: impl Into<Target>,
        message: impl Into<Message>,
    ) -> Result<Receipt, RegistryError> {
        let taken = self.take(name)?;
        Ok(taken.send_alone(target.into(), message.into()).await?)
    }

    /// Hands a message over as soon as there is room for it, and does not wait for what becomes of it: drop the receipt, and ask
    /// [`flush`](Self::flush) some time, or keep it. As [`Sender::send_pipelined`](crate::messaging::Sender::send_pipelined).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), with the outcome `NotSent`.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the message is not sent.
    #[doc(alias = "amqp_invoke_async")]
    pub async fn post(&self, name: &str, message: impl Into<Message>) -> Result<PendingReceipt, RegistryError> {
        let (taken, target) = self.take_with_target(name)?;
        Ok(taken.sender.send_pipelined(target, message).await?)
    }

    /// As [`post`](Self::post), to a target of the message's own.
    ///
    /// # Errors
    ///
    /// As [`post`](Self::post).
    ///
    /// # Cancel safety
    ///
    /// As [`post`](Self::post).
    pub async fn post_to(
        &self,
        name: &str,
        target: impl Into<Target>,
        message: impl Into<Message>,
    ) -> Result<PendingReceipt, RegistryError> {
        let taken = self.take(name)?;
        Ok(taken.sender.send_pipelined(target, message).await?)
    }

    /// Sends messages in this order, and waits for what becomes of each of them; as
    /// [`Sender::send_batch`](crate::messaging::Sender::send_batch).
    ///
    /// # Errors
    ///
    /// `UnknownOutgoing`, `Inactive`, `Closed`: none of them was sent. Whatever happens to one message is in the report.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves the first ones handed over and the rest not.
    pub async fn send_batch<T, M>(
        &self,
        name: &str,
        messages: impl IntoIterator<Item = (T, M)>,
    ) -> Result<BatchReport, RegistryError>
    where
        T: Into<Target>,
        M: Into<Message>,
    {
        let taken = self.take(name)?;
        Ok(taken.sender.send_batch(messages).await)
    }

    /// What became of the messages of an entry whose receipts were dropped; as [`Sender::flush`](crate::messaging::Sender::flush).
    ///
    /// # Errors
    ///
    /// `UnknownOutgoing`, `Inactive`, `Closed`.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn flush(&self, name: &str) -> Result<BatchReport, RegistryError> {
        let taken = self.take(name)?;
        Ok(taken.sender.flush().await)
    }

    /// Takes no more messages, waits until those on their way are confirmed, and closes all connections, within `deadline`. Closing twice
    /// is fine, and the second report is empty.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it takes no more messages, and the rest ends in the background.
    pub async fn close_within(&self, deadline: Duration) -> CloseReport {
        let retired = {
            let mut state = self.state();
            state.closed = true;
            let mut retired = Retired::default();
            for entry in std::mem::take(&mut state.outgoing).into_values() {
                retired.append(entry.retire());
            }
            retired.clients.extend(std::mem::take(&mut state.connections).into_values());
            retired
        };
        retired.close_within(deadline).await
    }
}

fn unknown(name: &str) -> RegistryError {
    RegistryError::UnknownOutgoing { name: name.to_owned() }
}

fn settings(name: &str) -> impl Fn(Error) -> RegistryError {
    move |error| RegistryError::Settings { name: name.to_owned(), error }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Registry")
            .field("connections", &state.connections.keys())
            .field("outgoing", &state.outgoing.keys())
            .finish_non_exhaustive()
    }
}
