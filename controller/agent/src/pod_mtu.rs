//! How long packets of this node's pods may be, read again only where it may have changed.

use std::collections::BTreeSet;

use headgate_compile::{
    memory::Seconds,
    node::{Interface, InterfaceKind},
};
use headgate_datapath::{
    failsafe::Prefix,
    kernel::KernelError,
    pods::{Neighbourhood, largest_mtu},
    state::Ifindex,
};

/// A route to a new pod may come after its link, and no event tells of it.
const LASTS: u64 = 60;

/// See the module.
#[derive(Default)]
pub(crate) struct PodMtu {
    known: Option<Known>,
}

struct Known {
    networks: BTreeSet<Prefix>,
    veths: Vec<Veth>,
    at: Seconds,
    mtu: Option<u32>,
}

/// Number, MTU and bridge.
type Veth = (Ifindex, u32, Option<Ifindex>);

impl PodMtu {
    /// The largest MTU of the pods whose addresses are in `networks`, on a node with these interfaces; `read` is
    /// asked for links and routes where that has to be found out anew.
    pub(crate) fn of(
        &mut self,
        networks: BTreeSet<Prefix>,
        interfaces: &[Interface],
        now: Seconds,
        read: impl FnOnce() -> Result<Neighbourhood, KernelError>,
    ) -> Result<Option<u32>, KernelError> {
        let veths = interfaces.iter();
        let veths = veths.filter(|interface| interface.kind == InterfaceKind::Veth);
        let veths: Vec<Veth> = veths.map(|i| (i.ifindex, i.mtu, i.master)).collect();
        if networks.is_empty() || veths.is_empty() {
            self.known = None;
            return Ok(None);
        }
        if let Some(known) = &self.known
            && known.networks == networks
            && known.veths == veths
            && now.0.saturating_sub(known.at.0) < LASTS
        {
            return Ok(known.mtu);
        }
        let mtu = largest_mtu(&read()?, &networks);
        self.known = Some(Known {
            networks,
            veths,
            at: now,
            mtu,
        });
        Ok(mtu)
    }
}

#[cfg(test)]
mod tests {
    use headgate_datapath::pods::{Link, LinkKind};

    use super::*;

    fn interface(mtu: u32) -> Interface {
        Interface {
            name: "cali1".to_owned(),
            ifindex: Ifindex(3),
            kind: InterfaceKind::Veth,
            mtu,
            master: None,
            lower: None,
            has_default_route: false,
        }
    }

    fn neighbourhood(mtu: u32) -> Neighbourhood {
        let link = Link {
            name: "cali1".to_owned(),
            kind: LinkKind::Veth {
                peer: None,
                is_elsewhere: true,
            },
            master: None,
            mtu,
        };
        Neighbourhood {
            links: [(Ifindex(3), link)].into(),
            routes: [(prefix(32), Ifindex(3))].into(),
            ..Neighbourhood::default()
        }
    }

    fn prefix(length: u8) -> Prefix {
        Prefix {
            address: [10, 244, 1, 0].into(),
            length,
        }
    }

    #[test]
    fn the_kernel_is_asked_only_where_something_may_have_changed() {
        let mut pods = PodMtu::default();
        let mut asked = 0;
        let mut ask = |networks: &[Prefix], mtu: u32, now: u64| {
            let before = asked;
            let interfaces = [interface(mtu)];
            let networks = networks.iter().copied().collect();
            let found = pods.of(networks, &interfaces, Seconds(now), || {
                asked += 1;
                Ok(neighbourhood(mtu))
            });
            (found.expect("read"), asked > before)
        };
        assert_eq!(ask(&[], 1_500, 1), (None, false), "no tunnel");
        let own = [prefix(24)];
        assert_eq!(ask(&own, 1_500, 1), (Some(1_500), true));
        assert_eq!(ask(&own, 1_500, 60), (Some(1_500), false), "at rest");
        assert_eq!(ask(&own, 1_500, 61), (Some(1_500), true), "a minute later");
        assert_eq!(ask(&own, 1_400, 62), (Some(1_400), true), "another MTU");
        assert_eq!(ask(&[], 1_400, 63), (None, false), "the tunnel is gone");
    }
}
