//! The whole way from resources to the wanted state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headgate_crds::{Kind, XdpPolicySpec};
use headgate_datapath::state::{Attachment, Block, DatapathState, Digest};
use headgate_layout::verdict::Action;
use serde::{Deserialize, Serialize};

use crate::{
    adopt::{self, Adopted, Candidate, Version, adopt},
    classifier::{self, RuleList, Sizes, TooLarge},
    counters::Counters,
    finding::{Finding, FindingReason, Severity},
    memory::{LastGood, Memory, Seconds},
    node::{Interface, NodeFacts},
    ports,
    resolve::{Groups, Policy, Resolver},
    select::{self, Remark},
    snapshot::{Content, ResourceName, Snapshot, Uid},
};

/// A rule, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSummary {
    /// Its name.
    pub name: String,
    /// `Allow` or `Drop`.
    pub action: String,
    /// Index of its counter.
    pub counter: Option<u32>,
}

/// A policy, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySummary {
    /// Its name.
    pub name: String,
    /// Where it was read.
    pub place: String,
    /// Number of the content that was read.
    pub generation: u64,
    /// Number of the content that is in effect, if any is.
    pub effective: Option<u64>,
    /// Lower first.
    pub priority: u16,
    /// `Allow` or `Drop`.
    pub default_action: String,
    /// Whether its nodeSelector selects this node.
    pub selected: bool,
    /// Interfaces that it is compiled for.
    pub interfaces: Vec<String>,
    /// Rules of the content that is in effect, in order.
    pub rules: Vec<RuleSummary>,
}

/// A policy set's tables, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesSummary {
    /// Name of the tables.
    pub tables: Digest,
    /// Bytes in use.
    pub bytes: u32,
    /// Policies in the order in which they are tried.
    pub policies: Vec<String>,
    /// Interfaces that share the tables.
    pub interfaces: Vec<String>,
    /// Rules.
    pub rules: usize,
    /// Classes of sources, destinations and transport headers.
    pub classes: [usize; 3],
    /// Bytes of crossings.
    pub crossings: u64,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Compilation {
    /// The wanted state; `None`: whatever is enforced stays, for the reasons in `findings`.
    pub state: Option<DatapathState>,
    /// What to remember.
    pub memory: Memory,
    /// What there is to say.
    pub findings: Vec<Finding>,
    /// All policies.
    pub policies: Vec<PolicySummary>,
    /// All tables.
    pub tables: Vec<TablesSummary>,
}

/// Compiles `snapshot` for the node.
#[must_use]
pub fn compile(
    snapshot: &Snapshot,
    node: &NodeFacts,
    memory: &Memory,
    now: Seconds,
) -> Compilation {
    let mut adopted = adopt(snapshot, memory);
    let candidates = std::mem::take(&mut adopted.candidates);
    if memory.lost && !adopted.unknown.is_empty() {
        return hold(adopted, &candidates, memory);
    }
    let compiler = Compiler {
        node,
        memory,
        now,
        candidates: &candidates,
    };
    let changed = compiler.changed();
    let outcome = compiler.attempt(&changed.iter().collect());
    let (attempt, refused) = match outcome {
        Ok(attempt) => (Some(attempt), Vec::new()),
        Err(_) => compiler.largest_that_builds(&changed),
    };
    adopted.findings.extend(refused);
    if memory.lost
        && let Some(attempt) = &attempt
        && !attempt.left_out.is_empty()
    {
        adopted.unknown.clone_from(&attempt.left_out);
        adopted.findings.extend(attempt.findings.iter().cloned());
        return hold(adopted, &candidates, memory);
    }
    compiler.finish(attempt, adopted)
}

/// Nothing changes before what is bad is mended: what it last was is not known.
fn hold(adopted: Adopted, candidates: &BTreeMap<Uid, Candidate>, memory: &Memory) -> Compilation {
    let mut findings = adopted.findings;
    let culprits = adopted.unknown.join(", ");
    for candidate in candidates.values() {
        let Some(version) = &candidate.present else {
            continue;
        };
        if adopted.unknown.contains(&version.name.to_string()) {
            continue;
        }
        findings.push(Finding {
            severity: Severity::Stalled,
            reason: FindingReason::Blocked,
            resource: Some(version.name.clone()),
            place: version.place.clone(),
            path: String::new(),
            message: format!(
                "the agent's memory was lost, so the revision found in the kernel stays whole until {culprits} is mended or deleted"
            ),
        });
    }
    Compilation {
        state: None,
        memory: memory.clone(),
        findings,
        policies: Vec::new(),
        tables: Vec::new(),
    }
}

struct Compiler<'a> {
    node: &'a NodeFacts,
    memory: &'a Memory,
    now: Seconds,
    candidates: &'a BTreeMap<Uid, Candidate>,
}

/// Policies compiled together with a given choice of contents.
struct Attempt {
    /// The contents in effect.
    versions: BTreeMap<Uid, Version>,
    /// Resources of which no content is in effect, although they exist.
    left_out: Vec<String>,
    state: DatapathState,
    ports: BTreeMap<String, headgate_datapath::state::PortIndex>,
    counters: BTreeMap<u32, crate::memory::CounterLease>,
    policies: Vec<PolicySummary>,
    tables: Vec<TablesSummary>,
    findings: Vec<Finding>,
}

/// Which content of each resource an attempt goes by.
struct Draft {
    versions: BTreeMap<Uid, Version>,
    left_out: Vec<String>,
    findings: Vec<Finding>,
}

impl Draft {
    /// Goes by `good` instead of what was chosen for `uid`, or leaves the resource out.
    fn fall_back(&mut self, uid: &Uid, good: Option<&Version>) {
        if let Some(good) = good {
            self.versions.insert(uid.clone(), good.clone());
        } else if let Some(version) = self.versions.remove(uid) {
            self.left_out.push(version.name.to_string());
        }
    }
}

/// One policy in an attempt.
struct Chosen<'a> {
    uid: &'a Uid,
    version: &'a Version,
    spec: Arc<XdpPolicySpec>,
    compiled: Policy,
    interfaces: Vec<&'a Interface>,
}

impl<'a> Compiler<'a> {
    /// Resources whose present content is not the one in effect: groups first, then policies in
    /// their order.
    fn changed(&self) -> Vec<Uid> {
        let changed = self.candidates.iter().filter(|(_, c)| c.is_changed());
        let mut keyed: Vec<_> = changed
            .filter_map(|(uid, candidate)| {
                let version = candidate.present.as_ref()?;
                let rank = match &version.content {
                    Content::Group(_) => (0, 0),
                    Content::Policy(spec) => (1, spec.priority),
                };
                Some((rank, version.name.name.clone(), uid.clone()))
            })
            .collect();
        keyed.sort();
        keyed.into_iter().map(|(_, _, uid)| uid).collect()
    }

    /// Where all changes together do not build: takes in as many as do, and refuses the others with
    /// the reason of each. Costs a logarithm of attempts for each that is refused.
    fn largest_that_builds(&self, changed: &[Uid]) -> (Option<Attempt>, Vec<Finding>) {
        if let Err(reason) = self.attempt(&BTreeSet::new()) {
            return (None, vec![self.nothing_builds(&reason)]);
        }
        let mut taken: Vec<&Uid> = Vec::new();
        let mut rest: Vec<&Uid> = changed.iter().collect();
        // A change that comes later may make room for one that was refused.
        let refused = loop {
            let before = rest.len();
            let refused = self.take_what_builds(&mut taken, rest);
            if refused.is_empty() || refused.len() == before {
                break refused;
            }
            rest = refused.into_iter().map(|(uid, _)| uid).collect();
        };
        let mut attempt = self.attempt(&taken.into_iter().collect()).ok();
        if let Some(attempt) = &mut attempt {
            let candidates = refused.iter().map(|(uid, _)| &self.candidates[*uid]);
            let left_out = candidates.filter(|candidate| candidate.last_good.is_none());
            let names = left_out.filter_map(|candidate| candidate.present.as_ref());
            attempt
                .left_out
                .extend(names.map(|version| version.name.to_string()));
        }
        let findings = refused
            .iter()
            .map(|(uid, reason)| self.too_large(uid, reason));
        (attempt, findings.collect())
    }

    /// Moves as many of `rest` as build, in their order, to `taken`; returns the others.
    fn take_what_builds<'b>(
        &self,
        taken: &mut Vec<&'b Uid>,
        mut rest: Vec<&'b Uid>,
    ) -> Vec<(&'b Uid, TooLarge)> {
        let mut refused = Vec::new();
        while !rest.is_empty() {
            let (mut good, mut bad) = (0, rest.len() + 1);
            let mut reason = None;
            while bad - good > 1 {
                let middle = usize::midpoint(good, bad);
                let with = taken.iter().chain(&rest[..middle]).copied().collect();
                match self.attempt(&with) {
                    Ok(_) => good = middle,
                    Err(error) => (bad, reason) = (middle, Some(error)),
                }
            }
            taken.extend(rest.drain(..good));
            // The last failure was that of the shortest list that does not build.
            refused.extend(reason.map(|reason| (rest.remove(0), reason)));
        }
        refused
    }

    fn too_large(&self, uid: &Uid, reason: &TooLarge) -> Finding {
        let candidate = &self.candidates[uid];
        let outcome = adopt::outcome(candidate.last_good.as_ref(), self.memory);
        let version = candidate.present.as_ref();
        Finding {
            severity: Severity::Stalled,
            reason: FindingReason::TooLarge,
            resource: version.map(|version| version.name.clone()),
            place: version
                .map(|version| version.place.clone())
                .unwrap_or_default(),
            path: "spec".to_owned(),
            message: format!(
                "{reason}; give rules fewer distinct combinations of addresses and ports, or spread them over interfaces; {outcome}"
            ),
        }
    }

    fn nothing_builds(&self, reason: &TooLarge) -> Finding {
        Finding {
            severity: Severity::Stalled,
            reason: FindingReason::TooLarge,
            resource: None,
            place: String::new(),
            path: String::new(),
            message: format!(
                "policies that were in effect no longer fit together on one interface: {reason}; what is enforced stays, make a policy smaller"
            ),
        }
    }

    /// Compiles with the present content of `adopted` resources and the last good one of others.
    fn attempt(&self, adopted: &BTreeSet<&Uid>) -> Result<Attempt, TooLarge> {
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
        let Draft {
            versions,
            left_out,
            mut findings,
        } = draft;
        let resolver = Resolver::new(&groups, &existing);
        let chosen = self.choose(&versions, resolver, &leased, &mut findings);
        let mut attempt = self.assemble(&chosen, findings)?;
        attempt.counters = counters.finish();
        let fresh = attempt
            .counters
            .iter()
            .filter(|(_, lease)| lease.fresh && lease.owner.is_some());
        attempt.state.fresh_counters = fresh.map(|(index, _)| *index).collect();
        attempt.left_out = left_out;
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
            Content::Policy(_) => None,
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

    /// A policy that names what does not exist falls back to its last good content, which goes on
    /// with the last good content of what is gone.
    fn fall_back_where_unresolved(
        &self,
        draft: &mut Draft,
        groups: &Groups,
        existing: &BTreeSet<String>,
    ) {
        for (uid, candidate) in self.candidates {
            let Some((version, spec)) = policy_in(&draft.versions, uid) else {
                continue;
            };
            let Some((path, name)) = missing_group(&spec, existing) else {
                continue;
            };
            let known = |good: &&Version| match &good.content {
                Content::Policy(spec) => all_groups_known(spec, groups),
                Content::Group(_) => false,
            };
            let good = candidate.last_good.as_ref().filter(known);
            let outcome = match good {
                Some(good) if good.generation == version.generation => {
                    "the group's last content stays in effect".to_owned()
                }
                good => adopt::outcome(good, self.memory),
            };
            draft.findings.push(finding(
                &version,
                Remark {
                    severity: Severity::Stalled,
                    reason: FindingReason::UnresolvedReferences,
                    path,
                    message: format!(
                        "there is no CidrGroup {name:?}; create it or correct the name; {outcome}"
                    ),
                },
            ));
            draft.fall_back(uid, good);
        }
    }

    /// Leases a counter to each rule of the policies that concern the node. A policy for which too
    /// few are left falls back to its last good content, whose rules have theirs.
    fn fall_back_where_no_counters(
        &self,
        draft: &mut Draft,
        counters: &mut Counters,
    ) -> BTreeMap<Uid, Vec<u32>> {
        let mut leased = BTreeMap::new();
        for (uid, candidate) in self.candidates {
            let Some((version, spec)) = policy_in(&draft.versions, uid) else {
                continue;
            };
            if !select::concerns(&spec, self.node) {
                continue;
            }
            if let Some(indices) = counters.of_rules(uid, &spec.rules) {
                leased.insert(uid.clone(), indices);
                continue;
            }
            let good = candidate.last_good.as_ref();
            let indices = good.and_then(|good| match &good.content {
                Content::Policy(spec) => counters.of_rules(uid, &spec.rules),
                Content::Group(_) => None,
            });
            let good = good.filter(|_| indices.is_some());
            let outcome = adopt::outcome(good, self.memory);
            draft
                .findings
                .push(finding(&version, no_counter_left(&outcome)));
            draft.fall_back(uid, good);
            leased.extend(indices.map(|indices| (uid.clone(), indices)));
        }
        leased
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
                    let selection = select::interfaces(spec, self.node);
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
    fn assemble(&self, chosen: &[Chosen<'_>], findings: Vec<Finding>) -> Result<Attempt, TooLarge> {
        let mut by_interface: BTreeMap<&str, (&Interface, Vec<usize>)> = BTreeMap::new();
        for (index, policy) in chosen.iter().enumerate() {
            for interface in &policy.interfaces {
                let entry = by_interface.entry(interface.name.as_str());
                entry
                    .or_insert_with(|| (interface, Vec::new()))
                    .1
                    .push(index);
            }
        }
        let assigned = ports::assign(&self.memory.ports, by_interface.keys().copied());
        let mut attempt = Attempt {
            versions: BTreeMap::new(),
            left_out: Vec::new(),
            state: DatapathState {
                failsafe: self.node.failsafe.clone(),
                ..DatapathState::default()
            },
            ports: BTreeMap::new(),
            counters: BTreeMap::new(),
            policies: chosen.iter().map(|policy| self.summary(policy)).collect(),
            tables: Vec::new(),
            findings,
        };
        let mut built: BTreeMap<Vec<usize>, (Block, Sizes)> = BTreeMap::new();
        for (name, (interface, set)) in &by_interface {
            let policies: Vec<&Chosen<'_>> = set.iter().map(|index| &chosen[*index]).collect();
            let Some(port) = assigned.get(*name) else {
                attempt.findings.extend(no_port_left(&policies, name));
                continue;
            };
            if !built.contains_key(set) {
                let list = rule_list(&policies);
                built.insert(set.clone(), classifier::build(&list)?);
            }
            let (block, sizes) = &built[set];
            let asked: Vec<_> = policies
                .iter()
                .map(|policy| policy.spec.attach_mode)
                .collect();
            let (mode, other) = select::mode(interface, &asked);
            if let Some(other) = other {
                attempt
                    .findings
                    .push(mode_conflict(policies[other], name, mode));
            }
            let attachment = Attachment {
                interface: (*name).to_owned(),
                ifindex: interface.ifindex,
                mode,
                tables: block.digest(),
            };
            attempt.state.ports.insert(*port, attachment);
            attempt.state.blocks.insert(block.digest(), block.clone());
            attempt.note_tables(block, *sizes, &policies, name);
        }
        attempt.ports = assigned;
        Ok(attempt)
    }

    fn summary(&self, policy: &Chosen<'_>) -> PolicySummary {
        let candidate = &self.candidates[policy.uid];
        let read = candidate.present.as_ref().unwrap_or(policy.version);
        let rules = policy.spec.rules.iter().zip(&policy.compiled.rules);
        PolicySummary {
            name: policy.version.name.name.clone(),
            place: read.place.clone(),
            generation: read.generation,
            effective: Some(policy.version.generation),
            priority: policy.spec.priority,
            default_action: action_name(policy.compiled.default),
            selected: true,
            interfaces: policy.interfaces.iter().map(|i| i.name.clone()).collect(),
            rules: rules
                .map(|(written, compiled)| RuleSummary {
                    name: written.name.clone(),
                    action: action_name(compiled.action),
                    counter: Some(compiled.counter),
                })
                .collect(),
        }
    }

    fn finish(&self, attempt: Option<Attempt>, adopted: Adopted) -> Compilation {
        let Some(attempt) = attempt else {
            return Compilation {
                state: None,
                memory: self.memory.clone(),
                findings: adopted.findings,
                policies: Vec::new(),
                tables: Vec::new(),
            };
        };
        let mut ports = attempt.ports.clone();
        let taken: BTreeSet<_> = ports.values().copied().collect();
        let former = self
            .memory
            .ports
            .iter()
            .filter(|(_, port)| !taken.contains(port));
        ports.extend(former.map(|(name, port)| (name.clone(), *port)));
        let last_good = self.last_good(&attempt.versions);
        let mut generations = adopted.generations;
        for uid in last_good.keys() {
            // What is gone and comes back goes on counting.
            let former = self.memory.generations.get(uid);
            if let (false, Some(former)) = (generations.contains_key(uid), former) {
                generations.insert(uid.clone(), *former);
            }
        }
        let memory = Memory {
            lost: false,
            counters: attempt.counters.clone(),
            ports,
            generations,
            last_good,
        };
        let mut findings = adopted.findings;
        findings.extend(attempt.findings);
        let mut policies = attempt.policies;
        policies.extend(self.not_in_effect(&policies, &attempt.versions));
        policies.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        Compilation {
            state: Some(attempt.state),
            memory,
            findings,
            policies,
            tables: attempt.tables,
        }
    }

    /// What is in effect now, and groups that are gone but that something in effect names.
    fn last_good(&self, versions: &BTreeMap<Uid, Version>) -> BTreeMap<Uid, LastGood> {
        let good = |version: &Version| LastGood {
            name: version.name.clone(),
            generation: version.generation,
            file: version.file.clone(),
            content: version.content.clone(),
        };
        let mut kept: BTreeMap<Uid, LastGood> = versions
            .iter()
            .map(|(uid, version)| (uid.clone(), good(version)))
            .collect();
        let policies = versions
            .values()
            .filter_map(|version| match &version.content {
                Content::Policy(spec) => Some(spec),
                Content::Group(_) => None,
            });
        let named: BTreeSet<&String> = policies
            .flat_map(|spec| group_names(spec))
            .map(|(_, n)| n)
            .collect();
        for (uid, former) in &self.memory.last_good {
            let is_group = matches!(former.content, Content::Group(_));
            if is_group && named.contains(&former.name.name) && !kept.contains_key(uid) {
                kept.insert(uid.clone(), former.clone());
            }
        }
        kept
    }

    /// Policies that exist and have nothing in effect here.
    fn not_in_effect(
        &self,
        listed: &[PolicySummary],
        versions: &BTreeMap<Uid, Version>,
    ) -> Vec<PolicySummary> {
        let listed: BTreeSet<&str> = listed.iter().map(|policy| policy.name.as_str()).collect();
        let candidates = self.candidates.iter().filter_map(|(uid, candidate)| {
            let version = candidate
                .present
                .as_ref()
                .or(candidate.last_good.as_ref())?;
            let Content::Policy(spec) = &version.content else {
                return None;
            };
            let unlisted = !listed.contains(version.name.name.as_str());
            unlisted.then(|| PolicySummary {
                name: version.name.name.clone(),
                place: version.place.clone(),
                generation: version.generation,
                effective: versions.get(uid).map(|v| v.generation),
                priority: spec.priority,
                default_action: format!("{:?}", spec.default_action),
                selected: select::concerns(spec, self.node),
                interfaces: Vec::new(),
                rules: spec
                    .rules
                    .iter()
                    .map(|rule| RuleSummary {
                        name: rule.name.clone(),
                        action: format!("{:?}", rule.action),
                        counter: None,
                    })
                    .collect(),
            })
        });
        candidates.collect()
    }
}

impl Attempt {
    fn note_tables(
        &mut self,
        block: &Block,
        sizes: Sizes,
        policies: &[&Chosen<'_>],
        interface: &str,
    ) {
        if let Some(known) = self.tables.iter_mut().find(|t| t.tables == block.digest()) {
            known.interfaces.push(interface.to_owned());
            return;
        }
        self.tables.push(TablesSummary {
            tables: block.digest(),
            bytes: block.length(),
            policies: policies
                .iter()
                .map(|p| p.version.name.name.clone())
                .collect(),
            interfaces: vec![interface.to_owned()],
            rules: policies.iter().map(|p| p.compiled.rules.len()).sum(),
            classes: [sizes.sources, sizes.destinations, sizes.transports],
            crossings: sizes.crossings,
        });
    }
}

/// All rules of the policies; where their defaults differ, Drop wins.
fn rule_list(policies: &[&Chosen<'_>]) -> RuleList {
    let drops = policies
        .iter()
        .any(|policy| policy.compiled.default == Action::Drop);
    RuleList {
        rules: policies
            .iter()
            .flat_map(|policy| policy.compiled.rules.clone())
            .collect(),
        default: if drops { Action::Drop } else { Action::Allow },
    }
}

fn action_name(action: Action) -> String {
    format!("{action:?}")
}

/// The groups that a policy names, with the paths where it does.
fn group_names(spec: &XdpPolicySpec) -> impl Iterator<Item = (String, &String)> {
    spec.rules.iter().enumerate().flat_map(|(index, rule)| {
        let sides = [("from", rule.from.as_ref()), ("to", rule.to.as_ref())];
        sides.into_iter().flat_map(move |(side, endpoint)| {
            let reference = endpoint.and_then(|endpoint| endpoint.cidr_groups.as_ref());
            let names = reference.map(|r| r.names.as_slice()).unwrap_or_default();
            names.iter().enumerate().map(move |(place, name)| {
                (
                    format!("spec.rules[{index}].{side}.cidrGroups.names[{place}]"),
                    name,
                )
            })
        })
    })
}

fn missing_group(spec: &XdpPolicySpec, existing: &BTreeSet<String>) -> Option<(String, String)> {
    group_names(spec)
        .find(|(_, name)| !existing.contains(*name))
        .map(|(path, name)| (path, name.clone()))
}

fn all_groups_known(spec: &XdpPolicySpec, groups: &Groups) -> bool {
    group_names(spec).all(|(_, name)| groups.contains_key(name))
}

fn finding(version: &Version, remark: Remark) -> Finding {
    Finding {
        severity: remark.severity,
        reason: remark.reason,
        resource: Some(version.name.clone()),
        place: version.place.clone(),
        path: remark.path,
        message: remark.message,
    }
}

fn policy_in(
    versions: &BTreeMap<Uid, Version>,
    uid: &Uid,
) -> Option<(Version, Arc<XdpPolicySpec>)> {
    let version = versions.get(uid)?;
    match &version.content {
        Content::Policy(spec) => Some((version.clone(), Arc::clone(spec))),
        Content::Group(_) => None,
    }
}

fn no_counter_left(outcome: &str) -> Remark {
    Remark {
        severity: Severity::Stalled,
        reason: FindingReason::OutOfCapacity,
        path: "spec.rules".to_owned(),
        message: format!(
            "too few of the {} rule counters of this node are left, which the rules of all policies share; remove rules that are not needed; {outcome}",
            headgate_layout::maps::MAX_COUNTERS
        ),
    }
}

fn no_port_left(policies: &[&Chosen<'_>], interface: &str) -> Vec<Finding> {
    let limit = headgate_layout::maps::MAX_PORTS;
    let remark = || Remark {
        severity: Severity::Stalled,
        reason: FindingReason::OutOfCapacity,
        path: "spec.interfaces".to_owned(),
        message: format!(
            "interface {interface} is beyond the {limit} that one agent serves; select fewer interfaces"
        ),
    };
    policies
        .iter()
        .map(|policy| finding(policy.version, remark()))
        .collect()
}

fn mode_conflict(
    policy: &Chosen<'_>,
    interface: &str,
    mode: headgate_datapath::state::WantedMode,
) -> Finding {
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
