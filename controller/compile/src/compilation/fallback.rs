//! Policies whose content cannot be in effect now fall back to the last one that can; services: see
//! `serve`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headgate_crds::XdpPolicySpec;

use super::{Compiler, finding};
use crate::{
    adopt::{self, Version},
    counters::Counters,
    finding::{Finding, FindingReason, Severity},
    resolve::Groups,
    select::{self, Remark},
    snapshot::{Content, Uid},
};

/// Which content of each resource an attempt goes by.
pub(super) struct Draft {
    pub versions: BTreeMap<Uid, Version>,
    pub left_out: Vec<String>,
    pub findings: Vec<Finding>,
}

impl Draft {
    /// Goes by `good` instead of what was chosen for `uid`, or leaves the resource out.
    pub(super) fn fall_back(&mut self, uid: &Uid, good: Option<&Version>) {
        if let Some(good) = good {
            self.versions.insert(uid.clone(), good.clone());
        } else if let Some(version) = self.versions.remove(uid) {
            self.left_out.push(version.name.to_string());
        }
    }
}

impl Compiler<'_> {
    /// A policy that names what does not exist falls back to its last good content, which goes on
    /// with the last good content of what is gone.
    pub(super) fn fall_back_where_unresolved(
        &self,
        draft: &mut Draft,
        groups: &Groups,
        existing: &BTreeSet<String>,
    ) {
        for (uid, candidate) in self.candidates {
            let Some((version, spec)) = policy_in(&draft.versions, uid) else {
                continue;
            };
            let Some((path, name)) = missing_group(&spec, existing) else {
                continue;
            };
            let known = |good: &&Version| match &good.content {
                Content::Policy(spec) => all_groups_known(spec, groups),
                _ => false,
            };
            let good = candidate.last_good.as_ref().filter(known);
            let outcome = match good {
                Some(good) if good.generation == version.generation => {
                    "the group's last content stays in effect".to_owned()
                }
                good => adopt::outcome(good, self.memory),
            };
            draft.findings.push(finding(
                &version,
                Remark {
                    severity: Severity::Stalled,
                    reason: FindingReason::UnresolvedReferences,
                    path,
                    message: format!(
                        "there is no CidrGroup {name:?}; create it or correct the name; {outcome}"
                    ),
                },
            ));
            draft.fall_back(uid, good);
        }
    }

    /// Leases a counter to each rule of the policies that concern the node. A policy for which too
    /// few are left falls back to its last good content, whose rules have theirs.
    pub(super) fn fall_back_where_no_counters(
        &self,
        draft: &mut Draft,
        counters: &mut Counters,
    ) -> BTreeMap<Uid, Vec<u32>> {
        let mut leased = BTreeMap::new();
        for (uid, candidate) in self.candidates {
            let Some((version, spec)) = policy_in(&draft.versions, uid) else {
                continue;
            };
            if !select::concerns(spec.node_selector.as_ref(), self.node) {
                continue;
            }
            if let Some(indices) = counters.of(uid, rule_names(&spec)) {
                leased.insert(uid.clone(), indices);
                continue;
            }
            let good = candidate.last_good.as_ref();
            let indices = good.and_then(|good| match &good.content {
                Content::Policy(spec) => counters.of(uid, rule_names(spec)),
                _ => None,
            });
            let good = good.filter(|_| indices.is_some());
            let outcome = adopt::outcome(good, self.memory);
            draft
                .findings
                .push(finding(&version, no_counter_left(&outcome)));
            draft.fall_back(uid, good);
            leased.extend(indices.map(|indices| (uid.clone(), indices)));
        }
        leased
    }
}

fn rule_names(spec: &XdpPolicySpec) -> impl Iterator<Item = &String> + Clone {
    spec.rules.iter().map(|rule| &rule.name)
}

/// The groups that a policy names, with the paths where it does.
pub(super) fn group_names(spec: &XdpPolicySpec) -> impl Iterator<Item = (String, &String)> {
    spec.rules.iter().enumerate().flat_map(|(index, rule)| {
        let sides = [("from", rule.from.as_ref()), ("to", rule.to.as_ref())];
        sides.into_iter().flat_map(move |(side, endpoint)| {
            let reference = endpoint.and_then(|endpoint| endpoint.cidr_groups.as_ref());
            let names = reference.map(|r| r.names.as_slice()).unwrap_or_default();
            names.iter().enumerate().map(move |(place, name)| {
                (
                    format!("spec.rules[{index}].{side}.cidrGroups.names[{place}]"),
                    name,
                )
            })
        })
    })
}

fn missing_group(spec: &XdpPolicySpec, existing: &BTreeSet<String>) -> Option<(String, String)> {
    group_names(spec)
        .find(|(_, name)| !existing.contains(*name))
        .map(|(path, name)| (path, name.clone()))
}

fn all_groups_known(spec: &XdpPolicySpec, groups: &Groups) -> bool {
    group_names(spec).all(|(_, name)| groups.contains_key(name))
}

fn policy_in(
    versions: &BTreeMap<Uid, Version>,
    uid: &Uid,
) -> Option<(Version, Arc<XdpPolicySpec>)> {
    let version = versions.get(uid)?;
    match &version.content {
        Content::Policy(spec) => Some((version.clone(), Arc::clone(spec))),
        _ => None,
    }
}

fn no_counter_left(outcome: &str) -> Remark {
    Remark {
        severity: Severity::Stalled,
        reason: FindingReason::OutOfCapacity,
        path: "spec.rules".to_owned(),
        message: format!(
            "too few of the {} rule counters of this node are left, which the rules of all policies share; remove rules that are not needed; {outcome}",
            headgate_layout::maps::MAX_COUNTERS
        ),
    }
}
