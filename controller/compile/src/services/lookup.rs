//! A perfect hash from address, protocol and port to a service's number.

use headgate_layout::services::{Services, bucket, slot, slot_value};

/// The look-up tables in the making.
pub struct Lookup {
    /// As in `Services::slots`.
    pub slots: Vec<u32>,
    /// As in `Services::displacements`.
    pub displacements: Vec<u16>,
}

/// Finds a place of its own for each of these hashes, in order of the services' numbers; `None` where two
/// of them are equal.
pub fn build(hashes: &[u64]) -> Option<Lookup> {
    let mut wanted = (hashes.len() * 2).next_power_of_two().max(4);
    // A larger table always has room; equal hashes have none anywhere.
    let largest = wanted << 4;
    while wanted <= largest {
        if let Some(lookup) = try_build(hashes, wanted) {
            return Some(lookup);
        }
        wanted *= 2;
    }
    None
}

fn try_build(hashes: &[u64], size: usize) -> Option<Lookup> {
    let slot_mask = size as u32 - 1;
    let count = (size / 4).max(1);
    let mut buckets: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (number, hash) in hashes.iter().enumerate() {
        buckets[bucket(*hash, count as u32 - 1) as usize].push(number);
    }
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|index| (std::cmp::Reverse(buckets[*index].len()), *index));
    let mut lookup = Lookup {
        slots: vec![0; size],
        displacements: vec![0; count],
    };
    for index in order {
        let members = &buckets[index];
        let displacement = (0..=u16::MAX).find(|displacement| {
            let mut taken = Vec::with_capacity(members.len());
            members.iter().all(|number| {
                let at = slot(hashes[*number], *displacement, slot_mask);
                let free = lookup.slots[at as usize] == 0 && !taken.contains(&at);
                taken.push(at);
                free
            })
        })?;
        lookup.displacements[index] = displacement;
        for number in members {
            let at = slot(hashes[*number], displacement, slot_mask);
            lookup.slots[at as usize] = slot_value(*number as u32, hashes[*number]);
        }
    }
    Some(lookup)
}

impl Lookup {
    /// Notes the sizes.
    pub fn describe(&self, services: &mut Services) {
        services.slot_mask = self.slots.len() as u32 - 1;
        services.displacement_mask = self.displacements.len() as u32 - 1;
    }
}

#[cfg(test)]
mod tests {
    use headgate_layout::services::{mix, tag_of};

    use super::*;

    #[test]
    fn every_service_has_a_slot_of_its_own() {
        for count in [0, 1, 2, 3, 17, 1_000, 20_000] {
            let hashes: Vec<u64> = (1..=count).map(mix).collect();
            let lookup = build(&hashes).expect("distinct");
            let mut services = Services::default();
            lookup.describe(&mut services);
            for (number, hash) in hashes.iter().enumerate() {
                let at = bucket(*hash, services.displacement_mask);
                let at = slot(*hash, lookup.displacements[at as usize], services.slot_mask);
                let value = lookup.slots[at as usize];
                assert_eq!(value & 0xffff, number as u32 + 1);
                assert_eq!(value >> 16, tag_of(*hash));
            }
        }
    }

    #[test]
    fn equal_hashes_have_no_place() {
        assert!(build(&[7, 7]).is_none());
    }
}
