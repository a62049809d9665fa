//! One choice of contents, compiled together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headgate_crds::{Kind, XdpPolicySpec};
use headgate_datapath::state::{Attachment, Block, DatapathState, PortIndex, WantedMode};
use headgate_layout::{maps::MAX_PORTS, verdict::Action};

use super::{
    Compiler,
    fallback::Draft,
    finding,
    serve::Served,
    summary::{PeerSummary, PolicySummary, ServiceSummary, TablesSummary},
};
use crate::{
    adopt::Version,
    classifier::{self, BlockWriter, RuleList, Sizes, TooLarge},
    counters::Counters,
    finding::{Finding, FindingReason, Severity},
    memory::CounterLease,
    node::Interface,
    ports,
    resolve::{Groups, Policy, Resolver},
    select::{self, Remark},
    services::{self, Arrival, Histories},
    snapshot::{Content, ResourceName, Uid},
};

/// Policies compiled together with a given choice of contents.
pub(super) struct Attempt {
    /// The contents in effect.
    pub versions: BTreeMap<Uid, Version>,
    /// Resources of which no content is in effect, although they exist.
    pub left_out: Vec<String>,
    pub state: DatapathState,
    pub ports: BTreeMap<String, PortIndex>,
    pub counters: BTreeMap<u32, CounterLease>,
    pub policies: Vec<PolicySummary>,
    pub services: Vec<ServiceSummary>,
    pub peers: Vec<PeerSummary>,
    pub tables: Vec<TablesSummary>,
    pub histories: Histories,
    pub findings: Vec<Finding>,
}

/// One policy in an attempt.
pub(super) struct Chosen<'a> {
    pub uid: &'a Uid,
    pub version: &'a Version,
    pub spec: Arc<XdpPolicySpec>,
    pub compiled: Policy,
    pub interfaces: Vec<&'a Interface>,
}

impl Compiler<'_> {
    /// Compiles with the present content of `adopted` resources and the last good one of others.
    pub(super) fn attempt(&self, adopted: &BTreeSet<&Uid>) -> Result<Attempt, TooLarge> {
        let mut draft = Draft {
            versions: self.versions(adopted),
            left_out: Vec::new(),
            findings: Vec::new(),
        };
        let groups = self.groups(&draft.versions);
        let existing = self.existing(&draft.versions);
        self.fall_back_where_unresolved(&mut draft, &groups, &existing);
        let mut counters = Counters::new(self.memory, self.now);
        let leased = self.fall_back_where_no_counters(&mut draft, &mut counters);
        let leased_ports = self.fall_back_where_not_served(&mut draft, &mut counters);
        self.fall_back_where_not_joined(&mut draft);
        let Draft {
            versions,
            left_out,
            mut findings,
        } = draft;
        let resolver = Resolver::new(&groups, &existing);
        let chosen = self.choose(&versions, resolver, &leased, &mut findings);
        let (served, histories) = self.serve(&versions, &leased_ports, &mut findings);
        let joined = self.join(&versions, &mut findings)?;
        let mut attempt = self.assemble(&chosen, &served, findings)?;
        attempt.peers = joined.put_into(&mut attempt.state);
        attempt.counters = counters.finish();
        let fresh = attempt
            .counters
            .iter()
            .filter(|(_, lease)| lease.fresh && lease.owner.is_some());
        attempt.state.fresh_counters = fresh.map(|(index, _)| *index).collect();
        attempt.left_out = left_out;
        attempt.histories = histories;
        attempt.versions = versions;
        Ok(attempt)
    }

    /// The present content of `adopted` and unchanged resources, the last good one of others.
    fn versions(&self, adopted: &BTreeSet<&Uid>) -> BTreeMap<Uid, Version> {
        let mut versions = BTreeMap::new();
        for (uid, candidate) in self.candidates {
            let present = candidate
                .present
                .as_ref()
                .filter(|_| !candidate.is_changed() || adopted.contains(uid));
            if let Some(version) = present.or(candidate.last_good.as_ref()) {
                versions.insert(uid.clone(), version.clone());
            }
        }
        versions
    }

    /// Groups to look up in: those that stand, and those that are gone but in effect.
    fn groups(&self, versions: &BTreeMap<Uid, Version>) -> Groups {
        let group = |name: &ResourceName, content: &Content| match content {
            Content::Group(group) => Some((name.name.clone(), Arc::clone(group))),
            _ => None,
        };
        let gone = self.memory.last_good.values();
        let mut groups: Groups = gone
            .filter_map(|good| group(&good.name, &good.content))
            .collect();
        groups.extend(versions.values().filter_map(|v| group(&v.name, &v.content)));
        groups
    }

    /// Names of groups that exist: a policy may go on using one that is gone, not begin to.
    fn existing(&self, versions: &BTreeMap<Uid, Version>) -> BTreeSet<String> {
        let groups = versions
            .values()
            .filter(|v| v.name.kind == Kind::CidrGroup.as_str());
        groups.map(|version| version.name.name.clone()).collect()
    }

    fn choose<'b>(
        &'b self,
        versions: &'b BTreeMap<Uid, Version>,
        mut resolver: Resolver<'_>,
        leased: &BTreeMap<Uid, Vec<u32>>,
        findings: &mut Vec<Finding>,
    ) -> Vec<Chosen<'b>> {
        let mut chosen = Vec::new();
        for (uid, version) in versions {
            let (Content::Policy(spec), Some(counters)) = (&version.content, leased.get(uid))
            else {
                continue;
            };
            match resolver.policy(spec, counters) {
                Ok(mut compiled) => {
                    let selection =
                        select::interfaces(&spec.interfaces, spec.attach_mode, self.node);
                    let remarks = std::mem::take(&mut compiled.remarks);
                    let remarks = remarks.into_iter().chain(selection.remarks);
                    findings.extend(remarks.map(|remark| finding(version, remark)));
                    chosen.push(Chosen {
                        uid,
                        version,
                        spec: Arc::clone(spec),
                        compiled,
                        interfaces: selection.interfaces,
                    });
                }
                Err(errors) => findings.extend(errors.into_iter().map(|e| finding(version, e))),
            }
        }
        chosen.sort_by(|a, b| {
            let key = |c: &Chosen<'_>| (c.spec.priority, c.version.name.name.clone());
            key(a).cmp(&key(b))
        });
        chosen
    }

    /// Tables for each policy set, an attachment for each interface.
    fn assemble(
        &self,
        chosen: &[Chosen<'_>],
        served: &[Served<'_>],
        findings: Vec<Finding>,
    ) -> Result<Attempt, TooLarge> {
        let by_interface = by_interface(chosen, served);
        let assigned = ports::assign(&self.memory.ports, by_interface.keys().copied());
        let mut attempt = Attempt {
            versions: BTreeMap::new(),
            left_out: Vec::new(),
            state: DatapathState {
                failsafe: self.node.failsafe.clone(),
                flows: served.iter().any(Served::needs_flows),
                overlay: self.at_overlays(served),
                ..DatapathState::default()
            },
            ports: BTreeMap::new(),
            counters: BTreeMap::new(),
            policies: chosen.iter().map(|policy| self.summary(policy)).collect(),
            services: served
                .iter()
                .map(|served| self.service_summary(served))
                .collect(),
            peers: Vec::new(),
            tables: Vec::new(),
            histories: Histories::default(),
            findings,
        };
        let mut built: BTreeMap<BlockKey<'_>, (Block, Sizes)> = BTreeMap::new();
        for (name, (interface, set)) in &by_interface {
            let Some(port) = assigned.get(*name) else {
                attempt.findings.extend(no_port_left(set, name));
                continue;
            };
            let arrival = Arrival::by(interface);
            let key = (set.uids(), (!set.services.is_empty()).then_some(arrival));
            if !built.contains_key(&key) {
                built.insert(key.clone(), self.build(set, arrival)?);
            }
            let (block, sizes) = &built[&key];
            let asked: Vec<_> = set
                .policies
                .iter()
                .map(|policy| policy.spec.attach_mode)
                .collect();
            let (mode, other) = select::mode(interface, &asked);
            if let Some(other) = other {
                attempt
                    .findings
                    .push(mode_conflict(set.policies[other], name, mode));
            }
            let attachment = Attachment {
                interface: (*name).to_owned(),
                ifindex: interface.ifindex,
                mode,
                tables: block.digest(),
                egress: set.services.iter().any(|service| service.needs_egress()),
            };
            attempt.state.ports.insert(*port, attachment);
            attempt.state.hold(block);
            attempt.note_tables(block, *sizes, set, name);
        }
        attempt.ports = assigned;
        Ok(attempt)
    }

    fn build(&self, set: &PolicySet<'_>, arrival: Arrival) -> Result<(Block, Sizes), TooLarge> {
        let mut writer = BlockWriter::new();
        let sizes = classifier::write(&rule_list(set), &mut writer)?;
        let frontends = set.services.iter().flat_map(|service| &service.frontends);
        let frontends: Vec<_> = frontends.cloned().collect();
        let mut rings = self.rings.borrow_mut();
        let next_hops = &self.node.next_hops;
        services::write(&frontends, arrival, next_hops, &mut rings, &mut writer)?;
        Ok((writer.finish()?, sizes))
    }
}

/// Blocks of the same policies and services are the same, and where there are services only for interfaces that
/// take and send alike.
type BlockKey<'a> = (Vec<&'a Uid>, Option<Arrival>);

/// What one interface enforces and serves.
#[derive(Default)]
pub(super) struct PolicySet<'a> {
    /// Policies, in their order.
    pub policies: Vec<&'a Chosen<'a>>,
    /// Services.
    pub services: Vec<&'a Served<'a>>,
}

impl<'a> PolicySet<'a> {
    fn uids(&self) -> Vec<&'a Uid> {
        let policies = self.policies.iter().map(|policy| policy.uid);
        policies
            .chain(self.services.iter().map(|service| service.uid))
            .collect()
    }
}

/// What each interface is to enforce and serve, by the interface's name.
fn by_interface<'a>(
    chosen: &'a [Chosen<'a>],
    served: &'a [Served<'a>],
) -> BTreeMap<&'a str, (&'a Interface, PolicySet<'a>)> {
    let mut sets: BTreeMap<&str, (&Interface, PolicySet<'_>)> = BTreeMap::new();
    for policy in chosen {
        for interface in &policy.interfaces {
            let entry = sets.entry(interface.name.as_str());
            let (_, set) = entry.or_insert_with(|| (interface, PolicySet::default()));
            set.policies.push(policy);
        }
    }
    for service in served {
        for interface in &service.interfaces {
            let entry = sets.entry(interface.name.as_str());
            let (_, set) = entry.or_insert_with(|| (interface, PolicySet::default()));
            set.services.push(service);
        }
    }
    sets
}

/// Those of the services' source ranges, then all rules of the policies; where the policies' defaults
/// differ, Drop wins.
fn rule_list(set: &PolicySet<'_>) -> RuleList {
    let policies = set.policies.iter();
    let drops = policies
        .clone()
        .any(|policy| policy.compiled.default == Action::Drop);
    let of_services = set.services.iter().filter_map(|s| s.refusal.clone());
    let of_policies = policies.flat_map(|policy| policy.compiled.rules.clone());
    RuleList {
        rules: of_services.chain(of_policies).collect(),
        default: if drops { Action::Drop } else { Action::Allow },
    }
}

fn no_port_left(set: &PolicySet<'_>, interface: &str) -> Vec<Finding> {
    let limit = MAX_PORTS;
    let remark = || Remark {
        severity: Severity::Stalled,
        reason: FindingReason::OutOfCapacity,
        path: "spec.interfaces".to_owned(),
        message: format!(
            "interface {interface} is beyond the {limit} that one agent serves; select fewer interfaces"
        ),
    };
    let policies = set.policies.iter().map(|policy| policy.version);
    let versions = policies.chain(set.services.iter().map(|service| service.version));
    versions.map(|version| finding(version, remark())).collect()
}

fn mode_conflict(policy: &Chosen<'_>, interface: &str, mode: WantedMode) -> Finding {
    finding(
        policy.version,
        Remark {
            severity: Severity::Warning,
            reason: FindingReason::AttachModeConflict,
            path: "spec.attachMode".to_owned(),
            message: format!(
                "a policy before this one asks for {mode:?} on {interface}, which has one program for all policies; make them agree"
            ),
        },
    )
}
