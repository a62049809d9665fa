//! Real nodes: each a set of namespaces on this machine with a containerd, a kubelet and a
//! kube-proxy of its own, on a switch with each other, the API server and a client.

mod cgroups;
mod cluster;
mod config;
mod node;
mod traffic;

use std::{env, path::PathBuf, process::Command};

pub use cgroups::sweep;
pub use cluster::{NAMESPACE, RealCluster, SOON, condition};
pub use config::{PODS_IMAGE, ProxyMode};
pub use node::RealNode;
pub use traffic::Traffic;

/// What nodes run besides what is built, and where Debian keeps the plugins of the pods' network.
const PROGRAMS: [&str; 8] = [
    "containerd",
    "ctr",
    "runc",
    "nft",
    "iptables",
    "conntrack",
    "unshare",
    "hostname",
];
const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Archives of images, as `cargo xtask cluster` names them.
const IMAGES: [&str; 2] = ["HEADGATE_IMAGE", "HEADGATE_PODS_IMAGE"];

/// Why there can be no real nodes here.
pub(crate) fn cannot_run() -> Option<String> {
    let unset = IMAGES.into_iter().find(|name| env::var_os(name).is_none());
    if let Some(name) = unset {
        return Some(format!(
            "{name} names no image: it is run by `make cluster`"
        ));
    }
    let missing = PROGRAMS.into_iter().find(|program| !on_path(program));
    if let Some(program) = missing {
        return Some(format!("there is no command {program} here"));
    }
    let bridge = PathBuf::from(CNI_PLUGINS).join("ptp");
    (!bridge.exists()).then(|| format!("there is no {}", bridge.display()))
}

fn on_path(program: &str) -> bool {
    let mut which = Command::new("sh");
    let found = which.args(["-c", "command -v \"$0\"", program]).output();
    found.is_ok_and(|output| output.status.success())
}

fn images() -> [PathBuf; 2] {
    IMAGES.map(|name| PathBuf::from(env::var_os(name).expect("looked for by this test")))
}
