//! Tests that say so where they cannot run.

use std::{process::Command, sync::OnceLock};

use libtest_mimic::{Completion, Trial};

use crate::{assets, real};

/// A test that needs network namespaces and the kernel's BPF; skipped, with the reason, where this
/// process may not have them.
pub fn on_node(name: &'static str, test: fn()) -> Trial {
    on_node_with(name, &[], test)
}

/// The same for a test that also needs these programs.
pub fn on_node_with(name: &'static str, programs: &'static [&str], test: fn()) -> Trial {
    let missing = move || {
        let missing = programs.iter().find(|program| !is_there(program));
        missing.map(|program| format!("there is no command {program} here"))
    };
    unless(name, missing, test)
}

/// A test that needs a Kubernetes control plane besides; skipped, with the reason, where there is
/// none to be had.
pub fn on_cluster(name: &'static str, test: fn()) -> Trial {
    let missing = || assets::CONTROL_PLANE.folder().err().map(str::to_owned);
    unless(name, missing, test)
}

/// A test that needs Argo CD beside it; skipped, with the reason, where there is none to be had.
pub fn on_argocd(name: &'static str, test: fn()) -> Trial {
    let missing = || {
        let control_plane = assets::CONTROL_PLANE.folder().err();
        let missing = control_plane.or_else(|| assets::ARGO_CD.folder().err());
        missing.map(str::to_owned)
    };
    unless(name, missing, test)
}

/// A test on nodes that have a kubelet; skipped, with the reason, where there can be none.
pub fn on_real_nodes(name: &'static str, test: fn()) -> Trial {
    let missing = || {
        let control_plane = assets::CONTROL_PLANE.folder().err();
        let missing = control_plane.or_else(|| assets::NODES.folder().err());
        missing.map(str::to_owned).or_else(real::cannot_run)
    };
    unless(name, missing, test)
}

fn unless(
    name: &'static str,
    missing: impl FnOnce() -> Option<String> + Send + 'static,
    test: fn(),
) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Some(reason) = cannot_run().or_else(missing) {
            eprintln!("SKIPPED {name}: {reason}");
            return Ok(Completion::ignored_with(reason));
        }
        test();
        Ok(Completion::Completed)
    })
}

/// Whether tests are to run as long as it takes to be sure.
#[must_use]
pub fn soak() -> bool {
    std::env::var_os("HEADGATE_SOAK").is_some_and(|value| value == "1")
}

/// Why no test can run here.
fn cannot_run() -> Option<String> {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let look = || {
        if !nix::unistd::geteuid().is_root() {
            return Some("it needs root, for network namespaces and BPF".to_owned());
        }
        let missing = ["ip", "nsenter"]
            .into_iter()
            .find(|program| !is_there(program));
        missing.map(|program| format!("there is no command {program} here"))
    };
    REASON.get_or_init(look).clone()
}

fn is_there(program: &str) -> bool {
    // Whatever it answers: it was found.
    Command::new(program).arg("--version").output().is_ok()
}
