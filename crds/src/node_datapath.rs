//! What a node enforces, told by its agent.

use std::borrow::Cow;

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta},
};
use kube::{Resource, core::ClusterResourceScope};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{API_VERSION, GROUP, VERSION, schema::crd_object, status::conditions};

/// What one node enforces, as its agent read it back from the kernel. Written by that agent alone,
/// only when something changed; it bears the node's name.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NodeDatapath {
    /// The node's name, and the node as owner.
    pub metadata: ObjectMeta,
    /// What is enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NodeDatapathStatus>,
}

/// What one node enforces.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct NodeDatapathStatus {
    /// Digest of the tables that the kernel was found to enforce, over all interfaces. A node's
    /// own: only inputsDigest compares across nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,

    /// Digest over what the revision was compiled from: uid and generation of each resource that
    /// concerns the node, the uids that its references resolve to, and the node's labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs_digest: Option<String>,

    /// Interfaces that policies select here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub interfaces: Vec<InterfaceDatapath>,

    /// Resources whose present generation is not in effect here, wholly or in part, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub exceptions: Vec<ResourceException>,

    /// Tables in the kernel. Interfaces with the same policies share theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub tables: Vec<TablesDatapath>,

    /// The node's kernel, and the agent that wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeFacts>,

    /// Ready: whether every interface enforces what it should, and nothing is excepted. PeersReachable, where
    /// there is a tunnel: whether its peers are heard. PodsFitTunnel, False where pods may send longer packets than
    /// the tunnel takes. Ready waits for neither.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// One interface.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct InterfaceDatapath {
    /// Its name.
    pub name: String,
    /// Its number in the node's kernel.
    pub ifindex: u32,
    /// How the program is attached: Native or Generic; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach_mode: Option<String>,
    /// Why not Native, in the words of the driver's refusal, where attachMode leaves the choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native_refusal: Option<String>,
    /// Digest of the tables that it should enforce.
    pub tables: String,
    /// Whether the kernel was found to enforce them.
    pub enforced: bool,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A resource whose present generation is not in effect as written.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct ResourceException {
    /// XdpPolicy, CidrGroup, LoadBalancerService, AddressPool or TunnelPeer.
    pub kind: String,
    /// Its name, and before it the namespace of a kind that has one: NAMESPACE/NAME.
    pub name: String,
    /// Stalled: the present generation is not in effect. Pending: it waits for something.
    pub severity: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, with the field's path and what to do about it.
    pub message: String,
}

/// The tables of one set of policies.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct TablesDatapath {
    /// Digest of their content.
    pub digest: String,
    /// Interfaces that read them.
    pub interfaces: Vec<String>,
    /// Policies, in the order in which they are tried.
    pub policies: Vec<String>,
    /// Services, with their namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// Number of rules.
    pub rules: u32,
    /// Bytes in use.
    pub bytes: u32,
}

/// The node and the agent.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct NodeFacts {
    /// Release of the running kernel, as uname tells it.
    pub kernel_release: String,
    /// Version of the agent.
    pub agent_version: String,
}

impl Resource for NodeDatapath {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "NodeDatapath".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn api_version((): &()) -> Cow<'_, str> {
        API_VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodedatapaths".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl NodeDatapath {
    /// Its definition. By hand, for kube's derive wants a spec, and this has none: nobody but the
    /// node's agent has anything to say here.
    ///
    /// # Panics
    /// Never: the definition is one constant.
    #[must_use]
    pub fn crd() -> CustomResourceDefinition {
        let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
        let ready = |field: &str| format!(".status.conditions[?(@.type==\"Ready\")].{field}");
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "nodedatapaths.headgate.dev"},
            "spec": {
                "group": GROUP,
                "names": {
                    "kind": "NodeDatapath", "plural": "nodedatapaths", "singular": "nodedatapath",
                    "shortNames": ["ndp"], "categories": ["headgate"],
                },
                "scope": "Cluster",
                "versions": [{
                    "name": VERSION,
                    "served": true,
                    "storage": true,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        column("Ready", "string", &ready("status")),
                        column("Reason", "string", &ready("reason")),
                        column("Revision", "string", ".status.revision"),
                        column("Message", "string", &ready("message")),
                        column("Age", "date", ".metadata.creationTimestamp"),
                    ],
                    "schema": {"openAPIV3Schema": {
                        "type": "object",
                        "description": "What one node enforces, as its agent read it back from the kernel. Written by that agent alone, only when something changed; it bears the node's name.",
                        "properties": {"status": status_schema()},
                    }},
                }],
            },
        });
        serde_json::from_value(definition).expect("a definition is well-formed")
    }
}

fn status_schema() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let settings = settings.with_transform(kube::core::schema::StructuralSchemaRewriter);
    let schema = settings
        .into_generator()
        .into_root_schema_for::<NodeDatapathStatus>();
    let mut schema = serde_json::to_value(schema).expect("a schema is JSON");
    if let Some(object) = schema.as_object_mut() {
        object.remove("title");
    }
    schema
}
