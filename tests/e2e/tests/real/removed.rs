//! What docs/install.md says of the removal leaves nothing behind.

use headgate_e2e_tests::{
    real::{RealNode, Traffic},
    trials::on_real_nodes,
};
use libtest_mimic::Trial;

use crate::Shared;

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_real_nodes(
        "the_documented_removal_leaves_nothing_in_cluster_and_kernels",
        removed,
    )]
}

fn removed() {
    let cluster = Shared::enforcing();
    for node in &cluster.nodes {
        assert!(has_program(node), "{}", node.name);
    }
    cluster.follow("Removal");
    for node in &cluster.nodes {
        assert!(!has_program(node), "{}", node.name);
        let pins = node.said("ls", &["/sys/fs/bpf/headgate"]);
        assert!(pins.errors.contains("No such file"), "{pins:?}");
    }
    let kinds = "namespaces,crds,clusterroles,clusterrolebindings,roles,rolebindings,\
        validatingwebhookconfigurations,validatingadmissionpolicies,\
        validatingadmissionpolicybindings,leases";
    let left = cluster.run(&["get", kinds, "-A", "-o", "name"]);
    let ours: Vec<&str> = left
        .lines()
        .filter(|name| name.contains("headgate"))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
    let traffic = Traffic::start(&cluster);
    traffic.go_on(200);
    for count in traffic.stop() {
        let (sent, arrived) = count.denied;
        assert!(arrived + count.lost >= sent, "{count:?}");
    }
}

fn has_program(node: &RealNode) -> bool {
    node.member
        .namespace
        .ip("-d link show dev eth0")
        .contains("prog/xdp")
}
