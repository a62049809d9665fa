//! Protocols and conversations that the node needs to live; which peers those are with is the
//! caller's part.

use headgate_layout::failsafe::Peer;

use crate::parse::{Addresses, Fragment, PROTOCOL_ICMPV6, PROTOCOL_UDP, Packet, TransportKind};

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

/// What the failsafe asks of a packet's headers, in one word that is cheap to carry past the tables.
///
/// Of a whole TCP segment the destination port in the lower half, and in the upper half the source
/// port where the segment has ACK or RST, so that no other is taken for a reply. Else no destination,
/// and [`NEEDED`] or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim(u32);

/// See [`needed_to_live`]. No segment looks like this: port 0 as a destination claims nothing.
const NEEDED: u32 = 1 << 16;

impl Claim {
    /// What `packet` brings forward.
    #[inline(always)]
    #[must_use]
    pub fn of(packet: &Packet) -> Self {
        let transport = packet.transport;
        if transport.kind != TransportKind::Tcp {
            return Self(if needed_to_live(packet) { NEEDED } else { 0 });
        }
        if packet.fragment != Fragment::Whole || transport.destination_port() == 0 {
            return Self(0);
        }
        let source = if transport.detail() & (ACK | RST) == 0 {
            0
        } else {
            u32::from(transport.source_port())
        };
        Self(source << 16 | u32::from(transport.destination_port()))
    }

    /// In a word, and [`Self::from_word`] back.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u32 {
        self.0
    }

    /// See [`Self::to_word`].
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// Whether it passes whoever sent it.
    #[inline(always)]
    #[must_use]
    pub fn needed(self) -> bool {
        self.0 == NEEDED
    }

    /// Whether it passes from `peer`, whose address and family the caller has compared.
    #[inline(always)]
    #[must_use]
    pub fn granted_by(self, peer: &Peer) -> bool {
        if peer.everything != 0 {
            return true;
        }
        let (source, destination) = ((self.0 >> 16) as u16, self.0 as u16);
        destination != 0
            && peer.passages.iter().any(|passage| {
                let from = passage.source_port == 0 || passage.source_port == source;
                from && passage.first <= destination && destination <= passage.last
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
    let ports = (
        packet.transport.source_port(),
        packet.transport.destination_port(),
    );
    match (packet.transport.kind, packet.addresses) {
        (TransportKind::Ports, addresses) if packet.protocol == PROTOCOL_UDP => match addresses {
            Addresses::V4 { .. } => ports == (DHCP_SERVER, DHCP_CLIENT),
            Addresses::V6 { source, .. } => {
                ports == (DHCPV6_SERVER, DHCPV6_CLIENT) && source.0 >> 54 == LINK_LOCAL
            }
        },
        (TransportKind::Icmpv6, _) if packet.protocol == PROTOCOL_ICMPV6 => {
            (NDP_FIRST..=NDP_LAST).contains(&packet.transport.detail())
                && packet.hop_limit == NDP_HOP_LIMIT
        }
        _ => false,
    }
}
