//! What a rule may ask of the transport header.

use garde::{Path, Report, Validate};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{schema::crd_object, validation::refusal};

/// One protocol with its qualifiers. Exactly one of tcp, udp, sctp, icmp, icmpv6 and
/// number is given. A later fragment matches by protocol only, for it has no ports.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub enum Protocol {
    /// TCP, over IPv4 and IPv6. {} is any TCP packet.
    Tcp(TcpMatch),
    /// UDP, over IPv4 and IPv6. {} is any UDP packet.
    Udp(UdpMatch),
    /// SCTP, over IPv4 and IPv6. {} is any SCTP packet.
    Sctp(SctpMatch),
    /// ICMP: protocol 1 of IPv4 only. {} is any ICMP message.
    Icmp(IcmpMatch),
    /// ICMPv6: protocol 58 of IPv6 only. {} is any ICMPv6 message, Neighbor Discovery included.
    Icmpv6(IcmpMatch),
    /// An IP protocol by its number, over IPv4 and IPv6, such as 47 for GRE or 50 for ESP.
    /// 0, 43, 44 and 60 are IPv6 extension headers: they are parsed through and never are
    /// the protocol.
    Number(
        #[schemars(
            range(min = 0, max = 255),
            extend(
                "format" = "int32",
                "x-kubernetes-validations" = [{
                    "rule": "!(self in [0, 43, 44, 60])",
                    "message": "an IPv6 extension header is parsed through and never is the \
                        protocol; name the protocol behind it, or use fragments for fragments",
                }]
            )
        )]
        u8,
    ),
}

/// Qualifiers of TCP. All that are given must hold.
#[derive(KubeSchema, Validate, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct TcpMatch {
    /// Destination ports, any of them. Absent means every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[garde(skip)]
    pub ports: Option<Vec<PortRange>>,

    /// Source ports, any of them. Absent means every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[garde(skip)]
    pub source_ports: Option<Vec<PortRange>>,

    /// Flags that the segment must or must not carry. Absent means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub flags: Option<TcpFlags>,

    /// true matches segments with ACK or RST set, false those with neither, absent both.
    /// This is stateless: it reads the segment's own flags and tracks no connection, so a
    /// sender can forge it. It tells replies from new connections, not friend from foe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(custom(agrees_with(self.flags.as_ref())))]
    pub established: Option<bool>,
}

/// Qualifiers of UDP. All that are given must hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct UdpMatch {
    /// Destination ports, any of them. Absent means every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub ports: Option<Vec<PortRange>>,

    /// Source ports, any of them. Absent means every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub source_ports: Option<Vec<PortRange>>,
}

/// Qualifiers of SCTP. All that are given must hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct SctpMatch {
    /// Destination ports, any of them. Absent means every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub ports: Option<Vec<PortRange>>,

    /// Source ports, any of them. Absent means every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub source_ports: Option<Vec<PortRange>>,
}

/// Qualifiers of ICMP and ICMPv6.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
pub struct IcmpMatch {
    /// Message types by number, any of them, such as 8 (ICMP) or 128 (ICMPv6) for an echo
    /// request. Absent means every type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(range(min = 0, max = 255)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub types: Option<Vec<u8>>,
}

/// A port, or a range of ports with both ends included.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
#[x_kube(validation = Rule::new("!has(self.endPort) || self.endPort >= self.port").message(
    "endPort is below port; swap the two, both ends are included"
))]
pub struct PortRange {
    /// The port, or the first port of a range.
    #[schemars(range(min = 0, max = 65535))]
    pub port: u16,

    /// The last port of the range, included. Absent means that port stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub end_port: Option<u16>,
}

// By hand, for garde's derive names no variants.
impl Validate for Protocol {
    type Context = ();

    fn validate_into(&self, ctx: &(), parent: &mut dyn FnMut() -> Path, report: &mut Report) {
        if let Self::Tcp(tcp) = self {
            tcp.validate_into(ctx, &mut || parent().join("tcp"), report);
        }
    }
}

/// A validator of `established`: that a segment can meet both it and these flags.
fn agrees_with(flags: Option<&TcpFlags>) -> impl FnOnce(&Option<bool>, &()) -> garde::Result {
    move |established, ()| {
        let (Some(established), Some(flags)) = (*established, flags) else {
            return Ok(());
        };
        let acknowledges = |flag: &TcpFlag| matches!(flag, TcpFlag::Ack | TcpFlag::Rst);
        let contradicted = if established {
            flags.unset.contains(&TcpFlag::Ack) && flags.unset.contains(&TcpFlag::Rst)
        } else {
            flags.set.iter().any(acknowledges)
        };
        if !contradicted {
            return Ok(());
        }
        Err(refusal(
            "contradicts flags, so nothing matches: established means that Ack or Rst is set",
            "remove established, or these flags",
        ))
    }
}

impl PortRange {
    /// The last port matched; equal to `port` for a single one.
    pub fn last(&self) -> u16 {
        self.end_port.unwrap_or(self.port)
    }
}

/// TCP flags that must be set and that must not be.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crd_object)]
#[x_kube(validation = Rule::new("has(self.set) || has(self.unset)").message(
    "flags says nothing; give set or unset, or remove flags"
))]
#[x_kube(validation = Rule::new(
    "!has(self.set) || !has(self.unset) || !self.set.exists(f, f in self.unset)"
).message(
    "a flag cannot be both set and unset; remove it from one of the two"
))]
pub struct TcpFlags {
    /// Flags that must all be set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub set: Vec<TcpFlag>,

    /// Flags that must all be clear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub unset: Vec<TcpFlag>,
}

/// A flag of the TCP header.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TcpFlag {
    Fin,
    Syn,
    Rst,
    Psh,
    Ack,
    Urg,
    Ece,
    Cwr,
}

impl TcpFlag {
    /// The flag's bit in byte 13 of the TCP header.
    pub fn bit(self) -> u8 {
        match self {
            Self::Fin => 0x01,
            Self::Syn => 0x02,
            Self::Rst => 0x04,
            Self::Psh => 0x08,
            Self::Ack => 0x10,
            Self::Urg => 0x20,
            Self::Ece => 0x40,
            Self::Cwr => 0x80,
        }
    }
}
