//! The tunnel's device, programs, tables, neighbours and routes in the running kernel.

use std::{collections::BTreeSet, time::Instant};

use headgate_datapath::{
    invariants::violations,
    kernel::{Kernel as _, KernelError},
    plan::{Step, StepKind},
    state::DatapathState,
};
use headgate_kernel_tests::{
    blocks::default_of,
    network::{ip, run, veth},
    node::{Node, port, wanted},
    trials::in_kernel,
    tunnel::{PORT, tunnel},
};
use headgate_layout::{
    maps::{TUNNEL, TUNNEL_COUNTERS},
    verdict::Action,
};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("a_tunnel_is_made_changed_and_removed", || {
            changed(Node::new());
        }),
        in_kernel("a_tunnel_by_clsact_is_made_changed_and_removed", || {
            changed(Node::by_clsact());
        }),
        in_kernel("a_device_is_up_only_where_its_programs_judge", || {
            judged(Node::new());
        }),
        in_kernel("a_device_is_up_only_where_its_classifiers_judge", || {
            judged(Node::by_clsact());
        }),
        in_kernel(
            "what_the_tunnel_cannot_give_up_keeps_no_program_on_an_interface",
            stuck,
        ),
        in_kernel("a_tunnel_is_found_by_the_next_agent", found),
        in_kernel("somebody_elses_device_and_port_are_left", foreign),
        in_kernel("five_thousand_peers_are_loaded", many),
    ]
}

fn changed(mut node: Node) {
    node.converge(&tunnel(3, PORT));
    assert!(run("ip", "route").contains("10.0.2.0/24 via 10.0.2.0 dev headgate_vxlan proto 157"));
    // A change of peers leaves device and programs alone.
    let kinds = |node: &mut Node, state: &DatapathState| -> Vec<StepKind> {
        let plan = node.converge(state);
        plan.steps.iter().map(Step::kind).collect()
    };
    assert_eq!(
        kinds(&mut node, &tunnel(2, PORT)),
        [
            StepKind::RemoveTunnelRoutes,
            StepKind::WriteTunnel,
            StepKind::RemoveTunnelRoutes
        ]
    );
    assert!(!run("ip", "route").contains("10.0.2.0/24"));
    // Another port is another device.
    let anew = kinds(&mut node, &tunnel(2, 4789));
    assert!(anew.contains(&StepKind::AttachTunnel), "{anew:?}");
    assert!(run("ip", "-d link show headgate_vxlan").contains("dstport 4789"));
    node.converge(&DatapathState::default());
    assert!(!run("ip", "link").contains("headgate_vxlan"));
    assert!(!run("ip", "route").contains("proto 157"));
}

fn is_up() -> bool {
    run("ip", "link show headgate_vxlan").contains(",UP")
}

/// Carries out the plan and looks at the kernel after each step.
fn watched(node: &mut Node, wanted: &DatapathState) -> Vec<StepKind> {
    let plan = node.plan(wanted);
    let kinds = plan.steps.iter().map(Step::kind).collect();
    for step in plan.steps {
        node.kernel
            .apply(&step, &wanted.blocks)
            .expect("carried out");
        assert_eq!(
            violations(&node.observe()),
            Vec::<String>::new(),
            "after: {step}"
        );
    }
    assert!(node.plan(wanted).is_empty());
    kinds
}

fn judged(mut node: Node) {
    watched(&mut node, &tunnel(2, PORT));
    assert!(is_up());
    watched(&mut node, &tunnel(2, 4789));
    // Whoever takes the programs off leaves a device that takes packets from anybody: it goes down first.
    for folder in ["tunnel", "classifiers"] {
        std::fs::remove_dir_all(node.layout_pins().join(folder)).expect("removed");
    }
    assert_eq!(
        watched(&mut node, &tunnel(2, 4789)),
        [
            StepKind::LowerTunnel,
            StepKind::AttachTunnel,
            StepKind::RaiseTunnel,
            StepKind::SetTunnelRoutes
        ]
    );
    // An agent that ends before its programs are there leaves a device that is down.
    node.converge(&DatapathState::default());
    let wanted = tunnel(2, PORT);
    let first = node.plan(&wanted).steps.into_iter();
    for step in first.take_while(|step| step.kind() != StepKind::AttachTunnel) {
        node.kernel
            .apply(&step, &wanted.blocks)
            .expect("carried out");
    }
    assert!(!is_up());
    watched(&mut node, &wanted);
    assert!(is_up());
}

fn stuck() {
    let mut node = Node::new();
    let mut state = wanted(&[(port(0), veth("v0", "v1"), &default_of(Action::Drop))]);
    let tunnel = tunnel(1, PORT);
    state.blocks.extend(tunnel.blocks);
    state.tunnel = tunnel.tunnel;
    node.converge(&state);
    // A map of another shape in the place of its tables.
    let tables = node.layout_pins().join(TUNNEL.name);
    std::fs::remove_file(&tables).expect("removed");
    let counters = node.layout_pins().join(TUNNEL_COUNTERS.name);
    std::fs::hard_link(counters, &tables).expect("pinned");
    let refused = node.kernel.detach_all();
    assert!(refused.is_err(), "{refused:?}");
    assert!(!run("ip", "link show v0").contains("prog/xdp"));
    assert!(!run("ip", "link").contains("headgate_vxlan"));
    std::fs::remove_file(&tables).expect("removed");
    node.kernel.detach_all().expect("taken down");
    assert!(!node.pins().exists());
}

fn found() {
    let mut node = Node::new();
    let wanted = tunnel(3, PORT);
    node.converge(&wanted);
    let mut next = headgate_kernel::RunningKernel::open(
        &node.instance,
        std::path::Path::new(headgate_kernel::DEFAULT_BPFFS),
    )
    .expect("a kernel");
    let observed = next.observe().expect("observed");
    assert_eq!(observed.revision(), wanted.revision());
    assert_eq!(next.detach_all().expect("taken down"), 1);
    assert!(!run("ip", "link").contains("headgate_vxlan"));
}

fn foreign() {
    let mut node = Node::new();
    ip("link add headgate_vxlan type vxlan external dstport 8472");
    ip("link set headgate_vxlan alias theirs");
    ip("link set headgate_vxlan up");
    let refusal = |node: &mut Node| {
        let outcomes = node.run(&tunnel(1, PORT));
        let last = outcomes.into_iter().next_back().expect("a step");
        match last.result {
            Err(KernelError::Unusable { what, remedy }) => format!("{what}: {remedy}"),
            other => panic!("{other:?}"),
        }
    };
    let said = refusal(&mut node);
    assert!(said.contains("its alias is \"theirs\""), "{said}");
    assert!(said.contains("ip link del headgate_vxlan"), "{said}");
    node.converge(&DatapathState::default());
    assert!(run("ip", "link").contains("headgate_vxlan"), "it is left");
    ip("link set headgate_vxlan down");
    ip("link set headgate_vxlan name theirs");
    ip("link set theirs up");
    let said = refusal(&mut node);
    assert!(said.contains("UDP port 8472 is taken"), "{said}");
    ip("link del theirs");
    // What an agent left that ended before the device had its alias is made anew.
    let left = run("ip", "link");
    if left.contains("headgate_vxlan") {
        ip("link del headgate_vxlan");
    }
    ip("link add headgate_vxlan type vxlan external dstport 8472");
    node.converge(&tunnel(1, PORT));
}

fn many() {
    let mut node = Node::new();
    node.converge(&tunnel(1, PORT));
    let wanted = tunnel(5_000, PORT);
    let started = Instant::now();
    for outcome in node.run(&wanted) {
        outcome.result.expect("carried out");
    }
    println!("5,000 peers loaded in {:?}", started.elapsed());
    // Of one metric alone, the kernel would look through all routes for each.
    let routes = run("ip", "route");
    let metrics = routes
        .lines()
        .filter_map(|line| line.split_once(" metric "));
    let metrics: BTreeSet<&str> = metrics.map(|(_, metric)| metric).collect();
    assert_eq!(metrics.len(), 256, "{metrics:?}");
    assert!(node.plan(&wanted).is_empty());
    let mut one_less = tunnel(4_999, PORT);
    let started = Instant::now();
    for outcome in node.run(&one_less) {
        outcome.result.expect("carried out");
    }
    println!("one of 5,000 peers removed in {:?}", started.elapsed());
    one_less.tunnel = None;
    node.converge(&one_less);
}
