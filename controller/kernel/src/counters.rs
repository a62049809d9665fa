//! Counters: per CPU in the kernel, summed here.

use std::collections::{BTreeMap, BTreeSet};

use headgate_datapath::{kernel::KernelError, state::PortIndex};
use headgate_layout::{
    maps::reason_index,
    verdict::{Count, Reason},
};
use zerocopy::FromBytes;

use crate::{bpf::Map, error::Asked};

/// Entries of one call, so that its buffer stays small on nodes with many CPUs.
const BATCH: usize = 1024;

/// The counters with these indices.
pub(crate) fn read(
    map: &Map,
    indices: &BTreeSet<u32>,
) -> Result<BTreeMap<u32, Count>, KernelError> {
    let mut counts = BTreeMap::new();
    for (first, length) in runs(indices) {
        let values = map
            .lookup_batch(first, length)
            .asked(|| format!("reading counters from {first} on"))?;
        let each = values.chunks_exact(map.value_bytes());
        counts.extend((first..).zip(each.map(|value| sum(value, map.stride()))));
    }
    Ok(counts)
}

/// Every reason's counter of these ports.
pub(crate) fn read_reasons(
    map: &Map,
    ports: &BTreeSet<PortIndex>,
) -> Result<BTreeMap<(PortIndex, Reason), Count>, KernelError> {
    let index = |port: PortIndex, reason: Reason| reason_index(port.number(), reason as u32);
    let keys = || {
        let reasons = |port| Reason::ALL.iter().map(move |reason| (port, *reason));
        ports.iter().copied().flat_map(reasons)
    };
    let indices = keys().map(|(port, reason)| index(port, reason)).collect();
    let counts = read(map, &indices)?;
    Ok(keys()
        .filter_map(|key| Some((key, *counts.get(&index(key.0, key.1))?)))
        .collect())
}

/// Sets counters to zero on every CPU.
pub(crate) fn reset(map: &Map, indices: &BTreeSet<u32>) -> Result<(), KernelError> {
    let indices: Vec<u32> = indices.iter().copied().collect();
    let zeros = vec![0; BATCH.min(indices.len()) * map.value_bytes()];
    for keys in indices.chunks(BATCH) {
        map.update_batch(keys, &zeros[..keys.len() * map.value_bytes()])
            .asked(|| format!("resetting {} counters", keys.len()))?;
    }
    Ok(())
}

/// One counter over all CPUs.
fn sum(value: &[u8], stride: usize) -> Count {
    value
        .chunks_exact(stride)
        .filter_map(|bytes| Count::read_from_bytes(bytes).ok())
        .fold(Count::default(), |total, count| Count {
            packets: total.packets.wrapping_add(count.packets),
            bytes: total.bytes.wrapping_add(count.bytes),
        })
}

/// Consecutive indices as (first, length), at most a batch long.
fn runs(indices: &BTreeSet<u32>) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for index in indices {
        match runs.last_mut() {
            Some((first, length)) if *first + *length == *index && *length < BATCH as u32 => {
                *length += 1;
            }
            _ => runs.push((*index, 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn neighbours_are_read_together() {
        assert_eq!(
            runs(&BTreeSet::from([0, 1, 2, 7, 9, 10])),
            [(0, 3), (7, 1), (9, 2)]
        );
        assert_eq!(runs(&(0..2000).collect()), [(0, 1024), (1024, 976)]);
    }

    #[test]
    fn cpus_are_summed() {
        let count = |packets, bytes| Count { packets, bytes };
        let value = [count(1, 60), count(2, 120)];
        assert_eq!(sum(value.as_bytes(), 16), count(3, 180));
    }
}
