//! From a policy as written to rules with address sets.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use headgate_crds::{Endpoint, PolicyRule, XdpPolicySpec, parse_cidr};
use headgate_layout::verdict::Action;

use crate::{
    addresses::AddressSet,
    classifier::{Rule, Term},
    finding::{FindingReason, Severity},
    select::Remark,
    snapshot::Group,
};

/// A policy ready to be compiled.
pub struct Policy {
    pub rules: Vec<Rule>,
    pub default: Action,
    pub remarks: Vec<Remark>,
    /// Names of the groups that it uses.
    pub groups: Vec<String>,
}

/// The groups to look up in, by name.
pub type Groups = BTreeMap<String, Arc<Group>>;

/// Looks up what policies refer to; equal endpoints are looked up once and share one set.
pub struct Resolver<'a> {
    groups: &'a Groups,
    existing: &'a BTreeSet<String>,
    known: HashMap<EndpointKey, Arc<AddressSet>>,
}

#[derive(PartialEq, Eq, Hash)]
struct EndpointKey {
    cidrs: Vec<String>,
    except: Vec<String>,
    groups: Vec<String>,
}

impl<'a> Resolver<'a> {
    /// Names are looked up in `groups`, which may hold some that are gone; selectors select
    /// `existing` ones alone.
    pub fn new(groups: &'a Groups, existing: &'a BTreeSet<String>) -> Self {
        Self {
            groups,
            existing,
            known: HashMap::new(),
        }
    }

    /// The rules of `policy`, which count by `counters`.
    ///
    /// # Errors
    /// What it refers to and is not there.
    pub fn policy(
        &mut self,
        spec: &XdpPolicySpec,
        counters: &[u32],
    ) -> Result<Policy, Vec<Remark>> {
        let mut policy = Policy {
            rules: Vec::with_capacity(spec.rules.len()),
            default: action(spec.default_action),
            remarks: Vec::new(),
            groups: Vec::new(),
        };
        let mut errors = Vec::new();
        for (index, (rule, counter)) in spec.rules.iter().zip(counters).enumerate() {
            let path = format!("spec.rules[{index}]");
            let source = self.endpoint(rule.from.as_ref(), &format!("{path}.from"), &mut policy);
            let destination = self.endpoint(rule.to.as_ref(), &format!("{path}.to"), &mut policy);
            match (source, destination) {
                (Ok(source), Ok(destination)) => {
                    policy.note_what_never_matches(
                        &path,
                        source.as_deref(),
                        destination.as_deref(),
                    );
                    policy.rules.push(Rule {
                        action: action(rule.action),
                        counter: *counter,
                        source,
                        destination,
                        terms: terms(rule),
                    });
                }
                (source, destination) => {
                    errors.extend([source.err(), destination.err()].into_iter().flatten());
                }
            }
        }
        if errors.is_empty() {
            Ok(policy)
        } else {
            Err(errors)
        }
    }

    fn endpoint(
        &mut self,
        endpoint: Option<&Endpoint>,
        path: &str,
        policy: &mut Policy,
    ) -> Result<Option<Arc<AddressSet>>, Remark> {
        let Some(endpoint) = endpoint else {
            return Ok(None);
        };
        let groups = self.groups_of(endpoint, path, policy)?;
        policy.groups.extend(groups.iter().cloned());
        let key = EndpointKey {
            cidrs: endpoint.cidrs.clone(),
            except: endpoint.except.clone(),
            groups,
        };
        if let Some(known) = self.known.get(&key) {
            return Ok(Some(Arc::clone(known)));
        }
        let inline = networks(&endpoint.cidrs);
        let sets = key.groups.iter().map(|name| &self.groups[name].addresses);
        let sets: Vec<&AddressSet> = sets.chain([&inline]).collect();
        let union = AddressSet::union(sets.iter().copied());
        let set = Arc::new(union.minus(&networks(&endpoint.except)));
        self.known.insert(key, Arc::clone(&set));
        Ok(Some(set))
    }

    fn groups_of(
        &self,
        endpoint: &Endpoint,
        path: &str,
        policy: &mut Policy,
    ) -> Result<Vec<String>, Remark> {
        let Some(reference) = &endpoint.cidr_groups else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for (index, name) in reference.names.iter().enumerate() {
            if !self.groups.contains_key(name) {
                return Err(Remark {
                    severity: Severity::Stalled,
                    reason: FindingReason::UnresolvedReferences,
                    path: format!("{path}.cidrGroups.names[{index}]"),
                    message: format!(
                        "there is no CidrGroup {name:?}; create it or correct the name"
                    ),
                });
            }
            names.push(name.clone());
        }
        if let Some(selector) = &reference.selector {
            let selected = self
                .groups
                .iter()
                .filter(|(name, _)| self.existing.contains(*name))
                .filter(|(_, group)| selector.matches(&group.labels));
            let before = names.len();
            names.extend(selected.map(|(name, _)| name.clone()));
            if names.len() == before {
                policy.remarks.push(Remark {
                    severity: Severity::Warning,
                    reason: FindingReason::UnresolvedReferences,
                    path: format!("{path}.cidrGroups.selector"),
                    message: "selects no CidrGroup, so it adds no address; label a group or correct the selector".to_owned(),
                });
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

impl Policy {
    fn note_what_never_matches(
        &mut self,
        path: &str,
        source: Option<&AddressSet>,
        destination: Option<&AddressSet>,
    ) {
        let families = |set: Option<&AddressSet>| {
            set.map_or((true, true), |set| (!set.v4.is_empty(), !set.v6.is_empty()))
        };
        let (from, to) = (families(source), families(destination));
        let (v4, v6) = (from.0 && to.0, from.1 && to.1);
        if !v4 && !v6 {
            self.remarks.push(Remark {
                severity: Severity::Warning,
                reason: FindingReason::MatchesNothing,
                path: path.to_owned(),
                message:
                    "no address is left that the rule could match; correct from, to or their except"
                        .to_owned(),
            });
        }
    }
}

fn networks(cidrs: &[String]) -> AddressSet {
    // The check that let the policy in has parsed every one of them.
    AddressSet::from_networks(cidrs.iter().filter_map(|cidr| parse_cidr(cidr).ok()))
}

fn action(action: headgate_crds::Action) -> Action {
    match action {
        headgate_crds::Action::Allow => Action::Allow,
        headgate_crds::Action::Drop => Action::Drop,
    }
}

fn terms(rule: &PolicyRule) -> Vec<Term> {
    match &rule.protocols {
        Some(protocols) => protocols
            .iter()
            .map(|protocol| Term::new(protocol, rule.fragments))
            .collect(),
        None => vec![Term::any(rule.fragments)],
    }
}
