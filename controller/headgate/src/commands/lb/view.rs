//! Services, joined with what is in force and counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use headgate_agent::ways;
use headgate_compile::{
    compilation::{FrontendSummary, ServiceSummary},
    endpoints::Member,
    finding::Finding,
    node::NextHop,
    services::History,
};
use headgate_crds::{Forwarding, Kind};
use serde::Serialize;

use crate::{
    arguments::InstanceArguments,
    enforcement,
    live::Live,
    outcome::CliError,
    resource_state::{InterfaceView, ResourceState, findings_of, state},
};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceView {
    /// With its namespace: `NAMESPACE/NAME`.
    pub(super) name: String,
    pub(super) place: String,
    pub(super) generation: u64,
    /// Absent where nothing of it is in effect.
    pub(super) effective_generation: Option<u64>,
    pub(super) selected: bool,
    pub(super) state: ResourceState,
    pub(super) interfaces: Vec<InterfaceView>,
    pub(super) frontends: Vec<FrontendView>,
    /// Absent where any client may use it.
    pub(super) source_ranges: Option<SourceRangesView>,
    pub(super) findings: Vec<Finding>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SourceRangesView {
    /// As written.
    pub(super) ranges: Vec<String>,
    /// What came from outside of them; absent where nothing counts.
    pub(super) packets: Option<u64>,
    pub(super) bytes: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FrontendView {
    /// Name of the port.
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) protocol: String,
    pub(super) port: u16,
    pub(super) forwarding: Forwarding,
    pub(super) ring_size: u32,
    /// Of the port, over all addresses; absent where nothing counts.
    pub(super) packets: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) backends: Vec<BackendView>,
    /// Present while connections stay with former backends after a change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) settling: Option<SettlingView>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SettlingView {
    /// When it ends, in seconds since 1970.
    pub(super) until: u64,
    /// Backends of weight 0, which keep their connections until then.
    pub(super) draining: Vec<IpAddr>,
    #[serde(skip)]
    pub(super) history: Arc<History>,
}

impl SettlingView {
    fn of(frontend: &FrontendSummary) -> Option<Self> {
        let history = frontend.settling.as_ref()?;
        Some(Self {
            until: history.settles_at()?.0,
            draining: history.draining(frontend.address.is_ipv4()).collect(),
            history: Arc::clone(history),
        })
    }
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BackendView {
    pub(super) address: IpAddr,
    /// The port that it listens on.
    pub(super) port: u16,
    pub(super) weight: u16,
    /// Whether it runs on this node, whose stack knows the way.
    pub(super) here: bool,
    /// The interface that its packets leave by; absent while its next hop is not known.
    pub(super) interface: Option<String>,
    /// Whether that is an overlay's device, which finds next hops itself.
    pub(super) overlay: bool,
    /// MAC address of its next hop.
    pub(super) next_hop: Option<String>,
}

impl BackendView {
    /// Address and port.
    pub(super) fn end(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// `INTERFACE, MAC`, or that it is not known.
    pub(super) fn way(&self) -> String {
        if self.here {
            return "this node".to_owned();
        }
        match (&self.interface, &self.next_hop) {
            (Some(interface), Some(mac)) => format!("{interface}, {mac}"),
            (Some(interface), None) if self.overlay => format!("{interface}, an overlay"),
            _ => "not known".to_owned(),
        }
    }
}

/// All services, by name.
pub(super) fn read(place: &InstanceArguments) -> Result<Vec<ServiceView>, CliError> {
    let live = Live::read(place)?;
    let report = live.reading.report(place)?;
    let frontends = || {
        report
            .services
            .iter()
            .flat_map(|service| &service.frontends)
    };
    let of_ranges = report
        .services
        .iter()
        .filter_map(|s| s.source_ranges.as_ref());
    let of_ranges = of_ranges.map(|ranges| ranges.counter);
    let of_ports = frontends().map(|frontend| frontend.counter);
    let indices: BTreeSet<u32> = of_ports.chain(of_ranges).collect();
    let counts = match live.reading.observed.prepared {
        true => live.kernel.rule_counters(&indices)?,
        false => BTreeMap::new(),
    };
    let backends = frontends().flat_map(|frontend| &frontend.backends);
    let elsewhere = backends.filter(|backend| !backend.here);
    let (ways, _) = ways::look(&elsewhere.map(|backend| backend.address).collect())?;
    let enforcements = enforcement::of(&live.reading);
    let backend = |member: &Member| {
        let hop: Option<&NextHop> = ways.get(&member.address).filter(|_| !member.here);
        let name = |hop: &NextHop| live.reading.interfaces.get(&hop.ifindex).cloned();
        BackendView {
            address: member.address,
            port: member.port,
            weight: member.weight,
            here: member.here,
            interface: hop.and_then(name),
            overlay: hop.is_some_and(|hop| hop.overlay),
            next_hop: hop
                .filter(|hop| !hop.overlay)
                .map(|hop| mac(hop.destination)),
        }
    };
    let view = |service: &ServiceSummary| {
        let findings = findings_of(report, Kind::LoadBalancerService, &service.name);
        let interfaces = InterfaceView::of(&service.interfaces, &enforcements);
        let frontends = service.frontends.iter().map(|frontend| {
            let count = counts.get(&frontend.counter);
            FrontendView {
                name: frontend.name.clone(),
                address: frontend.address,
                protocol: frontend.protocol.clone(),
                port: frontend.port,
                forwarding: frontend.forwarding,
                ring_size: frontend.ring_size,
                packets: count.map(|count| count.packets),
                bytes: count.map(|count| count.bytes),
                backends: frontend.backends.iter().map(backend).collect(),
                settling: SettlingView::of(frontend),
            }
        });
        let source_ranges = service.source_ranges.as_ref().map(|ranges| {
            let count = counts.get(&ranges.counter);
            SourceRangesView {
                ranges: ranges.ranges.clone(),
                packets: count.map(|count| count.packets),
                bytes: count.map(|count| count.bytes),
            }
        });
        ServiceView {
            name: service.name.clone(),
            place: service.place.clone(),
            generation: service.generation,
            effective_generation: service.effective,
            selected: service.selected,
            state: state(service.selected, &interfaces, &findings),
            frontends: frontends.collect(),
            source_ranges,
            interfaces,
            findings,
        }
    };
    Ok(report.services.iter().map(view).collect())
}

/// The one called `name`; a name without a namespace is one of the namespace `default`.
pub(super) fn named(views: Vec<ServiceView>, name: &str) -> Result<ServiceView, CliError> {
    let full = Kind::LoadBalancerService.full_name(None, name);
    let is_meant = |view: &ServiceView| view.name == name || view.name == full;
    let names: Vec<_> = views.iter().map(|view| view.name.clone()).collect();
    let found = views.into_iter().find(is_meant);
    found.ok_or_else(|| CliError::no_service(name, &names))
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
