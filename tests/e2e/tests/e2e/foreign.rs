//! Somebody else's program on the interface.

use headgate_e2e_tests::{
    frames::udp,
    lab::Lab,
    namespace::Namespace,
    node::{Node, SOON},
    policies::drop_udp,
    trials::on_node,
    wait::wait_for,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_node(
        "a_foreign_program_is_named_and_left_alone_until_it_goes",
        foreign,
    )]
}

/// The kernel's id of the program on `eth0`, as `ip` shows it.
fn program_id(namespace: &Namespace) -> u64 {
    let text = namespace.ip("-d -j link show eth0");
    let links: serde_json::Value = serde_json::from_str(&text).expect("ip prints JSON");
    links[0]["xdp"]["prog"]["id"]
        .as_u64()
        .unwrap_or_else(|| panic!("no program: {text}"))
}

fn foreign() {
    // To the second instance, the first is somebody else.
    let mut first = Lab::enforcing(&[("policy.yaml", &drop_udp("first", 1))]);
    let id = program_id(&first.node.namespace);
    let mut second = Node::new(&first.node.namespace);
    second.write("policy.yaml", &drop_udp("second", 2));
    second.start_unsettled();

    let interface = second.interface("eth0");
    assert_eq!(interface["state"], "NotEnforced", "{interface:#}");
    let reason = interface["reason"].as_str().unwrap_or_default();
    assert!(
        reason.contains(&format!("(id {id}, name \"headgate\")")),
        "{reason}"
    );
    assert!(reason.contains("not ours"), "{reason}");
    assert_eq!(second.headgate(&["status"]).code, 3);
    second.wait_for_log(&format!("id {id}"));
    assert_eq!(program_id(&first.node.namespace), id, "it was not replaced");
    first.check([
        udp("10.0.0.1:5", "192.168.0.1:1").dropped_by("first/udp"),
        udp("10.0.0.1:5", "192.168.0.1:2").passes(),
    ]);

    first.node.terminate();
    let detached = first.node.headgate(&["detach"]);
    assert_eq!(detached.code, 0, "{detached:?}");
    wait_for(SOON, "ours is attached", || {
        second.interface("eth0")["state"] == "Enforced"
    });
    first.client.check(
        &second,
        [
            udp("10.0.0.1:5", "192.168.0.1:1").passes(),
            udp("10.0.0.1:5", "192.168.0.1:2").dropped_by("second/udp"),
        ],
    );
}
