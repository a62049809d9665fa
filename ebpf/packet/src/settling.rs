//! Which backend a connection has while its service settles after a change of backends.

use headgate_layout::{
    flows::{Firmness, Keep, Shared},
    services::Backend,
    settling::{Choice, Key, Placement, ROW, row},
};

use crate::{
    aging::{begins, ends},
    flows::{Least, chosen},
    frame::Frame,
    nat::segment_of,
    tables::Tables,
};

/// How long a placement is kept for a connection of which only the SYN was seen, in units of 1.07 s.
pub const BEGUN: u32 = 15;
/// See [`BEGUN`]: for one that a client has said to end, after its last segment.
pub const CLOSING: u32 = 60;
/// See [`BEGUN`]: for all others, after the last segment. An hour.
pub const PLACED: u32 = 3_360;

/// The table, as `headgate_layout::settling` describes it.
pub trait PlacementTable: Copy {
    /// The placement with this number.
    fn placement(&self, number: u32) -> Option<&Placement>;

    /// Puts `new` in the place of `old`, at once for all processors; false where something else stood
    /// there.
    fn exchange(&self, word: &Shared<u64>, old: u64, new: u64) -> bool;

    /// As [`crate::flows::FlowTable::now`].
    fn now(&self) -> u32;
}

/// The table in the host's memory, for one thread.
#[derive(Clone, Copy, Debug)]
pub struct HostPlacements<'a> {
    /// [`headgate_layout::settling::PLACEMENTS`] of them.
    pub placements: &'a [Placement],
    /// See [`PlacementTable::now`].
    pub now: u32,
}

impl PlacementTable for HostPlacements<'_> {
    fn placement(&self, number: u32) -> Option<&Placement> {
        self.placements.get(number as usize)
    }

    fn exchange(&self, word: &Shared<u64>, old: u64, new: u64) -> bool {
        let stands = word.get() == old;
        if stands {
            word.set(new);
        }
        stands
    }

    fn now(&self) -> u32 {
        self.now
    }
}

/// Where the [`Backend`] of `frame` lies, whose ring entry leads to the [`Choice`] at `offset`. What is no TCP
/// segment that can be read goes with the new ring.
#[inline(always)]
pub fn placed<F: Frame + ?Sized, S: Tables, P: PlacementTable>(
    frame: &F,
    tables: &S,
    offset: u32,
    placements: impl FnOnce() -> Option<P>,
) -> u32 {
    let Some(choice) = tables.at::<Choice>(offset) else {
        // Then there is nothing to send by either.
        return offset;
    };
    let number = match (segment_of(frame), placements()) {
        (Some((ends, flags)), Some(table)) => {
            let is_there = |number: u32| is_there(tables, choice, offset, number);
            let number = choose(&table, choice, is_there, ends.hash(), flags);
            number.unwrap_or(choice.former)
        }
        _ => choice.new,
    };
    choice.place_of(offset, number)
}

/// Where the [`Backend`] lies that a connection with this hash has, of which nothing is kept that was not before:
/// whoever tells of a connection need not have any part in it.
#[inline(always)]
pub(crate) fn found<S: Tables, P: PlacementTable>(
    tables: &S,
    offset: u32,
    flow: u64,
    placements: Option<P>,
) -> u32 {
    let Some(choice) = tables.at::<Choice>(offset) else {
        return offset;
    };
    let key = Key::new(flow, choice.epoch, 0);
    let found = placements.and_then(|table| find(&table, row(flow), key));
    let found = found.filter(|(_, found)| found.0 != 0);
    let number = found.map_or(choice.former, |(_, found)| found.number());
    match is_there(tables, choice, offset, number) {
        true => choice.place_of(offset, number),
        false => choice.place_of(offset, choice.new),
    }
}

#[inline(always)]
fn is_there<S: Tables>(tables: &S, choice: &Choice, offset: u32, number: u32) -> bool {
    let backend: Option<&Backend> = tables.at(choice.place_of(offset, number));
    number < choice.count && backend.is_some_and(|b| b.address[0] | b.address[1] != 0)
}

/// A connection that begins is placed at the new backend; where there is no room for that to be kept, at the
/// former one, where it is found without. So a flood of SYNs can fill the table, and then new connections go
/// where they went before the change. Others that are not known are with the former one. They are kept as well
/// where nobody else wants the place: somebody who forges a SYN of such a connection does not move it.
#[inline(always)]
fn choose<P: PlacementTable>(
    table: &P,
    choice: &Choice,
    is_there: impl Fn(u32) -> bool,
    flow: u64,
    flags: u8,
) -> Option<u32> {
    let now = table.now();
    let is_first = begins(flags);
    let start = row(flow);
    let (place, found) = find(table, start, Key::new(flow, choice.epoch, 0))?;
    let (place, old) = if found.0 != 0 {
        let known = table.placement(start + place)?;
        let keep = Keep(known.keep.get());
        let is_over = is_first && (keep.at(now).0 == 0 || is_closing(keep));
        if !is_over && is_there(found.number()) {
            let next = after(keep, flags, now);
            if next != keep {
                known.keep.set(next.0);
            }
            return Some(found.number());
        }
        if !is_first {
            return Some(choice.new);
        }
        (place, found.0)
    } else {
        if ends(flags) {
            return None;
        }
        let least = least(table, start, now)?;
        let is_free = is_first || least.found().0 == 0;
        let number = least.number_yielding(Firmness::None);
        (number.filter(|_| is_free)? & (ROW - 1), least.value)
    };
    let placement = table.placement(start + place)?;
    let (number, keep) = match is_first {
        true => (choice.new, Keep::until(now + BEGUN, Firmness::Little)),
        false => (choice.former, Keep::until(now + PLACED, Firmness::None)),
    };
    let key = Key::new(flow, choice.epoch, number);
    // Where somebody else was quicker it stays where it is found without.
    if !table.exchange(&placement.key, old, key.0) {
        return None;
    }
    placement.keep.set(keep.0);
    Some(number)
}

/// The placement of a row that is kept least.
#[inline(always)]
fn least<P: PlacementTable>(table: &P, start: u32, now: u32) -> Option<Least> {
    let mut least = Least::new();
    least.look(0..ROW, ROW, |number| {
        let placement = table.placement(start + number)?;
        let keep = Keep(placement.keep.get()).at(now);
        Some((keep, placement.key.get()))
    })?;
    Some(least)
}

/// The last placement of a row that is of the same flow as `key`, and its place; 0 where none is.
#[inline(always)]
fn find<P: PlacementTable>(table: &P, start: u32, key: Key) -> Option<(u32, Key)> {
    let (mut place, mut found) = (0, 0);
    for number in 0..ROW {
        let other = Key(table.placement(start + number)?.key.get());
        let is_it = key.is_of_same(other);
        found = chosen(found, other.0, is_it);
        place = chosen(place, u64::from(number), is_it);
    }
    Some((place as u32 & (ROW - 1), Key(found)))
}

#[inline(always)]
const fn is_closing(keep: Keep) -> bool {
    keep.yields(Firmness::Ending) && !keep.yields(Firmness::Little)
}

/// How a placement is kept after a segment with these flags. [`Firmness::None`] is that of a connection that was
/// there before, `Little` that of one that begins.
#[inline(always)]
const fn after(keep: Keep, flags: u8, now: u32) -> Keep {
    if keep.yields(Firmness::None) {
        return Keep::until(now + PLACED, Firmness::None);
    }
    if begins(flags) && keep.yields(Firmness::Little) {
        return Keep::until(now + BEGUN, Firmness::Little);
    }
    if ends(flags) || is_closing(keep) {
        return Keep::until(now + CLOSING, Firmness::Ending);
    }
    Keep::until(now + PLACED, Firmness::Full)
}
