//! A tunnel as it may be wanted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use headgate_compile::tunnel::{RemotePeer, tables};
use headgate_crds::IpNet;
use headgate_datapath::{
    failsafe::Prefix,
    state::DatapathState,
    tunnel::{MacAddress, Neighbours, Routes, Tunnel, TunnelDevice, TunnelRoute},
};

/// The UDP port of Linux's own.
pub const PORT: u16 = 8472;

/// The MAC address of the node's own device.
pub const OWN_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// The MAC address of every peer's device.
pub const PEER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

/// A tunnel to so many peers, each with a network of its own, at this port.
/// The peer of number N has the network 10.N.0/24.
///
/// # Panics
/// Where there are more than fit.
#[must_use]
pub fn tunnel(peers: u32, port: u16) -> DatapathState {
    let remotes: Vec<RemotePeer> = (0..peers)
        .map(|number| RemotePeer {
            networks: vec![
                IpNet::new(Ipv4Addr::from_bits(10 << 24 | number << 8).into(), 24)
                    .expect("a network"),
            ],
            endpoint: Ipv4Addr::from_bits(172 << 24 | 16 << 16 | number).into(),
            local: None,
            vni: 7,
            accepted_vni: 7,
            is_direct: false,
        })
        .collect();
    tunnel_to(&remotes, &[], port)
}

/// A tunnel to these peers, of a node that has the networks `own`, and in each the address that ends in 1.
///
/// # Panics
/// Where there are more than fit.
#[must_use]
pub fn tunnel_to(remotes: &[RemotePeer], own: &[IpNet], port: u16) -> DatapathState {
    let block = tables(remotes, own, port).expect("they fit");
    let (mut neighbours, mut routes) = (Neighbours::new(), Routes::new());
    for network in remotes.iter().flat_map(|remote| &remote.networks) {
        let gateway = match network.network() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(_) => "fe80::9".parse().expect("an address"),
        };
        neighbours.insert(gateway, PEER_MAC);
        let prefix = Prefix {
            address: network.network(),
            length: network.prefix_len(),
        };
        let mut own = own.iter().map(IpNet::network);
        let own = own.find(|address| address.is_ipv4() == gateway.is_ipv4());
        let source = own.map(|network| match network {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() + 1).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() + 1).into(),
        });
        routes.insert(prefix, TunnelRoute { gateway, source });
    }
    let tunnel = Tunnel {
        device: TunnelDevice {
            port,
            mtu: 1_430,
            mac: OWN_MAC,
        },
        tables: block.digest(),
        neighbours,
        routes,
        pods: std::collections::BTreeMap::new(),
    };
    DatapathState {
        tunnel: Some(tunnel),
        blocks: [(block.digest(), block)].into(),
        ..DatapathState::default()
    }
}
