//! Maglev's consistent hashing.

use std::net::IpAddr;

use headgate_layout::services::{mapped, mix};

/// The ring of these backends: for each entry the backend's place in the list.
///
/// Each backend visits all entries in an order of its own, given by its address alone, and takes the
/// next free one when it is its turn (D. Eisenbud et al., NSDI 2016, section 3.4); those of the greatest
/// weight have a turn in each round, others in proportion. `size` is prime; an empty list has no ring.
pub fn ring(backends: &[(IpAddr, u16)], size: u32) -> Vec<u16> {
    const FREE: u16 = u16::MAX;
    let Some(heaviest) = backends.iter().map(|(_, weight)| *weight).max() else {
        return Vec::new();
    };
    let mut ring = vec![FREE; size as usize];
    let mut visits: Vec<Visit> = backends.iter().map(|(a, _)| Visit::of(*a, size)).collect();
    let mut credits = vec![0u32; backends.len()];
    let mut left = size;
    while left > 0 {
        for (number, (_, weight)) in backends.iter().enumerate() {
            credits[number] += u32::from(*weight);
            if left == 0 || credits[number] < u32::from(heaviest) {
                continue;
            }
            credits[number] -= u32::from(heaviest);
            let visit = &mut visits[number];
            while ring[visit.at as usize] != FREE {
                visit.go_on(size);
            }
            ring[visit.at as usize] = number as u16;
            left -= 1;
        }
    }
    ring
}

/// Where a backend looks next.
struct Visit {
    at: u32,
    step: u32,
}

impl Visit {
    /// A start and a step from two independent hashes of the address. As `size` is prime, any step
    /// leads to all entries.
    fn of(address: IpAddr, size: u32) -> Self {
        let [high, low] = words(address);
        let hash = mix(mix(high).wrapping_add(low));
        let other = mix(hash ^ 0x9e37_79b9_7f4a_7c15);
        Self {
            at: (hash % u64::from(size)) as u32,
            step: (other % u64::from(size - 1)) as u32 + 1,
        }
    }

    fn go_on(&mut self, size: u32) {
        self.at += self.step;
        if self.at >= size {
            self.at -= size;
        }
    }
}

/// An address as the tables hold it.
pub fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(v4) => mapped(v4.to_bits()),
        IpAddr::V6(v6) => [(v6.to_bits() >> 64) as u64, v6.to_bits() as u64],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backends(count: u8) -> Vec<(IpAddr, u16)> {
        (1..=count).map(|n| ([10, 0, 0, n].into(), 1)).collect()
    }

    fn shares(ring: &[u16], count: usize) -> Vec<usize> {
        let mut shares = vec![0; count];
        for entry in ring {
            shares[usize::from(*entry)] += 1;
        }
        shares
    }

    #[test]
    fn equal_backends_have_equal_shares_within_one_entry() {
        for size in [4_093, 16_381, 65_537] {
            let shares = shares(&ring(&backends(100), size), 100);
            let (least, most) = (shares.iter().min(), shares.iter().max());
            let (least, most) = (least.expect("100"), most.expect("100"));
            assert!(most - least <= 1, "{size}: {least} to {most}");
        }
    }

    #[test]
    fn a_weight_is_a_share() {
        let weighted = [1, 2, 5].map(|weight| ([10, 0, 0, weight as u8].into(), weight));
        let shares = shares(&ring(&weighted, 16_381), 3);
        for (share, weight) in shares.into_iter().zip([1.0, 2.0, 5.0]) {
            let part = share as f64 / 16_381.0;
            assert!((part - weight / 8.0).abs() < 0.001, "{part} for {weight}");
        }
    }

    #[test]
    fn removing_one_of_a_hundred_moves_few_flows_of_others() {
        for (size, most) in [(4_093, 0.08), (16_381, 0.02), (65_537, 0.01)] {
            let all = backends(100);
            let before = ring(&all, size);
            let mut worst: f64 = 0.0;
            for gone in [0, 37, 99] {
                let mut rest = all.clone();
                let (address, _) = rest.remove(gone);
                let after = ring(&rest, size);
                let moved = before.iter().zip(&after).filter(|(old, new)| {
                    let (old, new) = (all[usize::from(**old)].0, rest[usize::from(**new)].0);
                    old != address && old != new
                });
                worst = worst.max(moved.count() as f64 / f64::from(size));
            }
            println!("{size}: {worst:.4} of the entries move besides those of the one removed");
            assert!(worst <= most, "{size}: {worst}");
        }
    }

    #[test]
    fn the_order_of_the_list_moves_few_flows() {
        let (mut one, mut other) = (backends(10), backends(10));
        one.sort();
        other.reverse();
        let (a, b) = (ring(&one, 16_381), ring(&other, 16_381));
        let same = a
            .iter()
            .zip(&b)
            .filter(|(a, b)| one[usize::from(**a)].0 == other[usize::from(**b)].0);
        assert!(same.count() > 16_381 / 2);
    }

    #[test]
    fn no_backends_make_no_ring() {
        assert!(ring(&[], 4_093).is_empty());
    }
}
