//! From a frame to its verdict: reasons, the default, and what is never dropped.

mod frames;

use std::net::Ipv6Addr;

use frames::{
    ARP, Extension, ICMPV6, IPV4, Ipv4, Ipv6, MORE_FRAGMENTS, MultiBuffer, TCP, UDP, VLAN,
    ethernet, icmpv6, tcp, udp,
};
use headgate_layout::{
    LAYOUT_VERSION,
    failsafe::{Passage, Peer},
    tables::{Decision, FIXED_LENGTH, Header, NO_RULE},
    verdict::{Action, Reason},
};
use headgate_packet::{
    failsafe::Claim,
    flows::HostFlows,
    frame::Frame,
    judge::{Cause, Environment, Verdict, judge},
    parse::Addresses,
    tables::{HostTables, TableValue, Tables},
};
use zerocopy::{FromZeros, IntoBytes};

/// Tables with one decision for all packets.
struct OneDecision {
    block: Vec<u64>,
    peer: Option<Addresses>,
    /// What the peer may send.
    granted: Peer,
}

impl OneDecision {
    fn new(action: Action, counter: u32) -> Self {
        let header = Header {
            version: LAYOUT_VERSION,
            decisions: FIXED_LENGTH,
            decision_count: 1,
            ..Header::new_zeroed()
        };
        let decision = Decision {
            action: action as u32,
            counter,
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(FIXED_LENGTH as usize, 0);
        bytes.extend(decision.as_bytes());
        let words = bytes.chunks(8).map(|word| word.try_into().unwrap());
        Self {
            block: words.map(u64::from_ne_bytes).collect(),
            peer: None,
            granted: Peer {
                everything: 1,
                ..Peer::default()
            },
        }
    }

    fn drop_all() -> Self {
        Self::new(Action::Drop, NO_RULE)
    }
}

impl<'a> Environment for &'a OneDecision {
    const BALANCES: bool = true;

    type Tables = HostTables<'a>;
    type Flows = HostFlows<'a>;

    fn tables(&self) -> Option<HostTables<'a>> {
        Some(HostTables::new(&self.block))
    }

    fn flows(&self) -> Option<Self::Flows> {
        None
    }

    fn is_failsafe_peer(&self, addresses: &Addresses, claim: Claim) -> bool {
        self.peer == Some(*addresses) && claim.granted_by(&self.granted)
    }
}

fn verdict(environment: &OneDecision, frame: &[u8]) -> Verdict {
    judge(frame, &environment)
}

fn reason(environment: &OneDecision, frame: &[u8]) -> Reason {
    let verdict = verdict(environment, frame);
    match verdict.cause {
        Cause::Reason(reason) => {
            assert_eq!(verdict.action, reason.action());
            reason
        }
        Cause::Rule(rule) => panic!("rule {rule} decided"),
    }
}

#[test]
fn a_rule_or_the_default_decides() {
    let frame = Ipv4::default().frame(&udp(1, 2));
    for (action, default) in [
        (Action::Allow, Reason::DefaultAllow),
        (Action::Drop, Reason::DefaultDrop),
    ] {
        let by_rule = verdict(&OneDecision::new(action, 7), &frame);
        assert_eq!(by_rule.action, action);
        assert_eq!(by_rule.cause, Cause::Rule(7));
        assert_eq!(by_rule.length, 42);
        assert_eq!(reason(&OneDecision::new(action, NO_RULE), &frame), default);
    }
}

#[test]
fn what_cannot_be_judged_has_a_reason_whatever_the_policy() {
    let whole = Ipv4::default().frame(&udp(1, 2));
    let overlap = Ipv4 {
        protocol: TCP,
        fragment: 1,
        ..Ipv4::default()
    };
    let chain = Ipv6 {
        extensions: vec![Extension::Destination(0); 9],
        ..Ipv6::default()
    };
    for (frame, expected) in [
        (ethernet(&[VLAN], ARP, &[0; 28]), Reason::NotIp),
        (whole[..40].to_vec(), Reason::Malformed),
        (ethernet(&[VLAN; 3], IPV4, &[]), Reason::VlanDepth),
        (overlap.frame(&tcp(1, 2, 2)), Reason::TcpFragmentOverlap),
        (chain.frame(&udp(1, 2)), Reason::ExtensionHeaders),
    ] {
        for action in [Action::Allow, Action::Drop] {
            let environment = OneDecision::new(action, 0);
            assert_eq!(reason(&environment, &frame), expected);
            let length = verdict(&environment, &frame).length as usize;
            assert_eq!(length, frame.len(), "all bytes are counted");
        }
    }
}

#[test]
fn headers_beyond_the_first_buffer_are_dropped() {
    let bytes = Ipv4::default().frame(&udp(1, 2));
    let split = MultiBuffer {
        bytes: &bytes,
        first_buffer: 36,
    };
    let verdict = judge(&split, &&OneDecision::new(Action::Allow, 0));
    assert_eq!(verdict.cause, Cause::Reason(Reason::HeaderNotLinear));
    assert_eq!(verdict.action, Action::Drop);
    assert_eq!(verdict.length, split.linear_length());
}

/// No tables at all, or tables that end at once.
struct Broken {
    present: bool,
}

struct Empty;

impl Tables for Empty {
    fn at<T: TableValue>(&self, _: u32) -> Option<&T> {
        None
    }
}

impl Environment for Broken {
    const BALANCES: bool = true;

    type Tables = Empty;
    type Flows = HostFlows<'static>;

    fn tables(&self) -> Option<Empty> {
        self.present.then_some(Empty)
    }

    fn flows(&self) -> Option<Self::Flows> {
        None
    }

    fn is_failsafe_peer(&self, _: &Addresses, _: Claim) -> bool {
        false
    }
}

#[test]
fn without_tables_packets_pass_and_are_counted_as_our_error() {
    let frame = Ipv4::default().frame(&udp(1, 2));
    for present in [false, true] {
        let verdict = judge(&frame[..], &Broken { present });
        assert_eq!(verdict.cause, Cause::Reason(Reason::NoTables));
        assert_eq!(verdict.action, Action::Allow);
    }
}

#[test]
fn dhcp_answers_are_never_dropped() {
    let drop_all = OneDecision::drop_all();
    let answer = Ipv4::default().frame(&udp(67, 68));
    assert_eq!(reason(&drop_all, &answer), Reason::Failsafe);
    for ports in [
        (68, 67),
        (67, 67),
        (67, 69),
        (66, 68),
        (546, 547),
        (547, 546),
    ] {
        let frame = Ipv4::default().frame(&udp(ports.0, ports.1));
        assert_eq!(reason(&drop_all, &frame), Reason::DefaultDrop, "{ports:?}");
    }
    let tcp_answer = Ipv4 {
        protocol: TCP,
        ..Ipv4::default()
    };
    let frame = tcp_answer.frame(&tcp(67, 68, 0x10));
    assert_eq!(reason(&drop_all, &frame), Reason::DefaultDrop);
}

#[test]
fn dhcpv6_answers_come_from_the_link() {
    let drop_all = OneDecision::drop_all();
    let judged = |source: &str, ports: (u16, u16)| {
        let header = Ipv6 {
            source: source.parse().unwrap(),
            ..Ipv6::default()
        };
        reason(&drop_all, &header.frame(&udp(ports.0, ports.1)))
    };
    assert_eq!(judged("fe80::1", (547, 546)), Reason::Failsafe);
    assert_eq!(judged("febf:ffff::1", (547, 546)), Reason::Failsafe);
    assert_eq!(judged("fec0::1", (547, 546)), Reason::DefaultDrop);
    assert_eq!(judged("fe7f::1", (547, 546)), Reason::DefaultDrop);
    assert_eq!(judged("2001:db8::1", (547, 546)), Reason::DefaultDrop);
    assert_eq!(judged("fe80::1", (546, 547)), Reason::DefaultDrop);
    assert_eq!(judged("fe80::1", (67, 68)), Reason::DefaultDrop);
}

#[test]
fn neighbour_discovery_is_known_by_type_and_hop_limit() {
    let drop_all = OneDecision::drop_all();
    for kind in 0..=255 {
        for hop_limit in [0, 1, 64, 254, 255] {
            let header = Ipv6 {
                protocol: ICMPV6,
                hop_limit,
                source: Ipv6Addr::UNSPECIFIED,
                ..Ipv6::default()
            };
            let needed = (133..=137).contains(&kind) && hop_limit == 255;
            let expected = if needed {
                Reason::Failsafe
            } else {
                Reason::DefaultDrop
            };
            let judged = reason(&drop_all, &header.frame(&icmpv6(kind)));
            assert_eq!(judged, expected, "type {kind}, hop limit {hop_limit}");
        }
    }
}

#[test]
fn fragments_are_not_needed_to_live() {
    let drop_all = OneDecision::drop_all();
    let first = Ipv4 {
        fragment: MORE_FRAGMENTS,
        ..Ipv4::default()
    };
    assert_eq!(
        reason(&drop_all, &first.frame(&udp(67, 68))),
        Reason::DefaultDrop
    );
    // RFC 6980 forbids fragments in neighbour discovery.
    let neighbour = Ipv6 {
        protocol: ICMPV6,
        hop_limit: 255,
        extensions: vec![Extension::Fragment {
            offset: 0,
            more: true,
        }],
        ..Ipv6::default()
    };
    assert_eq!(
        reason(&drop_all, &neighbour.frame(&icmpv6(135))),
        Reason::DefaultDrop
    );
}

#[test]
fn a_peer_is_not_dropped_by_a_rule_either() {
    let header = Ipv4::default();
    let mut environment = OneDecision::new(Action::Drop, 3);
    let frame = header.frame(&udp(1, 2));
    assert_eq!(verdict(&environment, &frame).cause, Cause::Rule(3));
    environment.peer = Some(Addresses::V4 {
        source: header.source.to_bits(),
        destination: header.destination.to_bits(),
    });
    assert_eq!(reason(&environment, &frame), Reason::Failsafe);
    let later = Ipv4 {
        protocol: UDP,
        fragment: 100,
        ..header.clone()
    };
    assert_eq!(reason(&environment, &later.frame(&[])), Reason::Failsafe);

    let mut allowed = OneDecision::new(Action::Allow, 3);
    allowed.peer = environment.peer;
    assert_eq!(
        verdict(&allowed, &frame).cause,
        Cause::Rule(3),
        "the failsafe is asked only where the verdict would drop"
    );
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Whether a peer with these passages gets `header` through a drop of everything, over both families.
fn granted(passages: &[Passage], protocol: u8, header: &[u8]) -> bool {
    let mut granted = Peer::default();
    granted.passages[..passages.len()].copy_from_slice(passages);
    let (v4, v6) = (
        Ipv4 {
            protocol,
            ..Ipv4::default()
        },
        Ipv6 {
            protocol,
            ..Ipv6::default()
        },
    );
    let half = |address: Ipv6Addr| {
        let bits = address.to_bits();
        ((bits >> 64) as u64, bits as u64)
    };
    let peers = [
        Addresses::V4 {
            source: v4.source.to_bits(),
            destination: v4.destination.to_bits(),
        },
        Addresses::V6 {
            source: half(v6.source),
            destination: half(v6.destination),
        },
    ];
    let frames = [v4.frame(header), v6.frame(header)];
    let [over_v4, over_v6] = [0, 1].map(|family| {
        let environment = OneDecision {
            peer: Some(peers[family]),
            granted,
            ..OneDecision::drop_all()
        };
        reason(&environment, &frames[family]) == Reason::Failsafe
    });
    assert_eq!(over_v4, over_v6, "one family differs from the other");
    over_v4
}

#[test]
fn replies_of_a_peer_open_nothing_else() {
    let replies = [Passage {
        source_port: 6443,
        first: 32_768,
        last: 60_999,
        padding: 0,
    }];
    let passes =
        |source, destination, flags| granted(&replies, TCP, &tcp(source, destination, flags));
    for (flags, expected) in [
        (SYN | ACK, true),
        (ACK, true),
        (RST, true),
        (RST | ACK, true),
        (SYN, false),
        (0, false),
        (!(ACK | RST), false),
    ] {
        assert_eq!(passes(6443, 40_000, flags), expected, "flags {flags:#x}");
    }
    for (port, expected) in [
        (0, false),
        (22, false),
        (32_767, false),
        (32_768, true),
        (60_999, true),
        (61_000, false),
    ] {
        assert_eq!(passes(6443, port, ACK), expected, "to port {port}");
    }
    // What would be taken for needed to live, were its destination port no port.
    assert!(!passes(1, 0, ACK));
    for port in [0, 443, 6442, 6444, 40_000] {
        assert!(!passes(port, 40_000, ACK), "from port {port}");
    }
    assert!(!granted(&replies, UDP, &udp(6443, 40_000)));
}

#[test]
fn a_service_takes_what_its_peer_sends_to_its_port() {
    let service = [Passage {
        source_port: 0,
        first: 10_250,
        last: 10_250,
        padding: 0,
    }];
    let passes = |destination, flags| granted(&service, TCP, &tcp(40_000, destination, flags));
    for flags in [SYN, ACK, RST, 0] {
        assert!(passes(10_250, flags), "flags {flags:#x}");
        assert!(!passes(10_249, flags) && !passes(10_251, flags));
    }
    assert!(!granted(&service, UDP, &udp(40_000, 10_250)));
    assert!(!granted(&service, ICMPV6, &icmpv6(128)));
}

#[test]
fn an_unused_passage_grants_nothing_and_the_last_one_counts() {
    for flags in [SYN, ACK] {
        assert!(!granted(&[], TCP, &tcp(0, 0, flags)));
        assert!(!granted(&[], TCP, &tcp(6443, 40_000, flags)));
    }
    let mut passages = [Passage::default(); 8];
    passages[7] = Passage {
        source_port: 0,
        first: 10_250,
        last: 10_250,
        padding: 0,
    };
    assert!(granted(&passages, TCP, &tcp(1, 10_250, SYN)));
}

#[test]
fn fragments_from_a_peer_of_a_service_are_dropped() {
    let any_port = Passage {
        source_port: 0,
        first: 0,
        last: u16::MAX,
        padding: 0,
    };
    let mut environment = OneDecision::drop_all();
    environment.granted = Peer::default();
    environment.granted.passages[0] = any_port;
    for (fragment, expected) in [
        (0, Reason::Failsafe),
        (MORE_FRAGMENTS, Reason::DefaultDrop),
        (MORE_FRAGMENTS | 100, Reason::DefaultDrop),
        (100, Reason::DefaultDrop),
    ] {
        let header = Ipv4 {
            protocol: TCP,
            fragment,
            ..Ipv4::default()
        };
        environment.peer = Some(Addresses::V4 {
            source: header.source.to_bits(),
            destination: header.destination.to_bits(),
        });
        let frame = header.frame(&tcp(6443, 40_000, ACK));
        assert_eq!(reason(&environment, &frame), expected, "{fragment:#x}");
    }
}
