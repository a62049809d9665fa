//! What an error of the API means to its user, and what to do about it.

use std::error::Error;

use http::StatusCode;
use kube::{core::Status, runtime::watcher};

/// An error of a watch.
pub(super) fn explain_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => explain(error),
        watcher::Error::WatchError(status) => refused(status),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// Why the API did not do what was asked, and what to do about it.
#[must_use]
pub fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => refused(status),
        other => unreachable(other),
    }
}

fn refused(status: &Status) -> String {
    let remedy = remedy(status).map(|remedy| format!("; {remedy}"));
    format!(
        "the API server refused: {} ({}){}",
        status.message,
        status.code,
        remedy.unwrap_or_default()
    )
}

fn remedy(status: &Status) -> Option<&'static str> {
    let details = status.details.as_ref();
    let (kind, name) = details.map_or(("", ""), |details| (&details.kind, &details.name));
    match StatusCode::from_u16(status.code) {
        Ok(StatusCode::UNAUTHORIZED) => Some(
            "it does not accept the credentials: renew the token in the kubeconfig's tokenFile, or give a kubeconfig that is valid and start again",
        ),
        Ok(StatusCode::FORBIDDEN) => Some(
            "grant it: `kubectl apply -k manifests/base` makes the agents' role and its binding",
        ),
        Ok(StatusCode::NOT_FOUND) if kind == "namespaces" => {
            Some("`kubectl apply -k manifests/base` makes it")
        }
        Ok(StatusCode::NOT_FOUND) if name.is_empty() => Some(
            "the API does not know the resource; `kubectl apply -f crds/` installs the definitions",
        ),
        _ => None,
    }
}

fn unreachable(error: &kube::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        cause = error.source();
    }
    let remedy = if words.contains("UnknownIssuer") || words.contains("certificate") {
        "its certificate is not signed by the certificate authority of the kubeconfig: give the right one"
    } else {
        "look at the server's address in the kubeconfig, and at the network to it"
    };
    format!("the API server cannot be reached: {words}; {remedy}")
}
