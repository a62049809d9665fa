//! What the agent tells Prometheus and kubelet: its last report, and the kernel's counters as they
//! are when they are asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use headgate_compile::finding::Severity;
use headgate_datapath::tunnel::DEVICE;
use headgate_kernel::{Instance, RunningKernel};
use headgate_telemetry::{Collector, DescriptorEncoder, Labels, Probes, counters, gauges};

use crate::{
    reachability::Reach,
    report::{PortStatus, Report},
};

/// The kernel is looked at every few seconds; an agent that has not for so long hangs.
const STUCK: Duration = Duration::from_secs(60);

/// The agent's last turn, for those who ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<Mutex<Beat>>);

#[derive(Debug, Default)]
struct Beat {
    turned: Option<Instant>,
    report: Arc<Report>,
}

impl Pulse {
    /// Keeps the report of a turn.
    pub(crate) fn beat(&self, report: &Report) {
        let mut beat = self.lock();
        beat.turned = Some(Instant::now());
        if *beat.report != *report {
            beat.report = Arc::new(report.clone());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Beat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self) -> Arc<Report> {
        Arc::clone(&self.lock().report)
    }
}

impl Probes for Pulse {
    fn stuck(&self) -> Option<String> {
        let turned = self.lock().turned?;
        let since = turned.elapsed();
        (since > STUCK).then(|| format!("nothing was looked at for {} s", since.as_secs()))
    }

    /// A bad resource is no reason: other nodes' agents are to be upgraded all the same.
    fn unready(&self) -> Option<String> {
        if self.lock().turned.is_none() {
            return Some("the resources have not been heard of yet".to_owned());
        }
        let report = self.report();
        let failure = report.failures.first().cloned();
        failure.or_else(|| report.source_unavailable.clone())
    }
}

/// The metrics of an agent.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) pulse: Pulse,
    pub(crate) instance: Instance,
    pub(crate) bpffs: PathBuf,
}

impl Collector for Metrics {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let report = self.pulse.report();
        of_interfaces(&report, &mut to)?;
        of_resources(&report, &mut to)?;
        self.of_kernel(&report, &mut to)
    }
}

fn of_interfaces(report: &Report, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Whether the interface was found to enforce what it should.";
    let enforced = report.ports.values().map(|port| {
        let is = port.status == PortStatus::Enforced;
        (vec![("interface", port.interface.as_str())], u64::from(is))
    });
    gauges(to, "interface_enforced", help, enforced)?;
    let help = "Whether the program runs in the driver (1) or after it (0).";
    let native = report.ports.values().filter_map(|port| {
        let is = port.mode? == headgate_datapath::state::AttachedMode::Native;
        Some((vec![("interface", port.interface.as_str())], u64::from(is)))
    });
    gauges(to, "interface_native", help, native)
}

fn of_resources(report: &Report, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut numbers: BTreeMap<(String, String), u64> = BTreeMap::new();
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Stalled => "Stalled",
            Severity::Pending => "Pending",
            Severity::Warning => "Warning",
        };
        let of = (severity.to_owned(), format!("{:?}", finding.reason));
        *numbers.entry(of).or_default() += 1;
    }
    let help = "Statements about resources that are not in effect as written.";
    let findings = numbers.iter().map(|((severity, reason), number)| {
        let labels = vec![("severity", severity.as_str()), ("reason", reason.as_str())];
        (labels, *number)
    });
    gauges(to, "findings", help, findings)?;
    let help = "Whether the source of resources could be read.";
    let is_read = u64::from(report.source_unavailable.is_none());
    gauges(to, "source_available", help, [(vec![], is_read)])?;
    let help = "Steps towards the wanted state that failed in the last turn.";
    let failures = u64::try_from(report.failures.len()).unwrap_or(u64::MAX);
    gauges(to, "failed_steps", help, [(vec![], failures)])?;
    let help = "Bytes of tables in use.";
    let bytes = report
        .tables
        .iter()
        .map(|tables| u64::from(tables.bytes))
        .sum();
    gauges(to, "tables_bytes", help, [(vec![], bytes)])
}

fn of_rule([policy, rule, action]: [&str; 3]) -> Labels<'_> {
    vec![("policy", policy), ("rule", rule), ("action", action)]
}

impl Metrics {
    /// Nothing where the kernel holds nothing of ours yet.
    fn of_kernel(&self, report: &Report, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(kernel) = RunningKernel::open_read_only(&self.instance, &self.bpffs) else {
            return Ok(());
        };
        of_rules(&kernel, report, to)?;
        of_services(&kernel, report, to)?;
        of_tunnel(&kernel, report, to)?;
        let ports = report.ports.keys().copied().collect();
        if let Ok(counts) = kernel.reason_counters(&ports) {
            let of = |port, reason: headgate_layout::verdict::Reason| {
                let interface = report.ports.get(port).map(|port| port.interface.as_str());
                vec![
                    ("interface", interface.unwrap_or_default()),
                    ("reason", reason.name()),
                ]
            };
            let packets = counts
                .iter()
                .map(|((port, reason), count)| (of(port, *reason), count.packets));
            let help = "Packets that no rule decided, by reason.";
            counters(to, "packets", help, packets)?;
            let bytes = counts
                .iter()
                .map(|((port, reason), count)| (of(port, *reason), count.bytes));
            counters(
                to,
                "bytes",
                "Bytes of packets that no rule decided, by reason.",
                bytes,
            )?;
        }
        Ok(())
    }
}

fn of_rules(
    kernel: &RunningKernel,
    report: &Report,
    to: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let mut rules = Vec::new();
    for policy in &report.policies {
        for rule in &policy.rules {
            let names = [policy.name.as_str(), &rule.name, &rule.action];
            rules.extend(rule.counter.map(|index| (of_rule(names), index)));
        }
    }
    let help = [
        "Packets that the rule decided.",
        "Bytes of packets that the rule decided.",
    ];
    counted(kernel, &rules, ["rule_packets", "rule_bytes"], help, to)
}

fn of_services(
    kernel: &RunningKernel,
    report: &Report,
    to: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    // A counter is one over all addresses of a port.
    let mut ports = BTreeMap::new();
    for service in &report.services {
        for frontend in &service.frontends {
            let labels = vec![
                ("service", service.name.as_str()),
                ("port", frontend.name.as_str()),
            ];
            ports.insert(frontend.counter, labels);
        }
    }
    let ports: Vec<_> = ports
        .into_iter()
        .map(|(index, labels)| (labels, index))
        .collect();
    let help = [
        "Packets sent on to backends.",
        "Bytes of packets sent on to backends.",
    ];
    counted(
        kernel,
        &ports,
        ["service_packets", "service_bytes"],
        help,
        to,
    )?;
    let limited = report.services.iter().filter_map(|service| {
        let ranges = service.source_ranges.as_ref()?;
        Some((vec![("service", service.name.as_str())], ranges.counter))
    });
    let limited: Vec<_> = limited.collect();
    let help = [
        "Packets dropped because they came from outside of the service's sourceRanges.",
        "Bytes of packets dropped because they came from outside of the service's sourceRanges.",
    ];
    let names = ["service_outside_packets", "service_outside_bytes"];
    counted(kernel, &limited, names, help, to)
}

/// Nothing where there never was a tunnel.
fn of_tunnel(
    kernel: &RunningKernel,
    report: &Report,
    to: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let help = "Whether the tunnel was found to be as its peers say.";
    let is = |status: &PortStatus| u64::from(*status == PortStatus::Enforced);
    let enforced = report.tunnel.iter();
    let enforced = enforced.map(|tunnel| (vec![("device", DEVICE)], is(&tunnel.status)));
    gauges(to, "tunnel_enforced", help, enforced)?;
    let help = "Whether plain routes were found to lead to the peer.";
    let plain = report.native.iter();
    let plain = plain.map(|(peer, status)| (vec![("peer", peer.as_str())], is(status)));
    gauges(to, "native_peer_enforced", help, plain)?;
    let help = "Whether the peer was heard, by the tunnel or by an answer of its host; missing where its silence says nothing.";
    let known = report.reachability.iter();
    let known = known.filter(|(_, found)| found.state != Reach::Unknown);
    let reachable = known.map(|(peer, found)| {
        let is = u64::from(found.state == Reach::Reachable);
        (vec![("peer", peer.as_str())], is)
    });
    gauges(to, "tunnel_peer_reachable", help, reachable)?;
    let help =
        "Seconds since a packet of the tunnel came from the peer; missing where none ever did.";
    let seen = kernel.tunnel_seen().unwrap_or_default();
    let joined = report.peers.iter();
    let joined = joined.filter(|peer| peer.is_joined() && peer.tunnel.is_some());
    let ages = joined.filter_map(|peer| {
        let age = seen.get(&peer.endpoint)?.as_secs();
        Some((vec![("peer", peer.name.as_str())], age))
    });
    gauges(to, "tunnel_peer_seen_seconds_ago", help, ages)?;
    let Ok(counts) = kernel.tunnel_counters() else {
        return Ok(());
    };
    let of = |event: &headgate_layout::tunnel::Event| vec![("event", event.name())];
    let help = "Packets at the tunnel's device, by what became of them.";
    let packets = counts
        .iter()
        .map(|(event, count)| (of(event), count.packets));
    counters(to, "tunnel_packets", help, packets)?;
    let help = "Bytes of packets at the tunnel's device, by what became of them.";
    let bytes = counts.iter().map(|(event, count)| (of(event), count.bytes));
    counters(to, "tunnel_bytes", help, bytes)
}

/// Packets and bytes of these counters, under two names; nothing where the kernel does not tell.
fn counted(
    kernel: &RunningKernel,
    labelled: &[(Labels<'_>, u32)],
    [packets, bytes]: [&str; 2],
    [of_packets, of_bytes]: [&str; 2],
    to: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let indices: BTreeSet<u32> = labelled.iter().map(|(_, index)| *index).collect();
    let Ok(counts) = kernel.rule_counters(&indices) else {
        return Ok(());
    };
    let count = |index| counts.get(index).copied().unwrap_or_default();
    let values = labelled
        .iter()
        .map(|(labels, index)| (labels.clone(), count(index).packets));
    counters(to, packets, of_packets, values)?;
    let values = labelled
        .iter()
        .map(|(labels, index)| (labels.clone(), count(index).bytes));
    counters(to, bytes, of_bytes, values)
}
