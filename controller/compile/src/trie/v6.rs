//! Builder of the IPv6 trie.

mod node;

use super::{
    Boundary, TrieError,
    area::Area,
    check_order,
    halves::{HalfStep, upper_steps},
    region::Region,
};
use headgate_layout::trie::{Trie6, V6_GLOBAL, V6_GLOBAL_BITS, V6_NODES, V6_OTHER_BITS, V6_UNIT};
use node::{Builder, CROSSINGS, LOWER_NODES};

/// Tables and skips on a path in the upper half: what the reader's loop leaves.
const UPPER_NODES: u32 = V6_NODES - CROSSINGS - LOWER_NODES;

/// Fewest and most bits of the root of 2000::/3.
const ROOT_BITS: (u32, u32) = (8, 20);

/// Sets of at most so many steps have tables 2^[`SMALL_WIDEN`] times as large: fewer levels
/// for memory that is not missed.
const SMALL: usize = 8192;
const SMALL_WIDEN: i32 = 4;

/// An IPv6 trie.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Built6 {
    /// The area: whole cache lines, to be placed at a multiple of 64 bytes.
    pub words: Vec<u32>,
    /// [`Trie6::shift`].
    pub shift: u32,
}

impl Built6 {
    /// How to find the trie once its area lies at byte `base` of a block.
    pub fn header(&self, base: u32) -> Trie6 {
        let shift = self.shift;
        Trie6 { base, shift }
    }
}

/// Builds the trie of `boundaries`, which start at 0, ascend, and are merged.
pub fn build_v6(boundaries: &[Boundary<u128>]) -> Result<Built6, TrieError> {
    check_order(boundaries)?;
    let steps = upper_steps(boundaries);
    let space = Region {
        start: 0,
        bits: u64::BITS,
        first: steps[0].value,
        steps: &steps[1..],
    };
    let root_bits = steps.len().ilog2().clamp(ROOT_BITS.0, ROOT_BITS.1);
    let small = steps.len() <= SMALL;
    let mut builder = Builder {
        area: Area::new((1 << root_bits) + steps.len() * 8, V6_UNIT),
        widen: if small { SMALL_WIDEN } else { 0 },
    };
    roots(&mut builder, space, root_bits);
    Ok(Built6 {
        words: builder.area.finish()?,
        shift: u64::BITS - root_bits,
    })
}

/// The two root tables at the area's start, and all below.
fn roots(builder: &mut Builder, space: Region<'_, HalfStep<'_>>, root_bits: u32) {
    let other = builder.area.reserve(1 << V6_OTHER_BITS);
    let global = builder.area.reserve(1 << root_bits);
    for (slot, part) in space.split(V6_OTHER_BITS).enumerate() {
        let is_global = slot as u64 >> (V6_OTHER_BITS - V6_GLOBAL_BITS) == V6_GLOBAL;
        if !is_global {
            let entry = builder.node(part, UPPER_NODES);
            builder.area.set(other + slot, entry);
        }
    }
    let start = V6_GLOBAL << (u64::BITS - V6_GLOBAL_BITS);
    let unicast = space.around(start, u64::BITS - V6_GLOBAL_BITS);
    builder.fill(global, unicast, root_bits, UPPER_NODES);
}
