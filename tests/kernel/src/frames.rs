//! Ethernet frames by hand.

use std::net::{Ipv4Addr, Ipv6Addr};

/// What a program returns to drop a frame.
pub const XDP_DROP: u32 = 1;
/// What a program returns to pass a frame on.
pub const XDP_PASS: u32 = 2;

/// A UDP datagram over IPv4 to 192.0.2.1, from port 4242 to 12345, 50 bytes with the Ethernet header.
#[must_use]
pub fn udp4(source: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend(source.octets());
    frame.extend([192, 0, 2, 1]);
    frame.extend(udp());
    frame
}

/// The same over IPv6, to 2001:db8::1, 70 bytes.
#[must_use]
pub fn udp6(source: Ipv6Addr) -> Vec<u8> {
    let mut frame = ethernet([0x86, 0xdd]);
    frame.extend([0x60, 0, 0, 0, 0, 16, 17, 64]);
    frame.extend(source.octets());
    frame.extend(
        "2001:db8::1"
            .parse::<Ipv6Addr>()
            .expect("an address")
            .octets(),
    );
    frame.extend(udp());
    frame
}

/// An ARP frame of zeros.
#[must_use]
pub fn arp() -> Vec<u8> {
    let mut frame = ethernet([0x08, 0x06]);
    frame.extend([0; 28]);
    frame
}

fn ethernet(kind: [u8; 2]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(kind);
    frame
}

fn udp() -> [u8; 16] {
    let mut udp = [0; 16];
    udp[..2].copy_from_slice(&4242_u16.to_be_bytes());
    udp[2..4].copy_from_slice(&12345_u16.to_be_bytes());
    udp[5] = 16;
    udp
}
