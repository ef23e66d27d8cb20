//! Requests and their replies on one channel, by direct reply-to or a queue of one's own.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::convert;
use super::link::Link;
use crate::amqp::{self, Channel, Confirmation, FieldValue, MessageStream};
use crate::error::{Error, ErrorKind, Outcome, Result};
use crate::message::{Cargo, Message, SendError};
use crate::messaging::deadline::by;
use crate::messaging::events::{Event, Events};
use crate::messaging::on_demand::OnDemand;
use crate::messaging::requester::{ReplyQueue, RequestError};

/// RabbitMQ's name for replies that go straight to the channel.
const DIRECT: &str = "amq.rabbitmq.reply-to";

#[derive(Debug)]
pub(in crate::messaging) struct Replies {
    link: Arc<Link>,
    queue: ReplyQueue,
    session: OnDemand<Arc<Session>>,
}

/// A channel, where replies to it are sent, and who waits for them. When it ends, so do they.
#[derive(Debug)]
struct Session {
    channel: Channel,
    reply_to: String,
    waiting: Arc<Waiting>,
    reader: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[derive(Debug)]
struct Waiting {
    /// What this session's correlation ids begin with, so that nobody else's are taken for them.
    prefix: String,
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    last: u64,
    open: HashMap<u64, oneshot::Sender<Message>>,
    end: Option<Error>,
}

/// A request that waits. Who drops it waits no more, and a late reply finds nobody.
struct Request<'a> {
    waiting: &'a Waiting,
    number: u64,
    reply: oneshot::Receiver<Message>,
}

impl Replies {
    pub(in crate::messaging) fn new(link: Arc<Link>, queue: ReplyQueue) -> Self {
        Self { link, queue, session: OnDemand::new() }
    }

    pub(in crate::messaging) async fn request(
        &self,
        mut cargo: Cargo,
        until: Instant,
    ) -> Result<Message, RequestError> {
        let session = || self.session.get(self.link.runtime(), |_| true, || self.open());
        let _guest = self.link.guest();
        loop {
            let session =
                by(self.link.timers().as_ref(), until, session()).await.unwrap_or_else(|| Err(no_channel_in_time()));
            let session = match session {
                Ok(session) => session,
                Err(error) => return Err(RequestError::Send(cargo.refuse(error))),
            };
            match session.send(&mut cargo, until).await {
                Ok((request, confirm)) => return request.wait(confirm, self.link.timers().as_ref(), until).await,
                Err(error) if session.is_usable() => return Err(RequestError::Send(cargo.refuse(error))),
                Err(_) => self.replace(&session),
            }
        }
    }

    /// A session is of no use any more: the next request gets another one.
    fn replace(&self, session: &Arc<Session>) {
        if self.session.forget(|other| Arc::ptr_eq(other, session))
            && let Some(error) = session.channel.end()
            && error.kind() == ErrorKind::ChannelClosed
        {
            self.link.events().tell(&Event::ChannelClosed(error));
        }
    }

    /// Opens a channel for requests.
    fn open(&self) -> impl Future<Output = Result<Arc<Session>>> + Send + use<> {
        let (link, queue) = (Arc::clone(&self.link), self.queue);
        async move {
            let direct = match queue {
                ReplyQueue::Direct => true,
                ReplyQueue::Exclusive => false,
                ReplyQueue::Best => knows_direct_reply_to(&link.connection().await?),
            };
            let channel = link.channel().await?;
            channel.confirm_select().await?;
            let reply_to = match direct {
                true => DIRECT.to_owned(),
                false => channel.queue_declare("").exclusive(true).auto_delete(true).await?.name().to_owned(),
            };
            // Replies can come as soon as the first request is sent, so this comes before.
            let replies = channel.basic_consume(&reply_to).no_ack().await?;
            let prefix = format!("{:016x}-", fastrand::u64(..));
            let waiting = Arc::new(Waiting { prefix, requests: Mutex::default() });
            let reader = tokio::spawn(read(replies, Arc::clone(&waiting), Arc::clone(link.events())));
            Ok(Arc::new(Session { channel, reply_to, waiting, reader: reader.abort_handle() }))
        }
    }
}

fn knows_direct_reply_to(connection: &amqp::Connection) -> bool {
    let server = connection.server();
    let capabilities = server.properties.get("capabilities").and_then(FieldValue::as_table);
    capabilities.and_then(|table| table.get("direct_reply_to")).and_then(FieldValue::as_bool).unwrap_or(false)
}

fn no_channel_in_time() -> Error {
    Error::new(ErrorKind::Timeout, "there was no connection, or no channel, before the deadline")
}

impl Session {
    /// Whether requests can be sent, and their replies come. The consumer of the replies may end alone, as with a queue that is deleted.
    fn is_usable(&self) -> bool {
        self.channel.is_open() && self.waiting.lock().end.is_none()
    }

    async fn send(
        &self,
        Cargo { target, message }: &mut Cargo,
        until: Instant,
    ) -> Result<(Request<'_>, amqp::Confirm)> {
        let request = self.waiting.enter()?;
        message.properties.reply_to = Some((&self.reply_to).into());
        message.properties.correlation_id = Some(format!("{}{}", self.waiting.prefix, request.number).into());
        let (exchange, routing_key) = target.amqp()?;
        let publish = self.channel.basic_publish(exchange, routing_key, message.body());
        let publish = publish.properties(&message.properties).mandatory(true).stamped(true);
        let confirm = publish.deadline(until.saturating_duration_since(Instant::now())).await?;
        Ok((request, confirm))
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Requests> {
        // Nothing panics under the lock.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Result<Request<'_>> {
        let (tell, reply) = oneshot::channel();
        let mut requests = self.lock();
        if let Some(error) = &requests.end {
            return Err(error.clone());
        }
        requests.last += 1;
        let number = requests.last;
        requests.open.insert(number, tell);
        Ok(Request { waiting: self, number, reply })
    }

    /// Gives a reply to whoever waits for it; if nobody does, gives back its correlation id.
    fn answer(&self, reply: Message) -> Result<(), Option<String>> {
        let id = reply.properties.correlation_id.as_ref().map(|id| id.to_string_lossy().into_owned());
        let number = id.as_deref().and_then(|id| id.strip_prefix(&self.prefix)?.parse::<u64>().ok());
        let request = number.and_then(|number| self.lock().open.remove(&number));
        // It may have been given up at this very moment.
        request.ok_or(()).and_then(|request| request.send(reply).map_err(drop)).map_err(|()| id)
    }

    fn end(&self, error: Error) {
        let mut requests = self.lock();
        requests.end = Some(error);
        let open = std::mem::take(&mut requests.open);
        drop(requests);
        // Whoever waits for one of them wakes up.
        drop(open);
    }
}

impl Request<'_> {
    async fn wait(
        mut self,
        mut confirm: amqp::Confirm,
        runtime: Option<&Handle>,
        until: Instant,
    ) -> Result<Message, RequestError> {
        let waiting = self.waiting;
        let reply = async {
            let said = tokio::select! {
                biased;
                reply = &mut self.reply => match reply {
                    Ok(reply) => return Ok(reply),
                    // What has ended the replies has mostly ended the confirm, too, which may know more.
                    Err(_) => {
                        let said = known(&mut confirm);
                        let refusal = said.and_then(|said| refusal(&mut confirm, said));
                        return Err(refusal.unwrap_or_else(|| waiting.lost()));
                    }
                },
                said = &mut confirm => said,
            };
            if let Some(refusal) = refusal(&mut confirm, said) {
                return Err(refusal);
            }
            (&mut self.reply).await.map_err(|_| waiting.lost())
        };
        by(runtime, until, reply).await.unwrap_or(Err(RequestError::Timeout))
    }
}

/// What is known of a message now.
fn known(confirm: &mut amqp::Confirm) -> Option<Result<Confirmation>> {
    match Pin::new(confirm).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(said) => Some(said),
        Poll::Pending => None,
    }
}

/// Why there will be no reply to a request, if that is what was said of it.
fn refusal(confirm: &mut amqp::Confirm, said: Result<Confirmation>) -> Option<RequestError> {
    let no_route = |returned: Box<amqp::Returned>| RequestError::NoRoute(Box::new(convert::returned(&returned)));
    match said {
        Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => None,
        Ok(Confirmation::Ack(Some(returned))) => Some(no_route(returned)),
        Ok(Confirmation::Nack(_)) => {
            let message = "the server did not take responsibility for the request";
            let error = Error::new(ErrorKind::Nacked, message).with_outcome(Outcome::Refused);
            Some(RequestError::Send(SendError::new(error)))
        }
        Err(error) => Some(confirm.take_returned().map_or(RequestError::Lost(error), no_route)),
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let tell = self.waiting.lock().open.remove(&self.number);
        // Dropped without the lock: that wakes whoever waited last.
        drop(tell);
    }
}

impl Waiting {
    fn lost(&self) -> RequestError {
        let end = self.lock().end.clone();
        let error = end.unwrap_or_else(|| Error::new(ErrorKind::Closed, "the requester was closed on this side"));
        RequestError::Lost(error.with_outcome(Outcome::Unknown))
    }
}

/// Hands out the replies, until there are no more.
async fn read(mut replies: MessageStream, waiting: Arc<Waiting>, events: Arc<Events>) {
    let end = loop {
        match replies.next().await {
            Some(Ok(reply)) => {
                if let Err(id) = waiting.answer(convert::message(&reply)) {
                    events.tell(&Event::StrayReply(id));
                }
            }
            Some(Err(error)) => break error,
            None => break Error::new(ErrorKind::Closed, "the connection was closed on this side"),
        }
    };
    waiting.end(end);
}
