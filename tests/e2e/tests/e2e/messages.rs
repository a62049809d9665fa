//! ICMP errors that come from services' addresses, and that go to them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    os::fd::AsRawFd as _,
};

use headgate_e2e_tests::{
    namespace::Namespace,
    services::{BEHIND, ServiceLab, VIRTUAL, ask, connect_from, exchange},
    trials::on_node_with,
};
use libtest_mimic::Trial;
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
        sockopt::{Ipv6Ttl, ReceiveTimeout},
    },
    time::TimeVal,
};

use crate::clients::{FORWARDINGS, ports, serve_on, serving};

pub(crate) fn trials() -> Vec<Trial> {
    let on_lab = |name, test| on_node_with(name, &["ethtool"], test);
    vec![
        on_lab("clients_learn_the_path_mtu_to_a_backend", upwards),
        on_lab("backends_learn_the_path_mtu_to_a_client", downwards),
        on_lab("who_sends_with_one_hop_left_is_told", expired),
    ]
}

/// Bytes of an upload, and of its answer.
const BYTES: usize = 100_000;

/// What the kernel knows of a way: `ip route get`.
fn way(namespace: &Namespace, to: IpAddr) -> String {
    namespace.ip(&format!("route get {to}"))
}

fn upwards() {
    for forwarding in FORWARDINGS {
        let lab = ServiceLab::new(1);
        let (end, node) = (&lab.backends[0].end, &lab.node.namespace);
        node.ip(&format!("route add {}/32 dev eth0 mtu 1400", end.v4));
        node.ip(&format!("-6 route add {}/128 dev eth0 mtu 1400", end.v6));
        let lab = serve_on(lab, forwarding, ports(forwarding));
        for (family, address) in VIRTUAL.into_iter().enumerate() {
            let before = counted(&lab);
            let mut stream = lab.connect(family).expect("a backend answers");
            exchange(&mut stream, BYTES).expect("all goes through");
            assert!(counted(&lab) > before, "{address} by {forwarding}");
            let way = way(&lab.client, address);
            assert!(way.contains("mtu 1400"), "{way}");
        }
    }
}

fn counted(lab: &ServiceLab) -> u64 {
    let counters = lab.node.counters();
    counters.get("MtuExceeded").copied().unwrap_or(0)
}

fn downwards() {
    for forwarding in FORWARDINGS {
        let lab = serving(forwarding, ports(forwarding), 1);
        let client = lab.client_behind_a_router();
        lab.client.ip(&format!("link set {BEHIND} mtu 1300"));
        // It sends what the link takes, and does not tell the backend by its MSS.
        client.ip("route replace default via 10.9.9.1 mtu 1300 advmss 1460");
        client.ip("-6 route replace default via fd99::1 mtu 1300 advmss 1440");
        let backend = &lab.backends[0];
        let seen: [IpAddr; 2] = match forwarding {
            "Nat" => [lab.balancer.v4.into(), lab.balancer.v6.into()],
            _ => [
                Ipv4Addr::new(10, 9, 9, 2).into(),
                Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2).into(),
            ],
        };
        for (address, seen) in VIRTUAL.into_iter().zip(seen) {
            let mut stream = connect_from(&client, address).expect("a backend answers");
            exchange(&mut stream, BYTES).expect("all goes through");
            let way = way(&backend.namespace, seen);
            assert!(way.contains("mtu 1300"), "{way}");
            // Other clients, whose ways are wider, are answered as before.
            let mut stream = connect_from(&lab.client, address).expect("a backend answers");
            ask(&mut stream).expect("an answer");
        }
    }
}

/// As traceroute looks for hops.
fn expired() {
    for forwarding in FORWARDINGS {
        let mdns = "{name: mdns, protocol: UDP, port: 5353}";
        let lab = serving(forwarding, mdns, 1);
        for family in [0, 1] {
            assert!(is_told(&lab.client, family), "family {family}");
        }
        assert!(lab.node.counters()["TtlExceeded"] >= 2);
    }
}

/// Whether "time exceeded" comes from the service's address, about a datagram with one hop to live.
fn is_told(client: &Namespace, family: usize) -> bool {
    let (any, domain, protocol): (IpAddr, _, _) = match family {
        0 => (
            Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet,
            SockProtocol::Icmp,
        ),
        _ => (
            Ipv6Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6,
            SockProtocol::IcmpV6,
        ),
    };
    client.enter(|| {
        let listening = socket(domain, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol);
        let listening = listening.expect("root may have a raw socket");
        setsockopt(&listening, ReceiveTimeout, &TimeVal::new(2, 0)).expect("a socket's option");
        let sending = UdpSocket::bind((any, 0)).expect("any port");
        match family {
            0 => sending.set_ttl(1).expect("a socket's option"),
            _ => setsockopt(&sending, Ipv6Ttl, &1).expect("a socket's option"),
        }
        sending
            .send_to(b"who is there?", (VIRTUAL[family], 5353))
            .expect("sent");
        let mut message = [0; 1_500];
        loop {
            let Ok(length) = recv(listening.as_raw_fd(), &mut message, MsgFlags::empty()) else {
                return false;
            };
            if concerns(&message[..length], family) {
                return true;
            }
        }
    })
}

/// Whether a message says "time exceeded" of a datagram to the service, in its name.
fn concerns(message: &[u8], family: usize) -> bool {
    // Raw sockets give the IP header too, by IPv4 alone. A quote has the destination last in its header.
    let (kind, message, header) = match family {
        0 => (11, &message[20..], 20),
        _ => (3, message, 40),
    };
    let quoted = message.get(8..8 + header + 4);
    let (Some(quoted), true) = (quoted, message[0] == kind) else {
        return false;
    };
    let (header, ports) = quoted.split_at(header);
    let address = match VIRTUAL[family] {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    header.ends_with(&address) && ports[2..] == 5353_u16.to_be_bytes()
}
