//! The Go programs that tests run: a Kubernetes control plane and Argo CD.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{cargo, summary::Summary};

/// How xtask/setup.sh ends where this machine lacks what building needs.
const LACKING: i32 = 3;

/// Programs that are built together.
struct GoPrograms {
    /// The part of xtask/setup.sh that builds them.
    part: &'static str,
    /// What tells tests their folder.
    folder: &'static str,
    /// What tells tests why there are none.
    none: &'static str,
}

const ALL: [GoPrograms; 2] = [
    GoPrograms {
        part: "control-plane",
        folder: "KUBEBUILDER_ASSETS",
        none: "HEADGATE_NO_CONTROL_PLANE",
    },
    GoPrograms {
        part: "argocd",
        folder: "HEADGATE_ARGOCD",
        none: "HEADGATE_NO_ARGOCD",
    },
];

/// Looks for all of them, builds those where that was never done, and tells a command that runs
/// tests. What does not build fails the run, and the tests on it are skipped.
pub(crate) fn set_up(command: &mut Command, summary: &mut Summary) {
    for programs in ALL {
        match programs.look() {
            Ok(Found::Folder(folder)) => command.env(programs.folder, folder),
            Ok(Found::None(reason)) => command.env(programs.none, reason),
            Err(error) => {
                summary.fail(&format!("{error:#}"));
                command.env(programs.none, "it could not be set up")
            }
        };
    }
}

enum Found {
    Folder(PathBuf),
    None(String),
}

impl GoPrograms {
    fn look(&self) -> Result<Found> {
        let output = Command::new(cargo::root().join("xtask/setup.sh"))
            .arg(self.part)
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run xtask/setup.sh")?;
        let said = String::from_utf8(output.stdout)?.trim_end().to_owned();
        match output.status.code() {
            Some(0) => Ok(Found::Folder(said.into())),
            Some(LACKING) => Ok(Found::None(said)),
            _ => bail!(
                "{} for tests could not be set up (the reason is above)",
                self.part
            ),
        }
    }
}
