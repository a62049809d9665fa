//! From nothing to an enforced policy, as docs/install.md says.

use headgate_e2e_tests::{paths::example, policies::policy, real::Traffic, trials::on_real_nodes};
use libtest_mimic::Trial;

use crate::{POLICY, Shared};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_real_nodes("installed_by_its_manifests_it_enforces_a_policy", enforces),
        on_real_nodes("the_webhook_refuses_through_its_service", refuses),
    ]
}

fn enforces() {
    let cluster = Shared::installed();
    assert_eq!(cluster.agents().len(), cluster.nodes.len());
    let traffic = Traffic::start(&cluster);
    traffic.go_on(300);
    for count in traffic.stop() {
        let (sent, arrived) = count.denied;
        assert!(arrived + count.lost >= sent, "before the policy: {count:?}");
    }
    cluster.enforce(POLICY, &example("policies/drop-udp-12345.yaml"));
    let traffic = Traffic::start(&cluster);
    traffic.go_on(300);
    traffic.stop_unbroken("with the policy");
    let status = cluster.kubectl().json(&["get", "xdppolicy", POLICY]);
    let nodes = &status["status"]["nodes"];
    assert_eq!(nodes["live"], cluster.nodes.len(), "{status:#}");
}

fn refuses() {
    let cluster = Shared::installed();
    // What the schema cannot say: such a rule never matches.
    let never = "{rules: [{name: never, action: Drop, from: {cidrs: [10.0.0.0/8]}, protocols: [{icmpv6: {}}]}]}";
    let said = cluster
        .kubectl()
        .said_of(&["apply", "-f", "-"], &policy("never", never));
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.errors.contains("never matches"), "{said:?}");
}
