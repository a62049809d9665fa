//! What a compilation enforces.

use std::collections::{BTreeMap, BTreeSet};

use headgate_compile::{
    Compilation,
    compilation::PolicySummary,
    compile,
    finding::{Finding, FindingReason, Severity},
    memory::{Memory, Seconds},
    node::NodeFacts,
    snapshot::Snapshot,
};
use headgate_datapath::state::{Block, Digest};
use headgate_layout::{tables::NO_RULE, verdict::Action};
use headgate_packet::{
    classify::{Shape, classify},
    tables::HostTables,
};
use serde_json::Value;

use super::{NOW, packet_of, snapshot, udp_from};
use crate::model::{Fields, Outcome};

/// A node's agent over time: each compilation goes live and its memory is kept.
pub struct Agent {
    pub node: NodeFacts,
    pub memory: Memory,
    pub now: Seconds,
}

impl Agent {
    pub fn new(node: NodeFacts) -> Self {
        Self {
            node,
            memory: Memory::default(),
            now: NOW,
        }
    }

    /// An agent that finds a revision in the kernel and no memory on its disk.
    pub fn without_memory(node: NodeFacts) -> Self {
        let memory = Memory::lost(BTreeMap::new(), &BTreeSet::new(), NOW);
        Self {
            memory,
            ..Self::new(node)
        }
    }

    /// Compiles and makes live.
    pub fn run(&mut self, snapshot: &Snapshot) -> Enforced {
        let compilation = compile(snapshot, &self.node, &self.memory, self.now);
        self.memory = compilation.memory.clone();
        if let Some(state) = &compilation.state {
            self.memory.counters_were_reset(&state.fresh_counters);
        }
        Enforced::new(compilation)
    }

    /// Compiles these objects and makes them live.
    pub fn apply<'a>(&mut self, objects: impl IntoIterator<Item = &'a Value>) -> Enforced {
        self.run(&snapshot(objects))
    }
}

/// A compilation and the means to ask it.
pub struct Enforced {
    pub compilation: Compilation,
    rules: BTreeMap<u32, (String, String)>,
    blocks: BTreeMap<Digest, Vec<u64>>,
}

impl Enforced {
    pub fn new(compilation: Compilation) -> Self {
        let rules = compilation.policies.iter().flat_map(|policy| {
            policy
                .rules
                .iter()
                .filter_map(|rule| Some((rule.counter?, (policy.name.clone(), rule.name.clone()))))
        });
        let ranges = compilation.services.iter().filter_map(|service| {
            let rule = (service.name.clone(), "sourceRanges".to_owned());
            Some((service.source_ranges.as_ref()?.counter, rule))
        });
        let rules = rules.chain(ranges);
        let blocks = compilation.state.iter().flat_map(|state| &state.blocks);
        Self {
            rules: rules.collect(),
            blocks: blocks
                .map(|(digest, block)| (*digest, words(block)))
                .collect(),
            compilation,
        }
    }

    /// The tables of `interface`, if it has a program.
    pub fn tables(&self, interface: &str) -> Option<HostTables<'_>> {
        let state = self.compilation.state.as_ref().unwrap();
        let mut attachments = state.ports.values();
        let attachment = attachments.find(|attachment| attachment.interface == interface)?;
        Some(HostTables::new(&self.blocks[&attachment.tables]))
    }

    /// Policy and rule of a counter.
    pub fn rule(&self, counter: u32) -> &(String, String) {
        &self.rules[&counter]
    }

    /// What becomes of `packet` at `interface`.
    pub fn judge(&self, interface: &str, packet: &Fields) -> Outcome {
        let Some(tables) = self.tables(interface) else {
            return Outcome::NotConcerned;
        };
        let packet = packet_of(packet);
        let decision = classify(&tables, Shape::of(&packet), &packet.addresses);
        let decision = decision.expect("the tables are whole");
        let action = if decision.action == Action::Drop as u32 {
            headgate_crds::Action::Drop
        } else {
            headgate_crds::Action::Allow
        };
        match decision.counter {
            NO_RULE => Outcome::Default(action),
            counter => {
                let (policy, rule) = self.rule(counter).clone();
                Outcome::Rule(action, policy, rule)
            }
        }
    }

    /// Whether a UDP packet from this address is dropped at eth0.
    pub fn drops(&self, source: &str) -> bool {
        self.judge("eth0", &udp_from(source)).drops()
    }

    /// The summary of a policy.
    pub fn policy(&self, name: &str) -> &PolicySummary {
        let mut policies = self.compilation.policies.iter();
        policies
            .find(|policy| policy.name == name)
            .unwrap_or_else(|| panic!("no policy {name}"))
    }

    /// Counters of a policy's rules by name.
    pub fn counters(&self, policy: &str) -> BTreeMap<String, u32> {
        let rules = self.policy(policy).rules.iter();
        rules
            .map(|rule| (rule.name.clone(), rule.counter.unwrap()))
            .collect()
    }

    /// Counters that must be set to zero.
    pub fn fresh(&self) -> BTreeSet<u32> {
        let state = self.compilation.state.as_ref().unwrap();
        state.fresh_counters.clone()
    }

    /// Interfaces with a program.
    pub fn interfaces(&self) -> BTreeSet<String> {
        let state = self.compilation.state.as_ref().unwrap();
        let attachments = state.ports.values();
        attachments.map(|a| a.interface.clone()).collect()
    }

    /// The one finding with this reason.
    pub fn finding(&self, reason: FindingReason) -> &Finding {
        let found: Vec<_> = self.findings(reason).collect();
        match found.as_slice() {
            [one] => one,
            other => panic!("{reason:?}: {other:#?} of {:#?}", self.compilation.findings),
        }
    }

    /// All findings with this reason.
    pub fn findings(&self, reason: FindingReason) -> impl Iterator<Item = &Finding> {
        let findings = self.compilation.findings.iter();
        findings.filter(move |finding| finding.reason == reason)
    }

    /// Names of resources that are stalled, for whatever reason.
    pub fn stalled(&self) -> BTreeSet<String> {
        let findings = self.compilation.findings.iter();
        findings
            .filter(|finding| finding.severity == Severity::Stalled)
            .filter_map(|finding| finding.resource.as_ref())
            .map(|resource| resource.name.clone())
            .collect()
    }

    /// That nothing is to be said.
    pub fn assert_no_findings(&self) {
        assert_eq!(self.compilation.findings, []);
    }
}

/// A block in memory that is aligned as a map's value is.
fn words(block: &Block) -> Vec<u64> {
    let chunks = block.bytes().chunks_exact(8);
    chunks
        .map(|chunk| u64::from_ne_bytes(chunk.try_into().unwrap()))
        .collect()
}
