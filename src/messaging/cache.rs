//! One client for each configuration.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::client::Client;
use super::config::Config;
use crate::error::Result;
use crate::message::CloseReport;

/// Clients by their configuration: whoever comes with the same one gets the same client, and so shares its connection.
///
/// A value like any other: nothing is global. Passwords are part of a configuration; `Debug` shows how many clients there are and
/// nothing else.
#[derive(Default)]
#[doc(alias = "pool")]
pub struct ClientCache {
    clients: Mutex<HashMap<Config, Client>>,
    runtime: Option<Handle>,
}

impl ClientCache {
    /// No clients.
    pub fn new() -> Self {
        Self::default()
    }

    /// The runtime that all its connections live on, where that is not the caller's: callers may come from runtimes that end before
    /// their connections do.
    #[must_use]
    pub fn spawn_on(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Config, Client>> {
        // Nothing panics under the lock.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client for this configuration; a new one, which connects when it is first used, where there is none that is not closed.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: the settings make no sense together.
    pub fn get(&self, config: impl Into<Config>) -> Result<Client> {
        let config = config.into();
        let mut clients = self.lock();
        if let Some(client) = clients.get(&config)
            && client.state() != super::ClientState::Closed
        {
            return Ok(client.clone());
        }
        let mut builder = Client::from_config(config.clone());
        if let Some(runtime) = &self.runtime {
            builder = builder.spawn_on(runtime.clone());
        }
        let client = builder.lazy()?;
        let closed = clients.insert(config, client.clone());
        drop(clients);
        drop(closed);
        Ok(client)
    }

    /// Takes a client out, to close it while others get a new one.
    pub fn remove(&self, config: &Config) -> Option<Client> {
        self.lock().remove(config)
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Closes the connections of all clients that have nothing on their way within `limit`; the next use opens them again. For times
    /// when memory or sockets are short.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn close_idle(&self, limit: Duration) {
        let clients: Vec<Client> = self.lock().values().cloned().collect();
        for client in clients {
            // One that is busy keeps its connection.
            let _busy = tokio::time::timeout(limit, client.close_idle()).await;
        }
    }

    /// Closes all clients, each within `deadline`, and forgets them.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it leaves the rest open.
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        let clients: Vec<Client> = self.lock().drain().map(|(_, client)| client).collect();
        let mut report = CloseReport::default();
        for client in clients {
            report.append(client.close_within(deadline).await);
        }
        report
    }
}

impl std::fmt::Debug for ClientCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientCache").field("clients", &self.len()).finish()
    }
}
