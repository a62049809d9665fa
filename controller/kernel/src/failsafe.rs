//! Failsafe peers as keys of the trie and bits before it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use headgate_datapath::{kernel::KernelError, state::FailsafePeer};
use headgate_layout::failsafe::{
    BITMAP_BYTES, FAMILY_V4, FAMILY_V6, MAX_PEERS, PeerKey, bit_v4, bit_v6,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::{
    bpf::Map,
    error::{Asked, absent, unusable},
};

/// Length of the prefix in which IPv4 lies.
const MAPPED: u32 = 96;

fn family_of(peer: &FailsafePeer) -> u32 {
    match peer.address {
        IpAddr::V4(_) => FAMILY_V4,
        IpAddr::V6(_) => FAMILY_V6,
    }
}

fn key_of(peer: &FailsafePeer) -> PeerKey {
    let (address, offset) = match peer.address {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), MAPPED),
        IpAddr::V6(address) => (address, 0),
    };
    PeerKey {
        prefix_length: offset + u32::from(peer.prefix_length),
        address: address.octets(),
    }
}

fn peer_of(key: &PeerKey, family: u32) -> FailsafePeer {
    let address = Ipv6Addr::from(key.address);
    // Lengths are at most 128.
    let length = key.prefix_length as u8;
    if family == FAMILY_V4 {
        let [.., a, b, c, d] = key.address;
        return FailsafePeer {
            address: Ipv4Addr::new(a, b, c, d).into(),
            prefix_length: length.saturating_sub(MAPPED as u8),
        };
    }
    FailsafePeer {
        address: address.into(),
        prefix_length: length,
    }
}

/// Bits that stand for some address of `peer`.
fn bits_of(peer: &FailsafePeer) -> RangeInclusive<u32> {
    let length = u32::from(peer.prefix_length);
    match peer.address {
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

fn set(bitmap: &mut [u8], peer: &FailsafePeer) {
    for bit in bits_of(peer) {
        bitmap[bit as usize / 8] |= 1 << (bit % 8);
    }
}

fn has(bitmap: &[u8], peer: &FailsafePeer) -> bool {
    bits_of(peer).all(|bit| bitmap[bit as usize / 8] & (1 << (bit % 8)) != 0)
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
        let mut peers = self.entries()?;
        peers.retain(|peer| has(&bitmap, peer));
        Ok(peers)
    }

    fn entries(&self) -> Result<BTreeSet<FailsafePeer>, KernelError> {
        let asked = || "reading the failsafe peers".to_owned();
        let mut peers = BTreeSet::new();
        let mut last: Option<Vec<u8>> = None;
        while let Some(bytes) = self.trie.next_key(last.as_deref()).asked(asked)? {
            let value = self.trie.lookup(&bytes).asked(asked)?;
            let key =
                PeerKey::read_from_bytes(&bytes).expect("the map was checked to be of its shape");
            let family =
                u32::read_from_bytes(&value).expect("the map was checked to be of its shape");
            peers.insert(peer_of(&key, family));
            last = Some(bytes);
        }
        Ok(peers)
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
        let mut bitmap = self.bitmap()?;
        peers.iter().for_each(|peer| set(&mut bitmap, peer));
        self.write_bitmap(&bitmap)?;
        for peer in peers {
            let value = family_of(peer).to_ne_bytes();
            let written = self.trie.update(key_of(peer).as_bytes(), &value);
            if let Err(error) = &written
                && error.raw_os_error() == Some(libc::ENOSPC)
            {
                return Err(unusable(
                    format!("there is no room for failsafe peer {peer}"),
                    format!("give at most {MAX_PEERS} peers"),
                ));
            }
            written.asked(|| format!("adding failsafe peer {peer}"))?;
        }
        Ok(())
    }

    /// Entries first, for the reason given at [`Self::add`]; the bits are then those of the peers
    /// that are left, for peers share bits.
    pub(crate) fn remove(&self, peers: &BTreeSet<FailsafePeer>) -> Result<(), KernelError> {
        for peer in peers {
            match self.trie.delete(key_of(peer).as_bytes()) {
                Err(error) if absent(&error) => {}
                answer => answer.asked(|| format!("removing failsafe peer {peer}"))?,
            }
        }
        let mut bitmap = vec![0; BITMAP_BYTES as usize];
        let left = self.entries()?;
        left.iter().for_each(|peer| set(&mut bitmap, peer));
        self.write_bitmap(&bitmap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> FailsafePeer {
        let (address, length) = text.split_once('/').expect("a prefix");
        FailsafePeer {
            address: address.parse().expect("an address"),
            prefix_length: length.parse().expect("a length"),
        }
    }

    #[test]
    fn a_key_gives_its_peer_back() {
        for text in [
            "0.0.0.0/0",
            "10.1.2.3/32",
            "::/0",
            "2001:db8::/32",
            "::1/128",
        ] {
            let peer = peer(text);
            assert_eq!(peer_of(&key_of(&peer), family_of(&peer)), peer);
        }
    }

    #[test]
    fn every_address_of_a_peer_has_its_bit() {
        let mut bitmap = vec![0; BITMAP_BYTES as usize];
        let is_set = |bitmap: &[u8], bit: u32| bitmap[bit as usize / 8] & (1 << (bit % 8)) != 0;
        set(&mut bitmap, &peer("10.0.0.0/15"));
        assert!(is_set(&bitmap, bit_v4(0x0a00_ffff)));
        assert!(is_set(&bitmap, bit_v4(0x0a01_0000)));
        assert!(!is_set(&bitmap, bit_v4(0x0a02_0000)));
        set(&mut bitmap, &peer("2001:db8:12::/47"));
        assert!(is_set(&bitmap, bit_v6(0x2001_0db8_0013_ffff)));
        assert!(!is_set(&bitmap, bit_v6(0x2001_0db8_0014_0000)));
    }

    #[test]
    fn the_whole_of_each_family_keeps_to_its_half() {
        assert_eq!(bits_of(&peer("0.0.0.0/0")), 0..=0xffff);
        assert_eq!(bits_of(&peer("::/0")), 0x1_0000..=0x1_ffff);
        assert_eq!(bits_of(&peer("fe80::/10")), 0x1_0000..=0x1_ffff);
    }
}
