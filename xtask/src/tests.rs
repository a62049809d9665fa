//! Runs the tests and sums their results over all test binaries.

use std::{
    io::{BufRead, BufReader, Write, stdout},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    cargo,
    go_programs::{self, ARGO_CD, CONTROL_PLANE, GoPrograms, NODES},
    image,
    summary::Summary,
};

/// Which tests to run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Suite {
    /// All of the workspace.
    Workspace,
    /// Those that meet the kernel, optimised, for as long as `HEADGATE_SOAK=1` makes them.
    Soak,
    /// Those on real nodes, which run the image.
    Cluster,
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
            Self::Cluster => &[
                "--workspace",
                "--features",
                "headgate-e2e-tests/real",
                "--test",
                "real",
            ],
        }
    }

    fn go_programs(self) -> &'static [GoPrograms] {
        match self {
            Self::Workspace | Self::Soak => &[CONTROL_PLANE, ARGO_CD],
            Self::Cluster => &[CONTROL_PLANE, NODES],
        }
    }

    /// Tests that keep packets paced want a core for themselves and one for the sender; a cluster
    /// of real nodes takes all that there is.
    fn threads(self) -> &'static str {
        match self {
            Self::Workspace | Self::Soak => "2",
            Self::Cluster => "1",
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
    let mut command = cargo::command();
    let complete = go_programs::set_up(suite.go_programs(), &mut command, summary);
    match suite {
        Suite::Workspace => {
            command.env("HEADGATE_BINARY", cargo::build("headgate", &[])?);
        }
        Suite::Soak => {
            let headgate = cargo::build("headgate", &["--release"])?;
            command.env("HEADGATE_BINARY", headgate);
            command.env("HEADGATE_SOAK", "1");
        }
        Suite::Cluster if complete => write_images(&mut command)?,
        // The tests say what is missing.
        Suite::Cluster => {}
    }
    command
        .args(["test", "--no-fail-fast"])
        .args(suite.cargo_args())
        // Both arguments are also understood by libtest-mimic, which reads no RUST_TEST_THREADS;
        // --show-output brings the SKIPPED lines of tests that libtest takes for passed.
        .args(["--", "--show-output", "--test-threads", suite.threads()])
        .args(test_args);
    pass_through(&mut command, summary)
}

/// Builds the images that nodes run and tells a command that runs tests.
fn write_images(command: &mut Command) -> Result<()> {
    println!("==> building the image, unoptimised");
    let image = image::write(None, image::Profile::Dev)?;
    let pods = image.with_file_name("headgate-tests-1.tar");
    image::write_pods(&pods)?;
    command.env("HEADGATE_IMAGE", image);
    command.env("HEADGATE_PODS_IMAGE", pods);
    Ok(())
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
