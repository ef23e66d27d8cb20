//! The other half of a requester: answering what comes to a queue.

use std::fmt::Display;
use std::pin::pin;
use std::time::Duration;

use super::client::Client;
use super::received::Received;
use super::requester::return_address;
use crate::error::Result;
use crate::message::{Disposition, Message, Source, Target};

/// Answers the requests that come to a queue.
///
/// ```no_run
/// # async fn example(client: leveret::messaging::Client) -> leveret::error::Result<()> {
/// use leveret::messaging::{Message, Source};
///
/// client
///     .responder(Source::queue("echo"))
///     .serve(async |request| Ok::<_, std::convert::Infallible>(Message::new(request.body().to_vec())))
///     .await
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is answered until serve()"]
pub struct Responder {
    client: Client,
    source: Source,
    concurrency: u16,
    timeout: Duration,
}

impl Responder {
    pub(super) fn new(client: Client, source: Source) -> Self {
        Self { client, source, concurrency: 16, timeout: Duration::from_secs(60) }
    }

    /// How many requests are handled at a time; 16.
    pub fn concurrency(mut self, requests: u16) -> Self {
        self.concurrency = requests.max(1);
        self
    }

    /// How long sending a reply may take; 60 s.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Hands each request to `handler` and sends what that returns to where the request's `reply_to` says, with the request's
    /// `correlation_id`, or its `message_id` where it has none. The request is accepted after that.
    ///
    /// A request without `reply_to` is handled all the same. Where the reply cannot be sent, the request is accepted: it was handled, and its
    /// requester is told by his deadline. When the handler fails or panics, the request goes back after a second, as failed.
    ///
    /// Ends when the queue is deleted, or [when it is told to](Self::serve_until); goes on when the connection is lost and [comes back](super#when-the-connection-is-lost).
    ///
    /// # Errors
    ///
    /// As [`ReceiverBuilder::build`](super::ReceiverBuilder::build) and [`Receiver::recv`](super::Receiver::recv).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the handlers where they wait; their requests go back.
    pub async fn serve<F, Fut, E>(self, handler: F) -> Result<()>
    where
        F: Fn(Received) -> Fut,
        Fut: Future<Output = Result<Message, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        self.serve_until(std::future::pending::<()>(), handler).await
    }

    /// As [`serve`](Self::serve), until `stop` is ready: then no more requests are taken, those that are being handled are answered,
    /// and the others go back to the queue. See [`Receiver::for_each_until`](super::Receiver::for_each_until).
    ///
    /// # Errors
    ///
    /// As [`serve`](Self::serve).
    ///
    /// # Cancel safety
    ///
    /// As [`serve`](Self::serve).
    #[doc(alias = "graceful_shutdown")]
    pub async fn serve_until<S, F, Fut, E>(self, stop: S, handler: F) -> Result<()>
    where
        S: Future,
        F: Fn(Received) -> Fut,
        Fut: Future<Output = Result<Message, E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        // Whoever has asked may be gone: a reply that no queue takes is nobody's loss.
        if self.client.transport() != super::Transport::Amqp {
            let message = "requests and replies are AMQP's; Kafka has none";
            return Err(crate::error::Error::new(crate::error::ErrorKind::Unsupported, message));
        }
        let sender = self.client.sender().mandatory(false).timeout(self.timeout).build()?;
        let mut stop = pin!(stop);
        let receiver = tokio::select! {
            biased;
            _ = &mut stop => return Ok(()),
            receiver = self.client.receiver(&self.source).prefetch(self.concurrency).build() => receiver?,
        };
        let answer = |request: Received| {
            let (reply_to, id) = return_address(request.properties());
            let (reply, sender) = (handler(request), sender.clone());
            async move {
                let mut reply = reply.await?;
                if let Some(reply_to) = reply_to {
                    reply.properties.correlation_id = id;
                    if let Err(error) = sender.send(Target::queue(reply_to), reply).await {
                        tracing::debug!(%error, "a reply could not be sent");
                    }
                }
                Ok::<_, E>(Disposition::Accept)
            }
        };
        receiver.for_each_until(self.concurrency.into(), stop, answer).await
    }
}
