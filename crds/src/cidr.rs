//! Address ranges as text.

use std::net::{AddrParseError, IpAddr};

use ipnet::IpNet;
use serde_json::{Value, json};
use thiserror::Error;

use crate::rules::IS_CIDR;

/// Why a text is no CIDR.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CidrError {
    /// There is no `/`: a bare address, or no address at all.
    #[error("the prefix length is missing")]
    NoPrefixLength,
    /// What stands before the `/` is no address; leading zeros and zones count.
    #[error("the address is malformed")]
    Address(#[source] AddrParseError),
    /// `::ffff:192.0.2.1`: its family would depend on the reader.
    #[error("an IPv4 address in IPv6 form")]
    MappedIpv4,
    /// What stands behind the `/` is no number without leading zeros.
    #[error("the prefix length is malformed")]
    PrefixLength,
    /// The prefix is longer than the address.
    #[error("the prefix length is above {max}")]
    PrefixTooLong {
        /// The longest prefix of this family, in bits.
        max: u8,
    },
}

/// Parses `ADDRESS/LENGTH` as strictly as CEL's `isCIDR` on the API server: no
/// leading zeros, no IPv4-mapped IPv6, no zone. Host bits are kept; `trunc()`
/// clears them.
pub fn parse_cidr(text: &str) -> Result<IpNet, CidrError> {
    let (address, length) = text.split_once('/').ok_or(CidrError::NoPrefixLength)?;
    let address: IpAddr = address.parse().map_err(CidrError::Address)?;
    if let IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        return Err(CidrError::MappedIpv4);
    }
    let plain = !length.is_empty()
        && length.bytes().all(|b| b.is_ascii_digit())
        && (length == "0" || !length.starts_with('0'));
    if !plain {
        return Err(CidrError::PrefixLength);
    }
    let max = if address.is_ipv4() { 32 } else { 128 };
    let length: u8 = length
        .parse()
        .map_err(|_| CidrError::PrefixTooLong { max })?;
    IpNet::new(address, length).map_err(|_| CidrError::PrefixTooLong { max })
}

/// What to write instead of what is no CIDR.
pub(crate) const CIDR_REMEDY: &str = "write ADDRESS/LENGTH without leading zeros, such as \
    192.0.2.0/24 or 2001:db8::/32, and a single address with /32 or /128";

/// The schema of every CIDR in the CRDs. `format: cidr` would let 010.0.0.0/8
/// through; 49 bytes hold the longest, an IPv6 address ending in dotted form.
pub(crate) fn schema() -> Value {
    json!({
        "type": "string",
        "maxLength": 49,
        "x-kubernetes-validations": [{
            "rule": IS_CIDR,
            "messageExpression": format!("'\"' + self + '\" is no CIDR; {CIDR_REMEDY}'"),
        }],
    })
}
