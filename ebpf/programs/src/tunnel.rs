//! The programs at the tunnel's device: which peer a packet goes to, and whether a peer may send what came.

use core::{mem::MaybeUninit, ptr::NonNull};

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_hdr_start_off::BPF_HDR_START_NET,
        bpf_tunnel_key,
    },
    btf_maps::{Array, ArrayOfMaps, PerCpuArray},
    helpers::generated::{
        bpf_jiffies64, bpf_ktime_get_ns, bpf_skb_get_tunnel_key, bpf_skb_load_bytes_relative,
        bpf_skb_set_tunnel_key,
    },
    macros::{btf_map, classifier},
    programs::TcContext,
};
use headgate_layout::{
    tunnel::{COUNTERS, Event, LIMIT, MAX_PEERS, Peer, Seen, TICK},
    verdict::Count,
};
use headgate_packet::{
    tables::{TableValue, Tables},
    tunnel::{Outer, Received, way_in, way_out},
};

use crate::{delivery::deliver, frame::SocketBuffer, maps::count, monitor::tell_tunnel};

/// `TCX_NEXT` and `TCX_DROP` (include/uapi/linux/bpf.h).
const NEXT: i32 = -1;
const DROP: i32 = 2;

/// Bytes that headers are looked for in; what has longer ones counts as malformed.
const HEADERS: u32 = 128;

const HOPS: u8 = 64;

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// Shape of the block as far as the object knows it, as in `maps`.
type Block = Array<[u64; 8], 1, MMAPABLE>;

#[btf_map]
static TUNNEL: ArrayOfMaps<Block, 1> = ArrayOfMaps::new();

#[btf_map]
static TUNNEL_COUNTERS: PerCpuArray<Count, { COUNTERS as usize }> = PerCpuArray::new();

#[btf_map]
static TUNNEL_SEEN: Array<Seen, { MAX_PEERS as usize }> = Array::new();

/// Gives what leaves by the device its tunnel key.
#[classifier]
pub fn headgate_tunnel_out(ctx: TcContext) -> i32 {
    pull(&ctx);
    let tables = TunnelTables::get();
    let event = match way_out(&SocketBuffer::new(&ctx), tables.as_ref()) {
        Ok(peer) => send(&ctx, peer),
        Err(event) => event,
    };
    finish(&ctx, event)
}

/// Drops what comes by the device and is not its sender's to send.
#[classifier]
pub fn headgate_tunnel_in(ctx: TcContext) -> i32 {
    let Some(outer) = outer(&ctx) else {
        return finish(&ctx, Event::NoOuterHeader);
    };
    let tables = TunnelTables::get();
    let packet = NetworkHeader { ctx: &ctx };
    let admitted = match way_in(&packet, tables.as_ref(), &outer) {
        Ok(admitted) => admitted,
        Err(event) => return finish(&ctx, event),
    };
    note(admitted.place);
    let delivered = match admitted.is_direct {
        true => deliver(&ctx, &packet),
        false => None,
    };
    let Some(action) = delivered else {
        return finish(&ctx, Event::Received);
    };
    count(
        TUNNEL_COUNTERS.get_ptr_mut(Event::Delivered as u32),
        ctx.len(),
    );
    action
}

/// What came, by offsets from the network header. Not from where the frame begins: behind a generic XDP
/// program that had the frame copied, that is the network header itself (`skb_pp_cow_data` leaves `mac_len`
/// at 0).
pub(crate) struct NetworkHeader<'a> {
    ctx: &'a TcContext,
}

impl Received for NetworkHeader<'_> {
    #[inline(always)]
    fn ethertype(&self) -> u16 {
        // SAFETY: the context is the one that the kernel gave to this run.
        let (protocol, is_tagged) = unsafe {
            let skb = self.ctx.skb.skb;
            ((*skb).protocol, (*skb).vlan_present)
        };
        match is_tagged {
            0 => u16::from_be(protocol as u16),
            _ => 0,
        }
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let mut aligned = MaybeUninit::<Aligned<[u32; N]>>::uninit();
        // SAFETY: a helper that writes these words, of as many bytes.
        let read = unsafe {
            bpf_skb_load_bytes_relative(
                self.ctx.as_ptr(),
                offset,
                aligned.as_mut_ptr().cast(),
                size_of::<[u32; N]>() as u32,
                BPF_HDR_START_NET,
            )
        };
        if read != 0 {
            return None;
        }
        // SAFETY: all of them were written.
        Some(unsafe { aligned.assume_init() }.0.map(u32::from_be))
    }
}

/// The compiler reads and writes two words at once, and the verifier refuses that where they are not aligned.
#[repr(C, align(8))]
struct Aligned<T>(T);

/// The same for a tunnel key, whose addresses lie half a word further than they should.
#[repr(C)]
struct Key {
    _padding: u32,
    key: bpf_tunnel_key,
}

impl Key {
    /// By words of which none is left to `memset`: the linker calls one that writes byte by byte.
    #[inline(always)]
    fn zeroed() -> Aligned<Self> {
        let mut aligned = MaybeUninit::<Aligned<Self>>::uninit();
        let words: *mut u64 = aligned.as_mut_ptr().cast();
        for at in 0..size_of::<Aligned<Self>>() / size_of::<u64>() {
            // SAFETY: a word of the value, which is aligned for it.
            unsafe { words.add(at).write_volatile(0) };
        }
        // SAFETY: integers and unions of integers, all of which may be 0.
        unsafe { aligned.assume_init() }
    }
}

/// Has the headers in one piece. Where that fails, for want of memory, they are malformed.
#[inline(always)]
fn pull(ctx: &TcContext) {
    let wanted = ctx.len().min(HEADERS);
    if (ctx.data_end() - ctx.data()) < wanted as usize {
        let _ = ctx.pull_data(wanted);
    }
}

#[inline(always)]
fn finish(ctx: &TcContext, event: Event) -> i32 {
    count(TUNNEL_COUNTERS.get_ptr_mut(event as u32), ctx.len());
    if !event.drops() {
        return NEXT;
    }
    tell_tunnel(ctx, event as u32);
    DROP
}

/// Notes that the peer at `place` was heard. Jiffies are a word that the verifier has read in place of a call;
/// the clock is asked, and the line that all CPUs share written, once a tick.
#[inline(always)]
fn note(place: u32) {
    let Some(seen) = TUNNEL_SEEN.get_ptr_mut(place) else {
        return;
    };
    // SAFETY: helpers without arguments.
    let tick = unsafe { bpf_jiffies64() >> TICK } as u32;
    // SAFETY: the map's own value; one word, which CPUs read and write whole.
    unsafe {
        if seen.read_volatile().tick() != tick {
            let second = (bpf_ktime_get_ns() / 1_000_000_000) as u32;
            seen.write_volatile(Seen::at(tick, second));
        }
    }
}

/// The outer UDP checksum is 0 over IPv4, as VXLAN has it (RFC 7348, 4.3), and reckoned over IPv6, where a
/// receiver need not take 0.
#[inline(always)]
fn send(ctx: &TcContext, peer: &Peer) -> Event {
    let mut aligned = Key::zeroed();
    let key = &mut aligned.0.key;
    key.tunnel_id = peer.vni;
    key.tunnel_ttl = HOPS;
    let flags = if peer.is_v6 != 0 {
        key.__bindgen_anon_1.remote_ipv6 = words(peer.endpoint);
        key.__bindgen_anon_3.local_ipv6 = words(peer.local);
        BPF_F_TUNINFO_IPV6
    } else {
        key.__bindgen_anon_1.remote_ipv4 = peer.endpoint[1] as u32;
        key.__bindgen_anon_3.local_ipv4 = peer.local[1] as u32;
        BPF_F_ZERO_CSUM_TX
    };
    let length = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: a helper that reads the key, of as many bytes.
    let set =
        unsafe { bpf_skb_set_tunnel_key(ctx.as_ptr().cast(), &raw mut *key, length, flags.into()) };
    match set {
        0 => Event::Sent,
        _ => Event::NoKey,
    }
}

/// What came is asked for as IPv4 first: the kernel refuses to tell of another family than it was.
#[inline(always)]
fn outer(ctx: &TcContext) -> Option<Outer> {
    let mut aligned = Key::zeroed();
    let key = &mut aligned.0.key;
    if get_key(ctx, key, 0) {
        // SAFETY: integers, whichever of the union's were written.
        let source = unsafe { key.__bindgen_anon_1.remote_ipv4 };
        return Some(Outer::v4(source, key.tunnel_id));
    }
    if get_key(ctx, key, BPF_F_TUNINFO_IPV6) {
        // SAFETY: as above.
        let words = unsafe { key.__bindgen_anon_1.remote_ipv6 };
        let half = |upper: u32, lower: u32| {
            u64::from(u32::from_be(upper)) << 32 | u64::from(u32::from_be(lower))
        };
        return Some(Outer {
            source: [half(words[0], words[1]), half(words[2], words[3])],
            vni: key.tunnel_id,
        });
    }
    None
}

#[inline(always)]
fn get_key(ctx: &TcContext, key: &mut bpf_tunnel_key, flags: u32) -> bool {
    let length = size_of::<bpf_tunnel_key>() as u32;
    // SAFETY: a helper that writes the key, of as many bytes.
    unsafe { bpf_skb_get_tunnel_key(ctx.as_ptr().cast(), key, length, flags.into()) == 0 }
}

#[inline(always)]
fn words(address: [u64; 2]) -> [u32; 4] {
    let [upper, lower] = address;
    [upper >> 32, upper, lower >> 32, lower].map(|word| (word as u32).to_be())
}

/// The value of the one map in `TUNNEL`.
struct TunnelTables {
    start: NonNull<u8>,
}

impl TunnelTables {
    #[inline(always)]
    fn get() -> Option<Self> {
        // A variable: see `maps::Node::tables`.
        let only = 0;
        let block = TUNNEL.get_value_ptr_mut(0, &only)?;
        Some(Self {
            start: NonNull::new(block)?.cast(),
        })
    }
}

impl Tables for TunnelTables {
    #[inline(always)]
    fn at<T: TableValue>(&self, offset: u32) -> Option<&T> {
        if offset > LIMIT {
            return None;
        }
        // SAFETY: a T is at most a line, and a line from `offset` on lies in the map's value, which stays
        // while the program runs; the builder aligns.
        Some(unsafe { &*self.start.as_ptr().add(offset as usize).cast::<T>() })
    }
}
