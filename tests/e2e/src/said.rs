//! What a command says.

use std::{
    io::{Seek as _, Write as _},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// What it wrote to standard output.
    pub output: String,
    /// What it wrote to standard error.
    pub errors: String,
}

impl Said {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn of(command: &mut Command) -> Self {
        Self::reading(command, Stdio::null())
    }

    /// Runs a command that reads `input` to its end.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn of_input(command: &mut Command, input: &str) -> Self {
        // A file and no pipe: nobody has to write while the command runs.
        let mut file = tempfile::tempfile().expect("a temporary file can be made");
        file.write_all(input.as_bytes())
            .expect("there is room for it");
        file.rewind().expect("a file can be read again");
        Self::reading(command, file.into())
    }

    fn reading(command: &mut Command, input: Stdio) -> Self {
        let done = command.stdin(input).output();
        let Output {
            status,
            stdout,
            stderr,
        } = done.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            code: status.code().unwrap_or(-1),
            output: String::from_utf8_lossy(&stdout).into_owned(),
            errors: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Its output as JSON.
    ///
    /// # Panics
    /// Where it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.output);
        parsed.unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}
