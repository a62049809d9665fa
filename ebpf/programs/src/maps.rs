//! The maps, as `headgate_layout::maps` lists them, and what is compiled in at load time.

use core::{cell::Cell, ptr::NonNull};

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, LpmTrie, PerCpuArray},
    macros::btf_map,
    maps::lpm_trie::Key,
};
use headgate_layout::{
    failsafe::{
        BITMAP_BYTES, CHANGING, FAMILY_V4, FAMILY_V6, MAX_NESTING, MAX_PEERS, Peer, bit_v4, bit_v6,
    },
    maps::{
        DIGEST_FROM_END, LINE, MAX_COUNTERS, MAX_PORTS, RING_BLOCKS as RING_BLOCKS_SPEC, SLOTS,
        ring_block_index, tables_index,
    },
    services::{RING_CAPACITY, RingPlace},
    verdict::{Count, REASON_SLOTS},
};
use headgate_packet::{
    balance::{Question, find},
    failsafe::Claim,
    flows::Known,
    judge::Environment,
    parse::Addresses,
    tables::{TableValue, Tables},
};

use crate::flows::MapFlows;

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// Shape of a block as far as the object knows it: its real size is set where the map is made.
type Block = Array<[u64; 8], 1, MMAPABLE>;

#[btf_map]
static ACTIVE: Array<u32, 1> = Array::new();

#[btf_map]
static TABLES: ArrayOfMaps<Block, { (SLOTS * MAX_PORTS) as usize }> = ArrayOfMaps::new();

#[btf_map]
static RING_BLOCKS: ArrayOfMaps<Block, { RING_BLOCKS_SPEC.max_entries as usize }> =
    ArrayOfMaps::new();

#[btf_map]
pub static RULE_COUNTERS: PerCpuArray<Count, { MAX_COUNTERS as usize }> = PerCpuArray::new();

#[btf_map]
pub static REASON_COUNTERS: PerCpuArray<Count, { (MAX_PORTS * REASON_SLOTS) as usize }> =
    PerCpuArray::new();

#[btf_map]
static FAILSAFE: LpmTrie<[u8; 16], Peer, { (CHANGING * MAX_PEERS) as usize }> = LpmTrie::new();

#[btf_map]
static FAILSAFE_BITS: Array<[u8; BITMAP_BYTES as usize], 1> = Array::new();

/// Index of the interface that this program is loaded for; set at load time.
#[unsafe(no_mangle)]
static PORT: u32 = 0;

/// Largest offset in the tables at which a whole line can be read; set at load time to the capacity
/// less a line.
#[unsafe(no_mangle)]
static LIMIT: u32 = 0;

/// This program's port index.
#[inline(always)]
pub fn port() -> u32 {
    // SAFETY: a live static; volatile, so that the value set at load time is read and not the one
    // that the compiler sees.
    unsafe { core::ptr::read_volatile(&raw const PORT) }
}

/// Adds one packet of `length` bytes.
#[inline(always)]
pub fn count(counter: Option<*mut Count>, length: u32) {
    if let Some(counter) = counter {
        // SAFETY: the kernel gave this CPU's own value, and an XDP program is not interrupted by
        // another on its CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(length);
        }
    }
}

/// The maps, as what a verdict needs.
pub struct Node<const BALANCES: bool> {
    /// The slot whose tables were asked; one that there is not, before any were.
    slot: Cell<u32>,
}

impl<const BALANCES: bool> Default for Node<BALANCES> {
    #[inline(always)]
    fn default() -> Self {
        Self {
            slot: Cell::new(SLOTS),
        }
    }
}

impl<const BALANCES: bool> Node<BALANCES> {
    /// The slot that the verdict is from; one that there is not, if none was asked.
    #[inline(always)]
    pub fn slot(&self) -> u32 {
        self.slot.get()
    }
}

/// Where this port's tables in `slot` begin.
#[inline(always)]
fn start_of(slot: u32) -> Option<NonNull<u8>> {
    // A variable: the compiler would keep a constant `&0` in the place of one of the statics above, which are
    // 0 as well until they are set at load time.
    let only = 0;
    let block = TABLES.get_value_ptr_mut(tables_index(slot, port()), &only)?;
    Some(NonNull::new(block)?.cast())
}

impl<const BALANCES: bool> Environment for Node<BALANCES> {
    const BALANCES: bool = BALANCES;

    type Tables = MapTables;
    type Flows = MapFlows;

    #[inline(always)]
    fn tables(&self) -> Option<MapTables> {
        let slot = *ACTIVE.get(0)?;
        let start = start_of(slot)?;
        self.slot.set(slot);
        Some(MapTables::new(start, slot))
    }

    #[inline(always)]
    fn find(&self, _: &MapTables, question: &Question, flow: &mut Known) -> u32 {
        headgate_find(self.slot(), question, flow)
    }

    #[inline(always)]
    fn flows(&self) -> Option<MapFlows> {
        MapFlows::get()
    }

    #[inline(always)]
    fn is_failsafe_peer(&self, addresses: &Addresses, claim: Claim) -> bool {
        let (bit, family, address) = match *addresses {
            Addresses::V4 { source, .. } => (
                bit_v4(source),
                FAMILY_V4,
                (0, 0xffff_0000_0000 | u64::from(source)),
            ),
            Addresses::V6 { source, .. } => (bit_v6(source.0), FAMILY_V6, source),
        };
        let Some(bits) = FAILSAFE_BITS.get(0) else {
            return false;
        };
        let Some(byte) = bits.get((bit >> 3) as usize) else {
            return false;
        };
        byte & (1 << (bit & 7)) != 0 && is_granted(address.0, address.1, family, claim)
    }
}

/// What the services of a slot's tables say: see [`Environment::find`].
///
/// A function that is seen from outside, as others of this name: the verifier walks it once, by its types alone,
/// and not for each way that leads to it. So it is given a slot and not the tables, which would have no bounds, and
/// nothing that it does not use: the compiler would not pass it, and the verifier asks for it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn headgate_find(slot: u32, question: *const Question, flow: *mut Known) -> u32 {
    // SAFETY: the caller's own, which live and are aligned; the verifier wants to see that they are there.
    let Some(question) = (unsafe { question.as_ref() }) else {
        return 0;
    };
    // SAFETY: as above.
    let Some(flow) = (unsafe { flow.as_mut() }) else {
        return 0;
    };
    match MapTables::of(slot) {
        Some(tables) => find(&Node::<true>::default(), &tables, question, flow),
        None => 0,
    }
}

/// Whether the peer with this address may send what has this claim. A function of its own: what it keeps
/// would take room on the stack of the program's other calls.
#[inline(never)]
fn is_granted(high: u64, low: u64, family: u16, claim: Claim) -> bool {
    let address = (u128::from(high) << 64) | u128::from(low);
    let mut aligned = AlignedKey {
        _padding: 0,
        key: Key::new(128, address.to_be_bytes()),
    };
    for _ in 0..CHANGING * MAX_NESTING {
        let Some(peer) = FAILSAFE.get(&aligned.key) else {
            return false;
        };
        if peer.family == family && claim.granted_by(peer) {
            return true;
        }
        if peer.prefix_length == 0 {
            return false;
        }
        aligned.key.prefix_len = peer.prefix_length - 1;
    }
    false
}

/// A key whose address lies at a multiple of 8: the compiler writes it in two words, and the verifier
/// refuses words on the stack that are not aligned.
#[repr(C, align(8))]
struct AlignedKey {
    _padding: u32,
    key: Key<[u8; 16]>,
}

/// One block, as the value of an inner map.
#[derive(Clone, Copy)]
pub struct MapTables {
    start: NonNull<u8>,
    limit: u32,
    slot: u32,
}

impl MapTables {
    /// This port's tables in `slot`.
    #[inline(always)]
    pub fn of(slot: u32) -> Option<Self> {
        start_of(slot).map(|start| Self::new(start, slot))
    }

    /// The tables that begin there, in a block of `slot`.
    #[inline(always)]
    fn new(start: NonNull<u8>, slot: u32) -> Self {
        // SAFETY: as in `port`.
        let limit = unsafe { core::ptr::read_volatile(&raw const LIMIT) };
        Self { start, limit, slot }
    }

    /// The beginning of the digest, as the builder wrote it behind the tables.
    #[inline(always)]
    pub fn digest(&self) -> Option<[u8; 8]> {
        let line = self.at::<[[u8; 8]; LINE as usize / 8]>(self.limit)?;
        Some(line[(LINE - DIGEST_FROM_END) as usize / 8])
    }
}

impl Tables for MapTables {
    #[inline(always)]
    fn at<T: TableValue>(&self, offset: u32) -> Option<&T> {
        if offset > self.limit {
            return None;
        }
        // SAFETY: a T is at most a line (checked where it is compiled), and a line from `offset`
        // on lies in the map's value, which stays while the program runs; the builder aligns.
        Some(unsafe { &*self.start.as_ptr().add(offset as usize).cast::<T>() })
    }

    #[inline(always)]
    fn ring_entry(&self, ring: RingPlace, entry: u32) -> Option<u16> {
        let offset = ring.offset + entry * 2;
        let Some(number) = ring.block else {
            return self.at(offset).copied();
        };
        // A variable: see `start_of`.
        let only = 0;
        let index = ring_block_index(self.slot, port(), number);
        let start: *const u8 = RING_BLOCKS.get_value_ptr_mut(index, &only)?.cast();
        if offset > RING_CAPACITY - LINE {
            return None;
        }
        // SAFETY: the two bytes lie in the map's value, which has RING_CAPACITY of them and stays while the
        // program runs; the offset is even.
        Some(unsafe { *start.add(offset as usize).cast::<u16>() })
    }
}
