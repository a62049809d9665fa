//! Where not everything fits: as much as does.

use std::collections::BTreeSet;

use super::{Compiler, attempt::Attempt};
use crate::{
    adopt,
    classifier::TooLarge,
    finding::{Finding, FindingReason, Severity},
    snapshot::{Content, Uid},
};

impl Compiler<'_> {
    /// Where all changes together do not build: takes in as many as do, and refuses the others with
    /// the reason of each. Costs a logarithm of attempts for each that is refused.
    pub(super) fn largest_that_builds(&self, changed: &[Uid]) -> (Option<Attempt>, Vec<Finding>) {
        if let Err(reason) = self.attempt(&BTreeSet::new()) {
            return (None, vec![self.nothing_builds(&reason)]);
        }
        let mut taken: Vec<&Uid> = Vec::new();
        let mut rest: Vec<&Uid> = changed.iter().collect();
        // A change that comes later may make room for one that was refused.
        let refused = loop {
            let before = rest.len();
            let refused = self.take_what_builds(&mut taken, rest);
            if refused.is_empty() || refused.len() == before {
                break refused;
            }
            rest = refused.into_iter().map(|(uid, _)| uid).collect();
        };
        let mut attempt = self.attempt(&taken.into_iter().collect()).ok();
        if let Some(attempt) = &mut attempt {
            let candidates = refused.iter().map(|(uid, _)| &self.candidates[*uid]);
            let left_out = candidates.filter(|candidate| candidate.last_good.is_none());
            let names = left_out.filter_map(|candidate| candidate.present.as_ref());
            attempt
                .left_out
                .extend(names.map(|version| version.name.to_string()));
        }
        let findings = refused
            .iter()
            .map(|(uid, reason)| self.too_large(uid, reason));
        (attempt, findings.collect())
    }

    /// Moves as many of `rest` as build, in their order, to `taken`; returns the others.
    fn take_what_builds<'b>(
        &self,
        taken: &mut Vec<&'b Uid>,
        mut rest: Vec<&'b Uid>,
    ) -> Vec<(&'b Uid, TooLarge)> {
        let mut refused = Vec::new();
        while !rest.is_empty() {
            let (mut good, mut bad) = (0, rest.len() + 1);
            let mut reason = None;
            while bad - good > 1 {
                let middle = usize::midpoint(good, bad);
                let with = taken.iter().chain(&rest[..middle]).copied().collect();
                match self.attempt(&with) {
                    Ok(_) => good = middle,
                    Err(error) => (bad, reason) = (middle, Some(error)),
                }
            }
            taken.extend(rest.drain(..good));
            // The last failure was that of the shortest list that does not build.
            refused.extend(reason.map(|reason| (rest.remove(0), reason)));
        }
        refused
    }

    fn too_large(&self, uid: &Uid, reason: &TooLarge) -> Finding {
        let candidate = &self.candidates[uid];
        let outcome = adopt::outcome(candidate.last_good.as_ref(), self.memory);
        let version = candidate.present.as_ref();
        let remedy = match version.map(|version| &version.content) {
            Some(Content::Service(_)) => {
                "give it a smaller ring, fewer ports, backends or source ranges, or spread services over interfaces"
            }
            Some(Content::Peer(_)) => "list fewer networks, or leave nodes out by nodeSelector",
            _ => {
                "give rules fewer distinct combinations of addresses and ports, or spread them over interfaces"
            }
        };
        Finding {
            severity: Severity::Stalled,
            reason: FindingReason::TooLarge,
            resource: version.map(|version| version.name.clone()),
            place: version
                .map(|version| version.place.clone())
                .unwrap_or_default(),
            path: "spec".to_owned(),
            message: format!("{reason}; {remedy}; {outcome}"),
        }
    }

    fn nothing_builds(&self, reason: &TooLarge) -> Finding {
        Finding {
            severity: Severity::Stalled,
            reason: FindingReason::TooLarge,
            resource: None,
            place: String::new(),
            path: String::new(),
            message: format!(
                "what was in effect no longer fits together on one interface: {reason}; what is enforced stays, make a policy or service smaller"
            ),
        }
    }
}
