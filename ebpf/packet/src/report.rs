//! What the sender of a packet is told that could not be sent on (RFC 1191, RFC 1812 section 4.3, RFC 4443).

use core::hint::black_box;

use headgate_layout::{services::Way, verdict::Reason};
use zerocopy::byteorder::network_endian::{U16, U32, U64};

use crate::{
    flows::Ends,
    forward::{Refusal, way_back},
    frame::{Frame, Resize},
    icmp::HOPS,
    parse::{ETHERNET_LENGTH, PROTOCOL_ICMP, PROTOCOL_ICMPV6},
    tables::Tables,
    wire::{
        Change, ICMP_LENGTH, IPV4_WITHOUT_OPTIONS, IcmpHeader, Ipv4Header, Ipv6Header, LinkHeader,
        Version, addresses, is_one_host,
    },
};

/// Bytes of the largest error: what any host takes (RFC 1812), and IPv6's minimal MTU (RFC 4443).
const LONGEST_V4: u32 = 576;
const LONGEST_V6: u32 = 1_280;

/// Type and code, and the word behind the checksum.
struct Error {
    kind: u8,
    code: u8,
    rest: u32,
}

impl Error {
    #[inline(always)]
    fn of(version: Version, refusal: Refusal) -> Option<Self> {
        let mtu = u32::from(refusal.mtu);
        let (kind, code, rest) = match (version, refusal.reason) {
            (Version::V4, Reason::MtuExceeded) => (3, 4, mtu),
            (Version::V4, Reason::TtlExceeded) => (11, 0, 0),
            // The port cannot be reached.
            (Version::V4, Reason::NoBackend) => (3, 3, 0),
            (Version::V6, Reason::NoBackend) => (1, 4, 0),
            (Version::V6, Reason::MtuExceeded) => (2, 0, mtu.max(LONGEST_V6)),
            (Version::V6, Reason::TtlExceeded) => (3, 0, 0),
            _ => return None,
        };
        Some(Self { kind, code, rest })
    }
}

/// Makes `frame`, of which `length` bytes are link-layer header and IP packet, the error for its sender, from
/// the address that it was for, and says the way that it goes. `None`: nothing is to be told, and the frame
/// may be anything now.
#[inline(always)]
pub fn report<F: Resize + ?Sized, S: Tables>(
    frame: &mut F,
    tables: &S,
    refusal: Refusal,
    length: u32,
    ifindex: u32,
) -> Option<Way> {
    let version = Version::of(frame)?.ok()?;
    let error = Error::of(version, refusal)?;
    let way = way_back(frame, tables, ifindex)?;
    let ends = addresses(frame, version, ETHERNET_LENGTH)?;
    if !is_one_host(version, &ends.source) {
        return None;
    }
    let longest = match version {
        Version::V4 => LONGEST_V4,
        Version::V6 => LONGEST_V6,
    };
    let headers = version.header_length() + ICMP_LENGTH;
    // Whole words, which the checksum is reckoned by.
    let quote = length
        .saturating_sub(ETHERNET_LENGTH)
        .min(longest - headers)
        & !3;
    if !frame.reframe(headers, ETHERNET_LENGTH + headers + quote) {
        return None;
    }
    let sum = sum_of(frame, ETHERNET_LENGTH + headers, quote)?;
    write_link(frame, version, &way)?;
    match version {
        Version::V4 => write_v4(frame, &ends, headers + quote)?,
        Version::V6 => write_v6(frame, &ends, ICMP_LENGTH + quote)?,
    }
    let mut checksum = sum;
    checksum.add(u32::from(error.kind) << 24 | u32::from(error.code) << 16);
    checksum.add(error.rest);
    if version == Version::V6 {
        checksum.add_address(&ends.source);
        checksum.add_address(&ends.destination);
        checksum.add(ICMP_LENGTH + quote);
        checksum.add(PROTOCOL_ICMPV6.into());
    }
    let header: &mut IcmpHeader = frame.at_mut(version.transport())?;
    header.kind = error.kind;
    header.code = error.code;
    header.rest = U32::new(error.rest);
    header.checksum = U16::new(checksum.fresh());
    Some(way)
}

#[inline(always)]
fn sum_of<F: Frame + ?Sized>(frame: &F, start: u32, length: u32) -> Option<Change> {
    let mut sum = Change::default();
    for number in 0..LONGEST_V6 / 4 {
        if number * 4 >= length {
            break;
        }
        // Else the compiler reckons with the end of the frame in place of the place, which the verifier refuses. It
        // wants to see a bound, too.
        let place = black_box(start + number * 4) & 0x7ff;
        sum.add(frame.at::<U32>(place)?.get());
    }
    Some(sum)
}

#[inline(always)]
fn write_link<F: Resize + ?Sized>(frame: &mut F, version: Version, way: &Way) -> Option<()> {
    let header: &mut LinkHeader = frame.at_mut(0)?;
    header.set_addresses(way.link);
    header.ethertype = U16::new(version.ethertype());
    Some(())
}

/// `length` bytes of IP packet, whose ends are those of the packet that it answers, reversed.
#[inline(always)]
fn write_v4<F: Resize + ?Sized>(frame: &mut F, ends: &Ends, length: u32) -> Option<()> {
    let header: &mut Ipv4Header = frame.at_mut(ETHERNET_LENGTH)?;
    header.version_and_length = IPV4_WITHOUT_OPTIONS;
    // Internetwork control (RFC 1812, section 4.3.2.5).
    header.traffic_class = 0xc0;
    header.total_length = U16::new(length as u16);
    header.identification = U16::new(0);
    header.fragment = U16::new(0);
    header.time_to_live = HOPS;
    header.protocol = PROTOCOL_ICMP;
    header.source = U32::new(ends.destination[1] as u32);
    header.destination = U32::new(ends.source[1] as u32);
    let mut sum = Change::default();
    sum.add(u32::from(IPV4_WITHOUT_OPTIONS) << 24 | 0xc0 << 16 | length);
    sum.add(u32::from(HOPS) << 24 | u32::from(PROTOCOL_ICMP) << 16);
    sum.add(ends.destination[1] as u32);
    sum.add(ends.source[1] as u32);
    header.checksum = U16::new(sum.fresh());
    Some(())
}

/// The same of IPv6, with `length` bytes behind the header.
#[inline(always)]
fn write_v6<F: Resize + ?Sized>(frame: &mut F, ends: &Ends, length: u32) -> Option<()> {
    let header: &mut Ipv6Header = frame.at_mut(ETHERNET_LENGTH)?;
    header.version_and_flow = U32::new(6 << 28);
    header.payload_length = U16::new(length as u16);
    header.next_header = PROTOCOL_ICMPV6;
    header.hop_limit = HOPS;
    header.source = ends.destination.map(U64::new);
    header.destination = ends.source.map(U64::new);
    Some(())
}
