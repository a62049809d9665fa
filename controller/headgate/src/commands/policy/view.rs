//! Policies, joined with what is enforced and counted.

use std::collections::{BTreeMap, BTreeSet};

use headgate_agent::report::Report;
use headgate_compile::{compilation::PolicySummary, finding::Finding};
use headgate_crds::Kind;
use headgate_layout::verdict::Count;
use serde::Serialize;

use crate::{
    arguments::InstanceArguments,
    enforcement::{self, Enforcement},
    live::Live,
    outcome::CliError,
    resource_state::{InterfaceView, ResourceState, findings_of, state},
};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyView {
    pub(super) name: String,
    pub(super) place: String,
    pub(super) generation: u64,
    /// Absent where nothing of it is in effect.
    pub(super) effective_generation: Option<u64>,
    pub(super) priority: u16,
    pub(super) default_action: String,
    pub(super) selected: bool,
    pub(super) state: ResourceState,
    pub(super) interfaces: Vec<InterfaceView>,
    pub(super) rules: Vec<RuleView>,
    pub(super) findings: Vec<Finding>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct RuleView {
    pub(super) name: String,
    pub(super) action: String,
    /// Absent where the rule is not in effect, or nothing counts.
    pub(super) packets: Option<u64>,
    pub(super) bytes: Option<u64>,
}

/// All policies, in the order in which they are tried.
pub(super) fn read(place: &InstanceArguments) -> Result<Vec<PolicyView>, CliError> {
    let live = Live::read(place)?;
    let report = live.reading.report(place)?;
    let rules = report.policies.iter().flat_map(|policy| &policy.rules);
    let indices: BTreeSet<u32> = rules.filter_map(|rule| rule.counter).collect();
    let counts = if live.reading.observed.prepared {
        live.kernel.rule_counters(&indices)?
    } else {
        BTreeMap::new()
    };
    Ok(views(report, &enforcement::of(&live.reading), &counts))
}

/// Those of `views` that are called `name`.
pub(super) fn named(views: Vec<PolicyView>, name: &str) -> Result<PolicyView, CliError> {
    let names: Vec<_> = views.iter().map(|view| view.name.clone()).collect();
    let found = views.into_iter().find(|view| view.name == name);
    found.ok_or_else(|| CliError::no_policy(name, &names))
}

pub(super) fn views(
    report: &Report,
    enforcements: &[Enforcement],
    counts: &BTreeMap<u32, Count>,
) -> Vec<PolicyView> {
    let policies = report.policies.iter();
    policies
        .map(|policy| view(policy, report, enforcements, counts))
        .collect()
}

fn view(
    policy: &PolicySummary,
    report: &Report,
    enforcements: &[Enforcement],
    counts: &BTreeMap<u32, Count>,
) -> PolicyView {
    let findings = findings_of(report, Kind::XdpPolicy, &policy.name);
    let interfaces = InterfaceView::of(&policy.interfaces, enforcements);
    let rules = policy.rules.iter().map(|rule| {
        let count = rule.counter.and_then(|index| counts.get(&index));
        RuleView {
            name: rule.name.clone(),
            action: rule.action.clone(),
            packets: count.map(|count| count.packets),
            bytes: count.map(|count| count.bytes),
        }
    });
    PolicyView {
        name: policy.name.clone(),
        place: policy.place.clone(),
        generation: policy.generation,
        effective_generation: policy.effective,
        priority: policy.priority,
        default_action: policy.default_action.clone(),
        selected: policy.selected,
        state: state(policy.selected, &interfaces, &findings),
        rules: rules.collect(),
        interfaces,
        findings,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use headgate_compile::{
        compilation::RuleSummary,
        finding::{FindingReason, Severity},
        snapshot::ResourceName,
    };

    use super::*;
    use crate::enforcement::{State, tests::healthy};

    pub(in super::super) fn policy(name: &str) -> PolicySummary {
        let rule = |name: &str, counter| RuleSummary {
            name: name.into(),
            action: "Drop".into(),
            counter,
        };
        PolicySummary {
            name: name.into(),
            place: "web.yaml:3".into(),
            generation: 2,
            effective: Some(2),
            priority: 500,
            default_action: "Allow".into(),
            selected: true,
            interfaces: vec!["eth0".into()],
            rules: vec![rule("from-ten", Some(7)), rule("new", None)],
        }
    }

    pub(in super::super) fn view_of(policy: PolicySummary, findings: Vec<Finding>) -> PolicyView {
        let mut reading = healthy();
        let report = reading.report.as_mut().expect("a report");
        report.policies = vec![policy];
        report.findings = findings;
        let counts = BTreeMap::from([(
            7,
            Count {
                packets: 3,
                bytes: 180,
            },
        )]);
        let enforcements = enforcement::of(&reading);
        let report = reading.report.as_ref().expect("a report");
        let [view] = views(report, &enforcements, &counts)
            .try_into()
            .expect("one policy");
        view
    }

    pub(in super::super) fn finding(policy: &str, severity: Severity) -> Finding {
        Finding {
            severity,
            reason: FindingReason::Invalid,
            resource: Some(ResourceName::new(Kind::XdpPolicy, policy)),
            place: "web.yaml:9".into(),
            path: "spec.priority".into(),
            message: "is above 1000; lower it".into(),
        }
    }

    #[test]
    fn rules_come_with_what_they_counted() {
        let view = view_of(policy("web"), Vec::new());
        assert_eq!(view.state, ResourceState::Enforced);
        assert_eq!(view.rules[0].packets, Some(3));
        assert_eq!(view.rules[1].packets, None);
    }

    #[test]
    fn a_refused_policy_is_stalled_though_its_last_content_is_enforced() {
        let view = view_of(policy("web"), vec![finding("web", Severity::Stalled)]);
        assert_eq!(view.state, ResourceState::Stalled);
        assert_eq!(view.interfaces[0].state, State::Enforced);
    }

    #[test]
    fn a_finding_about_another_policy_is_not_its_own() {
        let view = view_of(policy("web"), vec![finding("other", Severity::Stalled)]);
        assert_eq!(view.state, ResourceState::Enforced);
        assert!(view.findings.is_empty());
    }

    #[test]
    fn a_policy_is_as_good_as_its_worst_interface() {
        let mut two = policy("web");
        two.interfaces.push("eth1".into());
        assert_eq!(view_of(two, Vec::new()).state, ResourceState::NotEnforced);
    }

    #[test]
    fn a_policy_for_other_nodes_and_one_without_interface_are_told_apart() {
        let mut elsewhere = policy("web");
        elsewhere.selected = false;
        elsewhere.interfaces.clear();
        assert_eq!(
            view_of(elsewhere, Vec::new()).state,
            ResourceState::NotSelected
        );
        let mut waiting = policy("web");
        waiting.interfaces.clear();
        let pending = vec![finding("web", Severity::Pending)];
        assert_eq!(view_of(waiting, pending).state, ResourceState::Pending);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = named(vec![view_of(policy("web"), Vec::new())], "wbe").expect_err("no such");
        assert_eq!(
            error.to_string(),
            "there is no policy \"wbe\" on this node; there are: web"
        );
    }
}
