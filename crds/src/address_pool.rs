//! Who may serve which addresses.

use garde::Validate;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{cidr, schema::crd_object, status::ResourceStatus};

/// Addresses that LoadBalancerServices may serve.
#[derive(
    CustomResource, KubeSchema, Validate, Serialize, Deserialize, Clone, Debug, Default, PartialEq,
)]
#[kube(
    group = "headgate.dev",
    version = "v1alpha1",
    kind = "AddressPool",
    doc = "Addresses that LoadBalancerServices may serve, and the namespaces that may: a service whose \
           address lies in no pool that admits its namespace is not served.",
    derive = "PartialEq",
    status = "ResourceStatus",
    shortname = "ap",
    category = "headgate",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "CIDRs", type_ = "string", json_path = ".spec.cidrs"),
    printcolumn(name = "Namespaces", type_ = "string", json_path = ".spec.namespaces"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct AddressPoolSpec {
    /// Address ranges in CIDR form, IPv4 and IPv6 mixed as you like.
    #[schemars(length(min = 1, max = 256), extend("items" = cidr::schema()))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[garde(skip)]
    pub cidrs: Vec<String>,

    /// Namespaces whose services may use these addresses, by name. Absent means every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        inner(length(min = 1, max = 63), regex(pattern = crate::structural::RULE_NAME))
    )]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[garde(skip)]
    pub namespaces: Option<Vec<String>>,
}

impl AddressPoolSpec {
    /// Whether services of `namespace` may use these addresses.
    pub fn admits(&self, namespace: &str) -> bool {
        let namespaces = self.namespaces.as_ref();
        namespaces.is_none_or(|names| names.iter().any(|name| name == namespace))
    }
}
