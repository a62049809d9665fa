//! A default Drop also meets what the API server asks the webhook.

use headgate_e2e_tests::{
    policies::{drop_udp, policy},
    real::{SOON, Traffic},
    trials::on_real_nodes,
    wait::wait_for,
};
use libtest_mimic::Trial;

use crate::Shared;

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_real_nodes(
        "a_policy_that_cuts_off_the_webhook_can_be_deleted",
        cut_off,
    )]
}

fn cut_off() {
    let cluster = Shared::installed();
    let rule = "{name: flow, action: Allow, protocols: [{udp: {ports: [{port: 12346}]}}]}";
    let spec = format!("{{defaultAction: Drop, rules: [{rule}]}}");
    cluster.enforce("too-strict", &policy("too-strict", &spec));
    let traffic = Traffic::start(&cluster);
    let another = drop_udp("another", 12_347);
    let apply = || cluster.kubectl().said_of(&["apply", "-f", "-"], &another);
    let said = apply();
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.errors.contains("failed calling webhook"), "{said:?}");
    // Nodes, and who writes status, still reach the API server.
    cluster.wait_until_live("too-strict");
    traffic.go_on(200);
    traffic.stop_unbroken("a default Drop of nearly all");
    cluster.run(&["delete", "xdppolicy", "too-strict", "--timeout=60s"]);
    wait_for(SOON, "the webhook is reached again", || apply().code == 0);
    cluster.wait_until_live("another");
}
