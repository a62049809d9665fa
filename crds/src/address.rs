//! Addresses as text.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::rules::IS_ADDRESS;

/// What to write instead of what is no address.
pub(crate) const ADDRESS_REMEDY: &str =
    "write it without leading zeros, zone or prefix length, such as 192.0.2.1 or 2001:db8::1";

/// The schema of every address in the CRDs; 45 bytes hold the longest.
pub(crate) fn schema() -> Value {
    json!({"type": "string", "maxLength": 45, "x-kubernetes-validations": rules()})
}

/// What the API server asks of an address.
pub(crate) fn rules() -> Value {
    json!([{
        "rule": IS_ADDRESS,
        "messageExpression": format!("'\"' + self + '\" is no address; {ADDRESS_REMEDY}'"),
    }])
}

/// Parses an address as strictly as CEL's `isIP` on the API server.
pub(crate) fn parse(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => None,
        address => Some(address),
    }
}
