//! Other people's clients and the broker in the box: each lives the same life there as it does at a RabbitMQ, and says the same of it.
//!
//! That life is written once for each client, in its own language and as its documentation has it (`clients/`): what is missing or
//! declared otherwise is refused; a hundred messages with properties and headers are confirmed, one comes back; they are consumed in
//! order, one is requeued and comes again, one is rejected and found among the dead letters; a large one is fetched; a transaction is
//! rolled back and another committed; a direct reply is had; and the consumer of a deleted queue is told. What happened is
//! printed, a line for each thing. `tests/foreign/client` gets the clients and runs them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly, and so do their helpers")]

#[expect(dead_code, unused_macros, reason = "shared with tests that need more")]
#[path = "../shared/running.rs"]
mod running;
#[expect(dead_code, reason = "shared with tests that need more")]
#[path = "../shared/servers.rs"]
mod servers;

use servers::Server;

const LIFE: &[&str] = &[
    "missing 404 NOT_FOUND - no queue 'nowhere' in vhost 'HOST'",
    "declared work 0 0",
    "differs 406 PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'work' in vhost 'HOST': received 'false' but current is \
     'true'",
    "confirmed 100",
    "returned 312 NO_ROUTE events nobody",
    "properties text/plain id-0 2",
    "headers 0 hare true 1,2 down",
    "again 5",
    "consumed 100",
    "dead 99 rejected work events 1",
    "got 1000000 0",
    "got nothing",
    "transaction 1",
    "answered pong",
    "cancelled",
    "closed",
];

/// What a client says, with the one name that differs from server to server left open.
async fn life(client: &str, server: &Server) -> Vec<String> {
    let said =
        running::command(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/client"), &[client, &server.url]).await;
    let (_, host) = server.url.rsplit_once('/').unwrap();
    let host = format!("'{}'", host.replace("%2f", "/"));
    said.lines().map(|line| line.replace(&host, "'HOST'")).collect()
}

macro_rules! lives {
    ($($name:ident: $client:literal $(without $missing:literal)?;)*) => {$(
        mod $name {
            use super::*;

            async fn body(server: Server) {
                let missing: &[&str] = &[$($missing)?];
                let expected = LIFE.iter().filter(|line| !missing.iter().any(|word| line.starts_with(word)));
                assert_eq!(life($client, &server).await, expected.copied().collect::<Vec<_>>());
            }

            #[test]
            #[ignore = "needs other people's clients: run tests/run"]
            fn broker() {
                running::run(async { body(Server::broker().await).await });
            }

            #[test]
            #[ignore = "needs other people's clients and RabbitMQ: run tests/run"]
            fn rabbitmq() {
                running::run(async { body(Server::rabbitmq().await).await });
            }
        }
    )*};
}

lives! {
    pika: "pika";
    amqplib: "amqplib" without "transaction";
    amqp_client_js: "amqp-client.js";
    java: "java";
}
