//! `cargo bench --bench instructions`: how many instructions a message costs, counted by valgrind.
//!
//! Instructions are the same on a busy machine and on an idle one, so a change that makes the hot paths longer is seen at once:
//! each figure is held against the one in `benches/instructions/figures`. The program starts itself under valgrind, twice for
//! every piece of work, with fewer and with more messages; the difference is what the messages cost, and what start and end
//! cost falls out.
//!
//! `-- --write` writes the figures anew, `-- WORD` counts the works with that word in their name. Run without `--bench`, as
//! `cargo test --benches` does, it only sees that everything works, without valgrind.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a benchmark may fail loudly")]

mod client;
mod codec;
mod facade;
mod figures;
mod machine;
mod message;
mod peer;
#[path = "../hot_paths/wire.rs"]
#[expect(dead_code, reason = "the raw server and the floor use the rest")]
mod wire;

use std::env;
use std::error::Error;
use std::process::{Command, ExitCode};

use figures::{Figures, Verdict, judge};

/// Something to do with as many messages as wanted.
struct Work {
    name: &'static str,
    run: fn(messages: u64),
    /// The unit of `messages` in both runs.
    step: u64,
}

const fn work(name: &'static str, step: u64, run: fn(u64)) -> Work {
    Work { name, run, step }
}

const WORKS: &[Work] = &[
    work("machine: publish 100 B", 2_000, |messages| machine::publish(messages, false)),
    work("machine: publish 100 B, each confirmed by itself", 2_000, |messages| machine::publish(messages, true)),
    work("machine: deliver 100 B and ack", 2_000, |messages| machine::consume(messages, false)),
    work("machine: deliver 100 B and ack, coalesced", 2_000, |messages| machine::consume(messages, true)),
    work("client: publish 100 B", 2_000, |messages| client::publish(messages, 100, 1000, false)),
    work("client: publish 100 B, each confirmed by itself", 2_000, |messages| {
        client::publish(messages, 100, 1000, true);
    }),
    work("client: publish 100 B one at a time", 1_000, |messages| client::publish(messages, 100, 1, false)),
    work("client: publish 64 KiB", 500, |messages| client::publish(messages, 65_536, 100, false)),
    work("client: consume 100 B and ack", 2_000, |messages| client::consume(messages, 100, 1000)),
    work("client: consume 64 KiB and ack", 500, |messages| client::consume(messages, 65_536, 100)),
    work("facade: send 100 B", 2_000, |messages| facade::send(messages, 100, 1000)),
    work("facade: receive 100 B and accept", 2_000, |messages| facade::receive(messages, 100, 1000)),
    work("codec: encode publish, properties with headers, body", 1_000, codec::encode),
    work("codec: decode deliver, properties with headers, body", 1_000, codec::decode),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match *arguments.as_slice() {
        ["--work", name, messages] => by_name(name, messages),
        _ if arguments.contains(&"--bench") => count(&arguments),
        _ if arguments.contains(&"--list") => Ok(()), // a test runner asks for tests, and these are none
        _ => {
            WORKS.iter().for_each(|work| (work.run)(work.step));
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("instructions: {e}");
            ExitCode::FAILURE
        }
    }
}

fn by_name(name: &str, messages: &str) -> Result<(), Box<dyn Error>> {
    let work = WORKS.iter().find(|work| work.name == name).ok_or("no such work")?;
    (work.run)(messages.parse()?);
    Ok(())
}

fn count(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let write = arguments.contains(&"--write");
    let words: Vec<&&str> = arguments.iter().filter(|word| !word.starts_with("--")).collect();
    let mut figures = Figures::read()?;
    println!("{:<56} {:>12} {:>12}", "instructions per message", "counted", "written down");
    let mut worse = 0;
    for work in WORKS.iter().filter(|work| words.is_empty() || words.iter().any(|word| work.name.contains(**word))) {
        let (few, many) = (under_valgrind(work, work.step)?, under_valgrind(work, 3 * work.step)?);
        let counted = many.saturating_sub(few) / (2 * work.step);
        let written = figures.get(work.name);
        let remark = match judge(counted, written) {
            Verdict::AsExpected => "",
            Verdict::Better => "  less: worth writing down",
            Verdict::Unknown | Verdict::Worse if write => "",
            Verdict::Unknown | Verdict::Worse => {
                worse += 1;
                "  TOO MANY"
            }
        };
        let written = written.map_or_else(|| "nothing".to_owned(), |number| number.to_string());
        println!("{:<56} {counted:>12} {written:>12}{remark}", work.name);
        figures.set(work.name, counted);
    }
    match worse {
        _ if write => Ok(figures.write()?),
        0 => Ok(()),
        _ => {
            Err("the hot paths have become longer; where that is meant, `benches/guard --write` writes it down".into())
        }
    }
}

/// Instructions of the whole program, as valgrind counts them.
fn under_valgrind(work: &Work, messages: u64) -> Result<u64, Box<dyn Error>> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["--work", work.name, &messages.to_string()])
        .output()
        .map_err(|e| format!("valgrind: {e} (benches/guard installs it)"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{}: {said}", work.name).into());
    }
    // ==1234== I   refs:      1,234,567
    let line = said.lines().find(|line| line.contains("refs:")).ok_or("valgrind has counted nothing")?;
    let digits: String = line.rsplit(':').next().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}
