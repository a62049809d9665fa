//! The CustomResourceDefinitions, as objects and as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{CidrGroup, NodeDatapath, XdpPolicy};

/// The definition of every resource, in a fixed order.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![CidrGroup::crd(), NodeDatapath::crd(), XdpPolicy::crd()]
}

/// One definition as YAML, the same bytes for the same types.
pub fn to_yaml(crd: &CustomResourceDefinition) -> String {
    serde_saphyr::to_string(crd).expect("a definition holds only strings, numbers and maps")
}

/// File name and content of every definition, as the repository keeps them.
pub fn files() -> Vec<(String, String)> {
    all()
        .iter()
        .map(|crd| {
            let name = crd.metadata.name.as_deref().unwrap_or_default();
            (format!("{name}.yaml"), to_yaml(crd))
        })
        .collect()
}
