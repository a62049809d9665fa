//! Programs that people use, between pods that the tunnel joins.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    net::{IpAddr, TcpListener},
    path::Path,
    process::Command,
    thread,
};

use headgate_e2e_tests::{namespace::Namespace, trials::on_node_with, tunnel::count};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    clients::{FILES, IPERF, Server, said, serve},
    tunnelling::Site,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_node_with(
            "a_large_file_goes_through_the_tunnel_and_back",
            &["curl", "sha256sum"],
            fetched,
        ),
        on_node_with("iperf3_fills_the_tunnel", &["iperf3"], filled),
        on_node_with("pods_are_told_what_the_tunnel_takes", &["ping"], told),
    ]
}

/// Two hosts, by the family of the outer packets, with bytes of an inner packet that the tunnel takes.
fn sites() -> [(&'static str, Site, u32); 2] {
    [
        ("IPv4", Site::of_example(&[1, 2]), 1_450),
        ("IPv6", Site::over_ipv6(&[1, 2]), 1_430),
    ]
}

fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Bytes of the file.
const FILE: u64 = 100_000_000;

fn checksum(file: &Path) -> String {
    let said = said(Command::new("sha256sum").arg(file));
    let (sum, _) = said.split_once(' ').expect("a sum and a name");
    sum.to_owned()
}

fn fetched() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [sent, got] = ["sent", "got"].map(|name| folder.path().join(name));
    let mut random = File::open("/dev/urandom")
        .expect("any Linux has it")
        .take(FILE);
    let mut file = File::create(&sent).expect("the folder is ours");
    io::copy(&mut random, &mut file).expect("there is room");
    let expected = checksum(&sent);
    for (outer, site, _) in sites() {
        let [from, to] = [&site.hosts[0], &site.hosts[1]];
        for address in to.pod_addresses() {
            let listener = to.pod.enter(|| TcpListener::bind((address, FILES)));
            let listener = listener.expect("the address is its own");
            thread::spawn(move || serve(&listener));
            let mut curl = from.pod.command("curl");
            curl.args(["-sSf", "--noproxy", "*", "-m", "60", "-H", "Expect:"]);
            curl.arg("-T").arg(&sent).arg("-o").arg(&got);
            curl.args(["-w", "%{time_total}"]);
            let took = said(curl.arg(format!("http://{}:{FILES}/", in_url(address))));
            assert_eq!(fs::metadata(&got).expect("curl wrote it").len(), FILE);
            assert_eq!(checksum(&got), expected, "{address} over {outer}");
            println!("100 MB to {address} and back over {outer}: {took} s");
        }
        for dropped in [
            "SpoofedSource",
            "UnknownSource",
            "ReceivedMalformed",
            "NoKey",
        ] {
            for node in &site.nodes {
                assert_eq!(count(node, dropped), 0, "{dropped} over {outer}");
            }
        }
    }
}

/// Bytes that iperf3 sends by TCP.
const BYTES: u64 = 50_000_000;

fn filled() {
    for (outer, site, _) in sites() {
        let [from, to] = [&site.hosts[0], &site.hosts[1]];
        let _server = Server::start(&to.pod);
        for address in to.pod_addresses() {
            let measured = |arguments: &[&str]| -> Value {
                let mut iperf = from.pod.command("timeout");
                iperf.args([
                    "30",
                    "iperf3",
                    "-J",
                    "-c",
                    &address.to_string(),
                    "-p",
                    IPERF,
                ]);
                serde_json::from_str(&said(iperf.args(arguments))).expect("iperf3 prints JSON")
            };
            let bytes = BYTES.to_string();
            for (way, back) in [("up", &[][..]), ("down", &["-R"])] {
                let result = measured(&[&["-n", &bytes], back].concat());
                let received = &result["end"]["sum_received"];
                // What is under way at the end, iperf3 does not count.
                assert!(received["bytes"].as_u64() >= Some(BYTES / 4), "{received}");
                let speed = received["bits_per_second"].as_f64().expect("a speed") / 1e6;
                println!("iperf3 {way}, {address} over {outer}: {speed:.0} Mbit/s");
            }
            // Paced far below what the way takes: none is lost on it.
            let before = overflows(&to.pod);
            let result = measured(&["-u", "-b", "1M", "-l", "64", "-t", "1"]);
            let sum = &result["end"]["sum"];
            assert!(sum["packets"].as_u64() > Some(1_000), "{sum}");
            let not_read = overflows(&to.pod) - before;
            let lost = sum["lost_packets"].as_u64().expect("a count");
            assert!(lost <= not_read, "{address} over {outer}: {sum}");
        }
    }
}

/// Datagrams that had arrived and found no room, since nobody had read those before.
fn overflows(pod: &Namespace) -> u64 {
    let of = |file: &str| said(pod.command("cat").arg(file));
    let v6 = of("/proc/net/snmp6");
    let v6 = v6
        .lines()
        .find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    let v4 = of("/proc/net/snmp");
    let mut v4 = v4.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (v4.next().expect("a head"), v4.next().expect("values"));
    let mut both = names.split(' ').zip(values.split(' '));
    let v4 = both.find_map(|(name, value)| (name == "RcvbufErrors").then_some(value));
    let number = |text: Option<&str>| -> u64 {
        let text = text.expect("the kernel counts them").trim();
        text.parse().expect("a number")
    };
    number(v4) + number(v6)
}

/// Pods' interfaces take 1500 bytes, the tunnel less: the node tells it to who forbids fragments.
fn told() {
    for (outer, site, mtu) in sites() {
        let [from, to] = [&site.hosts[0], &site.hosts[1]];
        for address in to.pod_addresses() {
            let headers = if address.is_ipv4() { 28 } else { 48 };
            let ping = |length: u32| {
                let mut ping = from.pod.command("ping");
                ping.args(["-M", "do", "-c", "1", "-W", "2", "-s"]);
                let data = (length - headers).to_string();
                let output = ping.arg(data).arg(address.to_string()).output();
                let output = output.expect("it can be run");
                let text = [output.stdout, output.stderr].concat();
                String::from_utf8_lossy(&text).into_owned()
            };
            let whole = ping(mtu);
            assert!(
                whole.contains("1 received"),
                "{address} over {outer}: {whole}"
            );
            let longer = ping(mtu + 1);
            assert!(
                longer.contains("0 received"),
                "{address} over {outer}: {longer}"
            );
            let router = in_ping(from.number, address);
            let told = longer.lines().any(|line| {
                line.contains(&router) && line.replace(' ', "").contains(&format!("mtu={mtu}"))
            });
            assert!(told, "{address} over {outer}: {longer}");
            // The pod knows it from now on.
            let again = ping(1_500);
            assert!(again.contains("message too long"), "{again}");
            let route = from.pod.ip(&format!("route get {address}"));
            assert!(route.contains(&format!("mtu {mtu}")), "{route}");
        }
    }
}

/// The node, as `ping` names who tells it of something.
fn in_ping(number: u8, pod: IpAddr) -> String {
    match pod {
        IpAddr::V4(_) => format!("From 10.244.{number}.1 "),
        IpAddr::V6(_) => format!("From fd00:244:{number}::1 "),
    }
}
