//! Reader of the IPv6 trie.

use super::at_most;
use crate::tables::Tables;
use headgate_layout::trie::{
    Entry, List6, Skip, Trie6, V6_GLOBAL, V6_GLOBAL_BITS, V6_GLOBAL_ROOT, V6_NODES, V6_OTHER_BITS,
    V6_UNIT,
};

/// The class of the address whose halves are `upper` and `lower` (host order).
#[inline(always)]
pub fn lookup_v6<T: Tables>(tables: &T, trie: &Trie6, upper: u64, lower: u64) -> u32 {
    walk(tables, trie, upper, lower).unwrap_or(0)
}

#[inline(always)]
fn walk<T: Tables>(tables: &T, trie: &Trie6, upper: u64, lower: u64) -> Option<u32> {
    let base = trie.base;
    let (root, mut rest) = root_slot(trie, upper);
    let mut entry = *tables.at::<Entry>(base.wrapping_add(root))?;
    for _ in 0..V6_NODES {
        if entry.is_leaf() {
            return Some(entry.class());
        }
        let node = base.wrapping_add(entry.offset() * V6_UNIT);
        if entry.is_list() {
            return Some(search(tables.at(node)?, entry.detail(), rest));
        }
        if entry.is_table() {
            let bits = entry.detail();
            // Two shifts, for `64 - bits` may be 64.
            let slot = rest >> 1 >> (63 - bits);
            rest <<= bits;
            entry = *tables.at(node.wrapping_add((slot as u32).wrapping_mul(4)))?;
        } else {
            // One access for both kinds: of two, the compiler would pull the address out and
            // form it ahead of its bound check, which the verifier refuses.
            let node = tables.at(node)?;
            entry = if entry.crosses() {
                cross(node, &mut rest, lower)
            } else {
                skip(node, &mut rest)
            };
        }
    }
    entry.is_leaf().then_some(entry.class())
}

/// Byte offset of the address's root entry in the area, and what is left of the upper half,
/// left-aligned.
#[inline(always)]
fn root_slot(trie: &Trie6, upper: u64) -> (u32, u64) {
    if upper >> (64 - V6_GLOBAL_BITS) == V6_GLOBAL {
        let rest = upper << V6_GLOBAL_BITS;
        let slot = rest.wrapping_shr(trie.shift) as u32;
        let bits = 64u32.wrapping_sub(trie.shift);
        (
            V6_GLOBAL_ROOT.wrapping_add(slot.wrapping_mul(4)),
            rest.wrapping_shl(bits),
        )
    } else {
        let slot = (upper >> (64 - V6_OTHER_BITS)) as u32;
        (slot * 4, upper << V6_OTHER_BITS)
    }
}

/// The class of the range that holds `rest`, of a list of 2, 4 or 6 keys.
#[inline(always)]
fn search(list: &List6, keys: u32, rest: u64) -> u32 {
    let value = rest >> 1;
    let mut rank = at_most(list.keys[0], value) + at_most(list.keys[1], value);
    if keys > 2 {
        rank += at_most(list.keys[2], value) + at_most(list.keys[3], value);
        if keys > 4 {
            rank += at_most(list.keys[4], value) + at_most(list.keys[5], value);
        }
    }
    u32::from(list.classes[(rank & 7) as usize])
}

#[inline(always)]
fn skip(node: &Skip, rest: &mut u64) -> Entry {
    if (*rest ^ node.prefix).wrapping_shr(u32::from(node.right)) == 0 {
        *rest = rest.wrapping_shl(u32::from(node.left));
        return node.child;
    }
    beside(node, *rest, node.prefix)
}

/// Leaves the lower half in `rest` if the address passes.
#[inline(always)]
fn cross(node: &Skip, rest: &mut u64, lower: u64) -> Entry {
    if *rest != node.prefix {
        return beside(node, *rest, node.prefix);
    }
    let differing = (lower ^ node.lower).wrapping_shr(u32::from(node.right));
    if differing.wrapping_shr(u32::from(node.right_more)) == 0 {
        *rest = lower.wrapping_shl(u32::from(node.left));
        return node.child;
    }
    beside(node, lower, node.lower)
}

#[inline(always)]
fn beside(node: &Skip, address: u64, shared: u64) -> Entry {
    if address < shared {
        node.below
    } else {
        node.above
    }
}
