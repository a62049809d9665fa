//! Access to the memory that holds a revision's tables.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A value that may lie in the tables: any bit pattern is valid, and at most 64 bytes.
pub trait TableValue: FromBytes + Immutable + KnownLayout {}

impl<T: FromBytes + Immutable + KnownLayout> TableValue for T {}

/// One immutable block of memory that holds all tables of a policy set.
pub trait Tables {
    /// The `T` at byte `offset` from the start, or None outside the tables. `offset` must
    /// be a multiple of `align_of::<T>()`; `T` is at most 64 bytes.
    fn at<T: TableValue>(&self, offset: u32) -> Option<&T>;
}

/// Tables in the host's memory.
#[derive(Clone, Copy, Debug)]
pub struct HostTables<'a>(&'a [u64]);

impl<'a> HostTables<'a> {
    /// The tables in `block`.
    pub fn new(block: &'a [u64]) -> Self {
        Self(block)
    }
}

impl Tables for HostTables<'_> {
    #[inline(always)]
    fn at<T: TableValue>(&self, offset: u32) -> Option<&T> {
        let bytes = self.0.as_bytes().get(offset as usize..)?;
        T::ref_from_bytes(bytes.get(..size_of::<T>())?).ok()
    }
}
