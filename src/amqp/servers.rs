//! Several servers: how the time is shared out among them, and what is said when none lets the client in.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// What a limit too long for the clock is taken for.
const AGES: Duration = Duration::from_secs(365 * 24 * 3600);

/// When the next of so many has to be done, if all are given the same time and nobody stays beyond `until`.
pub(super) fn share(until: Option<Instant>, left: usize) -> Instant {
    let now = Instant::now();
    let rest = until.map_or(AGES, |until| until.saturating_duration_since(now));
    now + rest / u32::try_from(left.max(1)).unwrap_or(u32::MAX)
}

/// The earlier of two deadlines, if there are any.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Instant {
    one.into_iter().chain(other).min().unwrap_or_else(|| share(None, 1))
}

/// What happened so far.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failures: Vec<(String, Error)>,
    not_tried: Vec<String>,
}

impl Attempts {
    pub(super) fn failed(&mut self, server: String, error: Error) {
        tracing::debug!(%server, %error, "this server did not let the client in");
        self.failures.push((server, error));
    }

    /// There was no time left for this one.
    pub(super) fn not_tried(&mut self, server: String) {
        self.not_tried.push(server);
    }

    /// What happened at each of them. A single failure stands for itself.
    pub(super) fn into_error(self) -> Error {
        let Self { mut failures, not_tried } = self;
        if let [(_, only)] = failures.as_slice()
            && not_tried.is_empty()
        {
            return only.clone();
        }
        let kind = match failures.split_first() {
            // Each may have had a code of its own, without which this kind does not say whether it passes.
            Some(((_, first), _)) if first.kind() == ErrorKind::ConnectionClosed => ErrorKind::Handshake,
            Some(((_, first), rest)) if rest.iter().all(|(_, error)| error.kind() == first.kind()) => first.kind(),
            _ => ErrorKind::Handshake,
        };
        let kind = if not_tried.is_empty() { kind } else { ErrorKind::Timeout };
        let said =
            failures.drain(..).map(|(server, error)| format!("{server}: {}", without(&error.to_string(), &server)));
        let silent = not_tried.into_iter().map(|server| format!("{server}: not tried, the time was up"));
        let all: Vec<String> = said.chain(silent).collect();
        Error::new(kind, format!("no server could be used ({})", all.join("; ")))
    }
}

/// An error's words, when the server's name stands before them anyway.
fn without<'a>(words: &'a str, server: &str) -> &'a str {
    words
        .strip_prefix("cannot connect to ")
        .and_then(|rest| rest.strip_prefix(server))
        .map_or(words, |rest| rest.trim_start_matches(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A virtual host that is down on each of them, as while they start, is no reason to give up.
    #[test]
    fn what_passes_at_each_passes_at_all() {
        let mut attempts = Attempts::default();
        for server in ["a:5672", "b:5672"] {
            let text = b"INTERNAL_ERROR - access to vhost '/' refused for user 'guest': vhost '/' is down";
            let down = Error::closed_by_peer(ErrorKind::ConnectionClosed, 541, text, (10, 40));
            assert!(down.is_transient());
            attempts.failed(server.to_owned(), down);
        }
        let error = attempts.into_error();
        assert!(error.is_transient(), "{error:?}");
    }

    #[test]
    fn every_server_that_was_tried_is_named_once() {
        let refused = |server: &str| {
            Error::with_source(
                ErrorKind::Handshake,
                format!("cannot connect to {server}"),
                std::io::Error::other("refused"),
            )
        };
        let mut attempts = Attempts::default();
        attempts.failed("here:1 (127.0.0.1:1)".into(), refused("here:1 (127.0.0.1:1)"));
        let error = attempts.into_error();
        assert_eq!(error.to_string(), "cannot connect to here:1 (127.0.0.1:1): refused");

        let mut attempts = Attempts::default();
        attempts.failed("[::1]:1".into(), refused("[::1]:1"));
        attempts.failed("h:2".into(), Error::new(ErrorKind::Timeout, "no connection to h:2 within 5 ms"));
        attempts.not_tried("h:3".into());
        let error = attempts.into_error();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(
            error.to_string(),
            "no server could be used ([::1]:1: refused; h:2: no connection to h:2 within 5 ms; h:3: not tried, the \
             time was up)"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn time_is_shared_out() {
        let now = Instant::now();
        let until = now + Duration::from_secs(9);
        assert_eq!(share(Some(until), 3), now + Duration::from_secs(3));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(share(Some(until), 2), now + Duration::from_secs(5), "what the first left is the others'");
        assert_eq!(share(Some(until), 1), until);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(share(Some(until), 1), Instant::now());
    }
}
