//! How a resource stands on this node, by the agent's findings and what the kernel enforces.

use headgate_agent::report::Report;
use headgate_compile::finding::{Finding, Severity};
use headgate_crds::Kind;
use serde::Serialize;

use crate::enforcement::{Enforcement, State};

/// How a resource stands on this node, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum ResourceState {
    /// In force on every interface that it selects.
    Enforced,
    /// Its nodeSelector does not select this node.
    NotSelected,
    /// It waits for something, such as an interface.
    Pending,
    /// An interface enforces something else than is wanted.
    Outdated,
    /// An interface enforces nothing.
    NotEnforced,
    /// Its present content is refused.
    Stalled,
}

/// An interface that a resource selects.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct InterfaceView {
    pub(crate) interface: String,
    pub(crate) state: State,
    pub(crate) reason: Option<String>,
}

impl InterfaceView {
    /// Interfaces by name.
    pub(crate) fn of(names: &[String], enforcements: &[Enforcement]) -> Vec<Self> {
        let views = names.iter().map(|name| {
            let known = enforcements.iter().find(|e| e.interface == *name);
            Self {
                interface: name.clone(),
                state: known.map_or(State::NotEnforced, |known| known.state),
                reason: match known {
                    Some(known) => known.reason.clone(),
                    None => Some("the agent serves no port for it".to_owned()),
                },
            }
        });
        views.collect()
    }

    /// `NAME: STATE: REASON`
    pub(crate) fn line(&self) -> String {
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}"));
        let reason = reason.unwrap_or_default();
        format!("{}: {:?}{reason}", self.interface, self.state)
    }
}

/// What the agent has to say of a resource.
pub(crate) fn findings_of(report: &Report, kind: Kind, name: &str) -> Vec<Finding> {
    let concerns = |finding: &&Finding| {
        let resource = finding.resource.as_ref();
        resource.is_some_and(|r| r.kind == kind.as_str() && r.name == name)
    };
    report.findings.iter().filter(concerns).cloned().collect()
}

/// How a resource stands.
pub(crate) fn state(
    selected: bool,
    interfaces: &[InterfaceView],
    findings: &[Finding],
) -> ResourceState {
    let has = |severity| findings.iter().any(|finding| finding.severity == severity);
    if has(Severity::Stalled) {
        return ResourceState::Stalled;
    }
    if !selected {
        return ResourceState::NotSelected;
    }
    let worst = interfaces.iter().map(|interface| interface.state).max();
    match worst {
        Some(State::NotEnforced) => ResourceState::NotEnforced,
        Some(State::Outdated | State::Unknown) => ResourceState::Outdated,
        None => ResourceState::Pending,
        Some(State::Enforced) if has(Severity::Pending) => ResourceState::Pending,
        Some(State::Enforced) => ResourceState::Enforced,
    }
}

/// The generation that was read, and the one in effect where that is another.
pub(crate) fn generation(read: u64, effective: Option<u64>) -> String {
    match effective {
        Some(effective) if effective == read => read.to_string(),
        Some(effective) => format!("{read} ({effective} in effect)"),
        None => format!("{read} (none in effect)"),
    }
}
