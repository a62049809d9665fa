//! From the tunnel's device to a pod, past the node's stack.
//!
//! Each step that may fail comes before the first that changes the packet, as far as it can: what cannot be delivered
//! so goes by the stack.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_RECOMPUTE_CSUM,
    btf_maps::HashMap,
    helpers::generated::{
        bpf_l3_csum_replace, bpf_redirect_peer, bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    macros::btf_map,
    programs::TcContext,
};
use headgate_layout::tunnel::{MAX_PODS, Pod};
use headgate_packet::tunnel::{Destination, Received, destination};

use crate::tunnel::NetworkHeader;

#[btf_map]
static TUNNEL_PODS: HashMap<[u64; 2], Pod, { MAX_PODS as usize }> = HashMap::new();

/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;

/// Offsets in the headers of IPv4 and IPv6.
const TTL: u32 = 8;
const CHECKSUM: u32 = 10;
const HOP_LIMIT: u32 = 7;

/// Hands the packet to the pod that has its destination; what the program is to return then. `None` where there is no
/// such pod, or the packet has no hop left: the stack knows what to do.
#[inline(always)]
pub(crate) fn deliver(ctx: &TcContext, packet: &NetworkHeader<'_>) -> Option<i32> {
    let destination = destination(packet)?;
    // SAFETY: a value that is copied at once; its words are written whole.
    let pod = unsafe { TUNNEL_PODS.get(destination.address) }?;
    let (ifindex, mac) = (pod.ifindex, pod.mac);
    let network = network_offset(ctx, packet)?;
    if network == ETHERNET {
        store(ctx, 0, &mac, 0).then_some(())?;
    }
    take_hop(ctx, network, &destination).then_some(())?;
    // SAFETY: a helper without pointers.
    Some(unsafe { bpf_redirect_peer(ifindex, 0) } as i32)
}

/// Where the network header begins, from the frame's first byte. Behind a generic XDP program that had the frame copied
/// the link layer's header is gone (see [`NetworkHeader`]), so the bytes are compared.
#[inline(always)]
fn network_offset(ctx: &TcContext, packet: &NetworkHeader<'_>) -> Option<u32> {
    let header: [u32; 4] = packet.words(4)?;
    for offset in [ETHERNET, 0] {
        if load(ctx, offset + 4)? == header {
            return Some(offset);
        }
    }
    None
}

#[inline(always)]
fn load(ctx: &TcContext, offset: u32) -> Option<[u32; 4]> {
    let mut words = [0_u32; 4];
    // SAFETY: a helper that writes these words, of as many bytes.
    let read = unsafe {
        bpf_skb_load_bytes(
            ctx.as_ptr(),
            offset,
            words.as_mut_ptr().cast(),
            size_of_val(&words) as u32,
        )
    };
    (read == 0).then(|| words.map(u32::from_be))
}

/// The stack of the pod must see one hop less, as behind any router. The sum over the header of IPv4 stays what it is,
/// so what the card has reckoned over the packet does too.
#[inline(always)]
fn take_hop(ctx: &TcContext, network: u32, destination: &Destination) -> bool {
    if destination.is_v6 {
        let left = [(destination.hops & 0xff) as u8 - 1];
        return store(ctx, network + HOP_LIMIT, &left, BPF_F_RECOMPUTE_CSUM.into());
    }
    let before = (destination.hops >> 16) as u16;
    let after = before - 0x100;
    // SAFETY: a helper without pointers but the context.
    let summed = unsafe {
        bpf_l3_csum_replace(
            ctx.as_ptr().cast(),
            network + CHECKSUM,
            before.to_be().into(),
            after.to_be().into(),
            2,
        )
    };
    summed == 0 && store(ctx, network + TTL, &[(after >> 8) as u8], 0)
}

#[inline(always)]
fn store<const N: usize>(ctx: &TcContext, offset: u32, bytes: &[u8; N], flags: u64) -> bool {
    let from: *const c_void = bytes.as_ptr().cast();
    // SAFETY: a helper that reads these bytes, as many as there are.
    let stored = unsafe { bpf_skb_store_bytes(ctx.as_ptr().cast(), offset, from, N as u32, flags) };
    stored == 0
}
