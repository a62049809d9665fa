//! Enforcement does not depend on the agent's life.

use std::collections::BTreeMap;

use headgate_datapath::kernel::Kernel as _;
use headgate_e2e_tests::{
    flow::{Flow, Receiver},
    lab::Lab,
    node::Node,
    paths::example,
    trials::{on_node, soak},
};
use headgate_kernel::{Instance, RunningKernel};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node(
            "killed_again_and_again_nothing_leaks_and_nothing_is_lost",
            killed,
        ),
        on_node(
            "sigterm_leaves_enforcement_in_place_and_says_so",
            terminated,
        ),
    ]
}

/// Datagrams a second in each of the two flows.
const RATE: u32 = 2_500;

/// A node that drops one port, and flows to that port and another.
struct Traffic {
    lab: Lab,
    receiver: Receiver,
    dropped: Flow,
    allowed: Flow,
    lost_before: u64,
}

impl Traffic {
    fn start() -> Self {
        let text = example("policies/drop-udp-12345.yaml");
        let lab = Lab::enforcing(&[("policy.yaml", &text)]);
        let receiver = Receiver::open(&lab.node.namespace, &[12345, 12346]);
        let source = [lab.client.cable.client.v4.into()];
        Self {
            lost_before: lab.client.lost_by_devices(&lab.node.namespace),
            dropped: lab.client.flow(&source, 12345, RATE),
            allowed: lab.client.flow(&source, 12346, RATE),
            receiver,
            lab,
        }
    }

    /// What was dropped did not leak, and what is allowed arrived.
    fn finish(self) -> Lab {
        let client = &self.lab.client;
        let (sent_dropped, leaked) = client.finish(self.dropped, &self.receiver);
        let (sent, received) = client.finish(self.allowed, &self.receiver);
        let lost = client.lost_by_devices(&self.lab.node.namespace) - self.lost_before;
        println!(
            "dropped port: {sent_dropped} sent, {leaked} leaked; allowed port: {sent} sent, {received} received; lost by devices {lost}"
        );
        assert!(sent_dropped > 0 && sent > 0);
        assert_eq!(leaked, 0, "of {sent_dropped} to the dropped port");
        assert!(
            received <= sent && received + lost >= sent,
            "{sent} sent, {received} received, {lost} lost by devices"
        );
        self.lab
    }
}

/// Kernel ids of the node's links and programs, by port.
fn attached(node: &Node) -> BTreeMap<u32, (u32, u32)> {
    let instance = Instance {
        name: node.instance.clone(),
    };
    node.namespace.enter(|| {
        let bpffs = std::path::Path::new(headgate_kernel::DEFAULT_BPFFS);
        let mut kernel = RunningKernel::open_read_only(&instance, bpffs).expect("the node's pins");
        let links = kernel.observe().expect("observed").links.into_iter();
        links
            .map(|(port, link)| (port.number(), (link.link_id, link.program_id)))
            .collect()
    })
}

fn killed() {
    let mut traffic = Traffic::start();
    let before = attached(&traffic.lab.node);
    assert_eq!(before.len(), 1);
    for _ in 0..if soak() { 200 } else { 20 } {
        traffic.lab.node.kill();
        traffic.lab.client.let_flow(&traffic.dropped, 100);
        traffic.lab.node.start();
        assert_eq!(
            attached(&traffic.lab.node),
            before,
            "the same link and program"
        );
    }
    let lab = traffic.finish();
    assert_eq!(lab.node.headgate(&["status"]).code, 0);
}

fn terminated() {
    let mut traffic = Traffic::start();
    let before = attached(&traffic.lab.node);
    let status = traffic.lab.node.terminate();
    assert!(status.success(), "{status}");
    let log = traffic.lab.node.log();
    assert!(log.contains("enforcement stays in the kernel"), "{log}");
    assert!(log.contains("headgate detach"), "{log}");
    traffic.lab.client.let_flow(&traffic.dropped, 500);
    assert_eq!(attached(&traffic.lab.node), before);
    let status = traffic.lab.node.headgate(&["status"]);
    assert_eq!(status.code, 0, "{status:?}");
    assert!(
        status
            .output
            .contains("not running; enforcement goes on without it"),
        "{status:?}"
    );
    traffic.lab.node.start();
    assert_eq!(attached(&traffic.lab.node), before);
    drop(traffic.finish());
}
