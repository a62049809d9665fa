//! Every file of `examples/policies/`, inside and outside of what it says.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use headgate_e2e_tests::{
    frames::{arp, icmp, lldp, protocol, tcp, udp},
    judged::Judged,
    lab::Lab,
    paths::{example, example_cidrs, example_policies},
    trials::on_node,
};
use libtest_mimic::{Failed, Trial};

/// An example, the data beside it, and what exercises it.
type Exercise = (&'static str, &'static [&'static str], fn(&Lab));

const EXERCISES: &[Exercise] = &[
    ("allow-list.yaml", &[], allow_list),
    ("block-list.yaml", &["attackers.yaml"], block_list),
    ("drop-udp-12345.yaml", &[], drop_udp_12345),
    ("drop-web-from-ten.yaml", &[], drop_web_from_ten),
    ("fragments.yaml", &[], fragments),
    ("one-country.yaml", &["country-is.yaml"], one_country),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("every_example_is_exercised", all_exercised),
        on_node("example_allow_list", || exercise("allow-list.yaml")),
        on_node("example_block_list", || exercise("block-list.yaml")),
        on_node("example_drop_udp_12345", || exercise("drop-udp-12345.yaml")),
        on_node("example_drop_web_from_ten", || {
            exercise("drop-web-from-ten.yaml");
        }),
        on_node("example_fragments", || exercise("fragments.yaml")),
        on_node("example_one_country", || exercise("one-country.yaml")),
    ]
}

fn all_exercised() -> Result<(), Failed> {
    let exercised: Vec<&str> = EXERCISES.iter().map(|(name, ..)| *name).collect();
    let there = example_policies();
    if there != exercised {
        return Err(
            format!("the examples {there:?} are not those exercised: {exercised:?}").into(),
        );
    }
    Ok(())
}

fn exercise(name: &str) {
    let known = EXERCISES.iter().find(|(known, ..)| *known == name);
    let (_, data, exercise) = known.expect("it is in the list");
    let policy = example(&format!("policies/{name}"));
    let mut files = vec![(name.to_owned(), policy)];
    files.extend(
        data.iter()
            .map(|data| ((*data).to_owned(), example(&format!("data/{data}")))),
    );
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (&**name, &**text))
        .collect();
    let lab = Lab::enforcing(&files);
    let listed = lab.node.headgate(&["policy", "list", "-o", "json"]).json();
    assert_eq!(listed[0]["state"], "Enforced", "{listed:#}");
    let findings = lab.node.status()["findings"].clone();
    assert_eq!(
        findings,
        serde_json::json!([]),
        "an example is beyond doubt"
    );
    exercise(&lab);
    // What no policy concerns.
    lab.check([arp().passed_by("NotIp"), lldp().passed_by("NotIp")]);
}

fn drop_udp_12345(lab: &Lab) {
    let rule = "drop-udp-12345/udp-12345";
    lab.check([
        udp("10.0.0.1:5", "192.168.0.1:12345").dropped_by(rule),
        udp("[2001:db8::1]:5", "[fd00::1]:12345").dropped_by(rule),
        udp("10.0.0.1:12345", "192.168.0.1:5").passed_by("DefaultAllow"),
        udp("10.0.0.1:5", "192.168.0.1:12344").passed_by("DefaultAllow"),
        udp("10.0.0.1:5", "192.168.0.1:12346").passed_by("DefaultAllow"),
        tcp("10.0.0.1:5", "192.168.0.1:12345", "S").passed_by("DefaultAllow"),
    ]);
}

fn drop_web_from_ten(lab: &Lab) {
    let rule = "drop-web-from-ten/web-from-ten";
    let web = |from: &str| tcp(from, "192.168.0.1:80", "S");
    lab.check([
        web("10.0.0.0:5").dropped_by(rule),
        web("10.1.2.3:5").dropped_by(rule),
        web("10.255.255.255:5").dropped_by(rule),
        web("9.255.255.255:5").passed_by("DefaultAllow"),
        web("11.0.0.0:5").passed_by("DefaultAllow"),
        tcp("10.1.2.3:5", "192.168.0.1:81", "S").passed_by("DefaultAllow"),
        udp("10.1.2.3:5", "192.168.0.1:80").passed_by("DefaultAllow"),
        tcp("[fd00::2]:5", "[fd00::1]:80", "S").passed_by("DefaultAllow"),
    ]);
}

fn block_list(lab: &Lab) {
    let listed: Vec<Ipv4Addr> = example_cidrs("attackers.yaml")
        .iter()
        .map(|cidr| {
            cidr.trim_end_matches("/32")
                .parse()
                .expect("single addresses")
        })
        .collect();
    assert_eq!(listed.len(), 1_000);
    let from = |address: Ipv4Addr| tcp(&format!("{address}:5"), "192.168.0.1:443", "S");
    let rule = "block-list/attackers";
    let mut judged = vec![from(listed[0]).passed_by("DefaultAllow")];
    for address in listed.iter().skip(1).step_by(37) {
        judged.push(from(*address).dropped_by(rule));
        for neighbour in [u32::from(*address) - 1, u32::from(*address) + 1] {
            let neighbour = Ipv4Addr::from(neighbour);
            if !listed.contains(&neighbour) {
                judged.push(from(neighbour).passed_by("DefaultAllow"));
            }
        }
    }
    let attacker = listed[1];
    judged.push(icmp(8, &attacker.to_string(), "192.168.0.1").dropped_by(rule));
    judged.push(protocol(47, &attacker.to_string(), "192.168.0.1").dropped_by(rule));
    judged.push(udp("[2001:db8::1]:5", "[fd00::1]:443").passed_by("DefaultAllow"));
    lab.check(judged);
}

/// First and last address of an IPv4 CIDR.
fn ends(cidr: &str) -> Option<(u32, u32)> {
    let (address, length) = cidr.split_once('/')?;
    let address: u32 = address.parse::<Ipv4Addr>().ok()?.into();
    let hosts = u32::MAX.checked_shr(length.parse().ok()?).unwrap_or(0);
    Some((address, address | hosts))
}

fn one_country(lab: &Lab) {
    let ranges: Vec<(u32, u32)> = example_cidrs("country-is.yaml")
        .iter()
        .filter_map(|cidr| ends(cidr))
        .collect();
    assert!(ranges.len() > 50, "{} ranges", ranges.len());
    let judge = |address: u32, port: u16| -> Judged {
        let from = Ipv4Addr::from(address);
        let frame = tcp(&format!("{from}:5"), &format!("192.168.0.1:{port}"), "S");
        if ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&address))
        {
            frame.passed_by("one-country/web-from-country")
        } else {
            frame.dropped_by("one-country/web-from-elsewhere")
        }
    };
    let mut judged = Vec::new();
    for (first, last) in ranges.iter().step_by(5) {
        judged.extend([*first - 1, *first, *last, *last + 1].map(|address| judge(address, 443)));
        judged.push(judge(*first, 80));
    }
    judged.push(
        tcp("[2001:db8::1]:5", "[fd00::1]:80", "S").dropped_by("one-country/web-from-elsewhere"),
    );
    judged.push(tcp("198.51.100.1:5", "192.168.0.1:22", "S").passed_by("DefaultAllow"));
    judged.push(udp("198.51.100.1:5", "192.168.0.1:443").passed_by("DefaultAllow"));
    lab.check(judged);
}

fn fragments(lab: &Lab) {
    let (first, later) = (
        "fragments/first-fragments-of-udp",
        "fragments/later-fragments-of-udp",
    );
    let udp4 = || udp("10.0.0.1:5", "192.168.0.1:53");
    let udp6 = || udp("[2001:db8::1]:5", "[fd00::1]:53");
    let tcp4 = || tcp("10.0.0.1:5", "192.168.0.1:80", "A");
    let tcp6 = || tcp("[2001:db8::1]:5", "[fd00::1]:80", "A");
    lab.check([
        udp4().first_fragment().dropped_by(first),
        udp6().first_fragment().dropped_by(first),
        udp4().later_fragment(64).dropped_by(later),
        udp6().later_fragment(64).dropped_by(later),
        // An atomic fragment is whole.
        udp6().later_fragment(0).passed_by("DefaultAllow"),
        udp4().passed_by("DefaultAllow"),
        udp6().passed_by("DefaultAllow"),
        tcp4().first_fragment().passed_by("DefaultAllow"),
        tcp6().first_fragment().passed_by("DefaultAllow"),
        tcp4().later_fragment(64).passed_by("DefaultAllow"),
        tcp6().later_fragment(64).passed_by("DefaultAllow"),
    ]);
}

fn allow_list(lab: &Lab) {
    let (v4, v6) = ("192.168.0.1", "fd00::1");
    let icmp_rule = "allow-list/icmp-errors-and-echo";
    lab.check([
        tcp("192.0.2.7:5", "192.168.0.1:22", "S").passed_by("allow-list/ssh-from-admins"),
        tcp("[2001:db8:ad::7]:5", "[fd00::1]:22", "S").passed_by("allow-list/ssh-from-admins"),
        tcp("192.0.3.7:5", "192.168.0.1:22", "S").dropped_by("DefaultDrop"),
        tcp("[2001:db8:ae::7]:5", "[fd00::1]:22", "S").dropped_by("DefaultDrop"),
        tcp("198.51.100.1:5", "192.168.0.1:443", "S").passed_by("allow-list/https"),
        udp("[2001:db8::1]:5", "[fd00::1]:443").passed_by("allow-list/https"),
        tcp("198.51.100.1:443", "192.168.0.1:32768", "SA").passed_by("allow-list/tcp-replies"),
        tcp("198.51.100.1:443", "192.168.0.1:60999", "R").passed_by("allow-list/tcp-replies"),
        tcp("198.51.100.1:443", "192.168.0.1:40000", "S").dropped_by("DefaultDrop"),
        tcp("198.51.100.1:443", "192.168.0.1:61000", "A").dropped_by("DefaultDrop"),
        udp("198.51.100.1:53", "192.168.0.1:40000").passed_by("allow-list/dns-replies"),
        udp("198.51.100.1:54", "192.168.0.1:40000").dropped_by("DefaultDrop"),
        icmp(8, "198.51.100.1", v4).passed_by(icmp_rule),
        icmp(3, "198.51.100.1", v4).passed_by(icmp_rule),
        icmp(5, "198.51.100.1", v4).dropped_by("DefaultDrop"),
        icmp(128, "2001:db8::1", v6).passed_by(icmp_rule),
        icmp(2, "2001:db8::1", v6).passed_by(icmp_rule),
        icmp(143, "2001:db8::1", v6).dropped_by("DefaultDrop"),
        protocol(47, "198.51.100.1", v4).dropped_by("DefaultDrop"),
    ]);
    let client = &lab.client.cable.client;
    for address in [IpAddr::from(client.v4), client.v6.into()] {
        node_connects_to(lab, address);
    }
    let closed = SocketAddr::new(lab.client.cable.node.v4.into(), 8080);
    let refused = lab.client.namespace.enter(|| {
        TcpStream::connect_timeout(&closed, Duration::from_millis(500)).expect_err("it is dropped")
    });
    assert_eq!(
        refused.kind(),
        std::io::ErrorKind::TimedOut,
        "no RST came back: {refused}"
    );
}

/// A connection that the node opens works, with neighbours that must be found first.
fn node_connects_to(lab: &Lab, address: IpAddr) {
    lab.node.namespace.ip("neigh flush all");
    lab.client.namespace.ip("neigh flush all");
    let listener = lab
        .client
        .namespace
        .enter(|| TcpListener::bind((address, 8443)));
    let listener = listener.expect("the port is free");
    let server = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(b"hello")
    });
    let mut heard = String::new();
    lab.node.namespace.enter(|| {
        let to = SocketAddr::new(address, 8443);
        let mut stream =
            TcpStream::connect_timeout(&to, Duration::from_secs(5)).expect("replies pass");
        stream.read_to_string(&mut heard).expect("data passes");
    });
    assert_eq!(heard, "hello", "from {address}");
    server
        .join()
        .expect("it does not panic")
        .expect("it was heard");
}
