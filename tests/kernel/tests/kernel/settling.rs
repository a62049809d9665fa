//! Connections by DirectReturn stay where they are while backends change.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use headgate_compile::{node::NextHop, services::place_of};
use headgate_crds::ServiceProtocol;
use headgate_kernel_tests::{
    frames::{Segment, XDP_DROP, XDP_TX, udp4},
    trials::in_kernel_that_balances as in_kernel,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::compiled::{ARRIVED, Compiled};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("connections_stay_over_one_change_after_another", stay),
        in_kernel("datagrams_go_with_the_new_ring_at_once", datagrams),
        in_kernel("a_flood_while_a_service_settles_moves_nobody", flood),
        in_kernel("a_forged_syn_moves_no_connection_that_was_seen", forged),
        in_kernel("what_policies_drop_takes_no_place", dropped),
    ]
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RING: u32 = 4_093;

/// Backends by number, with their weights.
type Backends = Vec<(u8, u16)>;

fn objects(backends: &Backends, protocol: &str) -> [Value; 2] {
    let listed = backends.iter().flat_map(|(number, weight)| {
        addresses(*number).map(|address| json!({"address": address, "weight": weight}))
    });
    let listed: Vec<Value> = listed.collect();
    let pool = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "all"},
        "spec": {"cidrs": ["192.0.2.0/24", "2001:db8::/64"]},
    });
    let service = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "LoadBalancerService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "addresses": ["192.0.2.1", "2001:db8::1"],
            "ports": [{"name": "web", "protocol": protocol, "port": 80}],
            "backends": {"static": listed},
            "forwarding": "DirectReturn",
            "ringSize": RING,
        },
    });
    [pool, service]
}

fn addresses(number: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number.into());
    [Ipv4Addr::new(198, 51, 100, number).into(), v6.into()]
}

/// Each backend behind a MAC address of its own, which ends with its number.
fn ways() -> BTreeMap<IpAddr, NextHop> {
    let way = |number: u8| {
        addresses(number).map(|address| {
            let hop = NextHop {
                ifindex: ARRIVED,
                mtu: 1_500,
                reflects: true,
                destination: [2, 0, 0, 0, 1, number],
                source: [2, 0, 0, 0, 0, 9],
                local: None,
                overlay: false,
            };
            (address, hop)
        })
    };
    (1..=20).flat_map(way).collect()
}

struct Lab {
    served: Compiled,
    backends: Backends,
}

impl Lab {
    fn new(backends: Backends) -> Self {
        Self {
            served: Compiled::with_next_hops(&objects(&backends, "TCP"), ways()),
            backends,
        }
    }

    fn change(&mut self, backends: Backends) {
        self.served.change(&objects(&backends, "TCP"), ways());
        self.backends = backends;
    }

    /// The backend that a segment leaves for, in the kernel and on the host alike.
    fn sends(&self, flow: u32, flags: u8) -> u8 {
        let mut frame = segment(flow, flags).frame();
        let number = self.sends_in_kernel(&frame);
        let left = self.served.rewritten_on_host(&mut frame);
        assert_eq!(left, Ok(Some(ARRIVED.0)));
        assert_eq!(frame[5], number, "flow {flow}");
        number
    }

    fn sends_in_kernel(&self, frame: &[u8]) -> u8 {
        let kernel = &self.served.node.kernel;
        let run = kernel.run_program(Compiled::port(), frame, 1);
        let run = run.expect("a test run");
        assert_eq!(run.verdict, XDP_TX);
        run.frame[5]
    }

    fn connects(&self, flow: u32) -> u8 {
        let number = self.sends(flow, SYN);
        assert_eq!(self.sends(flow, ACK), number);
        number
    }

    /// Where the ring of the present backends has a flow.
    fn ring_has(&self, flow: u32) -> u8 {
        let segment = segment(flow, SYN);
        let family = usize::from(segment.source.is_ipv6());
        let service = [
            IpAddr::from([192, 0, 2, 1]),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ][family];
        let weighted = self.backends.iter().filter(|(_, weight)| *weight > 0);
        let weighted: Vec<_> = weighted
            .map(|(number, weight)| (addresses(*number)[family], *weight))
            .collect();
        let (_, place) = place_of(
            SocketAddr::new(segment.source, segment.ports.0),
            SocketAddr::new(service, 80),
            ServiceProtocol::Tcp,
            &weighted,
            RING,
        );
        let numbers = self.backends.iter().filter(|(_, weight)| *weight > 0);
        numbers.map(|(number, _)| *number).nth(place).expect("one")
    }
}

fn segment(flow: u32, flags: u8) -> Segment {
    let source = match flow % 2 {
        0 => IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | flow)),
        _ => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, (flow >> 16) as u16, flow as u16).into(),
    };
    Segment {
        source,
        ports: (1_024 + (flow % 60_000) as u16, 80),
        flags,
        offset: 0,
    }
}

fn equal(numbers: impl IntoIterator<Item = u8>) -> Backends {
    numbers.into_iter().map(|number| (number, 1)).collect()
}

/// A backend comes, one is drained, one goes, and the first change is taken back.
fn stay() {
    let mut lab = Lab::new(equal(1..=9));
    let mut held: BTreeMap<u32, u8> = BTreeMap::new();
    let mut moved = 0;
    let changes = [
        equal(1..=9),
        equal(1..=10),
        [equal(1..=9), vec![(10, 0)]].concat(),
        equal((1..=10).filter(|number| *number != 5)),
        equal((1..=9).filter(|number| *number != 5)),
        equal(1..=3),
    ];
    for (era, backends) in (0_u32..).zip(changes) {
        lab.change(backends);
        // What was at backends that are gone is lost; all others stay.
        held.retain(|_, number| lab.backends.iter().any(|(living, _)| living == number));
        for (flow, number) in &held {
            assert_eq!(lab.sends(*flow, ACK), *number, "flow {flow} in era {era}");
            moved += u32::from(lab.ring_has(*flow) != *number);
        }
        for flow in era * 1_000..era * 1_000 + 400 {
            let number = lab.connects(flow);
            assert_eq!(number, lab.ring_has(flow), "flow {flow} in era {era}");
            held.insert(flow, number);
        }
    }
    assert!(moved > 100, "the ring would have moved but {moved}");
    assert!(held.len() > 600, "{}", held.len());
    // A port that is used again after its connection has ended begins anew.
    let flow = 5_000;
    lab.sends(flow, ACK | FIN);
    assert_eq!(lab.connects(flow), lab.ring_has(flow));
}

fn datagrams() {
    let by_udp = |numbers| objects(&equal(numbers), "UDP");
    let mut served = Compiled::with_next_hops(&by_udp(1..=6), ways());
    let sent = |served: &Compiled| -> Vec<u8> {
        let sent = (0..100).map(|host| {
            let mut frame = udp4([198, 51, 100, host].into());
            frame[36..38].copy_from_slice(&80_u16.to_be_bytes());
            let run = served.node.kernel.run_program(Compiled::port(), &frame, 1);
            assert_eq!(served.rewritten_on_host(&mut frame), Ok(Some(ARRIVED.0)));
            assert_eq!(run.expect("a test run").frame, frame);
            frame[5]
        });
        sent.collect()
    };
    let before = sent(&served);
    served.change(&by_udp(1..=3), ways());
    assert!(sent(&served).iter().all(|number| *number <= 3));
    served.change(&by_udp(1..=6), ways());
    assert_eq!(sent(&served), before);
}

fn flood() {
    let mut lab = Lab::new(equal([1]));
    let before: Vec<u8> = (0..200).map(|flow| lab.connects(flow)).collect();
    lab.change(equal(1..=20));
    let since: Vec<u8> = (1_000..1_200).map(|flow| lab.connects(flow)).collect();
    assert!(since.iter().any(|number| *number != 1), "{since:?}");
    let mut full = 0;
    // Four times what there is room for.
    for flow in 10_000..270_000 {
        full += u32::from(lab.sends_in_kernel(&segment(flow, SYN).frame()) == 1);
    }
    println!("{full} of 260,000 went where they went before");
    assert!(full > 100_000, "{full}");
    for (flow, number) in (0..).zip(before).chain((1_000..).zip(since)) {
        let frame = segment(flow, ACK).frame();
        assert_eq!(lab.sends_in_kernel(&frame), number, "flow {flow}");
    }
    // Who comes now finds no room, and is served all the same.
    for flow in 2_000..2_200 {
        let first = lab.sends_in_kernel(&segment(flow, SYN).frame());
        let then = lab.sends_in_kernel(&segment(flow, ACK).frame());
        assert_eq!(first, then, "flow {flow}");
    }
}

fn forged() {
    let mut lab = Lab::new(equal([1]));
    for flow in 0..200 {
        assert_eq!(lab.connects(flow), 1);
    }
    lab.change(equal(1..=20));
    for flags in [ACK, SYN, ACK] {
        for flow in 0..200 {
            assert_eq!(lab.sends(flow, flags), 1, "flow {flow}");
        }
    }
}

fn dropped() {
    let mut lab = Lab::new(equal([1]));
    let closed = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "XdpPolicy",
        "metadata": {"name": "closed"},
        "spec": {"defaultAction": "Drop"},
    });
    let [pool, service] = objects(&equal(1..=20), "TCP");
    lab.served.change(&[pool, service, closed], ways());
    for flow in 0..200 {
        let frame = segment(flow, SYN).frame();
        assert_eq!(lab.served.in_kernel(&frame), XDP_DROP);
    }
    lab.change(equal(1..=20));
    for flow in 0..200 {
        assert_eq!(lab.sends(flow, ACK), 1, "flow {flow} has no place");
    }
}
