//! Programs come on interfaces and off again.

use headgate_datapath::{
    kernel::{Applied, Kernel, KernelError, Outcome},
    plan::{Step, StepKind},
    state::{AttachedMode, DatapathState, Ifindex, WantedMode},
};
use headgate_kernel::object_digest;
use headgate_kernel_tests::{
    blocks::{default_of, rule_of},
    frames::{XDP_DROP, XDP_PASS, arp, udp4, udp6},
    network::{ifindex, ip, run, veth},
    node::{Node, port, wanted},
    trials::in_kernel,
};
use headgate_layout::verdict::Action;
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("a_state_is_read_back_as_it_was_wanted", read_back),
        in_kernel("lo_takes_generic_mode_and_says_why", generic_on_lo),
        in_kernel("native_alone_is_refused_on_lo", native_on_lo),
        in_kernel("a_foreign_program_stays_and_is_named", foreign),
        in_kernel("the_mode_changes_and_changes_back", change_mode),
        in_kernel("a_mode_that_fails_leaves_the_old_one", change_mode_fails),
        in_kernel("an_interface_that_is_gone_is_named_so", gone),
        in_kernel("an_empty_state_leaves_no_program", empty_state),
        in_kernel("detach_all_leaves_nothing", detach_all),
    ]
}

fn read_back() {
    let mut node = Node::new();
    let outer = veth("v0", "v1");
    let inner = ifindex("v1");
    let (drop, pass) = (rule_of(Action::Drop, 3), default_of(Action::Allow));
    let state = wanted(&[(port(0), outer, &drop), (port(9), inner, &pass)]);
    assert!(!node.observe().prepared);

    node.converge(&state);

    let observed = node.observe();
    assert!(observed.prepared);
    assert_eq!(observed.revision(), state.revision());
    assert_eq!(observed.counters_in_use, [3].into());
    let link = observed.links[&port(0)];
    assert_eq!(link.ifindex, Some(outer));
    assert_eq!(link.mode, AttachedMode::Native);
    assert_eq!(link.object, Some(object_digest()));
    let source = [198, 51, 100, 7].into();
    assert_eq!(node.verdict(port(0), &udp4(source)), XDP_DROP);
    assert_eq!(node.verdict(port(9), &udp4(source)), XDP_PASS);
    let source = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into();
    assert_eq!(node.verdict(port(0), &udp6(source)), XDP_DROP);
    assert_eq!(node.verdict(port(0), &arp()), XDP_PASS);
}

/// The outcome of the step of this kind.
fn outcome(outcomes: &[Outcome], kind: StepKind) -> &Result<Applied, KernelError> {
    let outcome = outcomes.iter().find(|outcome| outcome.step.kind() == kind);
    &outcome.expect("a step of this kind").result
}

fn generic_on_lo() {
    let mut node = Node::new();
    let state = wanted(&[(port(1), ifindex("lo"), &default_of(Action::Drop))]);
    let outcomes = node.run(&state);
    let Ok(Applied::Attached { mode, refusal }) = outcome(&outcomes, StepKind::Attach) else {
        panic!("attached: {outcomes:?}");
    };
    assert_eq!(*mode, AttachedMode::Generic);
    let refusal = refusal.as_deref().expect("a reason");
    assert!(refusal.starts_with("EOPNOTSUPP: "), "{refusal}");
    assert_eq!(node.observe().links[&port(1)].mode, AttachedMode::Generic);
    assert!(node.plan(&state).is_empty());
}

fn native_on_lo() {
    let mut node = Node::new();
    let mut state = wanted(&[(port(1), ifindex("lo"), &default_of(Action::Drop))]);
    set_mode(&mut state, WantedMode::Native);
    let outcomes = node.run(&state);
    let Err(KernelError::Attach { mode, source, .. }) = outcome(&outcomes, StepKind::Attach) else {
        panic!("refused: {outcomes:?}");
    };
    assert_eq!(*mode, AttachedMode::Native);
    assert_eq!(source.raw_os_error(), Some(95));
    assert!(node.observe().links.is_empty());
}

fn set_mode(state: &mut DatapathState, mode: WantedMode) {
    for attachment in state.ports.values_mut() {
        attachment.mode = mode;
    }
}

fn foreign() {
    let (mut ours, mut other) = (Node::new(), Node::new());
    let interface = veth("v0", "v1");
    let drop = default_of(Action::Drop);
    let state = wanted(&[(port(0), interface, &drop)]);
    other.converge(&state);
    let theirs = other.observe().links[&port(0)];

    for mode in [WantedMode::Auto, WantedMode::Generic] {
        let mut state = state.clone();
        set_mode(&mut state, mode);
        let outcomes = ours.run(&state);
        let Err(KernelError::Foreign {
            program_id,
            program_name,
            ..
        }) = outcome(&outcomes, StepKind::Attach)
        else {
            panic!("{mode:?}: {outcomes:?}");
        };
        assert_eq!(*program_id, theirs.program_id);
        assert!(program_name.starts_with("headgate"), "{program_name}");
    }
    assert!(ours.observe().links.is_empty());
    assert_eq!(other.observe().links[&port(0)], theirs);
}

fn change_mode() {
    let mut node = Node::new();
    let interface = veth("v0", "v1");
    let mut state = wanted(&[(port(0), interface, &default_of(Action::Drop))]);
    for mode in [WantedMode::Native, WantedMode::Generic, WantedMode::Native] {
        set_mode(&mut state, mode);
        node.converge(&state);
        let link = node.observe().links[&port(0)];
        assert!(mode.accepts(link.mode));
        assert_eq!(node.verdict(port(0), &udp4([1, 2, 3, 4].into())), XDP_DROP);
    }
}

fn change_mode_fails() {
    let mut node = Node::new();
    let interface = ifindex("lo");
    let mut state = wanted(&[(port(0), interface, &default_of(Action::Drop))]);
    node.converge(&state);
    set_mode(&mut state, WantedMode::Native);
    let outcomes = node.run(&state);
    let result = outcome(&outcomes, StepKind::ChangeMode);
    assert!(
        matches!(result, Err(KernelError::Attach { .. })),
        "{outcomes:?}"
    );
    let link = node.observe().links[&port(0)];
    assert_eq!(
        (link.ifindex, link.mode),
        (Some(interface), AttachedMode::Generic)
    );
}

fn gone() {
    let mut node = Node::new();
    let drop = default_of(Action::Drop);
    let state = wanted(&[(port(0), Ifindex(7777), &drop)]);
    let outcomes = node.run(&state);
    let Err(KernelError::Attach { source, .. }) = outcome(&outcomes, StepKind::Attach) else {
        panic!("refused: {outcomes:?}");
    };
    assert_eq!(source.raw_os_error(), Some(19), "ENODEV");
}

fn empty_state() {
    let mut node = Node::new();
    let interface = veth("v0", "v1");
    node.converge(&wanted(&[(port(0), interface, &default_of(Action::Drop))]));
    node.converge(&DatapathState::default());
    let observed = node.observe();
    assert!(observed.links.is_empty() && observed.slots.is_empty());
    assert!(!run("ip", "link show v0").contains("prog/xdp"));
}

fn detach_all() {
    let mut node = Node::new();
    let interface = veth("v0", "v1");
    let drop = default_of(Action::Drop);
    node.converge(&wanted(&[
        (port(0), interface, &drop),
        (port(1), ifindex("lo"), &drop),
    ]));
    assert!(run("ip", "link show v0").contains("prog/xdp"));
    // Of an interface that went away, only the pin is left.
    ip("link delete v0");

    assert_eq!(node.kernel.detach_all().expect("detached"), 2);

    assert!(!node.pins().exists());
    assert!(!run("ip", "link show lo").contains("prog/xdp"));
    assert!(!node.observe().prepared);
    assert_eq!(node.kernel.detach_all().expect("nothing to detach"), 0);
    let step = Step::Detach(port(0));
    let again = node.kernel.apply(&step, &Default::default());
    assert!(again.is_ok(), "nothing to detach is no error: {again:?}");
}
