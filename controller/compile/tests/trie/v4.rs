use crate::model::{BASE, Numbers, Prefix, block, chain, class, edges, flatten, merge, prefixes};
use headgate_compile::trie::{Boundary, TrieError, build_v4};
use headgate_packet::{tables::HostTables, trie::lookup_v4};
use proptest::prelude::*;

/// Builds the trie and compares it with the model at all edges and at `more`.
fn check(boundaries: &[Boundary<u32>], more: impl IntoIterator<Item = u32>) {
    let built = build_v4(boundaries).expect("the boundaries are in order");
    let block = block(&built.words);
    let trie = built.header(BASE);
    for address in edges(boundaries).into_iter().chain(more) {
        let found = lookup_v4(&HostTables::new(&block), &trie, address);
        assert_eq!(found, class(boundaries, address), "{address:#010x}");
    }
}

fn hosts(addresses: impl Iterator<Item = u32>) -> Vec<Boundary<u32>> {
    let ends = addresses.map(|host| [(host, 1 + (host % 50) as u16), (host.wrapping_add(1), 0)]);
    let mut steps: Vec<_> = ends.flatten().collect();
    // A host's own start wins over the end of its neighbour.
    steps.sort_by_key(|(start, class)| (*start, *class));
    merge(steps)
}

fn random(count: usize) -> impl Iterator<Item = u32> {
    let mut numbers = Numbers(count as u64);
    (0..count).map(move |_| numbers.next() as u32)
}

proptest! {
    #[test]
    fn prefixes_by_longest_match(prefixes in prefixes(200), more: Vec<u32>) {
        check(&flatten(&prefixes), more);
    }

    #[test]
    fn dense_ranges(base: u32, shift in 0..20u32, starts in prop::collection::vec((0..4096u32, 0..5u16), 0..2000)) {
        let steps = starts.into_iter().map(|(start, class)| (base.wrapping_add(start << shift), class));
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
    check(&merge([(0, 7), (1, 8), (u32::MAX, 9)]), random(1000));
    check(&merge([(u32::MAX - 1, 9)]), random(1000));
}

#[test]
fn nested_chains() {
    for address in [0, u32::MAX, 0x0a00_0000, 0xaaaa_aaaa, 0x1234_5678] {
        check(&flatten(&chain(address, 0..=32)), random(1000));
    }
    let many: Vec<_> = random(500).flat_map(|host| chain(host, 4..=32)).collect();
    check(&flatten(&many), random(1000));
}

#[test]
fn a_hundred_thousand_hosts() {
    check(&hosts(random(100_000)), random(100_000));
}

#[test]
fn more_than_the_small_roots_are_for() {
    check(&hosts(random(250_000)), random(100_000));
    check(
        &hosts((0..300_000).map(|host| 0x0a00_0000 + host * 2)),
        random(1000),
    );
}

/// Ten hosts close to 0.0.0.0 and one at each second power of two: a path of tables that are as
/// small as can be, each two bits wide, would have six of them.
#[test]
fn a_comb_is_no_deeper_than_the_reader_goes() {
    let close = (0..10).map(|host| host * 6);
    let teeth = (7..16).step_by(2).map(|power| 1 << power);
    check(&hosts(close.chain(teeth)), random(1000));
}

#[test]
fn the_same_input_gives_the_same_words() {
    let boundaries = hosts(random(1000));
    assert_eq!(build_v4(&boundaries), build_v4(&boundaries));
}

#[test]
fn disorder_is_refused() {
    let at = |start, class| Boundary { start, class };
    let refused = |boundaries: &[_]| build_v4(boundaries).expect_err("out of order");
    assert_eq!(refused(&[]), TrieError::Unordered { index: 0 });
    assert_eq!(refused(&[at(1, 0)]), TrieError::Unordered { index: 0 });
    assert_eq!(
        refused(&[at(0, 0), at(9, 1), at(9, 2)]),
        TrieError::Unordered { index: 2 }
    );
    assert_eq!(
        refused(&[at(0, 0), at(9, 0)]),
        TrieError::Unordered { index: 1 }
    );
}

#[test]
fn a_prefix_in_a_list_ends_where_it_should() {
    let prefix = Prefix {
        address: 0xc000_0200,
        length: 24,
        class: 3,
    };
    check(&flatten(&[prefix]), [0xc000_01ff, 0xc000_0280, 0xc000_0300]);
}
