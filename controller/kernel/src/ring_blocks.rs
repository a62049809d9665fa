//! Ring blocks: parts of a policy set's tables that are maps of their own, in an outer map that all programs share.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use headgate_datapath::{
    kernel::KernelError,
    observed::Slot,
    plan::RingEntry,
    state::{Block, Capacity, Digest, PortIndex},
};
use headgate_layout::{
    maps::{SLOTS, ring_block_index},
    services::{MAX_RING_BLOCKS, RING_CAPACITY},
};

use crate::{
    blocks::{self, BlockReader},
    bpf::Map,
    error::{Asked, absent},
};

/// As blocks that are built have it.
pub(crate) const CAPACITY: Capacity = Capacity(RING_CAPACITY);

/// An empty one, from which the outer map learns what it takes.
pub(crate) fn template() -> Result<Map, KernelError> {
    blocks::create(CAPACITY, "hg_template")
}

/// Ids of the maps in the outer one, by number.
pub(crate) fn ids(outer: &Map) -> Result<BTreeMap<(Slot, PortIndex), Vec<u32>>, KernelError> {
    let mut found = BTreeMap::new();
    for slot in (0..SLOTS).map(Slot) {
        for port in PortIndex::all() {
            let mut ids = Vec::new();
            for number in 0..MAX_RING_BLOCKS {
                let index = ring_block_index(slot.0, port.number(), number);
                match outer.lookup(&index.to_ne_bytes()) {
                    Ok(value) => {
                        let value = value
                            .try_into()
                            .expect("the map was checked to be of its shape");
                        ids.push(u32::from_ne_bytes(value));
                    }
                    // They are numbered without a gap.
                    Err(error) if absent(&error) => break,
                    Err(error) => {
                        return Err(error).asked(|| format!("reading ring block {index}"));
                    }
                }
            }
            if !ids.is_empty() {
                found.insert((slot, port), ids);
            }
        }
    }
    Ok(found)
}

/// Makes those of `digests` from what is wanted.
pub(crate) fn build(
    reader: &mut BlockReader,
    digests: &BTreeSet<Digest>,
    wanted: &BTreeMap<Digest, Block>,
) -> Result<BTreeMap<(Digest, Capacity), Map>, KernelError> {
    let mut built = BTreeMap::new();
    for digest in digests {
        let block = wanted.get(digest).ok_or_else(|| KernelError::Call {
            what: format!("building the ring block {}", digest.short()),
            source: io::Error::other("there is no such content in what is wanted"),
        })?;
        let map = reader.build(*digest, CAPACITY, block.bytes())?;
        built.insert((*digest, CAPACITY), map);
    }
    Ok(built)
}

/// Puts ring blocks into their entries, as one batch.
pub(crate) fn write(
    outer: &Map,
    reader: &mut BlockReader,
    built: &BTreeMap<(Digest, Capacity), Map>,
    entries: &BTreeMap<RingEntry, Digest>,
) -> Result<(), KernelError> {
    let mut standing = BTreeMap::new();
    for id in ids(outer)?.into_values().flatten().collect::<BTreeSet<_>>() {
        standing.insert(reader.read(id)?.digest, id);
    }
    let mut opened = BTreeMap::new();
    for digest in entries.values().copied().collect::<BTreeSet<_>>() {
        if built.contains_key(&(digest, CAPACITY)) {
            continue;
        }
        let what = || format!("writing the ring block {}", digest.short());
        let id = standing.get(&digest).ok_or_else(|| KernelError::Call {
            what: what(),
            source: io::Error::other("it is not built"),
        })?;
        opened.insert(digest, Map::by_id(*id).asked(what)?);
    }
    let block = |digest: &Digest| {
        let built = built.get(&(*digest, CAPACITY));
        built.or_else(|| opened.get(digest))
    };
    let batch = entries.iter().filter_map(|(entry, digest)| {
        let index = ring_block_index(entry.slot.0, entry.port.number(), entry.number);
        Some((index, block(digest)?))
    });
    let batch: Vec<_> = batch.collect();
    outer
        .update_map_batch(&batch)
        .asked(|| format!("writing {} ring blocks", batch.len()))
}

/// Empties entries, the last first, so that what is left has no gap.
pub(crate) fn clear(outer: &Map, entries: &BTreeSet<RingEntry>) -> Result<(), KernelError> {
    for entry in entries.iter().rev() {
        let index = ring_block_index(entry.slot.0, entry.port.number(), entry.number);
        match outer.delete(&index.to_ne_bytes()) {
            Err(error) if absent(&error) => {}
            answer => answer.asked(|| format!("clearing ring block {index}"))?,
        }
    }
    Ok(())
}
