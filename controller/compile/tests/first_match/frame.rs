//! Whole frames around a packet's fields, and their verdict.

use std::net::IpAddr;

use headgate_layout::verdict::{Action, Reason};
use headgate_packet::{
    failsafe::Claim,
    flows::HostFlows,
    judge::{Cause, Environment, judge},
    parse::Addresses,
    tables::HostTables,
};
use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestCaseError};

use crate::{
    frames::{
        self, Extension, IPV4, IPV6, Ipv4, Ipv6, MORE_FRAGMENTS, QINQ, SERVICE_VLAN, VLAN, ethernet,
    },
    model::{Fields, Outcome, Piece},
    scene::{Enforced, packet_of},
};

/// What lies around the fields and does not count.
#[derive(Clone, Debug)]
pub struct Shape {
    tags: Vec<u16>,
    option_words: u8,
    /// IPv6 extension headers before a fragment header, and behind it.
    before: Vec<Extension>,
    behind: Vec<Extension>,
    /// Where a later fragment lies, in units of 8 bytes; an IPv4 one of TCP never at 1.
    offset: u16,
    more: bool,
    atomic: bool,
    data: Vec<u8>,
    padding: usize,
}

pub fn shape() -> impl Strategy<Value = Shape> {
    let extension = || {
        let units = prop_oneof![4 => 0..3u8, 1 => Just(40u8)];
        (select(vec![0, 43, 60]), units).prop_map(|(number, units)| match number {
            0 => Extension::HopByHop(units),
            43 => Extension::Routing(units),
            _ => Extension::Destination(units),
        })
    };
    (
        vec(select(vec![VLAN, SERVICE_VLAN, QINQ]), 0..=2),
        0..=10u8,
        vec(extension(), 0..=4),
        vec(extension(), 0..=3),
        2..=0x1fffu16,
        any::<bool>(),
        any::<bool>(),
        vec(any::<u8>(), 0..30),
        0..60usize,
    )
        .prop_map(
            |(tags, option_words, before, behind, offset, more, atomic, data, padding)| Shape {
                tags,
                option_words,
                before,
                behind,
                offset,
                more,
                atomic,
                data,
                padding,
            },
        )
}

impl Shape {
    /// The frame.
    pub fn frame(&self, packet: &Fields) -> Vec<u8> {
        let payload = [self.header(packet), self.data.clone()].concat();
        let mut frame = match (packet.source, packet.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = Ipv4 {
                    source,
                    destination,
                    protocol: packet.protocol,
                    fragment: match packet.piece {
                        Piece::Whole => 0,
                        Piece::First => MORE_FRAGMENTS,
                        Piece::Later => self.offset | if self.more { MORE_FRAGMENTS } else { 0 },
                    },
                    options: vec![1; usize::from(self.option_words) * 4],
                    ..Ipv4::default()
                };
                ethernet(&self.tags, IPV4, &header.packet(&payload))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6 {
                    source,
                    destination,
                    protocol: packet.protocol,
                    extensions: self.extensions(packet.piece),
                    ..Ipv6::default()
                };
                ethernet(&self.tags, IPV6, &header.packet(&payload))
            }
            mixed => panic!("two families: {mixed:?}"),
        };
        frame.resize(frame.len() + self.padding, 0xff);
        frame
    }

    fn extensions(&self, piece: Piece) -> Vec<Extension> {
        let fragment = |offset, more| Some(Extension::Fragment { offset, more });
        let fragment = match piece {
            Piece::Whole if self.atomic => fragment(0, false),
            Piece::Whole => None,
            Piece::First => fragment(0, true),
            Piece::Later => fragment(self.offset, self.more),
        };
        let later = piece == Piece::Later;
        let before = self.before.iter().copied();
        // Behind the header of a later fragment there are none: that is data.
        let behind = self.behind.iter().copied().filter(|_| !later);
        before.chain(fragment).chain(behind).collect()
    }

    fn header(&self, packet: &Fields) -> Vec<u8> {
        match (packet.ports, packet.flags, packet.kind) {
            (Some((source, destination)), Some(flags), _) => {
                frames::tcp(source, destination, flags)
            }
            (Some((source, destination)), None, _) if packet.protocol == frames::UDP => {
                frames::udp(source, destination)
            }
            (Some((source, destination)), None, _) => frames::sctp(source, destination),
            (None, _, Some(kind)) if packet.source.is_ipv4() => frames::icmp(kind),
            (None, _, Some(kind)) => frames::icmpv6(kind),
            (None, _, None) => Vec::new(),
        }
    }
}

/// One interface's tables and one peer that is never dropped.
struct Port<'a> {
    tables: Option<HostTables<'a>>,
    peer: Addresses,
}

impl<'a> Environment for Port<'a> {
    const BALANCES: bool = true;

    type Tables = HostTables<'a>;
    type Flows = HostFlows<'a>;

    fn tables(&self) -> Option<HostTables<'a>> {
        self.tables
    }

    fn flows(&self) -> Option<HostFlows<'a>> {
        None
    }

    fn is_failsafe_peer(&self, addresses: &Addresses, _: Claim) -> bool {
        match (*addresses, self.peer) {
            (Addresses::V4 { source: a, .. }, Addresses::V4 { source: b, .. }) => a == b,
            (Addresses::V6 { source: a, .. }, Addresses::V6 { source: b, .. }) => a == b,
            _ => false,
        }
    }
}

/// Holds the verdict on `frame`, which carries `packet`, against what the model says.
pub fn check(
    enforced: &Enforced,
    interface: &str,
    frame: &[u8],
    packet: &Fields,
    peer: IpAddr,
    outcome: &Outcome,
) -> Result<(), TestCaseError> {
    let port = Port {
        tables: enforced.tables(interface),
        peer: packet_of(&Fields {
            source: peer,
            destination: peer,
            ..*packet
        })
        .addresses,
    };
    let verdict = judge(frame, &port);
    let expected = if outcome.drops() && packet.source == peer {
        (Action::Allow, Cause::Reason(Reason::Failsafe))
    } else {
        match outcome {
            Outcome::NotConcerned => (Action::Allow, Cause::Reason(Reason::NoTables)),
            Outcome::Default(headgate_crds::Action::Allow) => {
                (Action::Allow, Cause::Reason(Reason::DefaultAllow))
            }
            Outcome::Default(headgate_crds::Action::Drop) => {
                (Action::Drop, Cause::Reason(Reason::DefaultDrop))
            }
            Outcome::Rule(_, policy, rule) => {
                let counter = enforced.counters(policy)[rule];
                let action = if outcome.drops() {
                    Action::Drop
                } else {
                    Action::Allow
                };
                (action, Cause::Rule(counter))
            }
        }
    };
    prop_assert_eq!((verdict.action, verdict.cause), expected, "{:?}", packet);
    Ok(())
}
