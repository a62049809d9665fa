//! Cables between namespaces.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::namespace::Namespace;

/// One end of a cable.
#[derive(Clone, Debug)]
pub struct End {
    /// Name of the interface.
    pub interface: String,
    /// Its link-layer address.
    pub mac: [u8; 6],
    /// Its IPv4 address, of a /24.
    pub v4: Ipv4Addr,
    /// Its IPv6 address, of a /64.
    pub v6: Ipv6Addr,
}

/// A veth pair with addresses of both families; gone with either namespace.
#[derive(Clone, Debug)]
pub struct Cable {
    /// The client's end.
    pub client: End,
    /// The node's end.
    pub node: End,
}

impl Cable {
    /// Joins `eth0` of the client and `eth{number}` of the node, with addresses that depend on
    /// `number` alone: 192.168.{number}.2 to .1 and fd00:{number}::2 to ::1.
    ///
    /// # Panics
    /// Where the kernel refuses.
    #[must_use]
    pub fn between(client: &Namespace, node: &Namespace, number: u8) -> Self {
        let cable = Self {
            client: end("eth0", number, 2),
            node: end(&format!("eth{number}"), number, 1),
        };
        cable.lay(client, node);
        cable
    }

    /// Makes the pair, again after somebody deleted it.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn lay(&self, client: &Namespace, node: &Namespace) {
        client.ip(&format!(
            "link add {} address {} type veth peer name {} address {} netns {}",
            self.client.interface,
            mac_text(self.client.mac),
            self.node.interface,
            mac_text(self.node.mac),
            node.path().display(),
        ));
        self.client.set_up(client);
        self.node.set_up(node);
    }
}

impl End {
    /// Makes this end in `namespace`, with a bare far end named `port` in another.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub(crate) fn lay(&self, namespace: &Namespace, port: &str, far: &Namespace) {
        namespace.ip(&format!(
            "link add {} address {} type veth peer name {port} netns {}",
            self.interface,
            mac_text(self.mac),
            far.path().display(),
        ));
        self.set_up(namespace);
    }

    fn set_up(&self, namespace: &Namespace) {
        let interface = &self.interface;
        // No link-local address: no router solicitations among the packets that are counted.
        namespace.ip(&format!("link set {interface} addrgenmode none"));
        namespace.ip(&format!("addr add {}/24 dev {interface}", self.v4));
        namespace.ip(&format!("addr add {}/64 dev {interface} nodad", self.v6));
        namespace.ip(&format!("link set {interface} up"));
    }
}

fn end(interface: &str, number: u8, side: u8) -> End {
    End {
        interface: interface.to_owned(),
        mac: [2, 0, 0, 0, number, side],
        v4: Ipv4Addr::new(192, 168, number, side),
        v6: Ipv6Addr::new(0xfd00, number.into(), 0, 0, 0, 0, 0, side.into()),
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
