//! The Kubernetes API as the source of resources.

mod client;
mod pods;
mod watched;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use headgate_crds::{API_VERSION, GROUP, Kind, Resource, VERSION, check};
use k8s_openapi::{
    api::{core::v1::Node, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, PartialObjectMeta},
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::{
    document::{Document, Listing, Origin, Reading},
    file::written,
};

pub use client::{ClientError, Connection, connect};
pub use pods::{LocalPod, local_pods};
pub use watched::{Events, Watched, list, next_of_any};
pub use words::explain;

/// A burst of changes has ended when nothing came for so long; Argo CD and `kubectl apply` write
/// one object after another.
const QUIET: Duration = Duration::from_millis(5);
/// A burst is cut off after so long.
const LONGEST_BURST: Duration = Duration::from_millis(50);

/// Objects of one answer: groups of 5,000 addresses are large.
const PAGE: u32 = 50;

/// The namespace and the label of the EndpointSlices of the API servers.
const API_SERVERS: (&str, &str) = ("default", "kubernetes.io/service-name=kubernetes");

/// The label by which an EndpointSlice names its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Kinds that a node watches whatever it holds; groups are large.
const ALWAYS: [Kind; 4] = [
    Kind::AddressPool,
    Kind::LoadBalancerService,
    Kind::TunnelPeer,
    Kind::XdpPolicy,
];

/// What is watched only while it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// CidrGroups, by policies.
    pub groups: bool,
    /// EndpointSlices, by services.
    pub endpoints: bool,
}

impl Uses {
    /// What one of the two uses.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            groups: self.groups || other.groups,
            endpoints: self.endpoints || other.endpoints,
        }
    }
}

/// What a resource, as it is kept, uses on a node with these labels.
pub type UsesOf<T> = dyn Fn(&T, &BTreeMap<String, String>) -> Uses + Send;

/// The resources of a cluster, of which groups while a policy of this node uses some, the node itself and
/// the addresses of the API servers, and EndpointSlices while a service uses some, each by a watch.
pub struct KubernetesSource<T> {
    client: Client,
    node_name: String,
    convert: Arc<dyn Fn(Resource) -> T + Send + Sync>,
    uses: Box<UsesOf<T>>,
    in_effect: Uses,
    /// One for each kind that is watched always.
    always: [Documents<T>; ALWAYS.len()],
    groups: Option<Documents<T>>,
    slices: Option<Watched<EndpointSlice, Arc<EndpointSlice>>>,
    node: Watched<PartialObjectMeta<Node>, NodeObject>,
    api_servers: Watched<EndpointSlice, Vec<SocketAddr>>,
}

type Documents<T> = Watched<DynamicObject, Arc<Document<T>>>;

/// What is read of the node's own object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeObject {
    /// Its uid.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl<T: Clone + PartialEq + Send + Sync + 'static> KubernetesSource<T> {
    /// Watches through `client` for the node `node_name`, and keeps of each resource what `convert`
    /// makes of it. Nothing is asked before [`Self::changed`] is awaited.
    pub fn new(
        client: Client,
        node_name: impl Into<String>,
        convert: impl Fn(Resource) -> T + Send + Sync + 'static,
        uses: impl Fn(&T, &BTreeMap<String, String>) -> Uses + Send + 'static,
    ) -> Self {
        let node_name = node_name.into();
        let convert: Arc<dyn Fn(Resource) -> T + Send + Sync> = Arc::new(convert);
        let (namespace, label) = API_SERVERS;
        Self {
            always: ALWAYS.map(|kind| documents(&client, kind, Arc::clone(&convert))),
            groups: None,
            slices: None,
            node: Watched::new(
                list(
                    Api::all(client.clone()),
                    watcher::Config::default().fields(&format!("metadata.name={node_name}")),
                ),
                |node| NodeObject {
                    uid: node.uid().unwrap_or_default(),
                    labels: node.metadata.labels.unwrap_or_default(),
                },
            ),
            api_servers: Watched::new(
                list(
                    Api::namespaced(client.clone(), namespace),
                    watcher::Config::default().labels(label),
                ),
                |slice| endpoints(&slice),
            ),
            client,
            node_name,
            convert,
            uses: Box::new(uses),
            in_effect: Uses::default(),
        }
    }

    /// Tells what that uses that is in effect, whatever resources now say: one that is refused leaves its
    /// former content in effect.
    pub fn set_uses_in_effect(&mut self, in_effect: Uses) {
        self.in_effect = in_effect;
        self.follow_uses();
    }

    /// What is known now.
    pub fn read(&self) -> Reading<T> {
        match self.unknown() {
            Some(reason) => Reading::Unavailable { reason },
            None => Reading::Complete(Listing {
                documents: self.documents().cloned().collect(),
                unreadable: Vec::new(),
                warnings: Vec::new(),
                stale: self.trouble(),
                slices: self
                    .slices
                    .as_ref()
                    .filter(|slices| slices.is_listed())
                    .map(|slices| slices.objects().cloned().collect()),
            }),
        }
    }

    /// The node's own object; `None` before it was heard of, and where there is none.
    pub fn node(&self) -> Option<&NodeObject> {
        self.node.objects().next()
    }

    /// Where the API servers listen; `None` before that was heard.
    pub fn api_servers(&self) -> Option<BTreeSet<SocketAddr>> {
        let slices = self
            .api_servers
            .is_listed()
            .then(|| self.api_servers.objects());
        slices.map(|slices| slices.flatten().copied().collect())
    }

    /// Waits for news, and for the end of a burst of them. Dropping the future loses nothing that
    /// [`Self::read`] would tell.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn changed(&mut self) {
        while !self.next().await {}
        let latest = Instant::now() + LONGEST_BURST;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            if timeout_at(quiet, self.next()).await.is_err() {
                return;
            }
        }
    }

    /// Takes in one event; whether something is now known that was not before.
    async fn next(&mut self) -> bool {
        let is_new = tokio::select! {
            is_new = next_of_any(&mut self.always) => is_new,
            is_new = next_of(&mut self.groups) => is_new,
            is_new = next_of(&mut self.slices) => is_new,
            is_new = self.node.next() => is_new,
            is_new = self.api_servers.next() => is_new,
        };
        if is_new {
            self.follow_uses();
        }
        is_new
    }

    /// Starts or ends the watches of what is used.
    fn follow_uses(&mut self) {
        let Some(node) = self.node.objects().next() else {
            return;
        };
        let uses = |document: &Arc<Document<T>>| match &document.content {
            Ok(content) => (self.uses)(content, &node.labels),
            // What it last said well may use some.
            Err(_) => Uses {
                groups: document.kind == Kind::XdpPolicy,
                endpoints: document.kind == Kind::LoadBalancerService,
            },
        };
        let used = self.always.iter().flat_map(Watched::objects).map(uses);
        let used = used.fold(self.in_effect, Uses::or);
        if !used.groups {
            self.groups = None;
        } else if self.groups.is_none() {
            let convert = Arc::clone(&self.convert);
            self.groups = Some(documents(&self.client, Kind::CidrGroup, convert));
        }
        if !used.endpoints {
            self.slices = None;
        } else if self.slices.is_none() {
            let of_services = watcher::Config::default().labels(SERVICE_NAME);
            let slices = list(Api::all(self.client.clone()), of_services);
            self.slices = Some(Watched::new(slices, |slice| Arc::new(bare(slice))));
        }
    }

    fn documents(&self) -> impl Iterator<Item = &Arc<Document<T>>> {
        let groups = self.groups.iter().flat_map(Watched::objects);
        self.always.iter().flat_map(Watched::objects).chain(groups)
    }

    /// Why it is not known what there is.
    fn unknown(&self) -> Option<String> {
        let unlisted = |is_listed: bool| !is_listed;
        if !self.always.iter().all(Watched::is_listed)
            || unlisted(self.node.is_listed())
            || self
                .groups
                .as_ref()
                .is_some_and(|groups| unlisted(groups.is_listed()))
        {
            let trouble = self.trouble();
            return Some(trouble.unwrap_or_else(|| "the API has not answered yet".to_owned()));
        }
        self.node().is_none().then(|| {
            format!(
                "the cluster has no node {}; give its name as `kubectl get nodes` shows it by --node-name",
                self.node_name
            )
        })
    }

    /// What keeps a watch from being told the news.
    fn trouble(&self) -> Option<String> {
        let groups = self.groups.as_ref().and_then(Watched::trouble);
        let slices = self.slices.as_ref().and_then(Watched::trouble);
        let others = [self.node.trouble(), self.api_servers.trouble(), slices];
        let always = self.always.iter().map(Watched::trouble);
        let all = always.chain([groups]).chain(others);
        all.flatten().next()
    }
}

/// An EndpointSlice without what no agent asks for.
fn bare(slice: EndpointSlice) -> EndpointSlice {
    let metadata = slice.metadata;
    EndpointSlice {
        metadata: ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            labels: metadata.labels,
            ..ObjectMeta::default()
        },
        ..slice
    }
}

async fn next_of<K, V>(watched: &mut Option<Watched<K, V>>) -> bool
where
    K: kube::Resource + Send + 'static,
    V: PartialEq,
{
    match watched {
        Some(watched) => watched.next().await,
        None => std::future::pending().await,
    }
}

/// Everything that the API holds at this moment, of every kind.
///
/// # Errors
/// A list fails.
pub async fn list_once<T>(
    client: &Client,
    convert: impl Fn(Resource) -> T,
) -> Result<Listing<T>, kube::Error> {
    let mut documents = Vec::new();
    for kind in Kind::ALL {
        let api = api_of(client, kind);
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await?;
            let objects = page.items.into_iter();
            documents.extend(objects.map(|object| Arc::new(document(kind, object, &convert))));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(Listing {
        documents,
        unreadable: Vec::new(),
        warnings: Vec::new(),
        stale: None,
        slices: None,
    })
}

/// The API's list of a kind, as users name it: `xdppolicies.headgate.dev`.
fn list_name(kind: Kind) -> String {
    format!("{}.{GROUP}", plural(kind))
}

fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::AddressPool => "addresspools",
        Kind::CidrGroup => "cidrgroups",
        Kind::LoadBalancerService => "loadbalancerservices",
        Kind::TunnelPeer => "tunnelpeers",
        Kind::XdpPolicy => "xdppolicies",
    }
}

fn documents<T: PartialEq + Send + Sync + 'static>(
    client: &Client,
    kind: Kind,
    convert: Arc<dyn Fn(Resource) -> T + Send + Sync>,
) -> Documents<T> {
    let api = api_of(client, kind);
    Watched::new(list(api, watcher::Config::default()), move |object| {
        Arc::new(document(kind, object, &*convert))
    })
}

/// All objects of a kind. Untyped: one that got past the CRD must not stop a watch.
#[must_use]
pub fn api_of(client: &Client, kind: Kind) -> Api<DynamicObject> {
    untyped(client, kind.as_str(), plural(kind))
}

/// All NodeDatapaths. Untyped: another version's must not stop a watch.
#[must_use]
pub fn datapaths_api(client: &Client) -> Api<DynamicObject> {
    untyped(client, "NodeDatapath", "nodedatapaths")
}

/// The objects of a kind in `namespace`, or all of them.
#[must_use]
pub fn api_in(client: &Client, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
    let resource = described(kind.as_str(), plural(kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn untyped(client: &Client, kind: &str, plural: &str) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &described(kind, plural))
}

fn described(kind: &str, plural: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk(GROUP, VERSION, kind);
    ApiResource::from_gvk_with_plural(&kind, plural)
}

/// An object of the API, checked.
#[must_use]
pub fn document<T>(
    kind: Kind,
    object: DynamicObject,
    convert: &dyn Fn(Resource) -> T,
) -> Document<T> {
    let uid = object.uid().unwrap_or_default();
    let name = kind.full_name(object.namespace().as_deref(), &object.name_any());
    let generation = object.metadata.generation;
    let value = as_written(kind, object);
    let (content, warnings) = match check(&value) {
        Ok(checked) => (Ok(convert(checked.resource)), checked.warnings),
        Err(problems) => (Err(problems), Vec::new()),
    };
    Document {
        origin: Origin {
            list: list_name(kind),
            line: None,
        },
        kind,
        name,
        uid,
        generation: generation.and_then(|number| u64::try_from(number).ok()),
        written: written(&value),
        content,
        warnings,
    }
}

/// The object as its author knows it: without what the API server and other controllers add.
#[must_use]
pub fn as_written(kind: Kind, object: DynamicObject) -> Value {
    let metadata = object.metadata;
    let mut value = json!({
        "apiVersion": API_VERSION,
        "kind": kind.as_str(),
        "metadata": {"name": metadata.name},
    });
    if let Some(namespace) = metadata.namespace {
        value["metadata"]["namespace"] = json!(namespace);
        value["metadata"]["creationTimestamp"] = json!(metadata.creation_timestamp);
    }
    if let Some(labels) = metadata.labels {
        value["metadata"]["labels"] = json!(labels);
    }
    if let Value::Object(fields) = object.data {
        for (name, field) in fields {
            if name != "status" {
                value[name] = field;
            }
        }
    }
    value
}

/// What an EndpointSlice leads to.
#[must_use]
pub fn endpoints(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let ports: Vec<u16> = slice
        .ports
        .iter()
        .flatten()
        .filter_map(|port| u16::try_from(port.port?).ok())
        .collect();
    let addresses = slice
        .endpoints
        .iter()
        .flatten()
        .flat_map(|endpoint| &endpoint.addresses);
    addresses
        .filter_map(|address| address.parse().ok())
        .flat_map(|address| {
            ports
                .iter()
                .map(move |port| SocketAddr::new(address, *port))
        })
        .collect()
}
