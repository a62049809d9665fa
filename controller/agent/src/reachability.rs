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
    /// Neither, three times in a row.
    Unreachable,
    /// It is silent, and its endpoint never answered although packets came from it: something drops the
    /// questions, so that its silence says nothing.
    Unknown,
}

/// What was heard of an endpoint in one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A packet of the tunnel.
    Packet,
    /// An answer of its endpoint.
    Answer,
    /// Nothing, for this reason.
    Nothing(String),
}

/// So many rounds without anything make an endpoint unreachable: one question may be lost.
const MISSES: u8 = 3;

/// So many rounds with packets make an endpoint reachable again that answers nothing: one that has traffic at
/// times would else come and go.
const PACKETS: u8 = 15;

/// What the last rounds say of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trend {
    /// Questions have been answered.
    answers: bool,
    /// Packets have come.
    sends: bool,
    /// Rounds in a row in which nothing was heard.
    misses: u8,
    /// Rounds in a row in which packets came.
    packets: u8,
}

impl Trend {
    /// Of an endpoint, of which packets have come, or none yet.
    fn new(sends: bool) -> Self {
        Self {
            sends,
            ..Self::default()
        }
    }

    /// What this round makes of an endpoint that was in this state; `None` where that stays.
    fn turn(&mut self, heard: &Heard, former: Option<Reach>) -> Option<Reach> {
        let (misses, packets) = (self.misses, self.packets);
        (self.misses, self.packets) = (0, 0);
        match heard {
            Heard::Packet => {
                self.sends = true;
                self.packets = packets.saturating_add(1);
                let is_sure = former != Some(Reach::Unknown) || self.packets >= PACKETS;
                is_sure.then_some(Reach::Reachable)
            }
            Heard::Answer => {
                self.answers = true;
                Some(Reach::Reachable)
            }
            Heard::Nothing(_) => {
                self.misses = misses.saturating_add(1);
                let says_nothing = self.sends && !self.answers;
                let is_sure = self.misses >= MISSES;
                is_sure.then_some(match says_nothing {
                    true => Reach::Unknown,
                    false => Reach::Unreachable,
                })
            }
        }
    }
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

/// Notes what was heard of an endpoint; of one that is new here, also whether packets of it ever came. The first reason stays, for the kernel's words change while it tries on;
/// and so does the time.
pub(crate) fn note(
    book: &mut Book,
    trends: &mut BTreeMap<IpAddr, Trend>,
    (endpoint, sends): (IpAddr, bool),
    heard: Heard,
    now: Seconds,
) {
    let former = book.get(&endpoint).map(|known| known.state);
    let trend = trends.entry(endpoint);
    let trend = trend.or_insert_with(|| Trend::new(sends));
    let Some(state) = trend.turn(&heard, former) else {
        return;
    };
    let reason = match heard {
        Heard::Nothing(reason) => Some(reason),
        Heard::Packet | Heard::Answer => None,
    };
    if former != Some(state) {
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

    /// A peer that is heard so, a round a second.
    struct Peer {
        book: Book,
        trends: BTreeMap<IpAddr, Trend>,
        now: u64,
        /// Whether packets came before.
        sends: bool,
    }

    impl Peer {
        const ENDPOINT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

        fn new(known: Option<Reachability>) -> Self {
            Self {
                book: known
                    .map(|known| (Self::ENDPOINT, known))
                    .into_iter()
                    .collect(),
                trends: BTreeMap::new(),
                now: 0,
                sends: false,
            }
        }

        /// What is known after so many rounds of this.
        fn after(&mut self, rounds: u64, heard: &Heard) -> Option<Reachability> {
            for _ in 0..rounds {
                self.now += 1;
                let (book, trends) = (&mut self.book, &mut self.trends);
                let endpoint = (Self::ENDPOINT, self.sends);
                note(book, trends, endpoint, heard.clone(), Seconds(self.now));
            }
            self.book.get(&Self::ENDPOINT).cloned()
        }
    }

    fn found(state: Reach, since: u64, reason: Option<&str>) -> Option<Reachability> {
        Some(Reachability {
            state,
            since: Seconds(since),
            reason: reason.map(str::to_owned),
        })
    }

    fn nothing(reason: &str) -> Heard {
        Heard::Nothing(reason.to_owned())
    }

    #[test]
    fn nothing_is_new_while_a_peer_is_as_it_was() {
        let mut peer = Peer::new(None);
        let reachable = found(Reach::Reachable, 1, None);
        assert_eq!(peer.after(9, &Heard::Answer), reachable);
        assert_eq!(peer.after(2, &nothing("lost")), reachable);
        assert_eq!(peer.after(1, &Heard::Answer), reachable);
        let gone = found(Reach::Unreachable, 15, Some("silent"));
        assert_eq!(peer.after(3, &nothing("silent")), gone);
        assert_eq!(peer.after(9, &nothing("no route")), gone);
        let back = found(Reach::Reachable, 25, None);
        assert_eq!(peer.after(1, &Heard::Packet), back);
    }

    #[test]
    fn a_peer_that_was_never_heard_is_unreachable() {
        let mut peer = Peer::new(None);
        assert_eq!(peer.after(2, &nothing("silent")), None);
        let gone = found(Reach::Unreachable, 3, Some("silent"));
        assert_eq!(peer.after(1, &nothing("silent")), gone);
        // A packet, and then the questions are answered: it is known that they get there.
        peer.after(1, &Heard::Packet);
        peer.after(1, &Heard::Answer);
        let gone = found(Reach::Unreachable, 8, Some("silent"));
        assert_eq!(peer.after(3, &nothing("silent")), gone);
    }

    #[test]
    fn the_silence_of_a_peer_that_answers_nothing_says_nothing() {
        let mut peer = Peer::new(None);
        peer.after(5, &Heard::Packet);
        let unknown = found(Reach::Unknown, 8, Some("dropped"));
        assert_eq!(peer.after(3, &nothing("dropped")), unknown);
        for _ in 0..10 {
            assert_eq!(peer.after(5, &Heard::Packet), unknown);
            assert_eq!(peer.after(5, &nothing("dropped")), unknown);
        }
        let back = found(Reach::Reachable, peer.now + 15, None);
        assert_eq!(peer.after(20, &Heard::Packet), back);
    }

    #[test]
    fn a_restart_forgets_no_silence_that_says_nothing() {
        let unknown = found(Reach::Unknown, 0, Some("dropped"));
        let mut peer = Peer {
            sends: true,
            ..Peer::new(unknown.clone())
        };
        assert_eq!(peer.after(9, &nothing("dropped")), unknown);
        // One that was just idle is none that went away.
        let mut idle = Peer {
            sends: true,
            ..Peer::new(found(Reach::Reachable, 0, None))
        };
        let now_unknown = found(Reach::Unknown, 3, Some("dropped"));
        assert_eq!(idle.after(9, &nothing("dropped")), now_unknown);
        let reachable = found(Reach::Reachable, 10, None);
        assert_eq!(peer.after(1, &Heard::Answer), reachable);
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
