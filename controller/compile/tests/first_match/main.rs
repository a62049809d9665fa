//! What is compiled decides as a naive first match does, over both families and all fields.
#![allow(clippy::unwrap_used)]

#[path = "../../../../ebpf/packet/tests/frames/mod.rs"]
mod frames;
#[path = "../model/mod.rs"]
mod model;
#[path = "../scene/mod.rs"]
mod scene;

mod frame;
mod packets;
mod policies;
mod services;

use headgate_compile::memory::Memory;
use proptest::{collection::vec, prelude::*};

use model::World;
use packets::{Edges, Seed};
use scene::{Agent, Enforced, NOW, card, node, snapshot_of_model};

const INTERFACES: [&str; 3] = ["eth0", "eth1", "wan0"];

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

/// A node with all interfaces, the world's policies and groups live on it.
fn enforced(world: &World) -> Enforced {
    let cards = INTERFACES
        .iter()
        .zip(2..)
        .map(|(name, index)| card(name, index));
    let mut node = node(cards);
    node.labels = world.node_labels.clone();
    let mut agent = Agent {
        node,
        memory: Memory::default(),
        now: NOW,
    };
    agent.run(&snapshot_of_model(world))
}

proptest! {
    #![proptest_config(config(200))]

    /// Packets by their fields: many of them, at the edges of everything that rules ask for.
    #[test]
    fn packets_meet_their_first_match(
        world in policies::world(),
        seeds in vec(packets::seed(), 300),
    ) {
        let enforced = enforced(&world);
        let edges = Edges::of(&world);
        for seed in &seeds {
            let packet = seed.packet(&edges);
            for interface in INTERFACES {
                prop_assert_eq!(
                    enforced.judge(interface, &packet),
                    world.judge(interface, &packet),
                    "{:?} at {}", packet, interface
                );
            }
        }
    }

    /// The same beside services with source ranges, many of the packets for them.
    #[test]
    fn who_is_outside_of_source_ranges_is_dropped_before_all_rules(
        world in policies::world(),
        services in services::services(),
        seeds in vec((packets::seed(), services::aim()), 300),
    ) {
        let world = World { services, ..world };
        let enforced = enforced(&world);
        let edges = Edges::of(&world);
        for (seed, aim) in &seeds {
            let packet = aim.at_one_of(&world.services, seed.packet(&edges));
            for interface in INTERFACES {
                prop_assert_eq!(
                    enforced.judge(interface, &packet),
                    world.judge(interface, &packet),
                    "{:?} at {}", packet, interface
                );
            }
        }
    }

    /// Whole frames, with all the headers that lie between Ethernet and the fields.
    #[test]
    fn frames_meet_their_first_match(
        world in policies::world(),
        seeds in vec((packets::seed(), frame::shape()), 60),
        peer in packets::seed(),
    ) {
        let enforced = enforced(&world);
        let edges = Edges::of(&world);
        let peer = Seed::packet(&peer, &edges).source;
        for (seed, shape) in &seeds {
            let packet = seed.packet(&edges);
            let bytes = shape.frame(&packet);
            for interface in INTERFACES {
                let outcome = world.judge(interface, &packet);
                frame::check(&enforced, interface, &bytes, &packet, peer, &outcome)?;
            }
        }
    }
}
