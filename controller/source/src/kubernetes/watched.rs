//! One watch, and what is known by it.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt as _, future::select_all, stream::BoxStream};
use kube::{
    Api, Resource, ResourceExt as _,
    core::Status,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use super::{PAGE, words};

/// A trouble that did not come again for so long is over: the longest pause between two attempts is
/// half a minute, and a watch that goes on says nothing.
const TROUBLE_LASTS: Duration = Duration::from_secs(45);

/// What a watch tells, one event after another, for ever.
pub type Events<K> = BoxStream<'static, watcher::Result<Event<K>>>;

/// The objects of one list, each as `convert` makes it.
pub struct Watched<K, V> {
    events: Events<K>,
    convert: Box<dyn Fn(K) -> V + Send>,
    /// By uid.
    objects: BTreeMap<String, V>,
    /// A list that is under way: what is known stays until it is whole.
    arriving: Option<BTreeMap<String, V>>,
    is_listed: bool,
    trouble: Option<(Instant, String)>,
}

/// The next event of any of these. Dropping the future loses nothing: see [`Watched::next`].
pub async fn next_of_any<K, V>(watched: &mut [Watched<K, V>]) -> bool
where
    K: Resource + Send + 'static,
    V: PartialEq + Send,
{
    let next = watched.iter_mut().map(|watched| Box::pin(watched.next()));
    select_all(next).await.0
}

impl<K: Resource + Send + 'static, V: PartialEq> Watched<K, V> {
    /// Follows `events`, as [`list`] gives them.
    pub fn new(events: Events<K>, convert: impl Fn(K) -> V + Send + 'static) -> Self {
        Self {
            events,
            convert: Box::new(convert),
            objects: BTreeMap::new(),
            arriving: None,
            is_listed: false,
            trouble: None,
        }
    }

    /// All objects, in the order of their uids.
    pub fn objects(&self) -> impl Iterator<Item = &V> {
        self.objects.values()
    }

    /// Whether the whole list was heard once.
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Why there is no news.
    pub fn trouble(&self) -> Option<String> {
        let (since, words) = self.trouble.as_ref()?;
        (since.elapsed() < TROUBLE_LASTS).then(|| words.clone())
    }

    /// Takes in one event; whether something is now known that was not before: an object of which
    /// nothing changed that is kept is no news. Dropping the future loses nothing.
    pub async fn next(&mut self) -> bool {
        match self.events.next().await {
            Some(Ok(event)) => self.take(event),
            Some(Err(error)) => {
                let words = words::explain_watch(&error);
                tracing::debug!(%error, "a watch failed");
                let is_new = self.trouble().as_ref() != Some(&words);
                self.trouble = Some((Instant::now(), words));
                is_new
            }
            // A watcher never ends.
            None => std::future::pending().await,
        }
    }

    fn take(&mut self, event: Event<K>) -> bool {
        match event {
            Event::Init => {
                self.arriving = Some(BTreeMap::new());
                false
            }
            Event::InitApply(object) => {
                let uid = object.uid().unwrap_or_default();
                let value = (self.convert)(object);
                self.arriving.get_or_insert_default().insert(uid, value);
                false
            }
            Event::InitDone => {
                let arrived = self.arriving.take().unwrap_or_default();
                let is_new = !self.is_listed || self.trouble.is_some() || arrived != self.objects;
                self.objects = arrived;
                self.is_listed = true;
                self.trouble = None;
                is_new
            }
            Event::Apply(object) => {
                let uid = object.uid().unwrap_or_default();
                let value = (self.convert)(object);
                let is_new =
                    self.trouble.take().is_some() || self.objects.get(&uid) != Some(&value);
                self.objects.insert(uid, value);
                is_new
            }
            Event::Delete(object) => {
                let is_known = self.objects.remove(&object.uid().unwrap_or_default());
                self.trouble.take().is_some() || is_known.is_some()
            }
        }
    }
}

/// The events of a list. Lists are streamed where the server can do that (Kubernetes 1.34 by
/// default): no page of them has to fit into memory at once.
pub fn list<K>(api: Api<K>, config: watcher::Config) -> Events<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Clone + Send + Sync,
{
    let paged = watcher(api.clone(), config.clone().page_size(PAGE)).default_backoff();
    let streamed = watcher(api, config.streaming_lists()).default_backoff();
    until_refused(streamed).chain(paged).boxed()
}

/// Ends where the server does not know how to stream a list.
fn until_refused<K: Send + Sync>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send {
    let is_refusal = |status: &Status| matches!(status.code, 400 | 422);
    events.take_while(move |event| {
        let refused = match event {
            Err(watcher::Error::WatchError(status)) => is_refusal(status),
            Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) => is_refusal(status),
            _ => false,
        };
        std::future::ready(!refused)
    })
}
