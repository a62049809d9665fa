//! One turn of the loop: compile, diff, apply, confirm, report.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use headgate_compile::{
    Compilation,
    compilation::PeerSummary,
    inputs,
    memory::{Memory, Seconds},
    node::NodeFacts,
};
use headgate_datapath::{
    diff::diff,
    kernel::{Applied, Kernel, KernelError, Outcome, carry_out},
    observed::Observed,
    plan::Step,
    state::{Attachment, DatapathState, Digest, PortIndex},
    tunnel::Pods,
};

use crate::{
    kept::Kept,
    native,
    reachability::{Book, Reachability},
    report::{PortReport, PortStatus, Report, TunnelReport},
    resources::Resources,
    store::Store,
    unserved::{self, Lack},
};

/// What a turn works on.
pub struct Inputs<'a> {
    pub resources: &'a Resources,
    pub facts: &'a NodeFacts,
    /// Pods of the node that packets can be given to directly.
    pub pods: &'a Pods,
    pub source: &'a str,
    pub api_servers: &'a BTreeSet<SocketAddr>,
    /// What is known of endpoints.
    pub reachability: &'a Book,
    pub now: Seconds,
}

/// Why something alone is not as wanted.
#[derive(Default)]
struct Reasons {
    ports: BTreeMap<PortIndex, String>,
    tunnel: Option<String>,
    native: Option<String>,
    /// Steps that failed and that services alone need.
    services: Vec<Lack>,
}

/// One node's datapath under the agent's hand.
pub struct Node<K> {
    kernel: K,
    store: Store,
    memory: Memory,
    /// Digest of the object that programs are loaded from.
    object: Digest,
    /// Why ports are not in native mode, as their drivers said when they were attached.
    refusals: BTreeMap<PortIndex, String>,
    kept: Kept,
    /// What was last found enforced as wanted, and the digest of its inputs. The tunnel is no part of it:
    /// where that is not as wanted, its peers are exceptions.
    inputs: Option<(Digest, Digest)>,
    /// Packets that had passed unjudged when the kernel was last read.
    unjudged: BTreeMap<PortIndex, u64>,
}

impl<K: Kernel> Node<K> {
    pub fn new(kernel: K, store: Store, memory: Memory, object: Digest) -> Self {
        Self {
            kernel,
            store,
            memory,
            object,
            refusals: BTreeMap::new(),
            kept: Kept::default(),
            inputs: None,
            unjudged: BTreeMap::new(),
        }
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Takes over what a former agent said of native mode.
    pub fn recall(&mut self, former: &Report, source: &str) {
        if former.source == source {
            self.inputs = former.live_enforcement.zip(former.inputs);
        }
        for (port, report) in &former.ports {
            if let Some(refusal) = &report.native_refusal {
                self.refusals.insert(*port, refusal.clone());
            }
        }
    }

    /// Brings the node to what `inputs` say and reports what is so; whether the report is new.
    pub fn turn(&mut self, inputs: &Inputs<'_>) -> (Report, bool) {
        let snapshot = &inputs.resources.snapshot;
        let mut compilation = self
            .kept
            .compile(snapshot, inputs.facts, &self.memory, inputs.now);
        compilation.deliver_to(inputs.pods.clone());
        let mut failures = Vec::new();
        self.memory = compilation.memory.clone();
        // Before anything goes live: what a live table counts into must be known after a crash.
        if let Err(error) = self.store.keep(&self.memory) {
            failures.push(format!("the agent's memory is not kept: {error}"));
        }
        let (observed, reasons) = match self.bring_about(compilation.state.as_ref(), &mut failures)
        {
            Ok(done) => done,
            Err(error) => {
                failures.push(error.to_string());
                (None, Reasons::default())
            }
        };
        self.confirm_inputs(inputs, compilation.state.as_ref(), observed.as_ref());
        let report = self.report(inputs, &compilation, observed.as_ref(), &reasons, failures);
        if let Some(observed) = observed {
            self.unjudged = observed.unjudged;
        }
        match self.store.publish(&report) {
            Ok(new) => (report, new),
            Err(error) => {
                tracing::error!("the report is not written: {error}");
                (report, true)
            }
        }
    }

    /// Observes, plans, carries out, and reads back; errors that concern one port or the tunnel alone apart.
    fn bring_about(
        &mut self,
        wanted: Option<&DatapathState>,
        failures: &mut Vec<String>,
    ) -> Result<(Option<Observed>, Reasons), KernelError> {
        let observed = self.kernel.observe()?;
        let Some(wanted) = wanted else {
            return Ok((Some(observed), Reasons::default()));
        };
        self.tell_what_is_lost(&observed, wanted);
        let plan = match diff(&observed, wanted, self.object) {
            Ok(plan) => plan,
            Err(error) => {
                failures.push(error.to_string());
                return Ok((Some(observed), Reasons::default()));
            }
        };
        if plan.is_empty() {
            return Ok((Some(observed), Reasons::default()));
        }
        tracing::debug!("plan:\n{plan}");
        let started = std::time::Instant::now();
        let outcomes = carry_out(&mut self.kernel, plan, &wanted.blocks);
        tracing::debug!(steps = outcomes.len(), took = ?started.elapsed(), "carried out");
        let reasons = self.note(&outcomes, wanted.tunnel.is_some(), failures);
        Ok((Some(self.kernel.observe()?), reasons))
    }

    /// Nothing where something else is enforced than what these inputs come to.
    fn inputs_of(&self, observed: Option<&Observed>) -> Option<Digest> {
        let (enforcement, digest) = self.inputs?;
        (observed.map(Observed::enforcement) == Some(enforcement)).then_some(digest)
    }

    /// Only what was read back counts as compiled in: until then the former inputs are in force.
    fn confirm_inputs(
        &mut self,
        inputs: &Inputs<'_>,
        wanted: Option<&DatapathState>,
        observed: Option<&Observed>,
    ) {
        let live = observed.map(Observed::enforcement);
        if live.is_some() && live == wanted.map(DatapathState::enforcement) {
            let resources = inputs.resources;
            let digest = inputs::inputs_digest(&resources.snapshot, &inputs.facts.labels);
            self.inputs = live.zip(digest).or(self.inputs);
        }
    }

    fn tell_what_is_lost(&self, observed: &Observed, wanted: &DatapathState) {
        for (port, link) in &observed.links {
            if let (None, Some(attachment)) = (link.ifindex, wanted.ports.get(port)) {
                tracing::warn!(
                    interface = attachment.interface,
                    "the program was detached by somebody else, or the interface made anew; it is put back"
                );
            }
        }
    }

    fn note(
        &mut self,
        outcomes: &[Outcome],
        wants_tunnel: bool,
        failures: &mut Vec<String>,
    ) -> Reasons {
        let mut reasons = Reasons::default();
        for Outcome { step, result } in outcomes {
            match (step, result) {
                (
                    Step::Attach { port, .. } | Step::ChangeMode { port, .. },
                    Ok(Applied::Attached { refusal, .. }),
                ) => {
                    match refusal {
                        Some(refusal) => self.refusals.insert(*port, refusal.clone()),
                        None => self.refusals.remove(port),
                    };
                }
                (Step::Detach(port), Ok(_)) => {
                    self.refusals.remove(port);
                }
                (Step::ResetCounters(counters), Ok(_)) => self.counters_were_reset(counters),
                (_, Ok(_)) => {}
                (step, Err(error)) => {
                    if let Some(port) = step.concerns_only() {
                        reasons.ports.insert(port, error.to_string());
                        continue;
                    }
                    let failure = format!("could not {step}: {error}");
                    let unreached = format!("not reached: {failure}");
                    if step.is_for_services() {
                        let step = step.clone();
                        reasons.services.push(Lack { step, failure });
                    } else if step.is_of_tunnel() && wants_tunnel {
                        reasons.tunnel = Some(failure);
                    } else if let Step::SetNativeRoutes(_) = step {
                        reasons.native = Some(failure);
                    } else if step.is_of_native() {
                        failures.push(failure);
                    } else {
                        reasons.native = Some(unreached.clone());
                        reasons.tunnel = wants_tunnel.then_some(unreached);
                        failures.push(failure);
                    }
                }
            }
        }
        reasons
    }

    fn counters_were_reset(&mut self, counters: &BTreeSet<u32>) {
        self.memory.counters_were_reset(counters);
        if let Err(error) = self.store.keep(&self.memory) {
            // They would be reset once more after a restart: reported by the next turn's keep.
            tracing::warn!("the agent's memory is not kept: {error}");
        }
    }

    fn report(
        &self,
        inputs: &Inputs<'_>,
        compilation: &Compilation,
        observed: Option<&Observed>,
        reasons: &Reasons,
        mut failures: Vec<String>,
    ) -> Report {
        let wanted = compilation.state.as_ref();
        let ports = wanted.map(|state| {
            let ports = state.ports.iter().map(|(port, attachment)| {
                let reason = reasons.ports.get(port).or_else(|| failures.first());
                (*port, self.port_report(*port, attachment, observed, reason))
            });
            ports.collect()
        });
        let lacks = &reasons.services;
        failures.extend(lacks.iter().map(|lack| lack.failure.clone()));
        let unserved = unserved::findings(&compilation.services, lacks, observed);
        let findings = inputs
            .resources
            .left_aside
            .iter()
            .chain(&compilation.findings)
            .chain(&unserved);
        let findings = findings.cloned().collect();
        Report {
            node: inputs.facts.name.clone(),
            node_labels: inputs.facts.labels.clone(),
            source: inputs.source.to_owned(),
            source_unavailable: inputs.resources.unavailable.clone(),
            wanted_revision: wanted.map(DatapathState::revision),
            live_revision: observed.map(Observed::revision),
            live_enforcement: observed.map(Observed::enforcement),
            inputs: self.inputs_of(observed),
            api_servers: inputs.api_servers.clone(),
            ports: ports.unwrap_or_default(),
            policies: compilation.policies.clone(),
            services: compilation.services.clone(),
            peers: compilation.peers.clone(),
            reachability: reachability(&compilation.peers, inputs.reachability),
            tunnel: tunnel_report(wanted, observed, reasons.tunnel.as_ref()),
            native: native::report(&compilation.peers, observed, reasons.native.as_ref()),
            diverted: observed.map_or_else(BTreeMap::new, |o| diverted(&compilation.peers, o)),
            tables: compilation.tables.clone(),
            findings,
            failures,
        }
    }

    fn port_report(
        &self,
        port: PortIndex,
        attachment: &Attachment,
        observed: Option<&Observed>,
        reason: Option<&String>,
    ) -> PortReport {
        let link = observed.and_then(|observed| observed.links.get(&port));
        let status = match self.passed_unjudged(port, observed) {
            Some(error) => PortStatus::NotEnforced(error),
            None => status(port, attachment, observed, reason),
        };
        let mode = link
            .filter(|link| link.ifindex.is_some())
            .map(|link| link.mode);
        PortReport {
            interface: attachment.interface.clone(),
            ifindex: attachment.ifindex.0,
            mode,
            native_refusal: self.refusals.get(&port).cloned(),
            tables: attachment.tables,
            status,
        }
    }
}

/// Of the peers that packets go to.
fn reachability(peers: &[PeerSummary], known: &Book) -> BTreeMap<String, Reachability> {
    let joined = peers.iter().filter(|peer| peer.is_joined());
    let known = joined.filter_map(|peer| Some((peer.name.clone(), known.get(&peer.endpoint)?)));
    known.map(|(name, found)| (name, found.clone())).collect()
}

/// Peers that packets do not get to by the tunnel's routes, with the reason.
fn diverted(peers: &[PeerSummary], observed: &Observed) -> BTreeMap<String, String> {
    let tunnel = &observed.tunnel;
    if tunnel.diverted.is_empty() {
        return BTreeMap::new();
    }
    let joined = peers.iter().filter(|peer| peer.is_joined());
    let why = joined.filter_map(|peer| {
        let networks = peer.prefixes().map(|(_, prefix)| prefix);
        Some((peer.name.clone(), tunnel.diversion(networks)?))
    });
    why.collect()
}

/// How the tunnel stands, by what was read back.
fn tunnel_report(
    wanted: Option<&DatapathState>,
    observed: Option<&Observed>,
    reason: Option<&String>,
) -> Option<TunnelReport> {
    let wanted = wanted?.tunnel.as_ref()?.digest();
    let because = |fallback: &str| reason.cloned().unwrap_or_else(|| fallback.to_owned());
    let status = match observed {
        None => PortStatus::NotEnforced(because("the kernel could not be read")),
        Some(observed) => match observed.tunnel.digest() {
            Some(live) if live == wanted => PortStatus::Enforced,
            Some(_) => PortStatus::Outdated(because("it is not as wanted")),
            None => PortStatus::NotEnforced(because("it is not there")),
        },
    };
    Some(TunnelReport { wanted, status })
}

impl<K> Node<K> {
    /// Whatever the slots say, a program that found no tables has let packets pass.
    fn passed_unjudged(&self, port: PortIndex, observed: Option<&Observed>) -> Option<String> {
        let (before, now) = (self.unjudged.get(&port)?, observed?.unjudged.get(&port)?);
        let packets = now.checked_sub(*before).filter(|packets| *packets > 0)?;
        Some(format!(
            "{packets} packets found no tables and passed: an error of Headgate's; please report it with the output of `headgate status -o json`"
        ))
    }
}

/// What `port` enforces, by what was read back.
fn status(
    port: PortIndex,
    attachment: &Attachment,
    observed: Option<&Observed>,
    reason: Option<&String>,
) -> PortStatus {
    let because = |fallback: &str| reason.cloned().unwrap_or_else(|| fallback.to_owned());
    let Some(observed) = observed else {
        return PortStatus::NotEnforced(because("the kernel could not be read"));
    };
    let link = observed.links.get(&port);
    if link.is_none_or(|link| link.ifindex != Some(attachment.ifindex)) {
        return PortStatus::NotEnforced(because("no program of ours is attached"));
    }
    if link.is_some_and(|link| link.object.is_none()) {
        return PortStatus::Outdated(because(
            "the attached program is not the one that was pinned",
        ));
    }
    match observed.enforced(port) {
        Some(tables) if tables == attachment.tables => match reason {
            // In effect, but not all that was asked for: another mode, say.
            Some(reason) => PortStatus::Outdated(reason.clone()),
            None => PortStatus::Enforced,
        },
        Some(_) => PortStatus::Outdated(because("an older revision is live")),
        None => PortStatus::NotEnforced(because("there are no tables in the active slot")),
    }
}

#[cfg(test)]
mod tests;
