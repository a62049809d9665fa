//! The health checks that Argo CD is told.

use std::process::Command;

use headgate_e2e_tests::{argocd::health_test, paths::workspace, said::Said, trials::on_argocd};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_argocd(
        "health_checks_answer_as_their_tests_say",
        as_their_tests_say,
    )]
}

fn as_their_tests_say() {
    let mut command = Command::new(health_test());
    command.current_dir(workspace());
    let said = Said::of(command.arg("manifests/argocd/resource_customizations"));
    print!("{}", said.output);
    assert_eq!(said.code, 0, "{said:?}");
    // One kind that is left out would pass as well.
    for kind in [
        "XdpPolicy",
        "CidrGroup",
        "LoadBalancerService",
        "AddressPool",
        "TunnelPeer",
        "NodeDatapath",
    ] {
        assert!(said.output.contains(&format!("/{kind}/")), "{kind}");
    }
}
