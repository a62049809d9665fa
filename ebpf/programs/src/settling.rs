//! The table of placements, as the map that it lies in.

use core::ptr::NonNull;

use aya_ebpf::{btf_maps::Array, helpers::generated::bpf_ktime_get_coarse_ns, macros::btf_map};
use headgate_layout::{
    flows::{SECOND, Shared},
    settling::{BYTES, Placement, at},
};
use headgate_packet::settling::PlacementTable;

use crate::flows::exchange;

#[btf_map]
static PLACEMENTS: Array<[u64; BYTES as usize / 8], 1> = Array::new();

/// The value of `PLACEMENTS`.
#[derive(Clone, Copy)]
pub struct MapPlacements {
    start: NonNull<u8>,
}

impl MapPlacements {
    /// The table.
    #[inline(always)]
    pub fn get() -> Option<Self> {
        let table = PLACEMENTS.get_ptr_mut(0)?;
        Some(Self {
            start: NonNull::new(table)?.cast(),
        })
    }
}

impl PlacementTable for MapPlacements {
    #[inline(always)]
    fn placement(&self, number: u32) -> Option<&Placement> {
        let offset = at(number);
        if offset > BYTES - size_of::<Placement>() as u32 {
            return None;
        }
        // SAFETY: a placement from `offset` on lies in the map's value, which stays while the program runs, and
        // is aligned, as its offset is a multiple of its size. It is made of `Shared`s, which others may write.
        Some(unsafe { &*self.start.as_ptr().add(offset as usize).cast() })
    }

    #[inline(always)]
    fn exchange(&self, word: &Shared<u64>, old: u64, new: u64) -> bool {
        exchange(word, old, new)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: a helper without arguments.
        (unsafe { bpf_ktime_get_coarse_ns() } >> SECOND) as u32
    }
}
