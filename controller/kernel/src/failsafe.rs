//! Failsafe peers as keys of the trie and bits before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU16,
    ops::RangeInclusive,
};

use headgate_datapath::{
    failsafe::{FailsafePeer, Passage, PortRange, Prefix, by_prefix},
    kernel::KernelError,
};
use headgate_layout::{
    failsafe::{self as layout, BITMAP_BYTES, FAMILY_V4, FAMILY_V6, Peer, PeerKey, bit_v4, bit_v6},
    maps::FAILSAFE,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    bpf::Map,
    error::{Asked, absent, unusable},
};

/// Length of the prefix in which IPv4 lies.
const MAPPED: u32 = 96;

fn key_of(prefix: &Prefix) -> PeerKey {
    let (address, offset) = match prefix.address {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), MAPPED),
        IpAddr::V6(address) => (address, 0),
    };
    PeerKey {
        prefix_length: offset + u32::from(prefix.length),
        address: address.octets(),
    }
}

fn prefix_of(key: &PeerKey, family: u16) -> Prefix {
    let address = Ipv6Addr::from(key.address);
    // Lengths are at most 128.
    let length = key.prefix_length as u8;
    if family == FAMILY_V4 {
        let [.., a, b, c, d] = key.address;
        return Prefix {
            address: Ipv4Addr::new(a, b, c, d).into(),
            length: length.saturating_sub(MAPPED as u8),
        };
    }
    Prefix {
        address: address.into(),
        length,
    }
}

/// `None` where there is no room for so many passages.
fn value_of(prefix: &Prefix, passages: &BTreeSet<Passage>) -> Option<Peer> {
    let mut peer = Peer {
        family: match prefix.address {
            IpAddr::V4(_) => FAMILY_V4,
            IpAddr::V6(_) => FAMILY_V6,
        },
        prefix_length: key_of(prefix).prefix_length,
        ..Peer::default()
    };
    let mut room = peer.passages.iter_mut();
    for passage in passages {
        match passage {
            Passage::Everything => peer.everything = 1,
            Passage::Replies { port, local_ports } => {
                *room.next()? = layout::Passage {
                    source_port: port.get(),
                    first: local_ports.first.get(),
                    last: local_ports.last.get(),
                    padding: 0,
                };
            }
            Passage::Service { port } => {
                *room.next()? = layout::Passage {
                    first: port.get(),
                    last: port.get(),
                    ..layout::Passage::default()
                };
            }
        }
    }
    Some(peer)
}

fn passages_of(peer: &Peer) -> BTreeSet<Passage> {
    let everything = (peer.everything != 0).then_some(Passage::Everything);
    let narrow = peer.passages.iter().filter_map(passage_of);
    everything.into_iter().chain(narrow).collect()
}

/// `None` where the place is unused.
fn passage_of(passage: &layout::Passage) -> Option<Passage> {
    match NonZeroU16::new(passage.source_port) {
        Some(port) => Some(Passage::Replies {
            port,
            local_ports: PortRange::new(passage.first, passage.last)?,
        }),
        None => Some(Passage::Service {
            port: NonZeroU16::new(passage.last)?,
        }),
    }
}

/// Bits that stand for some address of `prefix`.
fn bits_of(prefix: &Prefix) -> RangeInclusive<u32> {
    let length = u32::from(prefix.length);
    match prefix.address {
        IpAddr::V4(address) => {
            let first = bit_v4(address.to_bits());
            let free = 16_u32.saturating_sub(length);
            first..=first + ((1 << free) - 1)
        }
        IpAddr::V6(address) => {
            let first = bit_v6((address.to_bits() >> 64) as u64);
            // The bits before the 16 that count are unknown: every one of those may occur.
            if length < 32 {
                return bit_v6(0)..=bit_v6(u64::MAX);
            }
            let free = 48_u32.saturating_sub(length);
            first..=first + ((1 << free) - 1)
        }
    }
}

fn set(bitmap: &mut [u8], prefix: &Prefix) {
    for bit in bits_of(prefix) {
        bitmap[bit as usize / 8] |= 1 << (bit % 8);
    }
}

fn has(bitmap: &[u8], prefix: &Prefix) -> bool {
    bits_of(prefix).all(|bit| bitmap[bit as usize / 8] & (1 << (bit % 8)) != 0)
}

/// The trie and its bitmap.
pub(crate) struct Failsafe<'a> {
    pub(crate) trie: &'a Map,
    pub(crate) bits: &'a Map,
}

/// Key of the bitmap's only entry.
const ONLY: [u8; 4] = [0; 4];

impl Failsafe<'_> {
    /// Peers that are let through: those with an entry in the trie and all their bits.
    pub(crate) fn peers(&self) -> Result<BTreeSet<FailsafePeer>, KernelError> {
        let bitmap = self.bitmap()?;
        let entries = self.entries()?.into_iter();
        let found = entries.filter(|(prefix, _)| has(&bitmap, prefix));
        let peers = found.flat_map(|(prefix, passages)| {
            let peer = move |passage| FailsafePeer { prefix, passage };
            passages.into_iter().map(peer)
        });
        Ok(peers.collect())
    }

    fn entries(&self) -> Result<BTreeMap<Prefix, BTreeSet<Passage>>, KernelError> {
        let asked = || "reading the failsafe peers".to_owned();
        let mut entries = BTreeMap::new();
        let mut last: Option<Vec<u8>> = None;
        while let Some(bytes) = self.trie.next_key(last.as_deref()).asked(asked)? {
            let value = self.trie.lookup(&bytes).asked(asked)?;
            let key =
                PeerKey::read_from_bytes(&bytes).expect("the map was checked to be of its shape");
            let peer =
                Peer::read_from_bytes(&value).expect("the map was checked to be of its shape");
            entries.insert(prefix_of(&key, peer.family), passages_of(&peer));
            last = Some(bytes);
        }
        Ok(entries)
    }

    fn bitmap(&self) -> Result<Vec<u8>, KernelError> {
        self.bits
            .lookup(&ONLY)
            .asked(|| "reading the failsafe bitmap".to_owned())
    }

    fn write_bitmap(&self, bitmap: &[u8]) -> Result<(), KernelError> {
        self.bits
            .update(&ONLY, bitmap)
            .asked(|| "writing the failsafe bitmap".to_owned())
    }

    /// Bits first: a bit without an entry costs a look-up, an entry without its bit is never found.
    /// So a peer is let through from the moment that its entry is there, and a run that is cut
    /// short leaves nobody out who was let through before.
    pub(crate) fn add(&self, peers: &BTreeSet<FailsafePeer>) -> Result<(), KernelError> {
        let new = by_prefix(peers);
        let mut bitmap = self.bitmap()?;
        new.keys().for_each(|prefix| set(&mut bitmap, prefix));
        self.write_bitmap(&bitmap)?;
        let old = self.entries()?;
        for (prefix, mut passages) in new {
            passages.extend(old.get(&prefix).into_iter().flatten());
            self.write(&prefix, &passages)?;
        }
        Ok(())
    }

    fn write(&self, prefix: &Prefix, passages: &BTreeSet<Passage>) -> Result<(), KernelError> {
        let Some(value) = value_of(prefix, passages) else {
            return Err(unusable(
                format!(
                    "there is no room for {} passages of failsafe peers {prefix}",
                    passages.len()
                ),
                format!("give at most {} at a time", layout::MAX_PASSAGES),
            ));
        };
        let written = self
            .trie
            .update(key_of(prefix).as_bytes(), value.as_bytes());
        if let Err(error) = &written
            && error.raw_os_error() == Some(libc::ENOSPC)
        {
            return Err(unusable(
                format!(
                    "there is no room for failsafe peers {prefix} beside {} other prefixes, old ones included",
                    FAILSAFE.max_entries
                ),
                format!("give at most {} prefixes", layout::MAX_PEERS),
            ));
        }
        written.asked(|| format!("adding failsafe peers {prefix}"))
    }

    /// Entries first, for the reason given at [`Self::add`]; the bits are then those of the peers
    /// that are left, for peers share bits.
    pub(crate) fn remove(&self, peers: &BTreeSet<FailsafePeer>) -> Result<(), KernelError> {
        let mut left = self.entries()?;
        for (prefix, gone) in by_prefix(peers) {
            let Some(passages) = left.get_mut(&prefix) else {
                continue;
            };
            passages.retain(|passage| !gone.contains(passage));
            if !passages.is_empty() {
                self.write(&prefix, passages)?;
                continue;
            }
            left.remove(&prefix);
            match self.trie.delete(key_of(&prefix).as_bytes()) {
                Err(error) if absent(&error) => {}
                answer => answer.asked(|| format!("removing failsafe peers {prefix}"))?,
            }
        }
        let mut bitmap = vec![0; BITMAP_BYTES as usize];
        left.keys().for_each(|prefix| set(&mut bitmap, prefix));
        self.write_bitmap(&bitmap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').expect("a prefix");
        Prefix {
            address: address.parse().expect("an address"),
            length: length.parse().expect("a length"),
        }
    }

    fn services(ports: RangeInclusive<u16>) -> BTreeSet<Passage> {
        let ports = ports.filter_map(NonZeroU16::new);
        ports.map(|port| Passage::Service { port }).collect()
    }

    #[test]
    fn a_value_gives_its_passages_back() {
        let prefix = prefix("10.1.2.3/32");
        let mut passages = services(10_250..=10_253);
        passages.insert(Passage::Replies {
            port: NonZeroU16::MAX,
            local_ports: PortRange::new(1, u16::MAX).expect("a range"),
        });
        for everything in [false, true] {
            if everything {
                passages.insert(Passage::Everything);
            }
            let value = value_of(&prefix, &passages).expect("room");
            assert_eq!(passages_of(&value), passages);
        }
        assert_eq!(passages_of(&Peer::default()), BTreeSet::new());
    }

    #[test]
    fn there_is_room_for_old_and_new_passages_and_no_more() {
        let prefix = prefix("10.1.2.3/32");
        let room = (layout::CHANGING * layout::MAX_PASSAGES) as u16;
        assert!(value_of(&prefix, &services(1..=room)).is_some());
        assert_eq!(value_of(&prefix, &services(1..=room + 1)), None);
    }

    #[test]
    fn a_key_gives_its_prefix_back() {
        for text in [
            "0.0.0.0/0",
            "10.1.2.3/32",
            "::/0",
            "2001:db8::/32",
            "::1/128",
        ] {
            let prefix = prefix(text);
            let value = value_of(&prefix, &BTreeSet::new()).expect("room");
            assert_eq!(prefix_of(&key_of(&prefix), value.family), prefix);
        }
    }

    #[test]
    fn every_address_of_a_peer_has_its_bit() {
        let mut bitmap = vec![0; BITMAP_BYTES as usize];
        let is_set = |bitmap: &[u8], bit: u32| bitmap[bit as usize / 8] & (1 << (bit % 8)) != 0;
        set(&mut bitmap, &prefix("10.0.0.0/15"));
        assert!(is_set(&bitmap, bit_v4(0x0a00_ffff)));
        assert!(is_set(&bitmap, bit_v4(0x0a01_0000)));
        assert!(!is_set(&bitmap, bit_v4(0x0a02_0000)));
        set(&mut bitmap, &prefix("2001:db8:12::/47"));
        assert!(is_set(&bitmap, bit_v6(0x2001_0db8_0013_ffff)));
        assert!(!is_set(&bitmap, bit_v6(0x2001_0db8_0014_0000)));
    }

    #[test]
    fn the_whole_of_each_family_keeps_to_its_half() {
        assert_eq!(bits_of(&prefix("0.0.0.0/0")), 0..=0xffff);
        assert_eq!(bits_of(&prefix("::/0")), 0x1_0000..=0x1_ffff);
        assert_eq!(bits_of(&prefix("fe80::/10")), 0x1_0000..=0x1_ffff);
    }
}
