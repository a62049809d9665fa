//! Layout of what keeps connections where they are while a service settles after a change of its backends.
//!
//! A ring entry that the change gave to another backend leads to a [`Choice`] in the place of a
//! [`crate::services::Backend`]: connections that were there before stay with the former backend, new ones go
//! to the new one. Those that begin meanwhile are known by their SYN, of which a [`Placement`] is kept in a table
//! of a fixed size, and what is in no table was there before.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    flows::{Shared, one_if_negative},
    services::Backend,
};

/// Placements of a node at most; a power of two.
pub const PLACEMENTS: u32 = 1 << 16;

/// Placements of a row: those that a flow may have.
pub const ROW: u32 = 8;

/// Bytes of the table.
pub const BYTES: u32 = PLACEMENTS * size_of::<Placement>() as u32;

/// Backends and choices of one service at most: their numbers are 16 bits.
pub const MAX_NUMBERS: usize = 1 << 16;

/// Two backends of a ring entry that changed; lies behind the service's `[Backend]`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Choice {
    /// Bytes from the start of the service's `[Backend]` to here.
    pub distance: u32,
    /// Number of backends there. One whose address is 0 is gone.
    pub count: u32,
    /// Number of the backend of connections that begin.
    pub new: u32,
    /// Number of the backend of those that were there before. It is not gone.
    pub former: u32,
    /// Which numbering of backends it is, never 0: see [`Key`].
    pub epoch: u32,
    /// Nothing.
    pub padding: [u32; 10],
    /// [`crate::services::SETTLING`], where a [`Backend`] has its `forwarding`.
    pub forwarding: u32,
}

const _: () = assert!(size_of::<Choice>() == size_of::<Backend>());
const _: () = assert!(
    core::mem::offset_of!(Choice, forwarding) == core::mem::offset_of!(Backend, forwarding)
);

impl Choice {
    /// Where the backend with this number lies, if this choice lies at `offset`.
    #[inline(always)]
    #[must_use]
    pub const fn place_of(&self, offset: u32, number: u32) -> u32 {
        let start = offset.wrapping_sub(self.distance);
        start.wrapping_add(number * size_of::<Backend>() as u32)
    }
}

/// Which backend a flow was given to.
#[derive(FromBytes, IntoBytes, KnownLayout, Debug)]
#[repr(C)]
pub struct Placement {
    /// A [`Key`]; 0 where it is free.
    pub key: Shared<u64>,
    /// A [`crate::flows::Keep`]: see `headgate_packet::settling`.
    pub keep: Shared<u32>,
    /// Nothing.
    pub padding: Shared<u32>,
}

/// A flow, by half of its hash and the row that it is in, and the number of its backend in a numbering that
/// stays while the service settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub u64);

impl Key {
    /// That of a flow with this hash.
    #[inline(always)]
    #[must_use]
    pub const fn new(flow: u64, epoch: u32, number: u32) -> Self {
        Self(flow >> 32 << 32 | (epoch as u64 & 0xffff) << 16 | number as u64 & 0xffff)
    }

    /// 1 where both are of one flow, else 0.
    #[inline(always)]
    #[must_use]
    pub fn is_of_same(self, other: Self) -> u64 {
        one_if_negative(((self.0 ^ other.0) >> 16) as i64 - 1)
    }

    /// The backend's number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 as u32 & 0xffff
    }
}

/// The first placement of a flow's row.
#[inline(always)]
#[must_use]
pub const fn row(flow: u64) -> u32 {
    (flow as u32).wrapping_mul(ROW) & (PLACEMENTS - 1)
}

/// Where a placement lies.
#[inline(always)]
#[must_use]
pub const fn at(number: u32) -> u32 {
    (number & (PLACEMENTS - 1)) * size_of::<Placement>() as u32
}
