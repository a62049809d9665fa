//! What is committed is synced by a real Argo CD, and judged by it.

mod health;
mod installation;
mod nodes;
mod synced;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use headgate_e2e_tests::{
    argocd::ArgoCd,
    control_plane::{self, ControlPlane},
    leftovers,
};
use libtest_mimic::{Arguments, Trial};

static ARGO_CD: Mutex<Option<ArgoCd>> = Mutex::new(None);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Most share an Argo CD, which serves one test after the other; one has its own.
    arguments.test_threads.get_or_insert(2);
    let trials: Vec<Trial> = [
        health::trials(),
        synced::trials(),
        nodes::trials(),
        installation::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !arguments.list && nix::unistd::geteuid().is_root() {
        leftovers::sweep();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    ARGO_CD
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    control_plane::shut_down();
    conclusion.exit_code()
}

/// The Argo CD beside the control plane that tests share.
struct Shared(MutexGuard<'static, Option<ArgoCd>>);

impl Shared {
    fn lock() -> Self {
        // Whoever failed before left an Application at worst.
        let mut argocd = ARGO_CD.lock().unwrap_or_else(PoisonError::into_inner);
        argocd.get_or_insert_with(|| ArgoCd::start(&ControlPlane::shared()));
        Self(argocd)
    }

    fn argocd(&mut self) -> &mut ArgoCd {
        self.0.as_mut().expect("it was started")
    }

    fn control_plane(&mut self) -> Arc<ControlPlane> {
        Arc::clone(&self.argocd().control_plane)
    }
}
