use proptest::{collection::vec, prelude::*};

use super::*;

const RING: u32 = 31;
const BACKENDS: u8 = 6;

fn address(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

fn backends(weights: &[(u8, u16)]) -> Weighted {
    weights.iter().map(|(n, w)| (address(*n), *w)).collect()
}

/// A history, and the number that the last numbering had.
#[derive(Default)]
struct Kept {
    history: History,
    epoch: u16,
}

impl Kept {
    fn has(&mut self, weights: &[(u8, u16)], now: u64) -> Option<Settling> {
        let backends = backends(weights);
        self.history
            .go_on(RING, backends, Seconds(now), &mut self.epoch);
        self.history.settle(true, &mut Rings::default())
    }
}

#[test]
fn at_rest_nothing_is_kept() {
    let mut kept = Kept::default();
    assert_eq!(kept.has(&[(1, 1), (2, 1)], 0), None);
    assert_eq!(kept.has(&[(2, 1), (1, 1)], 10), None);
    assert!(kept.history.former.is_empty());
    assert_eq!(kept.history.settles_at(), None);
}

#[test]
fn it_settles_for_an_hour_after_each_change() {
    let mut kept = Kept::default();
    kept.has(&[(1, 1)], 0);
    assert!(kept.has(&[(1, 1), (2, 1)], 100).is_some());
    assert_eq!(kept.history.settles_at(), Some(Seconds(100 + SETTLING)));
    assert!(kept.has(&[(1, 1), (2, 1), (3, 1)], 200).is_some());
    // The first change is over, the second is not.
    let last = kept.has(&[(1, 1), (2, 1), (3, 1)], 100 + SETTLING);
    let mut other = Kept::default();
    other.has(&[(1, 1), (2, 1)], 0);
    assert_eq!(last, other.has(&[(1, 1), (2, 1), (3, 1)], 1));
    assert_eq!(kept.has(&[(1, 1), (2, 1), (3, 1)], 200 + SETTLING), None);
    assert!(kept.history.numbers.is_empty());
}

#[test]
fn only_entries_of_backends_that_live_are_consulted() {
    let mut kept = Kept::default();
    kept.has(&[(1, 1), (2, 1), (3, 1)], 0);
    let gone = kept.has(&[(1, 1), (2, 1)], 1).map(|s| s.choices);
    // What the third had goes with the ring; few others have moved.
    let former = |choices: &Vec<[u16; 2]>| choices.iter().all(|[_, former]| *former < 2);
    assert!(gone.as_ref().is_none_or(former), "{gone:?}");
    let drained = kept.has(&[(1, 1), (2, 0)], 2).expect("it settles");
    assert!(drained.choices.contains(&[0, 1]), "{drained:?}");
    assert_eq!(
        kept.history.draining(true).collect::<Vec<_>>(),
        [address(2)]
    );
}

#[test]
fn backends_keep_their_numbers_and_each_settling_has_one_of_its_own() {
    let mut kept = Kept::default();
    kept.has(&[(1, 1), (3, 1)], 0);
    kept.has(&[(1, 1), (2, 1), (3, 1)], 1);
    let numbers = kept.history.numbers.clone();
    assert_eq!(kept.epoch, 1);
    let settling = kept.has(&[(3, 1), (4, 1)], 2).expect("it settles");
    assert_eq!(kept.history.numbers[..3], numbers);
    let listed = settling
        .listed
        .iter()
        .flatten()
        .map(|(address, _)| *address);
    assert_eq!(listed.collect::<Vec<_>>(), [address(3), address(4)]);
    assert_eq!(kept.epoch, 1);
    kept.has(&[(3, 1), (4, 1)], 2 + SETTLING);
    kept.has(&[(3, 1)], 3 + SETTLING);
    assert_eq!((kept.epoch, kept.history.epoch), (2, 2));
}

#[test]
fn rings_of_two_sizes_have_nothing_to_do_with_each_other() {
    let mut kept = Kept::default();
    kept.has(&[(1, 1)], 0);
    kept.has(&[(1, 1), (2, 1)], 1);
    let mut epoch = kept.epoch;
    let same = backends(&[(1, 1), (2, 1)]);
    kept.history.go_on(37, same, Seconds(2), &mut epoch);
    assert_eq!(kept.history.settle(true, &mut Rings::default()), None);
}

#[test]
fn a_family_without_backends_has_no_ring() {
    let mut kept = Kept::default();
    kept.has(&[(1, 1)], 0);
    assert_eq!(kept.has(&[], 1), None);
    assert_eq!(kept.history.settle(false, &mut Rings::default()), None);
    kept.has(&[(1, 1), (2, 1)], 2);
}

#[test]
fn of_many_changes_the_oldest_is_forgotten() {
    let mut kept = Kept::default();
    for number in 0..20 {
        kept.has(&[(1, 1), (number + 2, 1)], number.into());
    }
    assert_eq!(kept.history.former.len(), MAX_ERAS);
}

/// A connection, as a table without bounds would keep it.
struct Connection {
    entry: u32,
    backend: IpAddr,
    placed: Option<IpAddr>,
}

proptest! {
    /// Whoever is at a backend that lives on stays there, whatever changes; whoever begins goes with the ring.
    #[test]
    fn connections_stay_and_new_ones_go_with_the_ring(
        changes in vec(vec(0_u16..4, usize::from(BACKENDS)), 1..MAX_ERAS + 1),
    ) {
        let mut kept = Kept::default();
        let mut connections: Vec<Connection> = Vec::new();
        for (now, weights) in (0..).zip(changes) {
            // 3 stands for one that is not there.
            let listed: Vec<(u8, u16)> = (0..).zip(weights).filter(|(_, w)| *w < 3).collect();
            let all = backends(&listed);
            let weighted: Weighted = all.iter().filter(|b| b.1 > 0).copied().collect();
            prop_assume!(!weighted.is_empty());
            let settling = kept.has(&listed, now);
            let ring = Rings::default().of(&weighted, RING);
            let new_at = |entry: u32| weighted[usize::from(ring[entry as usize])].0;
            let lives = |address: IpAddr| all.iter().any(|(living, _)| *living == address);
            connections.retain(|connection| lives(connection.backend));
            let is_choice = |entry: u32| settling.as_ref().is_some_and(|settling| {
                usize::from(settling.ring[entry as usize]) >= settling.listed.len()
            });
            for connection in &connections {
                let (new, former) = match &settling {
                    Some(settling) => settling.at(connection.entry).expect("an entry"),
                    None => (new_at(connection.entry), new_at(connection.entry)),
                };
                prop_assert_eq!(new, new_at(connection.entry));
                let found = match connection.placed.filter(|placed| lives(*placed)) {
                    _ if !is_choice(connection.entry) => new,
                    Some(placed) => placed,
                    None => former,
                };
                prop_assert_eq!(found, connection.backend);
            }
            connections.extend((0..RING).map(|entry| Connection {
                entry,
                backend: new_at(entry),
                placed: is_choice(entry).then(|| new_at(entry)),
            }));
        }
    }
}
