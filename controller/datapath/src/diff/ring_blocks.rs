//! The part of the plan that concerns ring blocks: they are written before the tables that name them, to the same
//! slot, and cleared when no tables there do.

use std::collections::{BTreeMap, BTreeSet};

use super::Planner;
use crate::{
    observed::Slot,
    plan::{RingEntry, Step},
    state::{Digest, PortIndex},
};

/// Ring blocks of ports in slots, by number.
pub(super) type Present = BTreeMap<(Slot, PortIndex), Vec<Digest>>;

impl Planner<'_> {
    /// Entries that do not hold what the wanted tables of these ports name.
    pub(super) fn missing_ring_blocks(
        &self,
        places: &BTreeSet<(Slot, PortIndex)>,
    ) -> BTreeMap<RingEntry, Digest> {
        let mut missing = BTreeMap::new();
        for (slot, port) in places {
            let wanted = self.wanted_ring_blocks(*port);
            let present = self.ring_blocks.get(&(*slot, *port));
            for (number, digest) in wanted.into_iter().enumerate() {
                if present.and_then(|present| present.get(number)) == Some(&digest) {
                    continue;
                }
                let entry = RingEntry {
                    slot: *slot,
                    port: *port,
                    number: number as u32,
                };
                missing.insert(entry, digest);
            }
        }
        missing
    }

    fn wanted_ring_blocks(&self, port: PortIndex) -> Vec<Digest> {
        let attachment = self.wanted.ports.get(&port);
        attachment.map_or_else(Vec::new, |a| self.wanted.ring_blocks_of(a.tables))
    }

    /// Builds what `missing` needs and writes it.
    pub(super) fn write_ring_blocks(&mut self, missing: BTreeMap<RingEntry, Digest>) {
        if missing.is_empty() {
            return;
        }
        let stands = |digest: &Digest| self.ring_blocks.values().flatten().any(|d| d == digest);
        let unbuilt = missing.values().filter(|digest| !stands(digest));
        let unbuilt: BTreeSet<Digest> = unbuilt.copied().collect();
        if !unbuilt.is_empty() {
            self.steps.push(Step::BuildRingBlocks(unbuilt));
        }
        for (entry, digest) in &missing {
            let present = self
                .ring_blocks
                .entry((entry.slot, entry.port))
                .or_default();
            let number = entry.number as usize;
            // In the order of their numbers, so that there is no gap.
            match present.get_mut(number) {
                Some(held) => *held = *digest,
                None => present.push(*digest),
            }
        }
        self.steps.push(Step::WriteRingBlocks(missing));
    }

    /// Entries beyond what the wanted tables name.
    pub(super) fn stale_ring_blocks(&self) -> BTreeSet<RingEntry> {
        let present = self.ring_blocks.iter();
        let stale = present.flat_map(|((slot, port), present)| {
            let named = self.wanted_ring_blocks(*port).len();
            (named..present.len()).map(|number| RingEntry {
                slot: *slot,
                port: *port,
                number: number as u32,
            })
        });
        stale.collect()
    }

    pub(super) fn clear_ring_blocks(&mut self, stale: BTreeSet<RingEntry>) {
        if !stale.is_empty() {
            self.steps.push(Step::ClearRingBlocks(stale));
        }
    }
}
