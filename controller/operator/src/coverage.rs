//! Which nodes a DaemonSet covers, as its controller decides it.

use headgate_compile::inputs::Labels;
use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration},
};

/// Taints that pods of a DaemonSet tolerate by themselves: conditions that pass.
const CONDITIONS: &str = "node.kubernetes.io/";

/// What a node must be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coverage {
    labels: Labels,
    /// Any of them; absent means every node.
    terms: Option<Vec<NodeSelectorTerm>>,
    tolerations: Vec<Toleration>,
}

impl Coverage {
    /// The coverage of `daemon_set`.
    #[must_use]
    pub fn of(daemon_set: DaemonSet) -> Self {
        let pod = daemon_set.spec.template.spec;
        let pod = pod.unwrap_or_default();
        let affinity = pod.affinity.and_then(|affinity| affinity.node_affinity);
        let required = affinity
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution);
        Self {
            labels: pod.node_selector.unwrap_or_default(),
            terms: required.map(|required| required.node_selector_terms),
            tolerations: pod.tolerations.unwrap_or_default(),
        }
    }

    /// Whether it covers the node `name` with these labels and taints.
    #[must_use]
    pub fn covers(&self, name: &str, labels: &Labels, taints: &[Taint]) -> bool {
        let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        let selected = self.labels.iter().all(has);
        let terms = self.terms.as_ref();
        let admitted = terms.is_none_or(|terms| terms.iter().any(|term| meets(term, name, labels)));
        selected && admitted && taints.iter().all(|taint| self.tolerates(taint))
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        taint.effect == "PreferNoSchedule"
            || taint.key.starts_with(CONDITIONS)
            || self.tolerations.iter().any(|toleration| {
                let keys = toleration.key.as_deref().unwrap_or_default();
                let effects = toleration.effect.as_deref().unwrap_or_default();
                let exists = toleration.operator.as_deref() == Some("Exists");
                (keys == taint.key || keys.is_empty() && exists)
                    && (effects.is_empty() || effects == taint.effect)
                    && (exists || toleration.value == taint.value)
            })
    }
}

fn meets(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    let of_labels = term.match_expressions.iter().flatten();
    let of_fields = term.match_fields.iter().flatten();
    let is_empty = of_labels.clone().next().is_none() && of_fields.clone().next().is_none();
    // A term without requirements selects nothing.
    !is_empty
        && of_labels.clone().all(|requirement| {
            let value = labels.get(&requirement.key).map(String::as_str);
            holds(requirement, value)
        })
        && of_fields
            .clone()
            .all(|requirement| requirement.key == "metadata.name" && holds(requirement, Some(name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let number = |text: &str| text.parse::<i64>().ok();
    let compared = value
        .and_then(number)
        .zip(values.first().and_then(|first| number(first)));
    match requirement.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared.is_some_and(|(value, bound)| value > bound),
        "Lt" => compared.is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn coverage(pod: &Value) -> Coverage {
        let daemon_set = json!({"spec": {
            "selector": {}, "template": {"spec": pod},
        }});
        Coverage::of(serde_json::from_value(daemon_set).expect("a DaemonSet"))
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    fn taint(key: &str) -> Taint {
        Taint {
            key: key.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        }
    }

    #[test]
    fn taints_keep_pods_away_unless_tolerated() {
        let bare = coverage(&json!({"containers": []}));
        assert!(bare.covers("n", &labels(&[]), &[]));
        assert!(bare.covers("n", &labels(&[]), &[taint("node.kubernetes.io/not-ready")]));
        assert!(!bare.covers("n", &labels(&[]), &[taint("gpu")]));
        let everywhere = json!({"containers": [], "tolerations": [{"operator": "Exists"}]});
        assert!(coverage(&everywhere).covers("n", &labels(&[]), &[taint("gpu")]));
    }

    #[test]
    fn selector_and_affinity_must_both_hold() {
        let pod = json!({
            "containers": [],
            "nodeSelector": {"role": "edge"},
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]},
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["small"]}]},
                ],
            }}},
        });
        let coverage = coverage(&pod);
        assert!(coverage.covers("big", &labels(&[("role", "edge"), ("cores", "8")]), &[]));
        assert!(coverage.covers("small", &labels(&[("role", "edge"), ("cores", "2")]), &[]));
        assert!(!coverage.covers("other", &labels(&[("role", "edge"), ("cores", "2")]), &[]));
        assert!(!coverage.covers("big", &labels(&[("cores", "8")]), &[]));
    }
}
