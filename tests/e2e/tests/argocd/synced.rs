//! Synced is synced: no comparison ever finds a difference that nobody made.

use headgate_e2e_tests::{
    argocd::ArgoCd, fleet::SOON, git::Repository, trials::on_argocd, wait::wait_for,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::Shared;

/// Written as people write: kept so, or refused, and never rewritten.
const AS_WRITTEN: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: XdpPolicy
metadata:
  name: as-written
spec:
  nodeSelector: {matchLabels: {example.com/no: node}}
  rules:
    - name: ranges
      action: Drop
      from: {cidrs: ['2001:DB8:0::/32', '192.0.2.77/24']}
---
apiVersion: headgate.dev/v1alpha1
kind: CidrGroup
metadata:
  name: as-written
spec:
  cidrs: ['2001:DB8:0::/48', '192.0.2.77/28']
";
const REFRESHES: usize = 20;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_argocd("synced_and_healthy_over_20_hard_refreshes", client_side),
        on_argocd(
            "synced_and_healthy_over_20_hard_refreshes_server_side",
            server_side,
        ),
    ]
}

fn client_side() {
    stays_synced("client-side", &json!({}), &json!([]));
}

fn server_side() {
    let compare = "ServerSideDiff=true,IncludeMutationWebhook=true";
    let annotations = json!({"argocd.argoproj.io/compare-options": compare});
    let options = json!(["ServerSideApply=true"]);
    stays_synced("server-side", &annotations, &options);
}

fn stays_synced(name: &str, annotations: &Value, options: &Value) {
    let mut shared = Shared::lock();
    let argocd = shared.argocd();
    let repository = argocd.repository();
    repository.copy(&["crds", "examples/data", "examples/policies"]);
    repository.write("examples/as-written.yaml", AS_WRITTEN);
    let commit = repository.commit("The examples");
    let fields = json!({
        "source": source(&repository),
        "syncPolicy": {"automated": {"prune": true, "selfHeal": true}, "syncOptions": options},
    });
    argocd.apply(name, (&repository, "."), annotations, &fields);
    let (application, _) = argocd.wait_until_synced(name, &commit);
    let resources = application["status"]["resources"].as_array();
    let ours = resources.into_iter().flatten();
    let ours: Vec<&Value> = ours
        .filter(|resource| resource["group"] == "headgate.dev")
        .collect();
    assert!(ours.len() > 8, "{application:#}");

    // Nobody has looked at them yet, and so nothing is healthy.
    assert_eq!(application["status"]["health"]["status"], "Progressing");
    let operator = argocd.control_plane.start_operator(name, &[]);
    argocd.wait_for(name, "is healthy", |application| {
        application["status"]["health"]["status"] == "Healthy"
    });
    let source =
        || argocd.kubectl().json(&["get", "xdppolicy", "as-written"])["status"]["source"].clone();
    wait_for(SOON, "the operator tells the commit", || {
        source()["revision"] == commit.as_str()
    });
    assert_eq!(source()["toldBy"], format!("Application argocd/{name}"));

    let before = versions(argocd);
    for _ in 0..REFRESHES {
        argocd.refresh(name);
        let status = argocd.application(name)["status"].clone();
        assert_eq!(status["sync"]["status"], "Synced", "{status:#}");
        assert_eq!(status["health"]["status"], "Healthy", "{status:#}");
    }
    assert_eq!(versions(argocd), before, "somebody wrote");
    println!("{name}: {} resources, {REFRESHES} refreshes", ours.len());

    drop(operator);
    // Another generation than the one that was looked at is not healthy.
    let edited = AS_WRITTEN.replacen("spec:\n", "spec:\n  priority: 7\n", 1);
    repository.write("examples/as-written.yaml", &edited);
    let commit = repository.commit("Another priority");
    argocd.refresh(name);
    argocd.wait_until_synced(name, &commit);
    argocd.wait_for(name, "is not healthy", |application| {
        application["status"]["health"]["status"] == "Progressing"
    });
    argocd.delete(name, false);
    let kinds = [
        "delete",
        "xdppolicies,cidrgroups,addresspools,tunnelpeers",
        "--all",
        "--wait",
    ];
    argocd.kubectl().run(&kinds);
}

/// Every file of the repository's folders.
fn source(repository: &Repository) -> Value {
    json!({
        "repoURL": repository.url(),
        "path": ".",
        "targetRevision": "main",
        "directory": {"recurse": true, "include": "{crds/*.headgate.dev.yaml,examples/*.yaml,examples/*/*.yaml}"},
    })
}

/// What every write changes.
fn versions(argocd: &ArgoCd) -> Vec<String> {
    let kubectl = argocd.kubectl();
    let list = kubectl.json(&["get", "xdppolicies,cidrgroups,crds"]);
    let objects = list["items"].as_array().into_iter().flatten();
    let version = |object: &Value| {
        let metadata = &object["metadata"];
        let (name, version) = (&metadata["name"], &metadata["resourceVersion"]);
        format!("{name} {version} {}", metadata["generation"])
    };
    objects.map(version).collect()
}
