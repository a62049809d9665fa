//! A tunnel as it may be wanted.

use std::net::Ipv4Addr;

use headgate_compile::tunnel::{RemotePeer, tables};
use headgate_crds::IpNet;
use headgate_datapath::{
    failsafe::Prefix,
    state::DatapathState,
    tunnel::{MacAddress, Neighbours, Routes, Tunnel, TunnelDevice, TunnelRoute},
};

/// The UDP port of Linux's own.
pub const PORT: u16 = 8472;

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
        })
        .collect();
    let block = tables(&remotes, &[], port).expect("they fit");
    let (mut neighbours, mut routes) = (Neighbours::new(), Routes::new());
    for network in remotes.iter().flat_map(|remote| &remote.networks) {
        let gateway = network.network();
        neighbours.insert(gateway, MacAddress([2, 0, 0, 0, 0, 9]));
        let prefix = Prefix {
            address: gateway,
            length: network.prefix_len(),
        };
        let route = TunnelRoute {
            gateway,
            source: None,
        };
        routes.insert(prefix, route);
    }
    let tunnel = Tunnel {
        device: TunnelDevice {
            port,
            mtu: 1_450,
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
        },
        tables: block.digest(),
        neighbours,
        routes,
    };
    DatapathState {
        tunnel: Some(tunnel),
        blocks: [(block.digest(), block)].into(),
        ..DatapathState::default()
    }
}
