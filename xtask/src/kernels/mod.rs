//! Runs the kernel tests in other kernels than this machine's: Debian's, as they are shipped, each
//! in an emulated machine.

mod initramfs;
mod machine;
mod packages;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{cargo, summary::Summary};
use machine::Run;
use packages::{Kernel, Packages};

/// The oldest kernel that Headgate supports, and later ones that Debian ships for long or last.
const VERSIONS: [&str; 3] = ["6.1", "6.12", "7.2"];

/// Lines of the kernel's own words that tell why a machine ended early.
const LAST_WORDS: usize = 15;

/// Runs the tests in each of these kernels, and ends in a line `VERSION: N passed, N failed,
/// N skipped` for each. Fails where a test failed in one, or one could not be had or run.
pub(crate) fn run(versions: &[String], test_args: &[String]) -> Result<ExitCode> {
    let packages = Packages::new(set_up()?);
    let tests = cargo::build_test("kernel")?;
    let mut versions: Vec<&str> = versions.iter().map(String::as_str).collect();
    if versions.is_empty() {
        versions.extend(VERSIONS);
    }
    let mut sums = Vec::new();
    let mut succeeded = true;
    for version in versions {
        let mut name = version.to_owned();
        let mut summary = Summary::default();
        let tested = packages.kernel(version).and_then(|kernel| {
            name.clone_from(&kernel.version);
            test_in(&kernel, &tests, test_args, &mut summary)
        });
        if let Err(error) = tested {
            summary.fail(&format!("{error:#}"));
        }
        let mut report = summary.report();
        sums.extend(report.pop().map(|sum| format!("{name}: {sum}")));
        for line in report {
            println!("{name}: {line}");
        }
        succeeded &= summary.is_success();
    }
    for sum in sums {
        println!("{sum}");
    }
    Ok(match succeeded {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Installs what is missing; gives the folder where kernels are kept.
fn set_up() -> Result<PathBuf> {
    let folder = cargo::output(
        Command::new(cargo::root().join("xtask/setup.sh"))
            .arg("kernels")
            .stdin(Stdio::null()),
    )
    .context("this machine cannot run other kernels (the reason is above)")?;
    Ok(folder.trim_end().into())
}

fn test_in(
    kernel: &Kernel,
    tests: &Path,
    test_args: &[String],
    summary: &mut Summary,
) -> Result<()> {
    println!("{}: running (minutes, as it is emulated)", kernel.version);
    let work = tempfile::tempdir().context("cannot make a temporary folder")?;
    let initramfs = initramfs::pack(kernel, tests, test_args, work.path())?;
    let run = machine::boot(&kernel.image, &initramfs, &kernel.folder)?;
    let failures = read(&run.output, summary);
    summary.end(true);
    if !failures.is_empty() {
        println!("{failures}");
        let log = kernel.folder.join(machine::OUTPUT);
        println!("{}: all output: {}", kernel.version, log.display());
    }
    judge(&run, summary)
}

/// Sums the results, and gives what the failed tests said.
fn read(output: &str, summary: &mut Summary) -> String {
    let mut failures = Vec::new();
    let mut failed = false;
    for line in output.lines() {
        failed = (failed || line == "failures:") && !line.starts_with("test result: ");
        if summary.read(line) && failed {
            failures.push(line);
        }
    }
    failures.join("\n")
}

/// What went wrong besides tests.
fn judge(run: &Run, summary: &Summary) -> Result<()> {
    match run.status {
        Some(0) if summary.is_mostly_skipped() => {
            bail!("most tests were skipped: this kernel does not do what Headgate needs")
        }
        // A failed test has been counted.
        Some(0) => Ok(()),
        Some(_) if !summary.is_success() => Ok(()),
        Some(status) => bail!("the tests ended with status {status}"),
        None => {
            let lines: Vec<&str> = run.console.lines().collect();
            let last = lines.len().saturating_sub(LAST_WORDS);
            bail!(
                "the machine {} before the tests had ended; its kernel's last words:\n{}",
                run.end,
                lines[last..].join("\n")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n\
        ---- b ----\nno luck\n\n\nfailures:\n    b\n\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n";

    fn run(status: Option<i32>) -> Run {
        Run {
            output: String::new(),
            console: "Kernel panic: no init".to_owned(),
            status,
            end: "switched itself off",
        }
    }

    #[test]
    fn only_what_failed_tests_said_is_shown() {
        let mut summary = Summary::default();
        let failures = read(FAILED, &mut summary);
        assert!(failures.contains("no luck") && !failures.contains("test a"));
        assert!(judge(&run(Some(101)), &summary).is_ok(), "counted already");
        assert_eq!(
            summary.report().pop().as_deref(),
            Some("1 passed, 1 failed, 0 skipped")
        );
    }

    #[test]
    fn a_kernel_that_panics_is_quoted() {
        let error = judge(&run(None), &Summary::default()).expect_err("no result");
        assert!(error.to_string().contains("no init"), "{error}");
    }

    #[test]
    fn a_kernel_in_which_most_is_skipped_has_not_passed() {
        let mut summary = Summary::default();
        read(
            "running 3 tests\ntest a ... ok\ntest b ... ignored (no XDP)\ntest c ... ignored (no XDP)\n\n\
             test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out\n",
            &mut summary,
        );
        assert!(judge(&run(Some(0)), &summary).is_err());
    }
}
