//! Plans carried out on the fake kernel: they converge, are atomic, and survive a failure of every
//! kind of step without a gap.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
};

use headgate_datapath::{
    diff::{DiffError, diff},
    failsafe::{Passage, Prefix},
    fake::FakeKernel,
    kernel::{Kernel, carry_out},
    native::{NativeRoute, NativeRoutes, wanted_digest},
    observed::{Observed, Slot},
    plan::{Step, StepKind},
    state::{
        Attachment, Block, DatapathState, Digest, FailsafePeer, Ifindex, PortIndex, WantedMode,
    },
    tunnel::{LocalPod, MacAddress, Tunnel, TunnelDevice, TunnelRoute},
};
use proptest::prelude::*;

fn object() -> Digest {
    Digest::of(b"object")
}

fn port(number: u32) -> PortIndex {
    PortIndex::new(number).unwrap()
}

/// Tables with none, one or two ring blocks, of which others may have some too.
fn block(content: u8, length: usize) -> Block {
    let ring_blocks = (0..content % 3).map(|number| Block::new(vec![content / 2 + number; 400]));
    Block::new(vec![content; length]).with_ring_blocks(ring_blocks.collect())
}

/// A state in which each (port, content, length) is attached to an interface of its own.
fn state(ports: &[(u32, u8, usize)]) -> DatapathState {
    let mut state = DatapathState::default();
    for (number, content, length) in ports {
        let block = block(*content, *length);
        let attachment = Attachment {
            interface: format!("eth{number}"),
            ifindex: Ifindex(number + 1),
            mode: WantedMode::Auto,
            tables: block.digest(),
            egress: false,
        };
        state.ports.insert(port(*number), attachment);
        state.hold(&block);
    }
    state
}

fn enforced(observed: &Observed) -> BTreeMap<PortIndex, Digest> {
    let ports = observed.links.keys();
    ports
        .filter_map(|p| Some((*p, observed.enforced(*p)?)))
        .collect()
}

fn wanted(state: &DatapathState) -> BTreeMap<PortIndex, Digest> {
    state.ports.iter().map(|(p, a)| (*p, a.tables)).collect()
}

/// Ring blocks in both slots.
fn ring_blocks(observed: &Observed) -> BTreeMap<(Slot, PortIndex), Vec<Digest>> {
    observed.ring_blocks.clone()
}

fn wanted_ring_blocks(state: &DatapathState) -> BTreeMap<(Slot, PortIndex), Vec<Digest>> {
    let named = state.ports.iter().flat_map(|(port, attachment)| {
        let named = state.ring_blocks_of(attachment.tables);
        [Slot(0), Slot(1)].map(|slot| ((slot, *port), named.clone()))
    });
    named.filter(|(_, named)| !named.is_empty()).collect()
}

#[test]
fn a_ring_block_that_stands_is_not_built_again() {
    let mut kernel = FakeKernel::new(object());
    // The second of one is the first of the other.
    kernel.converge(&state(&[(0, 2, 300)]));
    let plan = diff(&kernel.state, &state(&[(0, 5, 300)]), object()).unwrap();
    let built = plan.steps.iter().filter_map(|step| match step {
        Step::BuildRingBlocks(digests) => Some(digests.len()),
        _ => None,
    });
    assert_eq!(built.collect::<Vec<_>>(), [1], "{plan}");
}

#[test]
fn tables_whose_ring_blocks_are_not_there_are_not_enforced_and_mended() {
    let mut kernel = FakeKernel::new(object());
    let state = state(&[(0, 2, 300)]);
    kernel.converge(&state);
    for standing in kernel.state.ring_blocks.values_mut() {
        standing.pop();
    }
    assert_eq!(enforced(&kernel.state), BTreeMap::new());
    kernel.converge(&state);
    assert_eq!(enforced(&kernel.state), wanted(&state));
}

#[test]
fn the_first_revision_is_live_before_anything_is_attached() {
    let mut kernel = FakeKernel::new(object());
    kernel.converge(&state(&[(0, 1, 300), (1, 2, 300)]));
    let kinds: Vec<_> = kernel.log.iter().map(Step::kind).collect();
    let first = |kind| kinds.iter().position(|k| *k == kind).unwrap();
    assert!(first(StepKind::WriteSlots) < first(StepKind::Attach));
    assert_eq!(kernel.broken, Vec::<String>::new());
}

#[test]
fn nothing_to_do_is_an_empty_plan() {
    let mut kernel = FakeKernel::new(object());
    let state = state(&[(0, 1, 300)]);
    kernel.converge(&state);
    assert!(diff(&kernel.state, &state, object()).unwrap().is_empty());
}

#[test]
fn a_change_on_two_ports_is_one_flip() {
    let mut kernel = FakeKernel::new(object());
    kernel.converge(&state(&[(0, 1, 300), (1, 2, 300)]));
    let plan = diff(&kernel.state, &state(&[(0, 3, 300), (1, 4, 300)]), object()).unwrap();
    let flips = plan.steps.iter().filter(|s| s.kind() == StepKind::Flip);
    assert_eq!(flips.count(), 1);
    let batches = plan
        .steps
        .iter()
        .filter(|s| s.kind() == StepKind::WriteSlots);
    assert_eq!(
        batches.count(),
        2,
        "one before the flip, one to mirror after it:\n{plan}"
    );
}

#[test]
fn unchanged_tables_are_not_built_again() {
    let mut kernel = FakeKernel::new(object());
    kernel.converge(&state(&[(0, 1, 300), (1, 2, 300)]));
    let plan = diff(&kernel.state, &state(&[(0, 1, 300), (1, 1, 300)]), object()).unwrap();
    assert!(
        plan.steps.iter().all(|s| s.kind() != StepKind::Build),
        "{plan}"
    );
}

#[test]
fn a_program_grows_before_the_flip_and_shrinks_after_it() {
    let mut kernel = FakeKernel::new(object());
    let small = state(&[(0, 1, 300)]);
    let large = state(&[(0, 2, 1 << 20)]);
    kernel.converge(&small);
    for wanted in [&large, &small] {
        let before = kernel.log.len();
        kernel.converge(wanted);
        let kinds: Vec<_> = kernel.log[before..].iter().map(Step::kind).collect();
        let place = |kind| kinds.iter().position(|k| *k == kind).unwrap();
        let grows = wanted == &large;
        assert_eq!(
            place(StepKind::ReplaceProgram) < place(StepKind::Flip),
            grows
        );
        assert_eq!(
            kernel.state.slots.len(),
            1,
            "the other capacity's slots are removed"
        );
    }
    assert_eq!(kernel.broken, Vec::<String>::new());
    assert_eq!(
        kernel.state.links[&port(0)].link_id,
        1,
        "the link stays the same"
    );
}

#[test]
fn an_upgraded_object_replaces_programs_and_nothing_else() {
    let mut kernel = FakeKernel::new(object());
    let state = state(&[(0, 1, 300)]);
    kernel.converge(&state);
    let plan = diff(&kernel.state, &state, Digest::of(b"newer")).unwrap();
    let kinds: Vec<_> = plan.steps.iter().map(Step::kind).collect();
    assert_eq!(kinds, [StepKind::ReplaceProgram]);
}

#[test]
fn a_link_that_was_removed_behind_our_back_is_put_back() {
    let mut kernel = FakeKernel::new(object());
    let state = state(&[(0, 1, 300)]);
    kernel.converge(&state);
    kernel.state.links.get_mut(&port(0)).unwrap().ifindex = None;
    kernel.converge(&state);
    assert_eq!(enforced(&kernel.state), wanted(&state));
}

#[test]
fn a_foreign_program_stays_and_hinders_no_other_port() {
    let mut kernel = FakeKernel::new(object());
    kernel.foreign.insert(Ifindex(1));
    let state = state(&[(0, 1, 300), (1, 1, 300)]);
    let plan = diff(&kernel.state, &state, object()).unwrap();
    let outcomes = carry_out(&mut kernel, plan, &state.blocks);
    let failed: Vec<_> = outcomes.iter().filter(|o| o.result.is_err()).collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].step.concerns_only(), Some(port(0)));
    assert!(kernel.state.enforced(port(1)).is_some());
}

#[test]
fn a_renamed_interface_is_taken_over() {
    let mut kernel = FakeKernel::new(object());
    kernel.converge(&state(&[(0, 1, 300)]));
    let mut renamed = state(&[(5, 1, 300)]);
    renamed.ports.get_mut(&port(5)).unwrap().ifindex = Ifindex(1);
    kernel.converge(&renamed);
    assert_eq!(enforced(&kernel.state), wanted(&renamed));
}

#[test]
fn the_table_of_flows_is_there_while_any_tables_need_it() {
    let mut kernel = FakeKernel::new(object());
    let without = state(&[(0, 1, 300)]);
    let with = DatapathState {
        flows: true,
        ..state(&[(0, 2, 300)])
    };
    kernel.converge(&without);
    kernel.converge(&with);
    assert!(kernel.state.flows);
    kernel.converge(&without);
    assert!(!kernel.state.flows);
    let kinds: Vec<_> = kernel.log.iter().map(Step::kind).collect();
    let made = kinds
        .iter()
        .position(|k| *k == StepKind::MakeFlows)
        .unwrap();
    assert!(kinds[made..].contains(&StepKind::Flip));
    let removed = kinds
        .iter()
        .rposition(|k| *k == StepKind::RemoveFlows)
        .unwrap();
    let settled = kinds.iter().rposition(|k| *k == StepKind::Settle).unwrap();
    assert!(settled < removed, "no program looks it up any more");
}

#[test]
fn packets_are_sent_on_to_overlays_from_before_the_first_until_after_the_last() {
    let mut kernel = FakeKernel::new(object());
    let without = state(&[(0, 1, 300)]);
    let uplink = Ifindex(2);
    let device = Ifindex(7);
    let with = DatapathState {
        flows: true,
        overlay: [(uplink, "eth0".to_owned()), (device, "vx7".to_owned())].into(),
        ..state(&[(0, 2, 300)])
    };
    let flowing = DatapathState {
        overlay: [(uplink, "eth0".to_owned())].into(),
        ..with.clone()
    };
    kernel.converge(&without);
    kernel.log.clear();
    kernel.converge(&with);
    let kinds: Vec<_> = kernel.log.iter().map(Step::kind).collect();
    let place = |wanted| kinds.iter().position(|kind| *kind == wanted);
    assert!(place(StepKind::MakeFlows) < place(StepKind::AttachOverlay));
    let last = kinds.iter().rposition(|k| *k == StepKind::AttachOverlay);
    assert!(last < place(StepKind::Flip));
    // Flows may lead there still.
    kernel.converge(&flowing);
    assert!(kernel.state.overlay.contains_key(&device));
    // The device goes, with its program.
    kernel
        .state
        .overlay
        .get_mut(&device)
        .expect("there")
        .is_there = false;
    kernel.converge(&flowing);
    assert!(!kernel.state.overlay.contains_key(&device));
    // What was taken off is put back, and what an older release has put there replaced.
    kernel
        .state
        .overlay
        .get_mut(&uplink)
        .expect("there")
        .is_there = false;
    kernel.converge(&flowing);
    assert!(kernel.state.overlay[&uplink].is_there);
    kernel.state.overlay.get_mut(&uplink).expect("there").object = None;
    kernel.converge(&flowing);
    assert_eq!(kernel.state.overlay[&uplink].object, Some(object()));
    kernel.log.clear();
    kernel.converge(&without);
    assert!(kernel.state.overlay.is_empty());
    let kinds: Vec<_> = kernel.log.iter().map(Step::kind).collect();
    let place = |wanted| kinds.iter().position(|kind| *kind == wanted);
    assert!(place(StepKind::Flip) < place(StepKind::DetachOverlay));
    assert!(place(StepKind::DetachOverlay) < place(StepKind::RemoveFlows));
    assert_eq!(kernel.broken, Vec::<String>::new());
}

#[test]
fn replies_are_restored_from_before_the_first_packet_that_needs_it_until_after_the_last() {
    let mut kernel = FakeKernel::new(object());
    let without = state(&[(0, 1, 300)]);
    let mut with = DatapathState {
        flows: true,
        ..state(&[(0, 2, 300)])
    };
    with.ports.values_mut().for_each(|port| port.egress = true);
    kernel.converge(&without);
    kernel.log.clear();
    kernel.converge(&with);
    kernel.state.egress.get_mut(&port(0)).unwrap().ifindex = None;
    kernel.converge(&with);
    kernel.converge(&without);
    assert!(kernel.state.egress.is_empty());
    let kinds: Vec<_> = kernel.log.iter().map(Step::kind).collect();
    let all = |kind| -> Vec<usize> {
        let found = kinds.iter().enumerate().filter(|(_, k)| **k == kind);
        found.map(|(place, _)| place).collect()
    };
    let (flips, attached) = (all(StepKind::Flip), all(StepKind::AttachEgress));
    let detached = all(StepKind::DetachEgress);
    assert!(all(StepKind::MakeFlows)[0] < attached[0] && attached[0] < flips[0]);
    assert_eq!(attached.len(), 2, "what was taken off is put back");
    assert!(flips[1] < detached[0] && detached[0] < all(StepKind::RemoveFlows)[0]);
}

#[test]
fn what_services_lack_holds_up_no_policy() {
    let mut with = DatapathState {
        flows: true,
        overlay: [(Ifindex(1), "eth0".to_owned())].into(),
        ..state(&[(0, 2, 300)])
    };
    with.ports.values_mut().for_each(|port| port.egress = true);
    for (kind, failures) in [
        (StepKind::AttachEgress, 1),
        (StepKind::AttachOverlay, 1),
        // Without the table, programs have nothing to go by.
        (StepKind::MakeFlows, 3),
    ] {
        let mut kernel = FakeKernel::new(object());
        kernel.converge(&state(&[(0, 1, 300)]));
        kernel.fail_next = Some(kind);
        let plan = diff(&kernel.state, &with, object()).unwrap();
        let outcomes = carry_out(&mut kernel, plan, &with.blocks);
        let failed = outcomes.iter().filter(|outcome| outcome.result.is_err());
        assert_eq!(failed.count(), failures, "{outcomes:?}");
        assert_eq!(enforced(&kernel.state), wanted(&with));
        assert_eq!(kernel.broken, Vec::<String>::new());
        // It is tried again.
        kernel.converge(&with);
        assert!(kernel.state.flows && kernel.state.egress.len() == 1);
        assert_eq!(kernel.state.overlay.len(), 1);
    }
}

#[test]
fn replies_are_restored_as_long_as_there_are_flows() {
    let mut kernel = FakeKernel::new(object());
    let with_flows = |egress| {
        let mut state = state(&[(0, 2, 300)]);
        state.flows = true;
        state
            .ports
            .values_mut()
            .for_each(|port| port.egress = egress);
        state
    };
    kernel.converge(&with_flows(true));
    // No backend on the node is left, but connections to one may be.
    kernel.converge(&with_flows(false));
    assert!(kernel.state.egress.contains_key(&port(0)));
    kernel.converge(&state(&[(0, 2, 300)]));
    assert!(kernel.state.egress.is_empty());
}

/// What of the tunnel and of plain routes is done where one step of them fails.
#[test]
fn what_fails_of_the_tunnel_or_of_plain_routes_holds_up_only_its_own() {
    let before = with_native(joined(&[1]), &[2, 3]);
    for (fails, done, held) in [
        (
            StepKind::SetNativeRoutes,
            StepKind::WriteTunnel,
            StepKind::RemoveTunnelRoutes,
        ),
        (
            StepKind::WriteTunnel,
            StepKind::RemoveNativeRoutes,
            StepKind::SetTunnelRoutes,
        ),
    ] {
        let mut kernel = FakeKernel::new(object());
        kernel.converge(&before);
        // A network of each is new, and one of each is gone.
        let mut after = with_native(joined(&[4]), &[2, 5]);
        let block = block(2, 300);
        after.tunnel.as_mut().expect("a tunnel").tables = block.digest();
        after.hold(&block);
        let plan = diff(&kernel.state, &after, object()).expect("a plan");
        kernel.fail_next = Some(fails);
        let outcomes = carry_out(&mut kernel, plan, &after.blocks);
        let kinds: Vec<_> = outcomes.iter().map(|outcome| outcome.step.kind()).collect();
        assert!(kinds.contains(&done), "{fails:?}: {kinds:?}");
        assert!(!kinds.contains(&held), "{fails:?}: {kinds:?}");
        kernel.converge(&after);
    }
}

#[test]
fn what_another_layout_left_goes_when_all_that_is_wanted_stands() {
    let mut kernel = FakeKernel::new(object());
    kernel.state.former_layouts = true;
    let wanted = state(&[(0, 1, 300)]);
    let kinds = |kernel: &FakeKernel, wanted: &DatapathState| -> Vec<StepKind> {
        let plan = diff(&kernel.state, wanted, object()).expect("a plan");
        plan.steps.iter().map(Step::kind).collect()
    };
    let first = kinds(&kernel, &wanted);
    assert!(first.contains(&StepKind::Attach), "{first:?}");
    assert!(!first.contains(&StepKind::ForgetFormerLayouts), "{first:?}");
    let plan = diff(&kernel.state, &wanted, object()).expect("a plan");
    for outcome in carry_out(&mut kernel, plan, &wanted.blocks) {
        outcome.result.expect("carried out");
    }
    assert!(kernel.state.former_layouts);
    kernel.converge(&wanted);
    assert!(!kernel.state.former_layouts);
    kernel.state.former_layouts = true;
    let nothing = DatapathState::default();
    assert!(kinds(&kernel, &nothing).contains(&StepKind::ForgetFormerLayouts));
}

#[test]
fn no_resources_leave_nothing() {
    let mut kernel = FakeKernel::new(object());
    kernel.converge(&state(&[(0, 1, 300), (1, 2, 1 << 20)]));
    kernel.converge(&DatapathState::default());
    assert!(kernel.state.links.is_empty() && kernel.state.slots.is_empty());
}

prop_compose! {
    /// Peers by number, each with its networks; the tables are as good as any.
    fn any_tunnel()(
        port in 1u16..3,
        mac in 0u8..2,
        mtu in prop_oneof![Just(1450u32), Just(1400)],
        content in 0u8..4,
        networks in prop::collection::btree_map(0u8..6, (0u8..3, 0u8..3), 0..5),
        pods in prop::collection::btree_map(0u8..4, 1u32..4, 0..4),
    ) -> (Tunnel, Block) {
        let block = block(content, 300);
        let mut tunnel = Tunnel {
            device: TunnelDevice { port, mtu, mac: MacAddress([2, 0, 0, 0, 0, mac]) },
            tables: block.digest(),
            neighbours: BTreeMap::new(),
            routes: BTreeMap::new(),
            pods: BTreeMap::new(),
        };
        for (pod, ifindex) in pods {
            let mac = MacAddress([2, 0, 0, 0, 1, pod]);
            let local = LocalPod { ifindex: Ifindex(ifindex), mac };
            tunnel.pods.insert([10, 9, 0, pod].into(), local);
        }
        for (network, (peer, mac)) in networks {
            let gateway = IpAddr::from([10, peer, 0, 0]);
            tunnel.neighbours.insert(gateway, MacAddress([2, 0, 0, 0, peer, mac]));
            tunnel.routes.insert(self::network(network), TunnelRoute { gateway, source: None });
        }
        (tunnel, block)
    }
}

fn network(number: u8) -> Prefix {
    Prefix {
        address: [10, number, 0, 0].into(),
        length: 16,
    }
}

prop_compose! {
    /// Of networks that the tunnel may have too, at another time.
    fn any_native()(
        networks in prop::collection::btree_map(0u8..6, (0u8..3, 2u32..4), 0..4),
    ) -> NativeRoutes {
        let route = |(peer, ifindex)| NativeRoute {
            gateway: [192, 0, 2, peer].into(),
            ifindex: Ifindex(ifindex),
            source: None,
        };
        networks.into_iter().map(|(number, way)| (network(number), route(way))).collect()
    }
}

prop_compose! {
    fn any_state()(
        ports in prop::collection::btree_map(0u32..4, (0u8..5, prop_oneof![Just(300usize), Just(200_000), Just(1 << 20)]), 0..4),
        peers in prop::collection::btree_set((0u8..2, 1u16..9), 0..=4),
        generic in any::<bool>(),
        flows in any::<bool>(),
        tunnel in prop::option::of(any_tunnel()),
        native in any_native(),
    ) -> DatapathState {
        let ports: Vec<_> = ports.into_iter().map(|(p, (content, length))| (p, content, length)).collect();
        let mut state = state(&ports);
        if generic {
            for attachment in state.ports.values_mut() {
                attachment.mode = WantedMode::Generic;
            }
        }
        state.flows = flows;
        if let Some((tunnel, block)) = tunnel {
            state.blocks.insert(block.digest(), block);
            state.tunnel = Some(tunnel);
        }
        state.native_routes = native;
        if let Some(tunnel) = &state.tunnel {
            state.native_routes.retain(|network, _| !tunnel.routes.contains_key(network));
        }
        state.failsafe = peers
            .into_iter()
            .map(|(host, port)| peer(host, port))
            .collect();
        state
    }
}

/// A peer of this port; of everything, where that is 8.
fn peer(host: u8, port: u16) -> FailsafePeer {
    let trusted = FailsafePeer::trusted([10, 0, 0, host].into(), 32);
    let port = NonZeroU16::new(port).unwrap();
    match port.get() {
        8 => trusted,
        _ => FailsafePeer {
            passage: Passage::Service { port },
            ..trusted
        },
    }
}

#[test]
fn peers_that_the_kernel_has_no_room_for_are_refused_before_anything_is_done() {
    let mut wanted = state(&[(0, 1, 300)]);
    wanted.failsafe = (1..=5).map(|port| peer(1, port)).collect();
    let refused = diff(&Observed::default(), &wanted, object()).unwrap_err();
    assert!(matches!(refused, DiffError::Failsafe(_)), "{refused}");
}

/// Networks that packets find a route to.
fn routed(observed: &Observed) -> BTreeSet<Prefix> {
    let tunnel = observed.tunnel.routes.keys();
    tunnel
        .chain(observed.native.routes.keys())
        .copied()
        .collect()
}

/// A tunnel that has these networks, or none.
fn joined(networks: &[u8]) -> DatapathState {
    let mut state = state(&[]);
    if networks.is_empty() {
        return state;
    }
    let block = block(1, 300);
    let gateway = IpAddr::from([192, 0, 2, 2]);
    let route = TunnelRoute {
        gateway,
        source: None,
    };
    let routes = networks.iter().map(|number| (network(*number), route));
    state.tunnel = Some(Tunnel {
        device: TunnelDevice {
            port: 8472,
            mtu: 1450,
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
        },
        tables: block.digest(),
        neighbours: [(gateway, MacAddress([2, 0, 0, 0, 0, 2]))].into(),
        pods: BTreeMap::new(),
        routes: routes.collect(),
    });
    state.hold(&block);
    state
}

/// The same with plain routes to these.
fn with_native(mut state: DatapathState, networks: &[u8]) -> DatapathState {
    let route = NativeRoute {
        gateway: [192, 0, 2, 2].into(),
        ifindex: Ifindex(2),
        source: None,
    };
    let routes = networks.iter().map(|number| (network(*number), route));
    state.native_routes = routes.collect();
    state
}

#[test]
fn a_network_that_moves_between_tunnel_and_plain_route_is_never_without_a_route() {
    let states = [
        joined(&[1, 2]),
        with_native(joined(&[1]), &[2]),
        with_native(joined(&[]), &[1, 2]),
        with_native(joined(&[2]), &[1]),
        joined(&[1, 2]),
        with_native(joined(&[]), &[1, 2]),
    ];
    let mut kernel = FakeKernel::new(object());
    for next in &states {
        let before = routed(&kernel.state);
        let plan = diff(&kernel.state, next, object()).unwrap();
        for step in plan.steps {
            kernel.apply(&step, &next.blocks).unwrap();
            assert!(routed(&kernel.state).is_superset(&before), "after {step}");
        }
        assert!(diff(&kernel.state, next, object()).unwrap().is_empty());
        assert_eq!(kernel.state.tunnel.is_absent(), next.tunnel.is_none());
    }
    assert_eq!(kernel.broken, Vec::<String>::new());
}

#[test]
fn peers_without_a_tunnel_need_no_device_and_leave_nothing() {
    let mut kernel = FakeKernel::new(object());
    kernel.converge(&with_native(state(&[]), &[1]));
    assert!(kernel.state.tunnel.is_absent());
    kernel.state.native.routes.clear();
    kernel.converge(&with_native(state(&[]), &[1]));
    assert_eq!(kernel.state.native.routes.len(), 1, "it is put back");
    kernel.converge(&state(&[]));
    assert_eq!(kernel.state.native.routes.len(), 0);
}

/// Carries out the plan to `next` and checks after each step that every port enforces the old
/// tables or the new, and that no two ports disagree on which.
fn step_by_step(kernel: &mut FakeKernel, next: &DatapathState) {
    let (old, new) = (enforced(&kernel.state), wanted(next));
    let plan = diff(&kernel.observe().unwrap(), next, object()).unwrap();
    for step in plan.steps {
        let failed = kernel.apply(&step, &next.blocks).is_err();
        let now = enforced(&kernel.state);
        let both: BTreeSet<_> = old.keys().filter(|p| new.contains_key(p)).collect();
        for p in &both {
            // Between its two halves a change of mode has no program; the fake does both at once.
            assert!(now.contains_key(p), "{p} enforces nothing after {step}");
        }
        let moved = |p: &&&PortIndex| old[p] != new[p] && now[p] == new[p];
        let stayed = |p: &&&PortIndex| old[p] != new[p] && now[p] == old[p];
        let (moved, stayed) = (
            both.iter().filter(moved).count(),
            both.iter().filter(stayed).count(),
        );
        assert!(
            moved == 0 || stayed == 0,
            "torn between revisions after {step}"
        );
        if failed && !step.fails_alone() {
            break;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_state_is_reached_from_any_other(states in prop::collection::vec(any_state(), 1..5)) {
        let mut kernel = FakeKernel::new(object());
        for next in &states {
            step_by_step(&mut kernel, next);
            kernel.converge(next);
            prop_assert_eq!(enforced(&kernel.state), wanted(next));
            prop_assert_eq!(ring_blocks(&kernel.state), wanted_ring_blocks(next));
            prop_assert_eq!(&kernel.state.failsafe, &next.failsafe);
            prop_assert_eq!(kernel.state.tunnel.digest(), next.tunnel.as_ref().map(Tunnel::digest));
            prop_assert_eq!(&kernel.state.native.routes, &next.native_routes);
            prop_assert_eq!(kernel.state.native.digest(), wanted_digest(&next.native_routes));
            let pods = next.tunnel.as_ref().map(|tunnel| tunnel.pods.clone());
            prop_assert_eq!(&kernel.state.tunnel.pods, &pods.unwrap_or_default());
            prop_assert_eq!(kernel.state.revision(), next.revision());
        }
        prop_assert_eq!(&kernel.broken, &Vec::<String>::new());
    }

    #[test]
    fn a_failure_of_any_step_leaves_no_gap_and_the_next_run_converges(
        from in any_state(),
        to in any_state(),
        kind in prop::sample::select(&StepKind::ALL[..]),
    ) {
        let mut kernel = FakeKernel::new(object());
        kernel.converge(&from);
        kernel.fail_next = Some(kind);
        step_by_step(&mut kernel, &to);
        kernel.fail_next = None;
        kernel.converge(&to);
        prop_assert_eq!(enforced(&kernel.state), wanted(&to));
        prop_assert_eq!(&kernel.broken, &Vec::<String>::new());
    }
}
