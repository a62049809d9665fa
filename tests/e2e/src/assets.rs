//! The programs of a Kubernetes control plane.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::paths::workspace;

/// How xtask/setup.sh ends where this machine lacks what building them needs.
const LACKING: i32 = 3;

/// The folder of etcd, kube-apiserver and kubectl that `KUBEBUILDER_ASSETS` names, or else of what
/// xtask/setup.sh builds, once for all runs.
///
/// # Errors
/// Why there are none here.
///
/// # Panics
/// Where they do not build, or the folder lacks one.
pub fn folder() -> Result<&'static Path, &'static str> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOLDER.get_or_init(|| {
        if let Some(folder) = env::var_os("KUBEBUILDER_ASSETS") {
            return Ok(complete(folder.into()));
        }
        env::var("HEADGATE_NO_CONTROL_PLANE").map_or_else(|_| set_up(), Err)
    });
    found.as_deref().map_err(String::as_str)
}

/// One of them.
///
/// # Panics
/// Where there are none; tests that [`folder`] refuses are skipped.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    folder().expect("looked for by this test").join(name)
}

/// What somebody else put together may lack something.
fn complete(folder: PathBuf) -> PathBuf {
    for name in ["etcd", "kube-apiserver", "kubectl"] {
        let program = folder.join(name);
        let shown = program.display();
        assert!(program.exists(), "KUBEBUILDER_ASSETS: there is no {shown}");
    }
    folder
}

fn set_up() -> Result<PathBuf, String> {
    let script = workspace().join("xtask/setup.sh");
    let output = Command::new(&script)
        .arg("control-plane")
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let said = String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned();
    match output.status.code() {
        Some(0) => Ok(said.into()),
        Some(LACKING) => Err(said),
        _ => panic!("the control plane does not build: {said}"),
    }
}
