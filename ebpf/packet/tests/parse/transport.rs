//! Transport headers, whole and cut short.

use headgate_packet::parse::{ParseError, Transport};

use crate::{
    error, fields,
    frames::{
        ICMP, ICMPV6, Ipv4, Ipv6, MORE_FRAGMENTS, SCTP, TCP, UDP, icmp, icmpv6, sctp, tcp, udp,
    },
};

fn over_ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv4 {
        protocol,
        ..Ipv4::default()
    };
    header.frame(payload)
}

fn over_ipv6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6 {
        protocol,
        ..Ipv6::default()
    };
    header.frame(payload)
}

const PORTS: Transport = Transport::ports(0x1234, 0xfedc);

#[test]
fn each_header_whole_and_cut_short_at_every_length() {
    let segment = Transport::tcp(0x1234, 0xfedc, 0xa5);
    for (protocol, header, expected) in [
        (TCP, tcp(0x1234, 0xfedc, 0xa5), segment),
        (UDP, udp(0x1234, 0xfedc), PORTS),
        (SCTP, sctp(0x1234, 0xfedc), PORTS),
    ] {
        for frame in [over_ipv4, over_ipv6] {
            assert_eq!(fields(&frame(protocol, &header)).transport, expected);
            for length in 0..header.len() {
                let short = frame(protocol, &header[..length]);
                assert_eq!(error(&short), ParseError::Malformed, "{protocol} {length}");
            }
        }
    }
}

#[test]
fn icmp_needs_eight_bytes_and_icmpv6_four() {
    for length in 0..8 {
        let short = over_ipv4(ICMP, &icmp(8)[..length]);
        assert_eq!(error(&short), ParseError::Malformed, "{length}");
    }
    fields(&over_ipv4(ICMP, &icmp(8)));
    for length in 0..4 {
        let short = over_ipv6(ICMPV6, &icmpv6(128)[..length]);
        assert_eq!(error(&short), ParseError::Malformed, "{length}");
    }
    fields(&over_ipv6(ICMPV6, &icmpv6(128)));
}

#[test]
fn bytes_behind_the_packet_do_not_complete_a_header() {
    let mut frame = over_ipv4(TCP, &tcp(1, 2, 2)[..12]);
    frame.resize(100, 0x50);
    assert_eq!(error(&frame), ParseError::Malformed);
    let mut frame = over_ipv6(UDP, &udp(1, 2)[..7]);
    frame.resize(100, 0);
    assert_eq!(error(&frame), ParseError::Malformed);
}

#[test]
fn a_tcp_header_has_at_least_five_words_and_ends_in_the_packet() {
    for words in 0..16u8 {
        for options in [0, 4, 40] {
            let mut segment = tcp(1, 2, 2);
            segment[12] = words << 4;
            segment.resize(20 + options, 1);
            let length = usize::from(words) * 4;
            for frame in [over_ipv4, over_ipv6] {
                let frame = frame(TCP, &segment);
                if (20..=20 + options).contains(&length) {
                    fields(&frame);
                } else {
                    assert_eq!(error(&frame), ParseError::Malformed, "{words} {options}");
                }
            }
        }
    }
}

#[test]
fn every_flag_has_its_bit() {
    for bit in 0..8 {
        let flags = 1 << bit;
        let packet = fields(&over_ipv4(TCP, &tcp(1, 2, flags)));
        assert_eq!(packet.transport, Transport::tcp(1, 2, flags));
    }
    let mut reserved = tcp(1, 2, 0);
    reserved[12] |= 0xf;
    let packet = fields(&over_ipv4(TCP, &reserved));
    assert_eq!(packet.transport, Transport::tcp(1, 2, 0));
}

#[test]
fn a_first_fragment_without_its_whole_header_is_malformed() {
    for (protocol, header) in [
        (TCP, tcp(1, 2, 2)),
        (UDP, udp(1, 2)),
        (SCTP, sctp(1, 2)),
        (ICMP, icmp(8)),
    ] {
        let ip = Ipv4 {
            protocol,
            fragment: MORE_FRAGMENTS,
            ..Ipv4::default()
        };
        for length in 0..header.len() {
            let short = ip.frame(&header[..length]);
            assert_eq!(error(&short), ParseError::Malformed, "{protocol} {length}");
        }
        fields(&ip.frame(&header));
    }
}
