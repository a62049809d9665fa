//! Named lists of address ranges.

use garde::Validate;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{cidr, schema::crd_object, status::ResourceStatus};

/// A list of address ranges for policies to name, or to select by this object's labels.
#[derive(
    CustomResource, KubeSchema, Validate, Serialize, Deserialize, Clone, Debug, Default, PartialEq,
)]
#[kube(
    group = "headgate.dev",
    version = "v1alpha1",
    kind = "CidrGroup",
    doc = "A list of address ranges for policies to name, or to select by this object's labels. \
           A list of more than 5,000 ranges is several objects that share a label.",
    derive = "PartialEq",
    status = "ResourceStatus",
    shortname = "cg",
    category = "headgate",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Live", type_ = "integer", json_path = ".status.nodes.live"),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.nodes.selected"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct CidrGroupSpec {
    /// Address ranges in CIDR form, IPv4 and IPv6 mixed as you like, at most 5,000. Bits
    /// beyond the prefix length are ignored, with a warning. A single address is written
    /// with /32 or /128.
    #[schemars(length(min = 1, max = 5000), extend("items" = cidr::schema()))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[garde(skip)]
    pub cidrs: Vec<String>,
}
