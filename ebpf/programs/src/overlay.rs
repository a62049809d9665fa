//! The program at the ingress of interfaces by which flows go to and from backends behind an overlay.

use core::ptr::null_mut;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
        bpf_hdr_start_off::BPF_HDR_START_NET,
    },
    helpers::generated::{
        bpf_csum_diff, bpf_redirect, bpf_redirect_neigh, bpf_skb_change_head, bpf_skb_load_bytes,
        bpf_skb_load_bytes_relative,
    },
    macros::classifier,
    programs::TcContext,
};
use headgate_layout::services::Way;
use headgate_packet::{
    flows::Ends,
    frame::{Frame, WireType},
    icmp::tell_client,
    overlay::{Crossing, Reply, crossing},
    parse::{
        ETHERNET_LENGTH, ETHERTYPE_IPV6, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP,
    },
};

use crate::{flows::MapFlows, frame::SocketBuffer};

/// `TCX_NEXT` and `TCX_DROP` (include/uapi/linux/bpf.h).
const NEXT: i32 = -1;
const DROP: i32 = 2;

/// In an action's place: an ICMP error that is still to be told.
const TELLS: i32 = 0xff;

/// Sends on what XDP has made for a backend behind an overlay, and to its client what such a backend answers.
/// Anything else goes on as it is.
#[classifier]
pub fn headgate_overlay(ctx: TcContext) -> i32 {
    // One after the other: both take much of a program's stack.
    match headgate_cross(ctx.skb.skb) {
        TELLS => headgate_tell(ctx.skb.skb),
        action => action,
    }
}

/// What is to be done with a packet, or [`TELLS`]. As `crate::maps::headgate_find`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn headgate_cross(skb: *mut __sk_buff) -> i32 {
    let ctx = TcContext::new(skb);
    let Some(flows) = MapFlows::get() else {
        return NEXT;
    };
    // SAFETY: the context is the one that the kernel gave to this run.
    let is_tagged = unsafe { (*skb).vlan_present };
    let ethertype = ethertype(skb);
    let headers = match Headers::of(&ctx, ethertype) {
        Some(headers) if is_tagged == 0 => headers,
        _ => return NEXT,
    };
    let sent = match crossing(&headers, ethertype, &flows) {
        None => return NEXT,
        Some(Crossing::Expired) => return DROP,
        Some(Crossing::Message) => return TELLS,
        Some(Crossing::Out(ifindex)) => out(&ctx, ifindex),
        Some(Crossing::Back(reply)) => back(&ctx, &reply),
    };
    // Where memory was short. The stack is not to see it: it has a connection with neither of them.
    sent.unwrap_or(DROP)
}

#[inline(always)]
fn ethertype(skb: *const __sk_buff) -> u16 {
    // SAFETY: the context is the one that the kernel gave to this run.
    u16::from_be(unsafe { (*skb).protocol } as u16)
}

/// Bytes of the longest headers: IPv6, ICMPv6, and what it quotes of IPv6 and ports.
const LENGTH: usize = 96;

/// A packet's headers, copied: they lie where offsets behind an Ethernet header say, whether the packet has one or not.
#[repr(C, align(8))]
struct Headers([u8; LENGTH]);

impl Headers {
    #[inline(always)]
    fn of(ctx: &TcContext, ethertype: u16) -> Option<Self> {
        const V4: usize = 20;
        const V6: usize = 40;
        let mut headers = Self([0; LENGTH]);
        let (protocol, ip) = if ethertype == ETHERTYPE_IPV6 {
            headers.load::<0, V6>(ctx)?;
            (headers.0[6], V6)
        } else {
            headers.load::<0, V4>(ctx)?;
            (headers.0[9], V4)
        };
        match (ip, protocol) {
            (V4, PROTOCOL_TCP) => headers.load::<V4, 20>(ctx)?,
            (V4, PROTOCOL_UDP) => headers.load::<V4, 8>(ctx)?,
            (V6, PROTOCOL_TCP) => headers.load::<V6, 20>(ctx)?,
            (V6, PROTOCOL_UDP) => headers.load::<V6, 8>(ctx)?,
            (V4, PROTOCOL_ICMP) => headers.load::<V4, 36>(ctx)?,
            (V6, PROTOCOL_ICMPV6) => headers.load::<V6, 56>(ctx)?,
            _ => return None,
        }
        Some(headers)
    }

    /// Not from where the frame begins: see `tunnel::NetworkHeader`.
    #[inline(always)]
    fn load<const START: usize, const COUNT: usize>(&mut self, ctx: &TcContext) -> Option<()> {
        const { assert!(START + COUNT <= LENGTH) };
        // SAFETY: a helper that writes these bytes, which lie in the array.
        let read = unsafe {
            bpf_skb_load_bytes_relative(
                ctx.as_ptr(),
                START as u32,
                self.0.as_mut_ptr().add(START).cast(),
                COUNT as u32,
                BPF_HDR_START_NET,
            )
        };
        (read == 0).then_some(())
    }
}

impl Frame for Headers {
    #[inline(always)]
    fn at<T: WireType>(&self, offset: u32) -> Option<&T> {
        let start = offset.checked_sub(ETHERNET_LENGTH)? as usize;
        if start + size_of::<T>() > LENGTH {
            return None;
        }
        // SAFETY: the bytes lie in the array, and any bytes at any address make a T: FromBytes and Unaligned.
        Some(unsafe { &*self.0.as_ptr().add(start).cast::<T>() })
    }

    #[inline(always)]
    fn linear_length(&self) -> u32 {
        ETHERNET_LENGTH + LENGTH as u32
    }

    #[inline(always)]
    fn full_length(&self) -> u32 {
        self.linear_length()
    }
}

#[inline(always)]
fn out(ctx: &TcContext, ifindex: u32) -> Result<i32, i64> {
    have_link_header(ctx)?;
    // SAFETY: a helper that keeps a number for when the program has ended, and is given no next hop.
    Ok(unsafe { bpf_redirect_neigh(ifindex, null_mut(), 0, 0) as i32 })
}

#[inline(always)]
fn back(ctx: &TcContext, reply: &Reply) -> Result<i32, i64> {
    have_link_header(ctx)?;
    match reply.is_v6 {
        true => translate_v6(ctx, reply)?,
        false => translate_v4(ctx, reply)?,
    }
    write_link(ctx, reply.is_v6, &reply.way)?;
    // SAFETY: a helper that keeps two numbers for when the program has ended.
    Ok(unsafe { bpf_redirect(reply.way.ifindex, 0) as i32 })
}

/// Makes an ICMP error about what a backend was sent one for the client. As `crate::maps::headgate_find`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn headgate_tell(skb: *mut __sk_buff) -> i32 {
    let told = match MapFlows::get() {
        Some(flows) => tell(&TcContext::new(skb), flows),
        None => Ok(DROP),
    };
    told.unwrap_or(DROP)
}

#[inline(always)]
fn tell(ctx: &TcContext, flows: MapFlows) -> Result<i32, i64> {
    have_link_header(ctx)?;
    ctx.store(12, &ethertype(ctx.skb.skb).to_be(), 0)?;
    let length = ctx.len();
    ctx.pull_data(length.min(ETHERNET_LENGTH + LENGTH as u32))?;
    match tell_client(&mut SocketBuffer::new(ctx), length, flows) {
        // SAFETY: as in `back`.
        Ok(Some(way)) => Ok(unsafe { bpf_redirect(way.ifindex, 0) as i32 }),
        _ => Ok(DROP),
    }
}

/// Packets of devices without a link layer begin with their network header, and so do those of others behind a
/// generic XDP program that had them copied. What sends them on wants a link-layer header.
#[inline(always)]
fn have_link_header(ctx: &TcContext) -> Result<(), i64> {
    let skb = ctx.skb.skb.cast();
    let (mut frame, mut network) = ([0_u64; 2], [0_u64; 2]);
    let length = size_of_val(&frame) as u32;
    // SAFETY: helpers that write these bytes, of as many.
    let failed = unsafe {
        bpf_skb_load_bytes(skb, 0, frame.as_mut_ptr().cast(), length)
            | bpf_skb_load_bytes_relative(
                skb,
                0,
                network.as_mut_ptr().cast(),
                length,
                BPF_HDR_START_NET,
            )
    };
    if failed != 0 {
        return Err(failed);
    }
    if frame != network {
        return Ok(());
    }
    // SAFETY: a helper that checks its arguments itself.
    match unsafe { bpf_skb_change_head(skb.cast(), ETHERNET_LENGTH, 0) } {
        0 => Ok(()),
        error => Err(error),
    }
}

const IP: usize = ETHERNET_LENGTH as usize;

#[inline(always)]
fn write_link(ctx: &TcContext, is_v6: bool, way: &Way) -> Result<(), i64> {
    let ethertype: u16 = if is_v6 { 0x86dd } else { 0x0800 };
    let [a, b, c] = way.link.0;
    // Little-endian words of bytes, as the machine has them.
    ctx.store(0, &[a, b, c], 0)?;
    ctx.store(12, &ethertype.to_be(), 0)
}

#[inline(always)]
fn translate_v4(ctx: &TcContext, reply: &Reply) -> Result<(), i64> {
    const LIFETIME: usize = IP + 8;
    const CHECKSUM: usize = IP + 10;
    const ADDRESSES: usize = IP + 12;
    let words =
        |ends: &Ends| [ends.source, ends.destination].map(|address| (address[1] as u32).to_be());
    let (old, new) = (words(&reply.sent), words(&reply.awaited));
    let difference = difference(&old, &new)?;
    ctx.l3_csum_replace(CHECKSUM, 0, difference, 0)?;
    let lifetime = |hops: u8| u16::from_be_bytes([hops, reply.sent.protocol]).to_be();
    let (had, has) = (lifetime(reply.hops), lifetime(reply.hops - 1));
    ctx.l3_csum_replace(CHECKSUM, had.into(), has.into(), 2)?;
    ctx.store(LIFETIME, &(reply.hops - 1), 0)?;
    translate_transport(ctx, reply, IP + 20, difference)?;
    ctx.store(ADDRESSES, &new, 0)
}

#[inline(always)]
fn translate_v6(ctx: &TcContext, reply: &Reply) -> Result<(), i64> {
    const HOPS: usize = IP + 7;
    const ADDRESSES: usize = IP + 8;
    let words = |ends: &Ends| {
        let [a, b] = ends.source.map(u64::to_be);
        let [c, d] = ends.destination.map(u64::to_be);
        [a, b, c, d]
    };
    let (old, new) = (words(&reply.sent), words(&reply.awaited));
    let difference = difference(&old, &new)?;
    ctx.store(HOPS, &(reply.hops - 1), BPF_F_RECOMPUTE_CSUM.into())?;
    translate_transport(ctx, reply, IP + 40, difference)?;
    ctx.store(ADDRESSES, &new, 0)
}

/// What checksums have to follow where `new` comes in the place of `old`.
#[inline(always)]
fn difference<T: Copy, const N: usize>(old: &[T; N], new: &[T; N]) -> Result<u64, i64> {
    let length = size_of_val(old) as u32;
    // SAFETY: a helper that sums up these bytes, of which there are as many.
    let difference = unsafe {
        bpf_csum_diff(
            old.as_ptr().cast_mut().cast(),
            length,
            new.as_ptr().cast_mut().cast(),
            length,
            0,
        )
    };
    u64::try_from(difference).map_err(|_| difference)
}

/// The ports, and the checksum behind them, which `addresses` of the pseudo-header have changed too. The helpers
/// know what the kernel or the card is still to reckon.
#[inline(always)]
fn translate_transport(
    ctx: &TcContext,
    reply: &Reply,
    transport: usize,
    addresses: u64,
) -> Result<(), i64> {
    let ports = |ends: &Ends| {
        (u32::from(ends.source_port) << 16 | u32::from(ends.destination_port)).to_be()
    };
    let (old, new) = (ports(&reply.sent), ports(&reply.awaited));
    // A checksum of 0 says in UDP that there is none.
    let (checksum, flags) = match reply.sent.protocol {
        PROTOCOL_UDP => (transport + 6, u64::from(BPF_F_MARK_MANGLED_0)),
        _ => (transport + 16, 0),
    };
    let pseudo = u64::from(BPF_F_PSEUDO_HDR);
    ctx.l4_csum_replace(checksum, 0, addresses, flags | pseudo)?;
    ctx.l4_csum_replace(checksum, old.into(), new.into(), flags | 4)?;
    ctx.store(transport, &new, 0)
}
