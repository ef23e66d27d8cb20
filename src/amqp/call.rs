//! A request and the wait for its reply, with a deadline.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::shared::{ChannelGuard, Shared};
use crate::codec::Method;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::client::{CallId, Connection as Machine, Reply};

/// Sends a request on a channel and waits for what answers it. `window` is for `confirm.select` only.
pub(crate) async fn call(
    channel: &Arc<ChannelGuard>,
    method: Method,
    deadline: Option<Duration>,
    window: usize,
) -> Result<Reply> {
    let name = method.info().name;
    let id = channel.guard.shared.with(|machine| machine.call(channel.id, method, window))?;
    reply(channel, id, name, deadline).await
}

/// Waits for the answer to a request that was sent.
pub(crate) async fn reply(
    channel: &Arc<ChannelGuard>,
    id: CallId,
    name: &'static str,
    deadline: Option<Duration>,
) -> Result<Reply> {
    let shared = &channel.guard.shared;
    let poll = |waker: &Waker| shared.with(|machine| machine.poll_call(channel.id, id, waker));
    let abandon = || shared.with(|machine| machine.abandon_call(channel.id, id));
    within(shared, deadline.unwrap_or(channel.guard.call_deadline), name, poll, abandon).await
}

/// Polls for an answer until it is there or the deadline passes. Whoever stops waiting leaves the expectation behind, so that
/// the late reply meets it.
pub(crate) async fn within<T>(
    shared: &Shared,
    limit: Duration,
    name: &'static str,
    mut poll: impl FnMut(&Waker) -> Poll<Result<T>>,
    abandon: impl FnMut(),
) -> Result<T> {
    let mut abandon = OnDrop(Some(abandon));
    let answer = poll_fn(|cx| poll(cx.waker()));
    match shared.timer(|| tokio::time::timeout(limit, answer)).await {
        Ok(answer) => {
            abandon.0 = None;
            answer
        }
        Err(_) => Err(late(shared, &format!("no answer to {name}"), limit)),
    }
}

/// The error of one whose deadline has passed.
pub(crate) fn late(shared: &Shared, what: &str, limit: Duration) -> Error {
    let why = shared.look(Machine::why_unread);
    Error::new(ErrorKind::Timeout, format!("{what} within {} ms{why}", limit.as_millis()))
}

/// Runs something unless it was called off.
struct OnDrop<F: FnMut()>(Option<F>);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(act) = &mut self.0 {
            act();
        }
    }
}

/// Makes values that can be awaited, as `Value<'a> => Output, |value| future`.
macro_rules! awaited {
    ($( $request:ident<'a> => $output:ty, |$value:ident| $future:expr; )*) => {
        $(
            impl<'a> std::future::IntoFuture for $request<'a> {
                type Output = $crate::error::Result<$output>;
                type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

                fn into_future(self) -> Self::IntoFuture {
                    let $value = self;
                    Box::pin($future)
                }
            }
        )*
    };
}
pub(crate) use awaited;
