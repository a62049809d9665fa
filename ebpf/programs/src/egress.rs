//! The program at an interface's egress: replies of backends on this node get the service's address again.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{bpf_csum_diff, bpf_l4_csum_replace},
    macros::classifier,
    programs::TcContext,
};
use headgate_packet::{
    flows::Ends,
    nat::{Reply, reply_of},
    parse::{ETHERNET_LENGTH, PROTOCOL_UDP},
};

use crate::{flows::MapFlows, frame::SocketBuffer};

/// `TCX_NEXT`: the frame goes on as it is to whoever is behind (include/uapi/linux/bpf.h).
const NEXT: i32 = -1;

/// Bytes of the longest headers that are read: Ethernet, IPv6 and TCP.
const HEADERS: u32 = 14 + 40 + 20;

/// Restores what leaves by one interface. What cannot be written, for want of memory, leaves as it is: the
/// client resets it, and its sender sends it once more.
#[classifier]
pub fn headgate_egress(ctx: TcContext) -> i32 {
    let Some(flows) = MapFlows::get() else {
        return NEXT;
    };
    let wanted = ctx.len().min(HEADERS);
    if (ctx.data_end() - ctx.data()) < wanted as usize && ctx.pull_data(wanted).is_err() {
        return NEXT;
    }
    if let Some(reply) = reply_of(&SocketBuffer::new(&ctx), &flows) {
        let _ = match reply.is_v6 {
            true => restore_v6(&ctx, &reply),
            false => restore_v4(&ctx, &reply),
        };
    }
    NEXT
}

const IPV4_CHECKSUM: usize = ETHERNET_LENGTH as usize + 10;
const IPV4_SOURCE: usize = ETHERNET_LENGTH as usize + 12;
const IPV6_SOURCE: usize = ETHERNET_LENGTH as usize + 8;

/// The helpers know what the kernel or the card is still to reckon.
#[inline(always)]
fn restore_v4(ctx: &TcContext, reply: &Reply) -> Result<(), i64> {
    let words = |ends: &Ends| (ends.source[1] as u32).to_be();
    let (old, new) = (words(&reply.sent), words(&reply.awaited));
    ctx.l3_csum_replace(IPV4_CHECKSUM, old.into(), new.into(), 4)?;
    let (checksum, flags) = transport_checksum(reply);
    let pseudo = u64::from(BPF_F_PSEUDO_HDR);
    ctx.l4_csum_replace(checksum, old.into(), new.into(), flags | pseudo | 4)?;
    restore_port(ctx, reply)?;
    ctx.store(IPV4_SOURCE, &new, 0)
}

#[inline(always)]
fn restore_v6(ctx: &TcContext, reply: &Reply) -> Result<(), i64> {
    let words = |ends: &Ends| ends.source.map(u64::to_be);
    let (mut old, mut new) = (words(&reply.sent), words(&reply.awaited));
    let length = size_of_val(&new) as u32;
    // SAFETY: a helper that sums up these bytes, of which there are as many.
    let difference = unsafe {
        bpf_csum_diff(
            (&raw mut old).cast(),
            length,
            (&raw mut new).cast(),
            length,
            0,
        )
    };
    if difference < 0 {
        return Err(difference);
    }
    let (checksum, flags) = transport_checksum(reply);
    let pseudo = u64::from(BPF_F_PSEUDO_HDR);
    // SAFETY: a helper that checks the place itself.
    let done = unsafe {
        let skb = ctx.skb.skb.cast::<c_void>();
        let difference = difference as u64;
        bpf_l4_csum_replace(skb.cast(), checksum as u32, 0, difference, flags | pseudo)
    };
    if done != 0 {
        return Err(done);
    }
    restore_port(ctx, reply)?;
    ctx.store(IPV6_SOURCE, &new, 0)
}

#[inline(always)]
fn restore_port(ctx: &TcContext, reply: &Reply) -> Result<(), i64> {
    let port = |ends: &Ends| ends.source_port.to_be();
    let (old, new) = (port(&reply.sent), port(&reply.awaited));
    let (checksum, flags) = transport_checksum(reply);
    ctx.l4_csum_replace(checksum, old.into(), new.into(), flags | 2)?;
    ctx.store(reply.transport as usize, &new, 0)
}

/// Where the transport header's checksum lies, and what is to be done with it: one of 0 says in UDP that
/// there is none.
#[inline(always)]
fn transport_checksum(reply: &Reply) -> (usize, u64) {
    let transport = reply.transport as usize;
    match reply.sent.protocol {
        PROTOCOL_UDP => (transport + 6, BPF_F_MARK_MANGLED_0.into()),
        _ => (transport + 16, 0),
    }
}
