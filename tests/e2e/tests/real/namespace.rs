//! All of Headgate is deleted but its definitions and policies, and installed again.

use headgate_e2e_tests::{
    policies::drop_udp,
    real::{NAMESPACE, Traffic},
    trials::on_real_nodes,
};
use libtest_mimic::Trial;

use crate::{POLICY, Shared};

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_real_nodes(
        "without_its_namespace_enforcement_goes_on_and_all_recovers",
        deleted,
    )]
}

fn deleted() {
    let cluster = Shared::enforcing();
    let traffic = Traffic::start(&cluster);
    traffic.go_on(200);
    cluster.run(&["delete", "namespace", NAMESPACE, "--timeout=120s"]);
    traffic.go_on(500);
    // Nobody is left to check a policy, so none is stored.
    let another = drop_udp("another", 12_347);
    let said = cluster.kubectl().said_of(&["apply", "-f", "-"], &another);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.errors.contains("failed calling webhook"), "{said:?}");
    cluster.install();
    cluster.wait_until_live(POLICY);
    traffic.go_on(200);
    traffic.stop_unbroken("the namespace deleted and made again");
    cluster.enforce("another", &another);
}
