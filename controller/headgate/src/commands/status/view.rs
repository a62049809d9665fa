//! The status, for programs.

use std::collections::BTreeMap;

use headgate_agent::report::Report;
use headgate_compile::{
    compilation::TablesSummary,
    finding::{Finding, Severity},
};
use headgate_crds::Kind;
use headgate_datapath::{
    observed::Observed,
    state::{Digest, PortIndex},
};
use headgate_layout::verdict::{Action, Count, Reason};
use serde::Serialize;

use crate::{
    enforcement::{self, Enforcement, State},
    live::Reading,
    tunnel_state::{self, TunnelState},
};

/// Packets that no rule decided, by port and reason.
pub(super) type ReasonCounts = BTreeMap<(PortIndex, Reason), Count>;

/// All there is to say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) instance: String,
    pub(super) node: Option<String>,
    pub(super) all_enforced: bool,
    pub(super) agent: AgentView,
    pub(super) source: Option<SourceView>,
    pub(super) revision: RevisionView,
    pub(super) failsafe_peers: Vec<String>,
    pub(super) interfaces: Vec<InterfaceView>,
    /// Absent where no peer needs one.
    pub(super) tunnel: Option<TunnelState>,
    /// Native peers that plain routes do not lead to as they should, with the reason.
    pub(super) unrouted: BTreeMap<String, String>,
    /// Policies and services that select this node, and none of whose interfaces is here.
    pub(super) enforced_nowhere: Vec<String>,
    pub(super) findings: Vec<Finding>,
    pub(super) failures: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct AgentView {
    pub(super) running: bool,
    pub(super) pid: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct SourceView {
    pub(super) path: String,
    pub(super) unavailable: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct RevisionView {
    pub(super) wanted: Option<Digest>,
    pub(super) live: Option<Digest>,
}

#[derive(Debug, Serialize)]
pub(super) struct InterfaceView {
    #[serde(flatten)]
    pub(super) enforcement: Enforcement,
    /// Of the live tables, where the agent has left word of them.
    pub(super) tables: Option<TablesSummary>,
    pub(super) counters: Vec<CounterView>,
}

/// Packets that no rule decided.
#[derive(Debug, Serialize)]
pub(super) struct CounterView {
    pub(super) reason: &'static str,
    pub(super) verdict: &'static str,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl InterfaceView {
    /// Packets that passed since no tables were found, which no state of ours allows.
    pub(super) fn unjudged(&self) -> u64 {
        let unjudged = |counter: &&CounterView| counter.reason == Reason::NoTables.name();
        let mut counters = self.counters.iter();
        counters.find(unjudged).map_or(0, |counter| counter.packets)
    }
}

impl Status {
    pub(super) fn new(instance: &str, reading: &Reading, counts: &ReasonCounts) -> Self {
        let observed = &reading.observed;
        let report = reading.report.as_ref();
        let interfaces = enforcement::of(reading)
            .into_iter()
            .map(|enforcement| InterfaceView {
                tables: tables_of(&enforcement, report),
                counters: counters_of(enforcement.port, counts),
                enforcement,
            })
            .collect();
        let mut failures = report
            .map(|report| report.failures.clone())
            .unwrap_or_default();
        failures.extend(reading.report_damaged.clone());
        let mut status = Self {
            instance: instance.to_owned(),
            node: report.map(|report| report.node.clone()),
            all_enforced: false,
            agent: AgentView {
                running: reading.agent.is_some(),
                pid: reading.agent.clone(),
            },
            source: report.map(|report| SourceView {
                path: report.source.clone(),
                unavailable: report.source_unavailable.clone(),
            }),
            revision: RevisionView {
                wanted: report.and_then(|report| report.wanted_revision),
                live: is_anything_live(observed).then(|| observed.revision()),
            },
            failsafe_peers: observed.failsafe.iter().map(ToString::to_string).collect(),
            interfaces,
            tunnel: report.and_then(|report| tunnel_state::of(report, reading)),
            unrouted: report
                .map(|report| tunnel_state::all_unrouted(report, reading))
                .unwrap_or_default(),
            enforced_nowhere: report.map(enforced_nowhere).unwrap_or_default(),
            findings: report
                .map(|report| report.findings.clone())
                .unwrap_or_default(),
            failures,
        };
        status.all_enforced = status.is_all_enforced();
        status
    }

    fn is_all_enforced(&self) -> bool {
        let is_enforced = |view: &InterfaceView| view.enforcement.state == State::Enforced;
        let is_stalled = |finding: &Finding| finding.severity == Severity::Stalled;
        self.revision.wanted.is_some()
            && self.interfaces.iter().all(is_enforced)
            && self.interfaces.iter().all(|view| view.unjudged() == 0)
            && self.tunnel.as_ref().is_none_or(TunnelState::is_whole)
            && self.unrouted.is_empty()
            && self.enforced_nowhere.is_empty()
            && !self.findings.iter().any(is_stalled)
            && self.failures.is_empty()
            && self
                .source
                .as_ref()
                .is_some_and(|source| source.unavailable.is_none())
    }
}

fn enforced_nowhere(report: &Report) -> Vec<String> {
    let policies = report.policies.iter();
    let policies = policies
        .filter(|one| one.selected && one.effective.is_some() && one.interfaces.is_empty())
        .map(|one| (Kind::XdpPolicy, &one.name));
    let services = report.services.iter();
    let services = services
        .filter(|one| one.selected && one.effective.is_some() && one.interfaces.is_empty())
        .map(|one| (Kind::LoadBalancerService, &one.name));
    let all = policies.chain(services);
    all.map(|(kind, name)| format!("{}/{name}", kind.as_str()))
        .collect()
}

fn is_anything_live(observed: &Observed) -> bool {
    !observed.links.is_empty()
        || observed.tunnel.digest().is_some()
        || observed.native.digest().is_some()
}

fn tables_of(enforcement: &Enforcement, report: Option<&Report>) -> Option<TablesSummary> {
    let live = enforcement.live_tables?;
    let known = report?.tables.iter().find(|summary| summary.tables == live);
    known.cloned()
}

fn counters_of(port: PortIndex, counts: &ReasonCounts) -> Vec<CounterView> {
    let of_port = counts.iter().filter(|((counted, _), _)| *counted == port);
    of_port
        .filter(|(_, count)| count.packets > 0)
        .map(|((_, reason), count)| CounterView {
            reason: reason.name(),
            verdict: match reason.action() {
                Action::Allow => "Allow",
                Action::Drop => "Drop",
            },
            packets: count.packets,
            bytes: count.bytes,
        })
        .collect()
}
