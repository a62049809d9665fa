//! The nodes of the IPv6 trie, in either half of the address.

use crate::trie::{
    area::Area,
    halves::{Deep, HalfStep, Value},
    region::Region,
    table_bits,
};
use headgate_layout::trie::{Entry, List6, Skip, V6_LIST_KEYS};
use zerocopy::{FromZeros, IntoBytes};

/// Nodes on a path in the lower half.
pub(super) const LOWER_NODES: u32 = 13;
/// Crossings on a path: a region is searched by crossings only if it has no more steps than
/// a list has keys, so no more than seven deep /64s, and each crossing leaves less than
/// half of them.
pub(super) const CROSSINGS: u32 = 3;

/// Fewest bits that a table or skip is worth.
const FEWEST_BITS: u32 = 2;

/// A region in one half of the address.
pub(super) type Half<'r, 'b> = Region<'r, HalfStep<'b>>;

/// Lays out nodes.
pub(super) struct Builder {
    pub(super) area: Area,
    /// Tables have 2^`widen` times as many entries as steps.
    pub(super) widen: i32,
}

impl Builder {
    /// The node for `region`, with at most `levels` tables, skips and lists on a path in this
    /// half of the address.
    pub(super) fn node(&mut self, region: Half<'_, '_>, levels: u32) -> Entry {
        if let ([], Value::Class(class)) = (region.steps, region.first) {
            return Entry::leaf(class);
        }
        if region.steps.len() <= V6_LIST_KEYS {
            if let Some(median) = median_deep(&region) {
                return self.crossing(region, median, levels);
            }
            // A key has 63 bits.
            if region.bits < u64::BITS {
                return self.list(&region);
            }
        }
        let share = region.bits.div_ceil(levels).max(FEWEST_BITS);
        let corner = corner(&region);
        if region.bits - corner.bits >= share {
            return self.skip(&region, corner, levels - 1);
        }
        let bits = table_bits(region.steps.len(), self.widen, share, region.bits);
        let at = self.area.reserve(1 << bits);
        self.fill(at, region, bits, levels - 1);
        Entry::table(bits, self.area.offset(at))
    }

    /// Fills the table of 2^`bits` entries at index `at`, with at most `levels` nodes on a
    /// path below.
    pub(super) fn fill(&mut self, at: usize, region: Half<'_, '_>, bits: u32, levels: u32) {
        for (slot, part) in region.split(bits).enumerate() {
            let entry = self.node(part, levels);
            self.area.set(at + slot, entry);
        }
    }

    /// A list of the few steps of a region without deep /64s.
    fn list(&mut self, region: &Half<'_, '_>) -> Entry {
        let count = region.steps.len();
        let last = region.steps[count - 1].value.class();
        let mut list = List6 {
            classes: [last; _],
            keys: [List6::NO_KEY; _],
        };
        list.classes[0] = region.first.class();
        for (index, step) in region.steps.iter().enumerate() {
            list.keys[index] = region.align(step.start) >> 1;
            list.classes[index + 1] = step.value.class();
        }
        let keys = count.next_multiple_of(2);
        let bytes = size_of_val(&list.classes) + keys * size_of::<u64>();
        let at = self.area.push(&list.as_bytes()[..bytes]);
        Entry::list(keys as u32, self.area.offset(at))
    }

    /// A skip to `corner`, outside of which there is one class before and one behind.
    fn skip(&mut self, region: &Half<'_, '_>, corner: Corner, levels: u32) -> Entry {
        let inner = region.around(corner.place, corner.bits);
        let last = region.steps.last().map_or(region.first, |step| step.value);
        let child = self.node(inner, levels);
        let at = self.area.push(&Skip {
            prefix: region.align(inner.start),
            child,
            below: Entry::leaf(region.first.class()),
            above: Entry::leaf(last.class()),
            ..passing(region.bits - inner.bits)
        });
        Entry::skip(self.area.offset(at))
    }

    /// A crossing into the deep /64 `median`; the rest of the region hangs below and above it.
    fn crossing(&mut self, region: Half<'_, '_>, median: Median<'_>, levels: u32) -> Entry {
        let Median { index, place, deep } = median;
        let below = match index.checked_sub(1) {
            None => Entry::leaf(deep.first),
            Some(before) => {
                let steps = &region.steps[..before];
                self.below(Region { steps, ..region }, place, &deep, levels)
            }
        };
        let steps = &region.steps[index..];
        let above = self.above(Region { steps, ..region }, &deep, levels);
        let (lower, shared, child) = self.lower_half(&deep);
        let at = self.area.push(&Skip {
            prefix: region.align(place),
            lower,
            child,
            below,
            above,
            ..passing(shared)
        });
        Entry::crossing(self.area.offset(at))
    }

    /// What holds before the deep /64 at `place`, and from its first address to its prefix.
    fn below(&mut self, region: Half<'_, '_>, place: u64, deep: &Deep<'_>, levels: u32) -> Entry {
        let last = region.steps.last().map_or(region.first, |step| step.value);
        if last.is_class(deep.first) {
            return self.node(region, levels);
        }
        let mut steps = region.steps.to_vec();
        steps.push(HalfStep {
            start: place,
            value: Value::Class(deep.first),
        });
        let steps = &steps;
        self.node(Region { steps, ..region }, levels)
    }

    /// What holds from a deep /64's prefix to its last address, and behind it; `region` has
    /// the steps behind it.
    fn above(&mut self, region: Half<'_, '_>, deep: &Deep<'_>, levels: u32) -> Entry {
        let steps = match region.steps {
            [step, behind @ ..] if step.value.is_class(deep.last()) => behind,
            steps => steps,
        };
        let first = Value::Class(deep.last());
        self.node(
            Region {
                first,
                steps,
                ..region
            },
            levels,
        )
    }

    /// The lower half of a deep /64: the bits that its ranges share, their number, and the
    /// node below them.
    fn lower_half(&mut self, deep: &Deep<'_>) -> (u64, u32, Entry) {
        let steps = deep.lower_steps();
        let region = Region {
            start: 0,
            bits: u64::BITS,
            first: Value::Class(deep.first),
            steps: &steps,
        };
        let corner = corner(&region);
        let inner = region.around(corner.place, corner.bits);
        let child = self.node(inner, LOWER_NODES);
        (inner.start, u64::BITS - inner.bits, child)
    }
}

/// A skip of `shared` bits, 0..=64, otherwise blank.
fn passing(shared: u32) -> Skip {
    let right = u64::BITS - shared;
    let most = u64::BITS - 1;
    Skip {
        right: right.min(most) as u8,
        right_more: right.saturating_sub(most) as u8,
        left: (shared % u64::BITS) as u8,
        ..Skip::new_zeroed()
    }
}

/// The deep /64 that a crossing divides a region at.
#[derive(Clone, Copy)]
struct Median<'b> {
    /// Number of values before it: 0 for the region's first, else one more than its step's.
    index: usize,
    place: u64,
    deep: Deep<'b>,
}

/// The middle one of the region's deep /64s.
fn median_deep<'b>(region: &Half<'_, 'b>) -> Option<Median<'b>> {
    let steps = region.steps.iter().map(|step| (step.start, step.value));
    let mut deeps = std::iter::once((region.start, region.first))
        .chain(steps)
        .enumerate()
        .filter_map(|(index, (place, value))| match value {
            Value::Class(_) => None,
            Value::Deep(deep) => Some(Median { index, place, deep }),
        });
    let count = deeps.clone().count();
    deeps.nth(count / 2)
}

/// The smallest part of a region outside of which nothing changes: an address in it, and the
/// bits that tell its addresses apart.
#[derive(Clone, Copy)]
struct Corner {
    place: u64,
    bits: u32,
}

/// The corner of a region with at least one step, or in the upper half with more than two.
fn corner(region: &Half<'_, '_>) -> Corner {
    let first = region.steps[0].start;
    let last = region.steps[region.steps.len() - 1].start;
    if first == last {
        // One change: whichever side of it is the smaller.
        let front = Corner::spanning(region.start, first - 1);
        let back = Corner::spanning(first, region.last());
        return if front.bits < back.bits { front } else { back };
    }
    // A deep /64 at the region's very start or end belongs to the corner as well. It is
    // within: its neighbour's address differs from its own in the last bit alone.
    Corner::spanning(first, last - 1)
}

impl Corner {
    fn spanning(first: u64, last: u64) -> Self {
        Self {
            place: first,
            bits: u64::BITS - (first ^ last).leading_zeros(),
        }
    }
}
