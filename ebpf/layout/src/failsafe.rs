//! Peers that the node needs to live, kept outside of revisions.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Prefixes that one node can hold.
pub const MAX_PEERS: u32 = 4096;

/// Passages that may be wanted for one prefix, besides everything.
pub const MAX_PASSAGES: u32 = 4;

/// Prefixes that may be wanted around each other.
pub const MAX_NESTING: u32 = 4;

/// In the kernel there is room for twice of each of these, so that old and new ones stand side by
/// side while they change.
pub const CHANGING: u32 = 2;

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

/// Value of an entry: what the prefix may send. What a wider one may send, it may as well: the reader
/// goes on with the next shorter prefix, for the trie finds the longest alone.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Peer {
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u16,
    /// 1 where every packet passes, else 0.
    pub everything: u16,
    /// That of the key.
    pub prefix_length: u32,
    /// What passes besides; unused ones are all 0.
    pub passages: [Passage; (CHANGING * MAX_PASSAGES) as usize],
}

/// One TCP conversation that a peer may carry on: these segments pass.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Passage {
    /// The source port, of segments with ACK or RST alone, which open no connection; 0 for any port
    /// and any segment.
    pub source_port: u16,
    /// First destination port.
    pub first: u16,
    /// Last destination port; 0 where this passage is unused.
    pub last: u16,
    /// Always 0.
    pub padding: u16,
}

/// Value of an entry that is a peer of IPv4. A peer of one family never stands for an address of the
/// other, though `::/0` holds all IPv4-mapped ones: the reader compares.
pub const FAMILY_V4: u16 = 4;
/// Value of an entry that is a peer of IPv6.
pub const FAMILY_V6: u16 = 6;

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
