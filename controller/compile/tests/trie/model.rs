//! The naive model: a sorted list of ranges, and prefixes turned into one.

use headgate_compile::trie::Boundary;
use proptest::prelude::*;
use std::collections::BTreeMap;
use zerocopy::IntoBytes;

/// An address of either family as a number.
pub(crate) trait Address: Copy + Ord + std::fmt::Debug {
    /// Bits of an address.
    const BITS: u32;
    /// Widened.
    fn wide(self) -> u128;
    /// Narrowed to the family's bits.
    fn narrow(wide: u128) -> Self;
}

impl Address for u32 {
    const BITS: u32 = 32;
    fn wide(self) -> u128 {
        u128::from(self)
    }
    fn narrow(wide: u128) -> Self {
        wide as u32
    }
}

impl Address for u128 {
    const BITS: u32 = 128;
    fn wide(self) -> u128 {
        self
    }
    fn narrow(wide: u128) -> Self {
        wide
    }
}

/// All addresses that share their first `length` bits with `address`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prefix<A> {
    pub(crate) address: A,
    pub(crate) length: u32,
    pub(crate) class: u16,
}

impl<A: Address> Prefix<A> {
    pub(crate) fn first(&self) -> u128 {
        self.address.wide() & !self.mask()
    }

    pub(crate) fn last(&self) -> u128 {
        self.first() | self.mask()
    }

    fn mask(&self) -> u128 {
        let ones = u128::MAX.checked_shl(A::BITS - self.length).unwrap_or(0);
        !ones & (u128::MAX >> (128 - A::BITS))
    }
}

/// The range starts of `classes`, merged, class 0 before the first.
pub(crate) fn merge<A: Address>(classes: impl IntoIterator<Item = (A, u16)>) -> Vec<Boundary<A>> {
    let start = A::narrow(0);
    let mut merged = vec![Boundary { start, class: 0 }];
    for (start, class) in classes.into_iter().collect::<BTreeMap<_, _>>() {
        if merged.last().is_some_and(|last| last.start == start) {
            merged.pop();
        }
        if merged.last().is_none_or(|last| last.class != class) {
            merged.push(Boundary { start, class });
        }
    }
    merged
}

/// The boundaries of `prefixes`, of which the longest that holds an address gives its class.
pub(crate) fn flatten<A: Address>(prefixes: &[Prefix<A>]) -> Vec<Boundary<A>> {
    let mut sorted: Vec<_> = prefixes.iter().collect();
    sorted.sort_by_key(|prefix| prefix.length);
    let mut ranges = BTreeMap::from([(0u128, 0u16)]);
    for prefix in sorted {
        let (first, last) = (prefix.first(), prefix.last());
        let behind = ranges
            .range(..=last)
            .next_back()
            .map_or(0, |(_, class)| *class);
        if last < u128::MAX >> (128 - A::BITS) {
            ranges.entry(last + 1).or_insert(behind);
        }
        let inside: Vec<_> = ranges
            .range(first..=last)
            .map(|(start, _)| *start)
            .collect();
        for start in inside {
            ranges.remove(&start);
        }
        ranges.insert(first, prefix.class);
    }
    merge(
        ranges
            .into_iter()
            .map(|(start, class)| (A::narrow(start), class)),
    )
}

/// The class of `address`.
pub(crate) fn class<A: Address>(boundaries: &[Boundary<A>], address: A) -> u32 {
    let behind = boundaries.partition_point(|boundary| boundary.start <= address);
    u32::from(boundaries[behind - 1].class)
}

/// Each boundary and its neighbours, and both ends of the address space.
pub(crate) fn edges<A: Address>(boundaries: &[Boundary<A>]) -> Vec<A> {
    let around = |boundary: &Boundary<A>| {
        let start = boundary.start.wide();
        [start.wrapping_sub(1), start, start.wrapping_add(1)]
    };
    let ends = [0, u128::MAX];
    let all = boundaries.iter().flat_map(around).chain(ends);
    all.map(A::narrow).collect()
}

/// Byte offset of an area in [`block`].
pub(crate) const BASE: u32 = 128;

/// A block of tables that holds an area at [`BASE`].
pub(crate) fn block(area: &[u32]) -> Vec<u64> {
    let mut block = vec![0; BASE as usize / 8 + area.len() / 2];
    block[BASE as usize / 8..]
        .as_mut_bytes()
        .copy_from_slice(area.as_bytes());
    block
}

/// A reproducible run of numbers (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub(crate) fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// Prefixes of every length whose addresses are near each other as often as not.
pub(crate) fn prefixes<A: Address>(most: usize) -> impl Strategy<Value = Vec<Prefix<A>>> {
    let shift = prop_oneof![Just(0), 0..128u32];
    let prefix = (any::<u128>(), shift, 0..=A::BITS, 0..5u16);
    (any::<u128>(), prop::collection::vec(prefix, 0..most)).prop_map(|(base, prefixes)| {
        prefixes
            .into_iter()
            .map(|(address, shift, length, class)| {
                let address = (base ^ address >> shift) >> (128 - A::BITS);
                Prefix {
                    address: A::narrow(address),
                    length,
                    class,
                }
            })
            .collect()
    })
}

/// The chain of all prefixes of `address` with the lengths `lengths`, each its own class.
pub(crate) fn chain<A: Address>(address: A, lengths: impl Iterator<Item = u32>) -> Vec<Prefix<A>> {
    lengths
        .map(|length| Prefix {
            address,
            length,
            class: length as u16 + 1,
        })
        .collect()
}
