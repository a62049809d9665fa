//! A kernel in memory, for tests: it holds what a plan builds, refuses what the real one would
//! refuse, and can fail any kind of step once.

use std::collections::{BTreeMap, BTreeSet};

use headgate_layout::{
    failsafe::{CHANGING, MAX_PASSAGES},
    services::RING_CAPACITY,
};

use crate::{
    failsafe::{FailsafePeer, Passage, by_prefix},
    invariants::violations,
    kernel::{Applied, Kernel, KernelError},
    observed::{Attached, AttachedEgress, AttachedOverlay, Observed, Slot},
    plan::{BlockOrigin, RingEntry, Step, StepKind},
    state::{AttachedMode, Block, Capacity, DatapathState, Digest, Ifindex, PortIndex, WantedMode},
    tunnel::{FoundDevice, ObservedTunnel, TunnelDevice},
};

/// See the module.
#[derive(Debug, Default)]
pub struct FakeKernel {
    /// What there is.
    pub state: Observed,
    /// Digest of the object that programs are loaded from.
    pub object: Option<Digest>,
    /// Interfaces whose driver refuses native mode.
    pub generic_only: BTreeSet<Ifindex>,
    /// Interfaces with somebody else's program.
    pub foreign: BTreeSet<Ifindex>,
    /// The kind of step that fails at its next run.
    pub fail_next: Option<StepKind>,
    /// Every step that was asked for, in order.
    pub log: Vec<Step>,
    /// Every broken invariant that was seen after a step.
    pub broken: Vec<String>,
    built: BTreeSet<(Digest, Capacity)>,
    links_made: u32,
}

impl FakeKernel {
    /// An empty kernel that loads programs from this object.
    #[must_use]
    pub fn new(object: Digest) -> Self {
        Self {
            object: Some(object),
            ..Self::default()
        }
    }

    /// Brings the kernel to `wanted` by as many runs as it takes, at most three.
    ///
    /// # Panics
    /// Where it does not converge: this is for tests.
    pub fn converge(&mut self, wanted: &DatapathState) {
        let object = self.object.expect("a kernel with an object");
        for _ in 0..3 {
            let plan = crate::diff::diff(&self.state, wanted, object).expect("a plan");
            if plan.is_empty() {
                return;
            }
            crate::kernel::carry_out(self, plan, &wanted.blocks);
        }
        let rest = crate::diff::diff(&self.state, wanted, object).expect("a plan");
        assert!(rest.is_empty(), "does not converge; left:\n{rest}");
    }

    fn refuse(what: impl Into<String>) -> KernelError {
        KernelError::Call {
            what: what.into(),
            source: std::io::Error::other("refused by the fake kernel"),
        }
    }

    fn build(
        &mut self,
        digest: Digest,
        capacity: Capacity,
        origin: BlockOrigin,
        blocks: &BTreeMap<Digest, Block>,
    ) -> Result<(), KernelError> {
        let there = match origin {
            BlockOrigin::Wanted => blocks
                .get(&digest)
                .is_some_and(|block| block.length() <= capacity.0),
            BlockOrigin::Copy { from } => self.stands(digest, from),
        };
        if !there {
            return Err(Self::refuse(format!("no content for {digest:?}")));
        }
        if let Some(block) = blocks.get(&digest)
            && !block.ring_blocks().is_empty()
        {
            let named = block.ring_blocks().iter().map(Block::digest).collect();
            self.state.named_ring_blocks.insert(digest, named);
        }
        self.built.insert((digest, capacity));
        Ok(())
    }

    fn write_slots(
        &mut self,
        capacity: Capacity,
        entries: &BTreeMap<(Slot, PortIndex), Digest>,
    ) -> Result<(), KernelError> {
        for digest in entries.values() {
            let ready = self.built.contains(&(*digest, capacity)) || self.stands(*digest, capacity);
            if !ready {
                return Err(Self::refuse(format!("{digest:?} is not built")));
            }
        }
        let Some(slots) = self.state.slots.get_mut(&capacity) else {
            return Err(Self::refuse(format!("no slots of {capacity}")));
        };
        slots.extend(entries.iter().map(|(key, digest)| (*key, *digest)));
        Ok(())
    }

    fn write_ring_blocks(
        &mut self,
        entries: &BTreeMap<RingEntry, Digest>,
    ) -> Result<(), KernelError> {
        let capacity = Capacity(RING_CAPACITY);
        for (entry, digest) in entries {
            let standing = &mut self.state.ring_blocks;
            let stands = standing.values().flatten().any(|held| held == digest);
            if !stands && !self.built.contains(&(*digest, capacity)) {
                return Err(Self::refuse(format!("{digest:?} is not built")));
            }
            let present = standing.entry((entry.slot, entry.port)).or_default();
            let number = entry.number as usize;
            if number > present.len() {
                return Err(Self::refuse("a gap in the ring blocks"));
            }
            match present.get_mut(number) {
                Some(held) => *held = *digest,
                None => present.push(*digest),
            }
        }
        Ok(())
    }

    fn clear_ring_blocks(&mut self, entries: &BTreeSet<RingEntry>) {
        for entry in entries {
            let place = (entry.slot, entry.port);
            let present = self.state.ring_blocks.entry(place).or_default();
            present.truncate(entry.number as usize);
            if present.is_empty() {
                self.state.ring_blocks.remove(&place);
            }
        }
    }

    fn add_failsafe(&mut self, peers: &BTreeSet<FailsafePeer>) -> Result<(), KernelError> {
        let all = &self.state.failsafe | peers;
        let room = (CHANGING * MAX_PASSAGES) as usize;
        for (prefix, mut passages) in by_prefix(&all) {
            passages.remove(&Passage::Everything);
            if passages.len() > room {
                return Err(Self::refuse(format!("no room for {prefix}")));
            }
        }
        self.state.failsafe = all;
        Ok(())
    }

    fn stands(&self, digest: Digest, capacity: Capacity) -> bool {
        self.state
            .slots
            .get(&capacity)
            .is_some_and(|entries| entries.values().any(|held| *held == digest))
    }

    fn attach(&mut self, step: &Step) -> Result<Applied, KernelError> {
        let (Step::Attach {
            port,
            interface,
            ifindex,
            mode,
            capacity,
        }
        | Step::ChangeMode {
            port,
            interface,
            ifindex,
            mode,
            capacity,
        }) = step
        else {
            return Err(Self::refuse("not an attach step"));
        };
        let taken = self
            .state
            .links
            .iter()
            .any(|(other, link)| other != port && link.ifindex == Some(*ifindex));
        if taken || self.foreign.contains(ifindex) {
            return Err(KernelError::Foreign {
                interface: interface.clone(),
                program_id: 1,
                program_name: "foreign".into(),
            });
        }
        let native = *mode != WantedMode::Generic && !self.generic_only.contains(ifindex);
        if !native && *mode == WantedMode::Native {
            return Err(KernelError::Attach {
                interface: interface.clone(),
                mode: AttachedMode::Native,
                source: std::io::Error::from_raw_os_error(95),
            });
        }
        let mode = if native {
            AttachedMode::Native
        } else {
            AttachedMode::Generic
        };
        self.links_made += 1;
        let link = Attached {
            ifindex: Some(*ifindex),
            mode,
            object: self.object,
            capacity: *capacity,
            link_id: self.links_made,
            program_id: self.links_made,
        };
        self.state.links.insert(*port, link);
        Ok(Applied::Attached {
            mode,
            refusal: None,
        })
    }

    /// A device is made down. One of another port is made anew; another address flushes neighbours, as in the kernel.
    fn make_tunnel_device(&mut self, device: TunnelDevice) {
        let tunnel = &mut self.state.tunnel;
        let former = tunnel.device.map(|found| found.device);
        let stays = former.is_some_and(|former| former.port == device.port);
        let is_up = stays && tunnel.device.is_some_and(|found| found.is_up);
        if former.is_some_and(|former| former.port != device.port) {
            *tunnel = ObservedTunnel {
                tables: tunnel.tables,
                pods: std::mem::take(&mut tunnel.pods),
                ..ObservedTunnel::default()
            };
        }
        if former.is_some_and(|former| former.mac != device.mac) {
            tunnel.neighbours.clear();
        }
        tunnel.device = Some(FoundDevice { device, is_up });
    }

    fn execute_at_tunnel(&mut self, step: &Step) -> Result<(), KernelError> {
        let tunnel = &mut self.state.tunnel;
        if matches!(step, Step::RemoveTunnel) {
            *tunnel = ObservedTunnel::default();
            return Ok(());
        }
        if let Step::SetTunnelPods { pods, gone } = step {
            tunnel.pods.retain(|address, _| !gone.contains(address));
            tunnel.pods.extend(pods);
            return Ok(());
        }
        let Some(device) = &mut tunnel.device else {
            return Err(Self::refuse("there is no device"));
        };
        match step {
            Step::LowerTunnel => {
                device.is_up = false;
                tunnel.routes.clear();
                tunnel.neighbours.clear();
            }
            Step::RaiseTunnel => device.is_up = true,
            Step::AttachTunnel => tunnel.programs = self.object,
            Step::SetTunnelRoutes { .. } if !device.is_up => {
                return Err(Self::refuse("the device is down"));
            }
            Step::SetTunnelRoutes { neighbours, routes } => {
                let native = &mut self.state.native.routes;
                native.retain(|prefix, _| !routes.contains_key(prefix));
                tunnel.neighbours.extend(neighbours);
                tunnel.routes.extend(routes);
            }
            Step::RemoveTunnelRoutes { routes, neighbours } => {
                tunnel.routes.retain(|prefix, _| !routes.contains(prefix));
                tunnel.neighbours.retain(|at, _| !neighbours.contains(at));
            }
            _ => {}
        }
        Ok(())
    }

    fn execute(
        &mut self,
        step: &Step,
        blocks: &BTreeMap<Digest, Block>,
    ) -> Result<Applied, KernelError> {
        match step {
            Step::Prepare => self.state.prepared = true,
            Step::AddFailsafe(peers) => self.add_failsafe(peers)?,
            Step::RemoveFailsafe(peers) => self.state.failsafe.retain(|p| !peers.contains(p)),
            Step::ResetCounters(_) => {}
            Step::MakeSlots(capacity) => {
                self.state.slots.entry(*capacity).or_default();
            }
            Step::Build {
                digest,
                capacity,
                origin,
            } => self.build(*digest, *capacity, *origin, blocks)?,
            Step::WriteSlots { capacity, entries } => self.write_slots(*capacity, entries)?,
            Step::BuildRingBlocks(digests) => {
                for digest in digests {
                    let capacity = Capacity(RING_CAPACITY);
                    self.build(*digest, capacity, BlockOrigin::Wanted, blocks)?;
                }
            }
            Step::WriteRingBlocks(entries) => self.write_ring_blocks(entries)?,
            Step::ClearRingBlocks(entries) => self.clear_ring_blocks(entries),
            Step::ReplaceProgram { port, capacity } => {
                let Some(link) = self.state.links.get_mut(port) else {
                    return Err(Self::refuse(format!("{port} has no link")));
                };
                link.capacity = *capacity;
                link.object = self.object;
            }
            Step::Flip(slot) => {
                self.state.active = *slot;
                self.state.settled = false;
            }
            Step::Settle => self.state.settled = true,
            Step::Attach { .. } | Step::ChangeMode { .. } => return self.attach(step),
            Step::Detach(port) => {
                self.state.links.remove(port);
            }
            Step::ClearSlots { capacity, entries } => {
                if let Some(slots) = self.state.slots.get_mut(capacity) {
                    slots.retain(|key, _| !entries.contains(key));
                }
            }
            Step::RemoveSlots(capacity) => {
                self.state.slots.remove(capacity);
            }
            Step::MakeFlows => self.state.flows = true,
            Step::RemoveFlows => self.state.flows = false,
            Step::AttachEgress { .. } | Step::AttachOverlay { .. } if !self.state.flows => {
                return Err(Self::refuse("there is no table of flows"));
            }
            Step::AttachEgress { port, ifindex, .. } => {
                let attached = AttachedEgress {
                    ifindex: Some(*ifindex),
                    object: self.object,
                };
                self.state.egress.insert(*port, attached);
            }
            Step::DetachEgress(port) => {
                self.state.egress.remove(port);
            }
            Step::AttachOverlay { ifindex, .. } => {
                let attached = AttachedOverlay {
                    is_there: true,
                    object: self.object,
                };
                self.state.overlay.insert(*ifindex, attached);
            }
            Step::ForgetFormerLayouts => self.state.former_layouts = false,
            Step::DetachOverlay(ifindex) => {
                self.state.overlay.remove(ifindex);
            }
            Step::MakeTunnelDevice(device) => self.make_tunnel_device(*device),
            Step::WriteTunnel(digest) if blocks.contains_key(digest) => {
                self.state.tunnel.tables = Some(*digest);
            }
            Step::WriteTunnel(digest) => {
                return Err(Self::refuse(format!("no content for {digest:?}")));
            }
            Step::LowerTunnel
            | Step::AttachTunnel
            | Step::RaiseTunnel
            | Step::SetTunnelPods { .. }
            | Step::SetTunnelRoutes { .. }
            | Step::RemoveTunnelRoutes { .. }
            | Step::RemoveTunnel => self.execute_at_tunnel(step)?,
            Step::SetNativeRoutes(routes) => {
                let tunnel = &mut self.state.tunnel.routes;
                tunnel.retain(|prefix, _| !routes.contains_key(prefix));
                self.state.native.routes.extend(routes);
            }
            Step::RemoveNativeRoutes(routes) => {
                let native = &mut self.state.native.routes;
                native.retain(|prefix, _| !routes.contains(prefix));
            }
        }
        Ok(Applied::Done)
    }
}

impl Kernel for FakeKernel {
    fn observe(&mut self) -> Result<Observed, KernelError> {
        self.built.clear();
        Ok(self.state.clone())
    }

    fn apply(
        &mut self,
        step: &Step,
        blocks: &BTreeMap<Digest, Block>,
    ) -> Result<Applied, KernelError> {
        self.log.push(step.clone());
        if self.fail_next == Some(step.kind()) {
            self.fail_next = None;
            return Err(Self::refuse(format!("{:?} fails once", step.kind())));
        }
        let result = self.execute(step, blocks);
        self.broken.extend(violations(&self.state));
        result
    }
}
