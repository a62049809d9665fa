//! Word of changes, as they happen.

use std::{collections::BTreeMap, io, net::IpAddr};

use headgate_datapath::kernel::KernelError;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

use crate::{
    error::Asked,
    interfaces::is_default,
    netlink::messages,
    next_hops::{Neighbour, address_of, state_of},
};

/// `RTNLGRP_LINK`, `_NEIGH`, `_IPV4_IFADDR`, `_IPV6_IFADDR`, `_IPV4_ROUTE` and `_IPV6_ROUTE`.
const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// A subscription to changes of links, addresses, default routes and some neighbours.
pub struct Changes {
    socket: TokioSocket,
    neighbours: BTreeMap<IpAddr, Neighbour>,
}

impl Changes {
    pub(crate) fn subscribe() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            socket.socket_mut().add_membership(group)?;
        }
        Ok(Self {
            socket,
            neighbours: BTreeMap::new(),
        })
    }

    /// From now on, these neighbours count where they are no longer as given, and no others.
    pub fn follow_neighbours(&mut self, neighbours: BTreeMap<IpAddr, Neighbour>) {
        self.neighbours = neighbours;
    }

    /// Returns when something has changed since the last return; many changes at once may make one
    /// return or several. Safe to drop at any await.
    ///
    /// # Errors
    /// Where the socket fails.
    pub async fn next(&mut self) -> Result<(), KernelError> {
        loop {
            match self.socket.recv_from_full().await {
                Ok((datagram, _)) => {
                    if messages(&datagram).any(|message| self.concerns_us(&message)) {
                        return Ok(());
                    }
                }
                // Changes came faster than we read: some are lost, so something has changed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error).asked(|| "waiting for changes".to_owned()),
            }
        }
    }

    /// Routes other than default ones, and neighbours, come by the thousand on some nodes, and most
    /// mean nothing to us.
    fn concerns_us(&self, message: &io::Result<NetlinkMessage<RouteNetlinkMessage>>) -> bool {
        let Ok(NetlinkMessage {
            payload: NetlinkPayload::InnerMessage(message),
            ..
        }) = message
        else {
            return true;
        };
        match message {
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                is_default(route)
            }
            RouteNetlinkMessage::NewNeighbour(neighbour)
            | RouteNetlinkMessage::DelNeighbour(neighbour) => {
                let known = address_of(neighbour).and_then(|address| self.neighbours.get(&address));
                known.is_some_and(|known| is_news(*known, state_of(neighbour)))
            }
            _ => true,
        }
    }
}

/// A neighbour that is only asked again is no news: it may still be where it was.
fn is_news(known: Neighbour, now: Neighbour) -> bool {
    now != known && now != Neighbour::Unknown
}
