//! The Go programs that tests run: a Kubernetes control plane, nodes, and Argo CD.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{cargo, summary::Summary};

/// How xtask/setup.sh ends where this machine lacks what building needs.
const LACKING: i32 = 3;

/// Programs that are built together.
pub(crate) struct GoPrograms {
    /// The part of xtask/setup.sh that builds them.
    part: &'static str,
    /// What tells tests their folder.
    folder: &'static str,
    /// What tells tests why there are none.
    none: &'static str,
}

/// etcd, kube-apiserver, kube-controller-manager and kubectl.
pub(crate) const CONTROL_PLANE: GoPrograms = GoPrograms {
    part: "control-plane",
    folder: "KUBEBUILDER_ASSETS",
    none: "HEADGATE_NO_CONTROL_PLANE",
};

/// Argo CD.
pub(crate) const ARGO_CD: GoPrograms = GoPrograms {
    part: "argocd",
    folder: "HEADGATE_ARGOCD",
    none: "HEADGATE_NO_ARGOCD",
};

/// kubelet, kube-proxy and kube-scheduler.
pub(crate) const NODES: GoPrograms = GoPrograms {
    part: "nodes",
    folder: "HEADGATE_NODES",
    none: "HEADGATE_NO_NODES",
};

/// Looks for these, builds those where that was never done, and tells a command that runs tests.
/// What does not build fails the run, and the tests on it are skipped. Says whether all are there.
pub(crate) fn set_up(all: &[GoPrograms], command: &mut Command, summary: &mut Summary) -> bool {
    let mut complete = true;
    for programs in all {
        let reason = match programs.look() {
            Ok(Found::Folder(folder)) => {
                command.env(programs.folder, folder);
                continue;
            }
            Ok(Found::None(reason)) => reason,
            Err(error) => {
                summary.fail(&format!("{error:#}"));
                "it could not be set up".to_owned()
            }
        };
        command.env(programs.none, reason);
        complete = false;
    }
    complete
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
