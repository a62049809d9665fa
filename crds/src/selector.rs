//! Kubernetes' label selector, with the limits that CEL's cost budget wants.

use std::collections::BTreeMap;

use garde::{Path, Report, Validate};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    metadata::is_label_key, remedy, schema::crd_object, structural::LABEL_KEY, validation::refusal,
};

/// The field of the labels, as users spell it; no Rust name holds this text.
pub(crate) const MATCH_LABELS: &str = "matchLabels";

/// Selects objects by their labels. All of matchLabels and matchExpressions must
/// hold. An empty selector selects everything.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"), transform = crd_object)]
pub struct LabelSelector {
    /// Labels that the object must have, each with exactly this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 64,
        "additionalProperties" = {
            "type": "string",
            "maxLength": 63,
            "pattern": crate::structural::LABEL_VALUE,
        }
    ))]
    pub match_labels: BTreeMap<String, String>,

    /// Requirements that the object's labels must all meet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// One requirement on a label.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
#[x_kube(validation = Rule::new(
    "self.operator in ['In', 'NotIn'] ? has(self.values) : !has(self.values)"
).message(
    "In and NotIn need values, Exists and DoesNotExist take none; add values, or remove them"
))]
pub struct LabelSelectorRequirement {
    /// The label's key, such as topology.kubernetes.io/zone.
    #[schemars(length(min = 1, max = 317), regex(pattern = crate::structural::LABEL_KEY))]
    pub key: String,

    /// In: the label has one of the values. NotIn: it has none of them, or the label is
    /// absent. Exists: the label is there, whatever its value. DoesNotExist: it is not.
    pub operator: LabelSelectorOperator,

    /// The values that In and NotIn compare with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(max = 63), regex(pattern = crate::structural::LABEL_VALUE))
    )]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub values: Vec<String>,
}

/// How a requirement compares a label.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelSelectorOperator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is absent.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self
                .match_expressions
                .iter()
                .all(|requirement| requirement.matches(labels))
    }
}

// By hand, for garde's derive looks at a map's values, not at its keys.
impl Validate for LabelSelector {
    type Context = ();

    fn validate_into(&self, (): &(), parent: &mut dyn FnMut() -> Path, report: &mut Report) {
        for key in self.match_labels.keys().filter(|key| !is_label_key(key)) {
            // One step with the field, for garde would set the key off with a dot.
            let label = format!("{MATCH_LABELS}[{}]", remedy::shown(key));
            let (reason, remedy) = remedy::mismatch_words(key, LABEL_KEY);
            report.append(parent().join(label), refusal(reason, remedy));
        }
    }
}

impl LabelSelectorRequirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelSelectorOperator::In => value.is_some_and(|v| self.values.contains(v)),
            LabelSelectorOperator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            LabelSelectorOperator::Exists => value.is_some(),
            LabelSelectorOperator::DoesNotExist => value.is_none(),
        }
    }
}
