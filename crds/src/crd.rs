//! The CustomResourceDefinitions, as objects and as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSON;
use kube::CustomResourceExt;
use serde_json::json;

use crate::{AddressPool, CidrGroup, LoadBalancerService, NodeDatapath, TunnelPeer, XdpPolicy};

/// The definition of every resource, in a fixed order.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        never_observed(AddressPool::crd()),
        never_observed(CidrGroup::crd()),
        never_observed(LoadBalancerService::crd()),
        NodeDatapath::crd(),
        never_observed(TunnelPeer::crd()),
        never_observed(XdpPolicy::crd()),
    ]
}

/// Lets a new object say that nobody has observed it: without a status it would pass for healthy.
fn never_observed(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut();
        let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_mut());
        let properties = schema.and_then(|schema| schema.properties.as_mut());
        if let Some(status) = properties.and_then(|properties| properties.get_mut("status")) {
            status.nullable = None;
            status.default = Some(JSON(json!({"observedGeneration": -1})));
        }
    }
    crd
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
