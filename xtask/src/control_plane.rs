//! The Kubernetes control plane that tests run.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::cargo;

/// How xtask/setup.sh ends where this machine lacks what building needs.
const LACKING: i32 = 3;

/// Where its programs are.
pub(crate) enum ControlPlane {
    Folder(PathBuf),
    /// There are none, and this is why: the tests on it are skipped.
    None(String),
}

impl ControlPlane {
    /// Looks for the programs, and builds them where that was never done.
    pub(crate) fn set_up() -> Result<Self> {
        let output = Command::new(cargo::root().join("xtask/setup.sh"))
            .arg("control-plane")
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run xtask/setup.sh")?;
        let said = String::from_utf8(output.stdout)?.trim_end().to_owned();
        match output.status.code() {
            Some(0) => Ok(Self::Folder(said.into())),
            Some(LACKING) => Ok(Self::None(said)),
            _ => bail!("the control plane for tests could not be set up (the reason is above)"),
        }
    }

    /// Tells a command that runs tests.
    pub(crate) fn tell(&self, command: &mut Command) {
        match self {
            Self::Folder(folder) => command.env("KUBEBUILDER_ASSETS", folder),
            Self::None(reason) => command.env("HEADGATE_NO_CONTROL_PLANE", reason),
        };
    }
}
