//! A neighbour to measure beside: a load balancer that remembers the backend of each flow in an LRU hash table, as
//! Katran and Cilium do in theirs, here in its least form: IPv4 without options, UDP and TCP, no policy, no
//! parsing of anything else, and frames sent on by another link-layer address as DirectReturn does.

use aya_ebpf::{
    bindings::{BPF_ANY, xdp_action},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// As many as Headgate's table of flows through Nat has.
const FLOWS: usize = 1 << 18;
const RING: usize = 16_381;
const BACKENDS: usize = 100;

/// Where a service is reached: address, and port and protocol, in the order of the wire.
type Place = [u32; 2];
/// Source, destination, both ports, protocol.
type Flow = [u32; 4];

#[btf_map]
static PLACES: HashMap<Place, u32, 1_024> = HashMap::new();

#[btf_map]
static BACKEND_OF: LruHashMap<Flow, u32, FLOWS> = LruHashMap::new();

/// The one service's that is measured.
#[btf_map]
static RING_ENTRIES: Array<u32, RING> = Array::new();

/// Destination and source address of a frame to each.
#[btf_map]
static LINKS: Array<[u8; 16], BACKENDS> = Array::new();

/// Packets by service.
#[btf_map]
static PACKETS: PerCpuArray<u64, 1_024> = PerCpuArray::new();

/// Ethernet, IPv4 and ports.
#[repr(C, packed)]
struct Headers {
    link: [u8; 12],
    ethertype: u16,
    version_and_length: u8,
    traffic_class: u8,
    total_length: u16,
    identification: u16,
    fragment: u16,
    time_to_live: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
    ports: [u16; 2],
}

#[xdp(frags)]
pub fn per_flow(ctx: XdpContext) -> u32 {
    if ctx.data() + size_of::<Headers>() > ctx.data_end() {
        return xdp_action::XDP_PASS;
    }
    // SAFETY: the bytes lie before data_end, as just compared, and any alignment will do.
    let headers = unsafe { &mut *(ctx.data() as *mut Headers) };
    let is_plain = headers.ethertype == 0x0800_u16.to_be()
        && headers.version_and_length == 0x45
        && headers.fragment & 0xff3f_u16.to_le() == 0
        && headers.time_to_live > 1;
    if !is_plain {
        return xdp_action::XDP_PASS;
    }
    let [source_port, port] = headers.ports;
    let protocol = u32::from(headers.protocol);
    let place: Place = [headers.destination, u32::from(port) << 16 | protocol];
    // SAFETY: nobody writes this map while packets are run.
    let Some(&service) = (unsafe { PLACES.get(place) }) else {
        return xdp_action::XDP_PASS;
    };
    let ports = u32::from(source_port) << 16 | u32::from(port);
    let flow: Flow = [headers.source, headers.destination, ports, protocol];
    let Some(backend) = backend_of(&flow) else {
        return xdp_action::XDP_DROP;
    };
    let Some(link) = LINKS.get_ptr(backend) else {
        return xdp_action::XDP_DROP;
    };
    // SAFETY: the map's value; nobody writes it while packets are run.
    headers.link = unsafe { *link.cast::<[u8; 12]>() };
    headers.time_to_live -= 1;
    let sum = u32::from(headers.checksum) + u32::from(0x0100_u16.to_be());
    headers.checksum = (sum + (sum >> 16)) as u16;
    if let Some(packets) = PACKETS.get_ptr_mut(service) {
        // SAFETY: this processor's own value.
        unsafe { *packets += 1 };
    }
    xdp_action::XDP_TX
}

#[inline(always)]
fn backend_of(flow: &Flow) -> Option<u32> {
    // SAFETY: values are words, and a flow's never changes.
    if let Some(&backend) = unsafe { BACKEND_OF.get(*flow) } {
        return Some(backend);
    }
    let mut hash = flow[0] ^ flow[2].rotate_left(16) ^ flow[1];
    hash = (hash ^ hash >> 16).wrapping_mul(0x45d9_f3b5);
    hash = (hash ^ hash >> 15).wrapping_mul(0x45d9_f3b5);
    let entry = RING_ENTRIES.get_ptr((hash ^ hash >> 16) % RING as u32)?;
    // SAFETY: the map's value; nobody writes it while packets are run.
    let backend = unsafe { *entry };
    // Without room the next packet asks the ring again.
    let _ = BACKEND_OF.insert(*flow, backend, u64::from(BPF_ANY));
    Some(backend)
}
