//! Packets of flows to backends behind an overlay, told from all others at the ingress.

use headgate_layout::{
    flows::{FLOWS, Flow, Guard, ROW_WORDS, ROWS, Shared, State},
    services::{Backend, LinkAddresses, NAT, Way, mapped},
};
use headgate_packet::{
    flows::{Ends, HostFlows, begin},
    overlay::{Crossing, crossing},
};
use zerocopy::FromZeros as _;

const TCP: u8 = 6;
const ICMP: u8 = 1;
const IPV4: u16 = 0x0800;
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;

const CLIENT: u32 = 0xc633_6407;
const SERVICE: u32 = 0xcb00_710a;
const BACKEND: u32 = 0x0af4_0202;
const LOCAL: u32 = 0x0af4_0101;
const OVERLAY: u32 = 7;

/// A flow to a backend that lies this way, and its port of the node.
struct Table {
    flows: Vec<Flow>,
    index: Vec<Shared<u64>>,
    number: u32,
    port: u16,
}

impl Table {
    fn to(way: Way) -> Self {
        let words = ROWS * ROW_WORDS;
        let mut table = Self {
            flows: (0..FLOWS).map(|_| Flow::new_zeroed()).collect(),
            index: (0..words).map(|_| Shared::new_zeroed()).collect(),
            number: 0,
            port: 0,
        };
        let backend = Backend {
            way,
            address: mapped(BACKEND),
            local: mapped(LOCAL),
            port: 8080,
            forwarding: NAT,
            ..Backend::default()
        };
        let ends = Ends {
            source: mapped(CLIENT),
            destination: mapped(SERVICE),
            source_port: 40_000,
            destination_port: 80,
            protocol: TCP,
        };
        let known = begin(&table.at(1), &ends, &backend, to_client());
        table.number = known.expect("there is room").number();
        table.port = table.flows[table.number as usize].local_port.get();
        table
    }

    fn at(&self, now: u32) -> HostFlows<'_> {
        HostFlows {
            flows: &self.flows,
            index: &self.index,
            now,
        }
    }

    fn crossing(&self, frame: &[u8]) -> Option<Crossing> {
        crossing(frame, IPV4, &self.at(1))
    }

    fn state(&self) -> State {
        Guard(self.flows[self.number as usize].guard.get()).state()
    }
}

fn to_client() -> Way {
    Way {
        ifindex: 2,
        mtu: 1_500,
        reflecting: 0,
        link: LinkAddresses::new([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]),
    }
}

fn ip(protocol: u8, source: u32, destination: u32) -> Vec<u8> {
    let mut header = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 62, protocol, 0, 0];
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header
}

/// Ends as address and port.
fn segment(from: (u32, u16), to: (u32, u16), flags: u8) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(IPV4.to_be_bytes());
    frame.extend(ip(TCP, from.0, to.0));
    frame.extend(from.1.to_be_bytes());
    frame.extend(to.1.to_be_bytes());
    frame.extend([0; 8]);
    frame.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
    frame
}

/// "Port unreachable" that quotes a segment.
fn error(from: u32, to: u32, quoted: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(IPV4.to_be_bytes());
    frame.extend(ip(ICMP, from, to));
    frame.extend([3, 3, 0, 0, 0, 0, 0, 0]);
    frame.extend(&quoted[14..42]);
    frame
}

fn over() -> Way {
    Way::over(OVERLAY, 1_450)
}

fn goes_out(crossing: Option<Crossing>) -> bool {
    matches!(crossing, Some(Crossing::Out(OVERLAY)))
}

#[test]
fn what_xdp_made_for_a_backend_goes_out_by_the_overlay() {
    let table = Table::to(over());
    let (local, backend) = ((LOCAL, table.port), (BACKEND, 8080));
    assert!(goes_out(table.crossing(&segment(local, backend, SYN))));
    assert_eq!(table.state(), State::New, "XDP has followed it");
    // One end that is another's.
    for (from, to) in [
        ((LOCAL, table.port ^ 1), backend),
        ((LOCAL + 1, table.port), backend),
        (local, (BACKEND + 1, 8080)),
        (local, (BACKEND, 8081)),
        ((CLIENT, 40_000), (SERVICE, 80)),
    ] {
        assert!(table.crossing(&segment(from, to, SYN)).is_none());
    }
    // A flow that nobody has any more.
    let late = segment(local, backend, SYN);
    assert!(crossing(&late[..], IPV4, &table.at(10_000)).is_none());
}

#[test]
fn what_is_no_overlays_is_left_to_xdp() {
    let table = Table::to(to_client());
    let frame = segment((LOCAL, table.port), (BACKEND, 8080), SYN);
    assert!(table.crossing(&frame).is_none());
}

#[test]
fn an_answer_becomes_the_clients_and_is_followed() {
    let table = Table::to(over());
    let mut frame = segment((BACKEND, 8080), (LOCAL, table.port), SYN_ACK);
    let Some(Crossing::Back(reply)) = table.crossing(&frame) else {
        panic!("it is no answer");
    };
    let ends = |ends: &Ends| (ends.source, ends.destination);
    assert_eq!(ends(&reply.awaited), (mapped(SERVICE), mapped(CLIENT)));
    assert_eq!(
        (reply.awaited.source_port, reply.awaited.destination_port),
        (80, 40_000)
    );
    assert_eq!((reply.hops, reply.way), (62, to_client()));
    assert_eq!(table.state(), State::Answered);
    frame[22] = 1;
    assert!(matches!(table.crossing(&frame), Some(Crossing::Expired)));
    // A fragment, and one with options.
    frame[22] = 62;
    frame[20] = 0x20;
    assert!(table.crossing(&frame).is_none());
    frame[20] = 0;
    frame[14] = 0x46;
    assert!(table.crossing(&frame).is_none());
}

#[test]
fn errors_cross_with_the_flow_that_they_quote() {
    let table = Table::to(over());
    let asked = segment((LOCAL, table.port), (BACKEND, 8080), SYN);
    let answered = segment((BACKEND, 8080), (LOCAL, table.port), SYN_ACK);
    assert!(goes_out(table.crossing(&error(LOCAL, BACKEND, &answered))));
    let told = table.crossing(&error(BACKEND, LOCAL, &asked));
    assert!(matches!(told, Some(Crossing::Message)));
    // About another's packet, to another than sent it, or from another than this node.
    let others = segment((BACKEND, 8081), (LOCAL, table.port), SYN_ACK);
    for frame in [
        error(LOCAL, BACKEND, &others),
        error(LOCAL, BACKEND + 1, &answered),
        error(LOCAL + 1, BACKEND, &answered),
        error(BACKEND, LOCAL + 1, &asked),
    ] {
        assert!(table.crossing(&frame).is_none());
    }
}
