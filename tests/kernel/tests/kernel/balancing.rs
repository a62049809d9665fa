//! Frames for a service's address leave for its backends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use headgate_compile::node::NextHop;
use headgate_datapath::state::Ifindex;
use headgate_kernel_tests::{
    frames::{Segment, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX, udp4},
    trials::{flood as flood_size, in_kernel_that_balances as in_kernel},
};
use headgate_layout::verdict::{Count, Reason};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::compiled::{ARRIVED, Compiled};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        in_kernel("kernel_and_host_send_each_flow_to_one_backend", flows),
        in_kernel(
            "a_frame_goes_out_of_the_interface_to_its_backend",
            interfaces,
        ),
        in_kernel("only_what_is_served_is_sent_on", others),
        in_kernel("policies_judge_before_the_load_balancer", policies),
        in_kernel("source_ranges_end_flows_by_direct_return", ranges),
        in_kernel("what_cannot_be_sent_on_is_dropped_and_counted", refusals),
        in_kernel("a_backend_without_a_way_drops_and_counts", nowhere),
        in_kernel("a_thousand_services_are_told_apart", thousand),
        in_kernel("a_flood_leaves_nothing_by_direct_return", flood),
    ]
}

const BACKENDS: u8 = 10;
const SYN: u8 = 2;
const ACK: u8 = 0x10;

fn pool() -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "all"},
        "spec": {"cidrs": ["192.0.2.0/24", "2001:db8::/64"]},
    })
}

fn service(name: &str, addresses: &[&str], port: u16, protocol: &str) -> Value {
    let backends: Vec<Value> = backends()
        .map(|address| json!({"address": address}))
        .collect();
    json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "LoadBalancerService",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "addresses": addresses,
            "ports": [{"name": name, "protocol": protocol, "port": port}],
            "backends": {"static": backends},
            "forwarding": "DirectReturn",
            "ringSize": 4093,
        },
    })
}

fn web() -> Value {
    service("web", &["192.0.2.1", "2001:db8::1"], 80, "TCP")
}

/// Backends of both families.
fn backends() -> impl Iterator<Item = IpAddr> {
    (1..=BACKENDS).flat_map(|n| {
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, n.into());
        [Ipv4Addr::new(198, 51, 100, n).into(), v6.into()]
    })
}

/// Each backend behind a MAC address of its own.
fn ways(ifindex: Ifindex) -> BTreeMap<IpAddr, NextHop> {
    let way = |(number, address): (usize, IpAddr)| {
        let hop = NextHop {
            ifindex,
            mtu: 1_500,
            reflects: true,
            destination: [2, 0, 0, 0, 1, number as u8],
            source: [2, 0, 0, 0, 0, 9],
            local: None,
            overlay: false,
        };
        (address, hop)
    };
    backends().enumerate().map(way).collect()
}

/// A segment of the flow with this number.
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

fn flows() {
    let served = Compiled::with_next_hops(&[pool(), web()], ways(ARRIVED));
    let mut shares: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for flow in 0..2_000 {
        let mut places = BTreeSet::new();
        for flags in [SYN, 0x10, 0x11] {
            let mut frame = segment(flow, flags).frame();
            let run = served.node.kernel.run_program(Compiled::port(), &frame, 1);
            let run = run.expect("a test run");
            assert_eq!(run.verdict, XDP_TX);
            assert_eq!(served.rewritten_on_host(&mut frame), Ok(Some(ARRIVED.0)));
            assert_eq!(run.frame, frame, "flow {flow}");
            places.insert(run.frame[..6].to_vec());
        }
        let [place] = places
            .into_iter()
            .collect::<Vec<_>>()
            .try_into()
            .expect("one backend");
        *shares.entry(place).or_default() += 1;
    }
    assert_eq!(shares.len(), 2 * usize::from(BACKENDS), "{shares:?}");
    // A hundred flows each, give or take what chance does.
    assert!(
        shares.values().all(|share| (60..=140).contains(share)),
        "{shares:?}"
    );
    let count = served.counted()["web"];
    assert_eq!(count.packets, 6_000);
}

fn interfaces() {
    let mut ways = ways(ARRIVED);
    for (address, way) in &mut ways {
        if address.is_ipv6() {
            way.ifindex = Ifindex(77);
        }
        // One of a veth pair, by which it came.
        way.reflects = *address != IpAddr::from([198, 51, 100, 1]);
    }
    let served = Compiled::with_next_hops(&[pool(), web()], ways);
    let verdicts = (0..100).map(|flow| served.in_kernel(&segment(flow * 2, SYN).frame()));
    let verdicts: BTreeSet<u32> = verdicts.collect();
    assert_eq!(verdicts, [XDP_TX, XDP_REDIRECT].into());
    assert_eq!(served.in_kernel(&segment(1, SYN).frame()), XDP_REDIRECT);
}

fn others() {
    let dns = service("dns", &["192.0.2.1"], 12345, "UDP");
    let served = Compiled::with_next_hops(&[pool(), web(), dns], ways(ARRIVED));
    assert_eq!(served.in_kernel(&udp4([198, 51, 100, 7].into())), XDP_TX);
    let mut elsewhere = segment(0, SYN);
    elsewhere.ports.1 = 81;
    let mut tagged = segment(0, SYN).frame();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    for frame in [elsewhere.frame(), tagged] {
        let run = served.node.kernel.run_program(Compiled::port(), &frame, 1);
        let run = run.expect("a test run");
        assert_eq!((run.verdict, run.frame), (XDP_PASS, frame));
    }
}

fn policies() {
    let closed = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "XdpPolicy",
        "metadata": {"name": "closed"},
        "spec": {"rules": [{"name": "bad", "action": "Drop", "from": {"cidrs": ["10.0.0.2/32"]}}]},
    });
    let served = Compiled::with_next_hops(&[pool(), web(), closed], ways(ARRIVED));
    assert_eq!(served.in_kernel(&segment(0, SYN).frame()), XDP_TX);
    assert_eq!(served.in_kernel(&segment(2, SYN).frame()), XDP_DROP);
    let counted = served.counted();
    let once = Count {
        packets: 1,
        bytes: 54,
    };
    assert_eq!((counted["bad"], counted["web"]), (once, once));
}

/// `service` for clients in these ranges.
fn only_from(mut service: Value, ranges: &[&str]) -> Value {
    service["spec"]["sourceRanges"] = json!(ranges);
    service
}

fn ranges() {
    let open = json!({
        "apiVersion": "headgate.dev/v1alpha1", "kind": "XdpPolicy",
        "metadata": {"name": "open"},
        "spec": {"rules": [{"name": "all", "action": "Allow"}]},
    });
    let other = only_from(
        service("other", &["192.0.2.2"], 80, "TCP"),
        &["10.0.0.4/32"],
    );
    let objects = |ranges: &[&str]| {
        let web = only_from(web(), ranges);
        [pool(), open.clone(), web, other.clone()]
    };
    let mut served =
        Compiled::with_next_hops(&objects(&["10.0.0.2/32", "fd00::/127"]), ways(ARRIVED));
    // Flows of even numbers come from 10.0.0.0/8, others from fd00::/64.
    let verdicts = |served: &Compiled, flows: [u32; 4]| {
        flows.map(|flow| served.in_kernel(&segment(flow, 0x10).frame()))
    };
    let flows = [2, 4, 1, 3];
    assert_eq!(
        verdicts(&served, flows),
        [XDP_TX, XDP_DROP, XDP_TX, XDP_DROP]
    );
    let counted = served.counted();
    assert_eq!(counted["shop/web/sourceRanges"].packets, 2);
    assert_eq!((counted["web"].packets, counted["all"].packets), (2, 2));
    // Each service by its own ranges, each port that it serves, and nothing else.
    let to = |address: [u8; 4], port: u8, flow: u32| {
        let mut frame = segment(flow, SYN).frame();
        frame[30..34].copy_from_slice(&address);
        frame[37] = port;
        frame
    };
    for (frame, verdict) in [
        (to([192, 0, 2, 2], 80, 2), XDP_DROP),
        (to([192, 0, 2, 2], 80, 4), XDP_TX),
        (to([192, 0, 2, 1], 81, 4), XDP_PASS),
        (to([192, 0, 2, 9], 80, 4), XDP_PASS),
    ] {
        assert_eq!(served.in_kernel(&frame), verdict);
    }
    assert_eq!(served.counted()["shop/other/sourceRanges"].packets, 1);
    served.change(&objects(&["10.0.0.4/32"]), ways(ARRIVED));
    assert_eq!(
        verdicts(&served, flows),
        [XDP_DROP, XDP_TX, XDP_DROP, XDP_DROP]
    );
}

fn refusals() {
    let served = Compiled::with_next_hops(&[pool(), web()], ways(ARRIVED));
    let mut fragment = segment(0, SYN);
    fragment.offset = 64;
    let mut dying = segment(0, SYN).frame();
    dying[22] = 1;
    let mut long = segment(0, SYN).frame();
    long[16..18].copy_from_slice(&1_501_u16.to_be_bytes());
    long.resize(14 + 1_501, 0);
    for (frame, reason) in [
        (fragment.frame(), Reason::ServiceFragment),
        (dying, Reason::TtlExceeded),
        (long, Reason::MtuExceeded),
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
}

fn nowhere() {
    let served = Compiled::with_next_hops(&[pool(), web()], ways(Ifindex(0)));
    let mut frame = segment(0, SYN).frame();
    assert_eq!(served.in_kernel(&frame), XDP_DROP);
    assert_eq!(served.rewritten_on_host(&mut frame), Err(Reason::NoNextHop));
    assert_eq!(served.counted()["NoNextHop"].packets, 1);
}

fn thousand() {
    let mut objects = vec![pool()];
    for number in 0..1_000_u16 {
        let address = format!("2001:db8::{:x}", number + 1);
        objects.push(service(
            &format!("s{number}"),
            &[&address],
            80 + number % 3,
            "TCP",
        ));
    }
    let served = Compiled::with_next_hops(&objects, ways(ARRIVED));
    for number in 0..1_000_u16 {
        for (port, verdict) in [(80 + number % 3, XDP_TX), (90, XDP_PASS)] {
            let mut frame = segment(1, SYN).frame();
            frame[52..54].copy_from_slice(&(number + 1).to_be_bytes());
            frame[56..58].copy_from_slice(&port.to_be_bytes());
            assert_eq!(
                served.in_kernel(&frame),
                verdict,
                "service {number}, port {port}"
            );
        }
        assert_eq!(served.counted()[&format!("s{number}")].packets, 1);
    }
}

fn flood() {
    let served = Compiled::with_next_hops(&[pool(), web()], ways(ARRIVED));
    let kernel = &served.node.kernel;
    let place = |flow: u32, flags: u8| {
        let frame = segment(flow, flags).frame();
        let run = kernel.run_program(Compiled::port(), &frame, 1);
        let run = run.expect("a test run");
        assert_eq!(run.verdict, XDP_TX);
        run.frame[..6].to_vec()
    };
    let before: Vec<_> = (0..200).map(|flow| place(flow, SYN)).collect();
    let memory = served.memory();
    for flow in 0..flood_size() {
        place(1_000 + flow, SYN);
    }
    assert_eq!(served.memory(), memory);
    let after: Vec<_> = (0..200).map(|flow| place(flow, ACK)).collect();
    assert_eq!(after, before);
}
