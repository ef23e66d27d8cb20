//! Replays the seeds of the fuzz targets, without a fuzzer: every file in `fuzz/seeds/TARGET/` goes through that target's body.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use std::time::Instant;

use leveret::codec::fuzzing;
use leveret::protocol::fuzzing as machines;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 12] = [
    ("broker", |data| leveret::broker::fuzzing::broker(data, Instant::now())),
    ("client_bytes", |data| machines::client_bytes(data, Instant::now())),
    ("client_operations", |data| machines::client_operations(data, Instant::now())),
    ("content_header", fuzzing::content_header),
    ("frame", fuzzing::frame),
    ("method", fuzzing::method),
    ("pair", |data| machines::pair(data, Instant::now())),
    ("server_bytes", |data| machines::server_bytes(data, Instant::now())),
    ("server_operations", |data| machines::server_operations(data, Instant::now())),
    ("table", fuzzing::table),
    ("url", leveret::amqp::fuzzing::url),
    ("values", fuzzing::values),
];

/// The targets that read their octets as they are. Those of the others are instructions, each of which may make a message.
const READERS: [&str; 6] = ["content_header", "frame", "method", "table", "url", "values"];

/// Runs a target's body, and sees that it never has more memory than so much, and so much for each octet of its input: a length is not
/// believed before its octets are there.
fn run((name, body): Target, data: &[u8]) {
    let (always, each) = if READERS.contains(&name) { (8 * 1024, 64) } else { (256 * 1024, 1024) };
    let memory = allocation_counter::measure(|| body(data)).bytes_max;
    assert!(
        memory <= always + each * data.len() as u64,
        "{name}: {memory} octets of memory for {} of input",
        data.len()
    );
}

fn entries(folder: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

fn stems(folder: &str) -> Vec<String> {
    entries(folder).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_target_has_a_body_and_seeds() {
    let names = TARGETS.map(|(name, _)| name);
    assert_eq!(stems("fuzz_targets"), names);
    assert_eq!(stems("seeds"), names);
}

#[test]
fn every_seed_passes() {
    for target @ (name, _) in TARGETS {
        let seeds = entries(&format!("seeds/{name}"));
        assert!(seeds.len() >= 8, "{name} has {} seeds", seeds.len());
        for seed in seeds {
            let data = fs::read(&seed).unwrap();
            assert!(catch_unwind(|| run(target, &data)).is_ok(), "{} fails", seed.display());
        }
    }
}

/// Every seed cut short anywhere, and with every octet turned into a few others: a fuzzer's first steps. Of a long one, some places.
#[test]
fn every_seed_passes_with_an_octet_changed_or_cut_off() {
    for target @ (name, _) in TARGETS {
        for seed in entries(&format!("seeds/{name}")) {
            let mut data = fs::read(seed).unwrap();
            let (step, changes) = if data.len() > 200 { (data.len() / 20, 2) } else { (1, 6) };
            for at in (0..data.len()).step_by(step) {
                run(target, &data[..at]);
                let octet = data[at];
                let others = [octet ^ 0x80, octet.wrapping_add(1), 0, 1, octet.wrapping_sub(1), 0xff];
                for changed in others.into_iter().take(changes) {
                    data[at] = changed;
                    run(target, &data);
                }
                data[at] = octet;
            }
        }
    }
}

/// Noise, the same in every run: what a structured target makes of it is a conversation.
#[test]
fn noise_passes() {
    for target @ (name, _) in TARGETS {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..300 {
            let data: Vec<u8> = (0..1500)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state.to_be_bytes()[3]
                })
                .collect();
            assert!(catch_unwind(|| run(target, &data)).is_ok(), "{name} fails");
        }
    }
}
