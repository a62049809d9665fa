//! What a Service asks of a load balancer.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use headgate_crds::{ServicePort, ServiceProtocol, TrafficPolicy};
use k8s_openapi::{
    api::core::v1::{self as core, Service},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::ResourceExt as _;

/// The class of Services that are served.
pub const CLASS: &str = "headgate.dev/xdp";

/// The annotation by which a Service asks for its addresses, separated by commas.
pub const ADDRESSES: &str = "headgate.dev/addresses";

/// What one says that is of [`CLASS`].
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its generation; Services have none that counts, so it is 0 there.
    pub generation: i64,
    /// Whether an address of each family is asked for: IPv4, IPv6.
    pub families: [bool; 2],
    /// The addresses that it asks for by name, or why they are none.
    pub addresses: Result<Vec<IpAddr>, String>,
    /// Its ports, or why they cannot be served.
    pub ports: Result<Vec<ServicePort>, String>,
    /// Which of its endpoints a node uses.
    pub traffic_policy: TrafficPolicy,
    /// The ranges that its clients must come from, as a LoadBalancerService takes them; `None`: any.
    pub source_ranges: Option<Vec<String>>,
    /// The addresses that its status tells.
    pub told: BTreeSet<String>,
    /// What was last said of it.
    pub said: Option<Condition>,
}

impl Asked {
    /// `None` where it is of another class, or somebody asked for its deletion.
    pub(crate) fn of(service: &Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let is_ours = spec.type_.as_deref() == Some("LoadBalancer")
            && spec.load_balancer_class.as_deref() == Some(CLASS);
        if !is_ours || service.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let families = spec.ip_families.iter().flatten();
        let families: BTreeSet<&str> = families.map(String::as_str).collect();
        let is_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let status = service.status.as_ref();
        let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let said = conditions.into_iter().flatten();
        let mut said = said.filter(|condition| condition.type_ == super::CONDITION);
        Some(Self {
            namespace: service.namespace().unwrap_or_default(),
            name: service.name_any(),
            uid: service.uid().unwrap_or_default(),
            generation: service.metadata.generation.unwrap_or_default(),
            families: ["IPv4", "IPv6"].map(|family| families.contains(family)),
            addresses: addresses(service, spec),
            ports: spec.ports.iter().flatten().map(port).collect(),
            traffic_policy: match is_local {
                true => TrafficPolicy::Local,
                false => TrafficPolicy::Cluster,
            },
            source_ranges: spec.load_balancer_source_ranges.as_deref().and_then(ranges),
            told: ingress
                .into_iter()
                .flatten()
                .filter_map(|ingress| ingress.ip.clone())
                .collect(),
            said: said.next().cloned(),
        })
    }
}

fn addresses(service: &Service, spec: &core::ServiceSpec) -> Result<Vec<IpAddr>, String> {
    let annotation = service.annotations().get(ADDRESSES);
    let text = annotation.or(spec.load_balancer_ip.as_ref());
    let words = text.map_or("", String::as_str).split(',').map(str::trim);
    let parse = |word: &str| {
        let refused = |_| format!("{word:?} is no address; write addresses separated by commas");
        word.parse().map_err(refused)
    };
    words.filter(|word| !word.is_empty()).map(parse).collect()
}

fn ranges(written: &[String]) -> Option<Vec<String>> {
    let plain = written.iter().map(|text| plain(text.trim()));
    Some(plain.collect()).filter(|ranges: &Vec<String>| !ranges.is_empty())
}

/// The range as it is meant: Services still take leading zeros, and IPv4 ranges in IPv6 form. What is not even
/// that goes on as it is, and is refused by name.
fn plain(text: &str) -> String {
    let Some((address, length)) = text.split_once('/') else {
        return text.to_owned();
    };
    let length = without_zeros(length);
    if let Ok(v6) = address.parse::<Ipv6Addr>() {
        return match (v6.to_ipv4_mapped(), length.parse::<u8>()) {
            (Some(v4), Ok(length @ 96..=128)) => format!("{v4}/{}", length - 96),
            _ => format!("{address}/{length}"),
        };
    }
    let bytes: Vec<&str> = address.split('.').map(without_zeros).collect();
    format!("{}/{length}", bytes.join("."))
}

fn without_zeros(number: &str) -> &str {
    match number.trim_start_matches('0') {
        "" if !number.is_empty() => "0",
        rest => rest,
    }
}

/// A port without a name gets its number for one.
fn port(port: &core::ServicePort) -> Result<ServicePort, String> {
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => ServiceProtocol::Tcp,
        Some("UDP") => ServiceProtocol::Udp,
        Some(other) => return Err(format!("{other} is not balanced, only TCP and UDP are")),
    };
    let number = u16::try_from(port.port).map_err(|_| format!("{} is no port", port.port))?;
    let named = port.name.clone().filter(|name| !name.is_empty());
    Ok(ServicePort {
        name: named.unwrap_or_else(|| format!("port-{number}")),
        protocol,
        port: number,
        target_port: None,
    })
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn ranges_are_what_a_load_balancer_service_takes() {
        for (written, expected) in [
            (" 10.0.0.0/8 ", "10.0.0.0/8"),
            ("010.000.0.001/08", "10.0.0.1/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("nonsense", "nonsense"),
        ] {
            let read = ranges(&[written.to_owned()]);
            assert_eq!(read, Some(vec![expected.to_owned()]), "{written}");
            if expected != "nonsense" {
                assert!(headgate_crds::parse_cidr(expected).is_ok());
            }
        }
        assert_eq!(ranges(&[]), None);
    }
}
