//! Kubeconfigs: where an API server is, and who asks.

use std::path::Path;

use serde_json::json;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum User<'a> {
    /// Whoever holds this certificate; files.
    Certificate {
        /// The certificate.
        certificate: &'a Path,
        /// Its key.
        key: &'a Path,
    },
    /// Whoever has this token.
    Token(&'a str),
}

/// A kubeconfig for the server at this URL, whose certificate the authority in the file signs.
#[must_use]
pub fn kubeconfig(server: &str, authority: &Path, user: User<'_>) -> String {
    let user = match user {
        User::Certificate { certificate, key } => {
            json!({"client-certificate": certificate, "client-key": key})
        }
        User::Token(token) => json!({"token": token}),
    };
    // JSON is YAML too.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "tests",
            "cluster": {"server": server, "certificate-authority": authority},
        }],
        "users": [{"name": "tests", "user": user}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        "current-context": "tests",
    });
    format!("{config:#}\n")
}
