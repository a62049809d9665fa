//! Blocks: one policy set's tables as a map of one value.

use std::collections::{BTreeSet, HashMap};

use headgate_datapath::{
    kernel::KernelError,
    state::{Capacity, Digest},
};
use headgate_layout::{
    maps::{DIGEST_FROM_END, table_block},
    services::{SERVICES, Services},
    tables::{Decision, FIXED_LENGTH, Header, NO_RULE},
};
use zerocopy::FromBytes;

use crate::{
    bpf::{Map, Mapped, MappedMut},
    error::{Asked, unusable},
};

/// What a block was found to hold.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) digest: Digest,
    /// Rule counters that its decisions name.
    pub(crate) counters: BTreeSet<u32>,
    /// The ring blocks that it names, by number.
    pub(crate) ring_blocks: Vec<Digest>,
}

impl Content {
    fn of(value: &[u8]) -> Self {
        let used = in_use(value);
        Self {
            digest: Digest::of(used),
            counters: counters_of(used).unwrap_or_default(),
            ring_blocks: ring_blocks_of(used).unwrap_or_default(),
        }
    }
}

/// The bytes in use as the header tells them; all of `value` where it tells nonsense, so that such
/// a block has a digest that nobody wants.
pub(crate) fn in_use(value: &[u8]) -> &[u8] {
    let header = Header::read_from_prefix(value).ok();
    let length = header.map_or(0, |(header, _)| header.length as usize);
    if length < FIXED_LENGTH as usize {
        return value;
    }
    value.get(..length).unwrap_or(value)
}

/// `None` where the header tells nonsense.
fn counters_of(block: &[u8]) -> Option<BTreeSet<u32>> {
    let (header, _) = Header::read_from_prefix(block).ok()?;
    let length = (header.decision_count as usize).checked_mul(size_of::<Decision>())?;
    let decisions = block.get(header.decisions as usize..)?.get(..length)?;
    let counters = decisions
        .chunks_exact(size_of::<Decision>())
        .filter_map(|bytes| Some(Decision::read_from_bytes(bytes).ok()?.counter));
    Some(counters.filter(|counter| *counter != NO_RULE).collect())
}

/// `None` where the tables tell nonsense.
fn ring_blocks_of(block: &[u8]) -> Option<Vec<Digest>> {
    let (services, _) = Services::read_from_prefix(block.get(SERVICES as usize..)?).ok()?;
    let length = (services.ring_block_count as usize).checked_mul(size_of::<[u8; 32]>())?;
    let digests = block.get(services.ring_blocks as usize..)?.get(..length)?;
    let (digests, _) = digests.as_chunks();
    Some(digests.iter().copied().map(Digest::from_bytes).collect())
}

/// Reads blocks, each frozen one once.
#[derive(Debug, Default)]
pub(crate) struct BlockReader {
    /// By map id: the kernel gives an id to one map only, and a frozen one stays as it is.
    known: HashMap<u32, Content>,
}

impl BlockReader {
    /// What the block of this map id holds.
    pub(crate) fn read(&mut self, id: u32) -> Result<Content, KernelError> {
        if let Some(content) = self.known.get(&id) {
            return Ok(content.clone());
        }
        let asked = || format!("reading tables from map {id}");
        let map = Map::by_id(id).asked(asked)?;
        if map.is_frozen().asked(asked)? {
            let content = Content::of(Mapped::new(&map).asked(asked)?.bytes());
            self.known.insert(id, content.clone());
            return Ok(content);
        }
        let value = map.lookup(&0_u32.to_ne_bytes()).asked(asked)?;
        Ok(Content::of(&value))
    }

    /// Forgets all but these.
    pub(crate) fn retain(&mut self, ids: &BTreeSet<u32>) {
        self.known.retain(|id, _| ids.contains(id));
    }

    /// Makes a map of `capacity`, fills it with `content` and freezes it. Its digest is taken from
    /// the map's own memory before.
    pub(crate) fn build(
        &mut self,
        digest: Digest,
        capacity: Capacity,
        content: &[u8],
    ) -> Result<Map, KernelError> {
        let asked = || format!("building tables {} in {capacity}", digest.short());
        let name = format!("hg_{}", digest.short());
        let mut map = create(capacity, &name)?;
        let mut mapped = MappedMut::new(&mut map).asked(asked)?;
        let memory = mapped.bytes_mut();
        let place = memory.len() - DIGEST_FROM_END as usize;
        let (tables, name) = memory.split_at_mut(place);
        let Some(start) = tables.get_mut(..content.len()) else {
            return Err(mismatch(digest, capacity, "they are larger"));
        };
        start.copy_from_slice(content);
        // Not for reading back, which goes by the content: for events.
        name.copy_from_slice(&digest.bytes());
        let built = Content::of(memory);
        drop(mapped);
        if built.digest != digest {
            return Err(mismatch(digest, capacity, "the content has another digest"));
        }
        map.freeze().asked(asked)?;
        self.known.insert(map.id(), built);
        Ok(map)
    }
}

fn mismatch(digest: Digest, capacity: Capacity, why: &str) -> KernelError {
    KernelError::Call {
        what: format!("building tables {} in {capacity}", digest.short()),
        source: std::io::Error::other(why.to_owned()),
    }
}

/// An empty block, also the template of an outer map.
pub(crate) fn create(capacity: Capacity, name: &str) -> Result<Map, KernelError> {
    let made = Map::create(&table_block(capacity.0), name, None);
    if let Err(error) = &made
        && error.raw_os_error() == Some(libc::ENOMEM)
    {
        return Err(unusable(
            format!("there is no memory for tables of {capacity}"),
            "free memory, raise the memory limit of this process, or make the policies smaller",
        ));
    }
    made.asked(|| format!("making a map for tables of {capacity}"))
}

#[cfg(test)]
mod tests {
    use headgate_layout::LAYOUT_VERSION;
    use zerocopy::IntoBytes;

    use super::*;

    /// A block with these decisions and nothing else.
    fn block(decisions: &[Decision]) -> Vec<u8> {
        let mut block = vec![0; FIXED_LENGTH as usize];
        block.extend_from_slice(decisions.as_bytes());
        let header = Header {
            version: LAYOUT_VERSION,
            length: block.len() as u32,
            decisions: FIXED_LENGTH,
            decision_count: decisions.len() as u32,
            ..Header::default()
        };
        block[..size_of::<Header>()].copy_from_slice(header.as_bytes());
        block
    }

    #[test]
    fn spare_room_does_not_count() {
        let tight = block(&[Decision::default()]);
        let mut roomy = tight.clone();
        roomy.resize(65_536, 0);
        assert_eq!(Content::of(&roomy).digest, Digest::of(&tight));
    }

    #[test]
    fn counters_are_those_of_rules() {
        let decide = |counter| Decision { action: 1, counter };
        let content = Content::of(&block(&[decide(7), decide(NO_RULE), decide(3)]));
        assert_eq!(content.counters, BTreeSet::from([3, 7]));
    }

    #[test]
    fn nonsense_has_a_digest_and_no_counters() {
        let mut nonsense = block(&[Decision::default()]);
        nonsense[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        let content = Content::of(&nonsense);
        assert_eq!(content.digest, Digest::of(&nonsense));
        let mut beyond = block(&[Decision::default()]);
        beyond[56..64].copy_from_slice(&[0xff; 8]);
        assert_eq!(Content::of(&beyond).counters, BTreeSet::new());
    }
}
