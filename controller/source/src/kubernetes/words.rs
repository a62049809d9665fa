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
    let remedy = match StatusCode::from_u16(status.code) {
        Ok(StatusCode::UNAUTHORIZED) => {
            "the API server does not accept the credentials; give a kubeconfig whose token or certificate is valid"
        }
        Ok(StatusCode::FORBIDDEN) => {
            "grant it: `kubectl apply -k manifests/base` makes the agent's role and its binding"
        }
        Ok(StatusCode::NOT_FOUND) => {
            "the API does not know the resource; `kubectl apply -f crds/` installs the definitions"
        }
        _ => {
            return format!(
                "the API server refused: {} ({})",
                status.message, status.code
            );
        }
    };
    format!(
        "the API server refused: {} ({}); {remedy}",
        status.message, status.code
    )
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
        "; its certificate is not signed by the certificate authority of the kubeconfig: give the right one"
    } else {
        ""
    };
    format!("the API server cannot be reached: {words}{remedy}")
}
