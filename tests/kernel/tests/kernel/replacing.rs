//! Tables and programs are replaced under a link that stays.

use std::path::Path;

use headgate_datapath::{
    kernel::{Kernel, KernelError},
    plan::{BlockOrigin, Step, StepKind},
    state::{Block, Capacity, DatapathState, Digest, Ifindex, PortIndex, WantedMode},
};
use headgate_kernel::{DEFAULT_BPFFS, RunningKernel};
use headgate_kernel_tests::{
    blocks::{default_of, large_rule_of, rule_of},
    frames::{XDP_DROP, XDP_PASS, udp4},
    network::{run, veth},
    node::{Node, port, wanted},
    trials::{in_kernel, in_kernel_that_balances},
    tunnel::{PORT, tunnel},
};
use headgate_layout::{maps, verdict::Action};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("new_tables_keep_link_and_program", new_tables),
        in_kernel(
            "tables_outgrow_their_program_and_shrink_back",
            grow_and_shrink,
        ),
        in_kernel("a_replaced_program_keeps_its_link", replace_program),
        in_kernel("tables_that_stand_are_used_again", used_again),
        in_kernel("content_under_a_wrong_name_is_refused", wrong_digest),
        in_kernel_that_balances(
            "programs_of_another_layout_are_replaced_behind_their_links",
            another_layout,
        ),
        in_kernel("programs_of_every_size_pass_the_verifier", every_size),
    ]
}

fn frame() -> Vec<u8> {
    udp4([198, 51, 100, 7].into())
}

/// As an agent of another layout would leave them.
fn age_pins(node: &Node) {
    let present = node.layout_pins();
    let former = present.with_file_name("v1");
    std::fs::rename(&present, former).expect("renamed");
}

fn links(node: &Node, folder: &str) -> Vec<String> {
    let folder = node.layout_pins().join(folder);
    let pins = std::fs::read_dir(folder).expect("a folder");
    let id = |path: &std::path::Path| {
        let said = run("bpftool", &format!("link show pinned {}", path.display()));
        let (id, _) = said.split_once(':').expect("a number");
        id.to_owned()
    };
    let mut ids: Vec<_> = pins.map(|pin| id(&pin.expect("a pin").path())).collect();
    ids.sort();
    ids
}

fn another_layout() {
    let mut node = Node::new();
    let (kept, dropped) = (veth("v0", "v1"), veth("w0", "w1"));
    let block = default_of(Action::Drop);
    let state = |ports: &[(PortIndex, Ifindex, &Block)]| {
        let mut state = wanted(ports);
        let tunnel = tunnel(2, PORT);
        state.blocks.extend(tunnel.blocks);
        state.tunnel = tunnel.tunnel;
        state
    };
    node.converge(&state(&[
        (port(0), kept, &block),
        (port(1), dropped, &block),
    ]));
    let before = [
        links(&node, "links")[0].clone(),
        links(&node, "tunnel").join(" "),
    ];
    age_pins(&node);
    let kernel = RunningKernel::open(&node.instance, Path::new(DEFAULT_BPFFS));
    node.kernel = kernel.expect("a kernel");
    // One of the two interfaces is wanted no more.
    let state = state(&[(port(0), kept, &block)]);
    for outcome in node.run(&state) {
        outcome
            .result
            .unwrap_or_else(|error| panic!("{}: {error}", outcome.step));
    }
    assert_eq!(node.verdict(port(0), &frame()), XDP_DROP);
    assert!(
        run("ip", "link show w0").contains("prog/xdp"),
        "until all is there"
    );
    node.converge(&state);
    let after = [
        links(&node, "links")[0].clone(),
        links(&node, "tunnel").join(" "),
    ];
    assert_eq!(after, before, "the same links");
    assert!(!run("ip", "link show w0").contains("prog/xdp"));
    assert!(!node.pins().join("v1").exists());
    // What nobody wants goes with them, the device too.
    age_pins(&node);
    let kernel = RunningKernel::open(&node.instance, Path::new(DEFAULT_BPFFS));
    node.kernel = kernel.expect("a kernel");
    node.converge(&DatapathState::default());
    assert!(!run("ip", "link show v0").contains("prog/xdp"));
    assert!(!run("ip", "link").contains("headgate_vxlan"));
    assert!(!node.pins().join("v1").exists());
}

fn new_tables() {
    let mut node = Node::new();
    let interface = veth("v0", "v1");
    node.converge(&wanted(&[(port(0), interface, &default_of(Action::Drop))]));
    let before = node.observe();
    assert_eq!(node.verdict(port(0), &frame()), XDP_DROP);

    node.converge(&wanted(&[(port(0), interface, &default_of(Action::Allow))]));

    let after = node.observe();
    assert_eq!(after.links, before.links);
    assert_ne!(after.active, before.active);
    assert_eq!(node.verdict(port(0), &frame()), XDP_PASS);
}

fn grow_and_shrink() {
    let mut node = Node::new();
    let interface = veth("v0", "v1");
    let small = rule_of(Action::Drop, 1);
    let large = large_rule_of(Action::Allow, 2, 300_000);
    node.converge(&wanted(&[(port(0), interface, &small)]));
    let before = node.observe().links[&port(0)];

    let plan = node.converge(&wanted(&[(port(0), interface, &large)]));

    let copied = plan.steps.iter().any(|step| {
        let from = Capacity(65_536);
        matches!(step, Step::Build { origin: BlockOrigin::Copy { from: f }, .. } if *f == from)
    });
    assert!(copied, "the live tables move along until the flip:\n{plan}");
    let grown = node.observe();
    let link = grown.links[&port(0)];
    assert_eq!(link.link_id, before.link_id);
    assert_ne!(link.program_id, before.program_id);
    assert_eq!(Some(link.capacity.0), maps::capacity_for(300_000));
    assert_eq!(grown.slots.len(), 1, "the small slots are gone");
    assert_eq!(node.verdict(port(0), &frame()), XDP_PASS);

    node.converge(&wanted(&[(port(0), interface, &small)]));

    let link = node.observe().links[&port(0)];
    assert_eq!(link.link_id, before.link_id);
    assert_eq!(link.capacity, before.capacity);
    assert_eq!(node.verdict(port(0), &frame()), XDP_DROP);
}

fn replace_program() {
    let mut node = Node::new();
    let interface = veth("v0", "v1");
    let state = wanted(&[(port(0), interface, &default_of(Action::Drop))]);
    node.converge(&state);
    let before = node.observe().links[&port(0)];
    let step = Step::ReplaceProgram {
        port: port(0),
        capacity: before.capacity,
    };
    node.kernel.apply(&step, &state.blocks).expect("replaced");
    let after = node.observe().links[&port(0)];
    assert_eq!(after.link_id, before.link_id);
    assert_ne!(after.program_id, before.program_id);
    assert_eq!(after.object, before.object);
    assert!(node.plan(&state).is_empty());
}

fn used_again() {
    let mut node = Node::new();
    let first = veth("v0", "v1");
    let second = veth("w0", "w1");
    let drop = default_of(Action::Drop);
    node.converge(&wanted(&[(port(0), first, &drop)]));
    let state = wanted(&[(port(0), first, &drop), (port(1), second, &drop)]);
    let plan = node.converge(&state);
    let built = plan.steps.iter().any(|step| step.kind() == StepKind::Build);
    assert!(!built, "the other port's tables are there:\n{plan}");
    assert_eq!(node.verdict(port(1), &frame()), XDP_DROP);
}

fn wrong_digest() {
    let mut node = Node::new();
    let mut state = DatapathState::default();
    let (name, block) = (Digest::of(b"something else"), default_of(Action::Drop));
    state.blocks.insert(name, block);
    let capacity = Capacity(65_536);
    for step in [Step::Prepare, Step::MakeSlots(capacity)] {
        node.kernel.apply(&step, &state.blocks).expect("prepared");
    }
    let step = Step::Build {
        digest: name,
        capacity,
        origin: BlockOrigin::Wanted,
    };
    let refused = node.kernel.apply(&step, &state.blocks);
    assert!(
        matches!(refused, Err(KernelError::Call { .. })),
        "{refused:?}"
    );
    let step = Step::WriteSlots {
        capacity,
        entries: [((headgate_datapath::observed::Slot(0), port(0)), name)].into(),
    };
    let refused = node.kernel.apply(&step, &state.blocks);
    assert!(
        matches!(refused, Err(KernelError::Call { .. })),
        "{refused:?}"
    );
}

fn every_size() {
    let mut node = Node::new();
    let interface = veth("v0", "v1");
    let block = default_of(Action::Drop);
    for capacity in [1 << 16, 5 << 20, maps::MAX_CAPACITY].map(Capacity) {
        let steps = [
            Step::Prepare,
            Step::MakeSlots(capacity),
            Step::Attach {
                port: port(0),
                interface: "v0".to_owned(),
                ifindex: interface,
                mode: WantedMode::Native,
                capacity,
            },
            Step::Detach(port(0)),
            Step::RemoveSlots(capacity),
        ];
        for step in steps {
            let done = node
                .kernel
                .apply(&step, &[(block.digest(), block.clone())].into());
            done.unwrap_or_else(|error| panic!("{capacity}: {step}: {error}"));
        }
    }
}
