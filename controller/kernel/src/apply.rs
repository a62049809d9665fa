//! The steps of a plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use headgate_datapath::{
    kernel::{Applied, Kernel, KernelError},
    observed::{Observed, Slot},
    plan::{BlockOrigin, Step},
    state::{Block, Capacity, Digest, PortIndex},
};
use headgate_layout::maps::{self, tables_index};

use crate::{
    attach::{Target, attach, change_mode, detach, replace},
    blocks,
    bpf::{Map, Mapped},
    counters, egress,
    error::{Asked, absent, if_present},
    failsafe::Failsafe,
    flows,
    grace::GracePeriod,
    layouts,
    observe::{entry_ids, observe, open_outer},
    overlay,
    pins::unpin,
    ring_blocks,
    running::RunningKernel,
    shared::Shared,
    tunnel,
};

impl Kernel for RunningKernel {
    fn observe(&mut self) -> Result<Observed, KernelError> {
        self.built.clear();
        let ways = [&mut self.ways, &mut self.plain_ways];
        observe(&self.pins, &mut self.blocks, ways, self.settled)
    }

    fn apply(
        &mut self,
        step: &Step,
        blocks: &BTreeMap<Digest, Block>,
    ) -> Result<Applied, KernelError> {
        tracing::debug!(%step, "applying");
        match step {
            Step::LowerTunnel
            | Step::MakeTunnelDevice(_)
            | Step::WriteTunnel(_)
            | Step::AttachTunnel
            | Step::SetTunnelPods { .. }
            | Step::RaiseTunnel
            | Step::SetTunnelRoutes { .. }
            | Step::RemoveTunnelRoutes { .. }
            | Step::RemoveTunnel => {
                let by_clsact = self.by_clsact;
                tunnel::apply(&self.pins, by_clsact, &mut self.blocks, step, blocks)?;
            }
            Step::SetNativeRoutes(_) | Step::RemoveNativeRoutes(_) => {
                tunnel::apply_native(&self.pins, step)?;
            }
            Step::Prepare => Shared::prepare(&self.pins)?,
            Step::AddFailsafe(peers) => Failsafe::of(&Shared::required(&self.pins)?).add(peers)?,
            Step::RemoveFailsafe(peers) => {
                Failsafe::of(&Shared::required(&self.pins)?).remove(peers)?;
            }
            Step::ResetCounters(indices) => {
                counters::reset(&Shared::required(&self.pins)?.rule_counters, indices)?;
            }
            Step::MakeSlots(capacity) => self.make_slots(*capacity)?,
            Step::Build {
                digest,
                capacity,
                origin,
            } => self.build(*digest, *capacity, *origin, blocks)?,
            Step::WriteSlots { capacity, entries } => self.write_slots(*capacity, entries)?,
            Step::ClearSlots { capacity, entries } => self.clear_slots(*capacity, entries)?,
            Step::RemoveSlots(capacity) => unpin(&self.pins.slots(*capacity))?,
            Step::MakeFlows => flows::make(&Shared::required(&self.pins)?.flows)?,
            Step::AttachEgress {
                port,
                interface,
                ifindex,
            } => {
                flows::required(&Shared::required(&self.pins)?.flows)?;
                egress::attach(&self.pins, *port, interface, *ifindex)?;
            }
            Step::DetachEgress(port) => egress::detach(&self.pins, *port)?,
            Step::AttachOverlay { interface, ifindex } => {
                flows::required(&Shared::required(&self.pins)?.flows)?;
                overlay::attach(&self.pins, interface, *ifindex)?;
            }
            Step::DetachOverlay(ifindex) => overlay::detach(&self.pins, *ifindex)?,
            Step::ForgetFormerLayouts => layouts::forget(&self.pins)?,
            Step::RemoveFlows => flows::remove(&Shared::required(&self.pins)?.flows)?,
            Step::Flip(slot) => {
                self.settled = false;
                Shared::required(&self.pins)?.flip(*slot)?;
            }
            Step::Settle => self.settle()?,
            Step::BuildRingBlocks(digests) => {
                let built = ring_blocks::build(&mut self.blocks, digests, blocks)?;
                self.built.extend(built);
            }
            Step::WriteRingBlocks(entries) => {
                let outer = Shared::required(&self.pins)?.ring_blocks;
                ring_blocks::write(&outer, &mut self.blocks, &self.built, entries)?;
            }
            Step::ClearRingBlocks(entries) => {
                ring_blocks::clear(&Shared::required(&self.pins)?.ring_blocks, entries)?;
            }
            Step::ReplaceProgram { port, capacity } => replace(&self.pins, *port, *capacity)?,
            Step::Detach(port) => detach(&self.pins, *port)?,
            Step::Attach {
                port,
                interface,
                ifindex,
                mode,
                capacity,
            } => {
                let target = Target::new(*port, interface, *ifindex, *mode, *capacity);
                return attach(&self.pins, &target);
            }
            Step::ChangeMode {
                port,
                interface,
                ifindex,
                mode,
                capacity,
            } => {
                let target = Target::new(*port, interface, *ifindex, *mode, *capacity);
                return change_mode(&self.pins, &target);
            }
        }
        Ok(Applied::Done)
    }
}

impl RunningKernel {
    fn make_slots(&self, capacity: Capacity) -> Result<(), KernelError> {
        let path = self.pins.slots(capacity);
        let asked = || format!("making and pinning the slots {}", path.display());
        if if_present(Map::pinned(&path)).asked(asked)?.is_some() {
            return Ok(());
        }
        let template = blocks::create(capacity, "hg_template")?;
        let outer = Map::create(&maps::TABLES, maps::TABLES.name, Some(&template)).asked(asked)?;
        outer.pin(&path).asked(asked)
    }

    fn build(
        &mut self,
        digest: Digest,
        capacity: Capacity,
        origin: BlockOrigin,
        wanted: &BTreeMap<Digest, Block>,
    ) -> Result<(), KernelError> {
        let missing = |place: &str| KernelError::Call {
            what: format!("building tables {} in {capacity}", digest.short()),
            source: io::Error::other(format!("there is no such content in {place}")),
        };
        let map = match origin {
            BlockOrigin::Wanted => {
                let block = wanted
                    .get(&digest)
                    .ok_or_else(|| missing("what is wanted"))?;
                self.blocks.build(digest, capacity, block.bytes())?
            }
            BlockOrigin::Copy { from } => {
                let standing = self.standing(from)?;
                let origin = standing.get(&digest).ok_or_else(|| missing("the slots"))?;
                let mapped =
                    Mapped::new(origin).asked(|| format!("reading tables {}", digest.short()))?;
                let content = blocks::in_use(mapped.bytes());
                self.blocks.build(digest, capacity, content)?
            }
        };
        self.built.insert((digest, capacity), map);
        Ok(())
    }

    /// Blocks that stand in the slots of `capacity`.
    fn standing(&mut self, capacity: Capacity) -> Result<BTreeMap<Digest, Map>, KernelError> {
        let outer = open_outer(&self.pins, capacity)?;
        let mut standing = BTreeMap::new();
        for id in entry_ids(&outer)?.into_values().collect::<BTreeSet<_>>() {
            let digest = self.blocks.read(id)?.digest;
            let map = Map::by_id(id).asked(|| format!("opening the tables in map {id}"))?;
            standing.insert(digest, map);
        }
        Ok(standing)
    }

    fn write_slots(
        &mut self,
        capacity: Capacity,
        entries: &BTreeMap<(Slot, PortIndex), Digest>,
    ) -> Result<(), KernelError> {
        let outer = open_outer(&self.pins, capacity)?;
        let standing = self.standing(capacity)?;
        let mut batch = Vec::with_capacity(entries.len());
        for ((slot, port), digest) in entries {
            let built = self.built.get(&(*digest, capacity));
            let block = built.or_else(|| standing.get(digest)).ok_or_else(|| {
                let what = format!("writing tables {} to slot {}", digest.short(), slot.0);
                let source = io::Error::other("they are not built");
                KernelError::Call { what, source }
            })?;
            batch.push((tables_index(slot.0, port.number()), block));
        }
        outer
            .update_map_batch(&batch)
            .asked(|| format!("writing {} entries of the slots", batch.len()))
    }

    fn clear_slots(
        &self,
        capacity: Capacity,
        entries: &BTreeSet<(Slot, PortIndex)>,
    ) -> Result<(), KernelError> {
        let outer = open_outer(&self.pins, capacity)?;
        for (slot, port) in entries {
            let index = tables_index(slot.0, port.number());
            match outer.delete(&index.to_ne_bytes()) {
                Err(error) if absent(&error) => {}
                answer => answer.asked(|| format!("clearing slot {} of {port}", slot.0))?,
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), KernelError> {
        let grace = match self.grace.take() {
            Some(grace) => grace,
            None => GracePeriod::new()?,
        };
        grace.wait()?;
        self.grace = Some(grace);
        self.settled = true;
        Ok(())
    }
}
