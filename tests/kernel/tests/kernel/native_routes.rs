//! Plain routes to peers in the running kernel.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use headgate_datapath::{
    failsafe::Prefix,
    kernel::Kernel as _,
    native::NativeRoute,
    plan::{Step, StepKind},
    state::{DatapathState, Ifindex},
};
use headgate_kernel::tunnel::underlays;
use headgate_kernel_tests::{
    network::{ip, run, veth},
    node::Node,
    trials::in_kernel,
    tunnel::{PORT, tunnel},
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel(
            "a_plain_route_takes_the_place_of_the_tunnels_and_back",
            moved,
        ),
        in_kernel("plain_routes_are_set_changed_and_removed", changed),
        in_kernel("a_gateway_that_is_on_no_link_is_refused", refused),
        in_kernel("what_is_on_a_link_is_known", on_link),
        in_kernel("five_thousand_plain_routes_are_set", many),
    ]
}

/// A link with the networks 192.0.2.0/24 and 2001:db8::/64.
fn link() -> Ifindex {
    let ifindex = veth("v0", "v1");
    ip("address add 192.0.2.1/24 dev v0");
    ip("address add 2001:db8::1/64 dev v0 nodad");
    ifindex
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn network(text: &str) -> Prefix {
    let (first, length) = text.split_once('/').expect("a network");
    Prefix {
        address: address(first),
        length: length.parse().expect("a length"),
    }
}

fn route(ifindex: Ifindex, gateway: &str) -> NativeRoute {
    NativeRoute {
        gateway: address(gateway),
        ifindex,
        source: None,
    }
}

/// Plain routes to these networks and no more.
fn plain(routes: &[(&str, NativeRoute)]) -> DatapathState {
    let routes = routes.iter().map(|(text, route)| (network(text), *route));
    DatapathState {
        native_routes: routes.collect(),
        ..DatapathState::default()
    }
}

fn kinds(node: &mut Node, wanted: &DatapathState) -> Vec<StepKind> {
    let plan = node.converge(wanted);
    plan.steps.iter().map(Step::kind).collect()
}

/// After each step packets to the network find a route of ours.
fn moved() {
    let ifindex = link();
    let mut node = Node::new();
    let by_tunnel = tunnel(2, PORT);
    let mut by_link = tunnel(1, PORT);
    by_link
        .native_routes
        .insert(network("10.0.1.0/24"), route(ifindex, "192.0.2.9"));
    let only_by_link = plain(&[("10.0.1.0/24", route(ifindex, "192.0.2.9"))]);
    node.converge(&by_tunnel);
    for (wanted, device) in [
        (&by_link, "v0"),
        (&by_tunnel, "headgate_vxlan"),
        (&only_by_link, "v0"),
        (&by_tunnel, "headgate_vxlan"),
    ] {
        for step in node.plan(wanted).steps {
            node.kernel
                .apply(&step, &wanted.blocks)
                .expect("carried out");
            let way = run("ip", "route show 10.0.1.0/24");
            assert!(way.contains("proto 157"), "{way:?} after {step}");
            assert_eq!(way.lines().count(), 1, "{way:?} after {step}");
        }
        assert!(node.plan(wanted).is_empty());
        let way = run("ip", "route get 10.0.1.5");
        assert!(way.contains(device), "{way}");
    }
    node.converge(&DatapathState::default());
    assert!(!run("ip", "route").contains("proto 157"));
}

fn changed() {
    let ifindex = link();
    let mut node = Node::new();
    let mut wanted = plain(&[
        ("10.9.0.0/16", route(ifindex, "192.0.2.9")),
        ("10.8.0.0/16", route(ifindex, "2001:db8::9")),
        ("fd00:9::/32", route(ifindex, "2001:db8::9")),
    ]);
    let sourced = wanted.native_routes.get_mut(&network("10.9.0.0/16"));
    sourced.expect("it is wanted").source = Some(address("192.0.2.1"));
    node.converge(&wanted);
    assert_eq!(node.observe().native.routes, wanted.native_routes);
    let [v4, v6] = ["-4", "-6"].map(|family| run("ip", &format!("{family} route")));
    for line in [
        "10.9.0.0/16 via 192.0.2.9 dev v0 proto 157 src 192.0.2.1",
        "10.8.0.0/16 via inet6 2001:db8::9 dev v0 proto 157",
    ] {
        assert!(v4.contains(line), "{line} in\n{v4}");
    }
    assert!(
        v6.contains("fd00:9::/32 via 2001:db8::9 dev v0 proto 157"),
        "{v6}"
    );
    // Another endpoint is one request; what is wanted no more goes.
    let moved = plain(&[
        ("10.9.0.0/16", route(ifindex, "192.0.2.10")),
        ("fd00:9::/32", route(ifindex, "2001:db8::10")),
    ]);
    assert_eq!(
        kinds(&mut node, &moved),
        [StepKind::SetNativeRoutes, StepKind::RemoveNativeRoutes]
    );
    assert_eq!(node.observe().native.routes, moved.native_routes);
    // What somebody else removes, or sets beside them.
    ip("route del 10.9.0.0/16");
    ip("route add 10.9.0.0/17 via 192.0.2.20");
    let observed = node.observe().native;
    let amiss = observed
        .amiss(&moved.native_routes)
        .expect("it is not there");
    assert!(
        amiss.contains("10.9.0.0/16 via 192.0.2.10 is not there"),
        "{amiss}"
    );
    assert_eq!(kinds(&mut node, &moved), [StepKind::SetNativeRoutes]);
    let amiss = node.observe().native.amiss(&moved.native_routes);
    let amiss = amiss.expect("another is better");
    assert!(
        amiss.contains("leave by v0: the route to 10.9.0.0/17"),
        "{amiss}"
    );
    node.converge(&DatapathState::default());
    assert!(node.observe().native.routes.is_empty());
    assert!(run("ip", "route").contains("10.9.0.0/17"));
}

fn refused() {
    let ifindex = link();
    let mut node = Node::new();
    let wanted = plain(&[("10.9.0.0/16", route(ifindex, "198.51.100.9"))]);
    let plan = node.plan(&wanted);
    let step = plan.steps.last().expect("a step");
    let refused = node.kernel.apply(step, &wanted.blocks);
    let refused = refused.expect_err("it is on no link").to_string();
    assert!(
        refused.contains("setting the route to 10.9.0.0/16"),
        "{refused}"
    );
}

fn on_link() {
    let ifindex = link();
    ip("route add default via 192.0.2.254");
    ip("route add 198.51.100.1/32 dev v0");
    ip("link add t0 type vxlan id 7 dstport 4789 dev v0");
    ip("link set t0 arp off up");
    ip("route add 203.0.113.0/24 dev t0");
    let asked = [
        "192.0.2.9",
        "2001:db8::9",
        "198.51.100.1",
        "198.51.100.2",
        "203.0.113.1",
    ];
    let asked = asked.map(address);
    let found = underlays(&BTreeSet::from(asked)).expect("the kernel tells");
    let ways = asked.map(|asked| {
        let way = found[&asked];
        (way.ifindex == ifindex, way.gateway, way.has_link_layer)
    });
    let direct = (true, None, true);
    let by_gateway = (true, Some(address("192.0.2.254")), true);
    let without_link = (false, None, false);
    assert_eq!(ways, [direct, direct, direct, by_gateway, without_link]);
}

fn many() {
    const ROUTES: u32 = 5_000;
    let ifindex = link();
    let mut node = Node::new();
    let routes = (0..ROUTES).map(|number| {
        let prefix = Prefix {
            address: Ipv4Addr::from_bits(10 << 24 | number << 8).into(),
            length: 24,
        };
        let last = u8::try_from(2 + number % 250).expect("below 256");
        let route = NativeRoute {
            gateway: [192, 0, 2, last].into(),
            ifindex,
            source: None,
        };
        (prefix, route)
    });
    let wanted = DatapathState {
        native_routes: routes.collect(),
        ..DatapathState::default()
    };
    node.converge(&DatapathState::default());
    let step = Step::SetNativeRoutes(wanted.native_routes.clone());
    let started = Instant::now();
    let answer = node.kernel.apply(&step, &wanted.blocks);
    let set = started.elapsed();
    answer.expect("they are set");
    assert!(node.plan(&wanted).is_empty());
    assert_eq!(node.observe().native.routes, wanted.native_routes);
    let started = Instant::now();
    node.converge(&DatapathState::default());
    println!(
        "{ROUTES} plain routes set in {set:?}, all removed, by a whole turn, in {:?}",
        started.elapsed()
    );
    assert!(node.observe().native.routes.is_empty());
}
