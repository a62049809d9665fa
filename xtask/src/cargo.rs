//! Running cargo.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the checkout")
}

/// The cargo that runs this, at the root of the checkout.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command to its end; an error names it.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !status.success() {
        bail!("{} failed ({status})", program.display());
    }
    Ok(())
}

/// What a command prints, as text; an error names it.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("{} failed ({})", program.display(), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Builds a binary of the workspace and returns its path.
pub(crate) fn build(binary: &str, args: &[&str]) -> Result<PathBuf> {
    executable(
        binary,
        command().args(["build", WHOLE, "--bin", binary]).args(args),
    )
}

/// Builds the program of a target of tests and returns its path.
pub(crate) fn build_test(target: &str) -> Result<PathBuf> {
    executable(
        target,
        command().args(["test", WHOLE, "--no-run", "--test", target]),
    )
}

/// Selects the whole workspace, so that its dependencies have the features they have in every
/// other build and are not compiled once more for this one.
const WHOLE: &str = "--workspace";

/// Runs a build and returns the path of the program that it makes from a target.
pub(crate) fn executable(target: &str, build: &mut Command) -> Result<PathBuf> {
    let mut child = build
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let messages = child.stdout.take().context("cargo's output is a pipe")?;
    let mut executable = None;
    for message in BufReader::new(messages).lines() {
        let message: Value = serde_json::from_str(&message?)?;
        if message["target"]["name"] == target
            && let Some(path) = message["executable"].as_str()
        {
            executable = Some(PathBuf::from(path));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("building {target} failed ({status})");
    }
    executable.with_context(|| format!("cargo built no program {target}"))
}
