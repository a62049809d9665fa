//! Waiting until no program still runs with what it read before.

use headgate_datapath::{kernel::KernelError, state::Capacity};
use headgate_layout::maps::{MapSpec, TABLES};

use crate::{blocks, bpf::Map, error::Asked};

/// A map of maps whose only use is that the kernel returns from an update of it when every program
/// that was running has ended (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c).
///
/// membarrier(2) promises the same for memory accesses, but returns at once on one CPU, where a
/// preemptible kernel may have put a program aside, and refuses on nohz_full kernels.
#[derive(Debug)]
pub(crate) struct GracePeriod {
    outer: Map,
    inner: Map,
}

impl GracePeriod {
    pub(crate) fn new() -> Result<Self, KernelError> {
        let inner = blocks::create(Capacity(64), "hg_grace")?;
        let spec = MapSpec {
            max_entries: 1,
            ..TABLES
        };
        let outer = Map::create(&spec, "hg_grace", Some(&inner))
            .asked(|| "making a map to wait by".to_owned())?;
        Ok(Self { outer, inner })
    }

    pub(crate) fn wait(&self) -> Result<(), KernelError> {
        self.outer
            .update_map(0, &self.inner)
            .asked(|| "waiting for a grace period".to_owned())
    }
}
