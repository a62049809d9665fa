//! Lists of addresses to measure with: random, and the same in every run.

use std::sync::Arc;

use headgate_compile::{
    addresses::{AddressSet, Ranges},
    classifier::Term,
};
use headgate_crds::{PortRange, Protocol, TcpMatch, UdpMatch};

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// Address family of a measurement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// `count` hosts, and as keys in the order of the wire.
pub struct Hosts {
    /// The set.
    pub set: Arc<AddressSet>,
    /// Each host as the driver writes it into the packet.
    pub keys: Vec<[u64; 2]>,
}

/// Random hosts all over the unicast addresses, thin: hardly two in one prefix.
pub fn hosts(family: Family, count: usize) -> Hosts {
    let mut random = Random(count as u64);
    let mut keys = Vec::with_capacity(count);
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    while keys.len() < count {
        match family {
            Family::V4 => {
                let address = random.next() as u32;
                // Neither 0/8 nor multicast and above.
                if address >> 29 == 7 || address >> 24 == 0 {
                    continue;
                }
                v4.push((address, address));
                keys.push([u64::from(u32::from_ne_bytes(address.to_be_bytes())), 0]);
            }
            Family::V6 => {
                let upper = (random.next() >> 3) | (1 << 61);
                let address = (u128::from(upper) << 64) | u128::from(random.next());
                v6.push((address, address));
                let bytes = address.to_be_bytes();
                let half = |at: usize| {
                    let half: [u8; 8] = bytes[at..at + 8].try_into().expect("8 of 16 bytes");
                    u64::from_ne_bytes(half)
                };
                keys.push([half(0), half(8)]);
            }
        }
    }
    let set = AddressSet {
        v4: Ranges::from_any(v4),
        v6: Ranges::from_any(v6),
    };
    Hosts {
        set: Arc::new(set),
        keys,
    }
}

/// TCP or UDP to one port.
pub fn to_port(tcp: bool, port: u16) -> Term {
    let ports = Some(vec![PortRange {
        port,
        end_port: None,
    }]);
    let protocol = if tcp {
        Protocol::Tcp(TcpMatch {
            ports,
            ..TcpMatch::default()
        })
    } else {
        Protocol::Udp(UdpMatch {
            ports,
            ..UdpMatch::default()
        })
    };
    Term::new(&protocol, None)
}
