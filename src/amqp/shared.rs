//! The machine behind its one lock, and the guards that close connections and channels when nobody holds a handle any more.
//!
//! Nothing is awaited under that lock, no system call is made, no other lock is taken, and no code of the program's runs: wakers least of
//! all, which are neither woken nor dropped there ([`crate::wakes`] says why). The one exception is a login's
//! [`SaslExchange`](super::SaslExchange), which is told so, and has no handle yet.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::codec::ReplyCode;
use crate::error::{ErrorKind, Result};
use crate::protocol::Wakes;
use crate::protocol::client::{ChannelId, Confirmation, Connection as Machine, Returned, Settle, Watermark};
use crate::transport::{Endpoint, Next, Turn, now};

/// A connection's machine, shared by the handles and the driver.
pub(crate) struct Shared {
    machine: Mutex<Machine>,
    /// The driver's.
    runtime: Handle,
}

impl fmt::Debug for Shared {
    /// Every handle shows it: without the whole machine, its buffers and its messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// A connection whose driver lives on the runtime that this is called on.
    pub(crate) fn new(machine: Machine) -> Arc<Self> {
        Arc::new(Self { machine: Mutex::new(machine), runtime: Handle::current() })
    }

    /// Where the driver lives.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Makes a timer. It is the driver's runtime that keeps the time for whoever is outside of any.
    pub(crate) fn timer<T>(&self, make: impl FnOnce() -> T) -> T {
        let _inside = Handle::try_current().is_err().then(|| self.runtime.enter());
        make()
    }

    /// Does something with the machine. Whoever has to be woken, or dropped, is when the lock has been released.
    #[inline]
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut Machine) -> R) -> R {
        let mut machine = self.lock();
        let result = act(&mut machine);
        if machine.has_wakes() {
            wake_all(machine);
        }
        result
    }

    /// Does something that wakes and replaces nobody, or after which [`wake`](Self::wake) will be called.
    #[inline]
    pub(crate) fn quietly<R>(&self, act: impl FnOnce(&mut Machine) -> R) -> R {
        act(&mut self.lock())
    }

    /// Wakes, and drops, whoever has to be after something was done [`quietly`](Self::quietly).
    pub(crate) fn wake(&self) {
        self.with(|_| ());
    }

    /// Only looks at the machine.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Machine) -> R) -> R {
        look(&self.lock())
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Machine> {
        // No user code runs under the lock, so it is not poisoned; if it were, the machine would still be whole.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Releases the lock, then wakes and drops whoever has to be.
#[cold]
fn wake_all(mut machine: MutexGuard<'_, Machine>) {
    let (driver, mut wakes) = (machine.wake_driver(), Wakes::default());
    machine.take_wakes(&mut wakes);
    drop(machine);
    if let Some(driver) = driver {
        driver.wake();
    }
    wakes.release();
}

impl Endpoint for Shared {
    fn turn(&self, turn: Turn<'_>) -> Next {
        let Turn { input, output, ended, wakes, driver, now } = turn;
        let mut machine = self.lock();
        machine.feed(input, now);
        if let Some(error) = ended {
            machine.terminate(error);
        }
        if machine.timeout().is_some_and(|timeout| timeout <= now) {
            machine.handle_timeout(now);
        }
        machine.take_output(output, now);
        machine.set_driver(driver);
        machine.take_wakes(wakes);
        let next = Next {
            deadline: machine.timeout(),
            read: machine.wants_input(),
            ahead: machine.ahead(input),
            finished: machine.is_finished(),
        };
        let last = next.finished.then(|| (machine.take_unsent(), machine.end().cloned()));
        drop(machine);
        if let Some((_, Some(error))) = last {
            tracing::debug!(%error, "connection ended");
        }
        next
    }
}

/// What every handle of a connection holds. The last one to go closes the connection.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) shared: Arc<Shared>,
    /// For requests that name none of their own.
    pub(crate) call_deadline: Duration,
    pub(crate) close_deadline: Duration,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let limit = self.close_deadline;
        // The text is short, so this cannot fail; and there is nobody left to tell.
        let _ = self.shared.with(|machine| machine.close(ReplyCode::REPLY_SUCCESS, "", now(), limit));
    }
}

/// What every handle of a channel holds. The last one to go closes the channel.
#[derive(Debug)]
pub(crate) struct ChannelGuard {
    pub(crate) guard: Arc<Guard>,
    pub(crate) id: ChannelId,
    pub(crate) watermark: Watermark,
    /// The program has set a prefetch of its own.
    pub(crate) prefetch_set: AtomicBool,
}

/// What became of the message with a tag, for one who looks after the tags himself, and does so under a lock of his own: nobody is
/// woken, and a waker that is replaced stays with the machine until somebody is.
impl ChannelGuard {
    /// Ready once it is known. What is more than a plain ack is told once.
    pub(crate) fn poll_confirm(&self, tag: u64, waker: &Waker) -> Poll<Result<Confirmation>> {
        self.guard.shared.quietly(|machine| machine.poll_confirm(self.id, tag, waker))
    }

    /// The same, if it is known now.
    pub(crate) fn confirmation(&self, tag: u64) -> Option<Result<Confirmation>> {
        if !self.is_decided(tag) {
            return None;
        }
        match self.poll_confirm(tag, Waker::noop()) {
            Poll::Ready(confirmation) => Some(confirmation),
            Poll::Pending => None,
        }
    }

    /// The message that had come back before its channel ended, if that is what was `said` of it. It is told once.
    pub(crate) fn came_back(&self, tag: u64, said: &Result<Confirmation>) -> Option<Box<Returned>> {
        let came_back = said.as_ref().is_err_and(|error| error.kind() == ErrorKind::Returned);
        came_back.then(|| self.guard.shared.quietly(|machine| machine.take_returned(self.id, tag))).flatten()
    }

    /// Nobody will ask.
    pub(crate) fn forget_confirm(&self, tag: u64) {
        self.guard.shared.quietly(|machine| machine.forget_confirm(self.id, tag));
    }

    /// Whether it is known, or never will be.
    pub(crate) fn is_decided(&self, tag: u64) -> bool {
        self.watermark.has_passed(tag) || self.guard.shared.look(|machine| machine.is_decided(self.id, tag))
    }

    /// Whether the server has said it, or given the message back.
    pub(crate) fn is_answered(&self, tag: u64) -> bool {
        self.watermark.has_passed(tag) || self.guard.shared.look(|machine| machine.is_answered(self.id, tag))
    }

    /// Settles the delivery with this tag.
    #[inline]
    pub(crate) fn settle(&self, delivery_tag: u64, settle: Settle) -> Result<()> {
        self.guard.shared.with(|machine| machine.settle(self.id, delivery_tag, settle))
    }
}

impl Drop for ChannelGuard {
    fn drop(&mut self) {
        self.guard.shared.with(|machine| machine.release_channel(self.id));
    }
}
