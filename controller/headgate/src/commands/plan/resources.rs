//! What changes between two sets of resources in effect.

use std::collections::{BTreeMap, BTreeSet};

use headgate_compile::{
    memory::LastGood,
    snapshot::{Content, Group, Uid},
};
use headgate_crds::{PolicyRule, XdpPolicySpec};
use serde::Serialize;
use serde_json::Value;

use crate::output::count;

/// What becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) enum Change {
    Added,
    Changed,
    Removed,
}

impl Change {
    /// As in a diff.
    pub(super) fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Changed => '~',
            Self::Removed => '-',
        }
    }
}

/// One resource that comes into effect, goes out of it, or says something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ResourceChange {
    /// `KIND/NAME`
    pub(super) resource: String,
    pub(super) change: Change,
    /// What is different in it.
    pub(super) details: Vec<String>,
}

type Resources = BTreeMap<Uid, LastGood>;

/// All changes, by name.
pub(super) fn changes(before: &Resources, after: &Resources) -> Vec<ResourceChange> {
    let mut changes = Vec::new();
    for (uid, new) in after {
        let (change, details) = match before.get(uid) {
            None => (Change::Added, summary(&new.content)),
            Some(old) if old.content == new.content => continue,
            Some(old) => (Change::Changed, differences(&old.content, &new.content)),
        };
        changes.push(ResourceChange {
            resource: new.name.to_string(),
            change,
            details,
        });
    }
    let gone = before.iter().filter(|(uid, _)| !after.contains_key(*uid));
    changes.extend(gone.map(|(_, old)| ResourceChange {
        resource: old.name.to_string(),
        change: Change::Removed,
        details: Vec::new(),
    }));
    changes.sort_by(|a, b| a.resource.cmp(&b.resource));
    changes
}

fn summary(content: &Content) -> Vec<String> {
    vec![match content {
        Content::Policy(spec) => format!(
            "priority {}, default {:?}, {}",
            spec.priority,
            spec.default_action,
            count(spec.rules.len(), "rule")
        ),
        Content::Group(group) => count(group.addresses.len(), "address range"),
        Content::Service(service) => format!(
            "{} to {}",
            service.spec.addresses.join(", "),
            match &service.spec.backends.service_ref {
                Some(reference) => format!("the endpoints of Service/{}", reference.name),
                None => count(service.spec.backends.fixed.len(), "backend"),
            }
        ),
        Content::Pool(pool) => count(pool.cidrs.len(), "address range"),
        Content::Peer(peer) => format!(
            "{} behind {}, {:?}",
            peer.spec.pod_cidrs.join(", "),
            peer.spec.endpoint,
            peer.spec.mode
        ),
    }]
}

fn differences(old: &Content, new: &Content) -> Vec<String> {
    match (old, new) {
        (Content::Policy(old), Content::Policy(new)) => policy_differences(old, new),
        (Content::Group(old), Content::Group(new)) => group_differences(old, new),
        (Content::Service(old), Content::Service(new)) => fields_that_differ(&old.spec, &new.spec),
        (Content::Peer(old), Content::Peer(new)) => fields_that_differ(&old.spec, &new.spec),
        (Content::Pool(old), Content::Pool(new)) => fields_that_differ(old.as_ref(), new.as_ref()),
        // A uid belongs to one kind.
        _ => Vec::new(),
    }
}

/// The fields of a spec that say something else.
fn fields_that_differ(old: &impl Serialize, new: &impl Serialize) -> Vec<String> {
    let (Ok(old), Ok(new)) = (serde_json::to_value(old), serde_json::to_value(new)) else {
        return Vec::new();
    };
    let (Value::Object(former), Value::Object(written)) = (&old, &new) else {
        return Vec::new();
    };
    let fields: BTreeSet<&String> = former.keys().chain(written.keys()).collect();
    let changed = fields
        .into_iter()
        .filter(|field| former.get(*field) != written.get(*field));
    changed.map(|field| format!("{field} changed")).collect()
}

fn policy_differences(old: &XdpPolicySpec, new: &XdpPolicySpec) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |field: &str, old: String, new: String| {
        if old != new {
            found.push(format!("{field} {old} -> {new}"));
        }
    };
    compare(
        "priority",
        old.priority.to_string(),
        new.priority.to_string(),
    );
    compare(
        "defaultAction",
        format!("{:?}", old.default_action),
        format!("{:?}", new.default_action),
    );
    compare(
        "attachMode",
        format!("{:?}", old.attach_mode),
        format!("{:?}", new.attach_mode),
    );
    compare(
        "interfaces",
        old.interfaces.join(","),
        new.interfaces.join(","),
    );
    if old.node_selector != new.node_selector {
        found.push("nodeSelector changed".to_owned());
    }
    found.extend(rule_differences(&old.rules, &new.rules));
    found
}

fn rule_differences(old: &[PolicyRule], new: &[PolicyRule]) -> Vec<String> {
    let named =
        |rules: &[PolicyRule], name: &str| rules.iter().find(|rule| rule.name == name).cloned();
    let mut found = Vec::new();
    for rule in new {
        match named(old, &rule.name) {
            None => found.push(format!("rule {} added: {:?}", rule.name, rule.action)),
            Some(former) if former == *rule => {}
            Some(former) => {
                let fields = changed_fields(&former, rule).join(", ");
                found.push(format!("rule {} changed: {fields}", rule.name));
            }
        }
    }
    let gone = old.iter().filter(|rule| named(new, &rule.name).is_none());
    found.extend(gone.map(|rule| format!("rule {} removed", rule.name)));
    let order = |of: &[PolicyRule], other: &[PolicyRule]| -> Vec<String> {
        let names = of.iter().map(|rule| rule.name.clone());
        names.filter(|name| named(other, name).is_some()).collect()
    };
    if order(old, new) != order(new, old) {
        found.push("rules in another order".to_owned());
    }
    found
}

fn changed_fields(old: &PolicyRule, new: &PolicyRule) -> Vec<String> {
    let mut fields = Vec::new();
    if old.action != new.action {
        fields.push(format!("action {:?} -> {:?}", old.action, new.action));
    }
    let others = [
        ("from", old.from != new.from),
        ("to", old.to != new.to),
        ("protocols", old.protocols != new.protocols),
        ("fragments", old.fragments != new.fragments),
    ];
    let changed = others.into_iter().filter(|(_, changed)| *changed);
    fields.extend(changed.map(|(field, _)| field.to_owned()));
    fields
}

fn group_differences(old: &Group, new: &Group) -> Vec<String> {
    let mut found = Vec::new();
    if old.addresses != new.addresses {
        let more = new.addresses.minus(&old.addresses).len();
        let fewer = old.addresses.minus(&new.addresses).len();
        found.push(format!(
            "{} added, {fewer} removed",
            count(more, "address range")
        ));
    }
    if old.labels != new.labels {
        found.push("labels changed".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use headgate_compile::{addresses::AddressSet, snapshot::ResourceName};
    use headgate_crds::{Action, Kind, parse_cidr};

    use super::*;

    fn policy(edit: impl FnOnce(&mut XdpPolicySpec)) -> LastGood {
        let rule = |name: &str| PolicyRule {
            name: name.into(),
            action: Action::Drop,
            from: None,
            to: None,
            protocols: None,
            fragments: None,
        };
        let mut spec = XdpPolicySpec {
            node_selector: None,
            interfaces: vec!["eth0".into()],
            attach_mode: Default::default(),
            priority: 500,
            default_action: Action::Allow,
            rules: vec![rule("a"), rule("b")],
        };
        edit(&mut spec);
        LastGood {
            name: ResourceName::new(Kind::XdpPolicy, "web"),
            generation: 1,
            list: "web.yaml".into(),
            content: Content::Policy(Arc::new(spec)),
        }
    }

    fn group(cidrs: &[&str]) -> LastGood {
        let networks = cidrs.iter().map(|cidr| parse_cidr(cidr).expect("a CIDR"));
        LastGood {
            name: ResourceName::new(Kind::CidrGroup, "list"),
            generation: 1,
            list: "list.yaml".into(),
            content: Content::Group(Arc::new(Group {
                labels: BTreeMap::new(),
                addresses: AddressSet::from_networks(networks),
            })),
        }
    }

    fn resources(all: impl IntoIterator<Item = LastGood>) -> Resources {
        all.into_iter()
            .map(|good| (good.name.to_string(), good))
            .collect()
    }

    /// The details of the only change between two resources.
    fn details(old: LastGood, new: LastGood) -> Vec<String> {
        let changes = changes(&resources([old]), &resources([new]));
        let [change] = changes.try_into().expect("one change");
        assert_eq!(change.change, Change::Changed);
        change.details
    }

    #[test]
    fn what_stays_is_not_listed() {
        let all = resources([policy(|_| ()), group(&["192.0.2.0/24"])]);
        assert_eq!(changes(&all, &all), []);
    }

    #[test]
    fn what_comes_and_goes_is_listed_by_name() {
        let found = changes(
            &resources([group(&["192.0.2.0/24"])]),
            &resources([policy(|_| ())]),
        );
        let listed: Vec<_> = found
            .iter()
            .map(|change| {
                format!(
                    "{} {} {:?}",
                    change.change.sign(),
                    change.resource,
                    change.details
                )
            })
            .collect();
        assert_eq!(
            listed,
            [
                "- CidrGroup/list []",
                "+ XdpPolicy/web [\"priority 500, default Allow, 2 rules\"]"
            ]
        );
    }

    #[test]
    fn every_field_of_a_policy_is_compared() {
        let new = policy(|spec| {
            spec.priority = 100;
            spec.default_action = Action::Drop;
            spec.attach_mode = headgate_crds::AttachMode::Generic;
            spec.interfaces.push("eth1".into());
            spec.node_selector = Some(Default::default());
        });
        assert_eq!(
            details(policy(|_| ()), new),
            [
                "priority 500 -> 100",
                "defaultAction Allow -> Drop",
                "attachMode Auto -> Generic",
                "interfaces eth0 -> eth0,eth1",
                "nodeSelector changed"
            ]
        );
    }

    #[test]
    fn rules_are_told_by_name() {
        let new = policy(|spec| {
            spec.rules[0].action = Action::Allow;
            spec.rules[0].fragments = Some(headgate_crds::Fragments::First);
            spec.rules[1].name = "c".into();
        });
        assert_eq!(
            details(policy(|_| ()), new),
            [
                "rule a changed: action Drop -> Allow, fragments",
                "rule c added: Drop",
                "rule b removed"
            ]
        );
        let reordered = policy(|spec| spec.rules.reverse());
        assert_eq!(
            details(policy(|_| ()), reordered),
            ["rules in another order"]
        );
    }

    #[test]
    fn a_groups_change_is_counted() {
        let old = group(&["192.0.2.0/24", "198.51.100.0/24"]);
        let new = group(&["192.0.2.0/24", "203.0.113.0/24", "2001:db8::/32"]);
        assert_eq!(details(old, new), ["2 address ranges added, 1 removed"]);
    }
}
