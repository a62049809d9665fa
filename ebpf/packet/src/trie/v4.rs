//! Reader of the IPv4 trie.

use super::at_most;
use crate::tables::Tables;
use headgate_layout::trie::{Entry, Trie4, V4_KEY_BITS, V4_LEVELS, V4_LIST_WORDS, V4_UNIT};

/// The class of `address` (host order).
#[inline(always)]
pub fn lookup_v4<T: Tables>(tables: &T, trie: &Trie4, address: u32) -> u32 {
    walk(tables, trie, address).unwrap_or(0)
}

#[inline(always)]
fn walk<T: Tables>(tables: &T, trie: &Trie4, address: u32) -> Option<u32> {
    let base = trie.base;
    let slot = address.wrapping_shr(trie.shift);
    let mut entry = *tables.at::<Entry>(base.wrapping_add(slot.wrapping_mul(V4_UNIT)))?;
    if entry.is_leaf() {
        return Some(entry.class());
    }
    // What is left of the address, left-aligned in the lower 32 bits.
    let mut rest = u64::from(address.wrapping_shl(32u32.wrapping_sub(trie.shift)));
    for _ in 0..V4_LEVELS {
        if !entry.is_table() {
            break;
        }
        let shifted = rest << entry.detail();
        let unit = entry.offset() + (shifted >> 32) as u32;
        rest = u64::from(shifted as u32);
        entry = *tables.at::<Entry>(base.wrapping_add(unit.wrapping_mul(V4_UNIT)))?;
        if entry.is_leaf() {
            return Some(entry.class());
        }
    }
    if !entry.is_list() {
        return None;
    }
    let list = tables.at(base.wrapping_add(entry.offset() * V4_UNIT))?;
    Some(search(list, entry.detail() as usize + 1, rest))
}

/// The class of the last of `len` words whose key is at most `rest`'s top bits. The first
/// word's key is 0.
#[inline(always)]
fn search(list: &[u32; V4_LIST_WORDS], len: usize, rest: u64) -> u32 {
    const LAST: usize = V4_LIST_WORDS - 1;
    // The class fills the low bits of a word: set them all, so that equal keys are at most.
    let highest = rest | ((1 << V4_KEY_BITS) - 1);
    // The first key is 0, so this adds nothing. It hides from the compiler that both sides are
    // below 2^32, from which it would make a comparison and of that a branch.
    let first_key = u64::from(list[0] >> V4_KEY_BITS);
    let highest = highest.wrapping_add(first_key << (64 - V4_KEY_BITS));
    let mut at = 0;
    let mut len = len;
    for _ in 0..V4_LIST_WORDS.ilog2() {
        if len > 1 {
            let half = len / 2;
            let word = u64::from(list[(at + half) & LAST]);
            at += at_most(word, highest) as usize * half;
            len -= half;
        }
    }
    list[at & LAST] & 0xffff
}
