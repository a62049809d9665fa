//! A kernel of the bench's own: one port on the loopback of its network namespace.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context as _, ensure};
use headgate_datapath::{
    diff::diff,
    kernel::{Kernel as _, carry_out},
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

    /// Makes `block` live.
    pub fn enforce(&mut self, block: &Block) -> anyhow::Result<()> {
        self.converge(block, false)
    }

    /// Makes `block` live, whose services are by Nat.
    pub fn translate(&mut self, block: &Block) -> anyhow::Result<()> {
        self.converge(block, true)
    }

    fn converge(&mut self, block: &Block, flows: bool) -> anyhow::Result<()> {
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
        let plan = diff(&observed, &wanted, object_digest())?;
        for outcome in carry_out(&mut self.kernel, plan, &wanted.blocks) {
            outcome.result.with_context(|| outcome.step.to_string())?;
        }
        let enforced = self.kernel.observe()?.enforced(Self::port());
        ensure!(enforced == Some(block.digest()), "the tables are not live");
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
