//! Whatever the bytes, the parser comes to an end, and what it says fits the frame.

use std::sync::LazyLock;

use headgate_packet::parse::{Fragment, ParseError, Parsed, Transport, parse};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::frames::{
    Extension, ICMP, ICMPV6, IPV4, IPV6, Ipv4, Ipv6, MORE_FRAGMENTS, MultiBuffer, SERVICE_VLAN,
    TCP, UDP, VLAN, ethernet, icmp, icmpv6, tcp, udp,
};

/// A frame of each shape.
static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(samples);

fn samples() -> Vec<Vec<u8>> {
    let options = Ipv4 {
        protocol: TCP,
        options: vec![0; 12],
        ..Ipv4::default()
    };
    let first = Ipv4 {
        fragment: MORE_FRAGMENTS,
        ..Ipv4::default()
    };
    let ping = Ipv4 {
        protocol: ICMP,
        ..Ipv4::default()
    };
    let chain = Ipv6 {
        extensions: vec![
            Extension::HopByHop(1),
            Extension::Routing(2),
            Extension::Fragment {
                offset: 0,
                more: true,
            },
            Extension::Destination(0),
        ],
        ..Ipv6::default()
    };
    let neighbour = Ipv6 {
        protocol: ICMPV6,
        ..Ipv6::default()
    };
    let many = Ipv6 {
        protocol: UDP,
        extensions: vec![Extension::Destination(0); 8],
        ..Ipv6::default()
    };
    vec![
        options.frame(&tcp(1, 2, 2)),
        first.frame(&udp(1, 2)),
        ethernet(&[SERVICE_VLAN, VLAN], IPV4, &ping.packet(&icmp(8))),
        chain.frame(&udp(1, 2)),
        ethernet(&[VLAN], IPV6, &neighbour.packet(&icmpv6(135))),
        many.frame(&udp(1, 2)),
    ]
}

/// Parses and holds the outcome against what must be true of any frame.
fn check(frame: &[u8], first_buffer: usize) {
    let whole = parse(frame);
    if let Ok(Parsed::Ip(packet)) = whole {
        assert!(packet.length as usize <= frame.len());
        assert!(packet.length >= 34);
        if packet.fragment == Fragment::Later {
            assert_eq!(packet.transport, Transport::NONE);
        }
    }
    let split = MultiBuffer {
        bytes: frame,
        first_buffer,
    };
    let in_pieces = parse(&split);
    assert!(in_pieces == whole || in_pieces == Err(ParseError::HeaderNotLinear));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn mutated_frames(
        sample in any::<Index>(),
        changes in vec((any::<Index>(), any::<u8>()), 0..6),
        length in any::<Index>(),
        cut in any::<bool>(),
        first_buffer in any::<Index>(),
    ) {
        let mut frame = sample.get(&SAMPLES).clone();
        for (place, value) in &changes {
            *place.get_mut(&mut frame) = *value;
        }
        if cut {
            frame.truncate(length.index(frame.len() + 1));
        }
        check(&frame, first_buffer.index(frame.len() + 1));
    }

    #[test]
    fn random_bytes_behind_an_ethertype(
        v6 in any::<bool>(),
        payload in vec(any::<u8>(), 0..120),
        first_buffer in any::<Index>(),
    ) {
        let frame = ethernet(&[], if v6 { IPV6 } else { IPV4 }, &payload);
        check(&frame, first_buffer.index(frame.len() + 1));
    }
}
