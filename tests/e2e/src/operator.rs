//! Replicas of the operator.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::process::Process;

/// A replica, killed when dropped.
#[derive(Debug)]
pub struct Operator {
    process: Process,
}

impl Operator {
    pub(crate) fn of(process: Process) -> Self {
        Self { process }
    }

    /// # Panics
    /// Where it has ended, with what it said.
    pub fn assert_runs(&mut self) {
        self.process.assert_runs();
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// Tells it to end, as a kubelet does.
    ///
    /// # Panics
    /// Where it was seen to have ended.
    pub fn terminate(&mut self) {
        assert!(!self.has_ended(), "there is nobody to be told");
        let pid = i32::try_from(self.process.id()).expect("process ids are small");
        kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it is our child");
    }

    /// Its resident memory, in KiB.
    ///
    /// # Panics
    /// Where it has ended.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.process.resident()
    }
}
