//! One side of a packet: its source or its destination.

use garde::Validate;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{cidr, families::leaves_an_address, schema::crd_object, selector::LabelSelector};

/// A set of addresses: the union of cidrs and cidrGroups, less except.
#[derive(KubeSchema, Validate, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
#[x_kube(validation = Rule::new("has(self.cidrs) || has(self.cidrGroups)").message(
    "no addresses: cidrs or cidrGroups is required; for all but the except, write \
     cidrs: [\"0.0.0.0/0\", \"::/0\"]"
))]
pub struct Endpoint {
    /// Address ranges in CIDR form, IPv4 and IPv6 mixed as you like. Bits beyond the prefix
    /// length are ignored, with a warning: 10.0.0.1/8 is 10.0.0.0/8. A single address is
    /// written with /32 or /128.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256), extend("items" = cidr::schema()))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[garde(skip)]
    pub cidrs: Vec<String>,

    /// Address ranges taken away from the union of cidrs and cidrGroups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256), extend("items" = cidr::schema()))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[garde(custom(leaves_an_address(self)))]
    pub except: Vec<String>,

    /// CidrGroups whose ranges are added to cidrs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub cidr_groups: Option<CidrGroupReference>,
}

/// CidrGroups by name, by label, or both: every group that is named or selected counts.
#[derive(KubeSchema, Validate, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
#[x_kube(validation = Rule::new("has(self.names) || has(self.selector)").message(
    "no group is named or selected; give names or selector (selector: {} selects every group)"
))]
pub struct CidrGroupReference {
    /// Names of CidrGroups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 64),
        inner(length(min = 1, max = 253), regex(pattern = crate::structural::OBJECT_NAME))
    )]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[garde(skip)]
    pub names: Vec<String>,

    /// Selects CidrGroups by their labels. {} selects every CidrGroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(dive)]
    pub selector: Option<LabelSelector>,
}
