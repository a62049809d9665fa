//! Pods of several hosts, joined by the tunnel.

use std::time::Duration;

use headgate_e2e_tests::{
    namespace::Namespace,
    node::{Node, SOON},
    paths::example,
    trials::on_node,
    tunnel::{EXAMPLE, Host, Underlay, ask, ask_for_much, connect, count, datagram},
    wait::wait_for,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node("example_three_nodes_are_joined", joined),
        on_node("a_tunnel_over_ipv6_carries_both_families", over_ipv6),
        on_node("what_a_peer_may_not_send_is_dropped_and_counted", spoofed),
        on_node("a_peer_moves_and_connections_stay", moved),
        on_node("a_plain_vxlan_device_is_a_peer_both_ways", plain),
        on_node("policies_judge_inner_packets", judged),
        on_node("a_tunnel_outlives_its_agent_and_is_mended", mended),
        on_node("a_peer_that_goes_away_is_told", away),
        on_node("what_is_not_the_tunnels_stays", others),
        on_node("a_better_route_of_somebody_elses_is_told", diverted),
    ]
}

/// Hosts of these numbers, all joined by the example.
pub(crate) struct Site {
    pub(crate) nodes: Vec<Node>,
    pub(crate) hosts: Vec<Host>,
    link: Underlay,
}

impl Site {
    pub(crate) fn new(numbers: &[u8], peers: &str) -> Self {
        let link = Underlay::new();
        let hosts: Vec<Host> = numbers.iter().map(|n| Host::on(&link, *n)).collect();
        let nodes = hosts.iter().map(|host| host.node(peers)).collect();
        Self { nodes, hosts, link }
    }

    pub(crate) fn of_example(numbers: &[u8]) -> Self {
        Self::new(numbers, &example(EXAMPLE))
    }

    /// The same whose outer packets are of IPv6.
    pub(crate) fn over_ipv6(numbers: &[u8]) -> Self {
        let peers = example(EXAMPLE).replace("endpoint: 192.0.2.", "endpoint: 2001:db8::");
        Self::new(numbers, &peers)
    }
}

fn joined() {
    let site = Site::of_example(&[1, 2, 3]);
    for from in &site.hosts {
        for to in site.hosts.iter().filter(|to| to.number != from.number) {
            for address in to.pod_addresses() {
                let mut stream = connect(&from.pod, address).expect("the pod answers");
                assert_eq!(ask(&mut stream).expect("an answer"), to.number);
                ask_for_much(&mut stream, to.number);
            }
            // The node itself speaks with an address of its own network.
            let mut stream = connect(&from.namespace, to.pod_addresses()[0]).expect("it answers");
            assert_eq!(ask(&mut stream).expect("an answer"), to.number);
            let local = stream.local_addr().expect("an address").ip();
            assert_eq!(local.to_string(), format!("10.244.{}.1", from.number));
        }
    }
    // Longer than the tunnel takes: the pod is told, and sends fragments.
    let [v4, v6] = site.hosts[1].pod_addresses();
    let from = &site.hosts[0];
    let [own_v4, own_v6] = from.pod_addresses();
    for (own, address) in [(own_v4, v4), (own_v6, v6)] {
        let _ = datagram(&from.pod, own, address, 1_470);
        assert_eq!(
            datagram(&from.pod, own, address, 1_470),
            Some(2),
            "{address}"
        );
    }
    let node = &site.nodes[0];
    assert!(count(node, "Sent") > 100 && count(node, "Received") > 100);
    for dropped in ["SpoofedSource", "UnknownSource", "WrongVni", "NoPeer"] {
        assert_eq!(count(node, dropped), 0, "{dropped}");
    }
    let view = node.headgate(&["tunnel", "list", "-o", "json"]).json();
    for (peer, own) in [(0, true), (1, false), (2, false)] {
        assert_eq!(view["peers"][peer]["state"], "Enforced", "{view:#}");
        assert_eq!(view["peers"][peer]["is_own"], own, "{view:#}");
    }
    assert_eq!(view["device"]["mtu"], 1_450, "{view:#}");
    pods_are_to_send_less(&site);
    let trace = node.headgate(&["tunnel", "trace", "10.244.1.2", "10.244.2.2"]);
    assert!(
        trace.output.contains("192.0.2.1 -> 192.0.2.2 port 8472"),
        "{trace:?}"
    );
    assert!(
        trace.output.contains("it does not come by the tunnel"),
        "{trace:?}"
    );
    let peer = node.headgate(&["tunnel", "get", "node-3"]);
    assert!(
        peer.output.contains("10.244.3.0/24 via 192.0.2.3"),
        "{peer:?}"
    );
}

/// A veth pair takes 1500 bytes if nobody says anything, and the tunnel 1450.
fn pods_are_to_send_less(site: &Site) {
    let node = &site.nodes[0];
    let warnings = || -> Vec<String> {
        let status = node.status();
        let findings = status["findings"].as_array().cloned().unwrap_or_default();
        let told = findings.iter();
        told.map(|f| format!("{} {}", f["reason"], f["resource"]["name"]))
            .collect()
    };
    let oversized = r#""PodMtuTooLarge" "node-1""#;
    assert_eq!(warnings(), [oversized]);
    let list = node.headgate(&["tunnel", "list"]);
    let words = "pods of this node may send packets of 1500 bytes";
    assert!(list.output.contains(words), "{list:?}");
    assert_eq!(node.headgate(&["status"]).code, 0, "it is a warning");
    let policies = node.policies().display().to_string();
    let plan = node.headgate(&["plan", &policies, "--node-name", "node-1"]);
    assert!(plan.output.contains(words), "{plan:?}");
    // Nothing is written while nothing changes, although it is looked at again.
    let written = node.report_written();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(node.report_written(), written);
    let host = &site.hosts[0];
    host.namespace.ip("link set pod mtu 1450");
    host.pod.ip("link set eth0 mtu 1450");
    wait_for(SOON, "pods fit", || warnings().is_empty());
}

fn over_ipv6() {
    let site = Site::over_ipv6(&[1, 2]);
    for address in site.hosts[1].pod_addresses() {
        let mut stream = connect(&site.hosts[0].pod, address).expect("the pod answers");
        ask_for_much(&mut stream, 2);
    }
    let view = site.nodes[0]
        .headgate(&["tunnel", "list", "-o", "json"])
        .json();
    assert_eq!(view["device"]["mtu"], 1_430, "{view:#}");
}

fn spoofed() {
    let site = Site::of_example(&[1, 2, 3]);
    let [from, to] = [&site.hosts[0], &site.hosts[1]];
    let receiver = &site.nodes[1];
    let forge = |address: &str| {
        let length = if address.contains(':') { 128 } else { 32 };
        let nodad = if length == 128 { "nodad" } else { "" };
        from.pod
            .ip(&format!("address add {address}/{length} dev eth0 {nodad}"));
        let source = address.parse().expect("an address");
        let [v4, v6] = to.pod_addresses();
        let to = if length == 128 { v6 } else { v4 };
        assert_eq!(datagram(&from.pod, source, to, 1), None, "{address}");
    };
    for forged in ["10.244.3.9", "fd00:244:3::9", "192.0.2.3", "10.244.2.9"] {
        let before = count(receiver, "SpoofedSource");
        forge(forged);
        // The first packet of a pod may wait for its neighbour.
        wait_for(SOON, &format!("{forged} is counted"), || {
            count(receiver, "SpoofedSource") == before + 1
        });
    }
    for nobodys in ["10.9.9.9", "fd09::9"] {
        let before = count(receiver, "UnknownSource");
        forge(nobodys);
        wait_for(SOON, &format!("{nobodys} is counted"), || {
            count(receiver, "UnknownSource") == before + 1
        });
    }
    // Its own addresses, all of them, still pass.
    let own = "10.244.1.77";
    from.pod.ip(&format!("address add {own}/32 dev eth0"));
    let own = own.parse().expect("an address");
    from.namespace.ip("route add 10.244.1.77 dev pod");
    assert_eq!(datagram(&from.pod, own, to.pod_addresses()[0], 1), Some(2));
    // A tunnel's packet inside of the tunnel, to the device of the other node.
    let before = count(receiver, "Nested");
    let socket = from.pod.enter(|| std::net::UdpSocket::bind("10.244.1.2:0"));
    let socket = socket.expect("the address is its own");
    socket.send_to(&[0; 60], "10.244.2.1:8472").expect("sent");
    wait_for(SOON, "it is counted", || {
        count(receiver, "Nested") == before + 1
    });
}

fn moved() {
    let site = Site::of_example(&[1, 2, 3]);
    let [from, to] = [&site.hosts[0], &site.hosts[1]];
    let addresses = to.pod_addresses();
    let mut held = addresses.map(|pod| connect(&from.pod, pod).expect("the pod answers"));
    for stream in &mut held {
        assert_eq!(ask(stream).expect("an answer"), 2);
    }
    to.namespace.ip("address del 192.0.2.2/24 dev eth0");
    to.namespace.ip("address add 192.0.2.22/24 dev eth0");
    let peers = example(EXAMPLE).replace("endpoint: 192.0.2.2\n", "endpoint: 192.0.2.22\n");
    let took = site
        .nodes
        .iter()
        .map(|node| node.apply("peers.yaml", &peers));
    println!("moved in {:?}", took.collect::<Vec<Duration>>());
    for stream in &mut held {
        assert_eq!(ask(stream).expect("an answer"), 2, "after the move");
        ask_for_much(stream, 2);
    }
    let mut stream = connect(&from.pod, addresses[0]).expect("the pod answers");
    assert_eq!(ask(&mut stream).expect("an answer"), 2);
}

fn plain() {
    let link = Underlay::new();
    let hosts = [1, 3].map(|number| Host::on(&link, number));
    let node = hosts[0].node(&example(EXAMPLE));
    hosts[1].join_plainly(&hosts[0], 7);
    for (from, to) in [(&hosts[0], &hosts[1]), (&hosts[1], &hosts[0])] {
        for address in to.pod_addresses() {
            let mut stream = connect(&from.pod, address).expect("the pod answers");
            ask_for_much(&mut stream, to.number);
        }
    }
    let mut stream = connect(&hosts[1].namespace, hosts[0].pod_addresses()[0]).expect("it answers");
    assert_eq!(ask(&mut stream).expect("an answer"), 1);
    // The same by another network's number.
    hosts[1].namespace.ip("link del vx7");
    hosts[1].join_plainly(&hosts[0], 9);
    let [v4, _] = hosts[0].pod_addresses();
    let [own, _] = hosts[1].pod_addresses();
    let before = count(&node, "WrongVni");
    assert_eq!(datagram(&hosts[1].pod, own, v4, 1), None);
    assert_eq!(count(&node, "WrongVni"), before + 1);
}

fn judged() {
    let site = Site::of_example(&[1, 2]);
    let policy = "\
apiVersion: headgate.dev/v1alpha1
kind: XdpPolicy
metadata: {name: inner}
spec:
  interfaces: [headgate_vxlan]
  rules:
    - name: no-datagrams-from-pods-of-node-1
      action: Drop
      from: {cidrs: [10.244.1.0/24]}
      protocols: [{udp: {}}]
";
    let [from, to] = [&site.hosts[0], &site.hosts[1]];
    let ([own, own_v6], [v4, v6]) = (from.pod_addresses(), to.pod_addresses());
    assert_eq!(datagram(&from.pod, own, v4, 1), Some(2));
    site.nodes[1].apply("inner.yaml", policy);
    site.nodes[1].settle();
    assert_eq!(datagram(&from.pod, own, v4, 1), None);
    assert_eq!(datagram(&from.pod, own_v6, v6, 1), Some(2));
    let mut stream = connect(&from.pod, v4).expect("the pod answers");
    ask_for_much(&mut stream, 2);
    let counters = site.nodes[1].counters();
    assert_eq!(counters["inner/no-datagrams-from-pods-of-node-1"], 1);
}

fn mended() {
    let mut site = Site::of_example(&[1, 2]);
    let [v4, v6] = site.hosts[1].pod_addresses();
    let mut held = connect(&site.hosts[0].pod, v6).expect("the pod answers");
    site.nodes[0].kill();
    assert_eq!(ask(&mut held).expect("an answer"), 2, "without an agent");
    site.nodes[0].start();
    assert_eq!(ask(&mut held).expect("an answer"), 2, "with another agent");
    for damage in [
        "route del 10.244.2.0/24 dev headgate_vxlan",
        "neigh del 192.0.2.2 dev headgate_vxlan",
        "link set headgate_vxlan down",
        "link set headgate_vxlan mtu 1400",
        "link set headgate_vxlan address 02:00:00:00:00:99",
        "link del headgate_vxlan",
    ] {
        site.hosts[0].namespace.ip(damage);
        wait_for(SOON, damage, || is_enforced(&site.nodes[0]));
        for address in [v4, v6] {
            let mut stream = connect(&site.hosts[0].pod, address).expect("the pod answers");
            assert_eq!(ask(&mut stream).expect("an answer"), 2, "{damage}");
        }
    }
}

fn is_enforced(node: &Node) -> bool {
    let view = node.headgate(&["tunnel", "list", "-o", "json"]).json();
    view["device"]["state"] == "Enforced"
}

fn peer(node: &Node, name: &str) -> serde_json::Value {
    node.headgate(&["tunnel", "get", name, "-o", "json"]).json()
}

/// Whether a node has heard its peer, in the words of `headgate tunnel list`: state, reason, seconds.
fn heard(node: &Node, peer: &str) -> (String, String, Option<u64>) {
    let view = self::peer(node, peer);
    let word = |field: &str| {
        let text = view["reachability"][field].as_str();
        text.unwrap_or_default().to_owned()
    };
    let seen = view["seenSecondsAgo"].as_u64();
    (word("state"), word("reason"), seen)
}

/// A host with Headgate, one with a plain device.
fn away() {
    const IN_SECONDS: Duration = Duration::from_secs(60);
    let link = Underlay::new();
    let hosts = [1, 3].map(|number| Host::on(&link, number));
    let node = hosts[0].node(&example(EXAMPLE));
    hosts[1].join_plainly(&hosts[0], 7);
    // Nothing came by the tunnel, and the host refuses the probe.
    wait_for(IN_SECONDS, "the plain host is heard", || {
        heard(&node, "node-3").0 == "Reachable"
    });
    assert_eq!(heard(&node, "node-3").2, None);
    // There is no such host at all.
    wait_for(IN_SECONDS, "nobody is not heard", || {
        heard(&node, "node-2").0 == "Unreachable"
    });
    let (_, reason, _) = heard(&node, "node-2");
    assert!(reason.contains("192.0.2.2:8472"), "{reason}");
    let [v4, _] = hosts[1].pod_addresses();
    let [own, _] = hosts[0].pod_addresses();
    assert_eq!(datagram(&hosts[0].pod, own, v4, 1), Some(3));
    let (_, _, seen) = heard(&node, "node-3");
    assert!(seen.is_some_and(|seconds| seconds < 5), "{seen:?}");
    // Its place in the tables is another now; what is known of it is not.
    let peers = example(EXAMPLE).replace("node-1", "node-9");
    node.apply(
        "peers.yaml",
        &peers.replace("10.244.2.0/24", "10.244.22.0/24"),
    );
    assert!(heard(&node, "node-3").2.is_some());
    let report = || node.report();
    hosts[1].namespace.ip("link set eth0 down");
    wait_for(IN_SECONDS, "its host went away", || {
        heard(&node, "node-3").0 == "Unreachable"
    });
    let told = report();
    let (_, reason, seen) = heard(&node, "node-3");
    assert!(reason.contains("192.0.2.3:8472"), "{reason}");
    assert!(seen.is_some(), "when it was heard last");
    // Ready waits for nobody.
    assert!(is_enforced(&node));
    std::thread::sleep(Duration::from_secs(9));
    assert_eq!(report(), told, "nothing is written while nothing changes");
    hosts[1].namespace.ip("link set eth0 up");
    hosts[1]
        .namespace
        .ip("-6 address replace 2001:db8::3/64 dev eth0 nodad");
    wait_for(IN_SECONDS, "it is back", || {
        heard(&node, "node-3").0 == "Reachable"
    });
    assert_eq!(heard(&node, "node-3").1, "");
}

/// Each is a route that packets to pods of the second host would take.
fn diverted() {
    let site = Site::of_example(&[1, 2]);
    let node = &site.nodes[0];
    let namespace = &site.hosts[0].namespace;
    for (family, network, route) in [
        ("-4", "10.244.2.0/24", "10.244.2.0/25 via 192.0.2.9"),
        ("-4", "10.244.2.0/24", "10.244.2.128/25 via 192.0.2.9"),
        (
            "-4",
            "10.244.2.0/24",
            "10.244.2.0/24 via 192.0.2.9 metric 5",
        ),
        ("-6", "fd00:244:2::/64", "fd00:244:2::/80 via 2001:db8::9"),
    ] {
        namespace.ip(&format!("{family} route add {route}"));
        let (theirs, _) = route.split_once(' ').expect("a destination");
        let told = format!("packets to {network} leave by eth0: the route to {theirs} is");
        node.wait_for_log(&told);
        let peer = peer(node, "node-2");
        assert_eq!(peer["state"], "Outdated", "{peer:#}");
        let reason = peer["diversion"].to_string();
        assert!(reason.contains(&told), "{reason}");
        assert!(node.headgate(&["tunnel", "list"]).output.contains(&told));
        let status = node.headgate(&["status"]);
        assert!(
            status.code == 3 && status.output.contains(&told),
            "{status:?}"
        );
        // The others have nothing to do with it.
        assert!(is_enforced(node));
        assert_eq!(self::peer(node, "node-3")["state"], "Enforced");
        namespace.ip(&format!("{family} route del {route}"));
        wait_for(SOON, "it is as wanted again", || {
            !node.report().to_string().contains(&told)
        });
        assert_eq!(self::peer(node, "node-2")["state"], "Enforced");
    }
    // A pod of the node itself, and what is no better, are nothing to tell of.
    namespace.ip("route add 10.244.2.1/32 dev pod");
    namespace.ip("route add 10.244.0.0/16 via 192.0.2.9");
    namespace.ip("route add 10.244.2.0/24 via 192.0.2.9 metric 1000");
    assert_eq!(node.headgate(&["status"]).code, 0);
    for other in ["node-2", "node-3"] {
        assert_eq!(peer(node, other)["state"], "Enforced");
    }
}

fn links(namespace: &Namespace) -> String {
    namespace.ip("-o link show")
}

fn others() {
    let site = Site::of_example(&[1, 2]);
    let namespace = &site.hosts[0].namespace;
    namespace.ip("route add 10.77.0.0/16 dev headgate_vxlan");
    namespace.ip("route add 10.78.0.0/16 via 192.0.2.2");
    let node = &site.nodes[0];
    node.apply(
        "peers.yaml",
        &example(EXAMPLE).replace("10.244.3.0/24", "10.244.33.0/24"),
    );
    let routes = namespace.ip("route show");
    for (route, stays) in [
        ("10.77.0.0/16", true),
        ("10.78.0.0/16", true),
        ("10.244.33.0/24", true),
        ("10.244.3.0/24", false),
    ] {
        assert_eq!(routes.contains(route), stays, "{route} in\n{routes}");
    }
    // Nobody's peers: nothing is left, but what others have.
    node.live_after(|node| node.remove("peers.yaml"));
    assert!(!links(namespace).contains("headgate_vxlan"));
    assert!(namespace.ip("route show").contains("10.78.0.0/16"));
    // Somebody else's device of that name is left alone, and the peers say so.
    namespace.ip("link add headgate_vxlan type bridge");
    node.write("peers.yaml", &example(EXAMPLE));
    wait_for(SOON, "it is said", || {
        let view = node.headgate(&["tunnel", "list", "-o", "json"]).json();
        let reason = view["device"]["reason"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        reason.contains("ip link del headgate_vxlan")
    });
    // So is a port that another device listens at.
    namespace.ip("link add theirs type vxlan id 1 dstport 8472 local 192.0.2.1");
    namespace.ip("link set theirs up");
    namespace.ip("link del headgate_vxlan");
    wait_for(SOON, "it is said", || {
        let findings = node.status()["findings"].to_string();
        findings.contains("is taken on this node by the device theirs")
    });
    namespace.ip("link del theirs");
    wait_for(SOON, "the tunnel is back", || is_enforced(node));
    let [v4, _] = site.hosts[1].pod_addresses();
    let mut stream = connect(&site.hosts[0].pod, v4).expect("the pod answers");
    assert_eq!(ask(&mut stream).expect("an answer"), 2);
    let _ = &site.link;
}
