//! Whether peers are there, by what was heard of them; pure, the time is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use headgate_compile::memory::Seconds;
use serde::{Deserialize, Serialize};

/// Whether a peer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// Packets of the tunnel come from it, or its endpoint answers.
    Reachable,
    /// Neither.
    Unreachable,
}

/// How it has been with one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reachability {
    /// What it is.
    pub state: Reach,
    /// When that was found first.
    pub since: Seconds,
    /// Why it was found unreachable.
    pub reason: Option<String>,
}

/// Endpoints by what was found of them.
pub type Book = BTreeMap<IpAddr, Reachability>;

/// Notes what was heard of an endpoint: that it is there, or why it seems not to be. The first reason stays,
/// for the kernel's words change while it tries on; and so does the time.
pub(crate) fn note(book: &mut Book, endpoint: IpAddr, heard: Result<(), String>, now: Seconds) {
    let (state, reason) = match heard {
        Ok(()) => (Reach::Reachable, None),
        Err(reason) => (Reach::Unreachable, Some(reason)),
    };
    if book.get(&endpoint).is_none_or(|known| known.state != state) {
        let found = Reachability {
            state,
            since: now,
            reason,
        };
        book.insert(endpoint, found);
    }
}

/// Who is asked next: those that were asked longest ago, so many of them.
pub(crate) fn due<T: Copy + Ord>(
    silent: &BTreeSet<IpAddr>,
    asked: &BTreeMap<IpAddr, T>,
    most: usize,
) -> Vec<IpAddr> {
    let mut silent: Vec<IpAddr> = silent.iter().copied().collect();
    silent.sort_by_key(|endpoint| asked.get(endpoint).copied());
    silent.truncate(most);
    silent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_new_while_a_peer_is_as_it_was() {
        let (mut book, peer) = (Book::new(), IpAddr::from([192, 0, 2, 1]));
        note(&mut book, peer, Ok(()), Seconds(1));
        let first = book.clone();
        note(&mut book, peer, Ok(()), Seconds(9));
        assert_eq!(book, first);
        note(&mut book, peer, Err("silent".to_owned()), Seconds(10));
        let gone = book.clone();
        assert_eq!(gone[&peer].since, Seconds(10));
        note(&mut book, peer, Err("no route".to_owned()), Seconds(20));
        assert_eq!(book, gone);
        note(&mut book, peer, Ok(()), Seconds(30));
        let back = Reachability {
            state: Reach::Reachable,
            since: Seconds(30),
            reason: None,
        };
        assert_eq!(book[&peer], back);
    }

    #[test]
    fn everybody_has_a_turn() {
        let peers: BTreeSet<IpAddr> = (1..=5).map(|n| IpAddr::from([192, 0, 2, n])).collect();
        let mut asked = BTreeMap::new();
        for round in 0..5 {
            for peer in due(&peers, &asked, 2) {
                asked.insert(peer, round);
            }
        }
        assert_eq!(asked.len(), 5);
        assert!(asked.values().all(|round| *round >= 2), "{asked:?}");
    }
}
