//! What tools of this field have failed at, those failures that no other test here is about.

use headgate_e2e_tests::{
    frames::{Frame, protocol, tcp, udp},
    lab::Lab,
    policies::{drop_udp, group, policy},
    trials::on_node,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node(
            "all_of_ipv4_and_all_of_ipv6_stand_in_one_rule",
            both_families,
        ),
        on_node("port_ranges_include_both_ends_everywhere", port_ranges),
        on_node("headers_before_the_ports_hide_nothing", headers),
        on_node("a_deny_all_denies_every_protocol", every_protocol),
        on_node("frames_that_cannot_be_judged_are_dropped_by_name", unjudged),
        on_node("five_thousand_cidrs_are_not_cut_off", many_cidrs),
    ]
}

fn both_families() {
    let rule = "{name: any, action: Drop, from: {cidrs: [\"0.0.0.0/0\", \"::/0\"]}, protocols: [{udp: {ports: [{port: 9}]}}]}";
    let lab = Lab::enforcing(&[(
        "policy.yaml",
        &policy("policy", &format!("{{rules: [{rule}]}}")),
    )]);
    lab.check([
        udp("0.0.0.1:5", "192.168.0.1:9").dropped_by("policy/any"),
        udp("223.255.255.255:5", "192.168.0.1:9").dropped_by("policy/any"),
        udp("[::2]:5", "[fd00::1]:9").dropped_by("policy/any"),
        udp("[ffff::1]:5", "[fd00::1]:9").dropped_by("policy/any"),
        udp("10.0.0.1:5", "192.168.0.1:10").passes(),
        udp("[2001:db8::1]:5", "[fd00::1]:10").passes(),
    ]);
}

fn port_ranges() {
    let tcp_rule =
        "{name: tcp, action: Drop, protocols: [{tcp: {ports: [{port: 100, endPort: 200}]}}]}";
    let udp_rule = "{name: udp, action: Drop, protocols: [{udp: {sourcePorts: [{port: 0, endPort: 10}, {port: 65535}]}}]}";
    let lab = Lab::enforcing(&[(
        "policy.yaml",
        &policy("policy", &format!("{{rules: [{tcp_rule}, {udp_rule}]}}")),
    )]);
    let to = |port: u16| tcp("10.0.0.1:5", &format!("192.168.0.1:{port}"), "S");
    let from = |port: u16| udp(&format!("[2001:db8::1]:{port}"), "[fd00::1]:5");
    lab.check([
        to(99).passes(),
        to(100).dropped_by("policy/tcp"),
        to(200).dropped_by("policy/tcp"),
        to(201).passes(),
        from(0).dropped_by("policy/udp"),
        from(10).dropped_by("policy/udp"),
        from(11).passes(),
        from(65534).passes(),
        from(65535).dropped_by("policy/udp"),
    ]);
}

fn headers() {
    let lab = Lab::enforcing(&[("policy.yaml", &drop_udp("policy", 9))]);
    let v4 = |port: u16| udp("10.0.0.1:5", &format!("192.168.0.1:{port}"));
    let v6 = |port: u16| udp("[2001:db8::1]:5", &format!("[fd00::1]:{port}"));
    let rule = "policy/udp";
    lab.check([
        v4(9).with_options().dropped_by(rule),
        v4(10).with_options().passes(),
        v4(9).tagged(1).dropped_by(rule),
        v4(9).with_options().tagged(2).dropped_by(rule),
        v4(10).tagged(2).passes(),
        v4(9).first_fragment().dropped_by(rule),
        // A later fragment has no ports.
        v4(9).later_fragment(64).passes(),
        v6(9).with_extensions(1).dropped_by(rule),
        v6(9).with_extensions(8).dropped_by(rule),
        v6(10).with_extensions(8).passes(),
        v6(9).with_extensions(3).tagged(2).dropped_by(rule),
        v6(9).first_fragment().with_extensions(1).dropped_by(rule),
        v6(9).later_fragment(64).passes(),
    ]);
}

fn every_protocol() {
    let lab = Lab::enforcing(&[("policy.yaml", &policy("policy", "{defaultAction: Drop}"))]);
    let protocols = [1, 2, 4, 6, 17, 41, 47, 50, 51, 58, 89, 112, 115, 132, 253];
    let v4 = protocols.map(|number| protocol(number, "10.0.0.1", "192.168.0.1"));
    let v6 = protocols.map(|number| protocol(number, "2001:db8::1", "fd00::1"));
    // Some are cut short where their header should be: dropped too, for another reason.
    lab.check(v4.into_iter().chain(v6).map(Frame::dropped));
    lab.check([
        protocol(47, "10.0.0.1", "192.168.0.1").dropped_by("DefaultDrop"),
        protocol(50, "2001:db8::1", "fd00::1").dropped_by("DefaultDrop"),
    ]);
}

fn unjudged() {
    let lab = Lab::enforcing(&[("policy.yaml", &policy("policy", "{defaultAction: Allow}"))]);
    let v4 = || udp("10.0.0.1:5", "192.168.0.1:9");
    let v6 = || udp("[2001:db8::1]:5", "[fd00::1]:9");
    lab.check([
        v4().with_false_length(1).dropped_by("Malformed"),
        v4().with_false_length(-13).dropped_by("Malformed"),
        v6().with_false_length(1).dropped_by("Malformed"),
        v4().tagged(3).dropped_by("VlanDepth"),
        v6().with_extensions(9).dropped_by("ExtensionHeaders"),
        tcp("10.0.0.1:5", "192.168.0.1:9", "A")
            .later_fragment(1)
            .dropped_by("TcpFragmentOverlap"),
        v4().passed_by("DefaultAllow"),
        v6().passed_by("DefaultAllow"),
    ]);
}

fn many_cidrs() {
    let cidrs: Vec<String> = (0..5_000)
        .map(|n| format!("10.{}.{}.{}/32", n / 1_000, n / 10 % 100, n % 10 * 2))
        .collect();
    let rule = "{name: listed, action: Drop, from: {cidrGroups: {names: [list]}}}";
    let lab = Lab::enforcing(&[
        (
            "policy.yaml",
            &policy("policy", &format!("{{rules: [{rule}]}}")),
        ),
        ("list.yaml", &group("list", &cidrs)),
    ]);
    let from = |cidr: &String| {
        udp(
            &format!("{}:5", cidr.trim_end_matches("/32")),
            "192.168.0.1:9",
        )
    };
    let listed = cidrs.iter().step_by(250).chain(cidrs.last());
    let listed = listed.map(|cidr| from(cidr).dropped_by("policy/listed"));
    let between = ["10.0.0.1:5", "10.4.99.17:5", "10.5.0.0:5"];
    let between = between.map(|address| udp(address, "192.168.0.1:9").passes());
    lab.check(listed.chain(between));
}
