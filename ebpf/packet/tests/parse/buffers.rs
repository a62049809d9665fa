//! Frames in several buffers, of which only the first can be read.

use headgate_packet::parse::{ParseError, Parsed, parse};

use crate::{
    fields,
    frames::{
        Extension, IPV4, Ipv4, Ipv6, MultiBuffer, SERVICE_VLAN, TCP, VLAN, ethernet, tcp, udp,
    },
};

/// Whole frames with the number of bytes that their headers take.
fn samples() -> [(Vec<u8>, usize); 3] {
    let data = vec![0; 3000];
    let ipv4 = Ipv4 {
        protocol: TCP,
        options: vec![0; 8],
        ..Ipv4::default()
    };
    let ipv6 = Ipv6 {
        extensions: vec![Extension::HopByHop(1), Extension::Destination(0)],
        ..Ipv6::default()
    };
    let tagged = Ipv4::default().packet(&[udp(1, 2), data.clone()].concat());
    [
        (ipv4.frame(&[tcp(1, 2, 2), data.clone()].concat()), 62),
        (ipv6.frame(&[udp(1, 2), data].concat()), 86),
        (ethernet(&[SERVICE_VLAN, VLAN], IPV4, &tagged), 50),
    ]
}

#[test]
fn headers_in_the_first_buffer_are_enough() {
    for (frame, headers) in samples() {
        for first_buffer in headers..=frame.len() {
            let split = MultiBuffer {
                bytes: &frame,
                first_buffer,
            };
            assert_eq!(parse(&split), Ok(Parsed::Ip(fields(&frame))));
        }
    }
}

#[test]
fn headers_beyond_the_first_buffer_are_said_to_be_so() {
    for (frame, headers) in samples() {
        for first_buffer in 0..headers {
            let split = MultiBuffer {
                bytes: &frame,
                first_buffer,
            };
            assert_eq!(
                parse(&split),
                Err(ParseError::HeaderNotLinear),
                "{first_buffer}"
            );
        }
    }
}

#[test]
fn a_length_beyond_all_buffers_is_malformed_all_the_same() {
    for (frame, headers) in samples() {
        let split = MultiBuffer {
            bytes: &frame[..frame.len() - 1],
            first_buffer: headers,
        };
        assert_eq!(parse(&split), Err(ParseError::Malformed));
    }
}
