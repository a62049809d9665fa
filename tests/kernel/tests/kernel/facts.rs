//! Interfaces as the kernel tells them.

use std::time::Duration;

use headgate_datapath::failsafe::PortRange;
use headgate_kernel::{
    interfaces::{InterfaceFacts, InterfaceKind, interfaces, watch},
    local_ports,
};
use headgate_kernel_tests::{
    network::{ip, veth},
    trials::in_kernel,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("interfaces_are_told_with_kind_master_and_routes", facts),
        in_kernel(
            "a_change_of_interfaces_is_told_and_silence_is_kept",
            changes,
        ),
        in_kernel("ports_of_outgoing_connections_are_the_namespaces", ports),
    ]
}

fn named<'a>(found: &'a [InterfaceFacts], name: &str) -> &'a InterfaceFacts {
    let facts = found.iter().find(|facts| facts.name == name);
    facts.unwrap_or_else(|| panic!("no {name} in {found:?}"))
}

fn facts() {
    let first = veth("v0", "v1");
    ip("link add br0 type bridge");
    ip("link set v1 master br0");
    ip("address add 192.0.2.7/24 dev v0");
    ip("address add 2001:db8::7/64 dev v0 nodad");
    ip("link add down0 type veth peer name down1");

    let found = interfaces().expect("interfaces");
    let v0 = named(&found, "v0");
    assert_eq!(
        (v0.ifindex, &v0.kind, v0.up),
        (first, &InterfaceKind::Veth, true)
    );
    assert_eq!(
        (v0.master, v0.lower, v0.has_default_route),
        (None, None, false)
    );
    let addresses: Vec<String> = v0
        .addresses
        .iter()
        .map(|a| format!("{}/{}", a.address, a.prefix_length))
        .collect();
    assert!(
        addresses.contains(&"192.0.2.7/24".to_owned()),
        "{addresses:?}"
    );
    assert!(
        addresses.contains(&"2001:db8::7/64".to_owned()),
        "{addresses:?}"
    );
    let br0 = named(&found, "br0");
    assert_eq!(br0.kind, InterfaceKind::Bridge);
    assert_eq!(named(&found, "v1").master, Some(br0.ifindex));
    assert_eq!(named(&found, "lo").kind, InterfaceKind::Loopback);
    assert!(!named(&found, "down0").up);

    ip("route add default via 192.0.2.1 dev v0");
    assert!(named(&interfaces().expect("interfaces"), "v0").has_default_route);
    ip("route delete default");
    ip("-6 route add default via 2001:db8::1 dev v0");
    assert!(named(&interfaces().expect("interfaces"), "v0").has_default_route);
    ip("-6 route delete default");
    // Not the main table, not a way out.
    ip("route add default via 192.0.2.1 dev v0 table 7");
    ip("route add unreachable default metric 4000");
    assert!(!named(&interfaces().expect("interfaces"), "v0").has_default_route);
}

fn changes() {
    let _ = veth("v0", "v1");
    ip("address add 192.0.2.7/24 dev v0");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut changes = watch().expect("a subscription");
        let quiet = Duration::from_millis(300);
        // Duplicate address detection and such come to an end.
        while tokio::time::timeout(3 * quiet, changes.next())
            .await
            .is_ok()
        {}
        for (what, told) in [
            ("link add w0 type veth peer name w1", true),
            ("address add 192.0.2.8/24 dev v0", true),
            ("route add default via 192.0.2.1 dev v0", true),
            ("route delete default", true),
            ("route add 203.0.113.0/24 via 192.0.2.1 dev v0", false),
        ] {
            ip(what);
            let change = tokio::time::timeout(quiet, changes.next()).await;
            assert_eq!(change.is_ok(), told, "{what}");
            while tokio::time::timeout(quiet, changes.next()).await.is_ok() {}
        }
    });
}

fn ports() {
    let switch = "/proc/sys/net/ipv4/ip_local_port_range";
    std::fs::write(switch, "40000 40999").expect("a range");
    let range = local_ports().expect("read");
    assert_eq!(Some(range), PortRange::new(40_000, 40_999));
}
