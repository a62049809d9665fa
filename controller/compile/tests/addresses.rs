//! Sets of addresses against a naive model: a flag for each address of a small universe.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use headgate_compile::addresses::{Address, AddressSet, Ranges};
use headgate_crds::IpNet;
use proptest::{collection::vec, prelude::*};

/// An address of a universe that has 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tiny(u8);

impl Address for Tiny {
    fn before(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
    fn behind(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

type Flags = [bool; 256];

fn flags(ranges: &[(Tiny, Tiny)]) -> Flags {
    let mut flags = [false; 256];
    for (first, last) in ranges {
        (first.0..=last.0).for_each(|address| flags[usize::from(address)] = true);
    }
    flags
}

/// Any ranges, the ends of the universe among them.
fn ranges() -> impl Strategy<Value = Vec<(Tiny, Tiny)>> {
    let end = || prop_oneof![4 => any::<u8>(), 1 => Just(0), 1 => Just(255)];
    let range = prop_oneof![
        3 => (end(), end()),
        2 => (end(), 0..4u8).prop_map(|(first, more)| (first, first.saturating_add(more))),
    ];
    vec(
        range.prop_map(|(a, b)| (Tiny(a.min(b)), Tiny(a.max(b)))),
        0..12,
    )
}

/// That `ranges` holds just what `expected` flags, sorted, in as few ranges as can be.
fn assert_is(ranges: &Ranges<Tiny>, expected: &Flags) {
    assert_eq!(flags(ranges.as_slice()), *expected);
    for (first, last) in ranges.as_slice() {
        assert!(first <= last);
    }
    for pair in ranges.as_slice().windows(2) {
        let behind = pair[0].1.behind().unwrap();
        assert!(behind < pair[1].0, "{pair:?} touch");
    }
    for address in 0..=255 {
        let contained = ranges.contains(Tiny(address));
        assert_eq!(contained, expected[usize::from(address)]);
    }
    assert_eq!(ranges.is_empty(), *expected == [false; 256]);
}

fn network() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 0..=32u8)
        .prop_map(|(bits, length)| IpNet::new(Ipv4Addr::from_bits(bits).into(), length).unwrap());
    let v6 = (any::<u128>(), 0..=128u8)
        .prop_map(|(bits, length)| IpNet::new(Ipv6Addr::from_bits(bits).into(), length).unwrap());
    prop_oneof![v4, v6]
}

fn holds(set: &AddressSet, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => set.v4.contains(address.to_bits()),
        IpAddr::V6(address) => set.v6.contains(address.to_bits()),
    }
}

/// First and last address of each network, and their neighbours.
fn edges(networks: &[IpNet]) -> Vec<IpAddr> {
    let edges = networks.iter().flat_map(|network| match network {
        IpNet::V4(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
        }
        IpNet::V6(net) => {
            let (first, last) = (net.network().to_bits(), net.broadcast().to_bits());
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
        }
    });
    edges.collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_union_holds_what_any_range_does(ranges in ranges()) {
        assert_is(&Ranges::from_any(ranges.clone()), &flags(&ranges));
    }

    #[test]
    fn a_difference_holds_what_only_the_first_does(a in ranges(), b in ranges()) {
        let (with, without) = (flags(&a), flags(&b));
        let expected = std::array::from_fn(|address| with[address] && !without[address]);
        assert_is(&Ranges::from_any(a).minus(&Ranges::from_any(b)), &expected);
    }

    #[test]
    fn networks_of_both_families(
        some in vec(network(), 0..8),
        more in vec(network(), 0..8),
        less in vec(network(), 0..4),
    ) {
        let set = |networks: &[IpNet]| AddressSet::from_networks(networks.iter().copied());
        let union = AddressSet::union([&set(&some), &set(&more)]);
        let rest = union.minus(&set(&less));
        for address in edges(&[&some[..], &more, &less].concat()) {
            let any = |networks: &[IpNet]| networks.iter().any(|net| net.contains(&address));
            prop_assert_eq!(holds(&union, address), any(&some) || any(&more));
            prop_assert_eq!(
                holds(&rest, address),
                (any(&some) || any(&more)) && !any(&less)
            );
        }
    }

    #[test]
    fn a_set_is_written_and_read(networks in vec(network(), 0..8)) {
        let set = AddressSet::from_networks(networks);
        let text = serde_json::to_string(&set).unwrap();
        prop_assert_eq!(serde_json::from_str::<AddressSet>(&text).unwrap(), set);
    }
}

#[test]
fn the_whole_of_a_family_and_its_ends() {
    let set = |cidrs: &[&str]| AddressSet::from_networks(cidrs.iter().map(|c| c.parse().unwrap()));
    let all = set(&["0.0.0.0/0", "::/0"]);
    assert_eq!(all.v4.as_slice(), [(0, u32::MAX)]);
    assert_eq!(all.v6.as_slice(), [(0, u128::MAX)]);
    assert_eq!(all.len(), 2);
    assert_eq!(set(&["0.0.0.0/1", "128.0.0.0/1"]).v4, all.v4, "they touch");

    let ends = set(&["0.0.0.0/32", "255.255.255.255/32", "::/128"]);
    let rest = all.minus(&ends);
    assert_eq!(rest.v4.as_slice(), [(1, u32::MAX - 1)]);
    assert_eq!(rest.v6.as_slice(), [(1, u128::MAX)]);
    assert!(all.minus(&all).is_empty());
    assert!(ends.minus(&all).is_empty());
    assert_eq!(
        serde_json::to_string(&rest).unwrap(),
        r#"["0.0.0.1-255.255.255.254","::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]"#
    );
    assert_eq!(set(&["10.1.2.3/8"]), set(&["10.0.0.0/8"]), "host bits");
}
