//! What a program does at certain moments: when a connection is new, when a receiver begins.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::deadline::by;
use crate::error::{Error, ErrorKind, Result};

/// What code of users fails with: an [`Error`], or one of their own.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Called<O> = Pin<Box<dyn Future<Output = Result<O, BoxError>> + Send>>;

/// A function of the program's that makes an `O` of an `I`.
pub(super) struct Hook<I, O> {
    /// As it is called in errors.
    name: &'static str,
    call: Arc<dyn Fn(I) -> Called<O> + Send + Sync>,
}

impl<I, O> Hook<I, O> {
    pub(super) fn new<F>(name: &'static str, function: impl Fn(I) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<O, BoxError>> + Send + 'static,
    {
        Self { name, call: Arc::new(move |input| Box::pin(function(input))) }
    }

    /// Calls it, and waits until `until`, which is `limit` after something began.
    ///
    /// # Errors
    ///
    /// Of the kind and with the reply of what it fails with; `Handshake` for an error of the program's own, which may pass; `Timeout`.
    pub(super) async fn call(&self, input: I, runtime: Option<&Handle>, until: Instant, limit: Duration) -> Result<O> {
        let name = self.name;
        match by(runtime, until, (self.call)(input)).await {
            Some(Ok(output)) => Ok(output),
            Some(Err(error)) => Err(match error.downcast::<Error>() {
                Ok(error) => Error::because(error.kind(), format!("{name} has failed"), &error),
                Err(error) => Error::with_boxed(ErrorKind::Handshake, format!("{name} has failed"), error),
            }),
            None => {
                Err(Error::new(ErrorKind::Timeout, format!("{name} has not ended within {} ms", limit.as_millis())))
            }
        }
    }
}

impl<I, O> Clone for Hook<I, O> {
    fn clone(&self) -> Self {
        Self { name: self.name, call: Arc::clone(&self.call) }
    }
}

impl<I, O> fmt::Debug for Hook<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
