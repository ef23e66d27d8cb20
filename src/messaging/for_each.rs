//! Handing deliveries to a function, several at a time, whatever that function does.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt::Display;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::delivery::Acker;
use super::received::Received;
use super::receiver::Receiver;
use crate::error::Result;
use crate::message::{Disposition, EVER};

impl Receiver {
    /// Hands each delivery to `handler`, up to `concurrency` of them at a time, each in a task of its own, and settles it as the
    /// handler says. When the handler fails, or panics, the delivery is settled as
    /// [`on_failure`](super::ReceiverBuilder::on_failure) says; the others are not disturbed.
    ///
    /// ```no_run
    /// # async fn example(receiver: leveret::messaging::Receiver) -> leveret::error::Result<()> {
    /// use leveret::messaging::Disposition;
    ///
    /// receiver
    ///     .for_each(16, async |received| {
    ///         let order = String::from_utf8(received.body().to_vec())?;
    ///         println!("{order}");
    ///         Ok::<_, std::string::FromUtf8Error>(Disposition::Accept)
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// Ends when the stream does, and after the handlers that run then. Deliveries whose handlers have failed, and which are held
    /// before they go back, go back with it. To end it from outside, let it run [until](Self::for_each_until) something: once its
    /// client is closed there is no connection left to settle over, so what the running handlers have done comes again.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the receiver and stops the handlers where they wait; what they had is dropped, and so goes back
    /// unless [`on_drop`](super::ReceiverBuilder::on_drop) says otherwise.
    #[doc(alias = "receive_messages")]
    #[doc(alias = "on_message_received")]
    pub async fn for_each<F, Fut, E>(self, concurrency: usize, handler: F) -> Result<()>
    where
        F: Fn(Received) -> Fut,
        Fut: Future<Output = Result<Disposition, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        self.for_each_until(concurrency, std::future::pending::<()>(), handler).await
    }

    /// As [`for_each`](Self::for_each), until `stop` is ready: a signal, a token that is cancelled, the end of a channel. Then
    /// nothing more is received, what was delivered and not handed to the handler goes back to the queue, and the handlers that
    /// run end as they would have: what they have done is settled, and what has failed is so without the delay of
    /// [`on_failure`](super::ReceiverBuilder::on_failure). On Kafka what was not handed over is received again, by whoever has the
    /// partition next.
    ///
    /// ```no_run
    /// # async fn example(client: leveret::messaging::Client) -> leveret::error::Result<()> {
    /// use std::convert::Infallible;
    /// use leveret::messaging::{Disposition, Source};
    ///
    /// let receiver = client.receiver(Source::queue("orders")).build().await?;
    /// let stop = tokio::signal::ctrl_c();
    /// receiver.for_each_until(16, stop, async |_order| Ok::<_, Infallible>(Disposition::Accept)).await?;
    /// client.close().await; // after the last handler
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It waits for the handlers for as long as they take; `tokio::time::timeout` around it stops them.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// As [`for_each`](Self::for_each).
    #[doc(alias = "graceful_shutdown")]
    pub async fn for_each_until<S, F, Fut, E>(mut self, concurrency: usize, stop: S, handler: F) -> Result<()>
    where
        S: Future,
        F: Fn(Received) -> Fut,
        Fut: Future<Output = Result<Disposition, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let mut stop = pin!(stop);
        let (on_failure, delay) = (self.settings.on_failure, self.settings.failure_delay.min(EVER));
        let mut running = JoinSet::new();
        // Those that wait before they go back take nobody's turn. All wait as long, so the first of them is the first that is due.
        let mut resting = VecDeque::new();
        let end = loop {
            let full = running.len() >= concurrency.max(1);
            let due = resting.front().map(|(due, _)| *due);
            let rested = async {
                if let Some(due) = due {
                    sleep_until(due).await;
                }
            };
            tokio::select! {
                biased;
                _ = &mut stop => {
                    self.put_back();
                    break Ok(());
                }
                Some(done) = running.join_next() => {
                    resting.extend(done.ok().flatten().map(|acker| (Instant::now() + delay, acker)));
                }
                () = rested, if due.is_some() => {
                    resting.pop_front().into_iter().for_each(|(_, acker)| settle(acker, on_failure));
                }
                next = self.recv(), if !full => match next {
                    None => break Ok(()),
                    Some(Err(error)) => break Err(error),
                    Some(Ok(delivery)) => {
                        let (received, acker) = delivery.into_parts();
                        let future = catch_unwind(AssertUnwindSafe(|| handler(received)));
                        running.spawn(handle(future, acker));
                    }
                },
            }
        };
        // Nothing comes that they would have to be kept from.
        resting.into_iter().for_each(|(_, acker)| settle(acker, on_failure));
        while let Some(done) = running.join_next().await {
            done.into_iter().flatten().for_each(|acker| settle(acker, on_failure));
        }
        end
    }
}

type Panic = Box<dyn Any + Send>;

/// Runs a handler and settles as it says; gives back what settles a delivery whose handler has failed.
async fn handle<E: Display>(
    future: Result<impl Future<Output = Result<Disposition, E>>, Panic>,
    acker: Acker,
) -> Option<Acker> {
    let done = match future {
        Ok(future) => {
            let mut future = pin!(future);
            // The future is not polled again after a panic.
            poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            })
            .await
        }
        Err(panic) => Err(panic),
    };
    match done {
        Ok(Ok(disposition)) => {
            settle(acker, disposition);
            None
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the handler of a message has failed");
            Some(acker)
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
            tracing::error!(panic = text, "the handler of a message has panicked");
            Some(acker)
        }
    }
}

fn settle(acker: Acker, how: Disposition) {
    if let Err(error) = acker.settle(how) {
        tracing::debug!(%error, "a message could not be settled");
    }
}
