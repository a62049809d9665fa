//! Which commit a resource came from: what synced it leaves its mark on the object, and says
//! elsewhere which commit it synced.

use std::collections::BTreeMap;

use headgate_crds::SourceRevision;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;

/// The annotation of users whose tool leaves no mark.
pub const ANNOTATION: &str = "headgate.dev/source-revision";
const ARGOCD_TRACKING: &str = "argocd.argoproj.io/tracking-id";
const FLUX_NAME: &str = "kustomize.toolkit.fluxcd.io/name";
const FLUX_NAMESPACE: &str = "kustomize.toolkit.fluxcd.io/namespace";

/// Times in the API are whole seconds, of several clocks.
const SLACK: SignedDuration = SignedDuration::from_secs(2);

/// What synced an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracker {
    /// An Application of Argo CD.
    Application {
        /// Its namespace, where it is not Argo CD's own.
        namespace: Option<String>,
        /// Its name.
        name: String,
    },
    /// A Kustomization of Flux.
    Kustomization {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The object itself names the commit.
    Annotation(String),
}

impl Tracker {
    /// What the object's marks say.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let none = BTreeMap::new();
        let annotations = metadata.annotations.as_ref().unwrap_or(&none);
        let labels = metadata.labels.as_ref().unwrap_or(&none);
        if let Some(revision) = annotations.get(ANNOTATION) {
            return Some(Self::Annotation(revision.clone()));
        }
        if let Some((application, _)) = annotations
            .get(ARGOCD_TRACKING)
            .and_then(|id| id.split_once(':'))
        {
            let (namespace, name) = match application.split_once('_') {
                Some((namespace, name)) => (Some(namespace.to_owned()), name),
                None => (None, application),
            };
            let name = name.to_owned();
            return Some(Self::Application { namespace, name });
        }
        Some(Self::Kustomization {
            namespace: labels.get(FLUX_NAMESPACE)?.clone(),
            name: labels.get(FLUX_NAME)?.clone(),
        })
    }

    /// The commit of the generation that was written at `written_at`; `None` while it is not known.
    ///
    /// # Errors
    /// The API does not tell.
    pub async fn revision(
        &self,
        client: &Client,
        argocd_namespace: &str,
        generation: i64,
        written_at: Option<Timestamp>,
    ) -> Result<Option<SourceRevision>, kube::Error> {
        let (revision, told_by) = match self {
            Self::Annotation(revision) => {
                (Some(revision.clone()), format!("annotation {ANNOTATION}"))
            }
            Self::Application { namespace, name } => {
                let namespace = namespace.as_deref().unwrap_or(argocd_namespace);
                let kind = GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application");
                let object = get(client, &kind, "applications", namespace, name).await?;
                let revision = object.and_then(|object| synced_at(&object, written_at?));
                (revision, format!("Application {namespace}/{name}"))
            }
            Self::Kustomization { namespace, name } => {
                let kind =
                    GroupVersionKind::gvk("kustomize.toolkit.fluxcd.io", "v1", "Kustomization");
                let object = get(client, &kind, "kustomizations", namespace, name).await?;
                let revision = object.and_then(|object| last_applied(&object));
                (revision, format!("Kustomization {namespace}/{name}"))
            }
        };
        Ok(revision.map(|revision| SourceRevision {
            generation,
            revision,
            told_by,
        }))
    }
}

async fn get(
    client: &Client,
    kind: &GroupVersionKind,
    plural: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, kube::Error> {
    let resource = ApiResource::from_gvk_with_plural(kind, plural);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    Ok(api.get_opt(name).await?.map(|object| object.data))
}

/// The commit of the sync that was under way at that time: a later sync did not write the object,
/// and another writer's change is of no commit.
fn synced_at(application: &Value, written_at: Timestamp) -> Option<String> {
    let history = application["status"]["history"].as_array()?;
    let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    let sync = history.iter().rev().find(|sync| {
        let began = time(&sync["deployStartedAt"]).or_else(|| time(&sync["deployedAt"]));
        let ended = time(&sync["deployedAt"]);
        began.is_some_and(|began| began - SLACK <= written_at)
            && ended.is_some_and(|ended| written_at <= ended + SLACK)
    })?;
    Some(sync["revision"].as_str()?.to_owned())
}

/// The commit of the last sync that succeeded, unless another one is under way.
fn last_applied(kustomization: &Value) -> Option<String> {
    let status = &kustomization["status"];
    let applied = status["lastAppliedRevision"].as_str()?;
    let settled = status["lastAttemptedRevision"]
        .as_str()
        .is_none_or(|attempted| attempted == applied);
    settled.then(|| applied.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn marked(annotations: &[(&str, &str)], labels: &[(&str, &str)]) -> Option<Tracker> {
        let owned = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            Some(pairs.collect())
        };
        Tracker::of(&ObjectMeta {
            annotations: owned(annotations),
            labels: owned(labels),
            ..ObjectMeta::default()
        })
    }

    #[test]
    fn each_tool_leaves_its_mark() {
        assert_eq!(marked(&[], &[]), None);
        let argo = [(ARGOCD_TRACKING, "edge:headgate.dev/XdpPolicy:/drop")];
        let (namespace, name) = (None, "edge".to_owned());
        assert_eq!(
            marked(&argo, &[]),
            Some(Tracker::Application { namespace, name })
        );
        let elsewhere = [(ARGOCD_TRACKING, "teams_edge:headgate.dev/XdpPolicy:/drop")];
        let (namespace, name) = (Some("teams".to_owned()), "edge".to_owned());
        assert_eq!(
            marked(&elsewhere, &[]),
            Some(Tracker::Application { namespace, name })
        );
        let flux = [(FLUX_NAME, "edge"), (FLUX_NAMESPACE, "flux-system")];
        assert!(matches!(
            marked(&[], &flux),
            Some(Tracker::Kustomization { .. })
        ));
        let named = [(ANNOTATION, "abc"), argo[0]];
        assert_eq!(
            marked(&named, &[]),
            Some(Tracker::Annotation("abc".to_owned()))
        );
    }

    #[test]
    fn a_generation_has_the_commit_of_the_sync_that_wrote_it() {
        let application = json!({"status": {"history": [
            {"revision": "one", "deployStartedAt": "2026-01-01T10:00:00Z", "deployedAt": "2026-01-01T10:00:05Z"},
            {"revision": "two", "deployStartedAt": "2026-01-01T11:00:00Z", "deployedAt": "2026-01-01T11:00:01Z"},
        ]}});
        let at = |time: &str| synced_at(&application, time.parse().expect("a time"));
        assert_eq!(at("2026-01-01T10:00:03Z").as_deref(), Some("one"));
        assert_eq!(at("2026-01-01T11:00:01Z").as_deref(), Some("two"));
        assert_eq!(at("2026-01-01T10:30:00Z"), None, "written by somebody else");
        assert_eq!(at("2026-01-01T12:00:00Z"), None, "the sync has not ended");
    }

    #[test]
    fn flux_is_believed_once_it_has_settled() {
        let kustomization = |attempted: &str| json!({"status": {"lastAppliedRevision": "main@sha1:a", "lastAttemptedRevision": attempted}});
        assert_eq!(
            last_applied(&kustomization("main@sha1:a")).as_deref(),
            Some("main@sha1:a")
        );
        assert_eq!(last_applied(&kustomization("main@sha1:b")), None);
    }
}
