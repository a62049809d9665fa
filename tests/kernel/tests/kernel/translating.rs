//! Frames for a Nat service leave for a backend, and replies come back to the client.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use headgate_compile::node::NextHop;
use headgate_datapath::state::Ifindex;
use headgate_kernel_tests::{
    datagrams::Datagram,
    frames::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX},
    trials::{flood as flood_size, in_kernel_that_balances as in_kernel},
};
use headgate_layout::{flows::State, verdict::Reason};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::compiled::{ARRIVED, Compiled};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("kernel_and_host_translate_both_ways", both_ways),
        in_kernel("a_flow_stays_with_its_backend_when_the_ring_changes", stays),
        in_kernel("datagrams_follow_the_ring", follows),
        in_kernel("policies_judge_the_first_packet_of_a_flow", policies),
        in_kernel("source_ranges_refuse_new_flows_through_nat", ranges),
        in_kernel("what_is_no_reply_goes_to_the_stack", no_replies),
        in_kernel("a_port_that_is_used_again_is_judged_again", again),
        in_kernel("a_flood_takes_no_flow_that_is_confirmed", flood),
        in_kernel("what_nat_cannot_change_is_dropped_and_counted", refusals),
    ]
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;
const BACKENDS: u8 = 10;

fn pool() -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "all"},
        "spec": {"cidrs": ["192.0.2.0/24", "2001:db8::/64"]},
    })
}

fn service(backends: std::ops::RangeInclusive<u8>) -> Value {
    let backends: Vec<Value> = backends
        .flat_map(addresses)
        .map(|address| json!({"address": address}))
        .collect();
    json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "LoadBalancerService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "addresses": ["192.0.2.1", "2001:db8::1"],
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "dns", "protocol": "UDP", "port": 53},
            ],
            "backends": {"static": backends},
            "ringSize": 4093,
        },
    })
}

fn addresses(number: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number.into());
    [Ipv4Addr::new(198, 51, 100, number).into(), v6.into()]
}

const LOCAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 200)),
];

const VIRTUAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

fn ways() -> BTreeMap<IpAddr, NextHop> {
    let way = |number: u8| {
        addresses(number).map(|address| {
            let hop = NextHop {
                ifindex: ARRIVED,
                mtu: 1_500,
                reflects: true,
                destination: [2, 0, 0, 0, 1, number],
                source: [2, 0, 0, 0, 0, 9],
                local: Some(LOCAL[usize::from(address.is_ipv6())]),
                overlay: false,
            };
            (address, hop)
        })
    };
    (1..=BACKENDS).flat_map(way).collect()
}

fn served(objects: &[Value]) -> Compiled {
    Compiled::with_next_hops(objects, ways())
}

/// A client's packet of the flow with this number: TCP to port 80, or UDP to port 53.
fn asks(flow: u32, flags: Option<u8>) -> Datagram {
    let family = (flow % 2) as usize;
    let client: IpAddr = match family {
        0 => Ipv4Addr::from_bits(0x0a00_0000 | flow).into(),
        _ => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, (flow >> 16) as u16, flow as u16).into(),
    };
    let port = if flags.is_some() { 80 } else { 53 };
    Datagram {
        source: SocketAddr::new(client, 1_024 + (flow % 60_000) as u16),
        destination: SocketAddr::new(VIRTUAL[family], port),
        tcp: flags.map(|flags| (flags, 1_000, 0)),
        payload: b"question".to_vec(),
    }
}

/// The answer to a packet that a backend got.
fn answer(got: &Datagram, flags: Option<u8>) -> Datagram {
    Datagram {
        source: got.destination,
        destination: got.source,
        tcp: flags.map(|flags| (flags, 5_000, 1_001)),
        payload: b"answer".to_vec(),
    }
}

/// Sends `packet` through kernel and host, which must agree, and reads what left.
fn through(served: &Compiled, packet: &Datagram) -> Datagram {
    let mut frame = packet.frame();
    let run = served.node.kernel.run_program(Compiled::port(), &frame, 1);
    let run = run.expect("a test run");
    assert!([XDP_TX, XDP_REDIRECT].contains(&run.verdict), "{run:?}");
    let left = served.rewritten_on_host(&mut frame).expect("it may pass");
    assert_eq!(left, Some(ARRIVED.0));
    assert_eq!(run.frame, frame, "{packet:?}");
    Datagram::parse(&run.frame).expect("a packet with right checksums")
}

fn both_ways() {
    let served = served(&[pool(), service(1..=BACKENDS)]);
    let mut used = BTreeSet::new();
    for flow in 0..500 {
        for (flags, reply) in [(Some(SYN), Some(SYN | ACK)), (None, None)] {
            let asked = asks(flow, flags);
            let got = through(&served, &asked);
            let family = usize::from(asked.source.is_ipv6());
            assert_eq!(got.source.ip(), LOCAL[family]);
            assert_eq!(got.payload, asked.payload);
            let port = if flags.is_some() { 8080 } else { 53 };
            assert_eq!(got.destination.port(), port);
            assert!((1..=BACKENDS).any(|n| addresses(n).contains(&got.destination.ip())));
            used.insert(got.destination);
            let back = through(&served, &answer(&got, reply));
            assert_eq!(
                (back.source, back.destination),
                (asked.destination, asked.source)
            );
            assert_eq!(back.payload, b"answer");
            assert_eq!(through(&served, &asked), got, "the same flow");
        }
    }
    assert_eq!(used.len(), 4 * usize::from(BACKENDS));
    let counted = served.counted();
    assert_eq!(
        (counted["http"].packets, counted["dns"].packets),
        (1_000, 1_000)
    );
    assert_eq!(counted["KnownFlow"].packets, 2_000);
    assert_eq!(served.node.kernel.flows().expect("read").len(), 1_000);
}

/// Opens a connection, as the client's packets show it.
fn connect(served: &Compiled, flow: u32) -> Datagram {
    let got = through(served, &asks(flow, Some(SYN)));
    through(served, &answer(&got, Some(SYN | ACK)));
    let mut confirming = asks(flow, Some(ACK));
    confirming.tcp = Some((ACK, 1_001, 5_001));
    assert_eq!(through(served, &confirming).destination, got.destination);
    got
}

fn stays() {
    let mut served = served(&[pool(), service(1..=BACKENDS)]);
    let before: Vec<_> = (0..200)
        .map(|flow| connect(&served, flow).destination)
        .collect();
    served.change(&[pool(), service(1..=2)], ways());
    for (flow, backend) in (0..200).zip(before) {
        let got = through(&served, &asks(flow, Some(ACK)));
        assert_eq!(got.destination, backend, "flow {flow}");
    }
    for flow in 1_000..1_200 {
        let got = through(&served, &asks(flow, Some(SYN)));
        assert!((1..=2).any(|n| addresses(n).contains(&got.destination.ip())));
    }
}

fn follows() {
    let mut served = served(&[pool(), service(1..=BACKENDS)]);
    for flow in 0..100 {
        through(&served, &asks(flow, None));
    }
    served.change(&[pool(), service(1..=2)], ways());
    for flow in 0..100 {
        let got = through(&served, &asks(flow, None));
        assert!((1..=2).any(|n| addresses(n).contains(&got.destination.ip())));
    }
}

fn policies() {
    let closed = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "XdpPolicy",
        "metadata": {"name": "closed"},
        "spec": {"defaultAction": "Drop", "rules": [{
            "name": "new", "action": "Allow",
            "from": {"cidrs": ["10.0.0.2/32"]},
            "protocols": [{"tcp": {"flags": {"set": ["Syn"], "unset": ["Ack"]}}}],
        }]},
    });
    let served = served(&[pool(), service(1..=BACKENDS), closed]);
    assert_eq!(served.in_kernel(&asks(4, Some(SYN)).frame()), XDP_DROP);
    assert_eq!(served.in_kernel(&asks(2, Some(ACK)).frame()), XDP_DROP);
    // No rule lets replies in, nor what follows a SYN.
    connect(&served, 2);
    let counted = served.counted();
    assert_eq!(counted["new"].packets, 1);
    assert_eq!(counted["DefaultDrop"].packets, 2);
    assert_eq!(counted["KnownFlow"].packets, 2);
}

fn ranges() {
    let from = |ranges: &[&str]| {
        let mut service = service(1..=BACKENDS);
        service["spec"]["sourceRanges"] = json!(ranges);
        [pool(), service]
    };
    let mut served = served(&from(&["10.0.0.2/32", "fd00::1/128"]));
    let drops = |served: &Compiled, flow: u32, flags| {
        served.in_kernel(&asks(flow, flags).frame()) == XDP_DROP
    };
    for flow in [4, 3] {
        assert!(drops(&served, flow, Some(SYN)) && drops(&served, flow, None));
    }
    assert!(served.node.kernel.flows().expect("read").is_empty());
    let connected = [2, 1].map(|flow| connect(&served, flow).destination);
    assert_eq!(served.counted()["shop/web/sourceRanges"].packets, 4);
    // Who is connected stays, and gets no other connection.
    served.change(&from(&["192.0.2.0/24"]), ways());
    for (flow, backend) in [2, 1].into_iter().zip(connected) {
        let got = through(&served, &asks(flow, Some(ACK)));
        assert_eq!(got.destination, backend);
        through(&served, &answer(&got, Some(ACK)));
        let mut another = asks(flow, Some(SYN));
        another.source.set_port(999);
        assert_eq!(served.in_kernel(&another.frame()), XDP_DROP);
        assert!(drops(&served, flow, None));
    }
}

fn no_replies() {
    let served = served(&[pool(), service(1..=BACKENDS)]);
    let got = connect(&served, 0);
    let reply = answer(&got, Some(ACK));
    let mut others = vec![reply.clone(); 4];
    others[0].source.set_port(8081);
    others[1].source.set_ip([198, 51, 100, 99].into());
    others[2].destination.set_ip([198, 51, 100, 201].into());
    others[3].tcp = None;
    for other in others {
        assert_eq!(served.in_kernel(&other.frame()), XDP_PASS, "{other:?}");
    }
    let mut tagged = reply.frame();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    assert_eq!(served.in_kernel(&tagged), XDP_PASS);
    through(&served, &reply);
    // A reset of a flow that nobody knows has nobody to go to.
    assert_eq!(served.in_kernel(&asks(2, Some(RST)).frame()), XDP_DROP);
    assert_eq!(served.counted()["UnknownFlow"].packets, 1);
}

/// What ends is judged anew when it begins again.
fn again() {
    let mut served = served(&[pool(), service(1..=BACKENDS)]);
    let before = connect(&served, 2);
    served.change(
        &[pool(), service(1..=BACKENDS), dropping("10.0.0.2/32")],
        ways(),
    );
    let mut goes_on = asks(2, Some(ACK));
    goes_on.tcp = Some((ACK | FIN, 1_001, 5_001));
    assert_eq!(
        through_kernel(&served, &goes_on),
        Some(before_as(&before, &goes_on))
    );
    assert_eq!(served.in_kernel(&asks(2, Some(SYN)).frame()), XDP_DROP);
    through(&served, &asks(4, Some(SYN)));
}

fn dropping(cidr: &str) -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "XdpPolicy",
        "metadata": {"name": "closed"},
        "spec": {"rules": [{"name": "bad", "action": "Drop", "from": {"cidrs": [cidr]}}]},
    })
}

/// `packet` as the backend sees it that got `before`.
fn before_as(before: &Datagram, packet: &Datagram) -> Datagram {
    Datagram {
        source: before.source,
        destination: before.destination,
        ..packet.clone()
    }
}

fn flood() {
    let served = served(&[pool(), service(1..=BACKENDS)]);
    let held: Vec<_> = (0..200).map(|flow| connect(&served, flow)).collect();
    let kernel = &served.node.kernel;
    let memory = served.memory();
    let mut dropped = 0;
    // More than there are records.
    let size = flood_size();
    for flow in 0..size {
        let frame = asks(1_000 + flow * 2, Some(SYN)).frame();
        let run = kernel.run_program(Compiled::port(), &frame, 1);
        dropped += u32::from(run.expect("a test run").verdict == XDP_DROP);
    }
    println!("{dropped} of {size} SYNs found no room");
    // Every map has all its memory from the begin; the program has no other.
    assert_eq!(served.memory(), memory);
    let flows = kernel.flows().expect("read");
    let established = flows.iter().filter(|flow| flow.state == State::Established);
    assert_eq!(established.count(), held.len());
    for (flow, before) in (0..).zip(&held) {
        let frame = asks(flow, Some(ACK)).frame();
        let run = kernel.run_program(Compiled::port(), &frame, 1);
        let got = Datagram::parse(&run.expect("a test run").frame).expect("a packet");
        assert_eq!(
            (got.source, got.destination),
            (before.source, before.destination)
        );
    }
    // Of those that wait, the longest silent make room.
    let newest = through_kernel(&served, &asks(999_999, Some(SYN)));
    assert!(newest.is_some());
}

fn through_kernel(served: &Compiled, packet: &Datagram) -> Option<Datagram> {
    let run = served
        .node
        .kernel
        .run_program(Compiled::port(), &packet.frame(), 1);
    Datagram::parse(&run.expect("a test run").frame)
}

fn refusals() {
    let mut served = served(&[pool(), service(1..=BACKENDS)]);
    let mut with_options = asks(0, Some(SYN)).frame();
    with_options[14] = 0x46;
    with_options[16..18].copy_from_slice(&52_u16.to_be_bytes());
    with_options.splice(34..34, [1, 1, 1, 1]);
    let mut dying = asks(0, Some(SYN)).frame();
    dying[22] = 1;
    for (frame, reason) in [
        (with_options, Reason::HeaderOptions),
        (dying, Reason::TtlExceeded),
    ] {
        // Whose packet was too long, or lived too long, is told so.
        let verdict = match reason {
            Reason::MtuExceeded | Reason::TtlExceeded => XDP_TX,
            _ => XDP_DROP,
        };
        assert_eq!(served.in_kernel(&frame), verdict, "{reason:?}");
        assert_eq!(served.rewritten_on_host(&mut frame.clone()), Err(reason));
        assert_eq!(served.counted()[reason.name()].packets, 1);
    }
    let mut nowhere = ways();
    for way in nowhere.values_mut() {
        way.ifindex = Ifindex(0);
    }
    served.change(&[pool(), service(1..=BACKENDS)], nowhere);
    assert_eq!(served.in_kernel(&asks(0, Some(SYN)).frame()), XDP_DROP);
    assert_eq!(served.counted()["NoNextHop"].packets, 1);
}
