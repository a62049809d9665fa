//! What the operator says of a resource, rolled up from the nodes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::schema::crd_object;

/// Nodes that a status names of each kind; the others are counted.
pub const MOST_NAMES: usize = 10;

/// What is in effect of a resource, on how many nodes. Written by the operator alone.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct ResourceStatus {
    /// The generation that this is about; -1 before the operator has seen the object.
    #[serde(default = "never")]
    pub observed_generation: i64,

    /// Numbers of nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,

    /// The generation that was last live on every selected node with an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_generation: Option<i64>,

    /// Where in Git the observed generation came from, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceRevision>,

    /// Nodes on which the observed generation is not in effect, and why; at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub failing: Vec<FailingNode>,

    /// Nodes that have not shown the observed generation yet; at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub pending: Vec<String>,

    /// Nodes that are not Ready, or that are not meant to run an agent: nothing waits for them. At
    /// most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub unreachable: Vec<String>,

    /// Ready, Reconciling and Stalled, in the sense of kstatus.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// Numbers of nodes.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct NodeCounts {
    /// Nodes that the resource selects.
    pub selected: u32,
    /// Those of them on which the observed generation was read back from the kernel.
    pub live: u32,
    /// Those that have not shown it yet.
    pub pending: u32,
    /// Those on which it is not in effect.
    pub failing: u32,
    /// Those that nothing waits for.
    pub unreachable: u32,
}

/// A node on which a resource is not in effect.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct FailingNode {
    /// Its name.
    pub node: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, and what to do about it.
    pub message: String,
}

/// Where in Git a generation came from.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct SourceRevision {
    /// The generation.
    pub generation: i64,
    /// The commit, as the tool that synced it names it.
    pub revision: String,
    /// Who says so: an Argo CD Application, a Flux Kustomization, or an annotation.
    pub told_by: String,
}

impl Default for ResourceStatus {
    fn default() -> Self {
        Self {
            observed_generation: never(),
            nodes: None,
            live_generation: None,
            source: None,
            failing: Vec::new(),
            pending: Vec::new(),
            unreachable: Vec::new(),
            conditions: Vec::new(),
        }
    }
}

fn never() -> i64 {
    -1
}

/// As `metav1.Condition`, with its limits.
pub(crate) fn conditions(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = generator.subschema_for::<Vec<Condition>>();
    schema.insert("maxItems".into(), json!(8));
    schema.insert("x-kubernetes-list-type".into(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".into(), json!(["type"]));
    schema
}
