//! What a Service asks of a load balancer.

use std::{collections::BTreeSet, net::IpAddr};

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
    /// Whether its clients are limited by address, which nothing here does yet.
    pub has_source_ranges: bool,
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
            has_source_ranges: spec
                .load_balancer_source_ranges
                .as_ref()
                .is_some_and(|ranges| !ranges.is_empty()),
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
