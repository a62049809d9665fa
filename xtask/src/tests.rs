//! Runs the tests and sums their results over all test binaries.

use std::{
    io::{BufRead, BufReader, Write, stdout},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};

use crate::{cargo, go_programs, summary::Summary};

/// Tests that keep packets paced want a core for themselves and one for the sender.
const THREADS: &str = "2";

/// Which tests to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// All of the workspace.
    Workspace,
    /// Those that meet the kernel, optimised, for as long as `HEADGATE_SOAK=1` makes them.
    Soak,
}

impl Suite {
    fn cargo_args(self) -> &'static [&'static str] {
        match self {
            Self::Workspace => &["--workspace"],
            Self::Soak => &[
                "--release",
                "-p",
                "headgate-kernel-tests",
                "-p",
                "headgate-e2e-tests",
            ],
        }
    }
}

/// Runs a suite, passing its output through, and ends in `N passed, N failed, N skipped`. Fails
/// where a test failed, a test binary ended before its result, or nothing ran.
pub(crate) fn run(suite: Suite, test_args: &[String]) -> Result<ExitCode> {
    let mut summary = Summary::default();
    if let Err(error) = run_into(&mut summary, suite, test_args) {
        summary.fail(&format!("{error:#}"));
    }
    for line in summary.report() {
        println!("{line}");
    }
    Ok(if summary.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run_into(summary: &mut Summary, suite: Suite, test_args: &[String]) -> Result<()> {
    let profile: &[&str] = match suite {
        Suite::Workspace => &[],
        Suite::Soak => &["--release"],
    };
    let mut command = cargo::command();
    go_programs::set_up(&mut command, summary);
    let headgate = cargo::build("headgate", profile)?;
    command
        .args(["test", "--no-fail-fast"])
        .args(suite.cargo_args())
        // Both arguments are also understood by libtest-mimic, which reads no RUST_TEST_THREADS;
        // --show-output brings the SKIPPED lines of tests that libtest takes for passed.
        .args(["--", "--show-output", "--test-threads", THREADS])
        .args(test_args)
        .env("HEADGATE_BINARY", headgate);
    if suite == Suite::Soak {
        command.env("HEADGATE_SOAK", "1");
    }
    pass_through(&mut command, summary)
}

fn pass_through(command: &mut Command, summary: &mut Summary) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let mut output = BufReader::new(child.stdout.take().context("cargo's output is a pipe")?);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        if summary.read(String::from_utf8_lossy(&line).trim_end()) {
            stdout().write_all(&line)?;
        }
        line.clear();
    }
    summary.end(child.wait()?.success());
    Ok(())
}
