//! A report in the words of the NodeDatapath.

use headgate_compile::finding::{Finding, FindingReason, Severity};
use headgate_crds::{
    InterfaceDatapath, Kind, NodeDatapathStatus, NodeFacts, ResourceException, TablesDatapath,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::{
    reachability::{Reach, Reachability},
    report::{PortReport, PortStatus, Report},
};

/// What the CRD takes of each list.
const MOST: usize = 256;
/// Longest message: an object stays small whatever is wrong with it.
const LONGEST_MESSAGE: usize = 1_000;

/// The status that `report` comes to. The time of its condition is now; who writes it keeps the
/// former one where the condition did not change.
pub(super) fn status(report: &Report) -> NodeDatapathStatus {
    let exceptions = report.findings.iter().filter_map(exception);
    let mut exceptions: Vec<ResourceException> = exceptions.chain(unjoined(report)).collect();
    exceptions.sort_by(|a, b| (&a.kind, &a.name, &a.message).cmp(&(&b.kind, &b.name, &b.message)));
    exceptions.dedup_by(|next, first| next.kind == first.kind && next.name == first.name);
    // A digest without all its exceptions and interfaces would vouch for what is not in force.
    let is_whole = exceptions.len() <= MOST && report.ports.len() <= MOST;
    let inputs = report.inputs.filter(|_| is_whole);
    exceptions.truncate(MOST);
    NodeDatapathStatus {
        revision: report.live_revision.map(|revision| revision.to_string()),
        inputs_digest: inputs.map(|digest| digest.to_string()),
        interfaces: report.ports.values().take(MOST).map(interface).collect(),
        conditions: [ready(report, &exceptions)]
            .into_iter()
            .chain(peers_reachable(report))
            .chain(pods_fit(report))
            .collect(),
        exceptions,
        tables: report.tables.iter().take(MOST).map(tables).collect(),
        node: Some(NodeFacts {
            kernel_release: kernel_release(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        }),
    }
}

fn exception(finding: &Finding) -> Option<ResourceException> {
    let severity = match finding.severity {
        Severity::Stalled | Severity::Pending => format!("{:?}", finding.severity),
        Severity::Warning => return None,
    };
    let resource = finding.resource.as_ref()?;
    let message = match finding.path.as_str() {
        "" => finding.message.clone(),
        path => format!("{path}: {}", finding.message),
    };
    Some(ResourceException {
        kind: resource.kind.clone(),
        name: resource.name.clone(),
        severity,
        reason: format!("{:?}", finding.reason),
        message: shortened(&message),
    })
}

/// Peers that stand, and that no packet gets to or, if they are the node itself, from.
fn unjoined(report: &Report) -> impl Iterator<Item = ResourceException> {
    let reason = report
        .tunnel
        .as_ref()
        .and_then(|tunnel| match &tunnel.status {
            PortStatus::Enforced => None,
            PortStatus::Outdated(reason) | PortStatus::NotEnforced(reason) => Some(reason),
        });
    let peers = report.peers.iter();
    let standing = peers.filter(|peer| peer.effective.is_some());
    standing.filter_map(move |peer| {
        let message = match reason {
            Some(reason) => format!("the tunnel is not as wanted: {reason}"),
            None => report.diverted.get(&peer.name)?.clone(),
        };
        Some(ResourceException {
            kind: Kind::TunnelPeer.as_str().to_owned(),
            name: peer.name.clone(),
            severity: format!("{:?}", Severity::Stalled),
            reason: "NotEnforced".to_owned(),
            message: shortened(&message),
        })
    })
}

fn interface(port: &PortReport) -> InterfaceDatapath {
    let (enforced, reason) = match &port.status {
        PortStatus::Enforced => (true, None),
        PortStatus::Outdated(reason) | PortStatus::NotEnforced(reason) => (false, Some(reason)),
    };
    InterfaceDatapath {
        name: port.interface.clone(),
        ifindex: port.ifindex,
        attach_mode: port.mode.map(|mode| format!("{mode:?}")),
        native_refusal: port.native_refusal.clone(),
        tables: port.tables.to_string(),
        enforced,
        reason: reason.map(|reason| shortened(reason)),
    }
}

fn tables(summary: &headgate_compile::TablesSummary) -> TablesDatapath {
    TablesDatapath {
        digest: summary.tables.to_string(),
        interfaces: summary.interfaces.clone(),
        policies: summary.policies.clone(),
        services: summary.services.clone(),
        rules: u32::try_from(summary.rules).unwrap_or(u32::MAX),
        bytes: summary.bytes,
    }
}

fn ready(report: &Report, exceptions: &[ResourceException]) -> Condition {
    let is_amiss = |port: &&PortReport| port.status != PortStatus::Enforced;
    let amiss: Vec<&str> = report
        .ports
        .values()
        .filter(is_amiss)
        .map(|port| port.interface.as_str())
        .collect();
    let (is_ready, reason, message) = if let Some(failure) = report.failures.first() {
        (false, "KernelFailed", failure.clone())
    } else if !amiss.is_empty() {
        (
            false,
            "NotEnforced",
            format!("not as wanted: {}", amiss.join(", ")),
        )
    } else if let Some(reason) = &report.source_unavailable {
        (false, "SourceUnavailable", reason.clone())
    } else if report.wanted_revision.is_none() {
        let held = "nothing changes until what is bad is mended".to_owned();
        (
            false,
            "Held",
            exceptions.first().map_or(held, |e| e.message.clone()),
        )
    } else if let Some(first) = exceptions.first() {
        let message = format!("{} {}: {}", first.kind, first.name, first.message);
        (false, "Exceptions", message)
    } else {
        let message = format!("{} interfaces enforce what they should", report.ports.len());
        (true, "Enforced", message)
    };
    Condition {
        type_: "Ready".to_owned(),
        status: if is_ready { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: shortened(&message),
        last_transition_time: Time(Timestamp::now()),
        observed_generation: None,
    }
}

/// Beside Ready, which is what the kernel enforces: a peer that is down is no fault of this node. Nothing
/// where nothing is known of any peer. The unreachable by name, without the words that each has for its own.
fn peers_reachable(report: &Report) -> Option<Condition> {
    if report.reachability.is_empty() {
        return None;
    }
    let known = || report.reachability.iter();
    let is = |found: &Reachability, state| found.state == state;
    let gone = known().filter(|(_, found)| is(found, Reach::Unreachable));
    let gone: Vec<String> = gone
        .map(|(peer, found)| match &found.reason {
            Some(reason) => format!("{peer}: {reason}"),
            None => peer.clone(),
        })
        .collect();
    let all = report.reachability.len();
    let heard = known().filter(|(_, found)| is(found, Reach::Reachable));
    let (status, reason, message) = match (gone.len(), heard.count()) {
        (0, 0) => (
            "Unknown",
            "Silent",
            format!("none of {all} peers is heard, nor can be asked"),
        ),
        (0, heard) => ("True", "Heard", format!("{heard} peers are heard")),
        (some, _) => (
            "False",
            "Unreachable",
            format!("{some} of {all} peers are not: {}", gone.join("; ")),
        ),
    };
    Some(Condition {
        type_: "PeersReachable".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: shortened(&message),
        last_transition_time: Time(Timestamp::now()),
        observed_generation: None,
    })
}

/// Beside Ready too: packets that are too long are not what is enforced. Nothing where nothing is amiss.
fn pods_fit(report: &Report) -> Option<Condition> {
    let mut findings = report.findings.iter();
    let finding = findings.find(|finding| finding.reason == FindingReason::PodMtuTooLarge)?;
    Some(Condition {
        type_: "PodsFitTunnel".to_owned(),
        status: "False".to_owned(),
        reason: format!("{:?}", finding.reason),
        message: shortened(&finding.message),
        last_transition_time: Time(Timestamp::now()),
        observed_generation: None,
    })
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message.to_owned(),
    }
}

fn kernel_release() -> String {
    let uname = rustix::system::uname();
    uname.release().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use headgate_compile::compilation::PeerSummary;
    use headgate_datapath::state::Digest;

    use super::*;
    use crate::report::TunnelReport;

    fn peer(name: &str, is_own: bool, effective: Option<u64>) -> PeerSummary {
        PeerSummary {
            name: name.to_owned(),
            place: String::new(),
            generation: 2,
            effective,
            selected: true,
            is_own,
            endpoint: [192, 0, 2, 1].into(),
            networks: Vec::new(),
            vni: 7,
            mac: String::new(),
            local: None,
            local_delivery: headgate_crds::LocalDelivery::Stack,
            tunnel: None,
        }
    }

    #[test]
    fn an_unreachable_peer_is_told_beside_ready() {
        let of = |state, reason: Option<&str>| {
            let found = Reachability {
                state,
                since: headgate_compile::memory::Seconds(1),
                reason: reason.map(str::to_owned),
            };
            let report = Report {
                wanted_revision: Some(Digest::of(b"revision")),
                reachability: [("other".to_owned(), found)].into(),
                ..Report::default()
            };
            let conditions = super::status(&report).conditions.into_iter();
            let told = conditions.map(|c| (c.type_, c.status, c.message));
            told.skip(1).collect::<Vec<_>>()
        };
        let condition = |status: &str, message: &str| {
            let words = ["PeersReachable", status, message].map(str::to_owned);
            vec![words.into()]
        };
        let reachable = of(Reach::Reachable, None);
        assert_eq!(reachable, condition("True", "1 peers are heard"));
        assert_eq!(
            of(Reach::Unreachable, Some("why")),
            condition("False", "1 of 1 peers are not: other: why")
        );
        assert_eq!(
            of(Reach::Unknown, Some("why")),
            condition("Unknown", "none of 1 peers is heard, nor can be asked")
        );
        let nothing_known = super::status(&Report::default());
        assert_eq!(nothing_known.conditions.len(), 1);
    }

    #[test]
    fn pods_that_do_not_fit_are_told_beside_ready() {
        let finding = Finding {
            severity: Severity::Warning,
            reason: FindingReason::PodMtuTooLarge,
            resource: None,
            place: String::new(),
            path: String::new(),
            message: "less".to_owned(),
        };
        let report = Report {
            wanted_revision: Some(Digest::of(b"revision")),
            findings: vec![finding],
            ..Report::default()
        };
        let conditions = super::status(&report).conditions.into_iter();
        let told: Vec<_> = conditions.map(|c| (c.type_, c.status, c.message)).collect();
        let [ready, fit] = told.as_slice() else {
            panic!("{told:?}");
        };
        assert_eq!((ready.0.as_str(), ready.1.as_str()), ("Ready", "True"));
        let expected = ["PodsFitTunnel", "False", "less"].map(str::to_owned);
        assert_eq!(*fit, expected.into());
    }

    #[test]
    fn a_tunnel_that_is_not_as_wanted_is_told_of_all_its_peers() {
        let of = |status| {
            let report = Report {
                diverted: [("other".to_owned(), "by eth0".to_owned())].into(),
                peers: vec![
                    peer("own", true, Some(1)),
                    peer("other", false, Some(1)),
                    peer("none", false, None),
                ],
                tunnel: Some(TunnelReport {
                    wanted: Digest::of(b"tunnel"),
                    status,
                }),
                ..Report::default()
            };
            let exceptions = super::status(&report).exceptions.into_iter();
            exceptions.map(|e| (e.name, e.message)).collect::<Vec<_>>()
        };
        let message = "the tunnel is not as wanted: why";
        assert_eq!(
            of(PortStatus::Outdated("why".to_owned())),
            ["other", "own"].map(|name| (name.to_owned(), message.to_owned()))
        );
        let other = ("other".to_owned(), "by eth0".to_owned());
        assert_eq!(of(PortStatus::Enforced), [other]);
    }
}
