//! What the programs of a node read.

use std::{net::Ipv4Addr, path::Path};

use serde_json::{Value, json};

use super::CNI_PLUGINS;
use crate::control_plane::PODS;

/// The image of every pod's sandbox, and of the tests' own pods.
pub const PODS_IMAGE: &str = "localhost/headgate-tests:1";

/// What containerd reads; TOML.
pub(crate) fn containerd(networks: &Path) -> String {
    format!(
        r#"version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PODS_IMAGE}"
  # Where CAP_SYS_RESOURCE is missing, no score below our own can be set.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{}"
"#,
        networks.display()
    )
}

/// What kubelet reads, given the certificate that it serves with and its key. It never finds that
/// the machine's disk is too full for it.
pub(crate) fn kubelet(
    address: Ipv4Addr,
    authority: &Path,
    [certificate, key]: &[std::path::PathBuf; 2],
    resolver: &Path,
) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": authority},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": certificate,
        "tlsPrivateKeyFile": key,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "resolvConf": resolver,
        "volumePluginDir": "/var/lib/kubelet/plugins",
        "nodeStatusUpdateFrequency": "2s",
        "syncFrequency": "10s",
        "imageGCHighThresholdPercent": 100,
        "imageMinimumGCAge": "8760h",
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
    })
}

/// By what kube-proxy does its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyMode {
    /// Its own tables of nftables.
    Nftables,
    /// Chains of iptables, which is the default.
    Iptables,
}

impl ProxyMode {
    fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// What kube-proxy reads.
pub(crate) fn kube_proxy(kubeconfig: &Path, mode: ProxyMode) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.name(),
        "clusterCIDR": PODS,
        "oomScoreAdj": 0,
        "clientConnection": {"kubeconfig": kubeconfig},
        // A namespace may not say how many connections the machine tracks.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    })
}

/// The network of a node's pods: each has a cable of its own, so that all they say to each other is
/// routed, and what a Service's address stands for is seen on the way back too.
pub(crate) fn network(range: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": range}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}
