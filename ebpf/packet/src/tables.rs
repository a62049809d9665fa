//! Access to the memory that holds a revision's tables.

use headgate_layout::services::{RING_CAPACITY, RingPlace};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A value that may lie in the tables: any bit pattern is valid, and at most 64 bytes.
pub trait TableValue: FromBytes + Immutable + KnownLayout {}

impl<T: FromBytes + Immutable + KnownLayout> TableValue for T {}

/// One immutable block of memory that holds all tables of a policy set.
pub trait Tables {
    /// The `T` at byte `offset` from the start, or None outside the tables. `offset` must
    /// be a multiple of `align_of::<T>()`; `T` is at most 64 bytes.
    fn at<T: TableValue>(&self, offset: u32) -> Option<&T>;

    /// The `entry` of the ring at this [`RingPlace`], or None outside the tables, which may have no ring blocks.
    #[inline(always)]
    fn ring_entry(&self, ring: RingPlace, entry: u32) -> Option<u16> {
        match ring.block {
            None => self.at(ring.offset + entry * 2).copied(),
            Some(_) => None,
        }
    }
}

/// Tables in the host's memory.
#[derive(Clone, Copy, Debug)]
pub struct HostTables<'a> {
    block: &'a [u64],
    ring_blocks: &'a [u64],
}

impl<'a> HostTables<'a> {
    /// The tables in `block`, which has no ring blocks.
    pub fn new(block: &'a [u64]) -> Self {
        Self::with_ring_blocks(block, &[])
    }

    /// The tables in `block`, with these ring blocks, of [`RING_CAPACITY`] bytes each.
    pub fn with_ring_blocks(block: &'a [u64], ring_blocks: &'a [u64]) -> Self {
        Self { block, ring_blocks }
    }
}

impl Tables for HostTables<'_> {
    #[inline(always)]
    fn at<T: TableValue>(&self, offset: u32) -> Option<&T> {
        let bytes = self.block.as_bytes().get(offset as usize..)?;
        T::ref_from_bytes(bytes.get(..size_of::<T>())?).ok()
    }

    fn ring_entry(&self, ring: RingPlace, entry: u32) -> Option<u16> {
        let block = match ring.block {
            None => self.block,
            Some(number) => {
                let words = RING_CAPACITY as usize / size_of::<u64>();
                self.ring_blocks.chunks_exact(words).nth(number as usize)?
            }
        };
        HostTables::new(block).at(ring.offset + entry * 2).copied()
    }
}
