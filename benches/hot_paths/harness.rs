//! Runs every client on every piece of work, several rounds over, and prints tables.
//!
//! Machines are shared and their speed changes from second to second, so what counts are ratios between runs next to each other:
//! in every round all clients do the same work one after the other, and each is compared with the first of its round.
//!
//! Every run is a process of its own: the program starts itself again. One more run of each counts its allocations, and another
//! is watched by perf, where that is there, for instructions in user space and system calls.

use std::env;
use std::error::Error;
use std::process::{Command, ExitCode, Output};

use crate::client;
use crate::cores::{self, Cores};
use crate::memory::{self, Hold};
use crate::raw_server::{self, RawServer};
use crate::usage::{self, Usage};
use crate::work::{self, Client, Work};

/// The argument with which a run counts its allocations.
const COUNTING: &str = "--counting";

pub(crate) fn main(clients: &'static [Client], holders: &[(&str, Hold)]) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match start(clients, holders, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{}: {e}", env!("CARGO_CRATE_NAME"));
            ExitCode::FAILURE
        }
    }
}

fn start(clients: &'static [Client], holders: &[(&str, Hold)], arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["--one", client, work, messages, port, ref counting @ ..] => {
            if counting == [COUNTING] {
                usage::count_allocations();
            }
            one(clients, client, work, messages.parse()?, port.parse()?)
        }
        [raw_server::ARGUMENT, ref core @ ..] => {
            if let [core] = core {
                cores::stay_on(core.parse()?)?;
            }
            Ok(raw_server::serve_until_stdin_ends()?)
        }
        ["--hold", holder, thing, port] => memory::hold_one(holders, holder, thing, port.parse()?),
        _ if arguments.contains(&"--memory") => memory::measure(holders),
        _ if arguments.contains(&"--bench") => Harness::new(clients, &arguments)?.measure(),
        _ if arguments.contains(&"--list") => Ok(()), // a test runner asks for tests, and these are none
        _ => try_out(clients),
    }
}

/// One run, in a process of its own.
fn one(clients: &[Client], client: &str, work: &str, messages: u64, port: u16) -> Result<(), Box<dyn Error>> {
    let client = clients.iter().find(|one| one.name == client).ok_or("no such client")?;
    let work = work::find(work).ok_or("no such work")?;
    if let Some(core) = work.cores.of_the_client() {
        cores::stay_on(core)?;
    }
    // Once per process, and for as long as it runs.
    let work: &'static Work = Box::leak(Box::new(Work { messages, window: work.window.min(messages), ..*work }));
    println!("{}", (client.run)(port, work)?);
    Ok(())
}

/// Without `--bench`: sees that everything works, with few messages.
fn try_out(clients: &[Client]) -> Result<(), Box<dyn Error>> {
    let server = RawServer::start(Cores::Any)?;
    for work in work::HOT.iter().chain(work::GROWTH) {
        for client in clients.iter().filter(|client| (client.does)(work)) {
            run(client, work, (work.window.min(1000) * 3).max(8), server.port)?;
        }
    }
    Ok(())
}

fn run(client: &Client, work: &Work, messages: u64, port: u16) -> Result<Usage, Box<dyn Error>> {
    let output = command(&[], client, work, messages, port).output()?;
    read(client, work, messages, &output)
}

fn counting(client: &Client, work: &Work, messages: u64, port: u16) -> Result<Usage, Box<dyn Error>> {
    let output = command(&[], client, work, messages, port).arg(COUNTING).output()?;
    read(client, work, messages, &output)
}

/// A run, with something to watch it, and two minutes at most: a client that lost a confirm would wait for ever.
fn command(watcher: &[&str], client: &Client, work: &Work, messages: u64, port: u16) -> Command {
    let this_program = env::current_exe().unwrap();
    let mut command = Command::new("timeout");
    command.arg("120").args(watcher).arg(this_program);
    command.args(["--one", client.name, work.name, &messages.to_string(), &port.to_string()]);
    command
}

fn read(client: &Client, work: &Work, messages: u64, output: &Output) -> Result<Usage, Box<dyn Error>> {
    let usage = Usage::parse(&String::from_utf8_lossy(&output.stdout));
    match usage {
        Some(usage) if output.status.success() && usage.messages + u64::from(work.tasks) > messages => Ok(usage),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("{}, {}: {:?} {said}", client.name, work.name, usage.map(|it| it.messages)).into())
        }
    }
}

/// What perf counts of a run, per message, as far as the machine lets it: instructions and system calls.
fn watched(client: &Client, work: &Work, messages: u64, port: u16) -> [Option<f64>; 2] {
    let events = ["instructions:u", "raw_syscalls:sys_enter"];
    let perf = ["perf", "stat", "-x", ",", "-e", &events.join(",")];
    let Ok(output) = command(&perf, client, work, messages, port).output() else { return [None; 2] };
    if read(client, work, messages, &output).is_err() {
        return [None; 2];
    }
    let said = String::from_utf8_lossy(&output.stderr);
    events.map(|name| {
        let line = said.lines().find(|line| line.contains(name))?;
        Some(line.split(',').next()?.parse::<f64>().ok()? / messages as f64)
    })
}

struct Harness<'a> {
    clients: &'static [Client],
    works: &'static [Work],
    /// The port of a RabbitMQ to be used in place of the raw server.
    rabbitmq: Option<u16>,
    words: Vec<&'a str>,
    rounds: usize,
}

impl<'a> Harness<'a> {
    fn new(clients: &'static [Client], arguments: &[&'a str]) -> Result<Self, String> {
        let mut harness = Self { clients, works: work::HOT, rabbitmq: None, words: Vec::new(), rounds: 7 };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().and_then(|text| text.parse().ok()).filter(|&number: &u16| number > 0);
            match *argument {
                "--bench" => {}
                "--growth" => harness.works = work::GROWTH,
                "--rounds" => harness.rounds = number().ok_or("--rounds wants a number")?.into(),
                "--rabbitmq" => {
                    harness.works = work::RABBITMQ;
                    harness.rabbitmq = Some(number().ok_or("--rabbitmq wants a port")?);
                }
                flag if flag.starts_with('-') => return Err(format!("{flag} is not understood")),
                word => harness.words.push(word),
            }
        }
        Ok(harness)
    }

    fn wants(&self, work: &Work) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| work.name.contains(word))
    }

    fn measure(&self) -> Result<(), Box<dyn Error>> {
        for work in self.works.iter().filter(|work| self.wants(work)) {
            let server = RawServer::start(work.cores)?;
            let does = |client: &&Client| (client.does)(work) && !(self.rabbitmq.is_some() && is_floor(client));
            let clients: Vec<&Client> = self.clients.iter().filter(does).collect();
            let mut runs: Vec<Vec<Usage>> = clients.iter().map(|_| Vec::new()).collect();
            let port = self.rabbitmq.unwrap_or(server.port);
            let messages = |client: &Client| match self.rabbitmq {
                None => (work.messages / client.share).max(work.messages.min(1000)),
                Some(_) => work.messages,
            };
            let prepare = || if self.rabbitmq.is_some() { client::prepare_queue(port, work) } else { Ok(()) };
            for _ in 0..self.rounds {
                for (client, runs) in clients.iter().zip(&mut runs) {
                    prepare()?;
                    runs.push(run(client, work, messages(client), port)?);
                }
            }
            print_heading(work, self.rounds, clients[0]);
            for (client, its_runs) in clients.iter().zip(&runs) {
                prepare()?;
                let counted = counting(client, work, messages(client), port)?;
                prepare()?;
                let counts = watched(client, work, messages(client), port);
                print_row(client.name, its_runs, &runs[0], &counted, counts);
            }
            if self.rabbitmq.is_some() && work.window == 1 {
                print_latencies(&clients, &runs);
            }
            println!();
        }
        Ok(())
    }
}

fn is_floor(client: &Client) -> bool {
    client.name.starts_with("floor")
}

fn print_heading(work: &Work, rounds: usize, first: &Client) {
    println!("{} ({} messages, window {}, {rounds} rounds)", work.name, work.messages, work.window.min(work.messages));
    let against = if is_floor(first) { "floor" } else { "first" };
    println!(
        "  {:<28} {:>10} {:>15} {:>11}  {:<23} {:<23} {:>10} {:>12} {:>10} {:>8}",
        "",
        "CPU µs/msg",
        "user+system",
        "messages/s",
        format!("CPU / {against}"),
        format!("time / {against}"),
        "instr./msg",
        "syscalls/msg",
        "allocs/msg",
        "peak MiB"
    );
}

/// Both have one entry per round, and the rounds belong together.
fn print_row(name: &str, runs: &[Usage], first: &[Usage], counted: &Usage, counts: [Option<f64>; 2]) {
    let of = |value: &dyn Fn(&Usage) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>());
    let [instructions, system_calls] = [(counts[0], 0), (counts[1], 4)].map(|(count, digits)| match count {
        Some(count) => format!("{count:.digits$}"),
        None => "-".to_owned(),
    });
    println!(
        "  {name:<28} {:>10.3} {:>15} {:>11.0}  {:<23} {:<23} {instructions:>10} {system_calls:>12} {:>10.3} {:>8.1}",
        of(&Usage::cpu_per_message),
        format!("{:.3}+{:.3}", of(&Usage::user_per_message), of(&Usage::system_per_message)),
        of(&|usage| 1e6 / usage.wall_per_message()),
        ratios(runs, first, Usage::cpu_per_message),
        ratios(runs, first, Usage::wall_per_message),
        counted.allocations_per_message(),
        of(&Usage::peak_mib),
    );
}

fn print_latencies(clients: &[&Client], runs: &[Vec<Usage>]) {
    println!("  {:<28} {:>10} {:>10} {:>10}   from publish to confirm, µs", "", "p50", "p99", "p99.9");
    for (client, runs) in clients.iter().zip(runs) {
        let [p50, p99, p999] =
            [0, 1, 2].map(|at| median(&runs.iter().map(|usage| usage.latency(at)).collect::<Vec<_>>()));
        println!("  {:<28} {p50:>10.0} {p99:>10.0} {p999:>10.0}", client.name);
    }
}

fn ratios(runs: &[Usage], first: &[Usage], value: fn(&Usage) -> f64) -> String {
    let mut ratios: Vec<f64> = runs.iter().zip(first).map(|(run, first)| value(run) / value(first)).collect();
    ratios.sort_by(f64::total_cmp);
    let digits = if ratios[0] < 100.0 { 2 } else { 0 };
    format!("{:.digits$} ({:.digits$}..{:.digits$})", median(&ratios), ratios[0], ratios[ratios.len() - 1])
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}
