//! What an agent tells Prometheus and kubelet.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
};

use headgate_e2e_tests::{
    frames::udp,
    lab::Lab,
    namespace::Namespace,
    node::SOON,
    paths::example,
    policies::drop_udp,
    services::ServiceLab,
    trials::{on_node, on_node_with},
    wait::wait_for,
};
use libtest_mimic::Trial;

/// A peer at the lab's client.
const PEER: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: TunnelPeer
metadata: {name: client}
spec: {podCIDRs: [10.244.2.0/24], endpoint: 192.168.0.2, vni: 7}
";

const ADDRESS: &str = "127.0.0.1:9469";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node("metrics_and_probes_tell_what_the_kernel_holds", metrics),
        on_node_with(
            "metrics_tell_who_was_outside_of_source_ranges",
            &["ethtool"],
            outside,
        ),
    ]
}

/// The answer to a request on the node's loopback; empty where nobody answers.
fn ask(node: &Namespace, path: &str) -> String {
    node.enter(|| {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(ADDRESS) {
            let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("it reads");
            stream.read_to_string(&mut answer).expect("it answers");
        }
        answer
    })
}

fn outside() {
    let mut lab = ServiceLab::new(1);
    lab.node.arguments = vec![format!("--metrics-address={ADDRESS}")];
    let pool = example("services/nat.yaml");
    let (pool, _) = pool.split_once("\n---\n").expect("two documents");
    let limited = format!(
        "{}  sourceRanges: [192.0.2.0/24]\n",
        lab.nat_service(&[(0, 1)])
    );
    lab.node.write("pool.yaml", pool);
    lab.node.write("web.yaml", &limited);
    lab.node.start();
    let node = lab.node.namespace.clone();
    let count = || {
        let text = ask(&node, "/metrics");
        let name = r#"headgate_service_outside_packets_total{service="shop/web"} "#;
        let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
        values.next()?.parse::<u64>().ok()
    };
    wait_for(SOON, "it is served, and counts from nothing", || {
        count() == Some(0)
    });
    assert!(lab.connect(0).is_err());
    wait_for(SOON, "a SYN was outside", || count() > Some(0));
}

fn metrics() {
    let mut lab = Lab::new();
    lab.node.arguments = vec![format!("--metrics-address={ADDRESS}")];
    lab.node.write("drop.yaml", &drop_udp("web", 7001));
    lab.node.start();
    let node = lab.node.namespace.clone();
    wait_for(SOON, "it is ready", || {
        ask(&node, "/readyz").starts_with("HTTP/1.1 200")
    });
    assert!(ask(&node, "/healthz").starts_with("HTTP/1.1 200"));
    let text = ask(&node, "/metrics");
    let has = |text: &str, line: &str| text.lines().any(|told| told == line);
    assert!(
        has(&text, r#"headgate_interface_enforced{interface="eth0"} 1"#),
        "{text}"
    );
    let rule = r#"headgate_rule_packets_total{policy="web",rule="udp",action="Drop"}"#;
    assert!(has(&text, &format!("{rule} 0")), "{text}");

    lab.client
        .wire
        .send(&udp("192.0.2.7:5000", "192.0.2.1:7001"), 2);
    wait_for(SOON, "two packets are counted", || {
        has(&ask(&node, "/metrics"), &format!("{rule} 2"))
    });

    lab.node.write("peer.yaml", PEER);
    wait_for(SOON, "the tunnel is told", || {
        let told = r#"headgate_tunnel_enforced{device="headgate_vxlan"} 1"#;
        has(&ask(&node, "/metrics"), told)
    });
    let nobodys = r#"headgate_tunnel_packets_total{event="NoPeer"}"#;
    assert!(has(&ask(&node, "/metrics"), &format!("{nobodys} 0")));
    node.ip("route add 10.9.0.0/16 via 192.168.0.2 dev headgate_vxlan onlink");
    let socket = node.enter(|| UdpSocket::bind("0.0.0.0:0"));
    let sent = socket.and_then(|socket| socket.send_to(b"data", "10.9.0.1:9"));
    sent.expect("it is sent");
    wait_for(SOON, "what no peer has is counted", || {
        has(&ask(&node, "/metrics"), &format!("{nobodys} 1"))
    });

    // The interface is taken away: what was selected is not enforced, and an alert can say so.
    node.ip("link set eth0 name gone down");
    wait_for(SOON, "it is no longer told as enforced", || {
        !has(
            &ask(&node, "/metrics"),
            r#"headgate_interface_enforced{interface="eth0"} 1"#,
        )
    });
}
