//! `headgate status`.

use std::collections::BTreeMap;

use clap::Args;
use headgate_agent::report::Report;
use headgate_compile::{
    compilation::TablesSummary,
    finding::{Finding, Severity},
};
use headgate_datapath::{
    kernel::KernelError,
    state::{Digest, PortIndex},
};
use headgate_layout::verdict::{Action, Count, Reason};
use serde::Serialize;

use crate::{
    arguments::InstanceArguments,
    enforcement::{self, Enforcement, State},
    live::{Live, Reading},
    outcome::{CliError, Outcome},
    output::{OutputArguments, columns, fields, number, section, size},
};

/// Show what this node enforces, as read from the kernel now.
///
/// Needs no agent: what is live, on which interface and in which mode is the kernel's word; what is
/// wanted, and what is wrong with resources, is what the agent said last. With the state folder
/// lost, the kernel's word is shown alone. Packets that a rule decided are counted by
/// `headgate policy counters`.
#[derive(Args, Debug)]
#[command(after_help = "\
State of an interface:
  Enforced     the wanted tables are live in an attached program of ours
  Outdated     something else than is wanted is enforced; the reason is given
  NotEnforced  nothing is enforced; the reason is given
  Unknown      something is enforced, and no agent has left word of what is wanted

Exit codes:
  0  all that is selected is enforced, whether the agent runs or not
  1  the status cannot be read
  2  bad usage
  3  something selected is not enforced as wanted, a resource is stalled, the source cannot be
     read, a step failed, or no agent has said what is wanted")]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    output: OutputArguments,

    #[command(flatten)]
    place: InstanceArguments,
}

pub(crate) fn run(arguments: &StatusArguments) -> Result<Outcome, CliError> {
    let live = Live::read(&arguments.place)?;
    let counts = reason_counts(&live)?;
    let status = Status::new(&arguments.place.instance, &live.reading, &counts);
    arguments.output.show(&status, table)?;
    Ok(Outcome::fine_if(status.all_enforced))
}

type ReasonCounts = BTreeMap<(PortIndex, Reason), Count>;

fn reason_counts(live: &Live) -> Result<ReasonCounts, KernelError> {
    let observed = &live.reading.observed;
    if !observed.prepared {
        return Ok(ReasonCounts::new());
    }
    let ports = observed.links.keys().copied().collect();
    live.kernel.reason_counters(&ports)
}

/// All there is to say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    instance: String,
    node: Option<String>,
    all_enforced: bool,
    agent: AgentView,
    source: Option<SourceView>,
    revision: RevisionView,
    failsafe_peers: Vec<String>,
    interfaces: Vec<InterfaceView>,
    findings: Vec<Finding>,
    failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct AgentView {
    running: bool,
    pid: Option<String>,
}

#[derive(Debug, Serialize)]
struct SourceView {
    path: String,
    unavailable: Option<String>,
}

#[derive(Debug, Serialize)]
struct RevisionView {
    wanted: Option<Digest>,
    live: Option<Digest>,
}

#[derive(Debug, Serialize)]
struct InterfaceView {
    #[serde(flatten)]
    enforcement: Enforcement,
    /// Of the live tables, where the agent has left word of them.
    tables: Option<TablesSummary>,
    counters: Vec<CounterView>,
}

/// Packets that no rule decided.
#[derive(Debug, Serialize)]
struct CounterView {
    reason: &'static str,
    verdict: &'static str,
    packets: u64,
    bytes: u64,
}

impl Status {
    fn new(instance: &str, reading: &Reading, counts: &ReasonCounts) -> Self {
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
                live: (!observed.links.is_empty()).then(|| observed.revision()),
            },
            failsafe_peers: observed.failsafe.iter().map(ToString::to_string).collect(),
            interfaces,
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
            && !self.findings.iter().any(is_stalled)
            && self.failures.is_empty()
            && self
                .source
                .as_ref()
                .is_some_and(|source| source.unavailable.is_none())
    }
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

fn table(status: &Status) -> String {
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
    text.push_str(&section("Interfaces", modes.chain(reasons)));
    if status
        .interfaces
        .iter()
        .any(|view| !view.counters.is_empty())
    {
        text.push('\n');
        text.push_str(&counter_table(&status.interfaces));
    }
    let findings = status.findings.iter().map(ToString::to_string);
    text.push_str(&section("Findings", findings));
    text.push_str(&section("Failures", status.failures.iter().cloned()));
    text
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
    use headgate_compile::finding::FindingReason;
    use headgate_datapath::state::AttachedMode;

    use super::*;
    use crate::enforcement::tests::healthy;

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
