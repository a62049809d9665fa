//! Where a frame goes that may pass: to a backend, to the client of a flow, or to the stack.

use headgate_layout::{
    services::{Backend, NAT, SERVICES, SETTLING, Services, Way},
    verdict::Reason,
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, byteorder::network_endian::U16,
};

use crate::{
    flows::{FlowTable, Known},
    frame::{Frame, FrameMut},
    nat::{self, Passage, pass_on},
    parse::{ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6},
    tables::Tables,
    wire::LinkHeader,
};

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The way.
    pub way: Way,
    /// Index of the counter of the service's port, if it goes to a backend.
    pub counter: Option<u32>,
}

/// Why a frame is not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason that is counted.
    pub reason: Reason,
    /// For [`Reason::MtuExceeded`] the bytes of an IP packet that the way would take; else 0.
    pub mtu: u16,
}

impl From<Reason> for Refusal {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self { reason, mtu: 0 }
    }
}

/// What is known of a frame that may pass.
#[derive(Clone, Copy, Debug)]
pub struct Passing {
    /// As [`crate::judge::Verdict::backend`].
    pub backend: u32,
    /// The flow that it belongs to.
    pub flow: Known,
    /// Bytes of link-layer header and IP packet.
    pub length: u32,
    /// The interface that it came by.
    pub ifindex: u32,
}

/// What becomes of a frame that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes to the stack as it is.
    Stack,
    /// It was made one for where it goes.
    Leaves(Departure),
    /// It begins a flow through Nat, which [`open`] makes.
    Opens,
    /// Which backend it has depends on its connection: [`crate::settling::placed`] says where that lies.
    Settles,
}

/// Makes `frame` one for where it goes.
///
/// # Errors
/// Why it must be dropped instead; the frame is then as it was.
#[inline(always)]
pub fn depart<F: FrameMut + ?Sized, S: Tables, T: FlowTable>(
    frame: &mut F,
    passing: &Passing,
    tables: &S,
    flows: impl FnOnce() -> Option<T>,
) -> Result<Next, Refusal> {
    let backend = match passing.backend {
        0 if passing.flow.is_some() => None,
        0 => return Ok(Next::Stack),
        offset => tables.at::<Backend>(offset),
    };
    let departure = match backend {
        Some(backend) if backend.forwarding == SETTLING => return Ok(Next::Settles),
        Some(backend) if backend.forwarding != NAT => {
            if hops_left(frame).is_none() {
                return Ok(Next::Stack);
            }
            check(frame, &backend.way, passing.length)?;
            rewrite(frame, &backend.way);
            Some(Departure {
                way: backend.way,
                counter: Some(backend.counter),
            })
        }
        _ if !passing.flow.is_some() => return Ok(Next::Opens),
        backend => {
            let flows = flows().ok_or(Reason::FlowsExhausted)?;
            let back = way_back(frame, tables, passing.ifindex).ok_or(Reason::HeaderNotLinear)?;
            let passage = Passage {
                flows: &flows,
                known: passing.flow,
                backend,
                back,
                length: passing.length,
            };
            pass_on(frame, &passage)?
        }
    };
    Ok(departure.map_or(Next::Stack, Next::Leaves))
}

/// Begins the flow of a frame of which [`depart`] says so, as [`Passing`] has it: the flow, or [`Known::NONE`] if it goes to the stack.
/// A step of its own, as it takes more than half of a program's stack.
///
/// # Errors
/// Why it must be dropped instead.
#[inline(always)]
pub fn open<F: Frame + ?Sized, S: Tables, T: FlowTable>(
    frame: &F,
    backend: u32,
    ifindex: u32,
    tables: &S,
    flows: impl FnOnce() -> Option<T>,
) -> Result<Known, Refusal> {
    let backend: &Backend = tables.at(backend).ok_or(Reason::NoBackend)?;
    let flows = flows().ok_or(Reason::FlowsExhausted)?;
    let back = way_back(frame, tables, ifindex).ok_or(Reason::HeaderNotLinear)?;
    nat::open(frame, &flows, backend, back).map_err(Refusal::from)
}

/// The way to where `frame` came from.
#[inline(always)]
pub(crate) fn way_back<F: Frame + ?Sized, S: Tables>(
    frame: &F,
    tables: &S,
    ifindex: u32,
) -> Option<Way> {
    let link: &LinkHeader = frame.at(0)?;
    let table: &Services = tables.at(SERVICES)?;
    Some(Way {
        ifindex,
        mtu: table.mtu as u16,
        reflecting: table.reflecting as u16,
        link: link.addresses().reversed(),
    })
}

/// The second and third word of an IPv4 header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ipv4Lifetime {
    time_to_live: u8,
    protocol: u8,
    checksum: U16,
}
const IPV4_LIFETIME: u32 = ETHERNET_LENGTH + 8;
const IPV6_HOP_LIMIT: u32 = ETHERNET_LENGTH + 7;

/// Time to live or hop limit; `None` where the frame has a VLAN tag.
#[inline(always)]
fn hops_left<F: Frame + ?Sized>(frame: &F) -> Option<u8> {
    let link: &LinkHeader = frame.at(0)?;
    match link.ethertype.get() {
        ETHERTYPE_IPV4 => Some(frame.at::<Ipv4Lifetime>(IPV4_LIFETIME)?.time_to_live),
        ETHERTYPE_IPV6 => Some(*frame.at(IPV6_HOP_LIMIT)?),
        _ => None,
    }
}

/// Looks whether `frame`, of which `length` bytes are link-layer header and IP packet, can go this way.
///
/// # Errors
/// Why it must be dropped instead.
#[inline(always)]
pub(crate) fn check<F: Frame + ?Sized>(frame: &F, way: &Way, length: u32) -> Result<(), Refusal> {
    if way.ifindex == 0 {
        return Err(Reason::NoNextHop.into());
    }
    if hops_left(frame).is_none_or(|hops| hops <= 1) {
        return Err(Reason::TtlExceeded.into());
    }
    if length > u32::from(way.mtu) + ETHERNET_LENGTH {
        return Err(Refusal {
            reason: Reason::MtuExceeded,
            mtu: way.mtu,
        });
    }
    Ok(())
}

/// Makes `frame`, which was checked, one for this way: the next hop's MAC address, and a hop less to live.
#[inline(always)]
pub(crate) fn rewrite<F: FrameMut + ?Sized>(frame: &mut F, way: &Way) -> Option<()> {
    let link: &mut LinkHeader = frame.at_mut(0)?;
    let is_v4 = link.ethertype.get() == ETHERTYPE_IPV4;
    link.set_addresses(way.link);
    if is_v4 {
        let header: &mut Ipv4Lifetime = frame.at_mut(IPV4_LIFETIME)?;
        header.time_to_live = header.time_to_live.wrapping_sub(1);
        // RFC 1624.
        let sum = u32::from(header.checksum.get()) + 0x100;
        header.checksum.set((sum + u32::from(sum >= 0xffff)) as u16);
    } else {
        let hop_limit: &mut u8 = frame.at_mut(IPV6_HOP_LIMIT)?;
        *hop_limit = hop_limit.wrapping_sub(1);
    }
    Some(())
}
