//! ICMP messages for the addresses of services, about flows through Nat, and to whose packets cannot go on.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use headgate_compile::node::NextHop;
use headgate_kernel_tests::{
    datagrams::Datagram,
    frames::{XDP_DROP, XDP_PASS, XDP_TX},
    messages::Message,
    trials::in_kernel_that_balances as in_kernel,
};
use headgate_layout::services::ErrorBudget;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::compiled::{ARRIVED, Compiled};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("an_address_served_by_nat_answers_echo", || {
            echo("Nat");
        }),
        in_kernel("an_address_served_by_direct_return_answers_echo", || {
            echo("DirectReturn");
        }),
        in_kernel("errors_reach_the_backend_of_the_quoted_flow", direct_return),
        in_kernel("errors_about_flows_through_nat_reach_both_sides", nat),
        in_kernel("errors_about_nothing_known_go_no_further", unknown),
        in_kernel("errors_are_about_whom_they_are_for_by_nat", || {
            others("Nat");
        }),
        in_kernel(
            "errors_are_about_whom_they_are_for_by_direct_return",
            || {
                others("DirectReturn");
            },
        ),
        in_kernel("who_sends_too_long_or_dying_packets_to_nat_is_told", || {
            told("Nat");
        }),
        in_kernel(
            "who_sends_too_long_or_dying_packets_by_direct_return_is_told",
            || {
                told("DirectReturn");
            },
        ),
        in_kernel("a_service_without_backends_rejects_by_choice", || {
            rejected("Reject");
        }),
        in_kernel("a_service_without_backends_drops_by_default", || {
            rejected("Drop");
        }),
        in_kernel("errors_are_told_at_a_bounded_rate", bounded),
    ]
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const BACKENDS: u8 = 4;

const CLIENT: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7)),
];
const ROUTER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9)),
    IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 9)),
];
const VIRTUAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// Another address of the service.
const OTHER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
];
const LOCAL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 200)),
];

fn backend(family: usize, number: u8) -> IpAddr {
    match family {
        0 => Ipv4Addr::new(198, 51, 100, number).into(),
        _ => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number.into()).into(),
    }
}

fn pool() -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "all"},
        "spec": {"cidrs": ["192.0.2.0/24", "2001:db8::/64"]},
    })
}

fn served(forwarding: &str) -> Compiled {
    let backends: Vec<Value> = (1..=BACKENDS)
        .flat_map(|number| [0, 1].map(|family| json!({"address": backend(family, number)})))
        .collect();
    let service = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "LoadBalancerService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "addresses": ([VIRTUAL, OTHER].concat()),
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}],
            "backends": {"static": backends},
            "forwarding": forwarding,
            "ringSize": 4093,
        },
    });
    Compiled::with_next_hops(&[pool(), service], ways(1_400))
}

fn ways(mtu: u32) -> BTreeMap<IpAddr, NextHop> {
    let way = |number: u8| {
        [0, 1].map(|family| {
            let hop = NextHop {
                ifindex: ARRIVED,
                mtu,
                reflects: true,
                destination: [2, 0, 0, 0, 1, number],
                source: [2, 0, 0, 0, 0, 9],
                local: Some(LOCAL[family]),
                overlay: false,
            };
            (backend(family, number), hop)
        })
    };
    (1..=BACKENDS).flat_map(way).collect()
}

/// A client's packet.
fn asks(family: usize, flow: u16, tcp: Option<u8>) -> Datagram {
    Datagram {
        source: SocketAddr::new(CLIENT[family], 20_000 + flow),
        destination: SocketAddr::new(VIRTUAL[family], if tcp.is_some() { 80 } else { 53 }),
        tcp: tcp.map(|flags| (flags, 1_000, 0)),
        payload: b"a question of some length".to_vec(),
    }
}

/// What kernel and host make of `frame`, which must agree.
fn through(served: &Compiled, frame: &[u8]) -> Vec<u8> {
    let run = served.node.kernel.run_program(Compiled::port(), frame, 1);
    let run = run.expect("a test run");
    assert_eq!(run.verdict, XDP_TX, "{frame:02x?}");
    let mut on_host = frame.to_vec();
    let left = served.rewritten_on_host(&mut on_host).expect("it may pass");
    assert_eq!(left, Some(ARRIVED.0));
    assert_eq!(run.frame, on_host);
    run.frame
}

fn echo(forwarding: &str) {
    let served = served(forwarding);
    for family in [0, 1] {
        let request = Message::echo_request(CLIENT[family], VIRTUAL[family], b"are you there");
        let answer = Message::parse(&through(&served, &request.frame())).expect("a message");
        let awaited = Message::echo_reply(VIRTUAL[family], CLIENT[family], b"are you there");
        assert_eq!(answer, awaited);
        // One of the node's own is the stack's.
        let other = Message::echo_request(CLIENT[family], LOCAL[family], b"and you");
        assert_eq!(served.in_kernel(&other.frame()), XDP_PASS);
    }
    assert_eq!(served.counted()["DefaultAllow"].packets, 4);
}

fn direct_return() {
    let served = served("DirectReturn");
    for (family, flow) in (0..200).map(|n| (n % 2, n as u16)) {
        for tcp in [Some(ACK), None] {
            let asked = asks(family, flow, tcp);
            let sent_to = through(&served, &asked.frame())[..6].to_vec();
            // What the backend has sent to the client is too long for a router on the way.
            let quoted = reversed(&asked);
            let error = Message::too_big(ROUTER[family], VIRTUAL[family], 1_300, &quoted);
            let relayed = through(&served, &error.frame());
            assert_eq!(relayed[..6], sent_to);
            assert_eq!(Message::parse(&relayed).expect("a message"), error);
        }
    }
}

fn reversed(packet: &Datagram) -> Datagram {
    Datagram {
        source: packet.destination,
        destination: packet.source,
        ..packet.clone()
    }
}

fn nat() {
    let served = served("Nat");
    for (family, flow) in (0..200).map(|n| (n % 2, n as u16)) {
        for tcp in [Some(SYN), None] {
            let asked = asks(family, flow, tcp);
            let frame = through(&served, &asked.frame());
            let got = Datagram::parse(&frame).expect("a packet");
            // From beyond the client: for the backend, which knows this node alone.
            let error = Message::too_big(ROUTER[family], VIRTUAL[family], 1_300, &reversed(&asked));
            let relayed = through(&served, &error.frame());
            assert_eq!(relayed[..6], frame[..6]);
            let relayed = Message::parse(&relayed).expect("a message");
            let (node, backend) = (got.source.ip(), got.destination.ip());
            assert!(relayed.is_about(&reversed(&got)), "{relayed:?}");
            assert_eq!((relayed.source, relayed.destination), (node, backend));
            assert_eq!(relayed.rest, error.rest);
            // From beyond the backend: for the client, who knows the service alone.
            let error = Message::unreachable(ROUTER[family], node, &got);
            let relayed = Message::parse(&through(&served, &error.frame())).expect("a message");
            assert!(relayed.is_about(&asked), "{relayed:?}");
            let told = (relayed.source, relayed.destination);
            assert_eq!(told, (VIRTUAL[family], CLIENT[family]));
        }
    }
}

fn unknown() {
    let served = served("Nat");
    for family in [0, 1] {
        let stranger = asks(family, 1, Some(ACK));
        let error = Message::too_big(ROUTER[family], VIRTUAL[family], 1_300, &reversed(&stranger));
        assert_eq!(served.in_kernel(&error.frame()), XDP_DROP);
        // The node's own connections are none of ours.
        let mut own = stranger.clone();
        own.source = SocketAddr::new(LOCAL[family], 20_001);
        let error = Message::unreachable(ROUTER[family], LOCAL[family], &own);
        assert_eq!(served.in_kernel(&error.frame()), XDP_PASS);
    }
    assert_eq!(served.counted()["UnknownFlow"].packets, 2);
}

/// Who may send to one address may not reach another's backends by what is quoted.
fn others(forwarding: &str) {
    let served = served(forwarding);
    for family in [0, 1] {
        let asked = asks(family, 1, Some(SYN));
        let got = through(&served, &asked.frame());
        let elsewhere = Message::too_big(ROUTER[family], OTHER[family], 1_300, &reversed(&asked));
        assert_eq!(served.in_kernel(&elsewhere.frame()), XDP_DROP);
        if forwarding == "Nat" {
            let got = Datagram::parse(&got).expect("a packet");
            let transit = Message::unreachable(ROUTER[family], ROUTER[family], &got);
            assert_eq!(served.in_kernel(&transit.frame()), XDP_PASS);
        }
    }
    assert_eq!(served.counted()["UnknownFlow"].packets, 2);
}

fn told(forwarding: &str) {
    let served = served(forwarding);
    for family in [0, 1] {
        for tcp in [Some(ACK), None] {
            let mut long = asks(family, 1, tcp);
            long.payload = (0..1_400_u32).map(|n| n as u8).collect();
            let error = error_for(&served, &long.frame());
            assert_eq!(error.mtu(), Some(1_400));
            assert!(error.is_about(&long), "{error:?}");
            let ends = (error.source, error.destination);
            assert_eq!(ends, (VIRTUAL[family], CLIENT[family]));
            let mut dying = asks(family, 1, tcp);
            dying.payload.truncate(5);
            let mut frame = dying.frame();
            expire(&mut frame, family);
            let error = error_for(&served, &frame);
            assert!(error.is_time_exceeded(), "{error:?}");
            assert!(error.is_about(&dying), "{error:?}");
        }
    }
    let counted = served.counted();
    assert_eq!(counted["MtuExceeded"].packets, 4);
    assert_eq!(counted["TtlExceeded"].packets, 4);
}

fn rejected(choice: &str) {
    let nobody = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "LoadBalancerService",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "addresses": VIRTUAL,
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 53}],
            "backends": {"serviceRef": {"name": "nobody"}},
            "withoutBackends": choice,
        },
    });
    let served = Compiled::new(&[pool(), nobody]);
    for family in [0, 1] {
        for tcp in [Some(SYN), None] {
            let asked = asks(family, 1, tcp);
            if choice == "Drop" {
                assert_eq!(served.in_kernel(&asked.frame()), XDP_DROP);
                continue;
            }
            let error = error_for(&served, &asked.frame());
            assert_eq!(error.kind, [(3, 3), (1, 4)][family]);
            assert!(error.is_about(&asked), "{error:?}");
        }
    }
    assert_eq!(served.counted()["NoBackend"].packets, 4);
}

/// Lets a frame live no longer than to here.
fn expire(frame: &mut [u8], family: usize) {
    match family {
        0 => {
            let (lived, checksum) = (frame[22], u16::from_be_bytes([frame[24], frame[25]]));
            frame[22] = 1;
            let sum = u32::from(checksum) + u32::from(lived - 1) * 0x100;
            let sum = (sum & 0xffff) + (sum >> 16);
            frame[24..26].copy_from_slice(&(sum as u16).to_be_bytes());
        }
        _ => frame[21] = 1,
    }
}

/// What the sender of `frame` is told, by kernel and host alike.
fn error_for(served: &Compiled, frame: &[u8]) -> Message {
    let run = served.node.kernel.run_program(Compiled::port(), frame, 1);
    let run = run.expect("a test run");
    assert_eq!(run.verdict, XDP_TX);
    assert_eq!(run.frame, served.told_by_host(frame));
    assert_eq!(run.frame[..6], frame[6..12]);
    Message::parse(&run.frame).expect("a message with right checksums")
}

fn bounded() {
    const SENT: u64 = 5_000;
    let served = served("DirectReturn");
    let mut frame = asks(0, 1, None).frame();
    expire(&mut frame, 0);
    let started = std::time::Instant::now();
    let told = (0..SENT).filter(|_| served.in_kernel(&frame) == XDP_TX);
    let told = told.count() as u64;
    let milliseconds = started.elapsed().as_millis() as u64;
    let allowed = |cpus| cpus * (ErrorBudget::BURST / ErrorBudget::INTERVAL + milliseconds + 20);
    println!("{told} of {SENT} were told in {milliseconds} ms");
    // Test runs may move from one processor to another.
    let cpus = std::thread::available_parallelism().expect("read").get();
    assert!((1..=allowed(cpus as u64)).contains(&told), "{told}");
    assert_eq!(served.counted()["TtlExceeded"].packets, SENT);
}
