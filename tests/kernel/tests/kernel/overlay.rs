//! Backends behind an overlay: what XDP passes up for them, and the program that sends it on.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use aya::programs::{SchedClassifier, TcAttachType};
use headgate_compile::node::NextHop;
use headgate_datapath::{
    invariants::violations,
    observed::AttachedOverlay,
    plan::{Step, StepKind},
    state::{DatapathState, Ifindex},
};
use headgate_kernel::object_digest;
use headgate_kernel_tests::{
    blocks::default_of,
    datagrams::Datagram,
    frames::XDP_PASS,
    network::{ifindex, ip, run, veth},
    node::{Node, port, wanted},
    trials::in_kernel_that_balances as in_kernel,
    tunnel::{PORT, tunnel},
};
use headgate_layout::verdict::Action;
use libtest_mimic::Trial;
use serde_json::json;

use crate::compiled::{ARRIVED, Compiled};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel(
            "the_program_for_overlays_is_put_on_mended_and_taken_off",
            mended,
        ),
        in_kernel(
            "the_tunnels_programs_come_before_the_one_for_overlays",
            ordered,
        ),
        in_kernel(
            "frames_for_an_overlay_are_translated_and_passed_up",
            passed_up,
        ),
    ]
}

/// A port with these interfaces at overlays beside it.
fn at(interface: Ifindex, overlay: &[(Ifindex, &str)]) -> DatapathState {
    let mut state = wanted(&[(port(0), interface, &default_of(Action::Drop))]);
    state.flows = true;
    let named = overlay.iter();
    state.overlay = named.map(|(i, name)| (*i, (*name).to_owned())).collect();
    state
}

const PRESENT: fn() -> AttachedOverlay = || AttachedOverlay {
    is_there: true,
    object: Some(object_digest()),
};

fn mended() {
    let mut node = Node::new();
    let uplink = veth("v0", "v1");
    let device = veth("o0", "o1");
    let both = at(uplink, &[(uplink, "v0"), (device, "o0")]);
    node.converge(&both);
    assert_eq!(violations(&node.observe()), Vec::<String>::new());
    let found = node.observe().overlay;
    assert_eq!(
        found,
        BTreeMap::from([(uplink, PRESENT()), (device, PRESENT())])
    );
    // Taken off behind our back.
    let pin = format!("overlay/interface{}-{}", uplink.0, object_digest());
    let pin = node.layout_pins().join(pin);
    run("bpftool", &format!("link detach pinned {}", pin.display()));
    assert!(!node.observe().overlay[&uplink].is_there);
    node.converge(&both);
    assert_eq!(programs("v0"), [OVERLAY]);
    // The device goes; flows that led there wait for nobody.
    ip("link delete o0");
    assert!(!node.observe().overlay[&device].is_there);
    let one = at(uplink, &[(uplink, "v0")]);
    node.converge(&one);
    assert_eq!(
        node.observe().overlay,
        BTreeMap::from([(uplink, PRESENT())])
    );
    // No service behind an overlay, but flows: it stays. No flows: it goes.
    let none = at(uplink, &[]);
    assert!(node.plan(&none).is_empty());
    let without = wanted(&[(port(0), uplink, &default_of(Action::Drop))]);
    let plan = node.converge(&without);
    let kinds: Vec<_> = plan.steps.iter().map(Step::kind).collect();
    assert!(kinds.contains(&StepKind::DetachOverlay), "{kinds:?}");
    assert_eq!(programs("v0"), Vec::<String>::new());
}

/// Names of the programs at an interface's ingress, in their order; the kernel keeps 15 characters.
fn programs(interface: &str) -> Vec<String> {
    let queried = SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
    let (_, programs) = queried.expect("an interface");
    let names = programs.iter().map(|program| program.name_as_str());
    names
        .map(|name| name.unwrap_or_default().to_owned())
        .collect()
}

const OVERLAY: &str = "headgate_overla";
const TUNNEL: &str = "headgate_tunnel";

fn ordered() {
    let mut node = Node::new();
    let uplink = veth("v0", "v1");
    node.converge(&tunnel(2, PORT));
    let mut state = at(uplink, &[(ifindex("headgate_vxlan"), "headgate_vxlan")]);
    let of_tunnel = tunnel(2, PORT);
    state.blocks.extend(of_tunnel.blocks);
    state.tunnel = of_tunnel.tunnel;
    node.converge(&state);
    assert_eq!(programs("headgate_vxlan"), [TUNNEL, OVERLAY]);
    // Somebody takes the tunnel's programs off: they come back in front.
    std::fs::remove_dir_all(node.layout_pins().join("tunnel")).expect("removed");
    node.converge(&state);
    assert_eq!(programs("headgate_vxlan"), [TUNNEL, OVERLAY]);
}

const BACKENDS: [&str; 2] = ["10.244.2.2", "fd00:244:2::2"];
const LOCAL: [&str; 2] = ["10.244.1.1", "fd00:244:1::1"];
const VIRTUAL: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const CLIENTS: [&str; 2] = ["198.51.100.7", "2001:db8:9::7"];

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn passed_up() {
    let ways = BACKENDS.iter().zip(LOCAL).map(|(backend, local)| {
        let hop = NextHop {
            ifindex: ARRIVED,
            mtu: 1_450,
            reflects: true,
            destination: [0; 6],
            source: [0; 6],
            local: Some(address(local)),
            overlay: true,
        };
        (address(backend), hop)
    });
    let pool = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "all"},
        "spec": {"cidrs": ["192.0.2.0/24", "2001:db8::/64"]},
    });
    let service = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "LoadBalancerService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "addresses": VIRTUAL,
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            "backends": {"static": BACKENDS.map(|address| json!({"address": address}))},
        },
    });
    let served = Compiled::with_next_hops(&[pool, service], ways.collect());
    for family in [0, 1] {
        let mut asked = Datagram {
            source: SocketAddr::new(address(CLIENTS[family]), 40_000),
            destination: SocketAddr::new(address(VIRTUAL[family]), 80),
            tcp: Some((0x02, 1_000, 0)),
            payload: b"question".to_vec(),
        };
        let mut frame = asked.frame();
        let run = served.node.kernel.run_program(Compiled::port(), &frame, 1);
        let run = run.expect("a test run");
        assert_eq!(run.verdict, XDP_PASS);
        served.rewritten_on_host(&mut frame).expect("it may pass");
        assert_eq!(run.frame, frame, "kernel and host agree");
        let got = Datagram::parse(&run.frame).expect("a packet with right checksums");
        assert_eq!(got.source.ip(), address(LOCAL[family]));
        assert_eq!(
            got.destination,
            SocketAddr::new(address(BACKENDS[family]), 8080)
        );
        let hops = if family == 0 { 14 + 8 } else { 14 + 7 };
        assert_eq!(run.frame[hops], 63);
        // The overlay takes less than the network below.
        asked.payload = vec![0; 1_440];
        let long = asked.frame();
        let run = served.node.kernel.run_program(Compiled::port(), &long, 1);
        assert_ne!(run.expect("a test run").verdict, XDP_PASS);
    }
    assert_eq!(served.counted()["MtuExceeded"].packets, 2);
}
