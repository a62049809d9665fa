//! ICMP messages with right checksums, and back from frames.

use std::net::IpAddr;

use etherparse::{
    Icmpv4Header, Icmpv6Header, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
};

use crate::datagrams::Datagram;

/// Bytes of the Ethernet header.
const LINK: usize = 14;
/// Bytes of a packet that a router quotes here.
const QUOTE: usize = 48;

/// An ICMP or ICMPv6 message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sends it.
    pub source: IpAddr,
    /// To whom, of the same family.
    pub destination: IpAddr,
    /// Type and code.
    pub kind: (u8, u8),
    /// The word behind the checksum.
    pub rest: [u8; 4],
    /// What follows.
    pub payload: Vec<u8>,
}

impl Message {
    fn new(source: IpAddr, destination: IpAddr, v4: (u8, u8), v6: (u8, u8)) -> Self {
        Self {
            source,
            destination,
            kind: if source.is_ipv4() { v4 } else { v6 },
            rest: [0; 4],
            payload: Vec::new(),
        }
    }

    /// A ping.
    #[must_use]
    pub fn echo_request(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Self {
        Self {
            rest: [0, 7, 0, 1],
            payload: payload.to_vec(),
            ..Self::new(source, destination, (8, 0), (128, 0))
        }
    }

    /// The answer to [`Self::echo_request`].
    #[must_use]
    pub fn echo_reply(source: IpAddr, destination: IpAddr, payload: &[u8]) -> Self {
        Self {
            kind: if source.is_ipv4() { (0, 0) } else { (129, 0) },
            ..Self::echo_request(source, destination, payload)
        }
    }

    /// A router's word that `packet` is too long for a link that takes `mtu` bytes.
    #[must_use]
    pub fn too_big(source: IpAddr, destination: IpAddr, mtu: u16, packet: &Datagram) -> Self {
        let [high, low] = mtu.to_be_bytes();
        Self {
            rest: [0, 0, high, low],
            payload: quote(packet),
            ..Self::new(source, destination, (3, 4), (2, 0))
        }
    }

    /// A router's word that the host that `packet` is for cannot be reached.
    #[must_use]
    pub fn unreachable(source: IpAddr, destination: IpAddr, packet: &Datagram) -> Self {
        Self {
            payload: quote(packet),
            ..Self::new(source, destination, (3, 1), (1, 3))
        }
    }

    /// The MTU that it tells.
    #[must_use]
    pub fn mtu(&self) -> Option<u32> {
        matches!(self.kind, (3, 4) | (2, 0)).then(|| u32::from_be_bytes(self.rest))
    }

    /// Whether it says that a packet has lived too long.
    #[must_use]
    pub fn is_time_exceeded(&self) -> bool {
        self.kind
            == if self.source.is_ipv4() {
                (11, 0)
            } else {
                (3, 0)
            }
    }

    /// Whether it quotes the beginning of `packet`: addresses and ports, and a right header checksum.
    #[must_use]
    pub fn is_about(&self, packet: &Datagram) -> bool {
        let packet_frame = packet.frame();
        let whole = &packet_frame[LINK..];
        let (addresses, ports) = match self.source {
            IpAddr::V4(_) => (12..20, 20..24),
            IpAddr::V6(_) => (8..40, 40..44),
        };
        let Some(quoted) = self.payload.get(..ports.end) else {
            return false;
        };
        let is_right = self.source.is_ipv6() || sum(&quoted[..20]) == 0xffff;
        is_right
            && quoted[addresses.clone()] == whole[addresses]
            && quoted[ports.clone()] == whole[ports]
    }

    /// The frame, from 02:00:00:00:00:02 to 02:00:00:00:00:01.
    ///
    /// # Panics
    /// Where the families differ.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
        let (kind, code) = self.kind;
        let mut frame = Vec::new();
        match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => link
                .ipv4(from.octets(), to.octets(), 64)
                .icmpv4_raw(kind, code, self.rest)
                .write(&mut frame, &self.payload),
            (IpAddr::V6(from), IpAddr::V6(to)) => link
                .ipv6(from.octets(), to.octets(), 64)
                .icmpv6_raw(kind, code, self.rest)
                .write(&mut frame, &self.payload),
            _ => panic!("two families: {self:?}"),
        }
        .expect("a vector takes it");
        frame
    }

    /// What a frame carries; `None` where it is no such message, or a checksum is wrong.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref()? {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                if header.header_checksum() != header.to_header().calc_header_checksum() {
                    return None;
                }
                let ends = (header.source_addr(), header.destination_addr());
                (ends.0.into(), ends.1.into())
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                let ends = (header.source_addr(), header.destination_addr());
                (ends.0.into(), ends.1.into())
            }
            NetSlice::Arp(_) => return None,
        };
        let (bytes, is_right) = match (packet.transport?, source, destination) {
            (TransportSlice::Icmpv4(message), ..) => {
                let payload = message.payload();
                let fresh = Icmpv4Header::with_checksum(message.icmp_type(), payload);
                (
                    message.slice().to_vec(),
                    fresh.checksum == message.checksum(),
                )
            }
            (TransportSlice::Icmpv6(message), IpAddr::V6(from), IpAddr::V6(to)) => {
                let payload = message.payload();
                let (from, to) = (from.octets(), to.octets());
                let fresh = Icmpv6Header::with_checksum(message.icmp_type(), from, to, payload);
                let is_right = fresh.ok()?.checksum == message.checksum();
                (message.slice().to_vec(), is_right)
            }
            _ => return None,
        };
        is_right.then(|| Self {
            source,
            destination,
            kind: (bytes[0], bytes[1]),
            rest: bytes[4..8].try_into().expect("four bytes"),
            payload: bytes[8..].to_vec(),
        })
    }
}

fn quote(packet: &Datagram) -> Vec<u8> {
    let mut whole = packet.frame().split_off(LINK);
    whole.truncate(QUOTE);
    whole
}

/// The ones' complement sum.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let sum: u32 = words.sum();
    ((sum & 0xffff) + (sum >> 16)) as u16
}
