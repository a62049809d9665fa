//! Memory format of the address tries: what the builder writes and the reader walks.
//!
//! A trie is one contiguous *area* inside a revision's block of tables: a root table
//! indexed by the address's top bits, then nodes. A root or node table holds entries:
//!
//! ```text
//!  31 30 29    26 25                        0
//! +-----+--------+---------------------------+
//! |kind | detail | offset                    |   offset: in units from the area's start,
//! +-----+--------+---------------------------+           4 B (IPv4) or 8 B (IPv6) each
//!  leaf    the whole word is the class, 0..=65535
//!  list    detail = number of keys; a sorted list of range starts with their classes
//!  table   detail = b; 2^b entries, indexed by the next b bits of the address
//!  skip    IPv6 only; one comparison with a prefix; detail = 1 for a crossing
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a cache line; areas start on one, and no list or skip node straddles two.
pub const LINE: usize = 64;

/// Most table nodes on an IPv4 path, the root not counted.
pub const V4_LEVELS: u32 = 4;
/// Words of an IPv4 list at most: one line.
pub const V4_LIST_WORDS: usize = 16;
/// Address bits that an IPv4 list's key holds; the class fills the rest of its word.
pub const V4_KEY_BITS: u32 = 16;
/// Bytes that an IPv4 entry's offset counts in.
pub const V4_UNIT: u32 = 4;

/// Most nodes on an IPv6 path, the root not counted.
pub const V6_NODES: u32 = 32;
/// Keys of an IPv6 list at most; lists hold 2, 4 or 6.
pub const V6_LIST_KEYS: usize = 6;
/// Bytes that an IPv6 entry's offset counts in.
pub const V6_UNIT: u32 = 8;
/// Top bits of 2000::/3, which has a root table of its own: it holds nearly all of the
/// addresses in use.
pub const V6_GLOBAL: u64 = 0b001;
/// Length of 2000::/3.
pub const V6_GLOBAL_BITS: u32 = 3;
/// Top address bits that index the root table of everything else.
pub const V6_OTHER_BITS: u32 = 8;
/// Byte offset of the root table of 2000::/3; the other one is at 0.
pub const V6_GLOBAL_ROOT: u32 = 4 << V6_OTHER_BITS;

/// Bits of an entry's offset.
pub const OFFSET_BITS: u32 = 26;
/// Widest table that an entry's detail can name, in address bits.
pub const TABLE_BITS_MAX: u32 = 15;

const DETAIL_SHIFT: u32 = OFFSET_BITS;
const DETAIL_MASK: u32 = 0xf;
const KIND_SHIFT: u32 = 30;
const KIND_LIST: u32 = 1;
const KIND_TABLE: u32 = 2;
const KIND_SKIP: u32 = 3;
/// A skip entry's detail: the skip is a crossing.
const SKIP_CROSSES: u32 = 1;

/// One word of a root or table: a class, or where to look next.
#[derive(Clone, Copy, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Entry(u32);

impl Entry {
    /// The end of a path.
    pub const fn leaf(class: u16) -> Self {
        Self(class as u32)
    }

    /// A list of `keys` keys at `offset` units.
    pub const fn list(keys: u32, offset: u32) -> Self {
        Self::node(KIND_LIST, keys, offset)
    }

    /// A table of 2^`bits` entries at `offset` units.
    pub const fn table(bits: u32, offset: u32) -> Self {
        Self::node(KIND_TABLE, bits, offset)
    }

    /// A [`Skip`] at `offset` units.
    pub const fn skip(offset: u32) -> Self {
        Self::node(KIND_SKIP, 0, offset)
    }

    /// A [`Skip`] that is a crossing, at `offset` units.
    pub const fn crossing(offset: u32) -> Self {
        Self::node(KIND_SKIP, SKIP_CROSSES, offset)
    }

    const fn node(kind: u32, detail: u32, offset: u32) -> Self {
        Self(kind << KIND_SHIFT | (detail & DETAIL_MASK) << DETAIL_SHIFT | offset)
    }

    /// The word.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// Whether the path ends here.
    #[inline(always)]
    pub const fn is_leaf(self) -> bool {
        self.0 < KIND_LIST << KIND_SHIFT
    }

    /// Whether this leads to a list.
    #[inline(always)]
    pub const fn is_list(self) -> bool {
        self.0 >> KIND_SHIFT == KIND_LIST
    }

    /// Whether this leads to a table.
    #[inline(always)]
    pub const fn is_table(self) -> bool {
        self.0 >> KIND_SHIFT == KIND_TABLE
    }

    /// Of a skip entry: whether the skip is a crossing.
    #[inline(always)]
    pub const fn crosses(self) -> bool {
        self.0 & SKIP_CROSSES << DETAIL_SHIFT != 0
    }

    /// Of a leaf: the class.
    #[inline(always)]
    pub const fn class(self) -> u32 {
        self.word()
    }

    /// Keys of a list, address bits of a table: 0..=15.
    #[inline(always)]
    pub const fn detail(self) -> u32 {
        self.0 >> DETAIL_SHIFT & DETAIL_MASK
    }

    /// Distance from the area's start, in units.
    #[inline(always)]
    pub const fn offset(self) -> u32 {
        self.0 & ((1 << OFFSET_BITS) - 1)
    }
}

/// Where an IPv4 trie lies. Part of a larger header in the same block.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Trie4 {
    /// Byte offset of the area in the block, a multiple of [`LINE`]; 0: no trie.
    pub base: u32,
    /// 32 less the root's bits: what an address is shifted right by to index the root.
    pub shift: u32,
}

/// Where an IPv6 trie lies. Part of a larger header in the same block.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Trie6 {
    /// Byte offset of the area in the block, a multiple of [`LINE`]; 0: no trie.
    pub base: u32,
    /// 64 less the bits of the root of 2000::/3: what an address's upper half, its top
    /// three bits taken off, is shifted right by to index that root.
    pub shift: u32,
}

/// An IPv6 list. The key at `i` starts the range of class `i + 1`; class 0 lies before
/// all keys. The node ends after the keys that its entry counts; keys beyond the real
/// ones are [`Self::NO_KEY`], classes beyond repeat the last.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct List6 {
    /// Classes of the ranges.
    pub classes: [u16; 8],
    /// Range starts, left-aligned in 64 bits and shifted right by one: two values below
    /// 2^63 are compared by the sign of their difference, without a branch.
    pub keys: [u64; V6_LIST_KEYS],
}

impl List6 {
    /// A key above every other.
    pub const NO_KEY: u64 = u64::MAX >> 1;
}

/// Where all ranges below share the next bits: one comparison takes the place of a chain
/// of tables.
///
/// A crossing is the skip that leads into one /64 that holds several ranges, from the upper
/// half of the address to the lower. It is passed if all that is left of the upper half is
/// equal, and so many of the lower half's top bits as the ranges share: for a lone host, all.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Skip {
    /// The shared bits, left-aligned. Of a crossing: what is left of the upper half.
    pub prefix: u64,
    /// Of a crossing: the shared bits of the lower half, left-aligned.
    pub lower: u64,
    /// Where the shared bits are equal: leads on behind them, after a crossing in the lower
    /// half.
    pub child: Entry,
    /// Where the address is below them; leads on in this half, with nothing taken off.
    pub below: Entry,
    /// Where the address is above them; as `below`.
    pub above: Entry,
    /// How far to shift right to be left with the shared bits, 0..=63 ...
    pub right: u8,
    /// ... and once more, 0 or 1: a crossing without a shared bit is to be shifted by 64.
    pub right_more: u8,
    /// How far to shift left to take the shared bits off, 0..=63.
    pub left: u8,
    /// Always 0.
    pub padding: u8,
}

const _: () = assert!(size_of::<List6>() == LINE);
const _: () = assert!(size_of::<Skip>() == LINE / 2);
