//! Protocols that the node needs to live; peers are the caller's part.

use crate::parse::{Addresses, Fragment, PROTOCOL_ICMPV6, PROTOCOL_UDP, Packet, Transport};

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_CLIENT: u16 = 546;
const DHCPV6_SERVER: u16 = 547;
/// Upper 10 bits of fe80::/10.
const LINK_LOCAL: u64 = 0xfe80 >> 6;
/// Router solicitation to redirect (RFC 4861, section 4).
const NDP_FIRST: u8 = 133;
const NDP_LAST: u8 = 137;
/// What no router leaves standing: proof that the sender is on the link (RFC 4861, section 6.1).
const NDP_HOP_LIMIT: u8 = 255;

/// Whether `packet` is an answer by DHCP or DHCPv6, or neighbour discovery.
#[inline(always)]
#[must_use]
pub fn needed_to_live(packet: &Packet) -> bool {
    if packet.fragment != Fragment::Whole {
        return false;
    }
    match (packet.transport, packet.addresses) {
        (
            Transport::Ports {
                source_port,
                destination_port,
            },
            addresses,
        ) if packet.protocol == PROTOCOL_UDP => match addresses {
            Addresses::V4 { .. } => source_port == DHCP_SERVER && destination_port == DHCP_CLIENT,
            Addresses::V6 { source, .. } => {
                source_port == DHCPV6_SERVER
                    && destination_port == DHCPV6_CLIENT
                    && source.0 >> 54 == LINK_LOCAL
            }
        },
        (Transport::Icmpv6 { kind }, _) if packet.protocol == PROTOCOL_ICMPV6 => {
            (NDP_FIRST..=NDP_LAST).contains(&kind) && packet.hop_limit == NDP_HOP_LIMIT
        }
        _ => false,
    }
}
