//! From EndpointSlices to what compile takes of them.

use std::collections::BTreeSet;

use headgate_compile::{
    endpoints::{Endpoint, Endpoints, Readiness, Slice, SlicePort},
    memory::Memory,
    services,
    snapshot::Content,
};
use headgate_source::{Listing, kubernetes::SERVICE_NAME};
use k8s_openapi::api::discovery::v1::{Endpoint as ApiEndpoint, EndpointPort, EndpointSlice};

/// The endpoints of the Services that services name, now or in effect; `None` where they are not known.
pub(crate) fn referred(listing: &Listing<Content>, memory: &Memory) -> Option<Endpoints> {
    let slices = listing.slices.as_ref()?;
    let submitted = listing.documents.iter();
    let submitted = submitted.filter_map(|d| Some((d.name.as_str(), d.content.as_ref().ok()?)));
    let in_effect = memory.last_good.values();
    let in_effect = in_effect.map(|good| (good.name.name.as_str(), &good.content));
    let referred = submitted
        .chain(in_effect)
        .filter_map(|(name, content)| match content {
            Content::Service(service) => services::referred(name, &service.spec),
            _ => None,
        });
    let referred: BTreeSet<String> = referred.collect();
    let mut endpoints = Endpoints::new();
    for slice in slices {
        if let Some(service) = service_of(slice).filter(|service| referred.contains(service)) {
            endpoints.entry(service).or_default().push(of(slice));
        }
    }
    // The order in which an API lists them means nothing.
    endpoints.values_mut().for_each(|slices| slices.sort());
    Some(endpoints)
}

fn service_of(slice: &EndpointSlice) -> Option<String> {
    let namespace = slice.metadata.namespace.as_ref()?;
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(format!("{namespace}/{name}"))
}

fn of(slice: &EndpointSlice) -> Slice {
    let ports = slice.ports.iter().flatten().filter_map(port);
    let endpoints = slice.endpoints.iter().flatten().flat_map(endpoints);
    let mut slice = Slice {
        ports: ports.collect(),
        endpoints: endpoints.collect(),
    };
    slice.ports.sort();
    slice.endpoints.sort();
    slice
}

fn port(port: &EndpointPort) -> Option<SlicePort> {
    Some(SlicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        port: u16::try_from(port.port?).ok()?,
    })
}

/// Names in place of addresses are left out; a condition that is not told counts as the API says.
fn endpoints(endpoint: &ApiEndpoint) -> Vec<Endpoint> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let is_ready = conditions.ready.unwrap_or(true);
    let is_serving = conditions.serving.unwrap_or(is_ready);
    let readiness = match (is_ready, conditions.terminating.unwrap_or(false)) {
        (true, _) => Readiness::Ready,
        (false, true) if is_serving => Readiness::Draining,
        _ => return Vec::new(),
    };
    let addresses = endpoint
        .addresses
        .iter()
        .filter_map(|text| text.parse().ok());
    let endpoints = addresses.map(|address| Endpoint {
        address,
        node: endpoint.node_name.clone(),
        readiness,
    });
    endpoints.collect()
}
