//! A kernel of the bench's own: one port on the loopback of its network namespace.

use std::{collections::BTreeSet, path::Path, time::Instant};

use anyhow::{Context as _, ensure};
use headgate_datapath::{
    diff::diff,
    kernel::{Kernel as _, carry_out},
    plan::{Plan, Step, StepKind},
    state::{Attachment, Block, DatapathState, Ifindex, PortIndex, WantedMode},
};
use headgate_kernel::{DEFAULT_BPFFS, Instance, RunningKernel, object_digest};

/// See the module. Everything is taken down when it is dropped.
pub struct Node {
    kernel: RunningKernel,
}

impl Node {
    /// An empty one.
    pub fn new() -> anyhow::Result<Self> {
        let instance = Instance {
            name: format!("bench-{}", std::process::id()),
        };
        let kernel = RunningKernel::open(&instance, Path::new(DEFAULT_BPFFS))?;
        Ok(Self { kernel })
    }

    /// The only port.
    pub fn port() -> PortIndex {
        PortIndex::new(0).expect("there is a first port")
    }

    /// Makes `block` live. When it was: the rest is mirroring and tidying.
    pub fn enforce(&mut self, block: &Block) -> anyhow::Result<Instant> {
        self.converge(block, false)
    }

    /// Makes `block` live, whose services are by Nat.
    pub fn translate(&mut self, block: &Block) -> anyhow::Result<Instant> {
        self.converge(block, true)
    }

    fn converge(&mut self, block: &Block, flows: bool) -> anyhow::Result<Instant> {
        let mut wanted = DatapathState {
            flows,
            ..DatapathState::default()
        };
        wanted.hold(block);
        let attachment = Attachment {
            interface: "lo".to_owned(),
            ifindex: Ifindex(1),
            mode: WantedMode::Generic,
            tables: block.digest(),
            egress: false,
        };
        wanted.ports.insert(Self::port(), attachment);
        let observed = self.kernel.observe()?;
        let mut plan = diff(&observed, &wanted, object_digest())?;
        let flip = |step: &Step| step.kind() == StepKind::Flip;
        let is_live = plan.steps.iter().position(flip).map(|flip| flip + 1);
        let rest = plan.steps.split_off(is_live.unwrap_or(plan.steps.len()));
        self.carry_out(plan, &wanted)?;
        let live = Instant::now();
        self.carry_out(Plan { steps: rest }, &wanted)?;
        let enforced = self.kernel.observe()?.enforced(Self::port());
        ensure!(enforced == Some(block.digest()), "the tables are not live");
        Ok(live)
    }

    fn carry_out(&mut self, plan: Plan, wanted: &DatapathState) -> anyhow::Result<()> {
        for outcome in carry_out(&mut self.kernel, plan, &wanted.blocks) {
            outcome.result.with_context(|| outcome.step.to_string())?;
        }
        Ok(())
    }

    /// The kernel's id of the program that is live.
    pub fn program_id(&mut self) -> anyhow::Result<u32> {
        let observed = self.kernel.observe()?;
        let link = observed.links.get(&Self::port()).context("no link")?;
        Ok(link.program_id)
    }

    /// Packets that the rule with this counter has seen.
    pub fn packets(&self, counter: u32) -> anyhow::Result<u64> {
        let counts = self.kernel.rule_counters(&BTreeSet::from([counter]))?;
        Ok(counts.values().map(|count| count.packets).sum())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.kernel.detach_all() {
            eprintln!("taking the bench's programs down: {error}");
        }
    }
}
