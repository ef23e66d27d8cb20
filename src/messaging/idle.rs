//! How long a stream waits for messages before it ends by itself.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep};

use crate::message::EVER;

/// When the last message came.
#[derive(Debug)]
pub(super) struct Idle {
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Where the timer belongs, which may outlive the runtime of whoever polls: where the client's connection lives, or else where this
    /// was made. Without one there are no timers.
    runtime: Option<Handle>,
}

impl Idle {
    pub(super) fn new(client: Option<Handle>) -> Self {
        Self { since: None, timer: None, runtime: client.or_else(|| Handle::try_current().ok()) }
    }

    /// Where timers belong that are made outside of any runtime.
    pub(super) fn runtime(&self) -> Option<&Handle> {
        self.runtime.as_ref()
    }

    pub(super) fn message_came(&mut self, limit: Option<Duration>) {
        if limit.is_some() {
            self.since = Some(Instant::now());
        }
    }

    /// Ready when no message has come for so long.
    pub(super) fn poll(&mut self, limit: Option<Duration>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = limit else { return Poll::Pending };
        let until = *self.since.get_or_insert_with(Instant::now) + limit.min(EVER);
        let timer = match &mut self.timer {
            Some(timer) => timer,
            none => {
                let Some(runtime) = &self.runtime else { return Poll::Pending };
                let _inside = runtime.enter();
                none.insert(Box::pin(tokio::time::sleep_until(until)))
            }
        };
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}
