//! Prints how long tries take to build, how large they are, and what a look-up costs on the
//! host: `cargo run --release -p headgate-compile --example trie_timing`.

#![allow(clippy::disallowed_methods)] // a timing needs a clock

use headgate_compile::trie::{Boundary, build_v4, build_v6};
use headgate_packet::{
    tables::HostTables,
    trie::{lookup_v4, lookup_v6},
};
use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};
use zerocopy::IntoBytes;

const SIZES: [usize; 5] = [10, 100, 1_000, 100_000, 1_000_000];
const ROUNDS: u32 = 5;
/// Byte offset of the area in its block.
const BASE: u32 = 64;

fn main() {
    println!(
        "{:>10} {:>9} {:>10} {:>7} {:>7} {:>7}",
        "set", "entries", "build", "B/entry", "hot ns", "rnd ns"
    );
    for count in SIZES {
        time_v4(count);
    }
    for count in SIZES {
        time_v6("v6 hosts", &hosts_v6(count));
    }
    for count in SIZES {
        time_v6("v6 mixed", &mixed_v6(count));
    }
}

fn time_v4(count: usize) {
    let mut numbers = Numbers(1);
    let hosts: Vec<_> = (0..count).map(|_| numbers.next() as u32).collect();
    let ranges = hosts
        .iter()
        .map(|host| (u128::from(*host), u128::from(*host)));
    let boundaries: Vec<_> = boundaries(ranges)
        .into_iter()
        .map(|(start, class)| Boundary {
            start: start as u32,
            class,
        })
        .collect();
    let (build, built) = fastest(|| build_v4(&boundaries).expect("in order"));
    let block = block(&built.words);
    let trie = built.header(BASE);
    let tables = HostTables::new(&block);
    let look = |host: &u32| lookup_v4(&tables, &trie, *host);
    report("v4 hosts", count, build, &built.words, &hosts, look);
}

fn time_v6(name: &str, prefixes: &[(u128, u32)]) {
    let mut numbers = Numbers(2);
    let below = |length: u32| u128::MAX.checked_shr(length).unwrap_or(0);
    let ranges = prefixes
        .iter()
        .map(|(first, length)| (*first, first | below(*length)));
    let boundaries: Vec<_> = boundaries(ranges)
        .into_iter()
        .map(|(start, class)| Boundary { start, class })
        .collect();
    let (build, built) = fastest(|| build_v6(&boundaries).expect("in order"));
    let block = block(&built.words);
    let trie = built.header(BASE);
    let tables = HostTables::new(&block);
    let inside: Vec<_> = prefixes
        .iter()
        .map(|(first, length)| first | numbers.wide() & below(*length))
        .collect();
    let look = |host: &u128| lookup_v6(&tables, &trie, (host >> 64) as u64, *host as u64);
    report(name, prefixes.len(), build, &built.words, &inside, look);
}

fn report<A>(
    name: &str,
    count: usize,
    build: Duration,
    words: &[u32],
    addresses: &[A],
    look: impl Fn(&A) -> u32,
) {
    const LOOKS: usize = 1 << 20;
    let run = |addresses: &[A]| {
        let (time, _) = fastest(|| {
            let looks = addresses.iter().cycle().take(LOOKS);
            // Each look-up waits for the one before, as one packet for another.
            looks.fold(0, |sum, address| black_box(sum + look(address)))
        });
        time.as_nanos() as f64 / LOOKS as f64
    };
    println!(
        "{name:>10} {count:>9} {build:>10.2?} {:>7.1} {:>7.1} {:>7.1}",
        words.len() as f64 * 4.0 / count as f64,
        run(&addresses[..1]),
        run(addresses),
    );
}

/// The best time of some rounds, and what was made.
fn fastest<T>(make: impl Fn() -> T) -> (Duration, T) {
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        black_box(make());
        start.elapsed()
    });
    (times.min().unwrap_or_default(), make())
}

/// The boundaries of ranges that may touch but not overlap partly; the last of two equal
/// or nested ones wins from its start on.
fn boundaries(ranges: impl Iterator<Item = (u128, u128)>) -> Vec<(u128, u16)> {
    let mut starts = BTreeMap::from([(0, 0)]);
    for (index, (first, last)) in ranges.enumerate() {
        if let Some(behind) = last.checked_add(1) {
            starts.entry(behind).or_insert(0);
        }
        starts.insert(first, 1 + (index % 50) as u16);
    }
    let mut merged: Vec<_> = starts.into_iter().collect();
    merged.dedup_by_key(|(_, class)| *class);
    merged
}

/// Random hosts in 2000::/3.
fn hosts_v6(count: usize) -> Vec<(u128, u32)> {
    let mut numbers = Numbers(4);
    (0..count)
        .map(|_| (numbers.wide() >> 3 | 1u128 << 125, 128))
        .collect()
}

/// Prefixes of /32../64, and one host in ten, in networks that share a /32.
fn mixed_v6(count: usize) -> Vec<(u128, u32)> {
    let mut numbers = Numbers(5);
    let networks: Vec<_> = hosts_v6(count / 50 + 1);
    (0..count)
        .map(|index| {
            let network = networks[index % networks.len()].0 >> 96 << 96;
            let length = match index % 10 {
                0 => 128,
                _ => 32 + (numbers.next() % 33) as u32,
            };
            let address = network | numbers.wide() >> 32;
            (address >> (128 - length) << (128 - length), length)
        })
        .collect()
}

/// A block that holds an area at [`BASE`].
fn block(area: &[u32]) -> Vec<u64> {
    let mut block = vec![0; BASE as usize / 8 + area.len() / 2];
    block[BASE as usize / 8..]
        .as_mut_bytes()
        .copy_from_slice(area.as_bytes());
    block
}

/// A reproducible run of numbers (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}
