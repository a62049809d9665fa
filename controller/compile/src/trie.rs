//! Builder of the flat range tries that map an address to its class.
//!
//! Entries and nodes are described in `headgate_layout::trie`, the look-up and where the
//! design comes from in `headgate_packet::trie`. Input is the address space cut into
//! ranges, each with a class. The builder looks at one aligned region of the space at a
//! time, at first the slots of the root:
//!
//! ```text
//! ranges that start inside the region     node
//! none                                    leaf: the class
//! a few                                   list: one cache line
//! many, in one small corner (IPv6)        skip: to the corner, else the class around it
//! many                                    table: one region for each entry
//! ```
//!
//! The reader's loop is bounded, so a path must be too. A table or skip takes at least an even
//! share of the bits that are left over the nodes that are left; no input can make a path
//! longer than the bound, and ordinary ones never feel it.
//!
//! The result holds no absolute offset and depends on the input alone: it can be placed
//! anywhere in a block and be named by a digest.

mod area;
mod halves;
mod region;
mod v4;
mod v6;

pub use v4::{Built4, build_v4};
pub use v6::{Built6, build_v6};

use headgate_layout::trie::TABLE_BITS_MAX;

/// The start of a range of addresses with one class; the range ends before the next start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Boundary<A> {
    /// First address of the range.
    pub start: A,
    /// Class of all its addresses.
    pub class: u16,
}

/// Why no trie was built.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TrieError {
    /// The input is not what the builder takes.
    #[error(
        "boundary {index} is out of order: boundaries must start at address 0, ascend, and differ in class from their neighbours"
    )]
    Unordered {
        /// Index of the first boundary at fault.
        index: usize,
    },
    /// Offsets in the trie have too few bits.
    #[error("the address table needs {bytes} bytes, and {limit} is the most that it can address")]
    TooLarge {
        /// Bytes that the trie needs.
        bytes: u64,
        /// Bytes that its offsets can reach.
        limit: u64,
    },
}

/// Checks that `boundaries` start at 0, which is the default, ascend, and are merged.
fn check_order<A: Ord + Default>(boundaries: &[Boundary<A>]) -> Result<(), TrieError> {
    let starts_at_zero = boundaries
        .first()
        .is_some_and(|first| first.start == A::default());
    if !starts_at_zero {
        return Err(TrieError::Unordered { index: 0 });
    }
    let fault = boundaries
        .windows(2)
        .position(|pair| pair[0].start >= pair[1].start || pair[0].class == pair[1].class);
    fault.map_or(Ok(()), |index| {
        Err(TrieError::Unordered { index: index + 1 })
    })
}

/// Bits of a table over `steps` steps: the largest power of two that is not above their
/// number, times 2^`widen`; but at least `share`, and at most the `bits` that are left.
fn table_bits(steps: usize, widen: i32, share: u32, bits: u32) -> u32 {
    let wanted = steps.max(1).ilog2().saturating_add_signed(widen);
    wanted.min(TABLE_BITS_MAX).max(share).min(bits)
}
