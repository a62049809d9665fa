//! Packets of flows whose backends lie behind an overlay, at the ingress of interfaces: XDP has made a client's packet
//! one for its backend and passed it up, for the overlay's device takes no frames from it; and what backends answer
//! comes out of that device.

use headgate_layout::{flows::Guard, services::Way};

use crate::{
    aging::advance,
    flows::{Ends, FlowTable, of_reply},
    frame::Frame,
    icmp::quoting,
    nat::{read, to_client},
    parse::{ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_TCP, PROTOCOL_UDP},
    wire::{IPV4_FRAGMENT, IPV4_WITHOUT_OPTIONS, Ipv4Header, Ipv6Header, Version},
};

/// What is to be done with such a packet.
pub enum Crossing {
    /// A client's, as its backend is to see it: it leaves by the device with this number.
    Out(u32),
    /// A backend's: it becomes the client's.
    Back(Reply),
    /// A backend's with no hop left to live.
    Expired,
    /// An ICMP error about what a backend was sent: [`crate::icmp::tell_client`] makes it one for the client.
    Message,
}

/// A backend's packet, and what the client awaits.
pub struct Reply {
    /// Whether it is IPv6.
    pub is_v6: bool,
    /// Its ends as the backend sent it.
    pub sent: Ends,
    /// Its ends as the client awaits it.
    pub awaited: Ends,
    /// Hops that it has left to live.
    pub hops: u8,
    /// The way to the client.
    pub way: Way,
}

/// Looks whether a packet with this EtherType is of such a flow, and follows the flow where it comes from the
/// backend. `frame` is read from its network header on, which lies behind an Ethernet header.
#[inline(always)]
pub fn crossing<F: Frame + ?Sized, T: FlowTable>(
    frame: &F,
    ethertype: u16,
    flows: &T,
) -> Option<Crossing> {
    let (version, protocol, hops) = plain(frame, ethertype)?;
    if protocol == version.icmp() {
        return message(frame, version, flows);
    }
    let (ends, segment) = read(frame, version)?;
    let gone_out = of_reply(flows, &ends.reversed());
    if gone_out.is_some() {
        let flow = flows.flow(gone_out.number())?;
        let way = flow.to_backend.get();
        let stands = gone_out.guard().is_same(Guard(flow.guard.get()));
        return (stands && way.is_over()).then_some(Crossing::Out(way.ifindex));
    }
    let known = of_reply(flows, &ends);
    if !known.is_some() {
        return None;
    }
    let flow = flows.flow(known.number())?;
    let (awaited, departure) = to_client(flow, &ends);
    if !known.guard().is_same(Guard(flow.guard.get())) {
        return None;
    }
    if hops <= 1 {
        return Some(Crossing::Expired);
    }
    advance(flows, flow, known, segment);
    Some(Crossing::Back(Reply {
        is_v6: version == Version::V6,
        sent: ends,
        awaited,
        hops,
        way: departure.way,
    }))
}

/// The same of an ICMP error: XDP has made it one for a backend from which the quoted packet is, or it is about
/// what a backend was sent.
#[inline(always)]
fn message<F: Frame + ?Sized, T: FlowTable>(
    frame: &F,
    version: Version,
    flows: &T,
) -> Option<Crossing> {
    let error = quoting(frame, version)?;
    let answered = of_reply(flows, &error.quoted);
    if answered.is_some() {
        let flow = flows.flow(answered.number())?;
        let way = flow.to_backend.get();
        let is_from_node = flow.local.get() == error.outer.source;
        let stands = answered.guard().is_same(Guard(flow.guard.get()));
        let goes_out = stands && is_from_node && way.is_over();
        return goes_out.then_some(Crossing::Out(way.ifindex));
    }
    let asked = of_reply(flows, &error.quoted.reversed());
    asked.is_some().then_some(Crossing::Message)
}

/// Version, protocol and hops left of a whole packet of TCP, UDP or ICMP without options and extension headers.
#[inline(always)]
fn plain<F: Frame + ?Sized>(frame: &F, ethertype: u16) -> Option<(Version, u8, u8)> {
    let (version, protocol, hops) = match ethertype {
        ETHERTYPE_IPV4 => {
            let header: &Ipv4Header = frame.at(ETHERNET_LENGTH)?;
            let is_whole = header.fragment.get() & IPV4_FRAGMENT == 0;
            if header.version_and_length != IPV4_WITHOUT_OPTIONS || !is_whole {
                return None;
            }
            (Version::V4, header.protocol, header.time_to_live)
        }
        ETHERTYPE_IPV6 => {
            let header: &Ipv6Header = frame.at(ETHERNET_LENGTH)?;
            (Version::V6, header.next_header, header.hop_limit)
        }
        _ => return None,
    };
    let is_read = [PROTOCOL_TCP, PROTOCOL_UDP, version.icmp()].contains(&protocol);
    is_read.then_some((version, protocol, hops))
}
