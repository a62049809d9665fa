//! Follows the API, and publishes the fleet as it is after every burst of changes.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use headgate_compile::snapshot::Content;
use headgate_crds::{Kind, NodeDatapathStatus, TablesDatapath};
use headgate_source::kubernetes::{
    Watched, api_of, datapaths_api, document, endpoints, list, next_of_any,
};
use k8s_openapi::{
    api::{
        apps::v1::DaemonSet,
        coordination::v1::Lease,
        core::v1::{self as core},
        discovery::v1::EndpointSlice,
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, ResourceExt as _, api::DynamicObject, core::ObjectMeta, runtime::watcher::Config,
};
use serde_json::Value;
use tokio::{sync::watch, time};

use crate::{
    FIELD_MANAGER,
    coverage::Coverage,
    fleet::{Exception, Fleet, Heartbeat, Node, Resource, Shown, Told},
    provenance::Tracker,
    services::{Asked, MANAGED_BY},
};

/// The DaemonSet of the agents.
const DAEMON_SET: &str = "headgate-agent";
/// A burst of changes has ended when nothing came for so long.
const QUIET: Duration = Duration::from_millis(5);
/// A burst is cut off after so long.
const LONGEST_BURST: Duration = Duration::from_millis(50);
/// Leases alone are looked at so often: thousands of them are renewed all the time.
const LEASES: Duration = Duration::from_secs(2);
/// A Lease that ended so many of its durations ago is not waited for.
const LONG_DEAD: u32 = 10;
/// How long to wait before what is missing is said.
const PATIENCE: Duration = Duration::from_secs(5);

/// The objects of one kind of resource, and what is told of each beside its content.
type WatchedKind = Watched<DynamicObject, (Arc<Resource>, Arc<Told>)>;

/// All watches of the operator.
pub(crate) struct Watches {
    /// One for each kind.
    resources: [WatchedKind; Kind::ALL.len()],
    nodes: Watched<core::Node, (String, Arc<Node>)>,
    datapaths: Watched<DynamicObject, (String, Arc<Shown>)>,
    leases: Watched<Lease, Option<(String, Heartbeat)>>,
    daemon_sets: Watched<DaemonSet, Coverage>,
    services: Watched<core::Service, Option<Arc<Asked>>>,
    api_servers: Watched<EndpointSlice, Vec<SocketAddr>>,
    said: Option<String>,
}

impl Watches {
    /// Watches all nodes and resources, and the agents' Leases and DaemonSet in `namespace`.
    pub(crate) fn new(client: &Client, namespace: &str) -> Self {
        let all = Config::default;
        let of_kind = |kind| {
            let events = list(api_of(client, kind), all());
            Watched::new(events, move |object| resource(kind, object))
        };
        let heard = RefCell::new(BTreeMap::new());
        Self {
            resources: Kind::ALL.map(of_kind),
            nodes: Watched::new(list(Api::all(client.clone()), all()), |object| {
                (object.name_any(), Arc::new(node(object)))
            }),
            datapaths: Watched::new(list(datapaths_api(client), all()), |object| {
                (object.name_any(), Arc::new(shown(object)))
            }),
            leases: Watched::new(
                list(Api::namespaced(client.clone(), namespace), all()),
                move |lease| heartbeat(&lease, &mut heard.borrow_mut()),
            ),
            daemon_sets: Watched::new(
                list(
                    Api::namespaced(client.clone(), namespace),
                    all().fields(&format!("metadata.name={DAEMON_SET}")),
                ),
                Coverage::of,
            ),
            services: Watched::new(
                list(
                    Api::all(client.clone()),
                    all().fields("spec.type=LoadBalancer"),
                ),
                |service| Asked::of(&service).map(Arc::new),
            ),
            api_servers: Watched::new(
                list(
                    Api::namespaced(client.clone(), "default"),
                    all().labels("kubernetes.io/service-name=kubernetes"),
                ),
                |slice| endpoints(&slice),
            ),
            said: None,
        }
    }

    /// Publishes what is known, from when all of it was heard once.
    pub(crate) async fn publish(mut self, fleet: watch::Sender<Arc<Fleet>>) -> Infallible {
        let mut leases = Instant::now();
        loop {
            match time::timeout(PATIENCE, self.next()).await {
                Err(_) => self.say(),
                Ok(Heard::Nothing) => continue,
                Ok(Heard::Lease) if leases.elapsed() < LEASES => continue,
                Ok(_) => {
                    leases = Instant::now();
                    self.burst().await;
                    if self.is_complete() {
                        fleet.send_replace(Arc::new(self.fleet()));
                    }
                }
            }
        }
    }

    async fn burst(&mut self) {
        let latest = time::Instant::now() + LONGEST_BURST;
        loop {
            let quiet = (time::Instant::now() + QUIET).min(latest);
            if time::timeout_at(quiet, self.next()).await.is_err() {
                return;
            }
        }
    }

    async fn next(&mut self) -> Heard {
        let is_new = tokio::select! {
            is_new = next_of_any(&mut self.resources) => is_new,
            is_new = self.nodes.next() => is_new,
            is_new = self.datapaths.next() => is_new,
            is_new = self.daemon_sets.next() => is_new,
            is_new = self.services.next() => is_new,
            is_new = self.api_servers.next() => is_new,
            is_new = self.leases.next() => match is_new {
                true => return Heard::Lease,
                false => false,
            },
        };
        match is_new {
            true => Heard::Change,
            false => Heard::Nothing,
        }
    }

    fn is_complete(&self) -> bool {
        self.resources.iter().all(Watched::is_listed)
            && self.nodes.is_listed()
            && self.datapaths.is_listed()
            && self.leases.is_listed()
            && self.daemon_sets.is_listed()
            && self.services.is_listed()
            && self.api_servers.is_listed()
    }

    /// Says what keeps a watch from being told the news, once.
    fn say(&mut self) {
        let troubles = [
            self.nodes.trouble(),
            self.datapaths.trouble(),
            self.leases.trouble(),
            self.daemon_sets.trouble(),
            self.services.trouble(),
            self.api_servers.trouble(),
        ];
        let of_resources = self.resources.iter().map(Watched::trouble);
        let trouble = of_resources.chain(troubles).flatten().next();
        if trouble != self.said {
            match &trouble {
                Some(trouble) => tracing::warn!("{trouble}; what was said last stands"),
                None => tracing::info!("the API answers again"),
            }
            self.said = trouble;
        }
    }

    fn fleet(&self) -> Fleet {
        let resources = || self.resources.iter().flat_map(Watched::objects);
        let of = |known: &(Arc<Resource>, Arc<Told>)| known.0.uid.clone();
        Fleet {
            is_known: true,
            resources: resources()
                .map(|known| (of(known), Arc::clone(&known.0)))
                .collect(),
            told: resources()
                .map(|known| (of(known), Arc::clone(&known.1)))
                .collect(),
            nodes: self
                .nodes
                .objects()
                .map(|node| self.covered(node))
                .collect(),
            datapaths: self.datapaths.objects().cloned().collect(),
            heartbeats: self.leases.objects().flatten().cloned().collect(),
            services: self
                .services
                .objects()
                .flatten()
                .map(|asked| {
                    (
                        format!("{}/{}", asked.namespace, asked.name),
                        Arc::clone(asked),
                    )
                })
                .collect(),
            api_servers: self
                .api_servers
                .objects()
                .flatten()
                .map(SocketAddr::ip)
                .collect(),
        }
    }

    fn covered(&self, (name, node): &(String, Arc<Node>)) -> (String, Arc<Node>) {
        let Some(coverage) = self.daemon_sets.objects().next() else {
            return (name.clone(), Arc::clone(node));
        };
        let mut node = Node::clone(node);
        node.is_covered = Some(coverage.covers(name, &node.labels, &node.taints));
        (name.clone(), Arc::new(node))
    }
}

enum Heard {
    Nothing,
    Lease,
    Change,
}

fn resource(kind: Kind, object: DynamicObject) -> (Arc<Resource>, Arc<Told>) {
    let told = Told {
        status: serde_json::from_value(object.data["status"].clone()).unwrap_or_default(),
        is_deleting: object.metadata.deletion_timestamp.is_some(),
        owner: owner_of(kind, &object.metadata),
        tracker: Tracker::of(&object.metadata),
        written_at: written_at(&object.metadata),
    };
    let resource = document(kind, object, &Content::from);
    (Arc::new(resource), Arc::new(told))
}

/// The uid of the Service or Node that this was made for, by us.
fn owner_of(kind: Kind, metadata: &ObjectMeta) -> Option<String> {
    let of = match kind {
        Kind::TunnelPeer => "Node",
        _ => "Service",
    };
    let labels = metadata.labels.as_ref();
    let maker = labels.and_then(|labels| labels.get(MANAGED_BY));
    let mut owners = metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| {
        owner.api_version == "v1" && owner.kind == of && owner.controller == Some(true)
    });
    owner
        .filter(|_| maker.is_some_and(|maker| maker == FIELD_MANAGER))
        .map(|owner| owner.uid.clone())
}

/// When the object was last written, its status left aside.
fn written_at(metadata: &ObjectMeta) -> Option<Timestamp> {
    let writes = metadata.managed_fields.iter().flatten();
    let writes = writes.filter(|write| write.subresource.as_deref().unwrap_or_default().is_empty());
    writes
        .filter_map(|write| Some(write.time.as_ref()?.0))
        .max()
}

fn node(object: core::Node) -> Node {
    let uid = object.uid().unwrap_or_default();
    let mut node = Node::with_labels(uid, object.metadata.labels.unwrap_or_default());
    let status = object.status.unwrap_or_default();
    let mut conditions = status.conditions.iter().flatten();
    let ready = conditions.find(|condition| condition.type_ == "Ready");
    node.is_down = ready.is_some_and(|ready| ready.status != "True");
    let spec = object.spec.unwrap_or_default();
    let networks = spec.pod_cidrs.unwrap_or_default();
    node.pod_cidrs = networks
        .iter()
        .filter_map(|cidr| cidr.parse().ok())
        .collect();
    let addresses = status.addresses.unwrap_or_default();
    let internal = addresses.iter().filter(|given| given.type_ == "InternalIP");
    let internal_ip = internal
        .filter_map(|given| given.address.parse().ok())
        .next();
    let addresses = addresses
        .iter()
        .filter_map(|given| given.address.parse().ok());
    node.addresses = addresses.collect();
    node.internal_ip = internal_ip;
    node.taints = spec.taints.unwrap_or_default();
    node
}

fn shown(object: DynamicObject) -> Shown {
    let uid = object.uid().unwrap_or_default();
    let owners = object.metadata.owner_references.unwrap_or_default();
    // Of an agent of another version, it may be that not all of it can be read.
    let status: NodeDatapathStatus = match &object.data["status"] {
        Value::Null => NodeDatapathStatus::default(),
        status => serde_json::from_value(status.clone()).unwrap_or_default(),
    };
    let of_interfaces = not_enforced(&status);
    let mut conditions = status.conditions.into_iter();
    let ready = conditions.find(|condition| condition.type_ == "Ready");
    let not_ready = ready.filter(|ready| ready.status != "True");
    Shown {
        uid,
        has_failed: not_ready
            .as_ref()
            .is_some_and(|ready| ready.reason == "KernelFailed"),
        owner: owners
            .into_iter()
            .next()
            .map(|owner| owner.uid)
            .unwrap_or_default(),
        inputs: status.inputs_digest.and_then(|digest| digest.parse().ok()),
        not_ready: not_ready.map(|ready| (ready.reason, ready.message)),
        exceptions: status
            .exceptions
            .into_iter()
            .map(Into::into)
            .chain(of_interfaces)
            .collect(),
    }
}

/// The policies and services of interfaces that were not found to enforce what they should: the digest of a
/// node's inputs speaks of tables, not of how and where a program is attached.
fn not_enforced(status: &NodeDatapathStatus) -> Vec<Exception> {
    let amiss = status
        .interfaces
        .iter()
        .filter(|interface| !interface.enforced);
    let mut exceptions: BTreeMap<(Kind, String), Exception> = BTreeMap::new();
    for interface in amiss {
        let tables = status
            .tables
            .iter()
            .filter(|tables| tables.digest == interface.tables);
        let of_tables = |tables: &TablesDatapath| {
            let policies = tables
                .policies
                .iter()
                .map(|name| (Kind::XdpPolicy, name.clone()));
            let services = tables.services.iter();
            let services = services.map(|name| (Kind::LoadBalancerService, name.clone()));
            policies.chain(services).collect::<Vec<_>>()
        };
        for (kind, name) in tables.flat_map(of_tables) {
            let why = interface
                .reason
                .as_deref()
                .unwrap_or("it does not enforce what it should");
            exceptions
                .entry((kind, name.clone()))
                .or_insert_with(|| Exception {
                    kind: kind.as_str().to_owned(),
                    name,
                    is_stalled: true,
                    is_of_interface: true,
                    reason: "NotEnforced".to_owned(),
                    message: format!("{}: {why}", interface.name),
                });
        }
    }
    exceptions.into_values().collect()
}

/// What is remembered of a Lease: a list that is read again is no sign of life.
type Renewals = BTreeMap<String, Heartbeat>;

fn heartbeat(lease: &Lease, heard: &mut Renewals) -> Option<(String, Heartbeat)> {
    let spec = &lease.spec.as_ref()?;
    let renewed = spec.renew_time.as_ref()?.0;
    let lasts = Duration::from_secs(u64::try_from(spec.lease_duration_seconds?).ok()?);
    let name = lease.name_any();
    let said = renewed.to_string();
    let seen = match heard.get(&name) {
        Some(former) if former.renewed == said => former.seen,
        Some(_) => Instant::now(),
        // The first time, clocks tell only who has been dead for long: after an outage of the API
        // every Lease is old, and is renewed within moments.
        None => {
            let age = Timestamp::now().duration_since(renewed);
            let is_old = age > SignedDuration::try_from(lasts * LONG_DEAD).ok()?;
            Instant::now().checked_sub(if is_old { lasts } else { Duration::ZERO })?
        }
    };
    let heartbeat = Heartbeat {
        renewed: said,
        seen,
        lasts,
    };
    heard.insert(name.clone(), heartbeat.clone());
    Some((name, heartbeat))
}
