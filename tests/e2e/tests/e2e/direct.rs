//! Packets of the tunnel that go to pods without the node's stack.

use std::{process::Command, thread, time::Duration};

use headgate_e2e_tests::{
    namespace::{Namespace, run},
    node::{Node, SOON},
    paths::example,
    trials::on_node,
    tunnel::{DIRECT, Host, ask, ask_for_much, connect, count},
    wait::wait_for,
};
use libtest_mimic::Trial;

use crate::tunnelling::Site;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node("example_pods_get_packets_directly", directly),
        on_node("a_stack_that_is_in_use_is_not_passed_by", by_the_stack),
        on_node("what_acts_on_a_pods_interface_is_not_passed_by", shaped),
        on_node("a_pod_that_is_made_anew_gets_its_packets", made_anew),
    ]
}

/// Packets that went directly, of so much that a pod was sent over a connection; the rest went by the stack.
fn delivered(from: &Host, to: &Host, node: &Node) -> [u64; 2] {
    let counts = || ["Delivered", "Received"].map(|event| count(node, event));
    let before = counts();
    for address in to.pod_addresses() {
        let mut stream = connect(&from.pod, address).expect("the pod answers");
        // The answer's acknowledgements come to the pod that is asked.
        ask_for_much(&mut stream, to.number);
    }
    let after = counts();
    [after[0] - before[0], after[1] - before[1]]
}

/// Whether all that comes to the pod of a host goes there directly.
fn is_direct(from: &Host, to: &Host, node: &Node) -> bool {
    let [directly, by_the_stack] = delivered(from, to, node);
    directly > 20 && by_the_stack == 0
}

fn is_by_the_stack(from: &Host, to: &Host, node: &Node) -> bool {
    let [directly, by_the_stack] = delivered(from, to, node);
    directly == 0 && by_the_stack > 20
}

fn said(namespace: &Namespace, program: &str, arguments: &str) -> String {
    let mut command: Command = namespace.command(program);
    let output = command.args(arguments.split(' ')).output();
    let output = output.expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn directly() {
    let site = Site::new(&[1, 2, 3], &example(DIRECT));
    let [first, second, third] = [&site.hosts[0], &site.hosts[1], &site.hosts[2]];
    let node = &site.nodes[1];
    // Where a pod is, is known from its first packets on.
    wait_for(SOON, "pods get packets directly", || {
        is_direct(first, second, node)
    });
    let peer = node.headgate(&["tunnel", "get", "node-1"]).output;
    assert!(peer.contains("Direct"), "{peer}");
    let trace = |from: &Host| {
        let [[from, _], [to, _]] = [from, second].map(Host::pod_addresses);
        let (from, to) = (from.to_string(), to.to_string());
        node.headgate(&["tunnel", "trace", &from, &to]).output
    };
    assert!(trace(first).contains("past the node's stack (Delivered)"));
    assert!(trace(third).trim_end().ends_with("then the node's stack"));
    // From the peer that does not ask for it, they go by the stack.
    assert!(is_by_the_stack(third, second, node));
    // But that its pods may send more than the tunnel takes.
    let status = node.status();
    let mut findings = status["findings"].as_array().into_iter().flatten();
    assert!(
        findings.all(|finding| finding["reason"] == "PodMtuTooLarge"),
        "{status}"
    );
    for (address, family) in second.pod_addresses().into_iter().zip(["-4", "-6"]) {
        // As many hops as by the stack: of 64, one at each node.
        let ping = said(&first.pod, "ping", &format!("{family} -c1 -W2 {address}"));
        assert!(ping.contains("ttl=62"), "{ping}");
        // The last one is the stack's to tell of.
        let ping = said(
            &first.pod,
            "ping",
            &format!("{family} -c1 -W2 -t2 {address}"),
        );
        let ping = ping.to_lowercase();
        assert!(
            ping.contains("time to live exceeded") || ping.contains("hop limit"),
            "{ping}"
        );
    }
    // Policies judge it before.
    let policy = "\
apiVersion: headgate.dev/v1alpha1
kind: XdpPolicy
metadata: {name: inner}
spec:
  interfaces: [headgate_vxlan]
  rules:
    - {name: not-8081, action: Drop, protocols: [{tcp: {ports: [{port: 8081}]}}]}
";
    node.apply("inner.yaml", policy);
    node.settle();
    assert!(is_direct(first, second, node), "behind a policy");
}

fn by_the_stack() {
    let site = Site::new(&[1, 2], &example(DIRECT));
    let [first, second] = [&site.hosts[0], &site.hosts[1]];
    let node = &site.nodes[1];
    wait_for(SOON, "pods get packets directly", || {
        is_direct(first, second, node)
    });
    let held = second.pod_addresses();
    let mut held = held.map(|pod| connect(&first.pod, pod).expect("the pod answers"));
    let nft = |rules: &str| {
        run(second.namespace.command("nft").arg(rules));
    };
    nft("add table ip theirs; add chain ip theirs local { type filter hook input priority 0; }");
    // A look of the agent's later.
    thread::sleep(Duration::from_secs(6));
    assert!(is_direct(first, second, node), "the node's own packets");
    for chain in [
        "add chain ip theirs nat { type nat hook prerouting priority dstnat; }",
        "add chain ip theirs nat { type filter hook forward priority 0; }",
        "add table bridge theirs; add chain bridge theirs nat { type filter hook output priority 0; }",
        "add table netdev theirs; add chain netdev theirs nat { type filter hook ingress device headgate_vxlan priority 0; }",
    ] {
        nft(chain);
        let told = || node.status()["findings"].to_string();
        wait_for(SOON, chain, || told().contains("StackInUse"));
        assert!(told().contains("the chain nat of nftables"), "{}", told());
        assert!(is_by_the_stack(first, second, node), "{chain}");
        for stream in &mut held {
            assert_eq!(ask(stream).expect("an answer"), 2, "{chain}");
        }
        let mut families = ["bridge", "netdev"].into_iter();
        let family = families.find(|family| chain.contains(family));
        let family = family.unwrap_or("ip");
        nft(&format!("delete chain {family} theirs nat"));
        wait_for(SOON, "it is gone", || !told().contains("StackInUse"));
        wait_for(SOON, "packets go directly again", || {
            is_direct(first, second, node)
        });
    }
}

fn shaped() {
    let site = Site::new(&[1, 2], &example(DIRECT));
    let [first, second] = [&site.hosts[0], &site.hosts[1]];
    let node = &site.nodes[1];
    wait_for(SOON, "pods get packets directly", || {
        is_direct(first, second, node)
    });
    let tc = |arguments: &str| {
        run(second.namespace.command("tc").args(arguments.split(' ')));
    };
    tc("qdisc add dev pod root tbf rate 10gbit burst 10mb latency 50ms");
    wait_for(SOON, "the bandwidth's limit holds", || {
        is_by_the_stack(first, second, node)
    });
    tc("qdisc del dev pod root");
    wait_for(SOON, "packets go directly again", || {
        is_direct(first, second, node)
    });
}

fn made_anew() {
    let site = Site::new(&[1, 2], &example(DIRECT));
    let [first, second] = [&site.hosts[0], &site.hosts[1]];
    let node = &site.nodes[1];
    wait_for(SOON, "pods get packets directly", || {
        is_direct(first, second, node)
    });
    second.remake_pod_interface();
    wait_for(SOON, "the pod is where it is now", || {
        connect(&first.pod, second.pod_addresses()[0]).is_ok()
    });
    wait_for(SOON, "packets go directly again", || {
        is_direct(first, second, node)
    });
}
