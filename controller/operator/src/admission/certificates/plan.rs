//! What is to become of the certificates: pure, with the time passed in.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use super::Lifetimes;

/// The next look is not later, whatever the clock does meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// The certificates that there are, as far as plans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Present {
    /// Ends of the authorities, the newest last. Its key alone is kept.
    pub(super) authorities: Vec<SystemTime>,
    /// The server's certificate; `None` where it cannot be used.
    pub(super) leaf: Option<Leaf>,
}

/// The server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    pub(super) ends: SystemTime,
    /// What it is for.
    pub(super) names: BTreeSet<String>,
    /// Which of the authorities signed it.
    pub(super) signed_by: usize,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// How many of the authorities, from the oldest, leave the bundle.
    pub(super) retire: usize,
    /// Whether an authority is made.
    pub(super) new_authority: bool,
    /// Whether the newest authority signs a new certificate.
    pub(super) new_leaf: bool,
    /// When to plan again, if nothing happens before.
    pub(super) next: SystemTime,
}

impl Plan {
    /// Whether the Secret stays as it is.
    pub(super) fn keeps_all(&self) -> bool {
        self.retire == 0 && !self.new_authority && !self.new_leaf
    }
}

/// Plans by what is `present`, for a server with these `names`. `published` is since when the
/// newest authority is known to be in the webhook's configuration.
pub(super) fn plan(
    present: &Present,
    names: &BTreeSet<String>,
    lifetimes: &Lifetimes,
    published: Option<SystemTime>,
    now: SystemTime,
) -> Plan {
    let authorities = &present.authorities;
    // An authority outlives all that it signed, so nobody misses one that has ended.
    let retire = authorities.iter().filter(|ends| **ends <= now).count();
    let newest = authorities.last().filter(|ends| **ends > now);
    let Some(newest) = newest else {
        return Plan {
            retire: authorities.len(),
            new_authority: true,
            new_leaf: true,
            next: now,
        };
    };
    let authority_due = due(*newest, lifetimes.authority);
    let new_authority = authority_due <= now;
    let settled = published.map(|since| since + lifetimes.settle);
    let is_settled = settled.is_some_and(|settled| settled <= now);
    let usable = present.leaf.as_ref().filter(|leaf| {
        leaf.ends > now && leaf.names == *names && leaf.signed_by < authorities.len()
    });
    let leaf_due = usable.map(|leaf| due(leaf.ends, lifetimes.leaf));
    let is_outdated = usable.is_some_and(|leaf| leaf.signed_by + 1 < authorities.len());
    let new_leaf = match leaf_due {
        // Nothing is served: whoever knows the authority soonest is served soonest.
        None => true,
        Some(leaf_due) => !new_authority && is_settled && (is_outdated || leaf_due <= now),
    };
    let moments = [Some(authority_due), settled, leaf_due]
        .into_iter()
        .flatten()
        .chain(authorities.iter().copied());
    let next = moments.filter(|moment| *moment > now).min();
    Plan {
        retire,
        new_authority,
        new_leaf,
        next: next.unwrap_or(now + LONGEST_WAIT).min(now + LONGEST_WAIT),
    }
}

/// When two thirds of a life that ends then are over.
fn due(ends: SystemTime, life: Duration) -> SystemTime {
    ends - life / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes = Lifetimes {
        authority: Duration::from_secs(900),
        leaf: Duration::from_secs(90),
        settle: Duration::from_secs(10),
    };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn names() -> BTreeSet<String> {
        BTreeSet::from(["headgate-webhook.headgate-system.svc".to_owned()])
    }

    fn present(authorities: &[u64], leaf: u64, signed_by: usize) -> Present {
        Present {
            authorities: authorities.iter().map(|ends| at(*ends)).collect(),
            leaf: Some(Leaf {
                ends: at(leaf),
                names: names(),
                signed_by,
            }),
        }
    }

    /// What a plan does, as (retire, new authority, new leaf).
    fn does(present: &Present, published: Option<u64>, now: u64) -> (usize, bool, bool) {
        let plan = plan(present, &names(), &LIFETIMES, published.map(at), at(now));
        assert!(plan.next > at(now) || plan.new_authority, "{plan:?}");
        (plan.retire, plan.new_authority, plan.new_leaf)
    }

    const NOTHING: (usize, bool, bool) = (0, false, false);

    #[test]
    fn makes_both_from_nothing() {
        let nothing = Present {
            authorities: Vec::new(),
            leaf: None,
        };
        assert_eq!(does(&nothing, None, 0), (0, true, true));
        // And where all has ended, while nobody was there to renew it.
        assert_eq!(does(&present(&[900], 90, 0), Some(0), 900), (1, true, true));
    }

    #[test]
    fn renews_a_leaf_after_two_thirds_of_its_life() {
        let present = present(&[900], 90, 0);
        assert_eq!(does(&present, Some(0), 59), NOTHING);
        assert_eq!(does(&present, Some(0), 60), (0, false, true));
    }

    #[test]
    fn a_new_authority_signs_once_it_has_been_published_for_long_enough() {
        let old = present(&[900], 690, 0);
        assert_eq!(does(&old, Some(0), 600), (0, true, false));
        let both = present(&[900, 1500], 690, 0);
        assert_eq!(does(&both, None, 601), NOTHING);
        assert_eq!(does(&both, Some(601), 610), NOTHING);
        assert_eq!(does(&both, Some(601), 611), (0, false, true));
    }

    #[test]
    fn an_authority_leaves_the_bundle_when_it_has_ended() {
        let both = present(&[900, 1500], 960, 1);
        assert_eq!(does(&both, Some(601), 899), NOTHING);
        assert_eq!(does(&both, Some(601), 900), (1, false, false));
    }

    #[test]
    fn what_cannot_be_served_is_replaced_at_once() {
        let mut lost = present(&[900], 90, 0);
        assert_eq!(does(&lost, None, 90), (0, false, true), "it has ended");
        lost.leaf = None;
        assert_eq!(does(&lost, None, 1), (0, false, true), "it is unreadable");
        let other = BTreeSet::from(["elsewhere".to_owned()]);
        let renamed = plan(&present(&[900], 90, 0), &other, &LIFETIMES, None, at(1));
        assert!(renamed.new_leaf, "it is for another name");
    }

    #[test]
    fn looks_again_when_the_next_thing_is_due() {
        let next = |present, published, now| {
            plan(&present, &names(), &LIFETIMES, Some(at(published)), at(now)).next
        };
        assert_eq!(next(present(&[900], 90, 0), 0, 11), at(60));
        assert_eq!(next(present(&[900, 1500], 690, 0), 601, 605), at(611));
    }
}
