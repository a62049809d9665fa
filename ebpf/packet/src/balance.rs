//! The load balancer: from a packet's destination to a backend, and the way there.

use headgate_layout::{
    flows::is_given,
    services::{
        Backend, ICMP, NAT, RingPlace, SERVICES, Service, Services, bucket, hash_of, hash_of_flow,
        mapped, port_and_protocol, ring_entry, slot, tag_of,
    },
    tables::Header,
    verdict::Reason,
};

use crate::{
    aging::begins,
    blind::blinded,
    flows::{Asking, Ends, Known, of_client, of_reply},
    judge::Environment,
    parse::{
        Addresses, Fragment, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, Packet,
        TransportKind,
    },
    tables::Tables,
};

/// What the load balancer makes of a packet, in words that are cheap to carry past the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Target {
    /// 0: it is for no service. Below [`SUBJECTS`]: a [`Reason`] to drop it, plus 1. From there on: an ICMP
    /// message, by its [`Subject`], or [`REJECTED`]. Else the offset of its [`Backend`].
    word: u32,
    /// The flow that it belongs to.
    pub flow: Known,
}

impl Target {
    /// Of a packet that goes to the stack.
    pub const NONE: Self = Self {
        word: 0,
        flow: Known::NONE,
    };

    /// What becomes of `packet`, if policies let it through.
    #[inline(always)]
    #[must_use]
    pub fn of<E: Environment>(environment: &E, tables: &E::Tables, packet: &Packet) -> Self {
        let table = tables.at::<Services>(SERVICES);
        let question = table.filter(|table| table.count != 0).and(ends(packet));
        let Some(ends) = question else {
            return Self::NONE;
        };
        let is_tcp = packet.transport.kind == TransportKind::Tcp;
        let traits = [
            (packet.fragment == Fragment::Whole, WHOLE),
            (is_tcp, TCP),
            (is_tcp && begins(packet.transport.detail()), BEGINS),
            (is_icmp(packet.transport.kind), IS_ICMP),
            (packet.is_plain, PLAIN),
        ];
        let traits = traits.iter().map(|(has, what)| u32::from(*has) * what);
        let question = Question {
            ends,
            traits: traits.sum(),
        };
        let mut flow = Known::NONE;
        let word = environment.find(tables, &question, &mut flow);
        Self { word, flow }
    }

    /// The same, of which the verifier knows nothing: see [`blinded`].
    #[inline(always)]
    #[must_use]
    pub fn blinded(self, header: &Header) -> Self {
        let [word, flow] = blinded([self.word.into(), self.flow.to_word()], header);
        Self {
            word: word as u32,
            flow: Known::from_word(flow),
        }
    }

    /// Why it ends here, or where its [`Backend`] lies, or [`Subject::to_word`]; `None` if it is for no service.
    #[inline(always)]
    #[must_use]
    pub fn backend(self) -> Option<Result<u32, Reason>> {
        const NO_BACKEND: u32 = refusal(Reason::NoBackend);
        match self.word {
            0 => None,
            NO_BACKEND => Some(Err(Reason::NoBackend)),
            other if other < SUBJECTS => Some(Err(Reason::ServiceFragment)),
            other => Some(Ok(other)),
        }
    }
}

/// Whom an ICMP message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Subject {
    /// An address that is served.
    Service = SUBJECTS,
    /// Another, which may be one of this node's that flows through Nat have.
    Node = SUBJECTS + 1,
}

/// Above all [`Reason`]s, and below where the first [`Backend`] may lie.
const SUBJECTS: u32 = 64;

/// As [`crate::judge::Verdict::backend`]: there is no backend, and the sender is told so.
pub const REJECTED: u32 = SUBJECTS + 2;

impl Subject {
    /// As [`crate::judge::Verdict::backend`].
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u32 {
        self as u32
    }

    /// The one that such a word stands for.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u32) -> Option<Self> {
        const SERVICE: u32 = Subject::Service as u32;
        const NODE: u32 = Subject::Node as u32;
        match word {
            SERVICE => Some(Self::Service),
            NODE => Some(Self::Node),
            _ => None,
        }
    }
}

#[inline(always)]
const fn is_icmp(kind: TransportKind) -> bool {
    matches!(kind, TransportKind::Icmp | TransportKind::Icmpv6)
}

const fn refusal(reason: Reason) -> u32 {
    reason as u32 + 1
}

/// What is asked of services and flows.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Question {
    ends: Ends,
    /// [`WHOLE`] and others.
    traits: u32,
}

/// Of [`Question::traits`]: it is no fragment.
const WHOLE: u32 = 1;
/// It is TCP.
const TCP: u32 = 2;
/// It begins a connection.
const BEGINS: u32 = 4;
/// It is an ICMP message.
const IS_ICMP: u32 = 8;
/// Its addresses and ports lie where Nat changes them.
const PLAIN: u32 = 16;

impl Question {
    #[inline(always)]
    const fn is(&self, what: u32) -> bool {
        self.traits & what != 0
    }
}

/// The word of a [`Target`], and its flow.
#[inline(always)]
pub fn find<E: Environment>(
    environment: &E,
    tables: &E::Tables,
    question: &Question,
    flow: &mut Known,
) -> u32 {
    let mut target = Target::NONE;
    // What the tables cannot tell because they are cut short, which their builder rules out, is nothing.
    let _ = answer(environment, tables, question, &mut target);
    *flow = target.flow;
    target.word
}

#[inline(always)]
fn answer<E: Environment>(
    environment: &E,
    tables: &E::Tables,
    question: &Question,
    target: &mut Target,
) -> Option<()> {
    let table: &Services = tables.at(SERVICES)?;
    let ends = &question.ends;
    let Some((service, flow)) = service_of(tables, table, ends) else {
        if table.translates != 0 && question.is(WHOLE) && question.is(PLAIN) {
            if is_given(ends.destination_port) {
                target.flow = of_reply(&environment.flows()?, ends);
            } else if question.is(IS_ICMP) {
                target.word = Subject::Node.to_word();
            }
        }
        return Some(());
    };
    if !question.is(WHOLE) {
        target.word = refusal(Reason::ServiceFragment);
        return Some(());
    }
    target.word = match service.ring_size {
        0 if service.forwarding == ICMP => Subject::Service.to_word(),
        0 if service.rejects != 0 => REJECTED,
        0 => refusal(Reason::NoBackend),
        size => place_of(tables, service, flow, size)?,
    };
    if service.forwarding == NAT && question.is(PLAIN) {
        let asking = Asking {
            hash: flow,
            begins: question.is(BEGINS),
            backend: match (question.is(TCP), target.backend()) {
                (false, Some(Ok(offset))) if offset != REJECTED => tables.at(offset),
                _ => None,
            },
        };
        target.flow = of_client(&environment.flows()?, ends, &asking);
        if target.flow.is_some() && target.word == REJECTED {
            target.word = refusal(Reason::NoBackend);
        }
    }
    Some(())
}

/// Where the [`Backend`] lies that the ring has for a flow.
#[inline(always)]
fn place_of<T: Tables>(tables: &T, service: &Service, flow: u64, ring_size: u32) -> Option<u32> {
    let ring = RingPlace::from_word(service.ring);
    let number = u32::from(tables.ring_entry(ring, ring_entry(flow, ring_size))?);
    Some(service.backends + number * size_of::<Backend>() as u32)
}

/// The same of a service that may have none.
#[inline(always)]
pub(crate) fn place_in_ring<T: Tables>(tables: &T, service: &Service, flow: u64) -> Option<u32> {
    match service.ring_size {
        0 => None,
        size => place_of(tables, service, flow, size),
    }
}

/// Both ends of a packet that may be for a service, or a reply of a backend. A service of port 0 stands for
/// its address and protocol, and is where fragments and ICMP messages go.
#[inline(always)]
fn ends(packet: &Packet) -> Option<Ends> {
    let ports = (
        packet.transport.source_port(),
        packet.transport.destination_port(),
    );
    let (source_port, destination_port) = match (packet.transport.kind, packet.protocol) {
        (TransportKind::Tcp, _) | (TransportKind::Ports, PROTOCOL_UDP)
            if packet.fragment == Fragment::Whole =>
        {
            ports
        }
        (_, PROTOCOL_TCP | PROTOCOL_UDP) if packet.fragment != Fragment::Whole => (0, 0),
        (_, PROTOCOL_ICMP | PROTOCOL_ICMPV6) => (0, 0),
        _ => return None,
    };
    let (source, destination) = match packet.addresses {
        Addresses::V4 {
            source,
            destination,
        } => (mapped(source), mapped(destination)),
        Addresses::V6 {
            source,
            destination,
        } => (source.into(), destination.into()),
    };
    Some(Ends {
        source,
        destination,
        source_port,
        destination_port,
        protocol: packet.protocol,
    })
}

/// The service that a packet with these ends is for, and the hash of its flow.
#[inline(always)]
pub(crate) fn service_of<'a, T: Tables>(
    tables: &'a T,
    table: &Services,
    ends: &Ends,
) -> Option<(&'a Service, u64)> {
    let key = port_and_protocol(ends.destination_port, ends.protocol);
    let hash = hash_of(ends.destination, key);
    let service = candidate(tables, table, hash)
        .filter(|service| service.address == ends.destination && service.port == key)?;
    Some((service, hash_of_flow(hash, ends.source, ends.source_port)))
}

/// The one service that may have the key with this hash.
#[inline(always)]
fn candidate<'a, T: Tables>(tables: &'a T, table: &Services, hash: u64) -> Option<&'a Service> {
    let displacement: &u16 =
        tables.at(table.displacements + bucket(hash, table.displacement_mask) * 2)?;
    let value: u32 = *tables.at(table.slots + slot(hash, *displacement, table.slot_mask) * 4)?;
    let number = value & 0xffff;
    if number == 0 || value >> 16 != tag_of(hash) {
        return None;
    }
    tables.at(table.services + (number - 1) * size_of::<Service>() as u32)
}
