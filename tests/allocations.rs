//! How often the client allocates, and how much it keeps, counted by an allocator that counts per thread: publishing a
//! message allocates nothing once the buffers have grown, receiving a small one allocates once.
//!
//! The client and its driver run on the test's own thread, which is the one that is counted. The server is the raw one of the
//! benchmarks, on threads of its own.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails loudly")]

#[path = "../benches/hot_paths/cores.rs"]
#[expect(dead_code, reason = "where things run matters to the benchmarks")]
mod cores;
#[path = "../benches/hot_paths/raw_server.rs"]
#[expect(dead_code, reason = "as a process of its own it serves the benchmarks")]
mod raw_server;
#[path = "../benches/hot_paths/tls.rs"]
#[expect(dead_code, reason = "TLS is for the benchmarks")]
mod tls;
#[path = "../benches/hot_paths/wire.rs"]
mod wire;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, TcpListener};
use std::pin::Pin;
use std::task::Poll;
use std::thread;

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use leveret::amqp::{Channel, Confirm, Confirmation, Connection, Consumer, Delivery, Message, Properties};
use leveret::messaging::{Client, Disposition, PendingReceipt, Sender, Source, Target};
use tokio::runtime::{Builder, Runtime};

/// What may happen once in a while and not per message: a queue grows because the server was slower than before.
const SLACK: u64 = 30;

/// How many messages are unconfirmed or unsettled. What the client has read ahead when counting ends is counted, too.
const WINDOW: u16 = 100;

fn port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || raw_server::serve_all(&listener, None).unwrap());
    port
}

/// A client on the thread that calls, with a channel.
fn client(virtual_host: &str) -> (Runtime, Connection, Channel) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("amqp://127.0.0.1:{}?heartbeat=0", port());
    let (connection, channel) = runtime.block_on(async {
        let connection = Connection::builder(&url).unwrap().virtual_host(virtual_host).open().await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        (connection, channel)
    });
    (runtime, connection, channel)
}

/// Publishes and awaits every confirm.
async fn publish(channel: &Channel, body: &Bytes, properties: Option<&Properties>, messages: usize) {
    let mut unconfirmed = VecDeque::<Confirm>::with_capacity(WINDOW.into());
    for _ in 0..messages {
        if unconfirmed.len() == usize::from(WINDOW) {
            let confirm = unconfirmed.pop_front();
            assert_eq!(confirm.unwrap().await.unwrap(), Confirmation::Ack(None));
        }
        let mut publish = channel.basic_publish("", "somewhere", body);
        if let Some(properties) = properties {
            publish = publish.properties(properties);
        }
        unconfirmed.push_back(publish.await.unwrap());
    }
    for confirm in unconfirmed {
        assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
    }
}

/// What publishing `messages` allocates after as many have been published before.
fn published(virtual_host: &str, body: usize, properties: Option<&Properties>, messages: usize) -> u64 {
    let (runtime, _connection, channel) = client(virtual_host);
    // Shared from the start: the first clone of memory that nobody shares yet allocates the counter.
    let body = Bytes::from(vec![b'x'; body]);
    let _shared = body.clone();
    runtime.block_on(async {
        channel.confirm_select().await.unwrap();
        publish(&channel, &body, properties, messages).await;
    });
    let info = measure(|| runtime.block_on(publish(&channel, &body, properties, messages)));
    info.count_total - 1 // the program's own: its queue of confirms
}

#[test]
fn publishing_allocates_nothing_in_the_steady_state() {
    let properties = Properties::new().content_type("text/plain").persistent().header("attempt", 1);
    for (virtual_host, body, properties) in
        [("/", 100, None), ("each", 100, None), ("/", 100, Some(&properties)), ("/", 2_000, None)]
    {
        let count = published(virtual_host, body, properties, 10_000);
        assert!(count <= SLACK, "{count} allocations, {virtual_host}, {body} octets");
    }
}

/// Publishes a window's worth at a time, and waits for all of them at once, as tasks do that have a message each.
async fn publish_together(channel: &Channel, body: &Bytes, times: usize) {
    let mut confirms = Vec::<Confirm>::with_capacity(WINDOW.into());
    for _ in 0..times {
        for _ in 0..WINDOW {
            confirms.push(channel.basic_publish("", "somewhere", body).await.unwrap());
        }
        let all_wait = poll_fn(|cx| Poll::Ready(confirms.iter_mut().all(|one| Pin::new(one).poll(cx).is_pending())));
        assert!(all_wait.await);
        for confirm in confirms.drain(..) {
            assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
        }
    }
}

#[test]
fn waiting_for_many_confirms_at_once_allocates_nothing() {
    let (runtime, _connection, channel) = client("each");
    let body = Bytes::from(vec![b'x'; 100]);
    let _shared = body.clone();
    runtime.block_on(async {
        channel.confirm_select().await.unwrap();
        publish_together(&channel, &body, 10).await;
    });
    let count = measure(|| runtime.block_on(publish_together(&channel, &body, 100))).count_total;
    assert!(count <= SLACK, "{count} allocations");
}

/// A publish that has to wait for room has a timer for its deadline: one for each time that the buffer is full, which is
/// a million octets or 16 of these messages.
#[test]
fn publishing_large_messages_allocates_when_it_waits() {
    let count = published("/", 64 * 1024, None, 1_000);
    assert!(count <= 1_000 / 16 + SLACK, "{count} allocations");
}

/// Sends and awaits every receipt.
async fn send(sender: &Sender, target: &Target, body: &Bytes, messages: usize) {
    let mut unconfirmed = VecDeque::<PendingReceipt>::with_capacity(WINDOW.into());
    for _ in 0..messages {
        if unconfirmed.len() == usize::from(WINDOW) {
            let pending = unconfirmed.pop_front();
            pending.unwrap().await.unwrap();
        }
        unconfirmed.push_back(sender.send_pipelined(target, body.clone()).await.unwrap());
    }
    for pending in unconfirmed {
        pending.await.unwrap();
    }
}

/// With all that it does by default. A receipt that is not known when it is asked for has a timer: one for each time that the window
/// is full, if that many.
#[test]
fn a_sender_allocates_nothing_in_the_steady_state() {
    const MESSAGES: usize = 10_000;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("amqp://127.0.0.1:{}?heartbeat=0", port());
    let body = Bytes::from(vec![b'x'; 100]);
    let (_shared, target) = (body.clone(), Target::queue("somewhere"));
    let sender = runtime.block_on(async {
        let client = Client::connect(&url).await.unwrap();
        let sender = client.sender().build().unwrap();
        send(&sender, &target, &body, MESSAGES).await;
        sender
    });
    let info = measure(|| runtime.block_on(send(&sender, &target, &body, MESSAGES)));
    let count = info.count_total - 1; // the program's own: its queue of receipts
    assert!(count <= MESSAGES as u64 / u64::from(WINDOW) + SLACK, "{count} allocations");
}

/// The deadline of somebody who waits needs a timer, which stands in his future.
#[test]
fn sending_one_at_a_time_allocates_nothing() {
    const MESSAGES: usize = 2_000;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("amqp://127.0.0.1:{}?heartbeat=0", port());
    let (body, target) = (Bytes::from(vec![b'x'; 100]), Target::queue("somewhere"));
    let send = async |sender: &Sender| {
        for _ in 0..MESSAGES {
            sender.send(&target, &body).await.unwrap();
        }
    };
    let sender = runtime.block_on(async {
        let sender = Client::connect(&url).await.unwrap().sender().build().unwrap();
        send(&sender).await;
        sender
    });
    let info = measure(|| runtime.block_on(send(&sender)));
    assert!(info.count_total <= SLACK, "{} allocations", info.count_total);
}

/// What a sender keeps of a message until it is confirmed, beside the payload and the receipt: which is why it may have many on their way.
#[test]
fn a_message_on_its_way_takes_few_octets() {
    // What grows by doubling is full then.
    const MESSAGES: usize = 1 << 17;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("amqp://127.0.0.1:{}/none?heartbeat=0", port());
    let (body, target) = (Bytes::from(vec![b'x'; 100]), Target::queue("somewhere"));
    let (connection, sender) = runtime.block_on(async {
        let client = Client::connect(&url).await.unwrap();
        let sender = client.sender().max_in_flight(2 * MESSAGES).build().unwrap();
        // Opens the channel.
        drop(sender.send_pipelined(&target, &body).await.unwrap());
        (client.as_amqp().await.unwrap(), sender)
    });
    let mut unconfirmed = Vec::with_capacity(MESSAGES);
    let info = measure(|| {
        runtime.block_on(async {
            for _ in 1..MESSAGES {
                unconfirmed.push(sender.send_pipelined(&target, &body).await.unwrap());
            }
            // Its answer says that all of them have been written, however slow the server is.
            connection.open_channel().await.unwrap();
        });
    });
    assert_eq!(sender.in_flight(), MESSAGES);
    let each = usize::try_from(info.bytes_current).unwrap() / MESSAGES;
    assert!(each <= 72 + 8, "{each} octets: {info:?}");
}

async fn take(consumer: &mut Consumer, messages: usize) {
    for _ in 0..messages {
        let delivery = consumer.next().await.unwrap().unwrap();
        delivery.ack().unwrap();
    }
}

/// Starts a consumer, lets it run until everything has grown, and counts what `messages` more allocate.
fn consume(virtual_host: &str, size: usize, prefetch: u16, coalesced: bool, messages: usize) -> AllocationInfo {
    let (runtime, _connection, channel) = client(virtual_host);
    let mut consumer = runtime.block_on(async {
        let queue = size.to_string();
        let consume = channel.basic_consume(&queue).prefetch(prefetch).coalesce_acks(coalesced);
        let mut consumer = consume.await.unwrap();
        take(&mut consumer, messages).await;
        consumer
    });
    measure(|| runtime.block_on(take(&mut consumer, messages)))
}

#[test]
fn a_small_delivery_is_less_than_one_allocation() {
    for (size, coalesced, most) in [(16, false, 600), (100, false, 2_000), (100, true, 2_000), (4_000, false, 9_000)] {
        let info = consume("/", size, WINDOW, coalesced, 10_000);
        assert!(info.count_total <= most + u64::from(WINDOW) + SLACK, "{size} octets: {info:?}");
    }
}

/// What it hands out are the consumer's deliveries: nothing is copied or decoded before it is asked for.
#[test]
fn a_receiver_allocates_no_more_than_a_consumer() {
    const MESSAGES: usize = 10_000;
    for (coalesced, at_once) in [(false, 1), (true, 1), (false, 50)] {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let url = format!("amqp://127.0.0.1:{}?heartbeat=0", port());
        let mut receiver = runtime.block_on(async {
            let receiver = Client::connect(&url).await.unwrap().receiver(Source::queue("100"));
            receiver.prefetch(WINDOW).coalesce_acks(coalesced).build().await.unwrap()
        });
        let mut kept = Vec::with_capacity(at_once);
        let mut receive = || {
            runtime.block_on(async {
                for _ in 0..MESSAGES {
                    let delivery = receiver.recv().await.unwrap().unwrap();
                    assert_eq!(delivery.body().len(), 100);
                    if at_once == 1 {
                        delivery.accept().unwrap();
                        continue;
                    }
                    kept.push(delivery);
                    if kept.len() == at_once {
                        receiver.settle_up_to(kept.last().unwrap(), Disposition::Accept).unwrap();
                        kept.clear();
                    }
                }
            });
        };
        receive();
        let info = measure(receive);
        let batches = 2_000; // see `a_small_delivery_is_less_than_one_allocation`
        assert!(info.count_total <= batches + u64::from(WINDOW) + SLACK, "{coalesced} {at_once} {info:?}");
    }
}

/// A large one has its body where it was read, in one frame or in several, whether it comes alone or with others: the one allocation is
/// for what is handed out.
#[test]
fn a_large_delivery_is_one_allocation() {
    const KIB: usize = 1024;
    const MESSAGES: usize = 300;
    for (size, prefetch) in [
        (16 * KIB, 1),
        (16 * KIB, WINDOW),
        (64 * KIB, 1),
        (64 * KIB, WINDOW),
        (256 * KIB, 1),
        (256 * KIB, 10),
        (1024 * KIB, 1),
        (1024 * KIB, 4),
    ] {
        let info = consume("/", size, prefetch, false, MESSAGES);
        let most = MESSAGES as u64 + u64::from(prefetch) + SLACK;
        assert!(info.count_total <= most, "{size} octets, {prefetch} at a time: {info:?}");
    }
}

/// One whose frames are mixed with others is put together in memory of its own: that is one allocation more.
#[test]
fn a_large_delivery_whose_frames_are_mixed_with_others_is_two_allocations() {
    const MESSAGES: usize = 300;
    for (size, prefetch) in [(256 * 1024, 1), (256 * 1024, 10), (1024 * 1024, 1), (1024 * 1024, 4)] {
        let info = consume("mixed", size, prefetch, false, MESSAGES);
        let most = 2 * (MESSAGES as u64 + u64::from(prefetch)) + SLACK;
        assert!(info.count_total <= most, "{size} octets, {prefetch} at a time: {info:?}");
    }
}

/// Memory whose messages were dropped is read into again, also when the program is some of them behind, and also for bodies of several
/// frames.
#[test]
fn large_deliveries_share_memory_one_after_the_other() {
    const MESSAGES: u64 = 500;
    for (size, behind) in [(64 * 1024, 20), (300 * 1024, 5)] {
        let (runtime, _connection, channel) = client("/");
        let mut kept = VecDeque::with_capacity(behind + 1);
        let mut take = async |consumer: &mut Consumer| {
            for _ in 0..MESSAGES {
                kept.push_back(consumer.next().await.unwrap().unwrap());
                if kept.len() > behind {
                    kept.pop_front().unwrap().ack().unwrap();
                }
            }
        };
        let mut consumer = runtime.block_on(async {
            // No more of them on their way than the connection remembers memory for.
            let prefetch = 2 * u16::try_from(behind).unwrap();
            let mut consumer = channel.basic_consume(&size.to_string()).prefetch(prefetch).await.unwrap();
            take(&mut consumer).await;
            consumer
        });
        let info = measure(|| runtime.block_on(take(&mut consumer)));
        assert!(info.bytes_total < MESSAGES * size / 10, "{size} octets: {info:?}");
    }
}

/// What comes over the wire for a small message is not kept; what is, is little more than the message. There are so many of them
/// that the block into which the connection reads does not count.
#[test]
fn a_delivery_that_is_kept_costs_less_than_twice_its_size() {
    const MESSAGES: usize = 30_000;
    let (runtime, _connection, channel) = client("/");
    let mut kept: Vec<Delivery> = Vec::with_capacity(MESSAGES);
    let info = measure(|| {
        runtime.block_on(async {
            let mut consumer = channel.basic_consume("100").prefetch(30_000).await.unwrap();
            while kept.len() < MESSAGES {
                kept.push(consumer.next().await.unwrap().unwrap());
            }
        });
    });
    let bytes = usize::try_from(info.bytes_current).unwrap() + MESSAGES * size_of::<Delivery>();
    assert!(bytes <= 2 * 100 * MESSAGES, "{} octets for each of 100: {info:?}", bytes / MESSAGES);
}

/// One that was detached is alone in memory of its own.
#[test]
fn a_message_that_is_kept_alone_costs_less_than_twice_its_size() {
    const MESSAGES: usize = 30_000;
    let (runtime, _connection, channel) = client("/");
    let mut kept: Vec<Message> = Vec::with_capacity(MESSAGES);
    let info = measure(|| {
        runtime.block_on(async {
            let mut consumer = channel.basic_consume("100").prefetch(WINDOW).await.unwrap();
            while kept.len() < MESSAGES {
                let (message, acker) = consumer.next().await.unwrap().unwrap().detach();
                acker.ack().unwrap();
                kept.push(message);
            }
        });
    });
    let bytes = usize::try_from(info.bytes_current).unwrap() + MESSAGES * size_of::<Message>();
    assert!(bytes <= 2 * 100 * MESSAGES, "{} octets for each of 100: {info:?}", bytes / MESSAGES);
    assert!(info.count_current <= 2 * MESSAGES as i64 + 100, "{info:?}");
    assert!(kept.iter().all(|message| message.body() == [b'x'; 100] && message.routing_key() == "100"));
}

#[test]
fn an_idle_connection_is_small() {
    const CONNECTIONS: usize = 50;
    let (_runtime, _connection, _channel) = client("/"); // what the first one needs is needed once
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("amqp://127.0.0.1:{}?heartbeat=0", port());
    let mut connections = Vec::with_capacity(CONNECTIONS);
    let info = measure(|| {
        runtime.block_on(async {
            for _ in 0..CONNECTIONS {
                connections.push(Connection::open(&url).await.unwrap());
            }
        });
    });
    let each = usize::try_from(info.bytes_current).unwrap() / CONNECTIONS;
    assert!(each <= 32 * 1024, "{each} octets");
}
