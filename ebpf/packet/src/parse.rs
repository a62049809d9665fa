//! From the Ethernet header to the fields that rules ask for, once a packet.

use headgate_layout::verdict::Reason;
use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32, U64},
};

use crate::frame::Frame;

/// VLAN tags that are parsed through.
const MAX_VLAN_TAGS: u32 = 2;
/// IPv6 extension headers that are parsed through.
const MAX_EXTENSION_HEADERS: u32 = 8;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
const ETHERTYPE_QINQ: u16 = 0x9100;

/// IP protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
const PROTOCOL_SCTP: u8 = 132;

const NEXT_HOP_BY_HOP: u8 = 0;
const NEXT_ROUTING: u8 = 43;
const NEXT_FRAGMENT: u8 = 44;
const NEXT_DESTINATION_OPTIONS: u8 = 60;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EthernetHeader {
    addresses: [u8; 12],
    ethertype: U16,
}
/// Bytes of a link-layer header without VLAN tags.
pub const ETHERNET_LENGTH: u32 = size_of::<EthernetHeader>() as u32;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct VlanTag {
    control: U16,
    ethertype: U16,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ipv4Header {
    version_and_length: u8,
    traffic_class: u8,
    total_length: U16,
    identification: U16,
    flags_and_offset: U16,
    time_to_live: u8,
    protocol: u8,
    checksum: U16,
    source: U32,
    destination: U32,
}
const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
const IPV4_OFFSET: u16 = 0x1fff;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ipv6Header {
    version: u8,
    flow: [u8; 3],
    payload_length: U16,
    next_header: u8,
    hop_limit: u8,
    source: [U64; 2],
    destination: [U64; 2],
}
const IPV6_LENGTH: u32 = size_of::<Ipv6Header>() as u32;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ExtensionHeader {
    next_header: u8,
    /// In units of 8 bytes, the first 8 not counted; reserved in the fragment header.
    length: u8,
    fragment: U16,
    identification: U32,
}
const IPV6_MORE_FRAGMENTS: u16 = 1;
const IPV6_OFFSET: u16 = 0xfff8;

/// Minimal header of each protocol that has qualifiers: shorter is malformed.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TcpHeader {
    source: U16,
    destination: U16,
    sequence: [u8; 8],
    data_offset: u8,
    flags: u8,
    rest: [u8; 6],
}
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct UdpHeader {
    source: U16,
    destination: U16,
    length: U16,
    checksum: U16,
}
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SctpHeader {
    source: U16,
    destination: U16,
    tag: U32,
    checksum: U32,
}
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct IcmpHeader {
    kind: u8,
    code: u8,
    checksum: U16,
    rest: [u8; 4],
}
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Icmpv6Header {
    kind: u8,
    code: u8,
    checksum: U16,
}

/// Whether a packet is a piece of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Fragment {
    /// Not a fragment (an IPv6 atomic fragment, RFC 6946, counts as whole).
    Whole = 0,
    /// The first fragment: it has the transport header.
    First = 1,
    /// A later fragment: it has none.
    Later = 2,
}

/// Source and destination, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Source.
        source: u32,
        /// Destination.
        destination: u32,
    },
    /// IPv6, each as upper and lower half.
    V6 {
        /// Source.
        source: (u64, u64),
        /// Destination.
        destination: (u64, u64),
    },
}

/// Which transport header there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TransportKind {
    /// No header that rules ask for: another protocol, or a later fragment.
    None,
    /// A TCP segment.
    Tcp,
    /// A UDP datagram or an SCTP packet.
    Ports,
    /// An ICMP message over IPv4.
    Icmp,
    /// An ICMPv6 message over IPv6.
    Icmpv6,
}

/// What the transport header gives, in whole words that are always written, 0 where its kind has nothing:
/// older verifiers refuse to read what the compiler kept of a value without having written it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Which header it is.
    pub kind: TransportKind,
    /// Source port in the upper half, destination port in the lower.
    ports: u32,
    /// Flags or type.
    detail: u32,
}

impl Transport {
    /// No header that rules ask for.
    pub const NONE: Self = Self {
        kind: TransportKind::None,
        ports: 0,
        detail: 0,
    };

    /// A TCP segment.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(source_port: u16, destination_port: u16, flags: u8) -> Self {
        Self {
            kind: TransportKind::Tcp,
            detail: flags as u32,
            ..Self::ports(source_port, destination_port)
        }
    }

    /// A UDP datagram or an SCTP packet.
    #[inline(always)]
    #[must_use]
    pub const fn ports(source_port: u16, destination_port: u16) -> Self {
        Self {
            kind: TransportKind::Ports,
            ports: (source_port as u32) << 16 | destination_port as u32,
            detail: 0,
        }
    }

    /// An ICMP message of type `kind`.
    #[inline(always)]
    #[must_use]
    pub const fn icmp(kind: u8) -> Self {
        Self {
            kind: TransportKind::Icmp,
            detail: kind as u32,
            ..Self::NONE
        }
    }

    /// An ICMPv6 message of type `kind`.
    #[inline(always)]
    #[must_use]
    pub const fn icmpv6(kind: u8) -> Self {
        Self {
            kind: TransportKind::Icmpv6,
            detail: kind as u32,
            ..Self::NONE
        }
    }

    /// Source port in the upper half, destination port in the lower; 0 where there are none.
    #[inline(always)]
    #[must_use]
    pub const fn both_ports(self) -> u32 {
        self.ports
    }

    /// Source port; 0 where there are none.
    #[inline(always)]
    #[must_use]
    pub const fn source_port(self) -> u16 {
        (self.ports >> 16) as u16
    }

    /// Destination port; 0 where there are none.
    #[inline(always)]
    #[must_use]
    pub const fn destination_port(self) -> u16 {
        self.ports as u16
    }

    /// Of TCP the flags, CWR in the highest bit, FIN in the lowest; of ICMP and ICMPv6 the type.
    #[inline(always)]
    #[must_use]
    pub const fn detail(self) -> u8 {
        self.detail as u8
    }
}

/// The fields of an IP packet that rules ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source and destination.
    pub addresses: Addresses,
    /// The IP protocol; of IPv6 the next header behind the extension headers.
    pub protocol: u8,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// Fragment state.
    pub fragment: Fragment,
    /// Fields of the transport header.
    pub transport: Transport,
    /// Whether the transport header lies where it does without VLAN tags, IPv4 options and IPv6 extension
    /// headers.
    pub is_plain: bool,
    /// Bytes from the Ethernet header to the end of the IP packet.
    pub length: u32,
}

/// What the headers say of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// An IP packet.
    Ip(Packet),
}

/// Why a frame has no fields to judge; each is a [`Reason`] of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// See [`Reason::Malformed`].
    Malformed,
    /// See [`Reason::VlanDepth`].
    VlanDepth,
    /// See [`Reason::ExtensionHeaders`].
    ExtensionHeaders,
    /// See [`Reason::TcpFragmentOverlap`].
    TcpFragmentOverlap,
    /// See [`Reason::HeaderNotLinear`].
    HeaderNotLinear,
}

impl ParseError {
    /// The reason that is counted.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Malformed => Reason::Malformed,
            Self::VlanDepth => Reason::VlanDepth,
            Self::ExtensionHeaders => Reason::ExtensionHeaders,
            Self::TcpFragmentOverlap => Reason::TcpFragmentOverlap,
            Self::HeaderNotLinear => Reason::HeaderNotLinear,
        }
    }
}

/// Reads the headers of `frame`.
///
/// # Errors
/// A frame that cannot be judged by its fields; the error is the verdict's reason.
#[inline(always)]
pub fn parse<F: Frame + ?Sized>(frame: &F) -> Result<Parsed, ParseError> {
    let ethernet: &EthernetHeader = header_at(frame, 0)?;
    let mut ethertype = ethernet.ethertype.get();
    let mut offset = ETHERNET_LENGTH;
    let mut tags = 0;
    while is_vlan(ethertype) {
        if tags == MAX_VLAN_TAGS {
            return Err(ParseError::VlanDepth);
        }
        tags += 1;
        let tag: &VlanTag = header_at(frame, offset)?;
        ethertype = tag.ethertype.get();
        offset += size_of::<VlanTag>() as u32;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(frame, offset),
        ETHERTYPE_IPV6 => ipv6(frame, offset),
        _ => return Ok(Parsed::NotIp),
    }
    .map(Parsed::Ip)
}

#[inline(always)]
fn is_vlan(ethertype: u16) -> bool {
    matches!(
        ethertype,
        ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN | ETHERTYPE_QINQ
    )
}

#[inline(always)]
fn ipv4<F: Frame + ?Sized>(frame: &F, start: u32) -> Result<Packet, ParseError> {
    let header: &Ipv4Header = header_at(frame, start)?;
    let header_length = u32::from(header.version_and_length & 0xf) * 4;
    let total_length = u32::from(header.total_length.get());
    let end = start + total_length;
    if header.version_and_length >> 4 != 4
        || header_length < size_of::<Ipv4Header>() as u32
        || total_length < header_length
        || !frame.holds(end)
    {
        return Err(ParseError::Malformed);
    }
    let fragment_field = header.flags_and_offset.get();
    let fragment = match fragment_field & (IPV4_OFFSET | IPV4_MORE_FRAGMENTS) {
        0 => Fragment::Whole,
        IPV4_MORE_FRAGMENTS => Fragment::First,
        _ => Fragment::Later,
    };
    let protocol = header.protocol;
    if protocol == PROTOCOL_TCP && fragment_field & IPV4_OFFSET == 1 {
        return Err(ParseError::TcpFragmentOverlap);
    }
    let transport = match (fragment, protocol) {
        (Fragment::Later, _) => Transport::NONE,
        (_, PROTOCOL_ICMP) => icmp(frame, start + header_length, end)?,
        _ => ports(frame, start + header_length, end, protocol)?,
    };
    Ok(Packet {
        addresses: Addresses::V4 {
            source: header.source.get(),
            destination: header.destination.get(),
        },
        protocol,
        hop_limit: header.time_to_live,
        fragment,
        transport,
        is_plain: start == ETHERNET_LENGTH && header_length == size_of::<Ipv4Header>() as u32,
        length: end,
    })
}

#[inline(always)]
fn ipv6<F: Frame + ?Sized>(frame: &F, start: u32) -> Result<Packet, ParseError> {
    let header: &Ipv6Header = header_at(frame, start)?;
    let end = start + IPV6_LENGTH + u32::from(header.payload_length.get());
    if header.version >> 4 != 6 || !frame.holds(end) {
        return Err(ParseError::Malformed);
    }
    let mut protocol = header.next_header;
    let mut offset = start + IPV6_LENGTH;
    let mut fragment = Fragment::Whole;
    if is_extension(protocol) {
        (protocol, offset, fragment) = extensions(frame, protocol, offset, end)?;
    }
    let transport = match (fragment, protocol) {
        (Fragment::Later, _) => Transport::NONE,
        (_, PROTOCOL_ICMPV6) => icmpv6(frame, offset, end)?,
        _ => ports(frame, offset, end, protocol)?,
    };
    Ok(Packet {
        addresses: Addresses::V6 {
            source: (header.source[0].get(), header.source[1].get()),
            destination: (header.destination[0].get(), header.destination[1].get()),
        },
        protocol,
        hop_limit: header.hop_limit,
        fragment,
        transport,
        is_plain: start == ETHERNET_LENGTH && !is_extension(header.next_header),
        length: end,
    })
}

#[inline(always)]
fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        NEXT_HOP_BY_HOP | NEXT_ROUTING | NEXT_FRAGMENT | NEXT_DESTINATION_OPTIONS
    )
}

/// Walks the extension headers: the protocol behind them, its offset, the fragment state. A later
/// fragment ends the walk: what follows is no header.
#[inline(always)]
fn extensions<F: Frame + ?Sized>(
    frame: &F,
    first: u8,
    start: u32,
    end: u32,
) -> Result<(u8, u32, Fragment), ParseError> {
    let mut next_header = first;
    let mut offset = start;
    let mut fragment = Fragment::Whole;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let header: &ExtensionHeader = within(frame, offset, end)?;
        let this = next_header;
        next_header = header.next_header;
        if this == NEXT_FRAGMENT {
            offset += size_of::<ExtensionHeader>() as u32;
            match header.fragment.get() & (IPV6_OFFSET | IPV6_MORE_FRAGMENTS) {
                0 => {}
                IPV6_MORE_FRAGMENTS => fragment = Fragment::First,
                _ => return Ok((next_header, offset, Fragment::Later)),
            }
        } else {
            offset += (u32::from(header.length) + 1) * 8;
            if offset > end {
                return Err(ParseError::Malformed);
            }
        }
        if !is_extension(next_header) {
            return Ok((next_header, offset, fragment));
        }
    }
    Err(ParseError::ExtensionHeaders)
}

#[inline(always)]
fn ports<F: Frame + ?Sized>(
    frame: &F,
    offset: u32,
    end: u32,
    protocol: u8,
) -> Result<Transport, ParseError> {
    match protocol {
        PROTOCOL_TCP => {
            let header: &TcpHeader = within(frame, offset, end)?;
            let header_length = u32::from(header.data_offset >> 4) * 4;
            if header_length < size_of::<TcpHeader>() as u32 || offset + header_length > end {
                return Err(ParseError::Malformed);
            }
            Ok(Transport::tcp(
                header.source.get(),
                header.destination.get(),
                header.flags,
            ))
        }
        PROTOCOL_UDP => {
            let header: &UdpHeader = within(frame, offset, end)?;
            Ok(Transport::ports(
                header.source.get(),
                header.destination.get(),
            ))
        }
        PROTOCOL_SCTP => {
            let header: &SctpHeader = within(frame, offset, end)?;
            Ok(Transport::ports(
                header.source.get(),
                header.destination.get(),
            ))
        }
        _ => Ok(Transport::NONE),
    }
}

#[inline(always)]
fn icmp<F: Frame + ?Sized>(frame: &F, offset: u32, end: u32) -> Result<Transport, ParseError> {
    let header: &IcmpHeader = within(frame, offset, end)?;
    Ok(Transport::icmp(header.kind))
}

#[inline(always)]
fn icmpv6<F: Frame + ?Sized>(frame: &F, offset: u32, end: u32) -> Result<Transport, ParseError> {
    let header: &Icmpv6Header = within(frame, offset, end)?;
    Ok(Transport::icmpv6(header.kind))
}

/// The header at `offset`; malformed where the frame is too short for it.
#[inline(always)]
fn header_at<T: crate::frame::WireType, F: Frame + ?Sized>(
    frame: &F,
    offset: u32,
) -> Result<&T, ParseError> {
    match frame.at(offset) {
        Some(header) => Ok(header),
        None if frame.holds(offset + size_of::<T>() as u32) => Err(ParseError::HeaderNotLinear),
        None => Err(ParseError::Malformed),
    }
}

/// The header at `offset` of a packet that ends at `end`, which the frame is known to hold.
#[inline(always)]
fn within<T: crate::frame::WireType, F: Frame + ?Sized>(
    frame: &F,
    offset: u32,
    end: u32,
) -> Result<&T, ParseError> {
    if offset + size_of::<T>() as u32 > end {
        return Err(ParseError::Malformed);
    }
    frame.at(offset).ok_or(ParseError::HeaderNotLinear)
}
