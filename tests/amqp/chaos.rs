//! Many tasks that do anything in any order, and give up at any moment: the connection survives it, and nobody waits for ever.

use std::time::Duration;

use leveret::amqp::{Channel, Connection};
use leveret::error::ErrorKind;

use crate::support::{Server, assert_works, unique, within};

/// The same sequence for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

/// One of the things that can be done with a channel. Errors are as good as answers.
async fn something(channel: &Channel, queue: &str, dice: &mut Dice) {
    match dice.below(14) {
        0 => drop(channel.queue_declare(queue).auto_delete(true).await),
        1 => drop(channel.queue_purge(queue).await),
        2 => drop(channel.confirm_select_with_window(5).await),
        3..=5 => {
            let confirms: Vec<_> = {
                let mut confirms = Vec::new();
                for _ in 0..dice.below(20) {
                    confirms.push(channel.basic_publish("", queue, vec![1; 3000]).mandatory(dice.below(2) == 0).await);
                }
                confirms
            };
            for confirm in confirms.into_iter().flatten() {
                if dice.below(2) == 0 {
                    drop(confirm.await);
                }
            }
        }
        6 => drop(channel.basic_publish("no such exchange", "", "x").await),
        7 => drop(channel.queue_declare("no such queue").passive(true).await),
        8..=10 => {
            let Ok(mut consumer) = channel.basic_consume(queue).prefetch(3).await else { return };
            for _ in 0..dice.below(5) {
                let next = tokio::time::timeout(Duration::from_millis(3), consumer.next()).await;
                let Ok(Some(Ok(delivery))) = next else { break };
                let _ = match dice.below(4) {
                    0 => delivery.ack(),
                    1 => delivery.nack(true),
                    2 => delivery.reject(false),
                    _ => Ok(()),
                };
            }
            if dice.below(2) == 0 {
                drop(consumer.cancel().await);
            }
        }
        11 => {
            if let Ok(Some(got)) = channel.basic_get(queue).await {
                let _ = got.delivery.nack(dice.below(2) == 0);
            }
        }
        12 => drop(channel.basic_recover().await),
        _ => drop(channel.close().await),
    }
}

async fn life(connection: Connection, queue: String, seed: u64) {
    let mut dice = Dice(seed);
    let mut channel = None;
    for _ in 0..60 {
        let open = match channel.take() {
            Some(channel) if Channel::is_open(&channel) => channel,
            _ => within("a channel", connection.open_channel()).await.unwrap(),
        };
        let mut own = Dice(dice.below(1 << 30) | 1);
        let act = something(&open, &queue, &mut own);
        if dice.below(3) == 0 {
            let _ = tokio::time::timeout(Duration::from_micros(dice.below(3000)), act).await;
        } else {
            within("something", act).await;
        }
        if dice.below(10) != 0 {
            channel = Some(open);
        }
    }
}

on_every_server! {
    async fn anything_in_any_order(server: Server) {
        // Others each time in tests/soak.
        let first = std::env::var("LEVERET_SEED").map_or(1, |seed| seed.parse::<u64>().unwrap());
        for seed in first..first + 3 {
            let connection = server.connect().await;
            let queues: Vec<_> = (0..3).map(|_| unique("chaos")).collect();
            let lives = (0..12u64).map(|n| {
                let queue = queues[usize::try_from(n % 3).unwrap()].clone();
                tokio::spawn(life(connection.clone(), queue, seed * 1000 + n))
            });
            for life in lives.collect::<Vec<_>>() {
                life.await.unwrap();
            }
            assert!(connection.is_open(), "seed {seed}: {:?}", connection.closed().await);
            let channel = connection.open_channel().await.unwrap();
            assert_works(&channel).await;
            for queue in &queues {
                channel.queue_delete(queue).await.unwrap();
            }
            within("close-ok", connection.close()).await.unwrap();
            assert_eq!(connection.open_channel().await.unwrap_err().kind(), ErrorKind::Closed);
        }
    }
}
