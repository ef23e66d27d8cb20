//! Where a driver meets the broker: one lock per turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::ConnectionId;
use super::state::State;
use crate::transport::{Endpoint, Next, Turn, now};

/// What the handle, the listener and the drivers share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Rung, outside the lock, when a client has gone.
    pub(super) gone: Notify,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self { state: Mutex::new(state), gone: Notify::new() }
    }

    /// The state, for a moment in which nothing is awaited and nobody is called.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the state and then wakes those whom it concerns.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = act(&mut state);
        let mut wakes = state.take_wakes();
        drop(state);
        wakes.release();
        result
    }
}

/// One client's end of the broker.
pub(super) struct Link {
    shared: Arc<Shared>,
    id: ConnectionId,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>, id: ConnectionId) -> Self {
        Self { shared, id }
    }
}

impl Endpoint for Link {
    fn turn(&self, turn: Turn<'_>) -> Next {
        let mut state = self.shared.lock();
        let next = state.turn(self.id, turn.input, turn.output, turn.ended, turn.driver, turn.now);
        turn.wakes.append(&mut state.take_wakes());
        drop(state);
        next
    }
}

impl Drop for Link {
    /// The driver has ended, or its runtime has.
    fn drop(&mut self) {
        self.shared.with(|state| state.forget(self.id, now()));
        self.shared.gone.notify_waiters();
    }
}
