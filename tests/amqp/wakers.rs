//! A waker is code of the program: dropping it may drop a task, with everything in it that locks the connection again. Nothing of
//! that happens under the connection's lock.

use std::task::{Context, Poll, Waker};

use leveret::amqp::{Channel, Confirm, Connection};
use leveret::broker::Broker;
use leveret::transport::Stream;
use tokio::sync::oneshot;

use crate::support::{until, within};
use crate::tasks::{Shared, alone};

/// A connection to a broker that confirms nothing.
struct World {
    broker: Broker,
    connection: Connection,
    channel: Channel,
    /// A stream on which nobody answers, and its other end.
    silent: (Option<Stream>, Stream),
}

impl World {
    async fn new() -> Self {
        let broker = Broker::start().await.unwrap();
        broker.hold_confirms(true);
        let connection = Connection::open(&broker.url()).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let (ours, theirs) = Stream::pipe();
        Self { broker, connection, channel, silent: (Some(ours), theirs) }
    }

    /// A message on its way, and no room for another.
    async fn unconfirmed(&self) -> Confirm {
        self.channel.confirm_select_with_window(1).await.unwrap();
        self.channel.basic_publish("", "nowhere", "x").await.unwrap()
    }

    /// What locks the connection when it is dropped, and tells afterwards.
    async fn baggage(&self) -> (Baggage, oneshot::Receiver<()>) {
        let channel = self.connection.open_channel().await.unwrap();
        channel.confirm_select().await.unwrap();
        let confirm = channel.basic_publish("", "nowhere", "x").await.unwrap();
        // The server has read it: a blocked one reads nothing behind a message.
        channel.basic_qos(1).await.unwrap();
        let (tell, dropped) = oneshot::channel();
        (Baggage { _confirm: confirm, _tell: tell }, dropped)
    }
}

/// Dropped from top to bottom.
struct Baggage {
    _confirm: Confirm,
    _tell: oneshot::Sender<()>,
}

/// What becomes of a waker that the library keeps.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Another task asks for the same.
    Replaced,
    /// Nobody asks any more.
    Forgotten,
    /// The connection is lost.
    Lost,
    /// It is not needed: the connection has been closed before.
    Refused,
}

async fn meets(fate: Fate, make: impl AsyncFnOnce(&mut World) -> Shared) {
    let mut world = World::new().await;
    let (baggage, dropped) = world.baggage().await;
    let wait = make(&mut world).await;
    if let Fate::Refused = fate {
        world.connection.close().await.unwrap();
    }
    wait.begin(baggage);
    match fate {
        Fate::Replaced => assert_eq!(wait.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending),
        Fate::Forgotten => wait.forget(),
        Fate::Lost | Fate::Refused => {}
    }
    // The server answers what it was told, unless this was a close.
    drop(world.connection.open_channel().await);
    world.broker.drop_connections();
    drop(world.silent);
    drop(within("the end", world.connection.closed()).await);
    // Where there is a deadline, its timer has kept the task.
    wait.forget();
    // The other end was dropped with the task.
    assert!(within("the end of the task", dropped).await.is_err());
}

/// Makes a test of each thing to wait for.
macro_rules! waits {
    ($( $(#[$meta:meta])* async fn $name:ident($world:ident) $body:block )*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            for fate in [Fate::Replaced, Fate::Forgotten, Fate::Lost, Fate::Refused] {
                alone(&format!("{fate:?}"), move || meets(fate, async |$world: &mut World| Shared::new($body)));
            }
        }
    )*};
}

waits! {
    async fn a_confirm(world) {
        let confirm = world.unconfirmed().await;
        async move { drop(confirm.await) }
    }

    async fn all_confirms(world) {
        drop(world.unconfirmed().await);
        let channel = world.channel.clone();
        async move { drop(channel.wait_for_confirms().await) }
    }

    async fn room_in_the_window(world) {
        drop(world.unconfirmed().await);
        let channel = world.channel.clone();
        async move { drop(channel.basic_publish("", "nowhere", "y").await) }
    }

    async fn room_on_a_blocked_connection(world) {
        world.broker.block("short of everything");
        until("blocked", async || world.connection.blocked().is_some()).await;
        let channel = world.channel.clone();
        async move { drop(channel.basic_publish("", "nowhere", "y").await) }
    }

    async fn deliveries(world) {
        world.channel.queue_declare("q").await.unwrap();
        let mut consumer = world.channel.basic_consume("q").await.unwrap();
        async move { drop(consumer.next().await) }
    }

    async fn returned_messages(world) {
        let mut returned = world.channel.returned_messages();
        async move { drop(returned.next().await) }
    }

    async fn an_answer_on_a_channel(world) {
        let channel = world.channel.clone();
        async move { drop(channel.queue_declare("q").await) }
    }

    async fn an_answer_on_the_connection(world) {
        let connection = world.connection.clone();
        async move { drop(connection.update_secret("new", "because").await) }
    }

    async fn the_opening(world) {
        let stream = world.silent.0.take().unwrap();
        async move { drop(Connection::builder("amqp://silent").unwrap().open_with(stream).await) }
    }

    async fn the_end(world) {
        let connection = world.connection.clone();
        async move { drop(connection.closed().await) }
    }

    async fn a_close(world) {
        let connection = world.connection.clone();
        async move { drop(connection.close().await) }
    }
}
