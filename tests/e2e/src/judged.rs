//! What a frame should meet at the node, and whether it did.

use std::collections::BTreeMap;

use crate::{
    frames::Frame,
    node::Node,
    tap::{Tap, Wire},
};

/// How often each frame is sent.
const TIMES: u64 = 3;

/// A frame and what should become of it.
#[derive(Clone, Debug)]
pub struct Judged {
    frame: Frame,
    arrives: bool,
    /// `POLICY/RULE`, or a reason; empty where it does not matter.
    cause: String,
}

impl Frame {
    /// It is seen behind the program.
    #[must_use]
    pub fn passes(self) -> Judged {
        self.passed_by("")
    }

    /// It is seen behind the program, and counted by this `POLICY/RULE` or reason.
    #[must_use]
    pub fn passed_by(self, cause: &str) -> Judged {
        Judged {
            frame: self,
            arrives: true,
            cause: cause.to_owned(),
        }
    }

    /// It is not seen behind the program.
    #[must_use]
    pub fn dropped(self) -> Judged {
        self.dropped_by("")
    }

    /// It is not seen behind the program, and counted by this `POLICY/RULE` or reason.
    #[must_use]
    pub fn dropped_by(self, cause: &str) -> Judged {
        Judged {
            frame: self,
            arrives: false,
            cause: cause.to_owned(),
        }
    }
}

/// Sends every frame several times and compares what arrives, and what `node` has counted, with
/// what should be.
///
/// # Panics
/// With all that differs.
pub fn check(node: &Node, wire: &Wire, tap: &Tap, judged: &[Judged]) {
    let before = node.counters();
    let mut wrong = arrivals(wire, tap, judged);
    let after = node.counters();
    wrong.extend(counting(judged, &before, &after));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same where nothing counts.
///
/// # Panics
/// With all that differs.
pub fn check_arrivals(wire: &Wire, tap: &Tap, judged: &[Judged]) {
    let wrong = arrivals(wire, tap, judged);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn arrivals(wire: &Wire, tap: &Tap, judged: &[Judged]) -> Vec<String> {
    for Judged { frame, .. } in judged {
        wire.send(frame, TIMES);
    }
    tap.catch_up(wire);
    judged.iter().filter_map(|one| arrival(one, tap)).collect()
}

fn arrival(judged: &Judged, tap: &Tap) -> Option<String> {
    let arrived = tap.count(judged.frame.stream);
    let expected = if judged.arrives { TIMES } else { 0 };
    (arrived != expected).then(|| {
        let what = &judged.frame.what;
        format!("{what}: {arrived} of {TIMES} arrived, and {expected} should have")
    })
}

/// A rule that drops counts these frames and no others. What passes, and what no rule decides, may
/// be other traffic of the two hosts too.
fn counting(
    judged: &[Judged],
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> Vec<String> {
    let mut expected: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
    for one in judged.iter().filter(|one| !one.cause.is_empty()) {
        let exact = !one.arrives && one.cause.contains('/');
        expected.entry(&one.cause).or_insert((0, exact)).0 += TIMES;
    }
    let count =
        |counters: &BTreeMap<String, u64>, cause: &str| counters.get(cause).copied().unwrap_or(0);
    let wrong = expected
        .into_iter()
        .filter_map(|(cause, (expected, exact))| {
            let counted = count(after, cause) - count(before, cause);
            let right = if exact {
                counted == expected
            } else {
                counted >= expected
            };
            (!right).then(|| format!("{cause} counted {counted} packets, and {expected} should be"))
        });
    wrong.collect()
}
