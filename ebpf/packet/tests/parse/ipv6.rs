//! The IPv6 header and its extension headers.

use headgate_packet::parse::{Addresses, Fragment, Packet, ParseError, Transport};

use crate::{
    error, fields,
    frames::{ESP, Extension, GRE, ICMP, ICMPV6, IPV6, Ipv6, TCP, UDP, ethernet, icmpv6, tcp, udp},
};

const UDP_1_2: Transport = Transport::ports(1, 2);

fn with(protocol: u8, extensions: &[Extension]) -> Ipv6 {
    Ipv6 {
        protocol,
        extensions: extensions.to_vec(),
        ..Ipv6::default()
    }
}

fn fragment(offset: u16, more: bool) -> Extension {
    Extension::Fragment { offset, more }
}

#[test]
fn all_fields() {
    let header = Ipv6 {
        source: "2001:db8:1:2:3:4:5:6".parse().unwrap(),
        destination: "ff02::1:ff00:1234".parse().unwrap(),
        hop_limit: 255,
        protocol: ICMPV6,
        ..Ipv6::default()
    };
    let expected = Packet {
        addresses: Addresses::V6 {
            source: (0x2001_0db8_0001_0002, 0x0003_0004_0005_0006),
            destination: (0xff02_0000_0000_0000, 0x0000_0001_ff00_1234),
        },
        protocol: 58,
        hop_limit: 255,
        fragment: Fragment::Whole,
        transport: Transport::icmpv6(135),
        is_plain: true,
        length: 58,
    };
    assert_eq!(fields(&header.frame(&icmpv6(135))), expected);
}

#[test]
fn another_version_is_malformed() {
    for version in (0..16).filter(|version| *version != 6) {
        let mut frame = Ipv6::default().frame(&udp(1, 2));
        frame[14] = version << 4;
        assert_eq!(error(&frame), ParseError::Malformed, "version {version}");
    }
}

#[test]
fn a_frame_cut_anywhere_is_malformed() {
    let header = with(UDP, &[Extension::HopByHop(1), fragment(0, false)]);
    let frame = header.frame(&[udp(1, 2), vec![0; 10]].concat());
    for length in 14..frame.len() {
        assert_eq!(error(&frame[..length]), ParseError::Malformed, "{length}");
    }
    fields(&frame);
}

#[test]
fn payload_length_decides_where_the_packet_ends() {
    let frame = Ipv6::default().frame(&[udp(1, 2), vec![0; 10]].concat());
    for length in 0..=30 {
        let mut frame = frame.clone();
        frame[19] = length;
        if (8..=18).contains(&length) {
            assert_eq!(fields(&frame).length, 14 + 40 + u32::from(length));
        } else {
            assert_eq!(error(&frame), ParseError::Malformed, "{length}");
        }
    }
}

#[test]
fn extension_headers_are_walked() {
    use Extension::{Destination, HopByHop, Routing};
    for extensions in [
        &[HopByHop(0)][..],
        &[Destination(0)],
        &[Routing(2)],
        &[HopByHop(31), Destination(7), Routing(0)],
        &[HopByHop(0), fragment(0, false), Destination(3)],
    ] {
        let packet = fields(&with(UDP, extensions).frame(&udp(1, 2)));
        assert_eq!(packet.protocol, UDP, "{extensions:?}");
        assert_eq!(packet.transport, UDP_1_2, "{extensions:?}");
        assert_eq!(packet.fragment, Fragment::Whole);
    }
}

#[test]
fn eight_extension_headers_and_no_more() {
    for count in 0..=20 {
        let frame = with(UDP, &vec![Extension::Destination(0); count]).frame(&udp(1, 2));
        if count <= 8 {
            assert_eq!(fields(&frame).transport, UDP_1_2, "{count}");
        } else {
            assert_eq!(error(&frame), ParseError::ExtensionHeaders, "{count}");
        }
    }
}

#[test]
fn an_extension_header_beyond_the_packet_is_malformed() {
    // What would follow needs no header of its own, so only the extension header tells.
    for protocol in [59, ESP, GRE, ICMP] {
        let mut frame = with(protocol, &[Extension::Destination(1)]).frame(&[]);
        assert_eq!(fields(&frame).protocol, protocol);
        frame[14 + 40 + 1] = 2;
        assert_eq!(error(&frame), ParseError::Malformed);
        frame[14 + 40 + 1] = 255;
        assert_eq!(error(&frame), ParseError::Malformed);
        frame.resize(4000, 0);
        assert_eq!(
            error(&frame),
            ParseError::Malformed,
            "padding is not the packet"
        );
    }
}

#[test]
fn fragment_states() {
    for (offset, more, state, transport) in [
        (0, true, Fragment::First, UDP_1_2),
        (1, true, Fragment::Later, Transport::NONE),
        (1, false, Fragment::Later, Transport::NONE),
        (0x1fff, true, Fragment::Later, Transport::NONE),
        // An atomic fragment (RFC 6946) is a whole packet.
        (0, false, Fragment::Whole, UDP_1_2),
    ] {
        let packet = fields(&with(UDP, &[fragment(offset, more)]).frame(&udp(1, 2)));
        assert_eq!(packet.fragment, state, "offset {offset}, more {more}");
        assert_eq!(packet.transport, transport);
        assert_eq!(packet.protocol, UDP);
    }
}

#[test]
fn reserved_bits_of_a_fragment_header_do_not_count() {
    let mut frame = with(UDP, &[fragment(0, false)]).frame(&udp(1, 2));
    frame[14 + 40 + 3] |= 0b110;
    assert_eq!(fields(&frame).fragment, Fragment::Whole);
}

#[test]
fn a_later_fragment_ends_the_walk() {
    // What follows is data, whatever the next header says.
    let header = with(60, &[Extension::HopByHop(0), fragment(9, true)]);
    let packet = fields(&header.frame(&[0xff; 3]));
    assert_eq!(packet.protocol, 60);
    assert_eq!(packet.fragment, Fragment::Later);
    assert_eq!(packet.transport, Transport::NONE);
}

#[test]
fn a_first_fragment_stays_one_behind_an_atomic_fragment_header() {
    let header = with(UDP, &[fragment(0, true), fragment(0, false)]);
    assert_eq!(fields(&header.frame(&udp(1, 2))).fragment, Fragment::First);
    let header = with(UDP, &[fragment(0, true), fragment(1, false)]);
    assert_eq!(fields(&header.frame(&udp(1, 2))).fragment, Fragment::Later);
}

#[test]
fn a_first_fragment_without_its_whole_header_is_malformed() {
    for (protocol, header) in [(TCP, tcp(1, 2, 2)), (UDP, udp(1, 2)), (ICMPV6, icmpv6(128))] {
        for length in 0..header.len() {
            let frame = with(protocol, &[fragment(0, true)]).frame(&header[..length]);
            assert_eq!(error(&frame), ParseError::Malformed, "{protocol} {length}");
        }
        let frame = with(protocol, &[fragment(0, true)]).frame(&header);
        assert_eq!(fields(&frame).fragment, Fragment::First);
    }
}

#[test]
fn offset_one_of_tcp_is_an_ordinary_later_fragment() {
    // A first fragment holds the whole header, and receivers discard IPv6 fragments that overlap
    // (RFC 5722), so there is nothing to overwrite.
    let packet = fields(&with(TCP, &[fragment(1, false)]).frame(&tcp(1, 2, 2)));
    assert_eq!(packet.fragment, Fragment::Later);
}

#[test]
fn icmp_over_ipv6_is_a_number_like_any_other() {
    let packet = fields(&with(ICMP, &[]).frame(&[]));
    assert_eq!(packet.protocol, ICMP);
    assert_eq!(packet.transport, Transport::NONE);
}

#[test]
fn a_jumbogram_is_malformed() {
    // RFC 2675: payload length 0, the true one in an option. No XDP frame is as large.
    let mut packet = with(UDP, &[Extension::HopByHop(0)]).packet(&udp(1, 2));
    (packet[4], packet[5]) = (0, 0);
    assert_eq!(error(&ethernet(&[], IPV6, &packet)), ParseError::Malformed);
}
