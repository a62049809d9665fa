//! The IPv4 header.

use std::net::Ipv4Addr;

use headgate_packet::parse::{Addresses, Fragment, Packet, ParseError, Transport};

use crate::{
    error, fields,
    frames::{ESP, GRE, ICMP, ICMPV6, Ipv4, MORE_FRAGMENTS, SCTP, TCP, UDP, icmp, tcp, udp},
};

const UDP_1_2: Transport = Transport::ports(1, 2);
/// Don't Fragment and the reserved bit: neither makes a fragment.
const DONT_FRAGMENT: u16 = 0x4000;
const RESERVED: u16 = 0x8000;

/// `frame` with the byte at this offset of the IP header replaced.
fn with_byte(mut frame: Vec<u8>, offset: usize, value: u8) -> Vec<u8> {
    frame[14 + offset] = value;
    frame
}

fn with_total_length(frame: Vec<u8>, length: usize) -> Vec<u8> {
    let [high, low] = (length as u16).to_be_bytes();
    with_byte(with_byte(frame, 2, high), 3, low)
}

#[test]
fn all_fields() {
    let header = Ipv4 {
        source: Ipv4Addr::new(10, 20, 30, 40),
        destination: Ipv4Addr::new(255, 0, 128, 1),
        time_to_live: 3,
        protocol: TCP,
        ..Ipv4::default()
    };
    let expected = Packet {
        addresses: Addresses::V4 {
            source: 0x0a14_1e28,
            destination: 0xff00_8001,
        },
        protocol: 6,
        hop_limit: 3,
        fragment: Fragment::Whole,
        transport: Transport::tcp(0xabcd, 443, 0x12),
        is_plain: true,
        length: 54,
    };
    assert_eq!(fields(&header.frame(&tcp(0xabcd, 443, 0x12))), expected);
}

#[test]
fn options_are_passed_over() {
    for words in 0..=10 {
        let header = Ipv4 {
            // Were these taken for ports, they would be 0x0101.
            options: vec![1; words * 4],
            ..Ipv4::default()
        };
        let packet = fields(&header.frame(&udp(1, 2)));
        assert_eq!(packet.transport, UDP_1_2);
        assert_eq!(packet.length as usize, 14 + 20 + words * 4 + 8);
    }
}

#[test]
fn a_header_of_less_than_five_words_is_malformed() {
    for words in 0..5 {
        let frame = with_byte(Ipv4::default().frame(&udp(1, 2)), 0, 0x40 | words);
        assert_eq!(error(&frame), ParseError::Malformed);
    }
}

#[test]
fn another_version_is_malformed() {
    for version in (0..16).filter(|version| *version != 4) {
        let frame = with_byte(Ipv4::default().frame(&udp(1, 2)), 0, version << 4 | 5);
        assert_eq!(error(&frame), ParseError::Malformed, "version {version}");
    }
}

#[test]
fn total_length_lies_between_the_header_and_the_end_of_the_frame() {
    let header = Ipv4 {
        protocol: GRE,
        options: vec![0; 8],
        ..Ipv4::default()
    };
    let frame = header.frame(&[0; 4]);
    for length in 0..=40 {
        let frame = with_total_length(frame.clone(), length);
        if (28..=32).contains(&length) {
            assert_eq!(fields(&frame).length as usize, 14 + length);
        } else {
            assert_eq!(error(&frame), ParseError::Malformed, "{length}");
        }
    }
    let longest = with_total_length(frame, 0xffff);
    assert_eq!(error(&longest), ParseError::Malformed);
}

#[test]
fn a_frame_cut_anywhere_is_malformed() {
    let header = Ipv4 {
        options: vec![0; 4],
        ..Ipv4::default()
    };
    let frame = header.frame(&[udp(1, 2), vec![0; 10]].concat());
    for length in 14..frame.len() {
        assert_eq!(error(&frame[..length]), ParseError::Malformed, "{length}");
    }
    fields(&frame);
}

#[test]
fn fragment_states() {
    for (field, fragment, transport) in [
        (0, Fragment::Whole, UDP_1_2),
        (DONT_FRAGMENT, Fragment::Whole, UDP_1_2),
        (RESERVED | DONT_FRAGMENT, Fragment::Whole, UDP_1_2),
        (MORE_FRAGMENTS, Fragment::First, UDP_1_2),
        (MORE_FRAGMENTS | 1, Fragment::Later, Transport::NONE),
        (MORE_FRAGMENTS | 0x1fff, Fragment::Later, Transport::NONE),
        (1, Fragment::Later, Transport::NONE),
        (0x1fff, Fragment::Later, Transport::NONE),
    ] {
        let header = Ipv4 {
            fragment: field,
            ..Ipv4::default()
        };
        let packet = fields(&header.frame(&udp(1, 2)));
        assert_eq!(packet.fragment, fragment, "{field:04x}");
        assert_eq!(packet.transport, transport, "{field:04x}");
        assert_eq!(packet.protocol, UDP);
    }
}

#[test]
fn a_later_fragment_may_be_shorter_than_any_header() {
    for protocol in [TCP, UDP, SCTP, ICMP] {
        let header = Ipv4 {
            protocol,
            fragment: 185,
            ..Ipv4::default()
        };
        assert_eq!(fields(&header.frame(&[7])).transport, Transport::NONE);
        assert_eq!(fields(&header.frame(&[])).fragment, Fragment::Later);
    }
}

#[test]
fn a_tcp_fragment_over_the_flags_is_refused() {
    for field in [1, MORE_FRAGMENTS | 1, DONT_FRAGMENT | 1] {
        let header = |protocol| Ipv4 {
            protocol,
            fragment: field,
            ..Ipv4::default()
        };
        let overlap = header(TCP).frame(&tcp(1, 2, 2));
        assert_eq!(error(&overlap), ParseError::TcpFragmentOverlap);
        // UDP's header is whole before offset 1.
        let other = fields(&header(UDP).frame(&udp(1, 2)));
        assert_eq!(other.fragment, Fragment::Later);
    }
    let behind = Ipv4 {
        protocol: TCP,
        fragment: 2,
        ..Ipv4::default()
    };
    assert_eq!(fields(&behind.frame(&[0; 8])).fragment, Fragment::Later);
}

#[test]
fn protocols_without_qualifiers_have_no_header_to_be_cut_short() {
    // ICMPv6 over IPv4 is a number like any other.
    for protocol in [0, 2, GRE, ESP, 51, 43, 44, 60, ICMPV6, 255] {
        let header = Ipv4 {
            protocol,
            ..Ipv4::default()
        };
        let packet = fields(&header.frame(&[]));
        assert_eq!(packet.transport, Transport::NONE);
        assert_eq!(packet.protocol, protocol);
    }
}

#[test]
fn icmp_has_a_type() {
    for kind in [0, 3, 8, 255] {
        let header = Ipv4 {
            protocol: ICMP,
            ..Ipv4::default()
        };
        let packet = fields(&header.frame(&icmp(kind)));
        assert_eq!(packet.transport, Transport::icmp(kind));
    }
}
