//! Address to class: the reader of the flat range tries.
//!
//! The design is our own, "MXR": a multi-level direct table whose sparse ends are short
//! sorted lists of ranges. The lists are DXR's (Zec, Rizzo, Mikuc, 2012), kept to one cache
//! line by further tables as in poptrie (Asai, Ohara, 2015), but not compressed: poptrie
//! counts bits, for which BPF has no instruction.
//!
//! ```text
//! address  | root bits | b | b |  what is left  |
//!              |         |   |        |
//!              v         v   v        v
//!            root ---> table ... ---> list of <= 15 (IPv4) or 6 (IPv6) range starts
//!              |         |            rank = number of starts <= what is left
//!              v         v            class = classes[rank]
//!            class     class
//! ```
//!
//! Beyond 10,000 entries the time is the number of dependent cache lines; below, it is
//! mispredicted branches. So a list is one line, and its rank is found without a branch:
//! the sign bit of `key - address - 1` is 1 exactly if `key <= address`, provided both are
//! below 2^63. That is why 64-bit keys are stored shifted right by one; the bit lost
//! is always 0, for at least one address bit has been consumed before any list.
//!
//! Each function answers class 0 where it would leave the tables or the bounded loop. The
//! builder lays out no trie on which either can happen.

mod v4;
mod v6;

pub use v4::lookup_v4;
pub use v6::lookup_v6;

/// 1 if `key <= value`, else 0; both below 2^63. Arithmetic, for a comparison tends to be
/// compiled to a branch.
#[inline(always)]
const fn at_most(key: u64, value: u64) -> u64 {
    key.wrapping_sub(value).wrapping_sub(1) >> 63
}
