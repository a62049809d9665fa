//! The tunnel as plain data: one device, the tables of its programs, and what sends packets to it.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use crate::{
    failsafe::Prefix,
    state::{Digest, Ifindex},
};

/// Name of the device.
pub const DEVICE: &str = "headgate_vxlan";

/// A link-layer address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelDevice {
    /// UDP port that it listens at and sends to.
    pub port: u16,
    /// Bytes of an inner IP packet.
    pub mtu: u32,
    /// Its link-layer address.
    pub mac: MacAddress,
}

/// A route by the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelRoute {
    /// The neighbour that stands for the peer.
    pub gateway: IpAddr,
    /// What the node's own packets on this way have for their source.
    pub source: Option<IpAddr>,
}

/// Neighbours at the device, all permanent.
pub type Neighbours = BTreeMap<IpAddr, MacAddress>;

/// Routes by the device.
pub type Routes = BTreeMap<Prefix, TunnelRoute>;

/// A pod of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPod {
    /// The node's end of its veth pair.
    pub ifindex: Ifindex,
    /// Link-layer address of its own end.
    pub mac: MacAddress,
}

/// Pods by address.
pub type Pods = BTreeMap<IpAddr, LocalPod>;

/// The wanted tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The device.
    pub device: TunnelDevice,
    /// The tables of its programs, a key of [`crate::state::DatapathState::blocks`].
    pub tables: Digest,
    /// Neighbours.
    pub neighbours: Neighbours,
    /// Routes.
    pub routes: Routes,
    /// Pods that packets are given to directly. Each stands for itself, they come and go, and where one is missing the
    /// stack does its work: they are no part of the digest.
    pub pods: Pods,
}

impl Tunnel {
    /// Digest of all of it, pods apart.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let whole = (Some(self.device), Some(self.tables), true);
        digest(whole, &self.neighbours, &self.routes)
    }
}

/// A device of ours as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundDevice {
    /// Its port and addresses.
    pub device: TunnelDevice,
    /// Whether it is up.
    pub is_up: bool,
}

/// The way that packets to a peer's network take in place of the tunnel's: somebody else's route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diversion {
    /// Destination of that route.
    pub route: Prefix,
    /// The interface that it leads to, where it is one.
    pub device: Option<String>,
}

/// What the kernel was found to hold of a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedTunnel {
    /// The device, where it is ours.
    pub device: Option<FoundDevice>,
    /// Tables of its programs.
    pub tables: Option<Digest>,
    /// Digest of the object that both programs at the device were loaded from; `None` where one is missing
    /// or none of ours.
    pub programs: Option<Digest>,
    /// Permanent neighbours at the device.
    pub neighbours: Neighbours,
    /// Routes of ours by the device.
    pub routes: Routes,
    /// Pods that packets are given to directly.
    pub pods: Pods,
    /// Networks of these routes that packets do not reach by them.
    pub diverted: BTreeMap<Prefix, Diversion>,
}

impl ObservedTunnel {
    /// Why packets to some of these networks do not take the tunnel although its routes are there.
    #[must_use]
    pub fn diversion(&self, networks: impl IntoIterator<Item = Prefix>) -> Option<String> {
        let networks = networks.into_iter();
        let diverted = networks.filter_map(|network| self.diverted.get_key_value(&network));
        let diverted: BTreeMap<_, _> = diverted.collect();
        let (network, way) = diverted.first_key_value()?;
        let device = way.device.as_deref();
        let by = device.map_or_else(|| "another way".to_owned(), |device| format!("by {device}"));
        let more = match diverted.len() - 1 {
            0 => String::new(),
            more => format!(", and so it is with {more} more"),
        };
        Some(format!(
            "packets to {network} leave {by}: the route to {} is somebody else's and goes before the tunnel's{more}; remove it, or the network from the peer's podCIDRs",
            way.route
        ))
    }

    /// Whether there is nothing of a tunnel.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        *self == Self::default()
    }

    /// Digest of all of it, the same as the wanted tunnel's where it is as wanted; `None` where there is
    /// nothing. What somebody else's routes divert concerns single networks, and is no part of it.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        if self.is_absent() {
            return None;
        }
        let device = self.device.map(|found| found.device);
        let is_up = self.device.is_some_and(|found| found.is_up);
        let works = is_up && self.programs.is_some();
        let whole = (device, self.tables, works);
        Some(digest(whole, &self.neighbours, &self.routes))
    }
}

/// Device, tables, and whether packets meet the programs.
type Parts = (Option<TunnelDevice>, Option<Digest>, bool);

fn digest(parts: Parts, neighbours: &Neighbours, routes: &Routes) -> Digest {
    let (device, tables, works) = parts;
    let tables = tables.map(|digest| digest.bytes());
    let text = format!("{device:?} {tables:?} {works} {neighbours:?} {routes:?}");
    Digest::of(text.as_bytes())
}
