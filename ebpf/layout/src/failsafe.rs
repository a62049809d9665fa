//! Peers that the node needs to live, kept outside of revisions.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Peers that one node can hold.
pub const MAX_PEERS: u32 = 4096;

/// Key of the `FAILSAFE` trie: a prefix over IPv6 addresses; IPv4 lies in `::ffff:0:0/96`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PeerKey {
    /// Leading bits that count, 0..=128.
    pub prefix_length: u32,
    /// The address in network byte order.
    pub address: [u8; 16],
}

/// Value of an entry that is a peer of IPv4. A peer of one family never stands for an address of the
/// other, though `::/0` holds all IPv4-mapped ones: the reader compares.
pub const FAMILY_V4: u32 = 4;
/// Value of an entry that is a peer of IPv6.
pub const FAMILY_V6: u32 = 6;

/// Bits for IPv4 (by the upper 16 bits of the address), then as many for IPv6 (by bits 32..48, the
/// part in which sites differ).
pub const BITMAP_BITS: u32 = 2 << 16;

/// Size of the bitmap's map value.
pub const BITMAP_BYTES: u32 = BITMAP_BITS / 8;

/// Bit of an IPv4 address, given in host order.
#[inline(always)]
#[must_use]
pub const fn bit_v4(address: u32) -> u32 {
    address >> 16
}

/// Bit of an IPv6 address, given by its upper half in host order.
#[inline(always)]
#[must_use]
pub const fn bit_v6(upper: u64) -> u32 {
    (1 << 16) | ((upper >> 16) & 0xffff) as u32
}
