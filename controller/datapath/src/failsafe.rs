//! Peers that are never dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    num::NonZeroU16,
};

use headgate_layout::failsafe::{MAX_NESTING, MAX_PASSAGES, MAX_PEERS};
use serde::{Deserialize, Serialize};

/// Addresses, with the bits behind the prefix cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Prefix {
    /// The first address.
    pub address: IpAddr,
    /// Length of the prefix in the address's own family.
    pub length: u8,
}

impl Prefix {
    /// Whether all addresses of `other` are of this prefix.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let shared = match (self.address, other.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        self.length <= other.length && shared >= u32::from(self.length)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Ports from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    /// The first.
    pub first: NonZeroU16,
    /// The last.
    pub last: NonZeroU16,
}

impl PortRange {
    /// The ports from `first` to `last`, or `None` where there are none.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        let (first, last) = (NonZeroU16::new(first)?, NonZeroU16::new(last)?);
        (first <= last).then_some(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// What a failsafe peer may send whatever policies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Passage {
    /// Every packet.
    Everything,
    /// TCP from this port of the peer's to the node's own ports of outgoing connections, with ACK or
    /// RST set: replies, which open no connection even where the source is forged.
    Replies {
        /// Port of the peer's service.
        port: NonZeroU16,
        /// Ports that such connections are seen to come from.
        local_ports: PortRange,
    },
    /// TCP to this port of the node.
    Service {
        /// The port.
        port: NonZeroU16,
    },
}

/// A prefix and one thing that its addresses may send; a prefix may stand in several of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailsafePeer {
    /// Who.
    pub prefix: Prefix,
    /// What.
    pub passage: Passage,
}

impl FailsafePeer {
    /// A peer that is never dropped at all.
    #[must_use]
    pub fn trusted(address: IpAddr, length: u8) -> Self {
        Self {
            prefix: Prefix { address, length },
            passage: Passage::Everything,
        }
    }
}

impl fmt::Display for FailsafePeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.prefix;
        match self.passage {
            Passage::Everything => write!(f, "{prefix}"),
            Passage::Replies { port, local_ports } => {
                write!(f, "{prefix} replies from tcp {port} to {local_ports}")
            }
            Passage::Service { port } => write!(f, "{prefix} to tcp {port}"),
        }
    }
}

/// More than the kernel's maps hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailsafeError {
    /// Too many prefixes.
    #[error(
        "there are failsafe peers in {0} prefixes, and room for {MAX_PEERS}; join neighbours into wider prefixes"
    )]
    Prefixes(usize),
    /// Too much for one prefix.
    #[error(
        "failsafe peers {prefix} have {count} services and replies, and there is room for {MAX_PASSAGES}; leave some out"
    )]
    Passages {
        /// Whose.
        prefix: Prefix,
        /// How many.
        count: usize,
    },
    /// Too many prefixes around each other.
    #[error(
        "failsafe peers {prefix} lie in {count} prefixes, themselves included, and {MAX_NESTING} are looked at; leave some out"
    )]
    Nesting {
        /// The longest of them.
        prefix: Prefix,
        /// How many.
        count: usize,
    },
}

/// Passages by prefix.
#[must_use]
pub fn by_prefix(peers: &BTreeSet<FailsafePeer>) -> BTreeMap<Prefix, BTreeSet<Passage>> {
    let mut all: BTreeMap<Prefix, BTreeSet<Passage>> = BTreeMap::new();
    for peer in peers {
        all.entry(peer.prefix).or_default().insert(peer.passage);
    }
    all
}

/// Checks that the kernel's maps can hold `peers`.
///
/// # Errors
/// What is too much, with the numbers.
pub fn check(peers: &BTreeSet<FailsafePeer>) -> Result<(), FailsafeError> {
    let all = by_prefix(peers);
    if all.len() > MAX_PEERS as usize {
        return Err(FailsafeError::Prefixes(all.len()));
    }
    // In the map's order a prefix comes before those that it covers, with nothing else between.
    let mut around: Vec<Prefix> = Vec::new();
    for (prefix, passages) in all {
        let narrow = |passage: &&Passage| **passage != Passage::Everything;
        let count = passages.iter().filter(narrow).count();
        if count > MAX_PASSAGES as usize {
            return Err(FailsafeError::Passages { prefix, count });
        }
        while around.last().is_some_and(|wider| !wider.covers(&prefix)) {
            around.pop();
        }
        around.push(prefix);
        if around.len() > MAX_NESTING as usize {
            let count = around.len();
            return Err(FailsafeError::Nesting { prefix, count });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(prefix: &str, port: u16) -> FailsafePeer {
        let (address, length) = prefix.split_once('/').expect("a prefix");
        FailsafePeer {
            prefix: Prefix {
                address: address.parse().expect("an address"),
                length: length.parse().expect("a length"),
            },
            passage: Passage::Service {
                port: NonZeroU16::new(port).expect("a port"),
            },
        }
    }

    fn trusted(prefix: &str) -> FailsafePeer {
        FailsafePeer {
            passage: Passage::Everything,
            ..service(prefix, 1)
        }
    }

    fn words(peers: impl IntoIterator<Item = FailsafePeer>) -> String {
        let refused = check(&peers.into_iter().collect());
        refused.expect_err("too much").to_string()
    }

    #[test]
    fn a_prefix_covers_its_own_family_only() {
        let prefix = |text| trusted(text).prefix;
        assert!(prefix("10.0.0.0/8").covers(&prefix("10.1.2.3/32")));
        assert!(prefix("10.0.0.0/8").covers(&prefix("10.0.0.0/8")));
        assert!(!prefix("10.0.0.0/8").covers(&prefix("11.0.0.0/8")));
        assert!(!prefix("10.0.0.0/8").covers(&prefix("0.0.0.0/0")));
        assert!(prefix("0.0.0.0/0").covers(&prefix("203.0.113.9/32")));
        assert!(!prefix("::/0").covers(&prefix("203.0.113.9/32")));
    }

    #[test]
    fn a_peer_says_what_it_may() {
        let peer = service("192.0.2.1/32", 10_250);
        assert_eq!(peer.to_string(), "192.0.2.1/32 to tcp 10250");
        let replies = Passage::Replies {
            port: NonZeroU16::new(6443).expect("a port"),
            local_ports: PortRange::new(32_768, 60_999).expect("a range"),
        };
        let peer = FailsafePeer {
            passage: replies,
            ..peer
        };
        assert_eq!(
            peer.to_string(),
            "192.0.2.1/32 replies from tcp 6443 to 32768-60999"
        );
        assert_eq!(trusted("2001:db8::/32").to_string(), "2001:db8::/32");
        assert_eq!(PortRange::new(2, 1), None);
        assert_eq!(PortRange::new(0, 1), None);
    }

    #[test]
    fn four_passages_beside_everything_are_all_that_a_prefix_holds() {
        let mut peers: BTreeSet<_> = (1..=4).map(|port| service("192.0.2.1/32", port)).collect();
        peers.insert(trusted("192.0.2.1/32"));
        peers.insert(service("192.0.2.0/24", 5));
        assert_eq!(check(&peers), Ok(()));
        peers.insert(service("192.0.2.1/32", 6));
        assert_eq!(
            words(peers),
            "failsafe peers 192.0.2.1/32 have 5 services and replies, and there is room for 4; leave some out"
        );
    }

    #[test]
    fn prefixes_nest_four_deep() {
        let nested = ["10.0.0.0/8", "10.0.0.0/16", "10.0.0.0/24", "10.0.0.0/32"];
        let mut peers: BTreeSet<_> = nested.map(trusted).into();
        peers.extend(["10.1.0.0/16", "10.1.0.0/24", "10.1.0.1/32", "::/0"].map(trusted));
        assert_eq!(check(&peers), Ok(()));
        peers.insert(trusted("10.1.0.0/31"));
        assert_eq!(
            words(peers),
            "failsafe peers 10.1.0.1/32 lie in 5 prefixes, themselves included, and 4 are looked at; leave some out"
        );
    }

    #[test]
    fn prefixes_are_counted() {
        let hosts = (0..4097_u32).map(|host| FailsafePeer::trusted(IpAddr::V4(host.into()), 32));
        assert!(
            words(hosts)
                .starts_with("there are failsafe peers in 4097 prefixes, and room for 4096;")
        );
    }
}
