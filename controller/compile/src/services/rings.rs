//! Rings: reckoned once, and laid into the block itself or, where they are many, into ring blocks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use headgate_datapath::state::Block;
use headgate_layout::{
    maps::LINE,
    services::{MAX_RING_BLOCKS, RING_CAPACITY, RingPlace},
    tables::FIXED_LENGTH,
};
use zerocopy::IntoBytes as _;

use super::{Frontend, maglev, settling::Settling};
use crate::classifier::{BlockWriter, TooLarge};

/// Bytes of rings that lie in the block itself, if there are no more: a copy of so many takes less than the rest of
/// a change.
const MOST_INSIDE: u32 = RING_CAPACITY;

/// Bytes of rings in a ring block, on the average at most: half of it, so that chance fills none.
const FILLED: u32 = RING_CAPACITY / 2;

/// Backends with their weights.
pub(super) type Weighted = Vec<(IpAddr, u16)>;

/// A ring.
pub(super) type Ring = Arc<[u16]>;

/// Rings, and blocks of them, that were reckoned before: a change of one service costs one of each. What they are
/// depends on nothing but their keys.
#[derive(Default)]
pub struct Rings {
    known: BTreeMap<(Weighted, u32), Ring>,
    used: BTreeSet<(Weighted, u32)>,
    blocks: Vec<Known>,
}

struct Known {
    rings: Vec<Ring>,
    block: Block,
    is_used: bool,
}

impl Rings {
    pub(super) fn of(&mut self, backends: &Weighted, size: u32) -> Ring {
        let key = (backends.clone(), size);
        let ring = self.known.entry(key.clone());
        let ring = Arc::clone(ring.or_insert_with(|| maglev::ring(backends, size).into()));
        self.used.insert(key);
        ring
    }

    fn block_of(&mut self, rings: Vec<Ring>) -> Result<Block, TooLarge> {
        if let Some(known) = self.blocks.iter_mut().find(|known| known.is_of(&rings)) {
            known.is_used = true;
            return Ok(known.block.clone());
        }
        let mut writer = BlockWriter::new();
        for ring in &rings {
            writer.append(ring.as_bytes());
        }
        let block = writer.finish()?;
        self.blocks.push(Known {
            rings,
            block: block.clone(),
            is_used: true,
        });
        Ok(block)
    }

    /// Forgets what was not asked for since the last time.
    pub fn forget_unused(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.known.retain(|key, _| used.contains(key));
        self.blocks
            .retain_mut(|known| std::mem::take(&mut known.is_used));
    }
}

impl Known {
    fn is_of(&self, rings: &[Ring]) -> bool {
        let same = |(a, b): (&Ring, &Ring)| Arc::ptr_eq(a, b) || a == b;
        self.rings.len() == rings.len() && self.rings.iter().zip(rings).all(same)
    }
}

/// The ring of a frontend.
pub(super) struct Drawn {
    pub(super) ring: Ring,
    /// How its entries have changed; `None` at rest.
    pub(super) settling: Option<Arc<Settling>>,
}

/// The ring of each of `frontends`; ports of one service share theirs.
pub(super) fn draw(frontends: &[Frontend], known: &mut Rings) -> Vec<Drawn> {
    // By the address of the history, and the family.
    let mut settled = BTreeMap::new();
    let draw = |frontend: &Frontend| {
        let settling = frontend.settling().and_then(|history| {
            let is_ipv4 = frontend.address.is_ipv4();
            let of_history = settled.entry((Arc::as_ptr(history), is_ipv4));
            let settle = || history.settle(is_ipv4, known).map(Arc::new);
            of_history.or_insert_with(settle).clone()
        });
        let ring = match &settling {
            Some(settling) => Arc::clone(&settling.ring),
            None => known.of(&frontend.weighted(), frontend.ring_size),
        };
        Drawn { ring, settling }
    };
    frontends.iter().map(draw).collect()
}

/// Lays each of `rings`, which come with the hash of the service that each is for, into the block of `writer` or
/// into a ring block that is added to it; equal ones once. Where each lies, as `Service::ring` says it.
///
/// Which ring block it is depends on the first service that uses a ring, so that its change concerns no other.
pub(super) fn lay<'a>(
    rings: impl Iterator<Item = (&'a Ring, u64)>,
    known: &mut Rings,
    writer: &mut BlockWriter,
) -> Result<Vec<u32>, TooLarge> {
    let mut distinct: Vec<(&Ring, u64)> = Vec::new();
    let mut numbers: HashMap<*const u16, usize> = HashMap::new();
    let numbered = rings.map(|(ring, hash)| {
        *numbers.entry(ring.as_ptr()).or_insert_with(|| {
            distinct.push((ring, hash));
            distinct.len() - 1
        })
    });
    let numbered: Vec<usize> = numbered.collect();
    let places = places_of(&distinct, known, writer)?;
    Ok(numbered.into_iter().map(|number| places[number]).collect())
}

fn places_of(
    rings: &[(&Ring, u64)],
    known: &mut Rings,
    writer: &mut BlockWriter,
) -> Result<Vec<u32>, TooLarge> {
    let bytes: u64 = rings.iter().map(|(ring, _)| lines_of(ring)).sum();
    let count = match bytes <= u64::from(MOST_INSIDE) {
        true => 0,
        false => bytes.div_ceil(FILLED.into()).next_power_of_two(),
    };
    let count = count.min(MAX_RING_BLOCKS.into());
    let mut shelves: Vec<Shelf> = (0..count).map(|_| Shelf::default()).collect();
    let placed = rings.iter().map(|(ring, hash)| {
        let number = (hash >> 24).checked_rem(count)? as usize;
        Some((number, shelves[number].put(ring)?))
    });
    let placed: Vec<Option<(usize, u32)>> = placed.collect();
    // Without a gap.
    let used = shelves.iter().scan(0, |next, shelf| {
        let number = *next;
        *next += u32::from(!shelf.rings.is_empty());
        Some(number)
    });
    let used: Vec<u32> = used.collect();
    for shelf in shelves.into_iter().filter(|shelf| !shelf.rings.is_empty()) {
        writer.add_ring_block(known.block_of(shelf.rings)?);
    }
    let words = placed.iter().zip(rings).map(|(placed, (ring, _))| {
        let place = match placed {
            Some((shelf, offset)) => RingPlace {
                block: Some(used[*shelf]),
                offset: *offset,
            },
            None => RingPlace {
                block: None,
                offset: writer.append(ring.as_bytes()),
            },
        };
        writer.fits()?;
        Ok(place.to_word())
    });
    words.collect()
}

/// Bytes that a ring takes.
fn lines_of(ring: &Ring) -> u64 {
    size_of_val(&**ring).next_multiple_of(LINE as usize) as u64
}

/// What is to lie in one ring block.
#[derive(Default)]
struct Shelf {
    rings: Vec<Ring>,
    /// Behind the fixed part.
    bytes: u64,
}

impl Shelf {
    /// Where `ring` comes to lie, as [`BlockWriter::append`] has it; `None` where there is no room.
    fn put(&mut self, ring: &Ring) -> Option<u32> {
        let offset = u64::from(FIXED_LENGTH) + self.bytes;
        let end = offset + lines_of(ring);
        // The last line is for the digest.
        if end > u64::from(RING_CAPACITY - LINE) {
            return None;
        }
        self.bytes += lines_of(ring);
        self.rings.push(Arc::clone(ring));
        Some(offset as u32)
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromBytes as _;

    use super::*;

    const SIZE: u32 = 16_381;

    /// Rings that differ.
    fn rings(count: u16) -> Vec<Ring> {
        let ring = |number| vec![number; SIZE as usize].into();
        (0..count).map(ring).collect()
    }

    /// Whether what lies at `word` is `ring`.
    fn lies_at(word: u32, ring: &Ring, block: &Block) -> bool {
        let place = RingPlace::from_word(word);
        let block = match place.block {
            None => block,
            Some(number) => &block.ring_blocks()[number as usize],
        };
        let bytes = &block.bytes()[place.offset as usize..][..SIZE as usize * 2];
        <[u16]>::ref_from_bytes(bytes).unwrap() == &**ring
    }

    #[test]
    fn few_rings_lie_in_the_block_itself_and_equal_ones_once() {
        let mut writer = BlockWriter::new();
        let rings = rings(30);
        let twice = rings.iter().chain(&rings).map(|ring| (ring, 5));
        let words = lay(twice, &mut Rings::default(), &mut writer).unwrap();
        let block = writer.finish().unwrap();
        assert_eq!(block.ring_blocks(), []);
        assert_eq!(words[..30], words[30..]);
        assert!(block.length() < RING_CAPACITY);
        for (word, ring) in words.into_iter().zip(&rings) {
            assert!(lies_at(word, ring, &block));
        }
    }

    #[test]
    fn a_ring_that_finds_no_room_in_its_ring_block_lies_in_the_block_itself() {
        let mut writer = BlockWriter::new();
        let rings = rings(40);
        // All of them want to lie in one.
        let hashed = rings.iter().map(|ring| (ring, 0));
        let words = lay(hashed, &mut Rings::default(), &mut writer).unwrap();
        let block = writer.finish().unwrap();
        let [only] = block.ring_blocks() else {
            panic!("{:?}", block.ring_blocks());
        };
        assert!(only.length() <= RING_CAPACITY - LINE);
        let inside = words
            .iter()
            .filter(|w| RingPlace::from_word(**w).block.is_none());
        assert_eq!(inside.count(), 9);
        for (word, ring) in words.into_iter().zip(&rings) {
            assert!(lies_at(word, ring, &block));
        }
    }

    #[test]
    fn a_ring_block_that_was_made_before_is_not_made_again() {
        let mut known = Rings::default();
        let rings = rings(2);
        let first = known.block_of(rings.clone()).unwrap();
        assert_eq!(
            known.block_of(rings).unwrap().bytes().as_ptr(),
            first.bytes().as_ptr()
        );
        known.forget_unused();
        known.forget_unused();
        assert!(known.blocks.is_empty());
    }
}
