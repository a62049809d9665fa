//! The whole way from resources to the wanted state.

mod attempt;
mod fallback;
mod fit;
mod join;
mod overlay;
mod serve;
mod summary;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headgate_crds::LocalDelivery;
use headgate_datapath::{state::DatapathState, tunnel::Pods};

use crate::{
    adopt::{Adopted, Candidate, Version, adopt},
    endpoints::Endpoints,
    finding::{Finding, FindingReason, Severity},
    memory::{LastGood, Memory, Seconds},
    node::NodeFacts,
    select::Remark,
    services::{self, Rings},
    snapshot::{Content, Snapshot, Uid},
    uplinks::{self, Uplinks},
};

use attempt::Attempt;
pub use summary::{
    FrontendSummary, NativeRouteSummary, PeerSummary, PolicySummary, RuleSummary, ServiceSummary,
    SourceRangesSummary, TablesSummary, TunnelSummary,
};

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
    /// All services.
    pub services: Vec<ServiceSummary>,
    /// All peers of the tunnel.
    pub peers: Vec<PeerSummary>,
    /// All tables.
    pub tables: Vec<TablesSummary>,
}

impl Compilation {
    /// Has what comes from peers that ask for direct delivery go to these pods; where none does, there are none. Pods
    /// come and go, and nothing is compiled anew for them.
    pub fn deliver_to(&mut self, pods: Pods) {
        let is_direct =
            |peer: &PeerSummary| peer.is_joined() && peer.local_delivery == LocalDelivery::Direct;
        let tunnel = self.state.as_mut().and_then(|state| state.tunnel.as_mut());
        if let Some(tunnel) = tunnel.filter(|_| self.peers.iter().any(is_direct)) {
            tunnel.pods = pods;
        }
    }
}

/// Compiles `snapshot` for the node.
#[must_use]
pub fn compile(
    snapshot: &Snapshot,
    node: &NodeFacts,
    memory: &Memory,
    now: Seconds,
) -> Compilation {
    compile_with(&mut Rings::default(), snapshot, node, memory, now)
}

/// The same, with what is known of rings, and sooner: see [`Rings`].
#[must_use]
pub fn compile_with(
    rings: &mut Rings,
    snapshot: &Snapshot,
    node: &NodeFacts,
    memory: &Memory,
    now: Seconds,
) -> Compilation {
    let mut adopted = adopt(snapshot, memory);
    let (node, uplinks, held) = uplinks::hold(node, &memory.uplinks, now);
    adopted.findings.extend(held);
    let candidates = std::mem::take(&mut adopted.candidates);
    if memory.lost && !adopted.unknown.is_empty() {
        return hold(adopted, &candidates, memory);
    }
    let compiler = Compiler {
        node: &node,
        uplinks,
        memory,
        endpoints: snapshot.endpoints.as_ref().unwrap_or(&memory.endpoints),
        now,
        candidates: &candidates,
        rings: RefCell::new(rings),
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
        services: Vec::new(),
        peers: Vec::new(),
        tables: Vec::new(),
    }
}

struct Compiler<'a> {
    node: &'a NodeFacts,
    uplinks: Uplinks,
    memory: &'a Memory,
    endpoints: &'a Arc<Endpoints>,
    now: Seconds,
    candidates: &'a BTreeMap<Uid, Candidate>,
    rings: RefCell<&'a mut Rings>,
}

impl Compiler<'_> {
    /// Resources whose present content is not the one in effect: what others refer to first, then
    /// policies in their order, then services.
    fn changed(&self) -> Vec<Uid> {
        let changed = self.candidates.iter().filter(|(_, c)| c.is_changed());
        let mut keyed: Vec<_> = changed
            .filter_map(|(uid, candidate)| {
                let version = candidate.present.as_ref()?;
                let rank = match &version.content {
                    Content::Group(_) | Content::Pool(_) => (0, 0),
                    Content::Policy(spec) => (1, spec.priority),
                    Content::Service(_) | Content::Peer(_) => (2, 0),
                };
                Some((rank, version.name.name.clone(), uid.clone()))
            })
            .collect();
        keyed.sort();
        keyed.into_iter().map(|(_, _, uid)| uid).collect()
    }

    fn finish(&self, attempt: Option<Attempt>, adopted: Adopted) -> Compilation {
        let Some(attempt) = attempt else {
            return Compilation {
                state: None,
                memory: self.memory.clone(),
                findings: adopted.findings,
                policies: Vec::new(),
                services: Vec::new(),
                peers: Vec::new(),
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
            uplinks: self.uplinks.clone(),
            endpoints: self.endpoints_in_use(&attempt.versions),
            histories: attempt.histories.clone(),
            generations,
            last_good,
        };
        let mut findings = adopted.findings;
        findings.extend(attempt.findings);
        let mut policies = attempt.policies;
        policies.extend(self.not_in_effect(&policies, &attempt.versions));
        policies.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
        let mut services = attempt.services;
        services.extend(self.services_not_in_effect(&services));
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let mut peers = attempt.peers;
        peers.extend(self.peers_not_in_effect(&peers));
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        Compilation {
            state: Some(attempt.state),
            memory,
            findings,
            policies,
            services,
            peers,
            tables: attempt.tables,
        }
    }

    /// Of what is known, what is in effect.
    fn endpoints_in_use(&self, versions: &BTreeMap<Uid, Version>) -> Arc<Endpoints> {
        let names: BTreeSet<String> = versions
            .values()
            .filter_map(|version| match &version.content {
                Content::Service(service) => services::referred(&version.name.name, &service.spec),
                _ => None,
            })
            .collect();
        if self.endpoints.keys().all(|name| names.contains(name)) {
            return Arc::clone(self.endpoints);
        }
        let used = self
            .endpoints
            .iter()
            .filter(|(name, _)| names.contains(*name));
        Arc::new(
            used.map(|(name, slices)| (name.clone(), slices.clone()))
                .collect(),
        )
    }

    /// What is in effect now, and groups that are gone but that something in effect names.
    fn last_good(&self, versions: &BTreeMap<Uid, Version>) -> BTreeMap<Uid, LastGood> {
        let good = |version: &Version| LastGood {
            name: version.name.clone(),
            generation: version.generation,
            list: version.list.clone(),
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
                _ => None,
            });
        let named: BTreeSet<&String> = policies
            .flat_map(|spec| fallback::group_names(spec))
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
