//! Captured frames: what the parser reads of them, held against an independent decoder.
//!
//! Where the two differ by intent, the decoder's answer is read so that they agree:
//!
//! - It reads through IPsec's authentication header and through MACsec where nothing is encrypted.
//!   To ours the one is a protocol, asked for by its number, the other is not IP.
//! - It is lax about lengths, and says so. To ours a length beyond the frame, or below the
//!   header's own, is malformed, and an IPv6 payload length of 0 is no bytes at all (jumbograms).
//! - It takes the IP version from the header where EtherType says another; ours refuses that, more
//!   than two VLAN tags or eight extension headers, and a TCP fragment over the flags.
//! - It leaves transport headers of fragments and SCTP to its caller: they are read here.
#![allow(clippy::unwrap_used)]

mod captures;
mod model;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use etherparse::{
    EtherType, IpNumber, Ipv6ExtensionSlice, LaxIpv4Slice, LaxIpv6Slice, LaxLinkExtSlice,
    LaxNetSlice, LaxSlicedPacket, LenSource, TcpHeaderSlice, UdpHeaderSlice, err::Layer,
};
use headgate_packet::parse::{Addresses, Fragment, Packet, Parsed, TransportKind, parse};

use model::{Fields, Piece};

/// What either decoder makes of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    NotIp,
    Ip(Fields),
    Refused,
}

fn ours(frame: &[u8]) -> Read {
    match parse(frame) {
        Ok(Parsed::NotIp) => Read::NotIp,
        Ok(Parsed::Ip(packet)) => Read::Ip(fields(&packet)),
        Err(_) => Read::Refused,
    }
}

fn fields(packet: &Packet) -> Fields {
    let v6 = |(upper, lower): (u64, u64)| -> IpAddr {
        Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower)).into()
    };
    let (source, destination) = match packet.addresses {
        Addresses::V4 {
            source,
            destination,
        } => (
            Ipv4Addr::from_bits(source).into(),
            Ipv4Addr::from_bits(destination).into(),
        ),
        Addresses::V6 {
            source,
            destination,
        } => (v6(source), v6(destination)),
    };
    let transport = packet.transport;
    let (mut ports, mut flags, mut kind) = (None, None, None);
    match transport.kind {
        TransportKind::None => {}
        TransportKind::Tcp | TransportKind::Ports => {
            ports = Some((transport.source_port(), transport.destination_port()));
            flags = (transport.kind == TransportKind::Tcp).then_some(transport.detail());
        }
        TransportKind::Icmp | TransportKind::Icmpv6 => kind = Some(transport.detail()),
    }
    Fields {
        source,
        destination,
        protocol: packet.protocol,
        piece: match packet.fragment {
            Fragment::Whole => Piece::Whole,
            Fragment::First => Piece::First,
            Fragment::Later => Piece::Later,
        },
        ports,
        flags,
        kind,
    }
}

fn theirs(frame: &[u8]) -> Read {
    let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
        return Read::Refused;
    };
    let mut link = packet.link_exts.iter();
    if link.any(|extension| matches!(extension, LaxLinkExtSlice::Macsec(_))) {
        return Read::NotIp;
    }
    let ethertype = packet.ether_payload().map(|payload| payload.ether_type);
    let tags = packet.link_exts.len();
    let stopped_at = packet.stop_err.as_ref().map(|(_, layer)| *layer);
    let read = match &packet.net {
        _ if tags > 2 => None,
        Some(LaxNetSlice::Ipv4(ip)) if ethertype == Some(EtherType::IPV4) => ipv4(ip),
        Some(LaxNetSlice::Ipv6(_)) if is_ipv6_extension(stopped_at) => None,
        Some(LaxNetSlice::Ipv6(ip)) if ethertype == Some(EtherType::IPV6) => ipv6(ip),
        Some(LaxNetSlice::Ipv4(_) | LaxNetSlice::Ipv6(_)) => None,
        Some(LaxNetSlice::Arp(_)) => return Read::NotIp,
        None if matches!(stopped_at, None | Some(Layer::Arp | Layer::MacsecHeader)) => {
            return Read::NotIp;
        }
        None => None,
    };
    read.map_or(Read::Refused, Read::Ip)
}

/// Whether the decoder stopped at an IPv6 extension header.
fn is_ipv6_extension(layer: Option<Layer>) -> bool {
    matches!(
        layer,
        Some(
            Layer::Ipv6ExtHeader
                | Layer::Ipv6HopByHopHeader
                | Layer::Ipv6DestOptionsHeader
                | Layer::Ipv6RouteHeader
                | Layer::Ipv6FragHeader
        )
    )
}

fn ipv4(ip: &LaxIpv4Slice<'_>) -> Option<Fields> {
    let header = ip.header();
    let payload = ip.payload();
    if payload.len_source == LenSource::Slice {
        return None;
    }
    if (header.protocol(), header.fragments_offset().value()) == (IpNumber::TCP, 1) {
        return None;
    }
    let piece = match (header.fragments_offset().value(), header.more_fragments()) {
        (0, false) => Piece::Whole,
        (0, true) => Piece::First,
        _ => Piece::Later,
    };
    let fields = Fields {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        protocol: header.protocol().0,
        piece,
        ports: None,
        flags: None,
        kind: None,
    };
    transport(fields, payload.payload)
}

fn ipv6(ip: &LaxIpv6Slice<'_>) -> Option<Fields> {
    let header = ip.header();
    let payload = ip.payload();
    if payload.incomplete {
        return None;
    }
    let is_extension = matches!(header.next_header().0, 0 | 43 | 44 | 60);
    if header.payload_length() == 0 && is_extension {
        return None;
    }
    let mut piece = Piece::Whole;
    let mut protocol = payload.ip_number;
    for (index, extension) in ip.extensions().clone().into_iter().enumerate() {
        if let Ipv6ExtensionSlice::Authentication(_) = extension {
            protocol = IpNumber::AUTHENTICATION_HEADER;
            break;
        }
        if index == 8 {
            return None;
        }
        if let Ipv6ExtensionSlice::Fragment(fragment) = extension {
            piece = match (
                fragment.fragment_offset().value(),
                fragment.more_fragments(),
            ) {
                (0, false) => piece,
                (0, true) => Piece::First,
                _ => Piece::Later,
            };
        }
    }
    let fields = Fields {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        protocol: protocol.0,
        piece,
        ports: None,
        flags: None,
        kind: None,
    };
    let bytes = match header.payload_length() {
        0 => &[],
        _ => payload.payload,
    };
    transport(fields, bytes)
}

/// The fields of the transport header as well; `None` where it is cut short.
fn transport(mut fields: Fields, bytes: &[u8]) -> Option<Fields> {
    if fields.piece == Piece::Later {
        return Some(fields);
    }
    match (fields.protocol, fields.source) {
        (6, _) => {
            let header = TcpHeaderSlice::from_slice(bytes).ok()?;
            fields.ports = Some((header.source_port(), header.destination_port()));
            fields.flags = Some(header.slice()[13]);
        }
        (17, _) => {
            let header = UdpHeaderSlice::from_slice(bytes).ok()?;
            fields.ports = Some((header.source_port(), header.destination_port()));
        }
        (132, _) => {
            let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes.get(..12)?;
            fields.ports = Some((port(0), port(2)));
        }
        (1, IpAddr::V4(_)) => fields.kind = Some(bytes.get(..8)?[0]),
        (58, IpAddr::V6(_)) => fields.kind = Some(bytes.get(..4)?[0]),
        _ => {}
    }
    Some(fields)
}

/// Both readings of many frames, counted by kind.
#[derive(Default)]
struct Comparison {
    compared: BTreeMap<&'static str, usize>,
    differing: Vec<String>,
}

impl Comparison {
    fn add(&mut self, frame: &[u8], name: impl FnOnce() -> String) {
        let (ours, theirs) = (ours(frame), theirs(frame));
        let kind = match ours {
            Read::NotIp => "not IP",
            Read::Refused => "refused",
            Read::Ip(fields) if fields.source.is_ipv4() => "IPv4",
            Read::Ip(_) => "IPv6",
        };
        *self.compared.entry(kind).or_default() += 1;
        if ours != theirs {
            let frame: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            let name = name();
            self.differing
                .push(format!("{name}: ours {ours:?}, theirs {theirs:?}\n{frame}"));
        }
    }

    fn assert_agreement(&self, at_least: usize) {
        let frames: usize = self.compared.values().sum();
        println!("compared {frames} frames: {:?}", self.compared);
        assert!(self.differing.is_empty(), "{}", self.differing.join("\n"));
        assert!(frames >= at_least, "the data are not what they were");
    }
}

#[test]
fn two_decoders_agree_on_captures() {
    let Some(captures) = captures::ethernet("two_decoders_agree_on_captures") else {
        return;
    };
    let mut comparison = Comparison::default();
    for capture in &captures {
        for (index, frame) in capture.frames.iter().enumerate() {
            comparison.add(frame, || format!("{} frame {index}", capture.name));
        }
    }
    comparison.assert_agreement(8_000);
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as usize % end
    }
}

/// IPsec's authentication header: where its length is wrong, etherparse 0.21 reads outside of the
/// frame, which aborts the test.
const AUTHENTICATION: u8 = 51;

fn is_authenticated(frame: &[u8]) -> bool {
    matches!(ours(frame), Read::Ip(fields) if fields.protocol == AUTHENTICATION)
}

#[test]
fn two_decoders_agree_on_mutations_of_captures() {
    let Some(captures) = captures::ethernet("two_decoders_agree_on_mutations_of_captures") else {
        return;
    };
    let mut numbers = Numbers(1);
    let mut comparison = Comparison::default();
    for capture in &captures {
        for (index, frame) in capture.frames.iter().enumerate().take(50) {
            // From EtherType on: what lies before is read by neither.
            let headers = frame.len().min(96);
            let mutations = if headers <= 14 || is_authenticated(frame) {
                0
            } else {
                20
            };
            for _ in 0..mutations {
                let mut mutation = frame.clone();
                for _ in 0..=numbers.below(3) {
                    let value = numbers.below(256) as u8;
                    if value != AUTHENTICATION {
                        mutation[12 + numbers.below(headers - 12)] = value;
                    }
                }
                comparison.add(&mutation, || format!("of {} frame {index}", capture.name));
            }
        }
    }
    comparison.assert_agreement(70_000);
}
