//! When peers were last heard: by their places in the tables, which change with the tables.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use headgate_datapath::kernel::KernelError;
use headgate_layout::tunnel::{Peer, Seen, TUNNEL, Tunnel};
use rustix::time::{ClockId, clock_gettime};
use zerocopy::{FromBytes, IntoBytes};

use super::tables::{self, Maps};
use crate::{bpf::Mapped, error::Asked};

/// Entries of one call.
const BATCH: usize = 1024;

/// The last word of each endpoint, in host order.
pub(super) type Words = BTreeMap<[u64; 2], Seen>;

/// How long ago each endpoint was heard, as far as it was.
pub(super) fn ages(maps: &Maps) -> Result<BTreeMap<IpAddr, Duration>, KernelError> {
    let now = clock_gettime(ClockId::Monotonic).tv_sec;
    let age = |(endpoint, seen): ([u64; 2], Seen)| {
        let second = i64::from(seen.second()?);
        let seconds = u64::try_from(now - second).unwrap_or(0);
        Some((address(endpoint), Duration::from_secs(seconds)))
    };
    Ok(words(maps)?.into_iter().filter_map(age).collect())
}

/// What the live tables' endpoints have.
pub(super) fn words(maps: &Maps) -> Result<Words, KernelError> {
    let asked = || "reading when peers were heard".to_owned();
    let Some(block) = tables::current(&maps.tables)? else {
        return Ok(Words::new());
    };
    let endpoints = endpoints(Mapped::new(&block).asked(asked)?.bytes());
    let mut words = Words::new();
    for (batch, first) in endpoints.chunks(BATCH).zip((0..).step_by(BATCH)) {
        let values = maps.seen.lookup_batch(first, batch.len() as u32);
        let values = values.asked(asked)?;
        let seen = values.chunks_exact(size_of::<Seen>()).map(|bytes| {
            let word = Seen::read_from_bytes(bytes);
            word.expect("the map was checked to be of its shape")
        });
        // Several peers may have one endpoint.
        for (endpoint, seen) in batch.iter().zip(seen) {
            let known = words.entry(*endpoint).or_default();
            if seen.second() > known.second() {
                *known = seen;
            }
        }
    }
    Ok(words)
}

/// Gives the endpoints of the tables `block` what they had at their former places.
pub(super) fn put(maps: &Maps, block: &[u8], former: &Words) -> Result<(), KernelError> {
    let endpoints = endpoints(block);
    let keys: Vec<u32> = (0..endpoints.len() as u32).collect();
    for (keys, endpoints) in keys.chunks(BATCH).zip(endpoints.chunks(BATCH)) {
        let word = |endpoint| former.get(endpoint).copied().unwrap_or_default();
        let words: Vec<Seen> = endpoints.iter().map(word).collect();
        let written = maps.seen.update_batch(keys, words.as_bytes());
        written.asked(|| "noting when peers were heard".to_owned())?;
    }
    Ok(())
}

/// Endpoints by place; none where the block tells nonsense.
fn endpoints(block: &[u8]) -> Vec<[u64; 2]> {
    let peers = || {
        let tunnel = block.get(TUNNEL as usize..)?;
        let (tunnel, _) = Tunnel::read_from_prefix(tunnel).ok()?;
        let length = (tunnel.count as usize).checked_mul(size_of::<Peer>())?;
        block.get(tunnel.peers as usize..)?.get(..length)
    };
    let records = peers().unwrap_or_default().chunks_exact(size_of::<Peer>());
    let peer = |bytes| Peer::read_from_bytes(bytes).map_or([0; 2], |peer| peer.endpoint);
    records.map(peer).collect()
}

fn address([upper, lower]: [u64; 2]) -> IpAddr {
    let bits = u128::from(upper) << 64 | u128::from(lower);
    std::net::Ipv6Addr::from_bits(bits).to_canonical()
}
