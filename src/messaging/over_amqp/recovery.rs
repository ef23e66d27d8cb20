//! Whether a receiver begins again when its consumers have ended, and whether it tries once more when that has failed.

use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::time::{Instant, sleep_until};

use super::link::{Guest, Link};
use crate::amqp::ReplyCode;
use crate::error::{Error, ErrorKind, Result};
use crate::message::RecoveryPolicy;

/// Whether the connection is gone for a reason that may pass. A channel that was closed and a consumer that was cancelled are
/// another matter: the server has said no, and would do so again.
fn is_loss(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Heartbeat | ErrorKind::ConnectionClosed) && error.is_transient()
}

/// What RabbitMQ says of something that is there and not usable yet, or still somebody's whom it takes for alive: the code is
/// that of something which is not there, or not allowed.
const PASSES: [(ReplyCode, &str); 6] = [
    // rabbit_amqqueue: the queue's node or process is not up (again). Without a queue it is "no queue '...' in vhost '...'".
    (ReplyCode::NOT_FOUND, "is down or inaccessible"),
    (ReplyCode::NOT_FOUND, "process is stopped by supervisor"),
    (ReplyCode::NOT_FOUND, "due to timeout"),
    (ReplyCode::NOT_FOUND, "may be stopping or being demoted"),
    // rabbit_channel: an exclusive consumer, which may be this receiver's own, whose connection the server has not given up yet.
    (ReplyCode::ACCESS_REFUSED, "in exclusive use"),
    // rabbit_reader: the connections of this user, or of everybody, may be such ones, too.
    (ReplyCode::NOT_ALLOWED, "is reached"),
];

/// Whether the same may succeed later without anybody changing it. A refused login does not count: there is no telling
/// a changed password from a service behind the server that is not up yet, and accounts are locked by those who try on and on.
fn passes(error: &Error) -> bool {
    let says = |(code, words): &(ReplyCode, &str)| {
        error.reply_code() == Some(*code) && error.reply_text().is_some_and(|text| text.contains(words))
    };
    error.is_transient() || (error.kind() != ErrorKind::Auth && PASSES.iter().any(says))
}

/// What is done about the loss of a connection: what began is tried again, until it succeeds.
#[derive(Debug)]
pub(super) struct Recovery<T> {
    pub(super) link: Arc<Link>,
    policy: RecoveryPolicy,
    /// The number of the try that has brought what there is.
    number: u64,
    /// When it was lost for the first time in a row.
    since: Instant,
    /// When it came back, if it was ever lost.
    back: Option<Instant>,
    lost: Option<Lost<T>>,
}

/// It was lost, and is not back.
struct Lost<T> {
    loss: Error,
    attempt: Option<Attempt<T>>,
    _recovering: Guest,
}

/// A mutex that nobody locks: so what holds it can be shared between threads, whatever the future is.
type Attempt<T> = Mutex<Pin<Box<dyn Future<Output = Result<T>> + Send>>>;

impl<T: 'static> Recovery<T> {
    pub(super) fn new(link: &Arc<Link>, policy: Option<RecoveryPolicy>) -> Self {
        let policy = policy.unwrap_or_else(|| link.recovery());
        let (number, _) = link.pace.next();
        Self { link: Arc::clone(link), policy, number, since: Instant::now(), back: None, lost: None }
    }

    /// Whether there is an end to this that is not the end of the receiver.
    pub(super) fn begins_again(&self, error: &Error) -> bool {
        is_loss(error) && !self.policy.give_up_after.is_zero()
    }

    /// It was lost, for this reason, and this is the connection's sign of it. Gives the reason back when that is the end.
    pub(super) fn lose(&mut self, loss: Error, sign: &Arc<AtomicBool>) -> Option<Error> {
        if !self.begins_again(&loss) {
            return Some(loss);
        }
        if self.lost.is_some() {
            return None;
        }
        let longest = self.policy.backoff.longest;
        if self.back.is_none_or(|back| back.elapsed() >= longest) {
            self.since = Instant::now();
            self.link.pace.begin(sign);
        } else {
            // It did not last.
            self.link.pace.failed(self.number, self.policy.backoff);
            if self.is_to_be_given_up() {
                return Some(loss);
            }
        }
        tracing::debug!(error = %loss, "a receiver begins again, for its connection is lost");
        self.lost = Some(Lost { loss, attempt: None, _recovering: self.link.recovering() });
        None
    }

    fn is_to_be_given_up(&self) -> bool {
        self.since.elapsed() >= self.policy.give_up_after
    }

    /// What is under way is done anew, for what is wanted has changed.
    pub(super) fn restart(&mut self) {
        if let Some(lost) = &mut self.lost {
            lost.attempt = None;
        }
    }

    /// It is not tried any more.
    pub(super) fn stop(&mut self) {
        self.lost = None;
    }

    /// Tries until it succeeds, and then gives what `begin` has brought. `None` when nothing was lost, or the client was closed.
    ///
    /// # Errors
    ///
    /// What does not pass; what the last try failed with.
    pub(super) fn poll<F>(&mut self, begin: impl Fn(Arc<Link>) -> F, cx: &mut Context<'_>) -> Poll<Option<Result<T>>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        // Timers belong to a runtime, and whoever polls may be outside.
        let runtime = self.link.runtime().cloned();
        let _inside = runtime.as_ref().map(tokio::runtime::Handle::enter);
        loop {
            let Some(lost) = &mut self.lost else { return Poll::Ready(None) };
            let attempt = match &mut lost.attempt {
                Some(attempt) => attempt,
                none => {
                    let (number, due) = self.link.pace.next();
                    self.number = number;
                    let last = self.since.checked_add(self.policy.give_up_after);
                    none.insert(attempt(
                        &self.link,
                        due.map(|due| last.map_or(due, |last| due.min(last))),
                        begin(Arc::clone(&self.link)),
                    ))
                }
            };
            let attempt = attempt.get_mut().unwrap_or_else(PoisonError::into_inner);
            let began = std::task::ready!(attempt.as_mut().poll(cx));
            lost.attempt = None;
            let error = match began {
                Ok(began) => {
                    self.back = Some(Instant::now());
                    self.lost = None;
                    return Poll::Ready(Some(Ok(began)));
                }
                Err(error) => error,
            };
            if self.link.is_closed() {
                self.lost = None;
                return Poll::Ready(None);
            }
            self.link.pace.failed(self.number, self.policy.backoff);
            if !passes(&error) || self.is_to_be_given_up() {
                let loss = self.lost.take().map(|lost| lost.loss.to_string()).unwrap_or_default();
                let message = format!("the connection was lost ({loss}), and the receiver cannot begin again");
                tracing::warn!(%error, "a receiver has not come back after its connection was lost");
                return Poll::Ready(Some(Err(Error::because(error.kind(), message, &error))));
            }
            tracing::debug!(%error, "a receiver could not begin again, and tries once more");
        }
    }
}

/// One try, when it is due; it ends at once when the link is closed.
fn attempt<T: 'static>(
    link: &Link,
    due: Option<Instant>,
    begin: impl Future<Output = Result<T>> + Send + 'static,
) -> Attempt<T> {
    let closed = link.closed();
    Mutex::new(Box::pin(async move {
        let begun = async {
            if let Some(due) = due {
                sleep_until(due).await;
            }
            begin.await
        };
        tokio::select! {
            biased;
            () = closed => Err(Error::new(ErrorKind::Closed, "it was closed on this side")),
            begun = begun => begun,
        }
    }))
}

impl<T> std::fmt::Debug for Lost<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lost").field("loss", &self.loss).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(kind: ErrorKind, code: u16, text: &str) -> Error {
        Error::closed_by_peer(kind, code, text.as_bytes(), (0, 0))
    }

    #[test]
    fn what_ends_a_connection_and_may_pass_is_a_loss() {
        for error in [
            Error::new(ErrorKind::Io, "x"),
            Error::new(ErrorKind::Heartbeat, "x"),
            closed(ErrorKind::ConnectionClosed, 320, "CONNECTION_FORCED - broker forced connection closure"),
            closed(ErrorKind::ConnectionClosed, 541, "INTERNAL_ERROR"),
        ] {
            assert!(is_loss(&error), "{error}");
        }
        for error in [
            Error::new(ErrorKind::Cancelled, "x"),
            Error::new(ErrorKind::Closed, "x"),
            Error::new(ErrorKind::Protocol, "x"),
            closed(ErrorKind::ConnectionClosed, 530, "NOT_ALLOWED"),
            closed(ErrorKind::ConnectionClosed, 501, "FRAME_ERROR"),
            closed(ErrorKind::ChannelClosed, 404, "NOT_FOUND"),
            closed(ErrorKind::ChannelClosed, 541, "INTERNAL_ERROR"),
        ] {
            assert!(!is_loss(&error), "{error}");
        }
    }

    /// The words are RabbitMQ's: `rabbit_amqqueue:priv_absent`, `rabbit_channel`, `rabbit_reader`.
    #[test]
    fn what_a_server_says_that_is_not_up_yet_passes() {
        let (channel, connection) = (ErrorKind::ChannelClosed, ErrorKind::ConnectionClosed);
        for error in [
            Error::new(ErrorKind::Handshake, "cannot connect"),
            Error::new(ErrorKind::Timeout, "no answer to basic.consume"),
            closed(
                channel,
                404,
                "NOT_FOUND - home node 'rabbit@a' of durable queue 'q' in vhost '/' is down or inaccessible",
            ),
            closed(channel, 404, "NOT_FOUND - queue 'q' in vhost '/' process is stopped by supervisor"),
            closed(channel, 404, "NOT_FOUND - failed to perform operation on queue 'q' in vhost '/' due to timeout"),
            closed(
                channel,
                404,
                "NOT_FOUND - failed to perform operation on queue 'q' in vhost '/': its leader <0.1.0> may be stopping or being demoted",
            ),
            closed(channel, 405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'"),
            closed(channel, 403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use"),
            closed(
                connection,
                530,
                "NOT_ALLOWED - access to vhost '/' refused for user 'guest': connection limit (1) is reached",
            ),
            closed(connection, 541, "INTERNAL_ERROR - access to vhost '/' refused for user 'guest': vhost '/' is down"),
            closed(connection, 320, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"),
        ] {
            assert!(passes(&error), "{error}");
        }
        for error in [
            Error::new(ErrorKind::Tls, "x"),
            Error::new(ErrorKind::Unsupported, "x"),
            closed(channel, 404, "NOT_FOUND - no queue 'q' in vhost '/'"),
            closed(channel, 404, "NOT_FOUND - queue 'q' in vhost '/' has crashed and failed to restart"),
            closed(channel, 403, "ACCESS_REFUSED - read access to queue 'q' in vhost '/' refused for user 'limited'"),
            closed(channel, 406, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/'"),
            closed(connection, 530, "NOT_ALLOWED - vhost nowhere not found"),
            closed(ErrorKind::Auth, 403, "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN"),
        ] {
            assert!(!passes(&error), "{error}");
        }
    }
}
