//! An event, for people and for programs.

use std::{fmt, time::SystemTime};

use headgate_datapath::state::{Digest, PortIndex};
use headgate_kernel::monitor::{Event, EventCause, Losses, now};
use headgate_layout::verdict::Action;
use jiff::Timestamp;
use serde::Serialize;

use super::{names::Names, packet::Headers};

/// One packet.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventView {
    /// A few milliseconds coarse.
    time: Timestamp,
    /// Absent where the port has lost its interface.
    interface: Option<String>,
    /// Absent for the tunnel's device.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<PortIndex>,
    verdict: &'static str,
    #[serde(flatten)]
    cause: CauseView,
    #[serde(flatten)]
    headers: Headers,
    /// Bytes as they are counted.
    length: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    tables: Option<Digest>,
    /// The latest revision in which these tables were enforced here; absent where no tables were
    /// asked, or nothing is known of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<Digest>,
    /// The first bytes, in hexadecimal digits.
    frame: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum CauseView {
    Rule {
        policy: String,
        rule: String,
    },
    /// A rule that no report names.
    Counter {
        counter: u32,
    },
    Reason {
        reason: &'static str,
    },
}

impl fmt::Display for CauseView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { policy, rule } => write!(f, "{policy}/{rule}"),
            Self::Counter { counter } => write!(f, "rule-counter-{counter}"),
            Self::Reason { reason } => f.write_str(reason),
        }
    }
}

impl EventView {
    pub(super) fn new(event: &Event, names: &Names) -> Self {
        let known = event
            .tables
            .and_then(|tables| names.tables(event.port?, tables));
        Self {
            time: wall_clock(event),
            interface: names.interface(event.port).map(str::to_owned),
            port: event.port,
            verdict: match event.action {
                Action::Allow => "Allow",
                Action::Drop => "Drop",
            },
            cause: match event.cause {
                EventCause::Reason(reason) => CauseView::Reason {
                    reason: reason.name(),
                },
                EventCause::Tunnel(event) => CauseView::Reason {
                    reason: event.name(),
                },
                EventCause::Rule(counter) => match names.rule(counter).cloned() {
                    Some((policy, rule)) => CauseView::Rule { policy, rule },
                    None => CauseView::Counter { counter },
                },
            },
            headers: Headers::of(&event.frame),
            length: event.length,
            tables: known.map(|(tables, _)| tables),
            revision: known.map(|(_, revision)| revision),
            frame: event
                .frame
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        }
    }

    /// `13:03:44.120 eth0 Drop deny/all 10.0.0.1:4242 > 192.0.2.1:80 tcp SYN len 60 revision 1a2b`
    pub(super) fn line(&self) -> String {
        let time = self.time.strftime("%H:%M:%S%.3f");
        let port = self.port.map(|port| port.to_string()).unwrap_or_default();
        let interface = self.interface.as_deref().unwrap_or(&port);
        let mut line = format!(
            "{time} {interface} {} {} {} len {}",
            self.verdict, self.cause, self.headers, self.length
        );
        if let Some(revision) = self.revision {
            line.push_str(" revision ");
            line.push_str(&revision.short());
        }
        line
    }
}

/// When that was by the clock on the wall as it goes now.
fn wall_clock(event: &Event) -> Timestamp {
    let ago = now().saturating_sub(event.time);
    let time = SystemTime::now() - ago;
    Timestamp::try_from(time).unwrap_or_default()
}

/// Packets that were not told in some while.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LossView {
    not_shown: NotShown,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct NotShown {
    rate_limited: u64,
    buffer_full: u64,
}

impl LossView {
    pub(super) fn between(before: Losses, after: Losses) -> Self {
        Self {
            not_shown: NotShown {
                rate_limited: after.limited.saturating_sub(before.limited),
                buffer_full: after.full.saturating_sub(before.full),
            },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.not_shown.rate_limited == 0 && self.not_shown.buffer_full == 0
    }
}

impl fmt::Display for LossView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost = &self.not_shown;
        write!(
            f,
            "packets not shown: {} beyond the rate, {} for want of room",
            lost.rate_limited, lost.buffer_full
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(cause: CauseView) -> EventView {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([10, 0, 0, 1, 192, 0, 2, 1, 0x10, 0x92, 0, 53, 0, 8, 0, 0]);
        EventView {
            time: "2026-11-21T13:03:44.120Z".parse().expect("a time"),
            interface: Some("eth0".to_owned()),
            port: PortIndex::new(3),
            verdict: "Drop",
            cause,
            headers: Headers::of(&frame),
            length: 42,
            tables: Some(Digest::of(b"tables")),
            revision: Some(Digest::of(b"revision")),
            frame: "0202".to_owned(),
        }
    }

    fn by_rule() -> CauseView {
        CauseView::Rule {
            policy: "deny".to_owned(),
            rule: "all".to_owned(),
        }
    }

    #[test]
    fn a_line_says_it_all() {
        let revision = Digest::of(b"revision").short();
        let line = view(by_rule()).line();
        let expected = format!(
            "13:03:44.120 eth0 Drop deny/all 10.0.0.1:4242 > 192.0.2.1:53 udp len 42 revision {revision}"
        );
        assert_eq!(line, expected);
    }

    #[test]
    fn what_has_no_name_is_told_by_number() {
        let mut nameless = view(CauseView::Counter { counter: 7 });
        (nameless.interface, nameless.revision) = (None, None);
        assert_eq!(
            nameless.line(),
            "13:03:44.120 port 3 Drop rule-counter-7 10.0.0.1:4242 > 192.0.2.1:53 udp len 42"
        );
    }

    #[test]
    fn an_object_has_a_field_for_each_thing() {
        let object = serde_json::to_value(view(by_rule())).expect("JSON");
        for (field, value) in [
            ("time", "2026-11-21T13:03:44.12Z"),
            ("interface", "eth0"),
            ("verdict", "Drop"),
            ("policy", "deny"),
            ("rule", "all"),
            ("source", "10.0.0.1"),
            ("protocol", "udp"),
        ] {
            assert_eq!(object[field], value, "{field}");
        }
        assert_eq!(object["destinationPort"], 53);
        assert!(object.get("tcpFlags").is_none());
        let reason = view(CauseView::Reason {
            reason: "DefaultDrop",
        });
        let object = serde_json::to_value(reason).expect("JSON");
        assert_eq!(object["reason"], "DefaultDrop");
        assert!(object.get("policy").is_none());
    }

    #[test]
    fn losses_are_those_since_the_last_time() {
        let losses = |limited, full| Losses { limited, full };
        let view = LossView::between(losses(5, 1), losses(12, 1));
        assert!(!view.is_empty());
        assert_eq!(
            view.to_string(),
            "packets not shown: 7 beyond the rate, 0 for want of room"
        );
        assert!(LossView::between(losses(5, 1), losses(5, 1)).is_empty());
    }
}
