//! The `leveret` command: the broker by itself, which tells where it is and ends when it is told to; what rabbitmq-c's tools make of
//! it; and messages to and from any server.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly, and so do their helpers")]

#[macro_use]
#[path = "shared/running.rs"]
mod running;
#[path = "shared/servers.rs"]
mod servers;

use std::net::TcpListener;
use std::process::{ExitStatus, Output, Stdio};

use leveret::amqp::{Confirmation, Connection, Credentials, FieldValue};
use leveret::error::{ErrorKind, Outcome};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::running::{until, within};
use crate::servers::{Server, against_rabbitmq};

/// In every secret of these tests.
const MARK: &str = "hush";

const LOOPBACK: &[&str] = &["broker", "--listen", "127.0.0.1:0"];

/// The command, which finds nothing in its environment.
fn leveret() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
    command.env_remove("LEVERET_BROKER_USERS").env_remove("AMQP_URL").kill_on_drop(true);
    command
}

/// A broker in a process of its own, whose output is read as it comes.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    url: String,
}

impl Running {
    async fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut output, mut url) = (BufReader::new(child.stdout.take().unwrap()), String::new());
        within("the URL", output.read_line(&mut url)).await.unwrap();
        assert_eq!(url.pop(), Some('\n'), "{url}");
        Self { child, output, url }
    }

    async fn new(arguments: &[&str]) -> Self {
        Self::start(leveret().args(LOOPBACK).args(arguments)).await
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().unwrap().try_into().unwrap()), signal).unwrap();
    }

    /// How it has ended, and what it has said besides the URL.
    async fn end(mut self) -> (ExitStatus, String, String) {
        let (mut said, mut complained) = (String::new(), String::new());
        let errors = self.child.stderr.as_mut().unwrap();
        let (output, errors) = (self.output.read_to_string(&mut said), errors.read_to_string(&mut complained));
        within("the end of what it says", async { tokio::try_join!(output, errors) }).await.unwrap();
        (within("its end", self.child.wait()).await.unwrap(), said, complained)
    }

    /// Ends it, as a script does.
    async fn stop(self) {
        self.signal(Signal::SIGTERM);
        let (status, said, complained) = self.end().await;
        assert_eq!((status.code(), said.as_str(), complained.as_str()), (Some(0), "", ""));
    }
}

/// The status, the output and the errors of a program that ends by itself.
async fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = within("the program to end", command.output()).await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// As [`run`], of a program that reads this.
async fn run_with(command: &mut Command, input: &[u8]) -> (Option<i32>, String, String) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    within("room to write", stdin.write_all(input)).await.unwrap();
    drop(stdin);
    let Output { status, stdout, stderr } = within("the program to end", child.wait_with_output()).await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

// ------------------------------------------------------------------------------------------------ the broker by itself

on_its_own! {
    async fn it_serves_and_ends_in_order_when_it_is_told_to() {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let broker = Running::new(&[]).await;
            assert!(broker.url.starts_with("amqp://guest:guest@127.0.0.1:"), "{}", broker.url);
            let connection = within("a connection", Connection::open(&broker.url)).await.unwrap();
            let channel = connection.open_channel().await.unwrap();
            channel.queue_declare("q").await.unwrap();
            channel.confirm_select().await.unwrap();
            channel.basic_publish("", "q", "one hare").await.unwrap().await.unwrap().accepted().unwrap();
            let got = channel.basic_get("q").no_ack().await.unwrap().unwrap();
            assert_eq!(got.body(), b"one hare");

            broker.signal(signal);
            let error = within("the end of the connection", connection.closed()).await.unwrap_err();
            assert_eq!(error.reply_code().map(|code| code.0), Some(320), "{error}");
            let (status, said, complained) = broker.end().await;
            assert_eq!((status.code(), said.as_str(), complained.as_str()), (Some(0), "", ""), "{signal}");
        }
    }

    async fn it_takes_its_settings() {
        let broker = Running::new(&[
            "--user", "zoe:hush%40%3a", "--user", "bob:hush@b%2fc,d", "--virtual-host", "a", "--vhost", "b/c",
            "--heartbeat", "7", "--frame-max", "8192", "--channel-max", "5", "--mechanisms", "AMQPLAIN",
            "--max-message-size", "10",
        ]).await;
        assert!(broker.url.starts_with("amqp://zoe:hush%40%3a@127.0.0.1:") && broker.url.ends_with("/a"));
        let connection = within("a connection", Connection::open(&broker.url)).await.unwrap();
        let tuning = connection.tuning();
        assert_eq!((tuning.heartbeat, tuning.frame_max, tuning.channel_max), (7, 8192, 5));
        let channel = connection.open_channel().await.unwrap();
        channel.queue_declare("q").await.unwrap();
        channel.confirm_select().await.unwrap();
        let confirm = channel.basic_publish("", "q", "eleven octets").await.unwrap();
        assert_eq!(confirm.await.unwrap_err().kind(), ErrorKind::ChannelClosed);

        let login = |user: &str, password: &str, host: &str| {
            let builder = Connection::builder(&broker.url).unwrap();
            builder.credentials(Credentials::new(user, password)).virtual_host(host).open()
        };
        within("a connection", login("bob", "hush", "b/c")).await.unwrap();
        let error = within("an error", login("bob", "hush", "a")).await.unwrap_err();
        assert_eq!(error.reply_code().map(|code| code.0), Some(530), "{error}");
        let error = within("an error", login("guest", "guest", "a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        broker.stop().await;
    }

    async fn a_password_can_be_kept_off_the_command_line() {
        let users = "ann:hush  ben:hush%20too@/,x";
        let broker = Running::start(leveret().args(LOOPBACK).env("LEVERET_BROKER_USERS", users)).await;
        assert!(broker.url.starts_with("amqp://ann:hush@127.0.0.1:"));
        let builder = Connection::builder(&broker.url).unwrap().credentials(Credentials::new("ben", "hush too"));
        within("a connection", builder.open()).await.unwrap();
        broker.stop().await;
        // Nor is it in the help, which says what stands in variables.
        let (status, said, _) = run(leveret().args(["broker", "--help"]).env("LEVERET_BROKER_USERS", users)).await;
        assert_eq!(status, Some(0));
        assert!(said.contains("LEVERET_BROKER_USERS") && !said.contains(MARK), "{said}");
    }

    /// And so it leaves nothing behind when the test that has started it is killed.
    async fn it_ends_with_its_input_where_that_is_wanted() {
        let mut broker = Running::start(leveret().args(LOOPBACK).arg("--until-eof").stdin(Stdio::piped())).await;
        let connection = within("a connection", Connection::open(&broker.url)).await.unwrap();
        drop(broker.child.stdin.take());
        within("the end of the connection", connection.closed()).await.unwrap_err();
        let (status, said, complained) = broker.end().await;
        assert_eq!((status.code(), said.as_str(), complained.as_str()), (Some(0), "", ""));
    }

    async fn what_goes_wrong_is_on_the_command_line() {
        let broker = Running::new(&["--script", "published 2: cut", "--script", "published 1: nack"]).await;
        let publish = async |messages: usize| {
            let connection = within("a connection", Connection::open(&broker.url)).await.unwrap();
            let channel = connection.open_channel().await.unwrap();
            channel.confirm_select().await.unwrap();
            for _ in 1..messages {
                channel.basic_publish("", "q", "x").await.unwrap().await.unwrap().accepted().unwrap();
            }
            let confirmed = within("a confirm", channel.basic_publish("", "q", "x").await.unwrap()).await;
            confirmed.and_then(Confirmation::accepted).map_err(|error| (error.kind(), error.outcome()))
        };
        assert_eq!(publish(2).await, Err((ErrorKind::Io, Outcome::Unknown)));
        assert_eq!(publish(1).await, Err((ErrorKind::Nacked, Outcome::Refused)));
        assert_eq!(publish(2).await, Ok(()));
        broker.stop().await;

        // Chance is said in words, and is the same every time.
        let mut said = Vec::new();
        for seed in ["7", "7", "8"] {
            let broker = Running::new(&["--seed", seed]).await;
            broker.signal(Signal::SIGTERM);
            said.push(broker.end().await);
        }
        assert!(said[0] == said[1] && said[0] != said[2], "{said:?}");
        assert!(said[0].2.starts_with("leveret: the script of 7 is: "), "{said:?}");
    }

    async fn a_port_that_is_taken_is_said() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let (status, said, complained) = run(leveret().args(["broker", "--listen", &address])).await;
        assert_eq!((status, said.as_str()), (Some(1), ""));
        assert!(complained.starts_with(&format!("leveret: cannot listen on {address}: ")), "{complained}");
        assert!(complained.contains("in use") && complained.lines().count() == 1, "{complained}");
    }

    /// The port is taken, too, so that nothing is open to anybody.
    async fn who_listens_to_other_machines_is_warned() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("0.0.0.0:{}", taken.local_addr().unwrap().port());
        let (status, _, complained) = run(leveret().args(["broker", "--listen", &address])).await;
        assert_eq!(status, Some(1));
        assert!(complained.starts_with(&format!("leveret: {address} is open to other machines: ")), "{complained}");
        assert!(complained.contains("not for production"), "{complained}");
    }

    async fn arguments_that_make_no_sense_are_said_without_secrets() {
        for (arguments, words) in [
            (&["--listen", "nonsense"][..], "for example 127.0.0.1:5672"),
            (&["--listen", "127.0.0.1:70000"], "for example 127.0.0.1:5672"),
            (&["--heartbeat", "never"], "--heartbeat"),
            (&["--script", "published 1: dance"], "dance"),
            (&["--what"], "unexpected argument '--what'"),
            (&["ann:hush"], "unexpected argument"),
            (&["--user", "ann"], "user 1 is not written as NAME:PASSWORD"),
            (&["--user", "a:b", "--user", "ann:hush%ff"], "user 2 is not written as NAME:PASSWORD"),
        ] {
            let (status, said, complained) = run(leveret().arg("broker").args(arguments)).await;
            assert_eq!((status, said.as_str()), (Some(2), ""), "{arguments:?}: {complained}");
            assert!(complained.contains(words), "{arguments:?}: {complained}");
            assert!(!complained.contains(MARK) && !complained.contains("panicked"), "{complained}");
        }
        for (arguments, words) in [
            (&[][..], "broker"),
            (&["amqp://u:hush@localhost"], "unrecognized subcommand"),
            (&["publish", "q", "amqp://u:hush@localhost"], "unexpected argument"),
        ] {
            let (status, _, complained) = run(leveret().args(arguments)).await;
            assert!(status == Some(2) && complained.contains(words) && !complained.contains(MARK), "{complained}");
        }
    }
}

// ------------------------------------------------------------------------------------------------ publish and consume

on_every_server! {
    async fn what_is_published_is_consumed(server: Server) {
        // What it does not print is there for others.
        let mut consumer = leveret();
        consumer.args(["consume", "q", "--declare", "--count", "4"]).env("AMQP_URL", &server.url);
        let consumer = tokio::spawn(async move { run(&mut consumer).await });
        let connection = within("a connection", Connection::open(&server.url)).await.unwrap();
        until("the consumer", async || {
            let channel = connection.open_channel().await.unwrap();
            let queue = channel.queue_declare("q").passive(true).await;
            queue.is_ok_and(|queue| queue.consumer_count() == 1)
        })
        .await;
        let publish = || {
            let mut command = leveret();
            command.args(["publish", "--url", &server.url]);
            command
        };
        let all_well = |count| (Some(0), format!("{count} accepted\n"), String::new());
        assert_eq!(run(publish().args(["q", "--body", "one"])).await, all_well(1));
        assert_eq!(run_with(publish().args(["--lines", "q"]), b"two\n\nthree").await, all_well(3));
        assert_eq!(consumer.await.unwrap(), (Some(0), "one\ntwo\n\nthree\n".into(), String::new()));

        assert_eq!(run_with(publish().args(["--exchange", "amq.direct", "key"]), b"x").await.0, Some(3));
        let channel = connection.open_channel().await.unwrap();
        channel.queue_bind("q", "amq.direct", "key").await.unwrap();
        assert_eq!(run_with(publish().args(["--exchange", "amq.direct", "key"]), b"a\nb\n").await, all_well(1));
        let mut consume = leveret();
        consume.args(["consume", "q", "--url", &server.url, "--count", "1"]);
        assert_eq!(run(&mut consume).await, (Some(0), "a\nb\n\n".into(), String::new()));
        let (status, said, complained) = run(consume.args(["--idle", "1"])).await;
        assert_eq!((status, said.as_str(), complained.as_str()), (Some(1), "", "leveret: 0 of 1 messages came\n"));
        let mut consume = leveret();
        consume.args(["consume", "q", "--url", &server.url, "--idle", "1"]);
        assert_eq!(run(&mut consume).await, (Some(0), String::new(), String::new()));
    }

    async fn a_consumer_that_is_told_to_end_gives_back_what_it_has_not_printed(server: Server) {
        let connection = within("a connection", Connection::open(&server.url)).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        channel.queue_declare("q").await.unwrap();
        drop(channel.basic_publish("", "q", "printed").await.unwrap());
        let consumer = Running::start(leveret().args(["consume", "q"]).env("AMQP_URL", &server.url)).await;
        assert_eq!(consumer.url, "printed");
        consumer.stop().await;
        let queue = channel.queue_declare("q").passive(true).await.unwrap();
        assert_eq!((queue.message_count(), queue.consumer_count()), (0, 0));
    }
}

on_its_own! {
    async fn the_exit_status_says_what_became_of_a_message() {
        let server = Server::broker().await;
        let publish = |url: &str| {
            let mut command = leveret();
            command.args(["publish", "q", "--body", "x", "--url", url]);
            command
        };
        let (status, said, complained) = run(&mut publish(&server.url)).await;
        assert_eq!((status, said.as_str()), (Some(3), "0 accepted\n"));
        assert!(complained.contains("NO_ROUTE"), "{complained}");

        let connection = within("a connection", Connection::open(&server.url)).await.unwrap();
        connection.open_channel().await.unwrap().queue_declare("q").await.unwrap();
        server.in_the_box().hold_confirms(true);
        // After a second it may not even be connected, and says so.
        let (status, complained) = loop {
            let (status, _, complained) = run(publish(&server.url).args(["--timeout", "1"])).await;
            if !complained.contains("no connection, or no channel, before the deadline") {
                break (status, complained);
            }
        };
        assert!(status == Some(4) && complained.contains("did not confirm"), "{status:?} {complained}");

        let url = server.url.replace(":guest@", ":hush@");
        let (status, _, complained) = run(&mut publish(&url)).await;
        assert!(status == Some(1) && complained.contains("Login was refused"), "{status:?} {complained}");
        let (status, _, complained) = run(&mut publish("amqp://u:hush@localhost/a/b")).await;
        assert!(status == Some(2) && complained.contains("%2f") && !complained.contains(MARK), "{complained}");
        let (status, _, complained) = run(leveret().args(["consume", "nowhere", "--url", &server.url])).await;
        assert!(status == Some(1) && complained.contains("no queue 'nowhere'"), "{complained}");
    }
}

on_its_own! {
    async fn a_consumer_can_be_ended_while_nobody_reads_what_it_prints() {
        let server = Server::broker().await;
        let connection = within("a connection", Connection::open(&server.url)).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        channel.queue_declare("q").await.unwrap();
        // More than a pipe holds.
        drop(channel.basic_publish("", "q", vec![b'x'; 1_000_000]).await.unwrap());
        let mut consume = leveret();
        let mut child = consume.args(["consume", "q", "--url", &server.url]).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        within("the beginning", output.read_u8()).await.unwrap();
        kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(within("its end", child.wait()).await.unwrap().code(), Some(0));
        until("the message to be back", async || {
            channel.queue_declare("q").passive(true).await.unwrap().message_count() == 1
        })
        .await;
    }

    /// Whoever starts it may look at nothing but its exit status.
    async fn nobody_has_to_listen() {
        let server = Server::broker().await;
        let mut publish = leveret();
        publish.args(["publish", "q", "--body", "x", "--url", &server.url]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = publish.spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(within("its end", child.wait()).await.unwrap().code(), Some(3));
    }

    async fn a_consumer_can_be_ended_while_its_server_says_nothing() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("amqp://{}", silent.local_addr().unwrap());
        let mut consume = leveret();
        let mut child = consume.args(["consume", "q", "--url", &url]).spawn().unwrap();
        let connection = within("a connection", silent.accept()).await.unwrap();
        kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(within("its end", child.wait()).await.unwrap().code(), Some(0));
        drop(connection);
    }
}

// ------------------------------------------------------------------------------------------ another client, in C

on_its_own! {
    #[ignore = "needs amqp-tools: run tests/run"]
    async fn the_tools_of_rabbitmq_c_understand_it() {
        let broker = Running::new(&[]).await;
        let tool = |name: &str, arguments: &[&str]| {
            let mut command = Command::new(name);
            command.args(["--url", &broker.url]).args(arguments);
            command
        };
        let fine = |said: &str| (Some(0), said.to_owned(), String::new());
        let declare = run(&mut tool("amqp-declare-queue", &["--queue", "hares", "--durable"])).await;
        assert_eq!(declare, fine("hares\n"));

        let properties = ["--content-type", "text/plain", "--persistent", "--header", "Colour: brown"];
        let publish = run(tool("amqp-publish", &["--routing-key", "hares", "--body", "one"]).args(properties)).await;
        assert_eq!(publish, fine(""));
        // More than a frame.
        let large = vec![b'x'; 300_000];
        assert_eq!(run_with(&mut tool("amqp-publish", &["--routing-key", "hares"]), &large).await, fine(""));
        let mut lines = tool("amqp-publish", &["--routing-key", "hares", "--line-buffered"]);
        assert_eq!(run_with(&mut lines, b"three\nfour\n").await, fine(""));

        let connection = within("a connection", Connection::open(&broker.url)).await.unwrap();
        let channel = connection.open_channel().await.unwrap();
        let got = channel.basic_get("hares").await.unwrap().unwrap();
        let properties = got.delivery.properties().unwrap();
        assert_eq!((properties.delivery_mode, got.delivery.body()), (Some(2), &b"one"[..]));
        let header = properties.headers.as_ref().unwrap().get("Colour").and_then(FieldValue::as_str).map(str::to_owned);
        assert_eq!(header.as_deref(), Some("brown"));
        got.delivery.nack(true).unwrap();

        assert_eq!(run(&mut tool("amqp-get", &["--queue", "hares"])).await, fine("one"));
        let (status, said, _) = run(&mut tool("amqp-get", &["--queue", "hares"])).await;
        assert_eq!((status, said.len()), (Some(0), large.len()));
        let consume = run(&mut tool("amqp-consume", &["--queue", "hares", "--count", "2", "cat"])).await;
        assert_eq!(consume, fine("three\nfour\n"));
        let (status, _, _) = run(&mut tool("amqp-get", &["--queue", "hares"])).await;
        assert_eq!(status, Some(2), "the queue is empty");

        // What goes wrong is said in the server's words.
        let (status, _, complained) = run(&mut tool("amqp-get", &["--queue", "nowhere"])).await;
        assert!(status == Some(1) && complained.contains("no queue 'nowhere' in vhost '/'"), "{complained}");
        let delete = run(&mut tool("amqp-delete-queue", &["--queue", "hares"])).await;
        assert_eq!(delete, fine("0\n"));
        broker.stop().await;
    }
}
