//! The Go programs that tests run: a Kubernetes control plane, nodes, and Argo CD.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::paths::workspace;

/// How xtask/setup.sh ends where this machine lacks what building them needs.
const LACKING: i32 = 3;

/// etcd, kube-apiserver and kubectl: what `KUBEBUILDER_ASSETS` names, or else what xtask/setup.sh
/// builds, once for all runs.
pub static CONTROL_PLANE: Assets = Assets {
    part: "control-plane",
    folder: "KUBEBUILDER_ASSETS",
    none: "HEADGATE_NO_CONTROL_PLANE",
    programs: &["etcd", "kube-apiserver", "kubectl"],
    found: OnceLock::new(),
};

/// Argo CD, built the same way, and its CRDs.
pub static ARGO_CD: Assets = Assets {
    part: "argocd",
    folder: "HEADGATE_ARGOCD",
    none: "HEADGATE_NO_ARGOCD",
    programs: &["argocd-application-controller", "argocd-repo-server"],
    found: OnceLock::new(),
};

/// kubelet, kube-proxy and kube-scheduler, built the same way.
pub static NODES: Assets = Assets {
    part: "nodes",
    folder: "HEADGATE_NODES",
    none: "HEADGATE_NO_NODES",
    programs: &["kubelet", "kube-proxy", "kube-scheduler"],
    found: OnceLock::new(),
};

/// Programs that are built together.
#[derive(Debug)]
pub struct Assets {
    /// The part of xtask/setup.sh that builds them.
    part: &'static str,
    /// The variable that names their folder.
    folder: &'static str,
    /// The variable that says why there are none.
    none: &'static str,
    /// What somebody else's folder must hold.
    programs: &'static [&'static str],
    found: OnceLock<Result<PathBuf, String>>,
}

impl Assets {
    /// Their folder.
    ///
    /// # Errors
    /// Why there are none here.
    ///
    /// # Panics
    /// Where they do not build, or the folder lacks one.
    pub fn folder(&self) -> Result<&Path, &str> {
        let found = self.found.get_or_init(|| {
            if let Some(folder) = env::var_os(self.folder) {
                return Ok(self.complete(folder.into()));
            }
            env::var(self.none).map_or_else(|_| self.set_up(), Err)
        });
        found.as_deref().map_err(String::as_str)
    }

    /// One of them.
    ///
    /// # Panics
    /// Where there are none; tests that [`Self::folder`] refuses are skipped.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder().expect("looked for by this test").join(name)
    }

    /// What somebody else put together may lack something.
    fn complete(&self, folder: PathBuf) -> PathBuf {
        for name in self.programs {
            let program = folder.join(name);
            let shown = program.display();
            assert!(program.exists(), "{}: there is no {shown}", self.folder);
        }
        folder
    }

    fn set_up(&self) -> Result<PathBuf, String> {
        let script = workspace().join("xtask/setup.sh");
        let output = Command::new(&script)
            .arg(self.part)
            .stderr(Stdio::inherit())
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        let said = String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned();
        match output.status.code() {
            Some(0) => Ok(said.into()),
            Some(LACKING) => Err(said),
            _ => panic!("{} does not build: {said}", self.part),
        }
    }
}

/// One of the programs of a control plane.
///
/// # Panics
/// Where there are none; tests on a cluster are skipped there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    CONTROL_PLANE.program(name)
}
