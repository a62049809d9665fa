//! What one alternative of a rule asks of the headers behind the addresses.

use headgate_crds::{Fragments, IcmpMatch, PortRange, Protocol, TcpFlags};
use headgate_layout::tables::Detail;
use headgate_packet::parse::Fragment;

/// Protocol of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum L4Protocol {
    /// Any.
    Any,
    /// This protocol number over either family.
    Number(u8),
    /// ICMP over IPv4.
    Icmp,
    /// ICMPv6 over IPv6.
    Icmpv6,
}

/// Ranges of ports with both ends; empty: any.
pub type PortRanges = Vec<(u16, u16)>;

/// One alternative.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Term {
    protocol: L4Protocol,
    fragment: Option<Fragment>,
    source_ports: PortRanges,
    destination_ports: PortRanges,
    flags_set: u8,
    flags_unset: u8,
    established: Option<bool>,
    types: Vec<u8>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// ACK or RST.
const ESTABLISHED: u8 = 0x14;

impl Term {
    /// A term that any packet in this fragment state satisfies.
    #[must_use]
    pub fn any(fragments: Option<Fragments>) -> Self {
        Self::of(L4Protocol::Any, fragments)
    }

    /// The term of one entry of a rule's `protocols`.
    #[must_use]
    pub fn new(protocol: &Protocol, fragments: Option<Fragments>) -> Self {
        match protocol {
            Protocol::Tcp(tcp) => {
                let flags = tcp.flags.clone().unwrap_or_default();
                Self {
                    flags_set: bits(&flags, |flags| &flags.set),
                    flags_unset: bits(&flags, |flags| &flags.unset),
                    established: tcp.established,
                    ..Self::with_ports(TCP, fragments, &tcp.ports, &tcp.source_ports)
                }
            }
            Protocol::Udp(udp) => Self::with_ports(UDP, fragments, &udp.ports, &udp.source_ports),
            Protocol::Sctp(sctp) => {
                Self::with_ports(SCTP, fragments, &sctp.ports, &sctp.source_ports)
            }
            Protocol::Icmp(icmp) => Self::with_types(L4Protocol::Icmp, fragments, icmp),
            Protocol::Icmpv6(icmp) => Self::with_types(L4Protocol::Icmpv6, fragments, icmp),
            Protocol::Number(number) => Self::of(L4Protocol::Number(*number), fragments),
        }
    }

    /// The term of what is sent to one port of TCP or UDP.
    #[must_use]
    pub fn to_port(protocol: u8, port: u16) -> Self {
        Self {
            destination_ports: vec![(port, port)],
            ..Self::of(L4Protocol::Number(protocol), None)
        }
    }

    fn of(protocol: L4Protocol, fragments: Option<Fragments>) -> Self {
        Self {
            protocol,
            fragment: fragments.map(|fragments| match fragments {
                Fragments::First => Fragment::First,
                Fragments::Later => Fragment::Later,
            }),
            source_ports: Vec::new(),
            destination_ports: Vec::new(),
            flags_set: 0,
            flags_unset: 0,
            established: None,
            types: Vec::new(),
        }
    }

    fn with_ports(
        number: u8,
        fragments: Option<Fragments>,
        ports: &Option<Vec<PortRange>>,
        source_ports: &Option<Vec<PortRange>>,
    ) -> Self {
        Self {
            destination_ports: ranges(ports),
            source_ports: ranges(source_ports),
            ..Self::of(L4Protocol::Number(number), fragments)
        }
    }

    fn with_types(protocol: L4Protocol, fragments: Option<Fragments>, icmp: &IcmpMatch) -> Self {
        let mut types = icmp.types.clone().unwrap_or_default();
        types.sort_unstable();
        types.dedup();
        Self {
            types,
            ..Self::of(protocol, fragments)
        }
    }

    /// Destination ports; empty: any.
    #[must_use]
    pub fn destination_ports(&self) -> &[(u16, u16)] {
        &self.destination_ports
    }

    /// Source ports; empty: any.
    #[must_use]
    pub fn source_ports(&self) -> &[(u16, u16)] {
        &self.source_ports
    }

    /// Whether it tells protocols, families or fragments apart.
    #[must_use]
    pub fn asks_for_kind(&self) -> bool {
        self.protocol != L4Protocol::Any || self.fragment.is_some()
    }

    /// Whether it asks for TCP flags or ICMP types.
    #[must_use]
    pub fn asks_for_detail(&self) -> bool {
        (self.flags_set | self.flags_unset) != 0
            || self.established.is_some()
            || !self.types.is_empty()
    }

    fn asks_for_header(&self) -> bool {
        self.asks_for_detail()
            || !self.source_ports.is_empty()
            || !self.destination_ports.is_empty()
    }

    /// Whether a packet of this kind satisfies it, ports aside. `detail` is the flags byte or the
    /// type where the protocol has one and the packet its header.
    #[must_use]
    pub fn takes(&self, is_v6: bool, fragment: Fragment, protocol: u8, detail: Option<u8>) -> bool {
        let fragments = self.fragment.is_none_or(|wanted| wanted == fragment);
        let header = !self.asks_for_header() || fragment != Fragment::Later;
        fragments && header && self.takes_protocol(is_v6, protocol) && self.takes_detail(detail)
    }

    fn takes_protocol(&self, is_v6: bool, protocol: u8) -> bool {
        match self.protocol {
            L4Protocol::Any => true,
            L4Protocol::Number(number) => protocol == number,
            L4Protocol::Icmp => !is_v6 && protocol == ICMP,
            L4Protocol::Icmpv6 => is_v6 && protocol == ICMPV6,
        }
    }

    fn takes_detail(&self, detail: Option<u8>) -> bool {
        if !self.asks_for_detail() {
            return true;
        }
        let Some(detail) = detail else {
            return false;
        };
        let established = (detail & ESTABLISHED) != 0;
        detail & self.flags_set == self.flags_set
            && detail & self.flags_unset == 0
            && self.established.is_none_or(|wanted| wanted == established)
            && (self.types.is_empty() || self.types.contains(&detail))
    }
}

/// The protocol number and family that a detail belongs to.
#[must_use]
pub fn protocol_of(detail: Detail) -> (u8, bool) {
    match detail {
        // Terms treat TCP alike over both families.
        Detail::Tcp => (TCP, false),
        Detail::Icmp => (ICMP, false),
        Detail::Icmpv6 => (ICMPV6, true),
    }
}

fn ranges(ports: &Option<Vec<PortRange>>) -> PortRanges {
    let ports = ports.iter().flatten();
    ports.map(|range| (range.port, range.last())).collect()
}

fn bits(flags: &TcpFlags, side: impl Fn(&TcpFlags) -> &Vec<headgate_crds::TcpFlag>) -> u8 {
    side(flags).iter().fold(0, |bits, flag| bits | flag.bit())
}
