//! Native and generic mode.

use headgate_e2e_tests::{
    flow::{Flow, Receiver},
    frames::udp,
    lab::Lab,
    node::SOON,
    policies::drop_udp,
    trials::on_node,
    wait::wait_for,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node("native_where_the_driver_can", native),
        on_node("generic_on_request_and_back", on_request),
        on_node("auto_falls_back_and_says_why", fallback),
        on_node("native_that_cannot_be_is_not_enforced_and_said", refused),
    ]
}

fn with(spec: &str) -> String {
    drop_udp("policy", 9).replace("spec: {", &format!("spec: {{{spec}, "))
}

fn native() {
    let lab = Lab::enforcing(&[("policy.yaml", &with("interfaces: [eth0]"))]);
    let eth0 = lab.node.interface("eth0");
    assert_eq!(eth0["mode"], "Native", "{eth0:#}");
    assert!(eth0["nativeRefusal"].is_null(), "{eth0:#}");
    assert!(lab.node.namespace.ip("link show eth0").contains("xdp"));
}

fn on_request() {
    let lab = Lab::enforcing(&[("policy.yaml", &with("attachMode: Generic"))]);
    let bad = || udp("10.0.0.1:5", "192.168.0.1:9");
    assert_eq!(lab.node.interface("eth0")["mode"], "Generic");
    assert!(
        lab.node
            .namespace
            .ip("link show eth0")
            .contains("xdpgeneric")
    );
    lab.check([
        bad().dropped_by("policy/udp"),
        bad().tagged(1).dropped_by("policy/udp"),
    ]);

    lab.node.write("policy.yaml", &with("attachMode: Native"));
    wait_for(SOON, "native mode", || {
        let eth0 = lab.node.interface("eth0");
        eth0["mode"] == "Native" && eth0["state"] == "Enforced"
    });
    lab.check([bad().dropped_by("policy/udp")]);
}

/// Sent and received over the loopback.
fn over_loopback(lab: &Lab, receiver: &Receiver, port: u16) -> (u64, u64) {
    let node = &lab.node.namespace;
    let here = std::net::Ipv4Addr::LOCALHOST;
    let flow = Flow::start(node, &[here.into()], (here, port).into(), 2_000, u64::MAX);
    lab.client.let_flow(&flow, 100);
    lab.client.finish(flow, receiver)
}

fn fallback() {
    let lab = Lab::enforcing(&[("policy.yaml", &with("interfaces: [lo]"))]);
    let lo = lab.node.interface("lo");
    assert_eq!(lo["mode"], "Generic", "{lo:#}");
    let refusal = lo["nativeRefusal"].as_str().unwrap_or_default();
    assert!(refusal.contains("EOPNOTSUPP"), "{lo:#}");
    let status = lab.node.headgate(&["status"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert!(
        status
            .output
            .contains("generic mode, as native was refused: EOPNOTSUPP"),
        "{status:?}"
    );
    let receiver = Receiver::open(&lab.node.namespace, &[9, 10]);
    assert_eq!(over_loopback(&lab, &receiver, 9).1, 0);
    let (sent, received) = over_loopback(&lab, &receiver, 10);
    assert_eq!(sent, received);
}

fn refused() {
    let mut lab = Lab::new();
    lab.node
        .write("policy.yaml", &with("interfaces: [lo], attachMode: Native"));
    lab.node.start_unsettled();
    let lo = lab.node.interface("lo");
    assert_eq!(lo["state"], "NotEnforced", "{lo:#}");
    let reason = lo["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains("native mode") && reason.contains("not supported"),
        "{reason}"
    );
    assert_eq!(lab.node.headgate(&["status"]).code, 3);
    lab.node.wait_for_log("not enforced");
    let receiver = Receiver::open(&lab.node.namespace, &[9]);
    let (sent, received) = over_loopback(&lab, &receiver, 9);
    assert_eq!(sent, received);
}
