//! What the tunnel's packets look like on the wire, and what becomes of those that are none.

use std::{net::UdpSocket, path::Path, process::Command, time::Duration};

use headgate_e2e_tests::{
    capture::Capture,
    frames::{arp, udp},
    namespace::{Namespace, run},
    node::{Node, SOON},
    trials::{on_node, on_node_with},
    tunnel::{Host, ask, ask_for_much, connect, count, datagram},
    wait::wait_for,
};
use libtest_mimic::Trial;

use crate::{clients::said, monitor::Monitor, tunnelling::Site};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node_with(
            "another_program_reads_the_wire_without_complaint",
            &["ethtool", "tshark"],
            read,
        ),
        on_node("what_is_no_peers_packet_is_dropped_by_reason", dropped),
        on_node("a_monitor_tells_what_the_tunnel_drops", told),
    ]
}

/// What the packets of a capture hold: those that `filter` takes, a line each.
fn decoded(file: &Path, filter: &str) -> String {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(file).args(["-Y", filter]);
    tshark.args(["-d", "udp.port==8472,vxlan"]);
    for checked in ["ip", "udp", "tcp"] {
        tshark.args(["-o", &format!("{checked}.check_checksum:TRUE")]);
    }
    // Two CPUs send at once: the order of segments is theirs.
    tshark.args(["-o", "tcp.analyze_sequence_numbers:FALSE"]);
    tshark.args(["-T", "fields"]);
    for field in [
        "vxlan.vni",
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
        "udp.dstport",
        "_ws.expert.message",
    ] {
        tshark.args(["-e", field]);
    }
    said(&mut tshark)
}

/// Everything reckoned by who sends it: what the capture sees is what a network card would send.
fn without_offloads(namespace: &Namespace, interface: &str) {
    let mut ethtool = namespace.command("ethtool");
    ethtool.args([
        "-K", interface, "tx", "off", "gso", "off", "tso", "off", "gro", "off",
    ]);
    run(&mut ethtool);
}

fn read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("wire.pcap");
    for (site, outer) in [
        (Site::of_example(&[1, 2]), ["192.0.2.1", "192.0.2.2"]),
        (Site::over_ipv6(&[1, 2]), ["2001:db8::1", "2001:db8::2"]),
    ] {
        let [from, to] = [&site.hosts[0], &site.hosts[1]];
        for host in &site.hosts {
            without_offloads(&host.namespace, "eth0");
            without_offloads(&host.namespace, "pod");
            without_offloads(&host.pod, "eth0");
        }
        let wire = Capture::open(&from.namespace, "eth0");
        for (own, address) in from.pod_addresses().into_iter().zip(to.pod_addresses()) {
            let mut stream = connect(&from.pod, address).expect("the pod answers");
            assert_eq!(ask(&mut stream).expect("an answer"), 2);
            ask_for_much(&mut stream, 2);
            assert_eq!(datagram(&from.pod, own, address, 64), Some(2));
        }
        wire.write(&file);
        let all = decoded(&file, "vxlan");
        assert!(all.lines().count() > 1_000, "{}", all.lines().count());
        let other = decoded(&file, "vxlan && vxlan[0:8] != 08:00:00:00:00:00:07:00");
        assert_eq!(other, "");
        // Errors: malformed packets, wrong checksums, lengths that do not agree.
        let complaints = decoded(&file, "_ws.malformed || _ws.expert.severity >= 0x800000");
        assert_eq!(complaints, "", "over {outer:?}");
        for [source, destination] in [outer, [outer[1], outer[0]]] {
            let forth = source == outer[0];
            let hosts = if forth { [1, 2] } else { [2, 1] };
            for inner in [
                hosts.map(|number| format!("10.244.{number}.2")),
                hosts.map(|number| format!("fd00:244:{number}::2")),
            ] {
                let [ip, inner_ip] =
                    [source, &inner[0]].map(|address| match address.contains(':') {
                        true => "ipv6",
                        false => "ip",
                    });
                let sent = format!(
                    "{ip}.src == {source} && {ip}.dst == {destination} && {inner_ip}.src == {} && {inner_ip}.dst == {}",
                    inner[0], inner[1]
                );
                assert_ne!(decoded(&file, &sent), "", "{sent}");
            }
        }
    }
}

const VXLAN_PORT: u16 = 8472;
/// Flags of a packet that has a number.
const NUMBERED: u8 = 0x08;

/// A tunnel's packet with an Ethernet frame inside.
fn packet(flags: u8, vni: u32, reserved: u8, frame: &[u8]) -> Vec<u8> {
    let [_, number @ ..] = vni.to_be_bytes();
    let mut packet = vec![flags, 0, 0, 0];
    packet.extend(number);
    packet.push(reserved);
    packet.extend(frame);
    packet
}

/// Sends a tunnel's packet from a host's own address, by a socket of its own.
fn send(from: &Host, packet: &[u8]) {
    let socket = from.namespace.enter(|| UdpSocket::bind("192.0.2.1:0"));
    let socket = socket.expect("the address is its own");
    let sent = socket.send_to(packet, ("192.0.2.2", VXLAN_PORT));
    sent.expect("it is sent");
}

/// Packets that the kernel has found at fault, before any program sees them.
fn kernels(host: &Host) -> u64 {
    let said = host.namespace.ip("-j -s link show dev headgate_vxlan");
    let links: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    links[0]["stats64"]["rx"]["errors"]
        .as_u64()
        .expect("a count")
}

fn dropped() {
    let site = Site::of_example(&[1, 2]);
    let [from, to] = [&site.hosts[0], &site.hosts[1]];
    let receiver = &site.nodes[1];
    let own = |frame: headgate_e2e_tests::frames::Frame| {
        let mut bytes = frame.bytes;
        bytes[..12].copy_from_slice(&[2, 0x68, 192, 0, 2, 2, 2, 0x68, 192, 0, 2, 1]);
        bytes
    };
    let v4 = own(udp("10.244.1.2:7", "10.244.2.2:9"));
    let v6 = own(udp("[fd00:244:1::2]:7", "[fd00:244:2::2]:9"));
    let counted = |event: &str, what: &str, packet: &[u8]| {
        let before = count(receiver, event);
        send(from, packet);
        wait_for(SOON, what, || count(receiver, event) == before + 1);
    };
    let numbered = |frame: &[u8]| packet(NUMBERED, 7, 0, frame);
    counted("Received", "IPv4 as it should be", &numbered(&v4));
    counted("Received", "IPv6 as it should be", &numbered(&v6));
    for (name, frame) in [("IPv4", &v4), ("IPv6", &v6)] {
        let what = format!("{name} by another number");
        counted("WrongVni", &what, &packet(NUMBERED, 8, 0, frame));
        let headers = if name == "IPv4" { 20 } else { 40 };
        let what = format!("{name} without its second port");
        counted(
            "ReceivedMalformed",
            &what,
            &numbered(&frame[..14 + headers + 2]),
        );
        // These the kernel drops itself, if it is new enough.
        for length in [14, 15, 14 + headers / 2, 14 + headers - 1] {
            let cut = || count(receiver, "ReceivedMalformed") + kernels(to);
            let before = cut();
            send(from, &numbered(&frame[..length]));
            let what = format!("{name} cut after {length} bytes");
            wait_for(SOON, &what, || cut() == before + 1);
        }
    }
    for (name, nested) in [
        ("IPv4", udp("10.244.1.2:7", "10.244.2.1:8472")),
        ("IPv6", udp("[fd00:244:1::2]:7", "[fd00:244:2::1]:8472")),
    ] {
        let what = format!("a tunnel's packet in the tunnel, {name}");
        counted("Nested", &what, &numbered(&own(nested)));
    }
    counted("ReceivedNotIp", "ARP", &numbered(&own(arp())));
    let tagged = own(udp("10.244.1.2:7", "10.244.2.2:9").tagged(1));
    counted("ReceivedNotIp", "a VLAN's", &numbered(&tagged));
    let with_zero_version = {
        let mut frame = v4.clone();
        frame[14] = 0x05;
        frame
    };
    counted(
        "ReceivedMalformed",
        "no version",
        &numbered(&with_zero_version),
    );
    by_the_kernel(from, to, receiver, &v4);
}

/// Flags that nobody knows, none at all, and frames that are shorter than Ethernet's header.
fn by_the_kernel(from: &Host, to: &Host, receiver: &Node, frame: &[u8]) {
    let received = count(receiver, "Received");
    for (what, packet) in [
        ("a flag besides", packet(NUMBERED | 0x80, 7, 0, frame)),
        ("a reserved byte", packet(NUMBERED, 7, 1, frame)),
    ] {
        let before = kernels(to);
        send(from, &packet);
        wait_for(SOON, what, || kernels(to) == before + 1);
    }
    send(from, &packet(0, 7, 0, frame));
    send(from, &packet(NUMBERED, 7, 0, &frame[..13]));
    send(from, &[NUMBERED, 0, 0]);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(count(receiver, "Received"), received);
    // The tunnel goes on.
    let [own, _] = from.pod_addresses();
    let [pod, _] = to.pod_addresses();
    assert_eq!(datagram(&from.pod, own, pod, 1), Some(2));
}

fn told() {
    let site = Site::of_example(&[1, 2]);
    let [from, to] = [&site.hosts[0], &site.hosts[1]];
    let [near, far] = [&site.nodes[0], &site.nodes[1]];
    let in_frame = |from: &str, to: &str| packet(NUMBERED, 7, 0, &udp(from, to).bytes);
    let forged = in_frame("10.244.3.9:7", "10.244.2.2:9");
    let nobodys = in_frame("[fd09::9]:7", "[fd00:244:2::2]:9");
    let short = packet(
        NUMBERED,
        7,
        0,
        &udp("10.244.1.2:7", "10.244.2.2:9").bytes[..36],
    );
    let monitor = Monitor::start(far, &["--type", "drop"]);
    for (sent, line) in [
        (
            forged,
            "headgate_vxlan Drop SpoofedSource 10.244.3.9:7 > 10.244.2.2:9 udp len ",
        ),
        (
            nobodys,
            "headgate_vxlan Drop UnknownSource [fd09::9]:7 > [fd00:244:2::2]:9 udp len ",
        ),
        (short, "headgate_vxlan Drop ReceivedMalformed "),
    ] {
        monitor.wait_for(
            || send(from, &sent),
            |monitor| monitor.said("stdout").contains(line).then_some(()),
        );
    }
    assert_eq!(monitor.said("stderr"), "");
    // What leaves: nobody has its destination.
    from.namespace
        .ip("route add 10.99.0.0/16 dev headgate_vxlan");
    from.namespace
        .ip("neigh add 10.99.0.1 lladdr 02:00:00:00:00:99 dev headgate_vxlan");
    let [own, _] = from.pod_addresses();
    let monitor = Monitor::start(near, &["-o", "json"]);
    let object = monitor.wait_for(
        || {
            let nobody = "10.99.0.1".parse().expect("an address");
            assert_eq!(datagram(&from.pod, own, nobody, 1), None);
        },
        |monitor| {
            let mut objects = monitor.objects().into_iter();
            objects.find(|object| object["reason"] == "NoPeer")
        },
    );
    assert_eq!(object["interface"], "headgate_vxlan", "{object}");
    assert_eq!(object["source"], own.to_string(), "{object}");
    assert_eq!(object["destination"], "10.99.0.1", "{object}");
    assert!(object.get("port").is_none(), "{object}");
    // Packets that go their way are none of them.
    let [pod, _] = to.pod_addresses();
    assert_eq!(datagram(&from.pod, own, pod, 1), Some(2));
}
