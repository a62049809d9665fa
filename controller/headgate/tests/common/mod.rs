//! The binary, run as a user would.

use std::{
    path::Path,
    process::{Command, Output},
};

/// What a run left.
pub struct Run {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `headgate` with these arguments in `folder`.
pub fn headgate(folder: &Path, arguments: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_headgate"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("HEADGATE_LOG")
        .output()
        .expect("the binary runs");
    Run::from(output)
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self {
            code: output.status.code().expect("it ended by itself"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}
