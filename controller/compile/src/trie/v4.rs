//! Builder of the IPv4 trie.

use super::{Boundary, TrieError, area::Area, check_order, region::Region, table_bits};
use headgate_layout::trie::{Entry, Trie4, V4_KEY_BITS, V4_LEVELS, V4_LIST_WORDS, V4_UNIT};

/// Bits of the root. Small sets have no smaller one: it would save a quarter of a mebibyte and
/// put another table on each path, which makes a hot look-up of 10 hosts 1.4 times as long.
const ROOT_BITS: u32 = 16;
/// Bits of the root of a set of more boundaries than [`MANY`]: a table less on each path.
const LARGE_ROOT_BITS: u32 = 18;
const MANY: usize = 400_000;

/// A table has half as many entries as range starts: lists do the rest.
const WIDEN: i32 = -1;

/// An IPv4 trie.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Built4 {
    /// The area: whole cache lines, to be placed at a multiple of 64 bytes.
    pub words: Vec<u32>,
    /// [`Trie4::shift`].
    pub shift: u32,
}

impl Built4 {
    /// How to find the trie once its area lies at byte `base` of a block.
    pub fn header(&self, base: u32) -> Trie4 {
        let shift = self.shift;
        Trie4 { base, shift }
    }
}

/// Builds the trie of `boundaries`, which start at 0, ascend, and are merged.
pub fn build_v4(boundaries: &[Boundary<u32>]) -> Result<Built4, TrieError> {
    check_order(boundaries)?;
    let root_bits = if boundaries.len() > MANY {
        LARGE_ROOT_BITS
    } else {
        ROOT_BITS
    };
    let space = Region {
        start: 0,
        bits: u32::BITS,
        first: boundaries[0].class,
        steps: &boundaries[1..],
    };
    let capacity = (1 << root_bits) + boundaries.len() * 2;
    let mut builder = Builder {
        area: Area::new(capacity, V4_UNIT),
    };
    builder.table(space, root_bits, V4_LEVELS);
    Ok(Built4 {
        words: builder.area.finish()?,
        shift: u32::BITS - root_bits,
    })
}

struct Builder {
    area: Area,
}

impl Builder {
    /// The node for `region`, with at most `levels` tables on each path.
    fn node(&mut self, region: Region<'_, Boundary<u32>>, levels: u32) -> Entry {
        if region.steps.is_empty() {
            return Entry::leaf(region.first);
        }
        if region.bits <= V4_KEY_BITS && region.steps.len() < V4_LIST_WORDS {
            return self.list(region);
        }
        let share = region.bits.div_ceil(levels);
        let bits = table_bits(region.steps.len(), WIDEN, share, region.bits);
        let at = self.table(region, bits, levels - 1);
        Entry::table(bits, self.area.offset(at))
    }

    /// A table of 2^`bits` entries, below each at most `levels` more; returns its index.
    fn table(&mut self, region: Region<'_, Boundary<u32>>, bits: u32, levels: u32) -> usize {
        let at = self.area.reserve(1 << bits);
        for (slot, part) in region.split(bits).enumerate() {
            let entry = self.node(part, levels);
            self.area.set(at + slot, entry);
        }
        at
    }

    /// The class at the region's start, then each step as (key, class).
    fn list(&mut self, region: Region<'_, Boundary<u32>>) -> Entry {
        let mut words = [0; V4_LIST_WORDS];
        words[0] = u32::from(region.first);
        for (word, step) in words[1..].iter_mut().zip(region.steps) {
            let rest = step.start << (u32::BITS - region.bits);
            *word = rest | u32::from(step.class);
        }
        let keys = region.steps.len();
        let at = self.area.push(&words[..=keys]);
        Entry::list(keys as u32, self.area.offset(at))
    }
}
