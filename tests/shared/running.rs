//! How a test runs: on a runtime of its own, with waits that end. Shared by the tests of the client and those of the facade.

use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a test waits for one thing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long a program may take, of which some start a server on a machine that has much else to do.
const OF_A_PROGRAM: Duration = Duration::from_secs(300);

/// How long a whole test may take.
const WHOLE: Duration = Duration::from_secs(600);

/// Makes a test of each body that brings its own server.
macro_rules! on_its_own {
    ($( $(#[$meta:meta])* async fn $name:ident() $body:block )*) => {$(
        $(#[$meta])*
        #[test]
        fn $name() {
            crate::running::run(async $body);
        }
    )*};
}

/// Makes two tests of each body: `NAME::broker` and `NAME::rabbitmq`, each with a server of the kind that the body asks for.
/// `against_rabbitmq`, in the crate's root, runs the second.
macro_rules! on_every_server {
    ($( $(#[$meta:meta])* async fn $name:ident($server:ident: $kind:ident) $body:block )*) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn body($server: &$kind) $body

            #[test]
            fn broker() {
                crate::running::run(async { body(&$kind::broker().await).await });
            }

            #[test]
            #[ignore = "needs RabbitMQ: run tests/run"]
            fn rabbitmq() {
                crate::running::run(async {
                    let server = $kind::rabbitmq().await;
                    crate::against_rabbitmq(module_path!(), body(&server)).await;
                });
            }
        }
    )*};
}

/// Runs a test on a runtime of its own.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(WHOLE, test).await });
    // A task that is stuck must not hold the test up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    assert!(ended.is_ok(), "the test did not end within {} s", WHOLE.as_secs());
}

/// Waits for something, but not for ever.
pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    within_time(PATIENCE, what, wait).await
}

async fn within_time<T>(limit: Duration, what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, wait).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s in vain: {what}", limit.as_secs()),
    }
}

/// Asks again and again until it is so, where nothing tells when.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A name that nobody else uses.
pub(crate) fn unique(word: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("leveret.{}.{}.{word}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A variable that `tests/run` sets.
pub(crate) fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/run"))
}

/// Runs a program, and returns what it prints. One that does not end in time is ended.
pub(crate) async fn command(program: &str, arguments: &[&str]) -> String {
    let mut command = tokio::process::Command::new(program);
    let ran = command.args(arguments).kill_on_drop(true).output();
    let Output { status, stdout, stderr } = within_time(OF_A_PROGRAM, program, ran).await.unwrap();
    assert!(status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}
