//! Packets of TCP and UDP with right checksums, and back from frames.

use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A TCP segment or UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes, of the same family.
    pub destination: SocketAddr,
    /// TCP: flags, sequence and acknowledgement number.
    pub tcp: Option<(u8, u32, u32)>,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Datagram {
    /// The frame, from 02:00:00:00:00:02 to 02:00:00:00:00:01.
    ///
    /// # Panics
    /// Where the families differ.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
        let ip = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
            _ => panic!("two families: {self:?}"),
        };
        let (from, to) = (self.source.port(), self.destination.port());
        let mut frame = Vec::new();
        let written = match self.tcp {
            None => ip.udp(from, to).write(&mut frame, &self.payload),
            Some((flags, sequence, acknowledgement)) => {
                let mut header = TcpHeader::new(from, to, sequence, 64_000);
                header.fin = flags & FIN != 0;
                header.syn = flags & SYN != 0;
                header.rst = flags & RST != 0;
                header.ack = flags & ACK != 0;
                header.acknowledgment_number = acknowledgement;
                ip.tcp_header(header).write(&mut frame, &self.payload)
            }
        };
        written.expect("a vector takes it");
        frame
    }

    /// What a frame carries; `None` where it is no such packet, or a checksum is wrong.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (from, to): (IpAddr, IpAddr) = match packet.net.as_ref()? {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                if header.header_checksum() != header.to_header().calc_header_checksum() {
                    return None;
                }
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                )
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                )
            }
            NetSlice::Arp(_) => return None,
        };
        let ends = |source, destination, tcp, payload: &[u8]| Self {
            source: SocketAddr::new(from, source),
            destination: SocketAddr::new(to, destination),
            tcp,
            payload: payload.to_vec(),
        };
        match packet.transport? {
            TransportSlice::Tcp(tcp) => {
                let header = tcp.to_header();
                let checksum = match (from, to) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        header.calc_checksum_ipv4_raw(from.octets(), to.octets(), tcp.payload())
                    }
                    (IpAddr::V6(from), IpAddr::V6(to)) => {
                        header.calc_checksum_ipv6_raw(from.octets(), to.octets(), tcp.payload())
                    }
                    _ => return None,
                };
                let flags = [
                    (header.fin, FIN),
                    (header.syn, SYN),
                    (header.rst, RST),
                    (header.ack, ACK),
                ];
                let flags = flags
                    .iter()
                    .filter(|(is_set, _)| *is_set)
                    .map(|(_, bit)| bit)
                    .sum();
                let numbers = (flags, header.sequence_number, header.acknowledgment_number);
                let is_right = checksum.ok()? == header.checksum;
                is_right.then(|| {
                    ends(
                        header.source_port,
                        header.destination_port,
                        Some(numbers),
                        tcp.payload(),
                    )
                })
            }
            TransportSlice::Udp(udp) => {
                let header = udp.to_header();
                let checksum = match (from, to) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        header.calc_checksum_ipv4_raw(from.octets(), to.octets(), udp.payload())
                    }
                    (IpAddr::V6(from), IpAddr::V6(to)) => {
                        header.calc_checksum_ipv6_raw(from.octets(), to.octets(), udp.payload())
                    }
                    _ => return None,
                };
                let is_right = checksum.ok()? == header.checksum;
                is_right.then(|| {
                    ends(
                        header.source_port,
                        header.destination_port,
                        None,
                        udp.payload(),
                    )
                })
            }
            _ => None,
        }
    }
}
