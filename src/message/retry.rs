//! Whether and when a message that was not accepted is sent again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::SendError;
use crate::error::{ErrorKind, Outcome};

/// Whether a message that was not accepted is sent again, and when. Always bounded: by a number and by the send's deadline.
///
/// Unless told otherwise a message is sent again up to three times where that cannot duplicate it and may help: it was not
/// sent for a [transient](SendError::is_transient) reason, or the server nacked it. What became of it is unknown? Then it
/// is not sent again, unless [`on_unknown`](Self::on_unknown) says so.
///
/// A classifier decides otherwise, error by error:
///
/// ```
/// use leveret::messaging::{RetryDecision, RetryPolicy};
///
/// let policy = RetryPolicy::default().classify(|error| match error.reply_code().map(|code| code.0) {
///     Some(404) => RetryDecision::Retry, // somebody is about to declare the exchange
///     _ => RetryDecision::Default,
/// });
/// ```
#[derive(Clone)]
#[doc(alias = "ErrorPolicy")]
pub struct RetryPolicy {
    /// How often it is sent again, at most; 3.
    pub max_retries: u32,
    /// How long to wait before that.
    pub backoff: Backoff,
    /// What is done where nobody knows what became of the message.
    pub on_unknown: OnUnknown,
    classify: Option<Classify>,
}

type Classify = Arc<dyn Fn(&SendError) -> RetryDecision + Send + Sync>;

/// Waits that double, each shortened by chance to between a half and the whole of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Backoff {
    /// The first wait; 100 ms.
    pub first: Duration,
    /// The longest wait; 10 s.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(10) }
    }
}

/// The longest wait that anybody has, whatever was set. Durations that are longer than any program are no reason to overflow.
pub(crate) const EVER: Duration = Duration::from_secs(1 << 30);

/// What is done with a message of which nobody knows whether it arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnUnknown {
    /// The caller is told.
    #[default]
    Fail,
    /// It is sent again where the reason may pass: at least once, and perhaps twice.
    Resend,
}

/// What a classifier says of an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[doc(alias = "ErrorAction")]
pub enum RetryDecision {
    /// As without a classifier.
    #[default]
    Default,
    /// The caller is told.
    Fail,
    /// It is sent again, after the back-off.
    Retry,
    /// It is sent again after this time.
    RetryAfter(Duration),
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_retries: 3, backoff: Backoff::default(), on_unknown: OnUnknown::Fail, classify: None }
    }
}

impl RetryPolicy {
    /// Nothing is sent again.
    pub fn never() -> Self {
        Self { max_retries: 0, ..Self::default() }
    }

    /// What is of unknown outcome is sent again, too: every message arrives at least once, if it arrives in time at all.
    pub fn at_least_once() -> Self {
        Self { on_unknown: OnUnknown::Resend, ..Self::default() }
    }

    /// How often a message is sent again, at most.
    #[must_use]
    pub fn max_retries(mut self, times: u32) -> Self {
        self.max_retries = times;
        self
    }

    /// How long to wait before sending again.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// What is done where nobody knows what became of the message.
    #[must_use]
    pub fn on_unknown(mut self, what: OnUnknown) -> Self {
        self.on_unknown = what;
        self
    }

    /// Asked about every error, before anything else decides. It must not block.
    #[must_use]
    #[doc(alias = "on_error")]
    pub fn classify(mut self, classify: impl Fn(&SendError) -> RetryDecision + Send + Sync + 'static) -> Self {
        self.classify = Some(Arc::new(classify));
        self
    }

    /// How long to wait before sending again, after `retries` times; `None` for not at all.
    pub(crate) fn wait(&self, error: &SendError, retries: u32) -> Option<Duration> {
        if retries >= self.max_retries {
            return None;
        }
        match self.classify.as_ref().map_or(RetryDecision::Default, |classify| classify(error)) {
            RetryDecision::Fail => None,
            RetryDecision::RetryAfter(time) => Some(time),
            RetryDecision::Retry => Some(self.backoff.wait(retries)),
            RetryDecision::Default => self.may_help(error).then(|| self.backoff.wait(retries)),
        }
    }

    fn may_help(&self, error: &SendError) -> bool {
        match error.outcome() {
            Outcome::NotSent => error.is_transient(),
            Outcome::Refused => error.kind() == ErrorKind::Nacked,
            Outcome::Unknown => self.on_unknown == OnUnknown::Resend && error.is_transient(),
        }
    }
}

impl Backoff {
    /// How long to wait after `retries` times.
    pub(crate) fn wait(&self, retries: u32) -> Duration {
        let factor = 1u32.checked_shl(retries).unwrap_or(u32::MAX);
        let whole = self.first.saturating_mul(factor).min(self.longest).min(EVER);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("max_retries", &self.max_retries)
            .field("backoff", &self.backoff)
            .field("on_unknown", &self.on_unknown)
            .field("classify", &self.classify.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn error(kind: ErrorKind, outcome: Outcome) -> SendError {
        SendError::new(Error::new(kind, "x").with_outcome(outcome))
    }

    #[test]
    fn z12_what_may_have_arrived_is_not_sent_again_unless_asked_for() {
        let policy = RetryPolicy::default();
        let again = |policy: &RetryPolicy, kind, outcome| policy.wait(&error(kind, outcome), 0).is_some();
        assert!(again(&policy, ErrorKind::Io, Outcome::NotSent));
        assert!(again(&policy, ErrorKind::Nacked, Outcome::Refused));
        assert!(!again(&policy, ErrorKind::Io, Outcome::Unknown));
        assert!(!again(&policy, ErrorKind::Returned, Outcome::Refused));
        assert!(!again(&policy, ErrorKind::InvalidArgument, Outcome::NotSent));
        let policy = RetryPolicy::at_least_once();
        assert!(again(&policy, ErrorKind::Io, Outcome::Unknown));
        assert!(!again(&policy, ErrorKind::ChannelClosed, Outcome::Unknown), "without a code it is not transient");
    }

    #[test]
    fn u17_retries_are_bounded_and_waits_double() {
        let policy = RetryPolicy::default();
        let io = error(ErrorKind::Io, Outcome::NotSent);
        for (retries, most) in [(0, 100), (1, 200), (2, 400)] {
            let wait = policy.wait(&io, retries).unwrap();
            let most = Duration::from_millis(most);
            assert!(wait <= most && wait >= most / 2, "{wait:?}");
        }
        assert_eq!(policy.wait(&io, 3), None);
        assert_eq!(RetryPolicy::never().wait(&io, 0), None);
        let endless = RetryPolicy::default().max_retries(u32::MAX);
        assert!(endless.wait(&io, u32::MAX - 1).unwrap() <= Duration::from_secs(10));
        let longest = Backoff { first: Duration::MAX, longest: Duration::MAX };
        assert!(longest.wait(0) >= Duration::from_secs(1 << 29));
    }

    #[test]
    fn u17_a_classifier_is_asked_about_every_error() {
        let policy = RetryPolicy::default().classify(|error| match error.kind() {
            ErrorKind::Returned => RetryDecision::RetryAfter(Duration::from_secs(7)),
            ErrorKind::Io => RetryDecision::Fail,
            _ => RetryDecision::Default,
        });
        assert_eq!(policy.wait(&error(ErrorKind::Returned, Outcome::Refused), 0), Some(Duration::from_secs(7)));
        assert_eq!(policy.wait(&error(ErrorKind::Io, Outcome::NotSent), 0), None);
        assert!(policy.wait(&error(ErrorKind::Nacked, Outcome::Refused), 0).is_some());
    }
}
