//! `cargo bench`: what a confirmed publish and an acknowledged delivery cost, against the floor.
//!
//! Every piece of work is done by the floor and by each client in turn, several rounds over, against the same raw
//! server in a process of its own. `cargo bench -- publish` does the works with that word in their name,
//! `cargo bench -- --rounds 3` fewer rounds. Run without `--bench`, as `cargo test --benches` does, it only sees that
//! everything works, with few messages.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a benchmark may fail loudly")]

mod client;
mod floor;
mod raw_server;
mod usage;
mod wire;

use std::env;
use std::error::Error;
use std::process::ExitCode;

use raw_server::RawServer;
use usage::Usage;

/// Something to do, the same for all clients.
struct Work {
    name: &'static str,
    direction: Direction,
    /// The size of a message's body.
    body: usize,
    /// Messages that may be unconfirmed, or unacknowledged.
    window: u64,
    messages: u64,
    /// The server's virtual host: on "each" it confirms every message by itself.
    virtual_host: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    /// With confirms, each of which is waited for.
    Publish,
    /// With one acknowledgement for each message.
    Consume,
}

impl Work {
    /// The raw server takes the size of the bodies from the name.
    fn queue(&self) -> String {
        self.body.to_string()
    }
}

const fn work(name: &'static str, direction: Direction, body: usize, window: u64, messages: u64) -> Work {
    Work { name, direction, body, window, messages, virtual_host: "/" }
}

const WORKS: &[Work] = &[
    work("publish 100 B", Direction::Publish, 100, 1000, 1_000_000),
    Work {
        virtual_host: "each",
        ..work("publish 100 B, each confirmed by itself", Direction::Publish, 100, 1000, 1_000_000)
    },
    work("publish 64 KiB", Direction::Publish, 65_536, 100, 10_000),
    work("publish one at a time", Direction::Publish, 100, 1, 10_000),
    work("consume 100 B", Direction::Consume, 100, 1000, 1_000_000),
    work("consume 64 KiB", Direction::Consume, 65_536, 100, 10_000),
];

/// Somebody who does it: connects to the port, does the work, and says what the work alone cost.
struct Client {
    name: &'static str,
    run: fn(port: u16, &Work) -> Outcome,
    /// What it does; none: everything.
    only: Option<Direction>,
}

impl Client {
    fn does(&self, work: &Work) -> bool {
        self.only.is_none_or(|direction| direction == work.direction)
    }
}

type Outcome = Result<Usage, Box<dyn Error>>;

/// The first is what the others are compared with.
const CLIENTS: &[Client] = &[
    Client { name: "floor", run: floor::run, only: None },
    Client { name: "floor, blocks built before", run: floor::run_prebuilt, only: Some(Direction::Publish) },
    Client { name: "leveret, one thread", run: client::run, only: None },
    Client { name: "leveret, two threads", run: client::run_on_two_threads, only: None },
];

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("hot_paths: {e}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == raw_server::ARGUMENT) {
        return Ok(raw_server::serve_until_stdin_ends()?);
    }
    if arguments.iter().any(|argument| argument == "--bench") {
        let options = Options::parse(&arguments)?;
        measure(&options)
    } else if arguments.iter().any(|argument| argument == "--list") {
        Ok(()) // a test runner asks for tests, and these are none
    } else {
        try_out()
    }
}

struct Options {
    filters: Vec<String>,
    rounds: usize,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { filters: Vec::new(), rounds: 7 };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {}
                "--rounds" => {
                    let count = arguments.next().and_then(|count| count.parse().ok()).filter(|&count| count > 0);
                    options.rounds = count.ok_or("--rounds wants a number")?;
                }
                flag if flag.starts_with('-') => return Err(format!("{flag} is not understood")),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        Ok(options)
    }

    fn wants(&self, work: &Work) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| work.name.contains(filter))
    }
}

fn measure(options: &Options) -> Result<(), Box<dyn Error>> {
    let server = RawServer::start()?;
    for work in WORKS.iter().filter(|work| options.wants(work)) {
        let clients: Vec<&Client> = CLIENTS.iter().filter(|client| client.does(work)).collect();
        let mut runs: Vec<Vec<Usage>> = clients.iter().map(|_| Vec::new()).collect();
        for _ in 0..options.rounds {
            for (client, runs) in clients.iter().zip(&mut runs) {
                runs.push(run(client, server.port, work)?);
            }
        }
        let heading =
            format!("{}: {} messages, {} rounds, window {}", work.name, work.messages, options.rounds, work.window);
        usage::print_heading(&heading);
        for (client, its_runs) in clients.iter().zip(&runs) {
            usage::print_row(client.name, its_runs, &runs[0]);
        }
        println!();
    }
    Ok(())
}

fn try_out() -> Result<(), Box<dyn Error>> {
    let server = RawServer::start()?;
    for work in WORKS {
        let few = Work { messages: work.window * 3, ..*work };
        for client in CLIENTS.iter().filter(|client| client.does(work)) {
            run(client, server.port, &few)?;
        }
    }
    Ok(())
}

fn run(client: &Client, port: u16, work: &Work) -> Outcome {
    let usage = (client.run)(port, work).map_err(|e| format!("{}, {}: {e}", client.name, work.name))?;
    if usage.messages < work.messages {
        return Err(format!("{}, {}: only {} messages", client.name, work.name, usage.messages).into());
    }
    Ok(usage)
}
