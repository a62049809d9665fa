//! The status, for people.

use headgate_datapath::tunnel::DEVICE;

use super::view::{InterfaceView, RevisionView, Status};
use crate::{
    enforcement::Enforcement,
    output::{columns, fields, number, section, size},
    tunnel_state::TunnelState,
};

pub(super) fn table(status: &Status) -> String {
    let mut text = fields(summary(status));
    if !status.interfaces.is_empty() {
        text.push('\n');
        text.push_str(&interface_table(&status.interfaces));
    }
    let modes = status.interfaces.iter().filter_map(|view| {
        let refusal = view.enforcement.native_refusal.as_ref()?;
        let interface = &view.enforcement.interface;
        Some(format!(
            "{interface}: generic mode, as native was refused: {refusal}"
        ))
    });
    let reasons = status.interfaces.iter().filter_map(|view| {
        let Enforcement {
            interface,
            state,
            reason,
            ..
        } = &view.enforcement;
        Some(format!("{interface}: {state:?}: {}", reason.as_ref()?))
    });
    let unjudged = status.interfaces.iter().filter(|view| view.unjudged() > 0);
    let unjudged = unjudged.map(|view| {
        let (interface, packets) = (&view.enforcement.interface, view.unjudged());
        format!(
            "{interface}: {packets} packets have passed because no tables were found; this is an error of headgate, please report it, and `headgate detach` resets the counter"
        )
    });
    text.push_str(&section("Interfaces", modes.chain(reasons).chain(unjudged)));
    if status
        .interfaces
        .iter()
        .any(|view| !view.counters.is_empty())
    {
        text.push('\n');
        text.push_str(&counter_table(&status.interfaces));
    }
    let tunnel = status.tunnel.iter().flat_map(tunnel_lines);
    text.push_str(&section("Tunnel", tunnel));
    let unrouted = status.unrouted.iter();
    let unrouted = unrouted.map(|(peer, why)| format!("{peer}: Outdated: {why}"));
    text.push_str(&section("Native peers", unrouted));
    let findings = status.findings.iter().map(ToString::to_string);
    text.push_str(&section("Findings", findings));
    text.push_str(&section("Failures", status.failures.iter().cloned()));
    text
}

fn tunnel_lines(tunnel: &TunnelState) -> Vec<String> {
    let (state, reason) = (tunnel.state, tunnel.reason.as_ref());
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    let diverted = tunnel.diverted.iter();
    let diverted = diverted.map(|(peer, why)| format!("{peer}: Outdated: {why}"));
    let device = format!("{DEVICE}: {state:?}{reason}");
    std::iter::once(device).chain(diverted).collect()
}

fn summary(status: &Status) -> Vec<(&'static str, String)> {
    let agent = match &status.agent.pid {
        Some(pid) => format!("running (pid {pid})"),
        None => "not running; enforcement goes on without it, and changes wait for it".to_owned(),
    };
    let mut rows = vec![("Instance", status.instance.clone())];
    rows.extend(status.node.clone().map(|node| ("Node", node)));
    rows.push(("Agent", agent));
    if let Some(source) = &status.source {
        rows.push(("Source", source.path.clone()));
        let unavailable = source.unavailable.as_ref();
        rows.extend(unavailable.map(|reason| {
            (
                "",
                format!("unavailable, what is in effect stays: {reason}"),
            )
        }));
    }
    rows.push(("Revision", revision(status)));
    if !status.enforced_nowhere.is_empty() {
        let names = status.enforced_nowhere.join(", ");
        rows.push((
            "Nowhere",
            format!("{names}: none of the interfaces is on this node"),
        ));
    }
    if !status.failsafe_peers.is_empty() {
        rows.push(("Failsafe", status.failsafe_peers.join(", ")));
    }
    rows
}

fn revision(status: &Status) -> String {
    let RevisionView { wanted, live } = &status.revision;
    match (wanted, live) {
        (Some(_), None) if status.interfaces.is_empty() => {
            "nothing is wanted on any interface, and nothing is live".to_owned()
        }
        (Some(wanted), Some(live)) if wanted == live => {
            format!("{}, live as is wanted", live.short())
        }
        (Some(wanted), Some(live)) => {
            format!("{} is live, {} is wanted", live.short(), wanted.short())
        }
        (Some(wanted), None) => format!("nothing is live, {} is wanted", wanted.short()),
        (None, Some(live)) => format!("{} is live, what is wanted is not known", live.short()),
        (None, None) => "nothing is live, and no agent has said what is wanted".to_owned(),
    }
}

fn interface_table(interfaces: &[InterfaceView]) -> String {
    let rows = interfaces.iter().map(|view| {
        let Enforcement {
            interface,
            port,
            mode,
            live_tables,
            state,
            ..
        } = &view.enforcement;
        let tables = view.tables.as_ref();
        [
            interface.clone(),
            port.number().to_string(),
            number(*mode),
            live_tables.map(|digest| digest.short()).unwrap_or_default(),
            tables
                .map(|tables| size(tables.bytes.into()))
                .unwrap_or_default(),
            number(tables.map(|tables| tables.rules)),
            tables
                .map(|tables| tables.policies.join(","))
                .unwrap_or_default(),
            format!("{state:?}"),
        ]
    });
    columns(
        [
            "INTERFACE",
            "PORT",
            "MODE",
            "TABLES",
            "SIZE",
            "RULES",
            "POLICIES",
            "STATE",
        ],
        rows,
    )
}

fn counter_table(interfaces: &[InterfaceView]) -> String {
    let rows = interfaces.iter().flat_map(|view| {
        view.counters.iter().map(|counter| {
            [
                view.enforcement.interface.clone(),
                counter.reason.to_owned(),
                counter.verdict.to_owned(),
                counter.packets.to_string(),
                counter.bytes.to_string(),
            ]
        })
    });
    columns(["INTERFACE", "REASON", "VERDICT", "PACKETS", "BYTES"], rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use headgate_compile::{
        compilation::TablesSummary,
        finding::{Finding, FindingReason, Severity},
    };
    use headgate_datapath::state::{AttachedMode, Digest, PortIndex};
    use headgate_layout::verdict::{Count, Reason};

    use super::{super::view::ReasonCounts, *};
    use crate::{enforcement::tests::healthy, live::Reading};

    fn port0() -> PortIndex {
        PortIndex::new(0).expect("below MAX_PORTS")
    }

    /// A healthy node that has read one policy of two rules.
    fn reading() -> Reading {
        let mut reading = healthy();
        let report = reading.report.as_mut().expect("a report");
        report.node = "worker-1".into();
        report.source = "/etc/headgate".into();
        report.tables = vec![TablesSummary {
            tables: Digest::of(b"a"),
            bytes: 4096,
            policies: vec!["web".into()],
            services: Vec::new(),
            interfaces: vec!["eth0".into()],
            rules: 2,
            classes: [2, 1, 3],
            crossings: 24,
        }];
        reading
    }

    fn counts() -> ReasonCounts {
        let count = |packets, bytes| Count { packets, bytes };
        BTreeMap::from([
            ((port0(), Reason::DefaultAllow), count(10, 640)),
            ((port0(), Reason::NotIp), count(0, 0)),
            ((port0(), Reason::Malformed), count(2, 120)),
        ])
    }

    fn shown(reading: &Reading) -> (String, bool) {
        let status = Status::new("default", reading, &counts());
        (table(&status), status.all_enforced)
    }

    #[test]
    fn a_healthy_node_in_full() {
        let (text, fine) = shown(&reading());
        let live = Digest::of(b"a").short();
        let revision = reading().observed.revision().short();
        assert_eq!(
            text,
            format!(
                "\
Instance:   default
Node:       worker-1
Agent:      running (pid 4711)
Source:     /etc/headgate
Revision:   {revision}, live as is wanted

INTERFACE   PORT   MODE     TABLES         SIZE    RULES   POLICIES   STATE
eth0        0      native   {live}   4 KiB   2       web        Enforced

INTERFACE   REASON         VERDICT   PACKETS   BYTES
eth0        DefaultAllow   Allow     10        640
eth0        Malformed      Drop      2         120
"
            )
        );
        assert!(fine);
    }

    #[test]
    fn a_dead_agent_is_said_and_is_no_fault() {
        let mut reading = reading();
        reading.agent = None;
        let (text, fine) = shown(&reading);
        assert!(
            text.contains("Agent:      not running; enforcement goes on"),
            "{text}"
        );
        assert!(fine);
    }

    #[test]
    fn without_the_state_folder_the_pins_are_shown_and_nothing_is_promised() {
        let mut reading = reading();
        reading.report = None;
        let (text, fine) = shown(&reading);
        assert!(
            text.contains("is live, what is wanted is not known"),
            "{text}"
        );
        assert!(text.contains("eth0        0      native"), "{text}");
        assert!(text.contains("  eth0: Unknown: "), "{text}");
        assert!(!fine);
    }

    #[test]
    fn a_node_where_no_agent_ever_ran_is_not_called_fine() {
        let (text, fine) = shown(&Reading::default());
        assert!(text.contains("no agent has said what is wanted"), "{text}");
        assert!(!fine);
    }

    #[test]
    fn the_fallback_to_generic_mode_is_told_with_the_drivers_words() {
        let mut reading = reading();
        let report = reading.report.as_mut().expect("a report");
        let eth0 = report.ports.get_mut(&port0()).expect("eth0");
        eth0.native_refusal = Some("EOPNOTSUPP: Operation not supported".into());
        let link = reading.observed.links.get_mut(&port0()).expect("a link");
        link.mode = AttachedMode::Generic;
        let (text, fine) = shown(&reading);
        let line =
            "  eth0: generic mode, as native was refused: EOPNOTSUPP: Operation not supported\n";
        assert!(text.contains(line), "{text}");
        assert!(fine);
    }

    #[test]
    fn a_stalled_resource_needs_attention_and_a_warning_does_not() {
        let mut reading = reading();
        let finding = |severity| Finding {
            severity,
            reason: FindingReason::Suspicious,
            resource: None,
            place: "web.yaml:3".into(),
            path: String::new(),
            message: "odd".into(),
        };
        reading.report.as_mut().expect("a report").findings = vec![finding(Severity::Warning)];
        let (text, fine) = shown(&reading);
        assert!(
            text.contains("\nFindings:\n  web.yaml:3: odd (Warning, Suspicious)\n"),
            "{text}"
        );
        assert!(fine);
        reading.report.as_mut().expect("a report").findings = vec![finding(Severity::Stalled)];
        assert!(!shown(&reading).1);
    }

    #[test]
    fn a_source_that_cannot_be_read_and_a_failed_step_need_attention() {
        let mut unavailable = reading();
        let report = unavailable.report.as_mut().expect("a report");
        report.source_unavailable = Some("no such directory".into());
        let (text, fine) = shown(&unavailable);
        assert!(
            text.contains("unavailable, what is in effect stays: no such directory"),
            "{text}"
        );
        assert!(!fine);

        let mut failed = reading();
        failed.report.as_mut().expect("a report").failures = vec!["disk full".into()];
        assert!(!shown(&failed).1);
    }

    #[test]
    fn packets_that_passed_unjudged_are_never_called_fine() {
        let count = Count {
            packets: 9,
            bytes: 610,
        };
        let counts = BTreeMap::from([((port0(), Reason::NoTables), count)]);
        let status = Status::new("default", &reading(), &counts);
        let text = table(&status);
        assert!(
            text.contains("  eth0: 9 packets have passed because no tables"),
            "{text}"
        );
        assert!(!status.all_enforced);
    }

    #[test]
    fn programs_get_all_of_it() {
        let status = Status::new("default", &reading(), &counts());
        let json = serde_json::to_value(&status).expect("serializable");
        assert_eq!(json["allEnforced"], true);
        assert_eq!(json["agent"]["pid"], "4711");
        assert_eq!(
            json["revision"]["live"],
            reading().observed.revision().to_string()
        );
        let eth0 = &json["interfaces"][0];
        assert_eq!(eth0["interface"], "eth0");
        assert_eq!(eth0["mode"], "Native");
        assert_eq!(eth0["state"], "Enforced");
        assert_eq!(eth0["liveTables"], eth0["wantedTables"]);
        assert_eq!(eth0["tables"]["rules"], 2);
        assert_eq!(eth0["counters"][1]["reason"], "Malformed");
        assert_eq!(eth0["counters"][1]["packets"], 2);
    }
}
