//! Chains of nftables that packets meet, by netlink (include/uapi/linux/netfilter/nf_tables.h).

use std::{fmt, io};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlaBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a message's type, and messages in the lower.
const SUBSYSTEM: u16 = 10 << 8;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Bytes of `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER: usize = 16;
const GENERIC: usize = 4;

/// Bytes of `struct nlattr`.
const ATTRIBUTE: usize = 4;

/// `NFTA_CHAIN_TABLE`, `NFTA_CHAIN_NAME`, `NFTA_CHAIN_HOOK` and, in that, `NFTA_HOOK_HOOKNUM`.
const TABLE: u16 = 1;
const NAME: u16 = 3;
const HOOK: u16 = 4;
const HOOK_NUMBER: u16 = 1;

/// In that too, of hooks at devices: `NFTA_HOOK_DEV`, and `NFTA_HOOK_DEVS` with a `NFTA_DEVICE_NAME` each.
const DEVICE: u16 = 3;
const DEVICES: u16 = 4;

/// `NFPROTO_*`.
const INET: u8 = 1;
const IPV4: u8 = 2;
const NETDEV: u8 = 5;
const BRIDGE: u8 = 7;
const IPV6: u8 = 10;

/// A chain at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseChain {
    family: u8,
    table: String,
    name: String,
    hook: u32,
    devices: Vec<String>,
}

impl BaseChain {
    /// Whether packets from the interface `from` to a pod of the node come through it: what comes by that, forwarded
    /// ones, those that a bridge sends on for the node, and what leaves by an interface.
    pub(crate) fn sees_pods(&self, from: &str) -> bool {
        const PREROUTING: u32 = 0;
        const FORWARD: u32 = 2;
        const OUTPUT: u32 = 3;
        const POSTROUTING: u32 = 4;
        const INET_INGRESS: u32 = 5;
        const NETDEV_INGRESS: u32 = 0;
        const NETDEV_EGRESS: u32 = 1;
        let is_there = || self.devices.iter().any(|device| device == from);
        match self.family {
            INET if self.hook == INET_INGRESS => is_there(),
            NETDEV if self.hook == NETDEV_INGRESS => is_there(),
            INET | IPV4 | IPV6 => matches!(self.hook, PREROUTING | FORWARD | POSTROUTING),
            BRIDGE => matches!(self.hook, OUTPUT | POSTROUTING),
            NETDEV => self.hook == NETDEV_EGRESS,
            _ => false,
        }
    }
}

impl fmt::Display for BaseChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            INET => "inet",
            IPV4 => "ip",
            IPV6 => "ip6",
            BRIDGE => "bridge",
            NETDEV => "netdev",
            _ => "another family",
        };
        let (table, name) = (&self.table, &self.name);
        write!(f, "the chain {name} of nftables (table {family} {table})")
    }
}

/// All chains at hooks, of this network namespace. None where the kernel has no nftables.
pub(crate) fn base_chains() -> io::Result<Vec<BaseChain>> {
    let mut socket = match Socket::new(NETLINK_NETFILTER) {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Vec::new()),
        socket => socket?,
    };
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(), 0)?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
            let payload = message.payload();
            match message.message_type() {
                NEW_CHAIN => found.extend(chain(payload)),
                DONE => return Ok(found),
                ERROR => return refused(payload).map_or(Ok(found), Err),
                _ => {}
            }
            let length = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn request() -> [u8; HEADER + GENERIC] {
    let mut bytes = [0; HEADER + GENERIC];
    let mut header = NetlinkBuffer::new(&mut bytes);
    header.set_length((HEADER + GENERIC) as u32);
    header.set_message_type(GET_CHAIN);
    header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    bytes
}

/// The kernel's error, but for the one of a kernel that has no nftables (`nfnetlink_rcv_msg`,
/// net/netfilter/nfnetlink.c).
fn refused(payload: &[u8]) -> Option<io::Error> {
    let code = i32::from_ne_bytes(*payload.first_chunk()?);
    let error = io::Error::from_raw_os_error(-code);
    (code != 0 && error.raw_os_error() != Some(libc::EINVAL)).then_some(error)
}

/// `None` for a chain that only others jump to.
fn chain(payload: &[u8]) -> Option<BaseChain> {
    let (generic, attributes) = payload.split_at_checked(GENERIC)?;
    let (mut table, mut name, mut hook) = (String::new(), String::new(), None);
    let mut devices = Vec::new();
    for (kind, value) in of(attributes) {
        match kind {
            TABLE => table = text(value),
            NAME => name = text(value),
            HOOK => {
                hook = of(value).find_map(|(kind, value)| number(kind, value));
                devices.extend(of(value).flat_map(|(kind, value)| names(kind, value)));
            }
            _ => {}
        }
    }
    Some(BaseChain {
        family: *generic.first()?,
        table,
        name,
        hook: hook?,
        devices,
    })
}

fn names(kind: u16, value: &[u8]) -> Vec<String> {
    match kind {
        DEVICE => vec![text(value)],
        DEVICES => of(value).map(|(_, name)| text(name)).collect(),
        _ => Vec::new(),
    }
}

fn of(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let known = NlasIterator::new(attributes).map_while(Result::ok);
    known.map(|attribute: NlaBuffer<&[u8]>| {
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        let value = attribute.into_inner().get(ATTRIBUTE..length);
        (kind, value.unwrap_or_default())
    })
}

fn number(kind: u16, value: &[u8]) -> Option<u32> {
    let bytes = value.first_chunk().filter(|_| kind == HOOK_NUMBER)?;
    Some(u32::from_be_bytes(*bytes))
}

fn text(value: &[u8]) -> String {
    let value = value.strip_suffix(&[0]).unwrap_or(value);
    String::from_utf8_lossy(value).into_owned()
}
