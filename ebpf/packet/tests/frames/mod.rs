//! Frames made of bytes, header by header; what is not said is as an ordinary sender would have it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::{Ipv4Addr, Ipv6Addr};

use headgate_packet::frame::{Frame, WireType};

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const VLAN: u16 = 0x8100;
pub const SERVICE_VLAN: u16 = 0x88a8;
pub const QINQ: u16 = 0x9100;
pub const ARP: u16 = 0x0806;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const GRE: u8 = 47;
pub const ESP: u8 = 50;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;

pub const MORE_FRAGMENTS: u16 = 0x2000;

/// An Ethernet header, a VLAN tag of each type in `tags`, and `payload` of type `ethertype`.
pub fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for (index, tag) in tags.iter().enumerate() {
        frame.extend(tag.to_be_bytes());
        frame.extend((100 + index as u16).to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 header.
#[derive(Clone, Debug)]
pub struct Ipv4 {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub protocol: u8,
    pub time_to_live: u8,
    /// Flags in the upper three bits, offset in units of 8 bytes in the lower thirteen.
    pub fragment: u16,
    /// A multiple of 4 bytes, at most 40.
    pub options: Vec<u8>,
}

impl Default for Ipv4 {
    fn default() -> Self {
        Self {
            source: Ipv4Addr::new(192, 0, 2, 1),
            destination: Ipv4Addr::new(198, 51, 100, 2),
            protocol: UDP,
            time_to_live: 64,
            fragment: 0,
            options: Vec::new(),
        }
    }
}

impl Ipv4 {
    /// The packet that carries `payload`.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut packet = vec![0x40 | (header / 4) as u8, 0];
        packet.extend(((header + payload.len()) as u16).to_be_bytes());
        packet.extend([0, 7]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([self.time_to_live, self.protocol, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(&self.options);
        packet.extend(payload);
        packet
    }

    /// The packet in an Ethernet frame.
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        ethernet(&[], IPV4, &self.packet(payload))
    }
}

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug)]
pub enum Extension {
    /// Hop-by-hop options of so many units of 8 bytes beyond the first.
    HopByHop(u8),
    /// A routing header, likewise.
    Routing(u8),
    /// Destination options, likewise.
    Destination(u8),
    /// A fragment header; the offset is in units of 8 bytes.
    Fragment { offset: u16, more: bool },
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing(_) => 43,
            Self::Destination(_) => 60,
            Self::Fragment { .. } => 44,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop(units) | Self::Routing(units) | Self::Destination(units) => {
                let mut bytes = vec![0; (usize::from(units) + 1) * 8];
                (bytes[0], bytes[1]) = (next, units);
                bytes
            }
            Self::Fragment { offset, more } => {
                let field = (offset << 3) | u16::from(more);
                let [high, low] = field.to_be_bytes();
                // The second byte is reserved: it must not be taken for a length.
                vec![next, 0xff, high, low, 0, 0, 0, 7]
            }
        }
    }
}

/// An IPv6 header and its extension headers.
#[derive(Clone, Debug)]
pub struct Ipv6 {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    pub protocol: u8,
    pub hop_limit: u8,
    pub extensions: Vec<Extension>,
}

impl Default for Ipv6 {
    fn default() -> Self {
        Self {
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8:0:0:1::2".parse().unwrap(),
            protocol: UDP,
            hop_limit: 64,
            extensions: Vec::new(),
        }
    }
}

impl Ipv6 {
    /// The packet that carries `payload`.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let numbers = self.extensions.iter().map(|extension| extension.number());
        let mut next = numbers.chain([self.protocol]);
        let first = next.next().unwrap();
        let mut body = Vec::new();
        for (extension, next) in self.extensions.iter().zip(next) {
            body.extend(extension.bytes(next));
        }
        body.extend(payload);

        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((body.len() as u16).to_be_bytes());
        packet.extend([first, self.hop_limit]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(body);
        packet
    }

    /// The packet in an Ethernet frame.
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        ethernet(&[], IPV6, &self.packet(payload))
    }
}

/// A TCP header without options.
pub fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut header = two_ports(source, destination);
    header.resize(20, 0);
    header[12] = 5 << 4;
    header[13] = flags;
    header
}

/// A UDP header without data.
pub fn udp(source: u16, destination: u16) -> Vec<u8> {
    let mut header = two_ports(source, destination);
    header.extend([0, 8, 0, 0]);
    header
}

/// An SCTP header without chunks.
pub fn sctp(source: u16, destination: u16) -> Vec<u8> {
    let mut header = two_ports(source, destination);
    header.resize(12, 0);
    header
}

/// The shortest ICMP message.
pub fn icmp(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0, 0, 0, 0, 0]
}

/// The shortest ICMPv6 message.
pub fn icmpv6(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0]
}

fn two_ports(source: u16, destination: u16) -> Vec<u8> {
    [source.to_be_bytes(), destination.to_be_bytes()].concat()
}

/// A frame in several buffers, of which only the first can be read.
pub struct MultiBuffer<'a> {
    pub bytes: &'a [u8],
    pub first_buffer: usize,
}

impl Frame for MultiBuffer<'_> {
    fn at<T: WireType>(&self, offset: u32) -> Option<&T> {
        let rest = self.bytes[..self.first_buffer].get(offset as usize..)?;
        T::ref_from_prefix(rest).ok().map(|(value, _)| value)
    }

    fn linear_length(&self) -> u32 {
        self.first_buffer as u32
    }

    fn full_length(&self) -> u32 {
        self.bytes.len() as u32
    }
}
