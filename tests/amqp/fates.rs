//! What a confirm says is true, whatever happens to the connection: as the facade's test of this name, a layer further down.
//!
//! A seed that fails is printed with its scripts; `LEVERET_SEED=N cargo test --test amqp fates` plays it again.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use leveret::amqp::{Channel, Confirm, Confirmation, Connection};
use leveret::broker::Broker;
use leveret::error::{Error, Outcome};

use crate::seeds::{disturb, on_every_seed};
use crate::support::within;

const QUEUE: &str = "q";
const MESSAGES: u32 = 60;

type Said = Result<Confirmation, Error>;

/// How often each message is in the queue.
async fn there(channel: &Channel) -> BTreeMap<u32, usize> {
    let mut there = BTreeMap::new();
    while let Some(got) = channel.basic_get(QUEUE).no_ack().await.unwrap() {
        let id = std::str::from_utf8(got.body()).unwrap().parse().unwrap();
        *there.entry(id).or_default() += 1;
    }
    there
}

async fn confirming(broker: &Broker) -> Result<(Connection, Channel), Error> {
    let connection = Connection::open(&broker.url()).await?;
    let channel = connection.open_channel().await?;
    channel.confirm_select().await?;
    Ok((connection, channel))
}

async fn confirmed(mut confirm: Confirm) -> Said {
    confirm.within(Duration::from_millis(300)).await
}

async fn publishing(seed: u64) -> Result<[usize; 4], String> {
    let broker = Broker::start().await.unwrap();
    let control = Connection::open(&broker.url()).await.unwrap();
    let control = (control.open_channel().await.unwrap(), control);
    control.0.queue_declare(QUEUE).await.unwrap();
    disturb(&broker, seed);
    let mut said: Vec<(u32, Said)> = Vec::new();
    let mut ids = (0..MESSAGES).peekable();
    while ids.peek().is_some() {
        let Ok((connection, channel)) = within("a channel", confirming(&broker)).await else { continue };
        let mut waiting = Vec::new();
        for id in ids.by_ref() {
            // Of some it is waited at once; the others gather.
            let published = channel.basic_publish("", QUEUE, id.to_string()).mandatory(true);
            match within("room", published.deadline(Duration::from_millis(300))).await {
                Ok(confirm) if id % 5 == 0 => said.push((id, confirmed(confirm).await)),
                Ok(confirm) => waiting.push((id, confirm)),
                Err(error) => {
                    said.push((id, Err(error)));
                    break;
                }
            }
        }
        let (ids, confirms): (Vec<u32>, Vec<Confirm>) = waiting.into_iter().unzip();
        said.extend(ids.into_iter().zip(join_all(confirms.into_iter().map(confirmed)).await));
        let _ = within("the end", connection.close()).await;
    }
    assert_eq!(said.len(), MESSAGES as usize);
    let there = there(&control.0).await;
    let mut tally = [0; 4];
    for (id, said) in said {
        let count = there.get(&id).copied().unwrap_or_default();
        let (at, good) = match &said {
            Ok(Confirmation::Ack(None)) => (0, count == 1),
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(_)) => (1, count == 0),
            Ok(Confirmation::NotRequested) => (2, false),
            Err(error) => match error.outcome() {
                Outcome::NotSent => (2, count == 0),
                Outcome::Refused => (1, count == 0),
                Outcome::Unknown => (3, count <= 1),
            },
        };
        if !good {
            return Err(format!("message {id} is in the queue {count} times: {said:?}"));
        }
        tally[at] += 1;
    }
    Ok(tally)
}

on_its_own! {
    async fn what_a_confirm_says_is_true() {
        let tallies = on_every_seed(publishing).await;
        let sum = |at: usize| tallies.iter().map(|tally| tally[at]).sum::<usize>();
        let all: [usize; 4] = std::array::from_fn(sum);
        println!("accepted, refused, not sent, unknown: {all:?}");
        let [accepted, refused, _, unknown] = all;
        assert!(tallies.len() == 1 || (accepted > 0 && refused > 0 && unknown > 0), "{all:?}");
    }
}
