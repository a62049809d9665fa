//! Ethernet frames by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TO_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// What a program returns to drop a frame.
pub const XDP_DROP: u32 = 1;
/// What a program returns to pass a frame on.
pub const XDP_PASS: u32 = 2;
/// What a program returns to send a frame back out of its interface.
pub const XDP_TX: u32 = 3;
/// What a program returns to send a frame out of another interface.
pub const XDP_REDIRECT: u32 = 4;

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
    frame.extend(TO_V6.octets());
    frame.extend(udp());
    frame
}

/// A TCP segment over IPv4 or IPv6 to a port of 192.0.2.1 or 2001:db8::1.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Source address.
    pub source: IpAddr,
    /// Source and destination port.
    pub ports: (u16, u16),
    /// Its flags.
    pub flags: u8,
    /// Where it lies in a larger packet, in units of 8 bytes; 0 for a whole one.
    pub offset: u16,
}

impl Segment {
    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let mut tcp = Vec::from([0; 20]);
        tcp[..2].copy_from_slice(&self.ports.0.to_be_bytes());
        tcp[2..4].copy_from_slice(&self.ports.1.to_be_bytes());
        tcp[12] = 5 << 4;
        tcp[13] = self.flags;
        let mut frame;
        match self.source {
            IpAddr::V4(source) => {
                frame = ethernet([0x08, 0x00]);
                frame.extend([0x45, 0, 0, 40, 0, 0]);
                frame.extend(self.offset.to_be_bytes());
                frame.extend([64, 6, 0, 0]);
                frame.extend(source.octets());
                frame.extend([192, 0, 2, 1]);
            }
            IpAddr::V6(source) => {
                frame = ethernet([0x86, 0xdd]);
                let (next, length) = if self.offset == 0 { (6, 20) } else { (44, 28) };
                frame.extend([0x60, 0, 0, 0, 0, length, next, 64]);
                frame.extend(source.octets());
                frame.extend(TO_V6.octets());
                if self.offset != 0 {
                    frame.extend([6, 0]);
                    frame.extend((self.offset << 3).to_be_bytes());
                    frame.extend([0; 4]);
                }
            }
        }
        frame.extend(tcp);
        frame
    }
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
