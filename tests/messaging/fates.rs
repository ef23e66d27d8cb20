//! What is said of a message is true, whatever happens to the connection: a broker in the box does wrong by chance, and what it has in the
//! end is compared with what the client has said.
//!
//! A seed that fails is printed with its scripts; `LEVERET_SEED=N cargo test --test messaging fates` plays it again. What a seed has found
//! has a test of its own, with a script that says it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use leveret::amqp::{Channel, Connection};
use leveret::broker::{Act, Broker};
use leveret::error::Outcome;
use leveret::messaging::{
    Backoff, Client, CloseReport, Message, Receipt, RecoveryPolicy, ReplyQueue, RetryPolicy, SendError, Sender, Source,
    Status, Target,
};

use crate::seeds::{disturb, on_every_seed, scripts};
use crate::support::{look_at, number, until, within};

const QUEUE: &str = "q";
const TASKS: u32 = 4;
const EACH: u32 = 10;

fn backoff() -> Backoff {
    Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(5) }
}

/// A broker with a queue, and a channel to it that nothing happens to.
async fn served() -> (Broker, Connection, Channel) {
    let broker = Broker::start().await.unwrap();
    let connection = Connection::open(&broker.url()).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    channel.queue_declare(QUEUE).durable(true).await.unwrap();
    (broker, connection, channel)
}

fn client(broker: &Broker) -> Client {
    let recovery = RecoveryPolicy::default().backoff(backoff());
    Client::builder(&broker.url()).unwrap().recovery(recovery).lazy().unwrap()
}

/// How often each message is in the queue, which is empty afterwards.
async fn there(channel: &Channel) -> BTreeMap<u32, usize> {
    let mut there = BTreeMap::new();
    while let Some(got) = channel.basic_get(QUEUE).no_ack().await.unwrap() {
        *there.entry(id(got.body())).or_default() += 1;
    }
    there
}

/// Some messages need several frames' worth of reading, most do not.
fn body(id: u32) -> String {
    let padding = if id.is_multiple_of(7) { 30_000 } else { 0 };
    format!("{id}{}", " ".repeat(padding))
}

fn id(body: &[u8]) -> u32 {
    number(body.trim_ascii_end())
}

type Sent = Result<Receipt, SendError>;

/// Sends messages in one of the ways in which one can.
async fn send(sender: Sender, way: u32, ids: std::ops::Range<u32>) -> Vec<(u32, Sent)> {
    let target = Target::queue(QUEUE);
    match way {
        0 => {
            let mut sent = Vec::new();
            for id in ids {
                sent.push((id, sender.send(&target, body(id)).await));
            }
            sent
        }
        1 => {
            let mut pending = Vec::new();
            for id in ids.clone() {
                pending.push(sender.send_pipelined(&target, body(id)).await);
            }
            let mut sent = Vec::new();
            for (id, pending) in ids.zip(pending) {
                let result = match pending {
                    Ok(pending) => pending.await,
                    Err(error) => Err(error),
                };
                sent.push((id, result));
            }
            sent
        }
        2 => {
            // The receipts are dropped, and what became of them is asked for later.
            let (mut sent, mut dropped) = (Vec::new(), Vec::new());
            for id in ids {
                match sender.send_pipelined(&target, body(id)).await {
                    Ok(pending) => {
                        drop(pending);
                        dropped.push(id);
                    }
                    Err(error) => sent.push((id, Err(error))),
                }
            }
            let report = sender.flush().await;
            assert_eq!(report.len(), dropped.len(), "{report:?}");
            sent.extend(dropped.into_iter().zip(report));
            sent
        }
        _ => {
            let report = sender.send_batch(ids.clone().map(|id| (&target, body(id)))).await;
            ids.zip(report).collect()
        }
    }
}

/// How many were accepted, refused, not sent and of unknown fate.
type Tally = [usize; 4];

async fn sending(seed: u64) -> Result<Tally, String> {
    let (broker, _connection, channel) = served().await;
    disturb(&broker, seed);
    let client = client(&broker);
    let (policy, again) = match seed % 3 {
        0 => (RetryPolicy::never(), false),
        1 => (RetryPolicy::default(), false),
        _ => (RetryPolicy::at_least_once().max_retries((seed % 4) as u32), true),
    };
    let sender = client.sender().timeout(Duration::from_millis(500)).retry(policy.backoff(backoff()));
    let sender = sender.exact_returns(!seed.is_multiple_of(5));
    let (sender, flushed) = (sender.clone().channels(1 + (seed % 2) as u16).build().unwrap(), sender.build().unwrap());
    let tasks = (0..TASKS).map(|task| {
        // One that is flushed has its channel for itself, and an order.
        let sender = if task == 2 { flushed.clone() } else { sender.clone() };
        send(sender, task, task * EACH..(task + 1) * EACH)
    });
    // Some are closed in the middle of it.
    let early = async {
        if seed % 4 == 3 {
            tokio::time::sleep(Duration::from_millis(seed % 50)).await;
            client.close_within(Duration::from_millis(seed % 20)).await
        } else {
            CloseReport::default()
        }
    };
    let (sent, early) = tokio::join!(join_all(tasks), early);
    let sent: Vec<(u32, Sent)> = sent.into_iter().flatten().collect();
    assert_eq!(sent.len(), (TASKS * EACH) as usize);
    // What was given up is waited for no longer.
    within("the end", client.close_within(Duration::from_millis(200))).await;
    let there = there(&channel).await;
    for unsent in early.unsent {
        let id = id(unsent.message.body());
        if there.contains_key(&id) {
            return Err(format!("message {id} is there, and was called unsent when the client was closed"));
        }
    }
    let mut tally = Tally::default();
    for (id, result) in sent {
        let count = there.get(&id).copied().unwrap_or_default();
        let (at, good) = match &result {
            Ok(receipt) => (0, receipt.status == Status::Accepted && (count == 1 || (again && count > 1))),
            Err(error) => match error.outcome() {
                Outcome::Refused => (1, count == 0),
                Outcome::NotSent => (2, count == 0),
                Outcome::Unknown => (3, count <= 1 || again),
            },
        };
        if !good {
            return Err(format!("message {id} is in the queue {count} times: {result:?}"));
        }
        tally[at] += 1;
    }
    Ok(tally)
}

on_its_own! {
    async fn what_is_said_of_a_message_is_true() {
        let tallies = on_every_seed(sending).await;
        let mut all = Tally::default();
        for tally in &tallies {
            all.iter_mut().zip(tally).for_each(|(sum, count)| *sum += count);
        }
        println!("accepted, refused, not sent, unknown: {all:?}");
        let [accepted, refused, _, unknown] = all;
        assert!(tallies.len() == 1 || (accepted > 0 && refused > 0 && unknown > 0), "{all:?}");
    }

    async fn a_reply_is_that_of_its_request() {
        let replies = on_every_seed(requesting).await;
        let (seeds, replies) = (replies.len(), replies.into_iter().sum::<usize>());
        println!("replies: {replies}");
        assert!(seeds == 1 || (0 < replies && replies < seeds * (EACH * TASKS) as usize), "{replies} replies");
    }

    async fn everything_is_received() {
        on_every_seed(receiving).await;
    }
}

/// How many requests were answered. Whoever answers them is disturbed by nothing.
async fn requesting(seed: u64) -> Result<usize, String> {
    let (broker, _connection, _channel) = served().await;
    let server = within("a connection", Client::connect(&broker.url())).await.unwrap();
    let handled: Arc<Mutex<BTreeMap<u32, usize>>> = Arc::default();
    let (responder, counts) = (server.responder(Source::queue(QUEUE)), Arc::clone(&handled));
    let serving = tokio::spawn(responder.serve(move |request| {
        *counts.lock().unwrap().entry(id(request.body())).or_default() += 1;
        std::future::ready(Ok::<_, Infallible>(Message::new(request.body().to_vec())))
    }));
    disturb(&broker, seed);
    let client = client(&broker);
    let queue = if seed.is_multiple_of(2) { ReplyQueue::Direct } else { ReplyQueue::Exclusive };
    let requester = client.requester().timeout(Duration::from_millis(500)).reply_queue(queue).build().unwrap();
    let target = Target::queue(QUEUE);
    let mut replies = 0;
    for first in (0..EACH * TASKS).step_by(TASKS as usize) {
        let request = async |id| (id, requester.request(&target, body(id)).await);
        for (id, result) in join_all((first..first + TASKS).map(request)).await {
            let count = handled.lock().unwrap().get(&id).copied().unwrap_or_default();
            let good = match &result {
                Ok(reply) => count == 1 && reply.body() == body(id).as_bytes(),
                Err(error) => count == 0 || (count == 1 && error.outcome() == Outcome::Unknown),
            };
            if !good {
                return Err(format!("request {id} was handled {count} times: {result:?}"));
            }
            replies += usize::from(result.is_ok());
        }
    }
    within("the end", client.close_within(Duration::from_millis(200))).await;
    serving.abort();
    Ok(replies)
}

const MESSAGES: u32 = 40;

async fn receiving(seed: u64) -> Result<(), String> {
    let (broker, _connection, channel) = served().await;
    for id in 0..MESSAGES {
        drop(channel.basic_publish("", QUEUE, body(id)).await.unwrap());
    }
    disturb(&broker, seed);
    let prefetch = [1, 5, 100][(seed % 3) as usize];
    let mut deliveries: BTreeMap<u32, usize> = BTreeMap::new();
    let (mut receivers, mut done) = (0, false);
    while !done {
        receivers += 1;
        let client = client(&broker);
        let builder = client.receiver(Source::queue(QUEUE)).prefetch(prefetch).coalesce_acks(seed.is_multiple_of(2));
        let Ok(mut receiver) = within("a receiver", builder.build()).await else { continue };
        // It ends for a reason that does not pass by itself, or none comes for a moment.
        while let Ok(Some(Ok(delivery))) = tokio::time::timeout(Duration::from_millis(100), receiver.recv()).await {
            let (id, redelivered) = (id(delivery.body()), delivery.redelivered());
            let before = deliveries.entry(id).or_default();
            if *before > 0 && !redelivered {
                return Err(format!("message {id} comes again, and is not called redelivered"));
            }
            *before += 1;
            let _ = delivery.accept();
        }
        within("the end", client.close()).await;
        // What it has not settled is back then, and there for the next one.
        until("the end of the consumer", async || look_at(&channel, QUEUE).await.consumer_count() == 0).await;
        done = count(&channel).await == 0;
    }
    let missing: Vec<u32> = (0..MESSAGES).filter(|id| !deliveries.contains_key(id)).collect();
    let most = deliveries.values().max().copied().unwrap_or_default();
    if !missing.is_empty() || most > receivers + losses(seed) {
        return Err(format!("missing: {missing:?}; {most} times one of them with {receivers} receivers"));
    }
    Ok(())
}

/// How often a client may lose its connection or its channels, and with them what it has not settled.
fn losses(seed: u64) -> usize {
    let is_loss = |act: &Act| matches!(act, Act::Cut | Act::CloseConnection { .. } | Act::CloseChannels { .. });
    scripts(seed).flat_map(|script| script.steps().to_vec()).filter(|(_, act)| is_loss(act)).count()
}

async fn count(channel: &Channel) -> u32 {
    look_at(channel, QUEUE).await.message_count()
}
