//! A resource's status: pure, from how it stands, what was said before, and the time.

use headgate_crds::{Problem, ResourceStatus};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use crate::rollup::Standing;

/// What is said in one condition at most: an object stays small whatever is wrong with it.
const LONGEST_MESSAGE: usize = 1_000;

/// What a status is about.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// The generation.
    pub generation: i64,
    /// Why the object is refused by what it alone shows.
    pub problems: &'a [Problem],
    /// Whether somebody asked for its deletion.
    pub is_deleting: bool,
    /// Whether it is only in use where others name it.
    pub is_referred_to: bool,
}

/// The three conditions, in short: see kstatus.
struct Verdict {
    ready: bool,
    reconciling: bool,
    stalled: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    /// It will be Ready without anybody's doing.
    fn waits(reason: &'static str, message: String) -> Self {
        Self::of([false, true, false], reason, message)
    }

    /// Somebody has to mend something.
    fn stalls(reason: &'static str, message: String) -> Self {
        Self::of([false, false, true], reason, message)
    }

    fn stands(reason: &'static str, message: String) -> Self {
        Self::of([true, false, false], reason, message)
    }

    fn of([ready, reconciling, stalled]: [bool; 3], reason: &'static str, message: String) -> Self {
        Self {
            ready,
            reconciling,
            stalled,
            reason,
            message: shortened(message),
        }
    }
}

/// The status to write. What did not change keeps its time.
#[must_use]
pub fn status(
    about: &About<'_>,
    standing: &Standing,
    former: &ResourceStatus,
    now: &Timestamp,
) -> ResourceStatus {
    let verdict = verdict(about, standing);
    let conditions = [
        ("Ready", verdict.ready),
        ("Reconciling", verdict.reconciling),
        ("Stalled", verdict.stalled),
    ];
    let source = former.source.clone();
    ResourceStatus {
        observed_generation: about.generation,
        nodes: Some(standing.counts),
        live_generation: match verdict.ready && standing.counts.live > 0 {
            true => Some(about.generation),
            false => former.live_generation,
        },
        source: source.filter(|source| source.generation == about.generation),
        failing: standing.failing.clone(),
        pending: standing.pending.clone(),
        unreachable: standing.unreachable.clone(),
        conditions: conditions
            .map(|(type_, is)| condition(type_, is, &verdict, about.generation, former, now))
            .into(),
    }
}

fn condition(
    type_: &str,
    is: bool,
    verdict: &Verdict,
    generation: i64,
    former: &ResourceStatus,
    now: &Timestamp,
) -> Condition {
    let status = if is { "True" } else { "False" };
    let same = |former: &&Condition| former.type_ == type_ && former.status == status;
    let since = former.conditions.iter().find(same);
    let (reason, message) = match (type_, is) {
        ("Ready", _) | (_, true) => (verdict.reason, verdict.message.clone()),
        ("Reconciling", false) => ("Settled", String::new()),
        (_, false) => ("NotStalled", String::new()),
    };
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since
            .map_or(Time(*now), |former| former.last_transition_time.clone()),
        observed_generation: Some(generation),
    }
}

fn verdict(about: &About<'_>, standing: &Standing) -> Verdict {
    let counts = &standing.counts;
    if about.is_deleting {
        let message = "it is being deleted, and in force until it is gone";
        return Verdict::waits("Deleting", message.to_owned());
    }
    if let Some(problem) = about.problems.first() {
        let more = match about.problems.len() {
            1 => String::new(),
            number => format!(" (and {} more problems)", number - 1),
        };
        let message = format!("{problem}{more}; the last good generation stays in force");
        return Verdict::stalls("Invalid", message);
    }
    if counts.selected == 0 {
        return match about.is_referred_to {
            true => Verdict::stands("NotUsed", "no resource of any node uses it".to_owned()),
            false => Verdict::stands(
                "NoNodesSelected",
                "its nodeSelector selects no node".to_owned(),
            ),
        };
    }
    if standing.alive == 0 {
        let message = format!(
            "it selects {} nodes, and no agent is alive on any of them; `kubectl -n headgate-system get pods -o wide` shows the agents",
            counts.selected
        );
        return Verdict::waits("NoAgents", message);
    }
    if let Some(first) = standing.failing.first() {
        let reason = match first.reason.as_str() {
            "AgentMissing" => "AgentMissing",
            _ => "NotInEffect",
        };
        let message = format!(
            "not in effect on {} of {} nodes; {}: {}: {}",
            counts.failing, counts.selected, first.node, first.reason, first.message
        );
        return Verdict::stalls(reason, message);
    }
    if counts.pending > 0 {
        let because = standing.pending_because.as_ref();
        let because = because.map(|because| format!("; {because}"));
        let message = format!(
            "live on {} of {} nodes, {} have not shown it yet{}",
            counts.live,
            counts.selected,
            counts.pending,
            because.unwrap_or_default()
        );
        return Verdict::waits("Pending", message);
    }
    let message = match counts.unreachable {
        0 => format!("live on all {} nodes that it selects", counts.live),
        number => format!(
            "live on {} nodes; {number} more are not Ready or run no agent",
            counts.live
        ),
    };
    Verdict::stands("Live", message)
}

fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(LONGEST_MESSAGE) {
        message.truncate(end);
        message.push_str("...");
    }
    message
}
