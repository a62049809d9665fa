//! A default Drop also meets what the API server asks the webhook.

use headgate_e2e_tests::{
    policies::{drop_udp, policy},
    real::{RealCluster, SOON, Traffic},
    said::Said,
    trials::on_real_nodes,
    wait::wait_for,
};
use libtest_mimic::Trial;

use crate::Shared;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_real_nodes("a_policy_that_cuts_off_the_webhook_can_be_deleted", cut_off),
        on_real_nodes("a_rule_lets_the_webhook_be_reached", let_through),
    ]
}

/// Lets pass one port of the two that traffic goes to.
const FLOW: &str = "{name: flow, action: Allow, protocols: [{udp: {ports: [{port: 12346}]}}]}";
/// As docs/security.md says it.
const WEBHOOK: &str = "{name: webhook, action: Allow, from: {cidrGroups: {names: [api-servers]}}, \
    protocols: [{tcp: {ports: [{port: 9443}]}}]}";

fn default_drop(rules: &str) -> String {
    policy(
        "strict",
        &format!("{{defaultAction: Drop, rules: [{rules}]}}"),
    )
}

fn apply_another(cluster: &RealCluster) -> Said {
    let another = drop_udp("another", 12_347);
    cluster.kubectl().said_of(&["apply", "-f", "-"], &another)
}

fn cut_off() {
    let cluster = Shared::installed();
    cluster.enforce("strict", &default_drop(FLOW));
    let traffic = Traffic::start(&cluster);
    let said = apply_another(&cluster);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.errors.contains("failed calling webhook"), "{said:?}");
    // Agents and operator still reach the API server.
    cluster.wait_until_live("strict");
    traffic.go_on(200);
    traffic.stop_unbroken("a default Drop of nearly all");
    cluster.run(&["delete", "xdppolicy", "strict", "--timeout=60s"]);
    wait_for(SOON, "the webhook is reached again", || {
        apply_another(&cluster).code == 0
    });
    cluster.wait_until_live("another");
}

fn let_through() {
    let cluster = Shared::installed();
    cluster.enforce("strict", &default_drop(&format!("{FLOW}, {WEBHOOK}")));
    let said = apply_another(&cluster);
    assert_eq!(said.code, 0, "{said:?}");
    cluster.wait_until_live("another");
}
