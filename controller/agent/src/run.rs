//! The loop itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use headgate_compile::{
    compilation::PeerSummary,
    finding::Finding,
    memory::{Memory, Seconds},
    node::NodeFacts,
    services::backends,
    snapshot::Content,
    tunnel::{endpoints, own_networks},
};
use headgate_crds::{DEFAULT_TUNNEL_PORT, TunnelMode};
use headgate_datapath::{
    kernel::{Kernel as _, KernelError},
    observed::Observed,
    state::Ifindex,
    tunnel::Pods,
};
use headgate_kernel::{Instance, RunningKernel, interfaces, object_digest, pods::links_and_routes};
use headgate_source::{
    Reading,
    kubernetes::{ClientError, Uses},
};
use headgate_telemetry::serve;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cluster::Cluster,
    config::{Config, SourceConfig, state_folder},
    cycle::{Inputs, Node},
    facts,
    lock::{InstanceLock, LockError},
    pod_mtu::PodMtu,
    pods,
    prober::{Prober, Targets},
    reachability::{Book, Reach},
    report::{PortStatus, Report},
    resources::Resources,
    source::{Source, uses},
    store::{Store, StoreError},
    telemetry::{Metrics, Pulse},
    ways::Ways,
};

/// How often the kernel is looked at although nothing changed: a link that somebody removes sends
/// no event.
const AUDIT: Duration = Duration::from_secs(5);

/// Why the agent ended. What is enforced stays.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent runs, or the lock failed.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The state folder cannot be used at all.
    #[error("state folder: {0}; make it writable or name another by --state-dir")]
    Store(#[from] StoreError),
    /// The kernel cannot be used at all.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The directory of resources cannot be read, and this instance has never read it.
    #[error(
        "--source {}: {source}; give a directory of YAML files that is there, or the word kubernetes for a cluster's API",
        path.display()
    )]
    Source {
        /// As given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no client of the API.
    #[error(transparent)]
    Api(#[from] ClientError),
    /// Signals cannot be received.
    #[error("installing signal handlers: {0}")]
    Signals(std::io::Error),
}

/// Runs an agent until SIGTERM or SIGINT; enforcement stays in the kernel when it ends.
///
/// # Errors
/// Only what makes any work impossible; all else is reported and tried again.
pub async fn run(config: Config) -> Result<(), AgentError> {
    let folder = state_folder(&config.state, &config.instance);
    let _lock = InstanceLock::take(&folder)?;
    let former = crate::store::report(&folder).ok().flatten();
    refuse_a_slip(&config.source, former.as_ref())?;
    let store = Store::open(&folder)?;
    let instance = Instance {
        name: config.instance.clone(),
    };
    let mut kernel = RunningKernel::open(&instance, &config.bpffs)?;
    let (store, memory) = recall(store, &mut kernel)?;
    let mut node = Node::new(kernel, store, memory, object_digest());
    if let Some(former) = &former {
        node.recall(former, &config.source.to_string());
    }
    let source = Source::open(&config.source, &config.node_name).await?;
    let cluster = source
        .client()
        .map(|client| Cluster::start(client, &config.node_name, &config.namespace));
    match source.client() {
        Some(client) => {
            let node_name = config.node_name.clone();
            tokio::spawn(pods::keep(client.clone(), node_name, folder));
        }
        None => pods::forget(&folder),
    }
    let known = Known::new(&config, former.as_ref(), &source);
    let pulse = Pulse::default();
    let found = former.as_ref().map(found_by).unwrap_or_default();
    let prober = Prober::start(instance.clone(), config.bpffs.clone(), found);
    if let Some(address) = config.metrics {
        let metrics = Metrics {
            pulse: pulse.clone(),
            instance,
            bpffs: config.bpffs.clone(),
        };
        let probes = Arc::new(pulse.clone());
        tokio::spawn(async move {
            let Err(error) = serve(address, metrics, probes).await;
            tracing::error!("{error}; enforcement goes on");
        });
    }
    Agent {
        pulse,
        source,
        cluster,
        known,
        node,
        ways: Ways::default(),
        pod_mtu: PodMtu::default(),
        config,
        said: Said::default(),
        prober,
    }
    .serve()
    .await
}

/// A directory that this instance has read before is waited for, and what it held stays in effect; of one that
/// nobody has ever seen there is nothing to keep, and its name is a slip.
fn refuse_a_slip(source: &SourceConfig, former: Option<&Report>) -> Result<(), AgentError> {
    let SourceConfig::Directory(path) = source else {
        return Ok(());
    };
    if former.is_some_and(|former| former.source == source.to_string()) {
        return Ok(());
    }
    match std::fs::read_dir(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(AgentError::Source {
            path: path.clone(),
            source: error,
        }),
    }
}

/// What is known of the node and its API: told by the API, kept from the last report while it does
/// not answer.
struct Known {
    /// `None` before anybody told.
    labels: Option<BTreeMap<String, String>>,
    api_servers: BTreeSet<SocketAddr>,
}

impl Known {
    fn new(config: &Config, former: Option<&Report>, source: &Source) -> Self {
        let mut api_servers = source.peers();
        // Also where a directory stands in for an API that is gone.
        let former = former.filter(|former| former.node == config.node_name);
        api_servers.extend(former.iter().flat_map(|former| &former.api_servers));
        let labels = match config.source {
            SourceConfig::Directory(_) => Some(config.node_labels.clone()),
            SourceConfig::Kubernetes { .. } => former.map(|former| former.node_labels.clone()),
        };
        Self {
            labels,
            api_servers,
        }
    }

    fn update(&mut self, source: &Source) {
        if let Some(node) = source.node() {
            self.labels = Some(node.labels.clone());
        }
        if let Some(servers) = source.api_servers()
            && !servers.is_empty()
        {
            if source.peers().is_empty() {
                // The kubeconfig's server could not be resolved: what it was last is kept.
                self.api_servers.extend(servers);
            } else {
                self.api_servers = servers;
            }
        }
    }
}

/// The memory from disk; where it is missing or damaged and the kernel holds a revision, one that
/// knows as much as the kernel can tell.
fn recall(mut store: Store, kernel: &mut RunningKernel) -> Result<(Store, Memory), AgentError> {
    match store.memory() {
        Ok(Some(memory)) => return Ok((store, memory)),
        Ok(None) => {}
        Err(error @ StoreError::Damaged { .. }) => {
            let aside = store.set_aside()?;
            tracing::error!("{error}; moved to {}", aside.display());
        }
        Err(error) => return Err(error.into()),
    }
    let observed = kernel.observe()?;
    if holds_nothing(&observed) {
        return Ok((store, Memory::default()));
    }
    tracing::warn!(
        "the agent's memory is lost, and the kernel holds a revision: it stays whole until every resource is good"
    );
    let names = interfaces::interfaces()?
        .into_iter()
        .map(|interface| (interface.ifindex, interface.name))
        .collect();
    Ok((store, lost_memory(&observed, &names, now())))
}

fn holds_nothing(observed: &Observed) -> bool {
    let routes = &observed.native.routes;
    observed.links.is_empty() && observed.tunnel.is_absent() && routes.is_empty()
}

/// What an agent knows without its memory: what the kernel tells, given the node's interfaces by
/// number.
#[must_use]
pub fn lost_memory(
    observed: &Observed,
    interfaces: &BTreeMap<Ifindex, String>,
    now: Seconds,
) -> Memory {
    if holds_nothing(observed) {
        return Memory::default();
    }
    let named = |ifindex| interfaces.get(&ifindex).cloned();
    let ports = observed
        .links
        .iter()
        .filter_map(|(port, link)| Some((named(link.ifindex?)?, *port)));
    Memory::lost(ports.collect(), &observed.counters_in_use, now)
}

/// The time, for compile: in seconds since 1970.
#[must_use]
pub fn now() -> Seconds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Seconds(since.map_or(0, |since| since.as_secs()))
}

/// Whom packets go to.
fn targets(report: &Report) -> Targets {
    let joined = report.peers.iter().filter(|peer| peer.is_joined());
    // Nobody listens for a Native peer; any host that is up refuses a connection to any such port.
    let port = |peer: &PeerSummary| match peer.mode {
        TunnelMode::Vxlan => Some(peer.tunnel.as_ref()?.port),
        TunnelMode::Native => Some(DEFAULT_TUNNEL_PORT),
    };
    joined
        .filter_map(|peer| Some((peer.endpoint, port(peer)?)))
        .collect()
}

/// What a former agent found of endpoints.
fn found_by(former: &Report) -> Book {
    let known = former.peers.iter().filter_map(|peer| {
        let found = former.reachability.get(&peer.name)?;
        Some((peer.endpoint, found.clone()))
    });
    known.collect()
}

struct Agent {
    config: Config,
    source: Source,
    cluster: Option<Cluster>,
    known: Known,
    node: Node<RunningKernel>,
    ways: Ways,
    pod_mtu: PodMtu,
    said: Said,
    pulse: Pulse,
    prober: Prober,
}

impl Agent {
    async fn serve(mut self) -> Result<(), AgentError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signals)?;
        let mut changes = interfaces::watch()?;
        tracing::info!(
            instance = self.config.instance,
            source = %self.config.source,
            "agent started"
        );
        let mut audit = tokio::time::interval(AUDIT);
        audit.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.turn(&mut changes);
            tokio::select! {
                () = self.source.changed() => {}
                changed = changes.next() => changed?,
                () = self.prober.changed() => {}
                _ = audit.tick() => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        self.said.farewell();
        Ok(())
    }

    fn turn(&mut self, changes: &mut interfaces::Changes) {
        let reading = self.source.read();
        self.known.update(&self.source);
        let resources = Resources::new(&reading, self.node.memory());
        let (facts, pods) = match self.facts(&resources) {
            Ok(Some(known)) => {
                changes.follow_neighbours(self.ways.neighbours.clone());
                known
            }
            Ok(None) => {
                self.said.wait(&reading);
                return;
            }
            Err(error) => {
                tracing::error!("the node's facts cannot be read, nothing is changed: {error}");
                return;
            }
        };
        let (report, new) = self.node.turn(&Inputs {
            resources: &resources,
            facts: &facts,
            pods: &pods,
            source: &self.config.source.to_string(),
            api_servers: &self.known.api_servers,
            reachability: &self.prober.found(),
            now: now(),
        });
        self.prober.follow(targets(&report));
        let in_effect = self.node.memory().last_good.values();
        let used = in_effect.map(|good| uses(&good.content, &facts.labels));
        self.source
            .set_uses_in_effect(used.fold(Uses::default(), Uses::or));
        self.pulse.beat(&report);
        if let Some(cluster) = &mut self.cluster {
            cluster.tell(&report, self.source.node(), &resources.snapshot);
        }
        if new {
            self.said.tell(report);
        }
    }

    /// The node, with the ways to its backends, and its pods for direct delivery; `None` while it is not known what selects this node.
    fn facts(&mut self, resources: &Resources) -> Result<Option<(NodeFacts, Pods)>, KernelError> {
        let Some(labels) = &self.known.labels else {
            return Ok(None);
        };
        let mut failsafe = self.config.failsafe.clone();
        failsafe.extend(facts::api_servers_as_peers(&self.known.api_servers)?);
        let mut facts = facts::read(&self.config.node_name, labels, &failsafe)?;
        let backends = backends(
            &resources.snapshot,
            self.node.memory(),
            &self.config.node_name,
            labels,
        );
        self.ways.follow(&backends)?;
        facts.next_hops.clone_from(&self.ways.next_hops);
        facts.here.clone_from(&self.ways.here);
        let endpoints = endpoints(&resources.snapshot, self.node.memory(), labels);
        facts.underlays = facts::underlays(&endpoints)?;
        let memory = self.node.memory();
        let (stack_in_use, pods) = facts::direct_delivery(labels, &resources.snapshot, memory);
        facts.stack_in_use = stack_in_use;
        let own = own_networks(
            &resources.snapshot,
            self.node.memory(),
            labels,
            &facts.addresses,
        );
        let pods_mtu = self
            .pod_mtu
            .of(own, &facts.interfaces, now(), links_and_routes);
        facts.pods_mtu = pods_mtu.unwrap_or_else(|error| {
            tracing::debug!("how long packets of pods are cannot be read: {error}");
            None
        });
        Ok(Some((facts, pods)))
    }
}

/// What was said last, to say only what is new.
#[derive(Default)]
struct Said {
    report: Report,
    awaited: Option<String>,
}

impl Said {
    /// Says what is waited for before anything can be compiled.
    fn wait(&mut self, reading: &Reading<Content>) {
        if let Reading::Unavailable { reason } = reading
            && self.awaited.as_ref() != Some(reason)
        {
            tracing::warn!("{reason}; what is enforced stays until the node's labels are known");
            self.awaited = Some(reason.clone());
        }
    }

    fn tell(&mut self, report: Report) {
        if report.source_unavailable != self.report.source_unavailable {
            match &report.source_unavailable {
                Some(reason) => tracing::error!("{reason}; what is in effect stays"),
                None => tracing::info!("the source is available again"),
            }
        }
        for finding in new_in(&report.findings, &self.report.findings) {
            tell_finding(finding);
        }
        for failure in new_in(&report.failures, &self.report.failures) {
            tracing::error!("{failure}");
        }
        self.tell_ports(&report);
        self.tell_tunnel(&report);
        self.tell_native(&report);
        self.tell_peers(&report);
        if report.live_revision != self.report.live_revision
            && let Some(live) = report.live_revision
        {
            let whole = report.wanted_revision == Some(live);
            tracing::info!(revision = live.short(), whole, "live");
        }
        self.report = report;
    }

    fn tell_ports(&self, report: &Report) {
        for (port, now) in &report.ports {
            let before = self.report.ports.get(port);
            if before.is_some_and(|before| before.status == now.status) {
                continue;
            }
            let interface = &now.interface;
            let mode = now.mode.map(|mode| mode.to_string()).unwrap_or_default();
            match (&now.status, &now.native_refusal) {
                (PortStatus::Enforced, None) => tracing::info!(interface, mode, "enforced"),
                (PortStatus::Enforced, Some(refusal)) => {
                    tracing::info!(interface, mode, native_refused = refusal, "enforced");
                }
                (PortStatus::Outdated(why), _) => {
                    tracing::error!(interface, mode, "not as wanted: {why}");
                }
                (PortStatus::NotEnforced(why), _) => {
                    tracing::error!(interface, "not enforced: {why}");
                }
            }
        }
        for (port, before) in &self.report.ports {
            if !report.ports.contains_key(port) {
                tracing::info!(
                    interface = before.interface,
                    "no longer selected by a policy or a service"
                );
            }
        }
    }

    fn tell_tunnel(&self, report: &Report) {
        let before = self.report.tunnel.as_ref().map(|tunnel| &tunnel.status);
        let now = report.tunnel.as_ref().map(|tunnel| &tunnel.status);
        if now == before {
            return;
        }
        match now {
            Some(PortStatus::Enforced) => tracing::info!("the tunnel is as its peers say"),
            Some(PortStatus::Outdated(why) | PortStatus::NotEnforced(why)) => {
                tracing::error!("the tunnel is not as wanted: {why}");
            }
            None => tracing::info!("no peer needs a tunnel any more"),
        }
    }

    fn tell_native(&self, report: &Report) {
        for (peer, now) in &report.native {
            if self.report.native.get(peer) == Some(now) {
                continue;
            }
            match now {
                PortStatus::Enforced => tracing::info!(peer, "reached by plain routes"),
                PortStatus::Outdated(why) | PortStatus::NotEnforced(why) => {
                    tracing::error!(peer, "not reached by plain routes: {why}");
                }
            }
        }
    }

    fn tell_peers(&self, report: &Report) {
        for (peer, why) in &report.diverted {
            if self.report.diverted.get(peer) != Some(why) {
                tracing::error!(peer, "{why}");
            }
        }
        for peer in self.report.diverted.keys() {
            if !report.diverted.contains_key(peer) {
                tracing::info!(peer, "packets to it take the tunnel's routes");
            }
        }
        for (peer, now) in &report.reachability {
            let before = self.report.reachability.get(peer);
            if before.is_some_and(|before| before.state == now.state) {
                continue;
            }
            let reason = now.reason.as_deref().unwrap_or("nothing is heard");
            match now.state {
                Reach::Reachable => tracing::info!(peer, "reachable"),
                Reach::Unreachable => tracing::warn!(peer, "unreachable: {reason}"),
                Reach::Unknown => {
                    tracing::info!(
                        peer,
                        "silent, and whether it is there cannot be asked: {reason}"
                    );
                }
            }
        }
    }

    fn farewell(&self) {
        let enforced = self.report.ports.values();
        let enforced: Vec<&str> = enforced
            .filter(|port| port.mode.is_some())
            .map(|port| port.interface.as_str())
            .collect();
        tracing::info!(
            interfaces = enforced.join(","),
            "agent stopped; enforcement stays in the kernel (`headgate detach` removes it)"
        );
    }
}

fn tell_finding(finding: &Finding) {
    match finding.severity {
        headgate_compile::finding::Severity::Stalled => tracing::error!("{finding}"),
        _ => tracing::warn!("{finding}"),
    }
}

fn new_in<'a, T: PartialEq>(now: &'a [T], before: &'a [T]) -> impl Iterator<Item = &'a T> {
    now.iter().filter(|item| !before.contains(item))
}
