//! Ethernet frames, each of which is told from all others at the far end.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
};

use etherparse::{IpHeaders, IpNumber, PacketBuilder, PacketBuilderStep, TcpHeader};

/// Length of an Ethernet header.
const ETHERNET: usize = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
/// For experiments (RFC 5342): nobody else's.
const LOCAL: u16 = 0x88b5;
const VLAN: u16 = 0x8100;

/// Extension headers, by their number.
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

const MAGIC: [u8; 8] = *b"headgate";

/// Names one frame: the last bytes of it, whatever stands before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream(u32);

impl Stream {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn mark(self) -> [u8; 12] {
        let mut mark = [0; 12];
        mark[..8].copy_from_slice(&MAGIC);
        mark[8..].copy_from_slice(&self.0.to_be_bytes());
        mark
    }

    /// The stream of a frame that was seen, or `None` where it is not one of these.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (rest, number) = frame.split_last_chunk()?;
        rest.ends_with(&MAGIC)
            .then(|| Self(u32::from_be_bytes(*number)))
    }
}

/// A frame to send.
#[derive(Clone, Debug)]
pub struct Frame {
    /// All of it; where the destination is all zeros, it is filled in when it is sent.
    pub bytes: Vec<u8>,
    /// Its name at the far end.
    pub stream: Stream,
    /// In words.
    pub what: String,
}

/// A UDP datagram between two `ADDRESS:PORT`s.
#[must_use]
pub fn udp(from: &str, to: &str) -> Frame {
    let (from, to) = (socket(from), socket(to));
    let step = ip(from.ip(), to.ip()).udp(from.port(), to.port());
    let stream = Stream::new();
    let mut bytes = Vec::new();
    step.write(&mut bytes, &stream.mark())
        .expect("memory takes everything");
    frame(bytes, stream, format!("UDP {from} -> {to}"))
}

/// A TCP segment between two `ADDRESS:PORT`s; `flags` by their first letters.
#[must_use]
pub fn tcp(from: &str, to: &str, flags: &str) -> Frame {
    let (from, to) = (socket(from), socket(to));
    let mut header = TcpHeader::new(from.port(), to.port(), 1, 1024);
    header.syn = flags.contains('S');
    header.ack = flags.contains('A');
    header.rst = flags.contains('R');
    header.fin = flags.contains('F');
    header.psh = flags.contains('P');
    let step = ip(from.ip(), to.ip()).tcp_header(header);
    let stream = Stream::new();
    let mut bytes = Vec::new();
    step.write(&mut bytes, &stream.mark())
        .expect("memory takes everything");
    frame(bytes, stream, format!("TCP {flags} {from} -> {to}"))
}

/// An ICMP or ICMPv6 message of this type, by the addresses' family.
#[must_use]
pub fn icmp(kind: u8, from: &str, to: &str) -> Frame {
    let (from, to) = (address(from), address(to));
    let stream = Stream::new();
    let mut bytes = Vec::new();
    let answer = if from.is_ipv4() {
        let step = ip(from, to).icmpv4_raw(kind, 0, [0; 4]);
        step.write(&mut bytes, &stream.mark())
    } else {
        let step = ip(from, to).icmpv6_raw(kind, 0, [0; 4]);
        step.write(&mut bytes, &stream.mark())
    };
    answer.expect("memory takes everything");
    frame(bytes, stream, format!("ICMP type {kind} {from} -> {to}"))
}

/// A packet of any IP protocol, such as 47 (GRE) or 50 (ESP).
#[must_use]
pub fn protocol(number: u8, from: &str, to: &str) -> Frame {
    let (from, to) = (address(from), address(to));
    let stream = Stream::new();
    let mut bytes = Vec::new();
    let step = ip(from, to);
    step.write(&mut bytes, IpNumber(number), &stream.mark())
        .expect("memory takes everything");
    frame(bytes, stream, format!("protocol {number} {from} -> {to}"))
}

/// An ARP request to everybody.
#[must_use]
pub fn arp() -> Frame {
    not_ip("ARP", [0xff; 6], ARP)
}

/// A frame by LLDP.
#[must_use]
pub fn lldp() -> Frame {
    not_ip("LLDP", [0x01, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc)
}

/// A frame that no policy concerns and nobody answers.
#[must_use]
pub fn beacon() -> Frame {
    not_ip("beacon", [0; 6], LOCAL)
}

fn not_ip(what: &str, destination: [u8; 6], ethertype: u16) -> Frame {
    let stream = Stream::new();
    let mut bytes = destination.to_vec();
    bytes.extend([0; 6]);
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend([0; 28]);
    bytes.extend(stream.mark());
    frame(bytes, stream, what.to_owned())
}

impl Frame {
    fn and(mut self, what: &str) -> Self {
        self.what = format!("{}, {what}", self.what);
        self
    }

    /// The same under this many VLAN tags.
    #[must_use]
    pub fn tagged(mut self, tags: usize) -> Self {
        for tag in 0..tags {
            let id = 100 + u16::try_from(tag).expect("a few tags");
            let header = [VLAN.to_be_bytes(), id.to_be_bytes()].concat();
            self.bytes.splice(12..12, header);
        }
        self.and(&format!("{tags} VLAN tags"))
    }

    /// The same over IPv4 with 8 bytes of options.
    #[must_use]
    pub fn with_options(mut self) -> Self {
        assert!(self.is_ipv4(), "options are IPv4's");
        self.bytes[ETHERNET] += 2;
        self.add_length(8);
        // Type 1 is "no operation".
        self.bytes.splice(ETHERNET + 20..ETHERNET + 20, [1; 8]);
        self.and("IPv4 options")
    }

    /// The same over IPv6 with this many extension headers, hop-by-hop first.
    #[must_use]
    pub fn with_extensions(mut self, count: usize) -> Self {
        // Each is set before those that were inserted earlier.
        for number in (0..count).rev() {
            let kind = if number == 0 {
                HOP_BY_HOP
            } else {
                DESTINATION_OPTIONS
            };
            // One option that pads the header to its 8 bytes.
            self.insert_extension(kind, [0, 0, 1, 4, 0, 0, 0, 0]);
        }
        self.and(&format!("{count} extension headers"))
    }

    /// The same as a first fragment.
    #[must_use]
    pub fn first_fragment(self) -> Self {
        self.fragment(0, true).and("first fragment")
    }

    /// The same as a last fragment, at `offset` in units of 8 bytes.
    #[must_use]
    pub fn later_fragment(self, offset: u16) -> Self {
        self.fragment(offset, false)
            .and(&format!("fragment at {offset}"))
    }

    fn fragment(mut self, offset: u16, more: bool) -> Self {
        if self.is_ipv4() {
            let field = offset | if more { 0x2000 } else { 0 };
            self.bytes[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&field.to_be_bytes());
        } else {
            let field = (offset << 3 | u16::from(more)).to_be_bytes();
            self.insert_extension(FRAGMENT, [0, 0, field[0], field[1], 0, 0, 0, 7]);
        }
        self
    }

    /// The same with this time to live or hop limit.
    #[must_use]
    pub fn with_hop_limit(mut self, limit: u8) -> Self {
        let offset = if self.is_ipv4() { 8 } else { 7 };
        self.bytes[ETHERNET + offset] = limit;
        self.and(&format!("hop limit {limit}"))
    }

    /// The same with an IP length of that many bytes more, or less, than there are.
    #[must_use]
    pub fn with_false_length(mut self, difference: i16) -> Self {
        self.add_length(difference);
        self.and(&format!("length field {difference:+}"))
    }

    fn insert_extension(&mut self, kind: u8, mut header: [u8; 8]) {
        assert!(!self.is_ipv4(), "extension headers are IPv6's");
        header[0] = std::mem::replace(&mut self.bytes[ETHERNET + 6], kind);
        self.add_length(8);
        self.bytes.splice(ETHERNET + 40..ETHERNET + 40, header);
    }

    /// Total length of IPv4, payload length of IPv6.
    fn add_length(&mut self, difference: i16) {
        let offset = ETHERNET + if self.is_ipv4() { 2 } else { 4 };
        let field: &mut [u8; 2] = (&mut self.bytes[offset..offset + 2])
            .try_into()
            .expect("two bytes");
        *field = u16::from_be_bytes(*field)
            .wrapping_add_signed(difference)
            .to_be_bytes();
    }

    fn is_ipv4(&self) -> bool {
        let ethertype = u16::from_be_bytes([self.bytes[12], self.bytes[13]]);
        assert!([IPV4, IPV6].contains(&ethertype), "{} is not IP", self.what);
        ethertype == IPV4
    }
}

fn frame(bytes: Vec<u8>, stream: Stream, what: String) -> Frame {
    Frame {
        bytes,
        stream,
        what,
    }
}

fn ip(from: IpAddr, to: IpAddr) -> PacketBuilderStep<IpHeaders> {
    let ethernet = PacketBuilder::ethernet2([0; 6], [0; 6]);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => panic!("{from} and {to} are of two families"),
    }
}

fn socket(text: &str) -> SocketAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no ADDRESS:PORT"))
}

fn address(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no address"))
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn a_frame_is_what_it_says() {
        let sent = udp("10.0.0.1:1", "10.0.0.2:53").with_options().tagged(2);
        let read = SlicedPacket::from_ethernet(&sent.bytes).expect("a packet");
        assert_eq!(read.vlan_ids().len(), 2);
        let Some(TransportSlice::Udp(header)) = read.transport else {
            panic!("{read:?}");
        };
        assert_eq!(header.destination_port(), 53);
        assert_eq!(Stream::of(&sent.bytes), Some(sent.stream));
    }

    #[test]
    fn extension_headers_and_fragments_are_chained() {
        let sent = udp("[fd00::1]:1", "[fd00::2]:53")
            .first_fragment()
            .with_extensions(3);
        let read = SlicedPacket::from_ethernet(&sent.bytes).expect("a packet");
        let Some(NetSlice::Ipv6(ip)) = read.net else {
            panic!("{read:?}");
        };
        assert!(ip.is_payload_fragmented());
        assert_eq!(ip.payload().ip_number, IpNumber::UDP);
    }

    #[test]
    fn streams_are_told_apart() {
        let (one, other) = (beacon(), beacon());
        assert_ne!(one.stream, other.stream);
        assert_eq!(Stream::of(b"short"), None);
    }
}
