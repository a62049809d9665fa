use crate::model::{BASE, Numbers, Prefix, block, chain, class, edges, flatten, merge, prefixes};
use headgate_compile::trie::{Boundary, TrieError, build_v6};
use headgate_packet::{tables::HostTables, trie::lookup_v6};
use proptest::prelude::*;

const GLOBAL: u128 = 0x2001_0db8 << 96;

/// Builds the trie and compares it with the model at all edges and at `more`.
fn check(boundaries: &[Boundary<u128>], more: impl IntoIterator<Item = u128>) {
    let built = build_v6(boundaries).expect("the boundaries are in order");
    let block = block(&built.words);
    let trie = built.header(BASE);
    // Places where the look-up changes its table: the ends of 64s and of 2000::/3.
    let changes = edges(boundaries).into_iter().flat_map(|address| {
        let low = u128::from(u64::MAX);
        [address, address & !low, address | low]
    });
    let ends = [1 << 125, (1 << 125) - 1, 2 << 125, (2 << 125) - 1];
    for address in changes.chain(ends).chain(more) {
        let (upper, lower) = ((address >> 64) as u64, address as u64);
        let found = lookup_v6(&HostTables::new(&block), &trie, upper, lower);
        assert_eq!(found, class(boundaries, address), "{address:#034x}");
    }
}

fn hosts(addresses: impl IntoIterator<Item = u128>) -> Vec<Boundary<u128>> {
    let ends = addresses
        .into_iter()
        .map(|host| [(host, 1 + (host % 50) as u16), (host.wrapping_add(1), 0)]);
    let mut steps: Vec<_> = ends.flatten().collect();
    // A host's own start wins over the end of its neighbour.
    steps.sort_by_key(|(start, class)| (*start, *class));
    merge(steps)
}

/// Random addresses in 2000::/3.
fn random(count: usize) -> impl Iterator<Item = u128> {
    let mut numbers = Numbers(count as u64);
    (0..count).map(move |_| numbers.wide() >> 3 | 1 << 125)
}

/// Prefixes of lengths 20..=64 and 65..=128 around a few random networks.
fn mixed(count: usize) -> Vec<Prefix<u128>> {
    let mut numbers = Numbers(7);
    let networks: Vec<_> = random(count / 20 + 1).collect();
    (0..count)
        .map(|index| {
            let network = networks[numbers.next() as usize % networks.len()];
            let length = 20 + (numbers.next() % 109) as u32;
            Prefix {
                address: network ^ numbers.wide() >> (length - 8).min(100),
                length,
                class: (index % 700) as u16,
            }
        })
        .collect()
}

proptest! {
    #[test]
    fn prefixes_by_longest_match(prefixes in prefixes(200), more: Vec<u128>) {
        check(&flatten(&prefixes), more);
    }

    #[test]
    fn global_prefixes_by_longest_match(prefixes in prefixes(200)) {
        let global = prefixes.into_iter().map(|prefix| Prefix {
            address: prefix.address >> 3 | 1u128 << 125,
            length: (prefix.length + 3).min(128),
            ..prefix
        });
        check(&flatten(&global.collect::<Vec<_>>()), []);
    }

    #[test]
    fn neighbouring_64s_with_ranges_inside(
        starts in prop::collection::vec((0..12u128, 0..6u128, 0..5u16), 0..80),
    ) {
        let lower = [0, 1, 2, 1 << 63, u128::from(u64::MAX) - 1, u128::from(u64::MAX)];
        let steps = starts
            .into_iter()
            .map(|(network, place, class)| (GLOBAL + (network << 64) + lower[place as usize], class));
        check(&merge(steps), []);
    }

    #[test]
    fn dense_ranges(
        base: u128,
        shift in 0..100u32,
        starts in prop::collection::vec((0..4096u128, 0..5u16), 0..2000),
    ) {
        let steps = starts
            .into_iter()
            .map(|(start, class)| (base.wrapping_add(start << shift), class));
        check(&merge(steps), []);
    }
}

#[test]
fn one_class_everywhere() {
    check(
        &[Boundary {
            start: 0,
            class: u16::MAX,
        }],
        random(1000),
    );
}

#[test]
fn edges_of_the_address_space() {
    check(&merge([(0, 7), (1, 8), (u128::MAX, 9)]), random(1000));
    check(&hosts([0, u128::MAX]), random(1000));
}

#[test]
fn a_host_alone() {
    for lower in [0, 1, 2, 1 << 63, u128::from(u64::MAX)] {
        check(&hosts([GLOBAL | lower]), []);
    }
}

#[test]
fn hosts_side_by_side() {
    check(&hosts(GLOBAL..GLOBAL + 40), []);
    check(&hosts((0..40).map(|host| GLOBAL + host * 2)), []);
    check(&hosts((0..40).map(|host| GLOBAL + (host << 64) + host)), []);
}

#[test]
fn a_64_with_a_class_of_its_own_around_hosts() {
    let network = Prefix {
        address: GLOBAL,
        length: 64,
        class: 9,
    };
    let host = |lower| Prefix {
        address: GLOBAL | lower,
        length: 128,
        class: 8,
    };
    let top = u128::from(u64::MAX);
    for lower in [
        vec![0],
        vec![top],
        vec![0, top],
        vec![5, 1 << 40],
        vec![0, 1, top - 1],
    ] {
        let mut prefixes: Vec<_> = lower.into_iter().map(host).collect();
        prefixes.push(network);
        check(&flatten(&prefixes), random(1000));
        // With a neighbour on either side that has hosts too.
        for neighbour in [GLOBAL - 1, GLOBAL + (1 << 64), GLOBAL + (1 << 64) + 7] {
            prefixes.push(Prefix {
                address: neighbour,
                length: 128,
                class: 7,
            });
            check(&flatten(&prefixes), []);
        }
    }
}

#[test]
fn nested_chains() {
    for address in [
        0,
        u128::MAX,
        GLOBAL,
        u128::MAX / 3,
        GLOBAL | u128::from(u64::MAX),
    ] {
        check(&flatten(&chain(address, 0..=128)), random(1000));
    }
    let many: Vec<_> = random(300).flat_map(|host| chain(host, 4..=128)).collect();
    check(&flatten(&many), random(1000));
}

/// Nine hosts at each second power of two from :: on, and from 2000:: on: a path of tables that
/// are as small as can be, each two bits wide, would have sixty of them. The random hosts
/// make the set a large one, for which tables are not widened.
#[test]
fn a_comb_is_no_deeper_than_the_reader_goes() {
    for root in [0, 1 << 125] {
        let teeth = (4..=124).step_by(2).flat_map(move |length| {
            let width = 1u128 << (128 - length);
            (0..9).map(move |tooth| root + width + tooth * (width / 4).max(2))
        });
        let all = teeth.chain([root]).chain(random(10_000));
        check(&hosts(all), random(1000));
    }
}

#[test]
fn a_hundred_thousand_hosts() {
    check(&hosts(random(100_000)), random(100_000));
    let networks: Vec<_> = random(500).map(|host| host >> 80 << 80).collect();
    let mut numbers = Numbers(1);
    let near = (0..100_000).map(|index| {
        networks[index % networks.len()] | u128::from(numbers.next()) << (numbers.next() & 15)
    });
    check(&hosts(near), random(1000));
}

#[test]
fn a_hundred_thousand_prefixes() {
    check(&flatten(&mixed(100_000)), random(100_000));
}

#[test]
fn the_same_input_gives_the_same_words() {
    let boundaries = flatten(&mixed(1000));
    assert_eq!(build_v6(&boundaries), build_v6(&boundaries));
}

#[test]
fn disorder_is_refused() {
    let at = |start, class| Boundary { start, class };
    let refused = |boundaries: &[_]| build_v6(boundaries).expect_err("out of order");
    assert_eq!(refused(&[]), TrieError::Unordered { index: 0 });
    assert_eq!(
        refused(&[at(0, 0), at(9, 1), at(8, 2)]),
        TrieError::Unordered { index: 2 }
    );
}
