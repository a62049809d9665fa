//! Headers as they lie in a frame, and what changing them does to checksums.

use headgate_layout::services::{LinkAddresses, mapped};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    byteorder::{
        little_endian,
        network_endian::{U16, U32, U64},
    },
};

use headgate_layout::verdict::Reason;

use crate::{
    flows::Ends,
    frame::{Frame, FrameMut},
    parse::{
        ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
        PROTOCOL_TCP, PROTOCOL_UDP,
    },
};

/// A link-layer header without VLAN tags.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LinkHeader {
    pub(crate) addresses: [little_endian::U32; 3],
    pub(crate) ethertype: U16,
}

impl LinkHeader {
    #[inline(always)]
    pub(crate) fn addresses(&self) -> LinkAddresses {
        LinkAddresses(self.addresses.map(little_endian::U32::get))
    }

    #[inline(always)]
    pub(crate) fn set_addresses(&mut self, addresses: LinkAddresses) {
        self.addresses = addresses.0.map(little_endian::U32::new);
    }
}

/// An IPv4 header without options.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Ipv4Header {
    pub(crate) version_and_length: u8,
    pub(crate) traffic_class: u8,
    pub(crate) total_length: U16,
    pub(crate) identification: U16,
    pub(crate) fragment: U16,
    pub(crate) time_to_live: u8,
    pub(crate) protocol: u8,
    pub(crate) checksum: U16,
    pub(crate) source: U32,
    pub(crate) destination: U32,
}
pub(crate) const IPV4_WITHOUT_OPTIONS: u8 = 0x45;
/// "More fragments", and the offset.
pub(crate) const IPV4_FRAGMENT: u16 = 0x3fff;
/// The offset alone.
pub(crate) const IPV4_OFFSET: u16 = 0x1fff;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Ipv6Header {
    pub(crate) version_and_flow: U32,
    pub(crate) payload_length: U16,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) source: [U64; 2],
    pub(crate) destination: [U64; 2],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct TcpHeader {
    pub(crate) source: U16,
    pub(crate) destination: U16,
    pub(crate) sequence: U32,
    pub(crate) acknowledgement: U32,
    pub(crate) data_offset: u8,
    pub(crate) flags: u8,
    pub(crate) window: U16,
    pub(crate) checksum: U16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct UdpHeader {
    pub(crate) source: U16,
    pub(crate) destination: U16,
    pub(crate) length: U16,
    pub(crate) checksum: U16,
}

/// The header of ICMP and ICMPv6, with the word that every message has.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct IcmpHeader {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) checksum: U16,
    pub(crate) rest: U32,
}
/// Bytes of an ICMP header.
pub(crate) const ICMP_LENGTH: u32 = size_of::<IcmpHeader>() as u32;

/// IP version of a frame whose transport header lies where it does without VLAN tags, IPv4 options and
/// IPv6 extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V6,
}

impl Version {
    #[inline(always)]
    pub(crate) fn of<F: Frame + ?Sized>(frame: &F) -> Option<Result<Self, Reason>> {
        let link: &LinkHeader = frame.at(0)?;
        match link.ethertype.get() {
            ETHERTYPE_IPV4 => {
                let header: &Ipv4Header = frame.at(ETHERNET_LENGTH)?;
                Some(match header.version_and_length {
                    IPV4_WITHOUT_OPTIONS => Ok(Self::V4),
                    _ => Err(Reason::HeaderOptions),
                })
            }
            ETHERTYPE_IPV6 => {
                let header: &Ipv6Header = frame.at(ETHERNET_LENGTH)?;
                Some(match header.next_header {
                    PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_ICMPV6 => Ok(Self::V6),
                    _ => Err(Reason::HeaderOptions),
                })
            }
            _ => None,
        }
    }

    /// Bytes of the IP header.
    pub(crate) const fn header_length(self) -> u32 {
        match self {
            Self::V4 => size_of::<Ipv4Header>() as u32,
            Self::V6 => size_of::<Ipv6Header>() as u32,
        }
    }

    pub(crate) const fn ethertype(self) -> u16 {
        match self {
            Self::V4 => ETHERTYPE_IPV4,
            Self::V6 => ETHERTYPE_IPV6,
        }
    }

    /// Its protocol for errors.
    pub(crate) const fn icmp(self) -> u8 {
        match self {
            Self::V4 => PROTOCOL_ICMP,
            Self::V6 => PROTOCOL_ICMPV6,
        }
    }

    /// Where the transport header lies.
    pub(crate) const fn transport(self) -> u32 {
        ETHERNET_LENGTH + self.header_length()
    }
}

/// Source, destination and protocol of the IP header at `offset`, with ports 0.
#[inline(always)]
pub(crate) fn addresses<F: Frame + ?Sized>(
    frame: &F,
    version: Version,
    offset: u32,
) -> Option<Ends> {
    let (source, destination, protocol) = match version {
        Version::V4 => {
            let header: &Ipv4Header = frame.at(offset)?;
            let source = mapped(header.source.get());
            (source, mapped(header.destination.get()), header.protocol)
        }
        Version::V6 => {
            let header: &Ipv6Header = frame.at(offset)?;
            let words = |address: &[U64; 2]| [address[0].get(), address[1].get()];
            let destination = words(&header.destination);
            (words(&header.source), destination, header.next_header)
        }
    };
    Some(Ends {
        source,
        destination,
        source_port: 0,
        destination_port: 0,
        protocol,
    })
}

/// Whether an address is one that may be answered: not nobody's, and no group's.
#[inline(always)]
pub(crate) fn is_one_host(version: Version, address: &[u64; 2]) -> bool {
    match version {
        // 0.0.0.0/8, 224.0.0.0/3.
        Version::V4 => !matches!((address[1] as u32) >> 24, 0 | 224..),
        Version::V6 => address[0] >> 56 != 0xff && *address != [0, 0],
    }
}

/// Puts the addresses of `new` in the place of those of `old` in the IP header at `offset`, notes that in
/// `change`, and mends the header's own checksum.
#[inline(always)]
pub(crate) fn set_addresses<F: FrameMut + ?Sized>(
    frame: &mut F,
    version: Version,
    offset: u32,
    old: &Ends,
    new: &Ends,
    change: &mut Change,
) -> Option<()> {
    match version {
        Version::V4 => {
            change.word(old.source[1] as u32, new.source[1] as u32);
            change.word(old.destination[1] as u32, new.destination[1] as u32);
            let header: &mut Ipv4Header = frame.at_mut(offset)?;
            header.source.set(new.source[1] as u32);
            header.destination.set(new.destination[1] as u32);
            header.checksum.set(change.applied(header.checksum.get()));
        }
        Version::V6 => {
            change.address(&old.source, &new.source);
            change.address(&old.destination, &new.destination);
            let header: &mut Ipv6Header = frame.at_mut(offset)?;
            header.source = new.source.map(U64::new);
            header.destination = new.destination.map(U64::new);
        }
    }
    Some(())
}

/// What a checksum has to follow: the sum of all that goes, inverted, and of all that comes (RFC 1624,
/// equation 3).
#[derive(Clone, Copy, Default)]
pub(crate) struct Change(u64);

impl Change {
    /// These 32 bits go and those come.
    #[inline(always)]
    pub(crate) fn word(&mut self, old: u32, new: u32) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    #[inline(always)]
    fn address(&mut self, old: &[u64; 2], new: &[u64; 2]) {
        for (old, new) in old.iter().zip(new) {
            self.word((old >> 32) as u32, (new >> 32) as u32);
            self.word(*old as u32, *new as u32);
        }
    }

    /// The checksum that was `checksum`.
    #[inline(always)]
    pub(crate) fn applied(self, checksum: u16) -> u16 {
        let sum = u64::from(!checksum) + self.0;
        let sum = (sum & 0xffff_ffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }

    /// Both.
    #[inline(always)]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// These 32 bits come, and nothing goes: with [`Self::fresh`], a checksum is reckoned from the beginning.
    #[inline(always)]
    pub(crate) fn add(&mut self, word: u32) {
        self.0 += u64::from(word);
    }

    /// The same of an address of IPv6.
    #[inline(always)]
    pub(crate) fn add_address(&mut self, address: &[u64; 2]) {
        for half in address {
            self.add((half >> 32) as u32);
            self.add(*half as u32);
        }
    }

    /// The checksum of all that was added.
    #[inline(always)]
    pub(crate) fn fresh(self) -> u16 {
        self.applied(0xffff)
    }
}

/// Both ports in a word, as a header begins with them.
#[inline(always)]
pub(crate) fn ports(ends: &Ends) -> u32 {
    u32::from(ends.source_port) << 16 | u32::from(ends.destination_port)
}
