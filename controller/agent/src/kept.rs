//! The last compilation, for turns in which nothing changed: at rest the agent costs next to nothing.

use headgate_compile::{
    Compilation, compile_with,
    memory::{Memory, Seconds},
    node::NodeFacts,
    services::Rings,
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
pub(crate) struct Kept {
    made: Option<Made>,
    rings: Rings,
}

impl Kept {
    /// What these come to; compiled anew only where one of them differs from the last time.
    pub(crate) fn compile(
        &mut self,
        snapshot: &Snapshot,
        facts: &NodeFacts,
        memory: &Memory,
        now: Seconds,
    ) -> Compilation {
        if let Some(made) = &self.made
            && now.0.saturating_sub(made.now.0) < LONGEST
            && made.facts == *facts
            && made.compilation.memory == *memory
            && made.snapshot == *snapshot
        {
            return made.compilation.clone();
        }
        let compilation = compile_with(&mut self.rings, snapshot, facts, memory, now);
        self.rings.forget_unused();
        self.made = Some(Made {
            snapshot: snapshot.clone(),
            facts: facts.clone(),
            now,
            compilation: compilation.clone(),
        });
        compilation
    }
}
