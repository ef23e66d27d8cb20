//! Every example runs without arguments, against a broker of its own, and does what it says; and the quickstart's ways to
//! fail each have their own message.
//!
//! `cargo test` builds the examples; `cargo test --test examples` alone does not: build them with `cargo build --examples`
//! (and the profile in question) before.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use leveret::amqp::{Connection, ReplyCode};
use leveret::broker::Broker;
use tokio::process::{Child, Command};

/// More than any example takes, even on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(90);

/// The examples and a few words of what each prints.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "facade",
        &[
            "order 0 is Accepted",
            "nobody wants it: the server returned the message: 312 NO_ROUTE",
            "99 more, 0 of them failed",
            "100 orders are done",
            "200: 3 pieces of carrots",
        ],
    ),
    ("frame_by_frame", &["< 1 queue.declare-ok", "> a heartbeat on channel 7\n< 0 connection.close\n< the end"]),
    #[cfg(feature = "kafka")]
    (
        "kafka",
        &[
            "accepted, as number 0 of partition",
            "99 more, 0 of them failed",
            "not sent: a queue cannot be used here: Kafka has topics",
            "100 hares are accepted",
            "closed, with nothing left: true",
        ],
    ),
    (
        "publish_subscribe",
        &["Anna hears: the hare is off", "Bert hears: the hare takes a nap", "both heard everything"],
    ),
    (
        "quickstart",
        &[
            "connected   to leveret broker",
            "accepted    9995\n",
            "returned    5, because 312 NO_ROUTE",
            "received    9995 in",
        ],
    ),
    (
        "read_one_message",
        &["got \"a\", alphabet Some(\"latin\"), 2 left", "redelivered is true", "the queue is empty again"],
    ),
    (
        "relay",
        &[
            "line 2: done",
            "line 4: given up, 550",
            "6 lines: 4 accepted, 2 refused, 0 deferred; 0 retries",
            "the handler says 250 accepted",
        ],
    ),
    ("rpc", &["5 squared is 25", "5 questions, 5 answers"]),
    ("topics", &["#.alarm        gets kitchen.smoke.alarm, cellar.water.alarm, alarm\n", "nobody wants it: NO_ROUTE"]),
    ("transactions", &["after a rollback the inbox holds 0", "2 in the inbox, 1 in the outbox"]),
    ("work_queue", &["60 jobs are waiting", "could not do job 20: back into the queue", "every job was done once"]),
    ("worker", &["job 7: done, at attempt 2", "job 13: put aside, at attempt 3", "jobs put aside: 1 left"]),
];

// ------------------------------------------------------------------------------------------------------ with the broker

#[test]
fn every_example_is_in_the_list_and_says_how_to_run_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let head: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
            assert!(head.contains(&format!("--example {name} ")), "{name} does not say how to run it");
            // That one is built with its feature only.
            if cfg!(feature = "kafka") || name != "kafka" {
                names.push(name);
            }
        }
    }
    names.sort();
    assert_eq!(names, EXAMPLES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_example_does_what_it_says() {
    for (name, words) in EXAMPLES {
        let output = run(name, &[]).await;
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{name}: {}\n{said}{complained}", output.status);
        for words in *words {
            assert!(said.contains(words), "{name} does not say {words:?}:\n{said}");
        }
        assert_eq!(complained, "", "{name}");
    }
}

#[tokio::test]
async fn quickstart_uses_the_server_at_the_url() {
    let broker = Broker::start().await.unwrap();
    let child = start("quickstart", &[&broker.url()]);
    let process = child.id().unwrap();
    let output = end(child).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("accepted    9995\n"), "{}", text(&output.stdout));

    // And leaves nothing there.
    let connection = Connection::open(&broker.url()).await.unwrap();
    let channel = connection.open_channel().await.unwrap();
    let error = channel.queue_declare(&format!("leveret.quickstart.{process}")).passive(true).await.unwrap_err();
    assert_eq!(error.reply_code(), Some(ReplyCode::NOT_FOUND), "{error}");
    broker.shutdown().await;
}

// ------------------------------------------------------------------------------------------------------ what goes wrong

#[tokio::test]
async fn quickstart_says_that_nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let said = complaint(&[&format!("amqp://guest:hush@{address}/%2f")]).await;
    assert!(said.starts_with(&format!("quickstart: cannot connect to {address}: ")), "{said}");
    assert!(said.contains("refused"), "{said}");
}

#[tokio::test]
async fn quickstart_says_what_is_wrong_with_a_url() {
    for (url, words) in [
        ("nonsense", "the URL does not begin with amqp://"),
        ("http://guest:hush@localhost", "the URL's scheme is http, not amqp"),
        ("amqp://guest:hush@localhost:70000", "port is not one of 0 to 65535"),
        ("amqp://guest:hush@localhost/a/b", "a slash in a virtual host is written %2f"),
        (
            "amqps://guest:hush@localhost?cacertfile=/nowhere/ca.pem",
            "the certificates in /nowhere/ca.pem cannot be read",
        ),
    ] {
        let said = complaint(&[url]).await;
        assert!(said.contains(words), "{url}: {said}");
    }
}

#[tokio::test]
async fn quickstart_says_that_the_login_was_refused() {
    let broker = Broker::start().await.unwrap();
    let said = complaint(&[&broker.url().replace(":guest@", ":hush@")]).await;
    assert!(said.contains("403 ACCESS_REFUSED - Login was refused"), "{said}");
    broker.shutdown().await;
}

#[tokio::test]
async fn quickstart_says_that_the_virtual_host_is_unknown() {
    let broker = Broker::start().await.unwrap();
    let said = complaint(&[&broker.url().replace("/%2f", "/nowhere")]).await;
    assert!(said.contains("530 NOT_ALLOWED - vhost nowhere not found"), "{said}");
    // Most who write this mean the virtual host "/".
    let said = complaint(&[&broker.url().replace("/%2f", "/")]).await;
    assert!(said.contains("the virtual host's name is empty") && said.contains("/%2f"), "{said}");
    broker.shutdown().await;
}

#[tokio::test]
async fn quickstart_takes_one_argument() {
    for arguments in [&["--verbose"][..], &["amqp://localhost", "amqp://localhost"]] {
        let said = complaint(arguments).await;
        assert!(said.contains("--help"), "{said}");
    }
}

#[tokio::test]
async fn quickstart_explains_itself() {
    let output = run("quickstart", &["--help"]).await;
    assert!(output.status.success());
    let said = text(&output.stdout);
    for words in ["10 000 messages", "cargo run --release --example quickstart [-- URL]", "%2f", "Exit status"] {
        assert!(said.contains(words), "{words:?} is missing:\n{said}");
    }
}

// ----------------------------------------------------------------------------------------------------------- the tools

/// Runs the quickstart, which has to fail: the one line that it says.
async fn complaint(arguments: &[&str]) -> String {
    let output = run("quickstart", arguments).await;
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
    assert!(!said.contains("hush"), "a password: {said}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    said
}

async fn run(example: &str, arguments: &[&str]) -> Output {
    end(start(example, arguments)).await
}

fn start(example: &str, arguments: &[&str]) -> Child {
    let program = program(example);
    assert!(program.exists(), "{} is missing: build it with cargo build --examples", program.display());
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true).spawn().unwrap()
}

async fn end(child: Child) -> Output {
    match tokio::time::timeout(LIMIT, child.wait_with_output()).await {
        Ok(output) => output.unwrap(),
        Err(_) => panic!("an example did not end in {} s", LIMIT.as_secs()),
    }
}

/// This test is `target/PROFILE/deps/examples-HASH`, the examples are in `target/PROFILE/examples/`.
fn program(example: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples").join(format!("{example}{}", std::env::consts::EXE_SUFFIX))
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
