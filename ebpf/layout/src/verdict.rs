//! What became of a packet, and why.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What the policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// The packet goes on to the stack.
    Allow = 0,
    /// The packet ends here.
    Drop = 1,
}

/// Reserved counters for each port in `REASON_COUNTERS`.
pub const REASON_SLOTS: u32 = 32;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal => $action:ident,)*) => {
        /// Why a packet that no rule decided met its verdict.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[$doc])* $name = $value,)*
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// What happens to such a packet.
            #[inline(always)]
            #[must_use]
            pub const fn action(self) -> Action {
                match self {
                    $(Reason::$name => Action::$action,)*
                }
            }

            /// The reason with this number.
            #[inline(always)]
            #[must_use]
            pub const fn numbered(number: u32) -> Option<Self> {
                match number {
                    $($value => Some(Reason::$name),)*
                    _ => None,
                }
            }

            /// Name as shown to people, in metrics and in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Reason::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// No rule matched; the policies' default is Allow.
    DefaultAllow = 0 => Allow,
    /// No rule matched; a policy's default is Drop.
    DefaultDrop = 1 => Drop,
    /// Neither IPv4 nor IPv6: policies do not concern it.
    NotIp = 2 => Allow,
    /// The verdict would have been Drop, but the node needs this peer or protocol to live.
    Failsafe = 3 => Allow,
    /// A header cut short or against its own length fields, or an IP length beyond the frame.
    Malformed = 4 => Drop,
    /// More than two VLAN tags.
    VlanDepth = 5 => Drop,
    /// More than eight IPv6 extension headers.
    ExtensionHeaders = 6 => Drop,
    /// An IPv4 fragment at offset 1 that says TCP: it would overwrite the flags (RFC 1858).
    TcpFragmentOverlap = 7 => Drop,
    /// Headers that do not lie in the first buffer of a multi-buffer frame.
    HeaderNotLinear = 8 => Drop,
    /// No tables for this port: an error of ours, reported by the agent as such.
    NoTables = 9 => Allow,
    /// The load balancer has no backend for this service: the sender is told by ICMP if the service says so.
    NoBackend = 10 => Drop,
    /// The link-layer address of the way to this backend is not known.
    NoNextHop = 11 => Drop,
    /// A fragment for an address and protocol that the load balancer serves: only the first one has
    /// ports, so they would not meet at one backend.
    ServiceFragment = 12 => Drop,
    /// Longer than what the way on takes: the sender is told by ICMP.
    MtuExceeded = 13 => Drop,
    /// Its time to live or hop limit ends here, on the way to a backend: the sender is told by ICMP.
    TtlExceeded = 14 => Drop,
    /// Of a flow that goes through Nat, or a reply in one: policies judged its first packet.
    KnownFlow = 15 => Allow,
    /// No room for a new flow: those that it may take the place of are all established, or were taken by
    /// another in this very moment; or there is no table of flows.
    FlowsExhausted = 16 => Drop,
    /// IPv4 options or IPv6 extension headers in a packet that Nat would have to change.
    HeaderOptions = 17 => Drop,
    /// A reset of no flow that Nat knows, or an ICMP error for a service's address about none.
    UnknownFlow = 18 => Drop,
}

/// A counter's value on one CPU.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes from the Ethernet header to the end of the IP packet (link padding left out); of a
    /// frame that is not IP or cannot be parsed, the bytes of its first buffer.
    pub bytes: u64,
}
