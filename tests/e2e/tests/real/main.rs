//! Headgate as it is installed: from its manifests, as pods of its image, on nodes that have a
//! containerd, a kubelet and a kube-proxy.

mod agents;
mod installed;
mod namespace;
mod pods;
mod removed;
mod tunnelled;
mod unreachable;

use std::{
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
};

use headgate_e2e_tests::{
    leftovers,
    paths::example,
    real::{self, ProxyMode, RealCluster},
};
use libtest_mimic::{Arguments, Trial};

/// Enough for a roll-out to leave one alone while it is at another.
const NODES: u8 = 2;

static CLUSTER: Mutex<Option<RealCluster>> = Mutex::new(None);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They share a cluster, which serves one after the other.
    arguments.test_threads = Some(1);
    let trials: Vec<Trial> = [
        installed::trials(),
        agents::trials(),
        namespace::trials(),
        pods::trials(),
        tunnelled::trials(),
        unreachable::trials(),
        removed::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !arguments.list && nix::unistd::geteuid().is_root() {
        leftovers::sweep();
        real::sweep();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    CLUSTER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    conclusion.exit_code()
}

/// The cluster that tests share.
struct Shared(MutexGuard<'static, Option<RealCluster>>);

impl Shared {
    /// With Headgate at work in it, and no policy.
    fn installed() -> Self {
        // Whoever failed before left policies at worst.
        let mut cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.get_or_insert_with(|| RealCluster::start(NODES));
        let cluster = Self(cluster);
        cluster.install();
        let all = ["delete", "xdppolicies,cidrgroups", "--all", "--timeout=60s"];
        cluster.run(&all);
        cluster
    }

    /// With Headgate at work in it, and the policy of [`POLICY`] enforced.
    fn enforcing() -> Self {
        let cluster = Self::installed();
        cluster.enforce(POLICY, &example("policies/drop-udp-12345.yaml"));
        cluster
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
        }
    }
}

impl Shared {
    /// Has kube-proxy work in this mode.
    fn proxy_by(&mut self, mode: ProxyMode) {
        self.0.as_mut().expect("it was started").proxy_by(mode);
    }
}

impl std::ops::Deref for Shared {
    type Target = RealCluster;

    fn deref(&self) -> &RealCluster {
        self.0.as_ref().expect("it was started")
    }
}

/// The policy that drops one of the two ports that traffic goes to.
const POLICY: &str = "drop-udp-12345";
