//! What others take away, and what a crash leaves half done, is seen and mended.

use std::{fs, path::Path, process::Command};

use headgate_datapath::{
    kernel::Kernel,
    plan::{Step, StepKind},
    state::{DatapathState, Digest},
};
use headgate_kernel::{DEFAULT_BPFFS, RunningKernel};
use headgate_kernel_tests::{
    blocks::{default_of, rule_of},
    frames::{XDP_DROP, udp4},
    network::{ip, run, veth},
    node::{Node, port, wanted},
    trials::in_kernel,
};
use headgate_layout::verdict::Action;
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel(
            "a_link_detached_behind_our_back_is_put_back",
            detached_behind,
        ),
        in_kernel("an_interface_made_anew_gets_its_program", made_anew),
        in_kernel("an_interface_in_another_namespace_is_not_ours", moved_away),
        in_kernel(
            "a_program_that_is_not_the_pinned_one_is_replaced",
            not_pinned,
        ),
        in_kernel("slots_that_were_unpinned_are_made_again", slots_unpinned),
        in_kernel(
            "a_counter_map_that_was_unpinned_is_made_again",
            map_unpinned,
        ),
        in_kernel("another_process_takes_over_where_one_ended", taken_over),
        in_kernel("every_prefix_of_a_plan_is_gone_on_from", cut_short),
        in_kernel("tables_in_a_slot_cannot_be_written", frozen),
    ]
}

fn one_port() -> (Node, DatapathState) {
    let node = Node::new();
    let interface = veth("v0", "v1");
    let state = wanted(&[(port(0), interface, &default_of(Action::Drop))]);
    (node, state)
}

/// Enforced again, through the link that stayed.
fn mended(node: &mut Node, state: &DatapathState) {
    let before = node.observe().links[&port(0)];
    node.converge(state);
    let after = node.observe().links[&port(0)];
    assert_eq!(after.link_id, before.link_id, "no packet passed by");
    assert_eq!(node.verdict(port(0), &udp4([1, 2, 3, 4].into())), XDP_DROP);
}

fn detached_behind() {
    let (mut node, state) = one_port();
    node.converge(&state);
    let pin = node.layout_pins().join("links/port0");
    run("bpftool", &format!("link detach pinned {}", pin.display()));
    let observed = node.observe();
    assert_eq!(observed.links[&port(0)].ifindex, None);
    assert_eq!(observed.enforced(port(0)), None);
    node.converge(&state);
    assert!(run("ip", "link show v0").contains("prog/xdp"));
}

fn made_anew() {
    let (mut node, state) = one_port();
    node.converge(&state);
    ip("link delete v0");
    assert_eq!(node.observe().links[&port(0)].ifindex, None);
    let interface = veth("v0", "v1");
    let state = wanted(&[(port(0), interface, &default_of(Action::Drop))]);
    node.converge(&state);
    assert_eq!(node.observe().links[&port(0)].ifindex, Some(interface));
}

fn moved_away() {
    let (mut node, state) = one_port();
    node.converge(&state);
    let mut elsewhere = Command::new("unshare")
        .args(["--net", "sleep", "60"])
        .spawn()
        .expect("a process in another namespace");
    // It may take a moment to get there; until then the move is one to where it is.
    let path = format!("/proc/{}/ns/net", elsewhere.id());
    let own = fs::read_link("/proc/thread-self/ns/net").expect("our namespace");
    while fs::read_link(&path).expect("its namespace") == own {
        std::thread::yield_now();
    }
    ip(&format!("link set v0 netns {}", elsewhere.id()));
    assert_eq!(node.observe().links[&port(0)].ifindex, None);
    elsewhere.kill().expect("ended");
    elsewhere.wait().expect("ended");
}

fn not_pinned() {
    let (mut node, state) = one_port();
    node.converge(&state);
    // As after a crash between the link's update and the program's pin.
    let programs = node.layout_pins().join("programs");
    fs::remove_dir_all(&programs).expect("removed");
    fs::create_dir(&programs).expect("made again");
    assert_eq!(node.observe().links[&port(0)].object, None);
    mended(&mut node, &state);
}

fn slots_unpinned() {
    let (mut node, state) = one_port();
    node.converge(&state);
    fs::remove_file(node.layout_pins().join("slots-65536")).expect("removed");
    let link = node.observe().links[&port(0)];
    assert_eq!((link.object, link.capacity.0), (None, 0));
    mended(&mut node, &state);
}

fn map_unpinned() {
    let (mut node, state) = one_port();
    node.converge(&state);
    fs::remove_file(node.layout_pins().join("RULE_COUNTERS")).expect("removed");
    assert!(!node.observe().prepared);
    assert_eq!(
        node.observe().links.len(),
        1,
        "the link is there all the same"
    );
    mended(&mut node, &state);
}

fn taken_over() {
    let (mut node, state) = one_port();
    node.converge(&state);
    let before = node.observe();
    let mut second = RunningKernel::open(&node.instance, Path::new(DEFAULT_BPFFS)).expect("opened");
    let mut seen = second.observe().expect("observed");
    assert!(!seen.settled, "what the first one waited for is unknown");
    seen.settled = before.settled;
    assert_eq!(seen, before);
    let mut reader =
        RunningKernel::open_read_only(&node.instance, Path::new(DEFAULT_BPFFS)).expect("opened");
    assert_eq!(reader.observe().expect("observed").links, before.links);
}

fn cut_short() {
    let (mut node, first) = one_port();
    let interface = first.ports[&port(0)].ifindex;
    node.converge(&first);
    let states: Vec<_> = (0..6_u32)
        .map(|counter| wanted(&[(port(0), interface, &rule_of(Action::Drop, counter))]))
        .collect();
    for (length, state) in states.iter().enumerate() {
        let plan = node.plan(state);
        for step in plan.steps.iter().take(length) {
            node.kernel.apply(step, &state.blocks).expect("applied");
            assert_eq!(node.verdict(port(0), &udp4([1, 2, 3, 4].into())), XDP_DROP);
        }
        // A new process knows of nothing but pins.
        node.kernel =
            RunningKernel::open(&node.instance, Path::new(DEFAULT_BPFFS)).expect("opened");
        let settled = !node.observe().settled;
        assert!(settled, "a new process does not know");
        for _ in 0..2 {
            node.run(state);
        }
        assert!(node.plan(state).is_empty());
        assert_eq!(node.observe().revision(), state.revision());
    }
}

fn frozen() {
    let (mut node, state) = one_port();
    node.converge(&state);
    let block: Digest = state.ports[&port(0)].tables;
    let name = format!("hg_{}", block.short());
    let listed = run("bpftool", "map show");
    let ids: Vec<&str> = listed
        .lines()
        .filter(|line| line.contains(&format!("name {name} ")))
        .filter_map(|line| line.split(':').next())
        .collect();
    assert!(!ids.is_empty(), "{name} in\n{listed}");
    for id in ids {
        let output = Command::new("bpftool")
            .args([
                "map", "update", "id", id, "key", "0", "0", "0", "0", "value",
            ])
            .args(vec!["0"; 65_536])
            .output()
            .expect("bpftool");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("Operation not permitted"), "{errors}");
    }
    let step = Step::Flip(node.observe().active.other());
    assert_eq!(step.kind(), StepKind::Flip);
    node.kernel
        .apply(&step, &state.blocks)
        .expect("either slot is safe to read");
    assert_eq!(node.verdict(port(0), &udp4([1, 2, 3, 4].into())), XDP_DROP);
}
