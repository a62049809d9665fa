//! The headers of a frame, in words.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use headgate_packet::{
    frame::{Frame, WireType},
    parse::{Addresses, Fragment, Packet, Parsed, TransportKind, parse},
};
use serde::Serialize;

/// The first bytes of a frame that may have had more: what lies beyond is not malformed, but unseen.
struct Captured<'a>(&'a [u8]);

impl Frame for Captured<'_> {
    fn at<T: WireType>(&self, offset: u32) -> Option<&T> {
        self.0.at(offset)
    }

    fn linear_length(&self) -> u32 {
        self.0.linear_length()
    }

    fn full_length(&self) -> u32 {
        u32::MAX
    }
}

/// What headers tell, as far as they were captured and can be read.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Headers {
    #[serde(skip_serializing_if = "Option::is_none")]
    ether_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_flags: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fragment: Option<&'static str>,
}

/// Bit by bit, FIN first.
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

impl Headers {
    pub(super) fn of(frame: &[u8]) -> Self {
        match parse(&Captured(frame)) {
            Ok(Parsed::Ip(packet)) => Self::of_packet(&packet),
            _ => Self {
                ether_type: frame
                    .get(12..14)
                    .map(|kind| format!("0x{:02x}{:02x}", kind[0], kind[1])),
                ..Self::default()
            },
        }
    }

    fn of_packet(packet: &Packet) -> Self {
        let address = |(upper, lower): (u64, u64)| {
            let bits = (u128::from(upper) << 64) | u128::from(lower);
            IpAddr::V6(bits.into())
        };
        let (source, destination) = match packet.addresses {
            Addresses::V4 {
                source,
                destination,
            } => (IpAddr::V4(source.into()), IpAddr::V4(destination.into())),
            Addresses::V6 {
                source,
                destination,
            } => (address(source), address(destination)),
        };
        let mut headers = Self {
            source: Some(source),
            destination: Some(destination),
            protocol: Some(protocol(packet.protocol)),
            fragment: match packet.fragment {
                Fragment::Whole => None,
                Fragment::First => Some("first"),
                Fragment::Later => Some("later"),
            },
            ..Self::default()
        };
        let transport = packet.transport;
        match transport.kind {
            TransportKind::None => {}
            TransportKind::Tcp | TransportKind::Ports => {
                headers.source_port = Some(transport.source_port());
                headers.destination_port = Some(transport.destination_port());
            }
            TransportKind::Icmp | TransportKind::Icmpv6 => {
                headers.icmp_type = Some(transport.detail());
            }
        }
        if transport.kind == TransportKind::Tcp {
            let set = FLAGS.iter().enumerate();
            let set = set.filter(|(bit, _)| transport.detail() & (1 << bit) != 0);
            headers.tcp_flags = Some(set.map(|(_, name)| *name).collect());
        }
        headers
    }
}

fn protocol(number: u8) -> String {
    let name = match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        47 => "gre",
        50 => "esp",
        58 => "icmpv6",
        132 => "sctp",
        _ => return number.to_string(),
    };
    name.to_owned()
}

fn endpoint(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// `10.0.0.1:4242 > 192.0.2.1:80 tcp SYN`
impl fmt::Display for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(source), Some(destination)) = (self.source, self.destination) else {
            let kind = self.ether_type.as_deref().unwrap_or("unknown");
            return write!(f, "ethertype {kind}");
        };
        let source = endpoint(source, self.source_port);
        let destination = endpoint(destination, self.destination_port);
        write!(f, "{source} > {destination}")?;
        match self.protocol.as_deref() {
            Some(number) if number.parse::<u8>().is_ok() => write!(f, " protocol {number}")?,
            Some(name) => write!(f, " {name}")?,
            None => {}
        }
        match self.tcp_flags.as_deref() {
            Some([]) => write!(f, " no flags")?,
            Some(flags) => write!(f, " {}", flags.join(","))?,
            None => {}
        }
        if let Some(kind) = self.icmp_type {
            write!(f, " type {kind}")?;
        }
        if let Some(fragment) = self.fragment {
            write!(f, " {fragment} fragment")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([0x08, 0, 0x45, 0]);
        // Longer than what was captured.
        frame.extend(1500_u16.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(fragment.to_be_bytes());
        frame.extend([64, protocol, 0, 0, 10, 0, 0, 1, 192, 0, 2, 1]);
        frame.extend(payload);
        frame
    }

    fn tcp(flags: u8) -> [u8; 20] {
        let mut header = [0; 20];
        header[..4].copy_from_slice(&[0x10, 0x92, 0, 80]);
        header[12] = 0x50;
        header[13] = flags;
        header
    }

    fn words(frame: &[u8]) -> String {
        Headers::of(frame).to_string()
    }

    #[test]
    fn a_frame_that_was_cut_by_the_capture_is_read_as_it_was() {
        let frame = ipv4(6, 0, &tcp(0x02));
        assert_eq!(words(&frame), "10.0.0.1:4242 > 192.0.2.1:80 tcp SYN");
        let frame = ipv4(6, 0, &tcp(0x12));
        assert_eq!(words(&frame), "10.0.0.1:4242 > 192.0.2.1:80 tcp SYN,ACK");
        let frame = ipv4(6, 0, &tcp(0));
        assert_eq!(words(&frame), "10.0.0.1:4242 > 192.0.2.1:80 tcp no flags");
    }

    #[test]
    fn what_has_no_ports_is_told_without() {
        let icmp = ipv4(1, 0, &[8, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(words(&icmp), "10.0.0.1 > 192.0.2.1 icmp type 8");
        let later = ipv4(17, 100, &[0; 8]);
        assert_eq!(words(&later), "10.0.0.1 > 192.0.2.1 udp later fragment");
        assert_eq!(words(&ipv4(89, 0, &[])), "10.0.0.1 > 192.0.2.1 protocol 89");
    }

    #[test]
    fn addresses_of_ipv6_stand_in_brackets_before_a_port() {
        let mut frame = vec![2; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        frame.extend(address);
        frame.extend(address);
        frame.extend([0, 53, 0x10, 0x92, 0, 8, 0, 0]);
        assert_eq!(words(&frame), "[2001:db8::]:53 > [2001:db8::]:4242 udp");
    }

    #[test]
    fn what_is_not_ip_or_cannot_be_read_is_told_by_its_type() {
        let mut arp = vec![2; 12];
        arp.extend([0x08, 0x06]);
        arp.extend([0; 28]);
        assert_eq!(words(&arp), "ethertype 0x0806");
        assert_eq!(words(&ipv4(6, 0, &[])), "ethertype 0x0800");
        assert_eq!(words(&[]), "ethertype unknown");
    }
}
