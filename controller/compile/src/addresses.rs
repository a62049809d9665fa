//! Sets of addresses, as sorted ranges.

use std::net::{Ipv4Addr, Ipv6Addr};

use headgate_crds::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address as a number in host order, of one family.
pub trait Address: Copy + Ord + std::fmt::Debug {
    /// The address before, or `None` at 0.
    fn before(self) -> Option<Self>;
    /// The address behind, or `None` at the last.
    fn behind(self) -> Option<Self>;
}

macro_rules! address {
    ($type:ty) => {
        impl Address for $type {
            fn before(self) -> Option<Self> {
                self.checked_sub(1)
            }
            fn behind(self) -> Option<Self> {
                self.checked_add(1)
            }
        }
    };
}
address!(u32);
address!(u128);

/// Sorted, disjoint ranges that do not touch; both ends belong to a range.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ranges<A>(Vec<(A, A)>);

impl<A> Default for Ranges<A> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<A: Address> Ranges<A> {
    /// The union of any ranges.
    #[must_use]
    pub fn from_any(mut ranges: Vec<(A, A)>) -> Self {
        // Stable: concatenated sorted runs, the usual case, are merged in linear time.
        ranges.sort();
        let mut merged: Vec<(A, A)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(open) if open.1.behind().is_none_or(|next| first <= next) => {
                    open.1 = open.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// The ranges.
    #[must_use]
    pub fn as_slice(&self) -> &[(A, A)] {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` lies in one.
    #[must_use]
    pub fn contains(&self, address: A) -> bool {
        let behind = self.0.partition_point(|(first, _)| *first <= address);
        behind > 0 && self.0[behind - 1].1 >= address
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut rest = Vec::with_capacity(self.0.len());
        let mut holes = other.0.iter().peekable();
        for &(first, last) in &self.0 {
            let mut from = Some(first);
            while let Some(&&(hole_first, hole_last)) = holes.peek() {
                let Some(start) = from else { break };
                if hole_last < start {
                    holes.next();
                    continue;
                }
                if hole_first > last {
                    break;
                }
                if let Some(end) = hole_first.before().filter(|end| *end >= start) {
                    rest.push((start, end));
                }
                if hole_last >= last {
                    from = None;
                } else {
                    from = hole_last.behind();
                    holes.next();
                }
            }
            if let Some(start) = from {
                rest.push((start, last));
            }
        }
        Self(rest)
    }
}

/// A set of IPv4 and IPv6 addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressSet {
    /// IPv4.
    pub v4: Ranges<u32>,
    /// IPv6.
    pub v6: Ranges<u128>,
}

impl AddressSet {
    /// The union of these networks; bits behind a prefix do not count.
    #[must_use]
    pub fn from_networks(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self {
            v4: Ranges::from_any(v4),
            v6: Ranges::from_any(v6),
        }
    }

    /// The union of these sets.
    #[must_use]
    pub fn union<'a>(sets: impl IntoIterator<Item = &'a Self> + Clone) -> Self {
        let v4 = sets.clone().into_iter().flat_map(|set| set.v4.0.iter());
        let v6 = sets.into_iter().flat_map(|set| set.v6.0.iter());
        Self {
            v4: Ranges::from_any(v4.copied().collect()),
            v6: Ranges::from_any(v6.copied().collect()),
        }
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            v4: self.v4.minus(&other.v4),
            v6: self.v6.minus(&other.v6),
        }
    }

    /// Whether it holds no address.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Number of ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.0.len() + self.v6.0.len()
    }
}

/// Written as `first-last`, a string for each range: no network of the original is kept.
impl Serialize for AddressSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let v4 = self.v4.0.iter().map(|(first, last)| {
            format!(
                "{}-{}",
                Ipv4Addr::from_bits(*first),
                Ipv4Addr::from_bits(*last)
            )
        });
        let v6 = self.v6.0.iter().map(|(first, last)| {
            format!(
                "{}-{}",
                Ipv6Addr::from_bits(*first),
                Ipv6Addr::from_bits(*last)
            )
        });
        serializer.collect_seq(v4.chain(v6))
    }
}

impl<'de> Deserialize<'de> for AddressSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for text in Vec::<String>::deserialize(deserializer)? {
            let (first, last) = text
                .split_once('-')
                .ok_or_else(|| serde::de::Error::custom("a range without '-'"))?;
            if first.contains(':') {
                v6.push((
                    parse::<Ipv6Addr, _>(first)?.to_bits(),
                    parse::<Ipv6Addr, _>(last)?.to_bits(),
                ));
            } else {
                v4.push((
                    parse::<Ipv4Addr, _>(first)?.to_bits(),
                    parse::<Ipv4Addr, _>(last)?.to_bits(),
                ));
            }
        }
        Ok(Self {
            v4: Ranges::from_any(v4),
            v6: Ranges::from_any(v6),
        })
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>, E: serde::de::Error>(
    text: &str,
) -> Result<T, E> {
    text.parse().map_err(E::custom)
}
