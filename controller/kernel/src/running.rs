//! The running kernel as `headgate_datapath` wants it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
    time::Duration,
};

use headgate_datapath::{
    kernel::KernelError,
    state::{Capacity, Digest, PortIndex},
};
use headgate_layout::{
    tunnel::Event,
    verdict::{Count, Reason},
};

use crate::{
    blocks::BlockReader,
    bpf::{Link, Map, Program, TestRun},
    bpffs, counters,
    error::{Asked, if_present},
    features::probe,
    flows::{self, FoundFlow},
    grace::GracePeriod,
    monitor::{Filter, Monitor},
    pins::{Instance, LINK_FOLDERS, Pins, names_in, unpin},
    shared::Shared,
    tunnel::{self, Ways},
};

/// The running kernel, as far as one instance has a part in it.
///
/// Everything is found again by its pins: two of these on the same instance see the same. Only one
/// may apply steps; the caller sees to that.
#[derive(Debug)]
pub struct RunningKernel {
    pub(crate) pins: Pins,
    pub(crate) blocks: BlockReader,
    /// The ways to the tunnel's networks, as far as they were asked for.
    pub(crate) ways: Ways,
    /// Blocks built since the last look that may stand in no slot yet.
    pub(crate) built: BTreeMap<(Digest, Capacity), Map>,
    pub(crate) grace: Option<GracePeriod>,
    /// A grace period has passed since the last flip; what an earlier process did is unknown.
    pub(crate) settled: bool,
    /// See [`Self::attach_by_clsact`].
    pub(crate) by_clsact: bool,
}

impl RunningKernel {
    /// For one who applies steps: checks what the node must offer, and mounts a BPF file system at
    /// `bpffs` (by custom [`crate::DEFAULT_BPFFS`]) where there is none.
    ///
    /// # Errors
    /// [`KernelError::Unusable`] names what is missing and what to do about it.
    pub fn open(instance: &Instance, bpffs: &Path) -> Result<Self, KernelError> {
        let pins = Pins::new(instance, bpffs)?;
        probe()?;
        bpffs::mount_if_absent(bpffs)?;
        bpffs::check_writable(bpffs)?;
        Ok(Self::with(pins))
    }

    /// For one who only looks, or takes everything down: nothing is made or mounted.
    ///
    /// # Errors
    /// [`KernelError::Unusable`] where there is no BPF file system at `bpffs`: the pins may be there
    /// without being seen, so this is not the same as none.
    pub fn open_read_only(instance: &Instance, bpffs: &Path) -> Result<Self, KernelError> {
        let pins = Pins::new(instance, bpffs)?;
        bpffs::check_mounted(bpffs)?;
        Ok(Self::with(pins))
    }

    fn with(pins: Pins) -> Self {
        Self {
            pins,
            blocks: BlockReader::default(),
            ways: Ways::default(),
            built: BTreeMap::new(),
            grace: None,
            settled: false,
            by_clsact: false,
        }
    }

    /// From here on attaches the tunnel's programs by clsact, as on a kernel without TCX, whatever this one has.
    pub fn attach_by_clsact(&mut self) {
        self.by_clsact = true;
    }

    /// Packets and bytes of these rule counters, over all CPUs. Quick: batched reads.
    ///
    /// # Errors
    /// Where the maps are missing or cannot be read.
    pub fn rule_counters(
        &self,
        indices: &BTreeSet<u32>,
    ) -> Result<BTreeMap<u32, Count>, KernelError> {
        counters::read(&Shared::required(&self.pins)?.rule_counters, indices)
    }

    /// Packets and bytes by port and reason, over all CPUs; every reason of every port is there.
    ///
    /// # Errors
    /// Where the maps are missing or cannot be read.
    pub fn reason_counters(
        &self,
        ports: &BTreeSet<PortIndex>,
    ) -> Result<BTreeMap<(PortIndex, Reason), Count>, KernelError> {
        counters::read_reasons(&Shared::required(&self.pins)?.reason_counters, ports)
    }

    /// Packets and bytes at the tunnel's device, by what became of them; empty where there never was one.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn tunnel_counters(&self) -> Result<BTreeMap<Event, Count>, KernelError> {
        tunnel::counters(&self.pins)
    }

    /// How long ago the tunnel took a packet from each endpoint, to a second; those that it took none from are
    /// missing.
    ///
    /// # Errors
    /// Where the maps cannot be read.
    pub fn tunnel_seen(&self) -> Result<BTreeMap<IpAddr, Duration>, KernelError> {
        tunnel::seen(&self.pins)
    }

    /// The flows that go through Nat at this moment.
    ///
    /// # Errors
    /// Where the maps are missing or cannot be read.
    pub fn flows(&self) -> Result<Vec<FoundFlow>, KernelError> {
        flows::read(&Shared::required(&self.pins)?.flows)
    }

    /// Runs the program behind the link of `port` on an Ethernet frame, `repeat` times. It counts
    /// as it would for a frame that arrives.
    ///
    /// # Errors
    /// Where there is no link, or the kernel refuses the frame (it wants 14 bytes at least).
    pub fn run_program(
        &self,
        port: PortIndex,
        frame: &[u8],
        repeat: u32,
    ) -> Result<TestRun, KernelError> {
        Link::pinned(&self.pins.link(port))
            .and_then(|link| Program::by_id(link.info()?.program_id))
            .and_then(|program| program.test_run(frame, repeat))
            .asked(|| format!("running the program of {port} on a frame"))
    }

    /// Has programs tell their verdicts, until what is given is dropped. One at a time.
    ///
    /// # Errors
    /// Where the maps are missing, or somebody else monitors.
    pub fn monitor(&self, filter: &Filter) -> Result<Monitor, KernelError> {
        Monitor::start(&self.pins, filter)
    }

    /// Instructions that the verifier walked of the program behind the link of `port`; beyond a
    /// million it would have refused it.
    ///
    /// # Errors
    /// Where there is no link.
    pub fn verified_instructions(&self, port: PortIndex) -> Result<u32, KernelError> {
        Link::pinned(&self.pins.link(port))
            .and_then(|link| Program::by_id(link.info()?.program_id))
            .and_then(|program| program.verified_instructions())
            .asked(|| format!("looking at the program of {port}"))
    }

    /// Takes every program of this instance off its interface and forgets everything pinned, of
    /// other layout versions too. Gives the number of interfaces' links that were taken off, the tunnel's
    /// device counted as one.
    ///
    /// # Errors
    /// The first that occurs; what can be taken down is, nevertheless, and links come first.
    pub fn detach_all(&mut self) -> Result<usize, KernelError> {
        self.built.clear();
        let root = self.pins.instance().to_owned();
        let mut versions = Vec::new();
        for name in names_in(&root)? {
            versions.push(root.join(name));
        }
        let mut failed = None;
        let mut detached = 0;
        for version in &versions {
            for links in LINK_FOLDERS.map(|folder| version.join(folder)) {
                let names = names_in(&links).unwrap_or_else(|error| {
                    failed.get_or_insert(error);
                    Vec::new()
                });
                for name in names {
                    match take_off(&links.join(name)) {
                        Ok(()) => detached += 1,
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
            }
        }
        let had_tunnel = tunnel::is_pinned(&self.pins);
        let removed = tunnel::remove(&self.pins);
        if let Some(error) = failed {
            return Err(error);
        }
        removed?;
        detached += usize::from(had_tunnel?);
        if_present(fs::remove_dir_all(&root))
            .asked(|| format!("removing the folder {}", root.display()))?;
        // Stays while another instance has pins.
        if let Some(all_instances) = root.parent() {
            drop(fs::remove_dir(all_instances));
        }
        Ok(detached)
    }
}

/// Detaches the link pinned at `path` and removes the pin.
fn take_off(path: &Path) -> Result<(), KernelError> {
    Link::pinned(path)
        .and_then(|link| link.detach())
        .asked(|| format!("detaching the link {}", path.display()))?;
    unpin(path)
}
