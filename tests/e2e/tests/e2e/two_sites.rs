//! Two sites with several networks each, joined by a gateway at each.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use headgate_e2e_tests::{
    namespace::Namespace,
    paths::example,
    trials::on_node,
    tunnel::{Host, Underlay},
};
use libtest_mimic::Trial;

const EXAMPLE: &str = "tunnels/two-sites.yaml";
const PORT: u16 = 9_000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_node("example_two_sites_are_joined", joined)]
}

/// A host of one of a site's networks.
struct Inhabitant {
    namespace: Namespace,
    addresses: [IpAddr; 2],
}

impl Inhabitant {
    /// Of network `network` behind a gateway, which is its router. Who connects to it is told its address.
    fn of(gateway: &Host, network: u8) -> Self {
        let site = gateway.number;
        let namespace = Namespace::new(&format!("site{site}net{network}"));
        let port = format!("net{network}");
        let path = gateway.namespace.path();
        namespace.ip(&format!(
            "link add eth0 type veth peer name {port} netns {}",
            path.display()
        ));
        let router = &gateway.namespace;
        router.ip(&format!("link set {port} up"));
        router.ip(&format!("address add 10.{site}.{network}.1/24 dev {port}"));
        router.ip(&format!(
            "address add fd00:{site}:{network}::1/48 dev {port} nodad"
        ));
        namespace.ip("link set eth0 up");
        namespace.ip(&format!("address add 10.{site}.{network}.2/24 dev eth0"));
        namespace.ip(&format!(
            "address add fd00:{site}:{network}::2/48 dev eth0 nodad"
        ));
        namespace.ip(&format!("route add default via 10.{site}.{network}.1"));
        namespace.ip(&format!(
            "-6 route add default via fd00:{site}:{network}::1"
        ));
        let v6 = [0xfd00, site.into(), network.into(), 0, 0, 0, 0, 2];
        let addresses = [IpAddr::from([10, site, network, 2]), IpAddr::from(v6)];
        for address in addresses {
            let listener = namespace.enter(|| TcpListener::bind((address, PORT)));
            let listener = listener.expect("the address is its own");
            thread::spawn(move || {
                while let Ok((mut stream, client)) = listener.accept() {
                    if stream
                        .write_all(client.ip().to_string().as_bytes())
                        .is_err()
                    {
                        return;
                    }
                }
            });
        }
        Self {
            namespace,
            addresses,
        }
    }

    /// Who another takes it for.
    fn known_as(&self, other: IpAddr) -> String {
        let place = SocketAddr::new(other, PORT);
        let patience = Duration::from_secs(5);
        let stream = self
            .namespace
            .enter(|| TcpStream::connect_timeout(&place, patience));
        let mut stream = stream.unwrap_or_else(|error| panic!("{place}: {error}"));
        let mut name = String::new();
        stream.read_to_string(&mut name).expect("an answer");
        name
    }
}

fn joined() {
    let link = Underlay::new();
    let gateways = [1, 2].map(|number| Host::on(&link, number));
    let networks = [5, 7];
    let [a, b] = [&gateways[0], &gateways[1]]
        .map(|gateway| networks.map(|network| Inhabitant::of(gateway, network)));
    let nodes = [&gateways[0], &gateways[1]].map(|gateway| gateway.node(&example(EXAMPLE)));
    for (here, there) in [(&a, &b), (&b, &a)] {
        for from in here {
            for to in there {
                for (own, address) in from.addresses.iter().zip(to.addresses) {
                    assert_eq!(from.known_as(address), own.to_string(), "to {address}");
                }
            }
        }
    }
    // Networks of one site are joined by its gateway, as before.
    assert_eq!(
        a[0].known_as(a[1].addresses[0]),
        a[0].addresses[0].to_string()
    );
    for node in &nodes {
        // Their hosts send longer packets than the tunnel takes, and are told so.
        let findings = node.status()["findings"].clone();
        for finding in findings.as_array().expect("a list") {
            assert_eq!(finding["reason"], "PodMtuTooLarge", "{finding:#}");
        }
        let view = node.headgate(&["tunnel", "list", "-o", "json"]).json();
        for peer in 0..2 {
            assert_eq!(view["peers"][peer]["state"], "Enforced", "{view:#}");
        }
    }
}
