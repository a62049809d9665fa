//! The table of flows, as the map that it lies in.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg},
    ptr::NonNull,
};

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps},
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::btf_map,
};
use headgate_layout::flows::{self, BYTES, Flow, SECOND, Shared};
use headgate_packet::flows::FlowTable;

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

type Table = Array<[u64; BYTES as usize / 8], 1, MMAPABLE>;

#[btf_map]
static FLOWS: ArrayOfMaps<Table, 1> = ArrayOfMaps::new();

/// The value of the one map in `FLOWS`.
#[derive(Clone, Copy)]
pub struct MapFlows {
    start: NonNull<u8>,
}

impl MapFlows {
    /// The table, where there is one.
    #[inline(always)]
    pub fn get() -> Option<Self> {
        // A variable: see `maps::Node::tables`.
        let only = 0;
        let table = FLOWS.get_value_ptr_mut(0, &only)?;
        Some(Self {
            start: NonNull::new(table)?.cast(),
        })
    }

    #[inline(always)]
    fn at<T>(&self, offset: u32) -> Option<&T> {
        if offset > BYTES - size_of::<T>() as u32 {
            return None;
        }
        // SAFETY: a T from `offset` on lies in the map's value, which stays while the program runs, and is
        // aligned, as its offset is a multiple of its size or of 8. It is made of `Shared`s, which others may write.
        Some(unsafe { &*self.start.as_ptr().add(offset as usize).cast::<T>() })
    }
}

impl FlowTable for MapFlows {
    #[inline(always)]
    fn flow(&self, number: u32) -> Option<&Flow> {
        self.at(flows::at(number))
    }

    #[inline(always)]
    fn entry(&self, offset: u32) -> Option<&Shared<u64>> {
        self.at(offset)
    }

    #[inline(always)]
    fn exchange_guard(&self, word: &Shared<u32>, old: u32, new: u32) -> bool {
        exchange(word, old, new)
    }

    #[inline(always)]
    fn exchange_entry(&self, word: &Shared<u64>, old: u64, new: u64) -> bool {
        exchange(word, old, new)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: a helper without arguments.
        (unsafe { bpf_ktime_get_coarse_ns() } >> SECOND) as u32
    }
}

#[inline(always)]
pub(crate) fn exchange<T: Copy>(word: &Shared<T>, old: T, new: T) -> bool {
    const ORDER: AtomicOrdering = AtomicOrdering::SeqCst;
    // SAFETY: a word of the map's value, aligned; the instruction is BPF's own (BPF_CMPXCHG), and both types
    // that this is asked for are its sizes.
    unsafe { atomic_cxchg::<T, { ORDER }, { ORDER }>(word.as_ptr(), old, new).1 }
}
