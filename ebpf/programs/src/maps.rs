//! The maps, as `headgate_layout::maps` lists them, and what is compiled in at load time.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, LpmTrie, PerCpuArray},
    macros::btf_map,
    maps::lpm_trie::Key,
};
use headgate_layout::{
    failsafe::{BITMAP_BYTES, FAMILY_V4, FAMILY_V6, MAX_PEERS, bit_v4, bit_v6},
    maps::{MAX_COUNTERS, MAX_PORTS, SLOTS, tables_index},
    verdict::{Count, REASON_SLOTS},
};
use headgate_packet::{
    judge::Environment,
    parse::Addresses,
    tables::{TableValue, Tables},
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// Shape of a block as far as the object knows it: its real size is set where the map is made.
type Block = Array<[u64; 8], 1, MMAPABLE>;

#[btf_map]
static ACTIVE: Array<u32, 1> = Array::new();

#[btf_map]
static TABLES: ArrayOfMaps<Block, { (SLOTS * MAX_PORTS) as usize }> = ArrayOfMaps::new();

#[btf_map]
pub static RULE_COUNTERS: PerCpuArray<Count, { MAX_COUNTERS as usize }> = PerCpuArray::new();

#[btf_map]
pub static REASON_COUNTERS: PerCpuArray<Count, { (MAX_PORTS * REASON_SLOTS) as usize }> =
    PerCpuArray::new();

#[btf_map]
static FAILSAFE: LpmTrie<[u8; 16], u32, { MAX_PEERS as usize }> = LpmTrie::new();

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
pub struct Node;

impl Environment for Node {
    type Tables = MapTables;

    #[inline(always)]
    fn tables(&self) -> Option<MapTables> {
        let slot = *ACTIVE.get(0)?;
        // A variable: the compiler would keep a constant `&0` in the place of one of the statics
        // above, which are 0 as well until they are set at load time.
        let only = 0;
        let block = TABLES.get_value_ptr_mut(tables_index(slot, port()), &only)?;
        // SAFETY: as in `port`.
        let limit = unsafe { core::ptr::read_volatile(&raw const LIMIT) };
        Some(MapTables {
            start: block.cast(),
            limit,
        })
    }

    #[inline(always)]
    fn is_failsafe_peer(&self, addresses: &Addresses) -> bool {
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
        if byte & (1 << (bit & 7)) == 0 {
            return false;
        }
        let address = (u128::from(address.0) << 64) | u128::from(address.1);
        let aligned = AlignedKey {
            _padding: 0,
            key: Key::new(128, address.to_be_bytes()),
        };
        FAILSAFE
            .get(&aligned.key)
            .is_some_and(|entry| *entry == family)
    }
}

/// A key whose address lies at a multiple of 8: the compiler writes it in two words, and the verifier
/// refuses words on the stack that are not aligned.
#[repr(C, align(8))]
struct AlignedKey {
    _padding: u32,
    key: Key<[u8; 16]>,
}

/// One block, as the value of an inner map.
pub struct MapTables {
    start: *const u8,
    limit: u32,
}

impl Tables for MapTables {
    #[inline(always)]
    fn at<T: TableValue>(&self, offset: u32) -> Option<&T> {
        if offset > self.limit {
            return None;
        }
        // SAFETY: a T is at most a line (checked where it is compiled), and a line from `offset`
        // on lies in the map's value, which stays while the program runs; the builder aligns.
        Some(unsafe { &*self.start.add(offset as usize).cast::<T>() })
    }
}
