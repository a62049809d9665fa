//! Certificates of the webhook's own authority, in a Secret that the leader keeps and every replica
//! serves from.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fmt::Debug,
    future::Future,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt as _, stream::BoxStream};
use headgate_source::kubernetes::explain;
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration as Configuration, core::v1::Secret,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ObjectMeta, PostParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    super::{CONFIGURATION, Config, SECRET},
    Lifetimes, Served, authority_bundle,
    issue::{BUNDLE, Data, IssueError, Kept, LEAF, LEAF_KEY, carry_out},
    plan::plan,
};

/// What failed is tried again after so long.
const RETRY: Duration = Duration::from_secs(5);
/// Something due that another replica was faster with is not looked at again and again.
const SOONEST: Duration = Duration::from_millis(100);
/// A write that is not answered by then has failed.
const WRITE: Duration = Duration::from_secs(10);
/// Who is not the leader only listens.
const LISTEN: Duration = Duration::from_secs(60 * 60);

/// Why certificates are not as they ought to be. Outcome: those that there are stay; it is tried
/// again.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error("{0}")]
    Issue(#[from] IssueError),
    #[error("{}", explain(.0))]
    Api(#[from] kube::Error),
    #[error("the API server has not answered within {} seconds", WRITE.as_secs())]
    TooLate,
}

/// One object, as it is watched.
struct Followed<K> {
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    is_heard: bool,
    object: Option<K>,
    /// A list that is under way: what is known stays until it is whole.
    arriving: Option<K>,
}

impl<K> Followed<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default,
{
    fn new(api: Api<K>, name: &str) -> Self {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        Self {
            events: watcher(api, config).default_backoff().boxed(),
            is_heard: false,
            object: None,
            arriving: None,
        }
    }

    /// Takes in one event.
    async fn next(&mut self) {
        match self.events.next().await {
            Some(Ok(Event::Init)) => self.arriving = None,
            Some(Ok(Event::InitApply(object))) => self.arriving = Some(object),
            Some(Ok(Event::InitDone)) => {
                self.object = self.arriving.take();
                self.is_heard = true;
            }
            Some(Ok(Event::Apply(object))) => self.object = Some(object),
            Some(Ok(Event::Delete(_))) => self.object = None,
            Some(Err(error)) => {
                let kind = K::kind(&K::DynamicType::default()).into_owned();
                tracing::warn!(%error, "the {kind} of the admission webhook is not heard of");
            }
            // A watcher never ends.
            None => std::future::pending().await,
        }
    }
}

/// Keeps Secret and configuration.
pub(super) struct Keeper<'a> {
    secrets: Api<Secret>,
    configurations: Api<Configuration>,
    secret: Followed<Secret>,
    configuration: Followed<Configuration>,
    /// What the Secret last held: where it is deleted it is made again as it was.
    data: Data,
    names: BTreeSet<String>,
    lifetimes: Lifetimes,
    served: &'a Served,
    /// Which newest authority the configuration knows, and since when.
    published: Option<(String, SystemTime)>,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        client: Client,
        config: &Config,
        lifetimes: Lifetimes,
        served: &'a Served,
    ) -> Self {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &config.namespace);
        let configurations: Api<Configuration> = Api::all(client);
        Self {
            secret: Followed::new(secrets.clone(), SECRET),
            configuration: Followed::new(configurations.clone(), CONFIGURATION),
            secrets,
            configurations,
            data: Data::new(),
            names: config.names.iter().cloned().collect(),
            lifetimes,
            served,
            published: None,
        }
    }

    pub(super) async fn run(mut self, mut is_leader: watch::Receiver<bool>) -> Infallible {
        let mut wait = LISTEN;
        let mut told = None;
        loop {
            tokio::select! {
                () = self.secret.next() => {}
                () = self.configuration.next() => {}
                () = changed(&mut is_leader) => {}
                () = sleep(wait) => {}
            }
            let leads = *is_leader.borrow_and_update();
            let kept = self.look(leads).await;
            let trouble = kept.as_ref().err().map(ToString::to_string);
            if let Some(trouble) = trouble.as_ref().filter(|_| trouble != told) {
                tracing::warn!("the admission webhook's certificates are not renewed: {trouble}");
            }
            told = trouble;
            wait = kept.unwrap_or(RETRY);
        }
    }

    /// Serves what there is and, as the leader, does what is due; when to look again.
    async fn look(&mut self, leads: bool) -> Result<Duration, KeepError> {
        if !self.secret.is_heard || !self.configuration.is_heard {
            return Ok(LISTEN);
        }
        if let Some(data) = self.secret.object.as_ref().and_then(|s| s.data.as_ref()) {
            self.data = data.clone();
        }
        self.serve();
        if !leads {
            return Ok(LISTEN);
        }
        self.keep_secret().await?;
        self.keep_configuration().await?;
        let now = SystemTime::now();
        let next = self.plan(&Kept::read(&self.data), now).next;
        Ok(next.duration_since(now).unwrap_or_default().max(SOONEST))
    }

    fn serve(&self) {
        let (Some(certificate), Some(key)) = (self.data.get(LEAF), self.data.get(LEAF_KEY)) else {
            return;
        };
        // A leader makes a new one of what cannot be served.
        if let Err(error) = self.served.set(&certificate.0, &key.0) {
            tracing::warn!("the Secret {SECRET} cannot be served from: {error}");
        }
    }

    fn plan(&mut self, kept: &Kept, now: SystemTime) -> super::plan::Plan {
        let published = self.published(kept, now);
        plan(&kept.present, &self.names, &self.lifetimes, published, now)
    }

    /// Since when API servers may know the newest authority.
    fn published(&mut self, kept: &Kept, now: SystemTime) -> Option<SystemTime> {
        let newest = kept.newest()?;
        let Some(configuration) = &self.configuration.object else {
            // Nobody asks the webhook anything.
            return Some(SystemTime::UNIX_EPOCH);
        };
        if !authority_bundle::trusts(configuration, newest) {
            self.published = None;
        } else if self
            .published
            .as_ref()
            .is_none_or(|(known, _)| known != newest)
        {
            self.published = Some((newest.to_owned(), now));
        }
        self.published.as_ref().map(|(_, since)| *since)
    }

    async fn keep_secret(&mut self) -> Result<(), KeepError> {
        let (kept, now) = (Kept::read(&self.data), SystemTime::now());
        let plan = self.plan(&kept, now);
        if plan.keeps_all() && self.secret.object.is_some() {
            return Ok(());
        }
        let data = carry_out(&plan, &kept, &self.data, &self.names, &self.lifetimes, now)?;
        let written = match write_secret(&self.secrets, self.secret.object.as_ref(), data).await {
            // Another replica was first, and its Secret is on its way here.
            Err(KeepError::Api(kube::Error::Api(status))) if status.code == 409 => return Ok(()),
            written => written?,
        };
        self.data = written.data.clone().unwrap_or_default();
        self.secret.object = Some(written);
        self.serve();
        Ok(())
    }

    async fn keep_configuration(&mut self) -> Result<(), KeepError> {
        let Some(bundle) = self.data.get(BUNDLE) else {
            return Ok(());
        };
        let Some(configuration) = &self.configuration.object else {
            return Ok(());
        };
        if authority_bundle::has(configuration, &bundle.0) {
            return Ok(());
        }
        let write = authority_bundle::write(&self.configurations, configuration, &bundle.0);
        let written = in_time(write).await?;
        tracing::info!(
            version = written.resource_version(),
            "the API server is told the admission webhook's authorities"
        );
        self.configuration.object = Some(written);
        Ok(())
    }
}

/// Writes the Secret with these data: over the one that is there, or as the first.
async fn write_secret(
    api: &Api<Secret>,
    present: Option<&Secret>,
    data: Data,
) -> Result<Secret, KeepError> {
    let params = PostParams::default();
    if let Some(present) = present {
        let mut secret = present.clone();
        secret.data = Some(data);
        // Its resource version is that of what was read: a change between is a conflict.
        return in_time(api.replace(SECRET, &params, &secret)).await;
    }
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data),
        ..Secret::default()
    };
    in_time(api.create(&params, &secret)).await
}

/// Waits for another leader, or the same; for ever where nobody tells any more.
async fn changed(is_leader: &mut watch::Receiver<bool>) {
    if is_leader.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, KeepError> {
    match timeout(WRITE, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(KeepError::TooLate),
    }
}
