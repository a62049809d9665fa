//! Keeps the status of every resource: a roll-up after each change of the fleet, and a controller
//! that writes what it comes to.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt::Debug,
    future::ready,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::unfold};
use headgate_crds::{
    AddressPool, CidrGroup, Kind, LoadBalancerService, Problem, ResourceStatus, TunnelPeer,
    XdpPolicy,
};
use headgate_source::kubernetes::{api_in, explain};
use k8s_openapi::{
    api::core::v1::ObjectReference,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Client, ResourceExt as _,
    api::{ObjectMeta, PartialObjectMeta, PartialObjectMetaExt as _, Patch, PatchParams},
    runtime::{
        applier,
        controller::{Action, Config},
        events::{Event, EventType, Recorder, Reporter},
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{interval, sleep, timeout},
};

use crate::{
    FIELD_MANAGER,
    fleet::{Fleet, Resource, Told},
    rollup::{History, Rollup, Standing},
    status::{About, status},
};

/// A Lease that ends makes no event.
const LOOK: Duration = Duration::from_secs(5);
/// Between two roll-ups: a change on many nodes comes in many events.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two writes that only count progress.
const PROGRESS: Duration = Duration::from_secs(1);
/// For so long after a write, what was written is more recent than what is watched.
const ECHO: Duration = Duration::from_secs(2);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(2);
/// A call that has not come back by then has failed.
const DEADLINE: Duration = Duration::from_secs(10);
/// Writes under way at a time.
const CONCURRENCY: u16 = 8;
/// What an Event's note may have, in bytes.
const LONGEST_NOTE: usize = 1_024;

/// The moment that was rolled up last.
#[derive(Default)]
struct Current {
    fleet: Arc<Fleet>,
    standings: BTreeMap<String, Standing>,
}

/// What a write needs to know.
struct Context {
    client: Client,
    recorder: Recorder,
    argocd_namespace: String,
    is_leader: watch::Receiver<bool>,
    current: Mutex<Arc<Current>>,
    /// What was written last, by uid.
    written: Mutex<BTreeMap<String, (Instant, ResourceStatus)>>,
}

/// A write that failed. Outcome: it is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WriteError(String);

/// Rolls up for ever, and writes while this replica leads.
pub(crate) async fn keep(
    client: Client,
    identity: String,
    argocd_namespace: String,
    mut fleet: watch::Receiver<Arc<Fleet>>,
    mut is_leader: watch::Receiver<bool>,
) -> Infallible {
    let reporter = Reporter {
        controller: FIELD_MANAGER.to_owned(),
        instance: Some(identity),
    };
    let context = Arc::new(Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        argocd_namespace,
        is_leader: is_leader.clone(),
        current: Mutex::default(),
        written: Mutex::default(),
    });
    // None of them writes on when this is dropped.
    let on = &mut JoinSet::new();
    let mut pools = Queue::<AddressPool>::start(&context, Kind::AddressPool, on);
    let mut groups = Queue::<CidrGroup>::start(&context, Kind::CidrGroup, on);
    let mut services = Queue::<LoadBalancerService>::start(&context, Kind::LoadBalancerService, on);
    let mut peers = Queue::<TunnelPeer>::start(&context, Kind::TunnelPeer, on);
    let mut policies = Queue::<XdpPolicy>::start(&context, Kind::XdpPolicy, on);
    let mut history = History::default();
    let mut look = interval(LOOK);
    let mut asked = BTreeSet::new();
    loop {
        tokio::select! {
            _ = fleet.changed() => {}
            _ = is_leader.changed() => asked.clear(),
            _ = look.tick() => {}
        }
        let now = fleet.borrow_and_update().clone();
        let began = Instant::now();
        let current = roll_up(now, &mut history, began);
        *lock(&context.current) = Arc::clone(&current);
        pools.hold(&current);
        groups.hold(&current);
        services.hold(&current);
        peers.hold(&current);
        policies.hold(&current);
        if *is_leader.borrow_and_update() {
            asked.retain(|(uid, _)| current.fleet.resources.contains_key(uid));
            let due = |resource: &&Arc<Resource>| {
                // A commit is asked for once; who asked does so again as long as it makes sense.
                let generation = (resource.uid.clone(), resource.generation);
                current.lacks_source(resource) && asked.insert(generation)
                    || context.is_due(&current, resource)
            };
            for resource in current.fleet.resources.values().filter(due) {
                match resource.kind {
                    Kind::AddressPool => pools.request(resource),
                    Kind::CidrGroup => groups.request(resource),
                    Kind::LoadBalancerService => services.request(resource),
                    Kind::TunnelPeer => peers.request(resource),
                    Kind::XdpPolicy => policies.request(resource),
                }
            }
        }
        sleep(PAUSE.max(began.elapsed())).await;
    }
}

fn roll_up(fleet: Arc<Fleet>, history: &mut History, now: Instant) -> Arc<Current> {
    history.remember(fleet.catalog());
    let rollup = Rollup::new(history, &fleet, now);
    let of = |(uid, resource): (&String, &Arc<Resource>)| (uid.clone(), rollup.of(resource));
    let standings = fleet.resources.iter().map(of).collect();
    Arc::new(Current { fleet, standings })
}

/// The objects of a kind, as the controller knows them, and its queue.
struct Queue<K: kube::Resource<DynamicType = ()> + Clone + 'static> {
    kind: Kind,
    held: BTreeMap<String, String>,
    writer: Writer<PartialObjectMeta<K>>,
    requests: mpsc::UnboundedSender<ObjectRef<PartialObjectMeta<K>>>,
}

impl<K> Queue<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Starts the controller of a kind.
    fn start(context: &Arc<Context>, kind: Kind, on: &mut JoinSet<()>) -> Self {
        let writer = Writer::default();
        let (requests, received) = mpsc::unbounded_channel();
        on.spawn(control(Arc::clone(context), writer.as_reader(), received));
        Self {
            kind,
            held: BTreeMap::new(),
            writer,
            requests,
        }
    }

    /// Lets the controller know which objects there are.
    fn hold(&mut self, current: &Current) {
        let of_kind = |resource: &&Arc<Resource>| resource.kind == self.kind;
        let resources = current.fleet.resources.values().filter(of_kind);
        let held: BTreeMap<String, String> = resources
            .map(|resource| (resource.uid.clone(), resource.name.clone()))
            .collect();
        if held == self.held {
            return;
        }
        self.writer.apply_watcher_event(&watcher::Event::Init);
        for (uid, name) in &held {
            let (namespace, name) = Kind::split_name(name);
            let metadata = ObjectMeta {
                namespace: namespace.map(str::to_owned),
                name: Some(name.to_owned()),
                uid: Some(uid.clone()),
                ..ObjectMeta::default()
            };
            let object = metadata.into_response_partial();
            self.writer
                .apply_watcher_event(&watcher::Event::InitApply(object));
        }
        self.writer.apply_watcher_event(&watcher::Event::InitDone);
        self.held = held;
    }

    fn request(&self, resource: &Resource) {
        let (namespace, name) = Kind::split_name(&resource.name);
        let mut object = ObjectRef::new(name);
        object.namespace = namespace.map(str::to_owned);
        // The controller lives as long as the process.
        let _ = self.requests.send(object);
    }
}

/// One object at a time, what fails again later.
async fn control<K>(
    context: Arc<Context>,
    objects: Store<PartialObjectMeta<K>>,
    requests: mpsc::UnboundedReceiver<ObjectRef<PartialObjectMeta<K>>>,
) where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let queue = unfold(requests, |mut requests| async move {
        let object = requests.recv().await?;
        Some((Ok::<_, Infallible>(object), requests))
    });
    applier(
        |object, context| Box::pin(reconcile::<K>(object, context)),
        |_, error, _| {
            tracing::warn!("a status is not written: {error}");
            Action::requeue(RETRY)
        },
        context,
        objects,
        queue,
        Config::default().concurrency(CONCURRENCY),
    )
    .for_each(|_| ready(()))
    .await;
}

/// Brings the status of one resource to what the last roll-up came to.
async fn reconcile<K>(
    object: Arc<PartialObjectMeta<K>>,
    context: Arc<Context>,
) -> Result<Action, WriteError>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if !*context.is_leader.borrow() {
        return Ok(Action::await_change());
    }
    let current = Arc::clone(&lock(&context.current));
    let uid = object.uid().unwrap_or_default();
    let Some((resource, told)) = current.of(&uid) else {
        return Ok(Action::await_change());
    };
    let (since, former) = context.former(resource, told);
    let mut next = current.status(resource, told, &former);
    let mut again = Action::await_change();
    if next.source.is_none()
        && let Some(tracker) = &told.tracker
    {
        let generation = next.observed_generation;
        let namespace = &context.argocd_namespace;
        let asked = tracker.revision(&context.client, namespace, generation, told.written_at);
        next.source = match timeout(DEADLINE, asked).await {
            Ok(Ok(source)) => source,
            Ok(Err(error)) => {
                tracing::debug!(resource.name, "its commit: {}", explain(&error));
                None
            }
            Err(_) => None,
        };
        if next.source.is_none() {
            again = ask_again(told.written_at);
        }
    }
    if next == former {
        return Ok(again);
    }
    if let Some(rest) = PROGRESS.checked_sub(since)
        && is_progress(&former, &next)
    {
        return Ok(Action::requeue(rest));
    }
    if context.write(resource, &next).await? {
        context.tell(resource, &former, &next).await;
    }
    Ok(again)
}

/// A tool says which commit it synced only when it has ended; what it never says is not asked for
/// ever.
fn ask_again(written_at: Option<Timestamp>) -> Action {
    let age = written_at.map(|written| Timestamp::now().duration_since(written));
    match age {
        Some(age) if age < SignedDuration::from_mins(1) => Action::requeue(Duration::from_secs(2)),
        Some(age) if age < SignedDuration::from_hours(1) => {
            Action::requeue(Duration::from_secs(60))
        }
        _ => Action::await_change(),
    }
}

/// Whether nothing is new but how many nodes are done.
fn is_progress(former: &ResourceStatus, next: &ResourceStatus) -> bool {
    let reason = |status: &ResourceStatus| {
        let mut conditions = status.conditions.iter();
        let ready = conditions.find(|condition| condition.type_ == "Ready");
        ready.map(|ready| ready.reason.clone())
    };
    former.observed_generation == next.observed_generation
        && former.source == next.source
        && reason(former) == reason(next)
}

impl Current {
    fn of(&self, uid: &str) -> Option<(&Resource, &Told)> {
        Some((self.fleet.resources.get(uid)?, self.fleet.told.get(uid)?))
    }

    fn lacks_source(&self, resource: &Resource) -> bool {
        let told = self.fleet.told.get(&resource.uid);
        told.is_some_and(|told| told.tracker.is_some() && told.status.source.is_none())
    }

    fn status(&self, resource: &Resource, told: &Told, former: &ResourceStatus) -> ResourceStatus {
        let problems: &[Problem] = match &resource.content {
            Ok(_) => &[],
            Err(problems) => problems,
        };
        let generation = resource.generation.unwrap_or_default();
        let about = About {
            generation: i64::try_from(generation).unwrap_or(i64::MAX),
            problems,
            is_deleting: told.is_deleting,
            is_referred_to: matches!(resource.kind, Kind::CidrGroup | Kind::AddressPool),
        };
        let standing = self.standings.get(&resource.uid);
        let standing = standing.cloned().unwrap_or_default();
        status(&about, &standing, former, &Timestamp::now())
    }
}

impl Context {
    fn is_due(&self, current: &Current, resource: &Resource) -> bool {
        let Some(told) = current.fleet.told.get(&resource.uid) else {
            return false;
        };
        let (_, former) = self.former(resource, told);
        let next = current.status(resource, told, &former);
        next != former
    }

    /// What the status is, and how long ago it was written.
    fn former(&self, resource: &Resource, told: &Told) -> (Duration, ResourceStatus) {
        let written = lock(&self.written);
        match written.get(&resource.uid) {
            Some((at, status)) if at.elapsed() < ECHO => (at.elapsed(), status.clone()),
            _ => (Duration::MAX, told.status.clone()),
        }
    }

    /// Whether it was written: an object that is gone, or another of the same name, is left alone.
    async fn write(&self, resource: &Resource, next: &ResourceStatus) -> Result<bool, WriteError> {
        // An object of the same name that was made since has nothing to do with this.
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": resource.uid},
            {"op": "add", "path": "/status", "value": next},
        ]);
        let patch = serde_json::from_value(patch).expect("it is a JSON patch as RFC 6902 has it");
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let (namespace, name) = Kind::split_name(&resource.name);
        let api = api_in(&self.client, resource.kind, namespace);
        let patch = Patch::<()>::Json(patch);
        let written = timeout(DEADLINE, api.patch_status(name, &params, &patch)).await;
        let written =
            written.map_err(|_| WriteError("the API server has not answered".to_owned()))?;
        match written {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 422) => {
                // It is gone, or another one; or the definitions are of another version.
                tracing::debug!(resource.name, "no status: {}", status.message);
                return Ok(false);
            }
            Err(error) => return Err(WriteError(explain(&error))),
        }
        let mut written = lock(&self.written);
        written.retain(|_, (at, _)| at.elapsed() < ECHO);
        written.insert(resource.uid.clone(), (Instant::now(), next.clone()));
        Ok(true)
    }

    /// An Event where it became Ready or ceased to be.
    async fn tell(&self, resource: &Resource, former: &ResourceStatus, next: &ResourceStatus) {
        let of = |status: &ResourceStatus| {
            let mut conditions = status.conditions.iter();
            conditions
                .find(|condition| condition.type_ == "Ready")
                .cloned()
        };
        let (before, Some(now)) = (of(former), of(next)) else {
            return;
        };
        let said = |ready: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            (ready.status.clone(), ready.reason.clone())
        };
        let is_new = before.as_ref().map(said) != Some(said(&now));
        if !is_new || now.reason == "Pending" {
            return;
        }
        let end = now.message.floor_char_boundary(LONGEST_NOTE);
        let event = Event {
            type_: match now.status.as_str() {
                "True" => EventType::Normal,
                _ => EventType::Warning,
            },
            reason: now.reason,
            note: Some(now.message[..end].to_owned()),
            action: "RollUp".to_owned(),
            secondary: None,
        };
        let regarding = ObjectReference {
            api_version: Some(headgate_crds::API_VERSION.to_owned()),
            kind: Some(resource.kind.as_str().to_owned()),
            namespace: Kind::split_name(&resource.name).0.map(str::to_owned),
            name: Some(Kind::split_name(&resource.name).1.to_owned()),
            uid: Some(resource.uid.clone()),
            ..ObjectReference::default()
        };
        let sent = timeout(DEADLINE, self.recorder.publish(&event, &regarding)).await;
        if let Ok(Err(error)) = sent {
            tracing::debug!("an Event is not sent: {}", explain(&error));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
