//! Project chores. `make help` names those that a user wants; the rest serve `make check`.

mod argocd;
mod arrows;
mod cargo;
mod go_programs;
mod image;
mod kernels;
mod programs;
mod summary;
mod tests;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Project chores.
#[derive(Parser)]
#[command(name = "xtask")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run every test and end in a line `N passed, N failed, N skipped`
    Test {
        /// Arguments for the test binaries, such as part of a test's name
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Run the tests that take long, optimised, with HEADGATE_SOAK=1
    Soak {
        /// Arguments for the test binaries, such as part of a test's name
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Run the tests on real nodes, with containerd and kubelet, that run the image
    Cluster {
        /// Arguments for the tests, such as part of a test's name
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Run the kernel tests in other kernels, and end in a line `VERSION: N passed, ...` for each
    Kernels {
        /// Their versions, such as 6.1 or 6.12.107: the newest of each that is kept in the cache
        /// folder, else the newest that Debian has [default: 6.1 6.12 7.2]
        versions: Vec<String>,
        /// Arguments for the tests, such as part of a test's name
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Build the image that clusters run and write it as an OCI archive
    Image {
        /// Where to write it [default: beside the binary, in the build folder]
        #[arg(long)]
        output: Option<PathBuf>,
        /// Unoptimised, which builds in a fraction of the time
        #[arg(long)]
        dev: bool,
    },
    /// Build the binary and tell its story with real packets
    Demo,
    /// Write crds/*.yaml from the resource types
    Crds {
        /// Write nothing; fail where a file differs from the types
        #[arg(long)]
        check: bool,
    },
    /// Write manifests/argocd/argocd-cm-patch.yaml from the health checks beside it, and those that kinds share
    Argocd {
        /// Write nothing; fail where a file differs from them
        #[arg(long)]
        check: bool,
    },
    /// Fail where a crate depends on what its room must not know
    Arrows,
    /// Lint crates outside the workspace for the kernel's virtual machine
    LintPrograms {
        /// The crates' folders
        #[arg(required = true)]
        folders: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(Args::parse().chore) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<ExitCode> {
    match chore {
        Chore::Test { args } => return tests::run(tests::Suite::Workspace, &args),
        Chore::Soak { args } => return tests::run(tests::Suite::Soak, &args),
        Chore::Cluster { args } => return tests::run(tests::Suite::Cluster, &args),
        Chore::Kernels { versions, args } => return kernels::run(&versions, &args),
        Chore::Image { output, dev } => {
            let profile = match dev {
                true => image::Profile::Dev,
                false => image::Profile::Release,
            };
            image::write(output.as_deref(), profile)?;
        }
        Chore::Demo => demo()?,
        Chore::Crds { check } => crds(check)?,
        Chore::Argocd { check } => argocd::patch(check)?,
        Chore::Arrows => arrows::check()?,
        Chore::LintPrograms { folders } => {
            for folder in folders {
                programs::lint(&folder)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn demo() -> Result<()> {
    // Unoptimised by far the quickest to build; the crates that work hard are optimised anyway.
    let headgate = cargo::build("headgate", &[])?;
    let demo = cargo::build("demo", &[])?;
    cargo::succeed(Command::new(demo).env("HEADGATE_BINARY", headgate))
}

fn crds(check: bool) -> Result<()> {
    let writer = cargo::build("xtask-crds", &["--features", "xtask/crds"])?;
    let mut command = Command::new(writer);
    command.arg(cargo::root().join("crds"));
    if check {
        command.arg("--check");
    }
    cargo::succeed(&mut command)
}
