//! The two measures of a plan: what is live, and what another directory compiles to.

use std::{collections::BTreeMap, path::Path};

use headgate_agent::{facts, lost_memory, now, resources::Resources, store::Store, ways};
use headgate_compile::{
    Compilation, compile,
    memory::{LastGood, Memory},
    node::{Interface, InterfaceKind, NodeFacts},
    services::backends,
    snapshot::{Content, Uid},
    tunnel::{endpoints, own_networks},
};
use headgate_datapath::{
    diff::diff,
    fake::FakeKernel,
    kernel::{Kernel as _, carry_out},
    observed::Observed,
    pods::largest_mtu,
    state::{DatapathState, Ifindex},
};
use headgate_kernel::{object_digest, pods::links_and_routes};
use headgate_source::DirectorySource;

use super::PlanArguments;
use crate::{
    live::{Live, Reading},
    outcome::CliError,
};

/// What a plan starts from.
#[derive(Debug)]
pub(super) struct Before {
    /// What it is, for people.
    pub(super) name: String,
    pub(super) observed: Observed,
    /// The resources in effect; `None` where something is live and nobody knows for what.
    pub(super) resources: Option<BTreeMap<Uid, LastGood>>,
    /// Names of the node's interfaces by number.
    pub(super) interfaces: BTreeMap<Ifindex, String>,
}

/// The live state, and the directory compiled as the agent would.
pub(super) fn live(arguments: &PlanArguments) -> Result<(Before, Compilation), CliError> {
    let live = Live::read(&arguments.place)?;
    let memory = remembered(arguments, &live.reading)?;
    let mut node = node(arguments)?;
    if let (None, Some(report)) = (&arguments.node.node_name, &live.reading.report) {
        node.name.clone_from(&report.node);
    }
    if let (true, Some(report)) = (node.labels.is_empty(), &live.reading.report) {
        node.labels.clone_from(&report.node_labels);
    }
    if arguments.node.failsafe.is_empty() {
        // What the agent was started with; its own flags are not to be repeated here.
        node.failsafe.clone_from(&live.reading.observed.failsafe);
    }
    let compilation = compiled(&arguments.directory, &node, &memory)?;
    let before = Before {
        name: "what is live".to_owned(),
        observed: live.reading.observed,
        resources: (!memory.lost).then_some(memory.last_good),
        interfaces: live.reading.interfaces,
    };
    Ok((before, compilation))
}

/// The agent's memory, or what an agent would make up for one that is lost.
fn remembered(arguments: &PlanArguments, reading: &Reading) -> Result<Memory, CliError> {
    let folder = arguments.place.folder();
    // Opening a store would make the folder, and this command makes nothing.
    if folder.join("memory.json").exists()
        && let Some(memory) = Store::open(&folder)?.memory()?
    {
        return Ok(memory);
    }
    Ok(lost_memory(&reading.observed, &reading.interfaces, now()))
}

/// What `directory` compiles to on a node without a past, and then `arguments.directory` on a node
/// that has that in effect: what is the same on both sides gets the same ports and counters.
pub(super) fn directory(
    arguments: &PlanArguments,
    directory: &Path,
) -> Result<(Before, Compilation), CliError> {
    let node = node(arguments)?;
    let mut old = compiled(directory, &node, &Memory::default())?;
    let state = old.state.unwrap_or_default();
    old.memory.counters_were_reset(&state.fresh_counters);
    let new = compiled(&arguments.directory, &node, &old.memory)?;
    let interfaces = node.interfaces.iter();
    let before = Before {
        name: directory.display().to_string(),
        observed: in_effect(&state)?,
        resources: Some(old.memory.last_good),
        interfaces: interfaces.map(|i| (i.ifindex, i.name.clone())).collect(),
    };
    Ok((before, new))
}

/// What would be observed on a node that was brought to `state` and has come to rest.
fn in_effect(state: &DatapathState) -> Result<Observed, CliError> {
    let mut kernel = FakeKernel::new(object_digest());
    let plan = diff(&kernel.state, state, object_digest())?;
    for outcome in carry_out(&mut kernel, plan, &state.blocks) {
        outcome.result?;
    }
    let observed = kernel.observe()?;
    Ok(Observed {
        settled: true,
        ..observed
    })
}

fn compiled(directory: &Path, node: &NodeFacts, memory: &Memory) -> Result<Compilation, CliError> {
    let reading = DirectorySource::new(directory, Content::from).read();
    let resources = Resources::new(&reading, memory);
    if let Some(reason) = resources.unavailable {
        return Err(CliError::Unavailable(reason));
    }
    let mut node = node.clone();
    (node.next_hops, node.here) = ways::look(&backends(
        &resources.snapshot,
        memory,
        &node.name,
        &node.labels,
    ))?;
    let endpoints = endpoints(&resources.snapshot, memory, &node.labels);
    node.underlays = facts::underlays(&endpoints)?;
    let own = own_networks(&resources.snapshot, memory, &node.labels, &node.addresses);
    if !own.is_empty() {
        node.pods_mtu = largest_mtu(&links_and_routes()?, &own);
    }
    let (stack_in_use, pods) = facts::direct_delivery(&node.labels, &resources.snapshot, memory);
    node.stack_in_use = stack_in_use;
    let mut compilation = compile(&resources.snapshot, &node, memory, now());
    compilation.deliver_to(pods);
    compilation.findings.extend(resources.left_aside);
    Ok(compilation)
}

fn node(arguments: &PlanArguments) -> Result<NodeFacts, CliError> {
    let (name, labels) = (arguments.node.name()?, arguments.node.node_labels.0.clone());
    let failsafe = arguments.node.failsafe();
    if arguments.interfaces.is_empty() {
        return Ok(facts::read(&name, &labels, &failsafe)?);
    }
    let numbered = arguments.interfaces.iter().zip(1..);
    Ok(NodeFacts {
        name,
        labels,
        interfaces: numbered
            .map(|(name, number)| made_up(name, number))
            .collect(),
        failsafe,
        ..NodeFacts::default()
    })
}

fn made_up(name: &str, number: u32) -> Interface {
    Interface {
        name: name.to_owned(),
        ifindex: Ifindex(number),
        kind: InterfaceKind::Other,
        mtu: 1_500,
        master: None,
        lower: None,
        has_default_route: number == 1,
    }
}
