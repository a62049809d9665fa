//! The last compilation, for turns in which nothing changed: at rest the agent costs next to nothing.

use headgate_compile::{
    Compilation, compile,
    memory::{Memory, Seconds},
    node::NodeFacts,
    snapshot::Snapshot,
};

/// Time brings changes of its own, such as counters that are free again.
const LONGEST: u64 = 60;

/// A compilation and what it was made of.
struct Made {
    snapshot: Snapshot,
    facts: NodeFacts,
    now: Seconds,
    compilation: Compilation,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Kept(Option<Made>);

impl Kept {
    /// What these come to; compiled anew only where one of them differs from the last time.
    pub(crate) fn compile(
        &mut self,
        snapshot: &Snapshot,
        facts: &NodeFacts,
        memory: &Memory,
        now: Seconds,
    ) -> Compilation {
        if let Some(made) = &self.0
            && now.0.saturating_sub(made.now.0) < LONGEST
            && made.facts == *facts
            && made.compilation.memory == *memory
            && made.snapshot == *snapshot
        {
            return made.compilation.clone();
        }
        let compilation = compile(snapshot, facts, memory, now);
        self.0 = Some(Made {
            snapshot: snapshot.clone(),
            facts: facts.clone(),
            now,
            compilation: compilation.clone(),
        });
        compilation
    }
}
