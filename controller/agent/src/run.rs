//! The loop itself.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use headgate_compile::{
    finding::Finding,
    memory::{Memory, Seconds},
    snapshot::Content,
};
use headgate_datapath::{
    kernel::{Kernel as _, KernelError},
    observed::Observed,
    state::Ifindex,
};
use headgate_kernel::{Instance, RunningKernel, interfaces, object_digest};
use headgate_source::DirectorySource;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{Config, state_folder},
    cycle::{Inputs, Node},
    facts,
    lock::{InstanceLock, LockError},
    report::{PortStatus, Report},
    resources::Resources,
    store::{Store, StoreError},
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
    let store = Store::open(&folder)?;
    let instance = Instance {
        name: config.instance.clone(),
    };
    let mut kernel = RunningKernel::open(&instance, &config.bpffs)?;
    let former = crate::store::report(&folder).ok().flatten();
    let (store, memory) = recall(store, &mut kernel)?;
    let mut node = Node::new(kernel, store, memory, object_digest());
    if let Some(former) = &former {
        node.recall(former);
    }
    Agent {
        source: DirectorySource::new(&config.source, Content::from),
        node,
        config,
        said: Said::default(),
    }
    .serve()
    .await
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
    if observed.links.is_empty() {
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

/// What an agent knows without its memory: what the kernel tells, given the node's interfaces by
/// number.
#[must_use]
pub fn lost_memory(
    observed: &Observed,
    interfaces: &BTreeMap<Ifindex, String>,
    now: Seconds,
) -> Memory {
    if observed.links.is_empty() {
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

struct Agent {
    config: Config,
    source: DirectorySource<Content>,
    node: Node<RunningKernel>,
    said: Said,
}

impl Agent {
    async fn serve(mut self) -> Result<(), AgentError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Signals)?;
        let mut changes = interfaces::watch()?;
        tracing::info!(
            instance = self.config.instance,
            source = %self.config.source.display(),
            "agent started"
        );
        let mut audit = tokio::time::interval(AUDIT);
        audit.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.turn();
            tokio::select! {
                () = self.source.changed() => {}
                changed = changes.next() => changed?,
                _ = audit.tick() => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        self.said.farewell();
        Ok(())
    }

    fn turn(&mut self) {
        let facts = match facts::read(&self.config) {
            Ok(facts) => facts,
            Err(error) => {
                tracing::error!(
                    "the node's interfaces cannot be read, nothing is changed: {error}"
                );
                return;
            }
        };
        let reading = self.source.read();
        let resources = Resources::new(&reading, self.node.memory());
        let (report, new) = self.node.turn(&Inputs {
            resources: &resources,
            facts: &facts,
            source: &self.config.source.display().to_string(),
            now: now(),
        });
        if new {
            self.said.tell(report);
        }
    }
}

/// What was said last, to say only what is new.
#[derive(Default)]
struct Said {
    report: Report,
}

impl Said {
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
                    "no longer selected by a policy"
                );
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
