//! Protocols and conversations that the node needs to live; which peers those are with is the
//! caller's part.

use headgate_layout::{
    LAYOUT_VERSION,
    failsafe::{ANSWERS, Peer},
    tables::Header,
};

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

const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What the failsafe asks of a packet's headers: one word, for the verifier walks what follows once
/// for each outcome of the parser that it can tell apart.
///
/// The source port in bits 16..32, the destination port below, of a whole TCP segment, else 0; then
/// the two flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim(u64);

/// The segment has ACK or RST set.
const ANSWERING: u64 = 1 << 32;
/// See [`needed_to_live`].
const NEEDED: u64 = 1 << 33;

impl Claim {
    /// What `packet` brings forward.
    #[inline(always)]
    #[must_use]
    pub fn of(packet: &Packet) -> Self {
        let Transport::Tcp {
            source_port,
            destination_port,
            flags,
        } = packet.transport
        else {
            return Self(if needed_to_live(packet) { NEEDED } else { 0 });
        };
        if packet.fragment != Fragment::Whole {
            return Self(0);
        }
        let answering = if flags & (ACK | RST) == 0 {
            0
        } else {
            ANSWERING
        };
        Self((u64::from(source_port) << 16) | u64::from(destination_port) | answering)
    }

    /// The same, given a header as all are. The verifier cannot know that it is such a one, and
    /// forgets what it knows of each outcome of the parser.
    #[inline(always)]
    #[must_use]
    pub fn blinded(self, header: &Header) -> Self {
        let nothing = u64::from(header.version ^ LAYOUT_VERSION);
        Self(self.0 ^ (nothing << 32 | nothing))
    }

    /// Whether it passes whoever sent it.
    #[inline(always)]
    #[must_use]
    pub fn needed(self) -> bool {
        self.0 & NEEDED != 0
    }

    /// Whether it passes from `peer`, whose address and family the caller has compared.
    #[inline(always)]
    #[must_use]
    pub fn granted_by(self, peer: &Peer) -> bool {
        if peer.everything != 0 {
            return true;
        }
        let (source, destination) = ((self.0 >> 16) as u16, self.0 as u16);
        let answering = self.0 & ANSWERING != 0;
        // What has no ports has 0 for both.
        destination != 0
            && peer.passages.iter().any(|passage| {
                let from = passage.source_port == 0 || passage.source_port == source;
                let to = passage.first <= destination && destination <= passage.last;
                from && to && (answering || passage.flags & ANSWERS == 0)
            })
    }
}

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
