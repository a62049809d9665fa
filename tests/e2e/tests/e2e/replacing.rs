//! Replacements under traffic: every packet is judged by one revision or the other.

use std::net::IpAddr;

use headgate_e2e_tests::{
    flow::Receiver,
    lab::Lab,
    policies::{group, policy},
    trials::on_node,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node("no_decision_is_torn_by_200_replacements", torn),
        on_node(
            "what_stays_on_a_list_stays_dropped_while_the_list_changes",
            stays_listed,
        ),
    ]
}

/// Datagrams a second; a cable takes many times as many without loss.
const RATE: u32 = 5_000;

/// The rules r1 and r2 drop what comes from these addresses to these ports. Tables of sources from
/// one revision and of ports from another give neither.
fn revision(first: (&str, u16), second: (&str, u16)) -> String {
    let rule = |name: &str, (source, port): (&str, u16)| {
        format!(
            "{{name: {name}, action: Drop, from: {{cidrs: [{source}]}}, protocols: [{{udp: {{ports: [{{port: {port}}}]}}}}]}}"
        )
    };
    policy(
        "torn",
        &format!(
            "{{rules: [{}, {}, {{name: torn, action: Allow, protocols: [{{udp: {{}}}}]}}]}}",
            rule("r1", first),
            rule("r2", second)
        ),
    )
}

fn torn() {
    let (x, y) = (("10.0.0.1/32", 1000), ("10.0.0.2/32", 2000));
    let revisions = [revision(x, y), revision(y, x)];
    let lab = Lab::enforcing(&[("torn.yaml", &revisions[0])]);
    let source: IpAddr = [10, 0, 0, 1].into();
    lab.client.add_addresses(&[source]);
    let receiver = Receiver::open(&lab.node.namespace, &[1000]);
    let lost_before = lab.client.lost_by_devices(&lab.node.namespace);
    let flow = lab.client.flow(&[source], 1000, RATE);
    let mut slowest = std::time::Duration::ZERO;
    for number in 1..=200 {
        let took = lab.node.apply("torn.yaml", &revisions[number % 2]);
        slowest = slowest.max(took);
    }
    let (sent, received) = lab.client.finish(flow, &receiver);
    let lost = lab.client.lost_by_devices(&lab.node.namespace) - lost_before;
    let counters = lab.node.counters();
    let [r1, r2, torn] = ["torn/r1", "torn/r2", "torn/torn"].map(|rule| counters[rule]);
    println!(
        "200 replacements, the slowest live after {slowest:?}; {sent} sent, r1 {r1}, r2 {r2}, torn {torn}, received {received}, lost by devices {lost}"
    );
    assert_eq!((torn, received), (0, 0), "torn decisions");
    assert!(r1 > 0 && r2 > 0, "both revisions decided: {r1} and {r2}");
    assert_eq!(r1 + r2 + lost, sent, "every datagram met a rule");
}

/// Known failure: stale entries purged before the new ones are there.
fn stays_listed() {
    let rule = "{rules: [{name: listed, action: Drop, from: {cidrGroups: {names: [list]}}}]}";
    let list = |number: u32| {
        let mut cidrs: Vec<String> = (0..500)
            .map(|host| format!("10.{number}.{}.{}/32", host / 250, host % 250))
            .collect();
        cidrs.push("10.0.0.1/32".to_owned());
        group("list", &cidrs)
    };
    let lab = Lab::enforcing(&[
        ("policy.yaml", &policy("listed", rule)),
        ("list.yaml", &list(1)),
    ]);
    let source: IpAddr = [10, 0, 0, 1].into();
    lab.client.add_addresses(&[source]);
    let receiver = Receiver::open(&lab.node.namespace, &[1000]);
    let flow = lab.client.flow(&[source], 1000, RATE);
    for number in 2..30 {
        lab.node.apply("list.yaml", &list(number));
    }
    let (sent, received) = lab.client.finish(flow, &receiver);
    assert!(sent > 0);
    assert_eq!(received, 0, "of {sent} while the list changed");
}
