//! Pods of hosts that share a link, joined by plain routes.

use std::{fs, net::IpAddr, process::Command};

use headgate_e2e_tests::{
    capture::Capture,
    namespace::Namespace,
    node::{Node, SOON},
    paths::example,
    trials::{on_node, on_node_with},
    tunnel::{EXAMPLE, Host, NATIVE_EXAMPLE, ask, ask_for_much, connect, count, datagram},
    wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{clients::said, tunnelling::Site};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node_with("example_native_is_joined", &["ping"], joined),
        on_node("ipv4_goes_by_an_endpoint_of_ipv6", by_ipv6),
        on_node("vxlan_and_native_stand_beside_each_other", mixed),
        on_node("a_change_of_mode_keeps_connections", changed),
        on_node("plain_routes_outlive_their_agent_and_are_mended", mended),
        on_node("a_native_peer_behind_a_gateway_is_stalled", by_gateway),
        on_node("plain_routes_of_others_stay", others),
    ]
}

fn list(node: &Node) -> Value {
    node.headgate(&["tunnel", "list", "-o", "json"]).json()
}

/// State of a peer, and why, by the CLI.
fn state(node: &Node, peer: &str) -> (String, String) {
    let view = node.headgate(&["tunnel", "get", peer, "-o", "json"]).json();
    let word = |field: &str| view[field].as_str().unwrap_or_default().to_owned();
    (word("state"), word("diversion"))
}

fn is_enforced(node: &Node, peer: &str) -> bool {
    state(node, peer) == ("Enforced".to_owned(), String::new())
}

/// Bytes 2 and 3 of a transport header, behind headers without options.
fn udp_port(frame: &[u8]) -> Option<u16> {
    let (protocol, port) = match frame.get(12..14)? {
        [0x08, 0x00] => (frame.get(23)?, frame.get(36..38)?),
        [0x86, 0xdd] => (frame.get(20)?, frame.get(56..58)?),
        _ => return None,
    };
    let port = u16::from_be_bytes(port.try_into().ok()?);
    (*protocol == 17).then_some(port)
}

/// Frames that were seen: all of them, and those of a tunnel.
fn seen(wire: &Capture) -> (usize, usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("wire.pcap");
    wire.write(&file);
    let bytes = fs::read(file).expect("just written");
    let (mut all, mut tunnels) = (0, 0);
    // Behind the file's header each frame has one of four words, of which the third is its length.
    let mut rest = &bytes[24..];
    while let Some(header) = rest.get(..16) {
        let length = u32::from_ne_bytes(header[8..12].try_into().expect("four bytes"));
        let (frame, behind) = rest[16..].split_at(length as usize);
        all += 1;
        tunnels += usize::from(udp_port(frame) == Some(8472));
        rest = behind;
    }
    (all, tunnels)
}

fn ping(from: &Host, address: IpAddr, length: u32) -> String {
    let mut ping: Command = from.pod.command("ping");
    ping.args(["-M", "do", "-c", "1", "-W", "5", "-s"]);
    ping.arg(length.to_string()).arg(address.to_string());
    said(&mut ping)
}

fn joined() {
    let site = Site::new(&[1, 2, 3], &example(NATIVE_EXAMPLE));
    let wire = Capture::open(&site.hosts[0].namespace, "eth0");
    for from in &site.hosts {
        for to in site.hosts.iter().filter(|to| to.number != from.number) {
            for address in to.pod_addresses() {
                let mut stream = connect(&from.pod, address).expect("the pod answers");
                assert_eq!(ask(&mut stream).expect("an answer"), to.number);
                ask_for_much(&mut stream, to.number);
                // All of what the link takes.
                let data = if address.is_ipv4() { 1_472 } else { 1_452 };
                ping(from, address, data);
            }
            let mut stream = connect(&from.namespace, to.pod_addresses()[0]).expect("it answers");
            assert_eq!(ask(&mut stream).expect("an answer"), to.number);
            let local = stream.local_addr().expect("an address").ip();
            assert_eq!(local.to_string(), format!("10.244.{}.1", from.number));
        }
    }
    let (all, tunnels) = seen(&wire);
    assert!(all > 100, "{all} frames");
    assert_eq!(tunnels, 0, "of {all} frames");
    let node = &site.nodes[0];
    let links = site.hosts[0].namespace.ip("-o link show");
    assert!(!links.contains("headgate_vxlan"), "{links}");
    let view = list(node);
    assert_eq!(view["device"], Value::Null, "{view:#}");
    assert_eq!(view["peers"].as_array().map(Vec::len), Some(6), "{view:#}");
    for peer in view["peers"].as_array().expect("a list") {
        assert_eq!(peer["state"], "Enforced", "{peer:#}");
        assert_eq!(peer["mode"], "Native", "{peer:#}");
        assert_eq!(peer["seenSecondsAgo"], Value::Null, "{peer:#}");
    }
    assert_eq!(node.status()["findings"], json!([]));
    let trace = node.headgate(&["tunnel", "trace", "10.244.1.2", "10.244.2.2"]);
    let route = "10.244.2.0/24 via 192.0.2.2 dev eth0 src 10.244.1.1";
    for words in [route, "it leaves as it is"] {
        assert!(trace.output.contains(words), "{trace:?}");
    }
    let back = node.headgate(&["tunnel", "trace", "10.244.2.2", "10.244.1.2"]);
    assert!(back.output.contains("nobody asks who sent it"), "{back:?}");
    wait_for(SOON * 3, "hosts answer", || {
        let peer = node.headgate(&["tunnel", "get", "node-2", "-o", "json"]);
        peer.json()["reachability"]["state"] == "Reachable"
    });
}

/// The example with both families by the endpoints of IPv6.
fn by_ipv6() {
    let peers = example(NATIVE_EXAMPLE).replace("endpoint: 192.0.2.", "endpoint: 2001:db8::");
    let site = Site::new(&[1, 2], &peers);
    for address in site.hosts[1].pod_addresses() {
        let mut stream = connect(&site.hosts[0].pod, address).expect("the pod answers");
        ask_for_much(&mut stream, 2);
    }
    let namespace = &site.hosts[0].namespace;
    let routes = namespace.ip("route show 10.244.2.0/24");
    assert!(routes.contains("via inet6 2001:db8::2"), "{routes}");
    namespace.ip("route del 10.244.2.0/24");
    wait_for(SOON, "it is back", || is_enforced(&site.nodes[0], "node-2"));
    site.nodes[0].live_after(|node| node.remove("peers.yaml"));
    assert_eq!(ours(namespace), "");
}

/// Routes of our protocol.
fn ours(namespace: &Namespace) -> String {
    let v4 = namespace.ip("route show proto 157");
    v4 + &namespace.ip("-6 route show proto 157")
}

/// The example for Vxlan, in which these nodes are reached by plain routes, by IPv4 and not by IPv6.
fn by_native(numbers: &[u8]) -> String {
    let mut peers = example(EXAMPLE);
    for number in numbers {
        let vxlan = format!(
            "  podCIDRs: [10.244.{number}.0/24, \"fd00:244:{number}::/64\"]\n  endpoint: 192.0.2.{number}\n  vni: 7\n"
        );
        assert!(peers.contains(&vxlan), "{peers}");
        let native = format!(
            "  mode: Native\n  podCIDRs: [10.244.{number}.0/24]\n  endpoint: 192.0.2.{number}\n"
        );
        peers = peers.replace(&vxlan, &native);
    }
    peers
}

/// The first two are joined by plain routes, the third with both by Vxlan.
fn mixed() {
    let site = Site::of_example(&[1, 2, 3]);
    site.nodes[0].apply("peers.yaml", &by_native(&[2]));
    site.nodes[1].apply("peers.yaml", &by_native(&[1]));
    let wire = Capture::open(&site.hosts[0].namespace, "eth0");
    let [one, two, three] = [&site.hosts[0], &site.hosts[1], &site.hosts[2]];
    for (from, to) in [(one, two), (two, one)] {
        let mut stream = connect(&from.pod, to.pod_addresses()[0]).expect("the pod answers");
        ask_for_much(&mut stream, to.number);
    }
    assert_eq!(seen(&wire).1, 0, "nothing goes by the tunnel");
    for (from, to) in [(one, three), (three, one), (two, three), (three, two)] {
        let mut stream = connect(&from.pod, to.pod_addresses()[0]).expect("the pod answers");
        ask_for_much(&mut stream, to.number);
    }
    assert!(seen(&wire).1 > 100, "the third is reached by the tunnel");
    for peer in ["node-1", "node-2", "node-3"] {
        assert!(is_enforced(&site.nodes[0], peer), "{peer}");
    }
    // A network in which another's lies, by the other mode: none is said to divert the other.
    let mut around = by_native(&[2]).replace("[10.244.3.0/24,", "[10.244.3.0/24, 10.244.0.0/16,");
    around = around.replace(
        "[10.244.2.0/24]",
        "[10.244.2.0/24, 10.244.0.0/24, 10.244.255.0/24]",
    );
    site.nodes[0].apply("peers.yaml", &around);
    for peer in ["node-2", "node-3"] {
        assert!(is_enforced(&site.nodes[0], peer), "{peer}");
    }
    site.nodes[0].apply("peers.yaml", &by_native(&[2]));
    // Who sends from a Native peer's network does not do so through the tunnel.
    three.pod.ip("address add 10.244.2.9/32 dev eth0");
    let forged = "10.244.2.9".parse().expect("an address");
    let before = count(&site.nodes[0], "SpoofedSource");
    assert_eq!(
        datagram(&three.pod, forged, one.pod_addresses()[0], 1),
        None
    );
    wait_for(SOON, "it is counted", || {
        count(&site.nodes[0], "SpoofedSource") == before + 1
    });
}

fn changed() {
    let site = Site::of_example(&[1, 2]);
    let [from, to] = [&site.hosts[0], &site.hosts[1]];
    let mut held = to
        .pod_addresses()
        .map(|pod| connect(&from.pod, pod).expect("the pod answers"));
    for mode in [NATIVE_EXAMPLE, EXAMPLE, NATIVE_EXAMPLE] {
        let took = site
            .nodes
            .iter()
            .map(|node| node.apply("peers.yaml", &example(mode)));
        println!("{mode} after {:?}", took.collect::<Vec<_>>());
        let wire = Capture::open(&from.namespace, "eth0");
        for stream in &mut held {
            assert_eq!(ask(stream).expect("an answer"), 2, "{mode}");
            ask_for_much(stream, 2);
        }
        let (all, tunnels) = seen(&wire);
        assert_eq!(tunnels > all / 2, mode == EXAMPLE, "{tunnels} of {all}");
        for node in &site.nodes {
            assert!(is_enforced(node, "node-2"), "{mode}");
        }
    }
    let links = from.namespace.ip("-o link show");
    assert!(!links.contains("headgate_vxlan"), "{links}");
}

fn mended() {
    let mut site = Site::new(&[1, 2], &example(NATIVE_EXAMPLE));
    let pods = site.hosts[1].pod_addresses();
    let mut held = pods.map(|pod| connect(&site.hosts[0].pod, pod).expect("the pod answers"));
    let mut all_answer = |when: &str| {
        for stream in &mut held {
            let answer = ask(stream).unwrap_or_else(|error| panic!("{when}: {error}"));
            assert_eq!(answer, 2, "{when}");
        }
    };
    site.nodes[0].kill();
    all_answer("without an agent");
    site.nodes[0].start();
    all_answer("with another agent");
    let namespace = &site.hosts[0].namespace;
    let node = &site.nodes[0];
    for (damage, peer) in [
        ("route del 10.244.2.0/24", "node-2"),
        ("-6 route del fd00:244:2::/64", "node-2-ipv6"),
    ] {
        namespace.ip(damage);
        wait_for(SOON, damage, || is_enforced(node, peer));
        all_answer(damage);
    }
    // Another route of somebody's that goes before.
    namespace.ip("route add 10.244.2.0/25 via 192.0.2.9");
    let told =
        "packets to 10.244.2.0/24 leave by eth0: the route to 10.244.2.0/25 is somebody else's";
    wait_for(SOON, "it is told", || {
        let (state, reason) = state(node, "node-2");
        state == "Outdated" && reason.contains(told)
    });
    assert!(is_enforced(node, "node-3"), "the others are as wanted");
    let status = node.headgate(&["status"]);
    assert_ne!(status.code, 0, "{status:?}");
    assert!(status.output.contains("node-2: Outdated: "), "{status:?}");
    namespace.ip("route del 10.244.2.0/25");
    wait_for(SOON, "it is as wanted again", || {
        is_enforced(node, "node-2")
    });
    // The link goes away with its routes, and comes back.
    namespace.ip("link set eth0 down");
    wait_for(SOON, "the peer waits", || {
        state(node, "node-2").0 == "Pending"
    });
    namespace.ip("link set eth0 up");
    namespace.ip("-6 address replace 2001:db8::1/64 dev eth0 nodad");
    for peer in ["node-2", "node-2-ipv6"] {
        wait_for(SOON, "it is back", || is_enforced(node, peer));
    }
    // The bridge between the hosts has to learn anew who listens to whom.
    for pod in pods {
        wait_for(SOON * 3, "the way is back", || {
            connect(&site.hosts[0].pod, pod).is_ok()
        });
    }
    all_answer("with the link back");
    // What is not asked for any more goes, and all of it with `headgate detach`.
    let fewer = example(NATIVE_EXAMPLE).replace("10.244.3.0/24", "10.244.33.0/24");
    node.apply("peers.yaml", &fewer);
    let routes = ours(namespace);
    assert!(routes.contains("10.244.33.0/24"), "{routes}");
    assert!(!routes.contains("10.244.3.0/24"), "{routes}");
    site.nodes[0].kill();
    let detached = site.nodes[0].headgate(&["detach"]);
    assert_eq!(detached.code, 0, "{detached:?}");
    assert!(
        detached.output.contains("4 plain routes to peers"),
        "{detached:?}"
    );
    assert_eq!(ours(namespace), "");
    assert!(!site.nodes[0].pins().exists(), "no pin is left");
}

fn by_gateway() {
    let site = Site::new(&[1, 2], &example(NATIVE_EXAMPLE));
    let namespace = &site.hosts[0].namespace;
    namespace.ip("route add default via 192.0.2.2");
    let node = &site.nodes[0];
    let far = "\
apiVersion: headgate.dev/v1alpha1
kind: TunnelPeer
metadata: {name: far}
spec: {mode: Native, podCIDRs: [10.99.0.0/16], endpoint: 198.51.100.9}
";
    node.write("far.yaml", far);
    wait_for(SOON, "it is said", || {
        let findings = node.status()["findings"].to_string();
        findings.contains("by the gateway 192.0.2.2") && findings.contains("set mode to Vxlan")
    });
    assert_eq!(state(node, "far").0, "Stalled");
    assert!(is_enforced(node, "node-2"));
    assert!(!ours(namespace).contains("10.99.0.0/16"));
    // As soon as the endpoint is on a link, it is reached.
    namespace.ip("route add 198.51.100.9/32 dev eth0");
    wait_for(SOON, "it is reached", || is_enforced(node, "far"));
    assert!(ours(namespace).contains("10.99.0.0/16"));
}

fn others() {
    let site = Site::new(&[1, 2], &example(NATIVE_EXAMPLE));
    let namespace = &site.hosts[0].namespace;
    // Somebody's of the same protocol.
    namespace.ip("route add 10.77.0.0/16 via 192.0.2.2 proto 157");
    let before = ours(namespace);
    // Another instance of this host, that has no peers.
    let mut other = Node::new(&site.hosts[0].namespace);
    other.read_from_directory("node-1");
    other.start();
    other.kill();
    assert_eq!(other.headgate(&["detach"]).code, 0);
    assert_eq!(ours(namespace), before);
    site.nodes[0].live_after(|node| node.remove("peers.yaml"));
    let left = ours(namespace);
    assert!(left.starts_with("10.77.0.0/16 via 192.0.2.2"), "{left}");
    assert_eq!(left.lines().count(), 1, "{left}");
}
