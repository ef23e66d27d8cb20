//! An outgoing entry in use: its settings and its senders.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::error::RegistryError;
use super::retired::{Last, Retired};
use super::settings::Outgoing;
use crate::error::Result;
use crate::messaging::{Client, Message, Receipt, RetryPolicy, SendError, Sender, Target};

/// Looks at each message of an entry; the first argument is the entry's name.
pub(super) type Stamp = Arc<dyn Fn(&str, &Target, &mut Message) + Send + Sync>;

/// An entry, and what sends for it while it is active.
pub(super) struct Entry {
    pub(super) outgoing: Outgoing,
    live: Option<Live>,
}

struct Live {
    taken: Arc<Taken>,
    /// Ends with the last handle of `taken`.
    users: mpsc::Receiver<Infallible>,
}

/// What a message is sent with. Whoever has it keeps the senders open.
pub(super) struct Taken {
    pub(super) sender: Sender,
    pub(super) target: Option<Target>,
    /// Whatever the server says of its channel, it says of the one message that is on its way there.
    alone: Sender,
    _in_use: mpsc::Sender<Infallible>,
}

impl Entry {
    pub(super) fn new(name: &str, outgoing: Outgoing, client: &Client, stamp: Option<&Stamp>) -> Result<Self> {
        let live = if outgoing.active { Some(Live::new(name, &outgoing, client, stamp)?) } else { None };
        Ok(Self { outgoing, live })
    }

    pub(super) fn take(&self, name: &str) -> Result<Arc<Taken>, RegistryError> {
        match &self.live {
            Some(live) => Ok(Arc::clone(&live.taken)),
            None => Err(RegistryError::Inactive { name: name.to_owned() }),
        }
    }

    pub(super) fn retire(self) -> Retired {
        let Self { outgoing, live } = self;
        let last = live.map(|Live { taken, users }| {
            let senders = [taken.sender.clone(), taken.alone.clone()];
            Last { senders, users }
        });
        Retired { senders: last.into_iter().collect(), clients: Vec::new(), settings: vec![outgoing] }
    }
}

impl Live {
    fn new(name: &str, outgoing: &Outgoing, client: &Client, stamp: Option<&Stamp>) -> Result<Self> {
        let mut builder = client
            .sender()
            .defaults(outgoing.properties.clone())
            .confirms(outgoing.confirms)
            .timeout(outgoing.timeout)
            .max_in_flight(outgoing.max_in_flight)
            .channels(outgoing.channels);
        if let Some(mandatory) = outgoing.mandatory {
            builder = builder.mandatory(mandatory);
        }
        if let Some(stamp) = stamp {
            let (stamp, name) = (Arc::clone(stamp), name.to_owned());
            builder = builder.map_message(move |target, message| stamp(&name, target, message));
        }
        // Its channel is opened by its first message: most entries never have one.
        let alone = builder.clone().channels(1).max_in_flight(1).retry(RetryPolicy::never()).build()?;
        let sender = builder.build()?;
        let (in_use, users) = mpsc::channel(1);
        let taken = Taken { sender, target: outgoing.target.clone(), alone, _in_use: in_use };
        Ok(Self { taken: Arc::new(taken), users })
    }
}

impl Taken {
    /// Sends when nothing else is on the channel any more.
    pub(super) async fn send_alone(&self, target: Target, message: Message) -> Result<Receipt, SendError> {
        self.alone.send(target, message).await
    }
}
