//! The seam between planning and the running kernel.

use std::collections::BTreeMap;

use crate::{
    observed::Observed,
    plan::{Plan, Step},
    state::{AttachedMode, Block, Digest, PortIndex},
};

/// Why the kernel did not do what was asked; each kind has one stated outcome. No kind ends a plan at a step that
/// [`Step::fails_alone`].
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The node lacks a right or a feature. Outcome: the plan ends, what is enforced stays.
    #[error("{what}: {remedy}")]
    Unusable {
        /// What is missing.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// Somebody else's program is on the interface. Outcome: it stays, the port is not enforced and
    /// said to be so.
    #[error(
        "interface {interface} already has an XDP program that is not ours (id {program_id}, name {program_name:?}): detach it, or leave this interface out of the policy"
    )]
    Foreign {
        /// Name of the interface.
        interface: String,
        /// The kernel's id of that program; 0 where it could not be read.
        program_id: u32,
        /// Its name, possibly empty.
        program_name: String,
    },
    /// The program was not attached. Outcome: the port is not enforced and said to be so.
    #[error("attaching to {interface} in {mode} mode: {source}")]
    Attach {
        /// Name of the interface.
        interface: String,
        /// The mode that was asked for last.
        mode: AttachedMode,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The verifier or the loader refused the program. Outcome: the plan ends, the old program stays.
    #[error("loading the program for {port}: {message}")]
    Load {
        /// Which port.
        port: PortIndex,
        /// The loader's words, the verifier's log included.
        message: String,
    },
    /// Any other call that failed. Outcome: the plan ends, the next run starts from what is observed.
    #[error("{what}: {source}")]
    Call {
        /// What was asked, in words.
        what: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// What a step did that is worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Just what the step says.
    Done,
    /// Attached, in this mode; `refusal` is the driver's answer where native was refused.
    Attached {
        /// The mode in effect.
        mode: AttachedMode,
        /// Why not native.
        refusal: Option<String>,
    },
}

/// A kernel, or what stands for one in tests.
pub trait Kernel {
    /// Reads everything that is ours.
    ///
    /// # Errors
    /// What cannot be read is never taken for absent.
    fn observe(&mut self) -> Result<Observed, KernelError>;

    /// Carries out one step; `blocks` are the wanted state's.
    ///
    /// # Errors
    /// The step has then had no effect, or one that [`Kernel::observe`] shows.
    fn apply(
        &mut self,
        step: &Step,
        blocks: &BTreeMap<Digest, Block>,
    ) -> Result<Applied, KernelError>;
}

/// What became of a step.
#[derive(Debug)]
pub struct Outcome {
    /// The step.
    pub step: Step,
    /// What it did, or why not.
    pub result: Result<Applied, KernelError>,
}

/// Carries out `plan` step by step. A step that fails ends the plan, but for those that concern one
/// port or services alone: what one of these lacks must hold up no policy. One of the tunnel or of plain routes
/// to peers holds up only what [`Step::waits_for`] it.
pub fn carry_out(
    kernel: &mut dyn Kernel,
    plan: Plan,
    blocks: &BTreeMap<Digest, Block>,
) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(plan.steps.len());
    let mut failed: Vec<usize> = Vec::new();
    for step in plan.steps {
        if failed
            .iter()
            .any(|place| step.waits_for(&outcomes[*place].step))
        {
            continue;
        }
        let result = kernel.apply(&step, blocks);
        if result.is_err() && !step.fails_alone() {
            failed.push(outcomes.len());
        }
        outcomes.push(Outcome { step, result });
    }
    outcomes
}
