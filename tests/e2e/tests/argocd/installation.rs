//! Headgate itself, and policies, synced by Argo CD.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use headgate_e2e_tests::{
    argocd::ArgoCd,
    control_plane::{ADDRESS, ControlPlane},
    kubectl::Kubectl,
    trials::on_argocd,
};
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub(crate) fn trials() -> Vec<Trial> {
    vec![on_argocd(
        "one_sync_from_an_empty_cluster_converges",
        one_sync,
    )]
}

/// As in a repository of one's own that has both.
const KUSTOMIZATION: &str = "\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [manifests/argocd, policy.yaml]
";
const POLICY: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: XdpPolicy
metadata: {name: no-telnet}
spec:
  nodeSelector: {matchLabels: {example.com/no: node}}
  rules:
    - name: telnet
      action: Drop
      protocols: [{tcp: {ports: [{port: 23}]}}]
";

fn one_sync() {
    let control_plane = Arc::new(ControlPlane::start());
    let mut argocd = ArgoCd::start(&control_plane);
    let kubectl = control_plane.kubectl();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}});
    kubectl.apply(&node.to_string());
    let _kubelet = Kubelet::start(&control_plane);
    // What users are told to start from.
    let applications = "manifests/argocd/application.yaml";
    kubectl.run(&["apply", "--dry-run=server", "-f", applications]);

    let repository = argocd.repository();
    repository.copy(&["crds", "manifests"]);
    repository.write("kustomization.yaml", KUSTOMIZATION);
    repository.write("policy.yaml", POLICY);
    let commit = repository.commit("Everything");
    let fields = json!({"syncPolicy": {"syncOptions": [
        "ServerSideApply=true",
        "SkipDryRunOnMissingResource=true",
    ]}});
    argocd.apply("headgate", (&repository, "."), &json!({}), &fields);
    argocd.wait_for("headgate", "is compared", |application| {
        application["status"]["sync"]["status"] == "OutOfSync"
    });
    let started = Instant::now();
    argocd.sync(
        "headgate",
        &["ServerSideApply=true", "SkipDryRunOnMissingResource=true"],
    );
    let (application, _) = argocd.wait_until_synced("headgate", &commit);
    let state = &application["status"]["operationState"];
    let retries = state["retryCount"].as_i64().unwrap_or(0);
    let took = started.elapsed();
    println!("everything from nothing, by one sync with {retries} retries: {took:?}");
    let resources = state["syncResult"]["resources"].as_array();
    let synced = resources.into_iter().flatten();
    let failed = synced.filter(|resource| resource["status"] != "Synced");
    assert_eq!(failed.count(), 0, "{state:#}");
    assert_eq!(waves(kubectl), ["crd", "daemonset", "xdppolicy"]);

    // What controllers and the API server add is no difference.
    for _ in 0..5 {
        argocd.refresh("headgate");
        let status = argocd.application("headgate")["status"].clone();
        assert_eq!(status["sync"]["status"], "Synced", "{status:#}");
    }
}

/// Kinds by the time at which the first of them was made.
fn waves(kubectl: &Kubectl) -> Vec<&'static str> {
    let made = |kind: &'static str| {
        let list = kubectl.json(&["get", kind, "-A"]);
        let objects = list["items"].as_array().into_iter().flatten();
        let ours = objects.filter(|object| is_ours(object));
        let times = ours.filter_map(|object| object["metadata"]["creationTimestamp"].as_str());
        let first = times.min().expect("it was synced").to_owned();
        (first, kind)
    };
    let mut made: Vec<_> = ["crd", "daemonset", "xdppolicy"].map(made).to_vec();
    // Stable: what was made within a second of each other stays in the order above.
    made.sort_by(|left, right| left.0.cmp(&right.0));
    made.into_iter().map(|(_, kind)| kind).collect()
}

fn is_ours(object: &Value) -> bool {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    !name.ends_with(".argoproj.io")
}

/// In the stead of a node: says of every pod that it is Ready, and runs the operator where the API
/// server looks for it; ends when dropped.
struct Kubelet {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kubelet {
    fn start(control_plane: &Arc<ControlPlane>) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (control_plane, ended) = (Arc::clone(control_plane), Arc::clone(&end));
        let thread = thread::spawn(move || {
            let mut operator = None;
            while !ended.load(Ordering::Relaxed) {
                if make_ready(control_plane.kubectl()) && operator.is_none() {
                    let listen = format!("--webhook-listen={ADDRESS}:9443");
                    operator = Some(control_plane.start_operator("operator", &[&listen]));
                }
                thread::sleep(Duration::from_millis(300));
            }
        });
        Self {
            end,
            thread: Some(thread),
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether there is a pod of the operator.
fn make_ready(kubectl: &Kubectl) -> bool {
    let namespace = ["-n", "headgate-system"];
    let said = kubectl.said(&[["get", "pods", "-o", "json"].as_slice(), &namespace].concat());
    let list: Value = serde_json::from_str(&said.output).unwrap_or_default();
    let mut is_there = false;
    for pod in list["items"].as_array().into_iter().flatten() {
        let component = &pod["metadata"]["labels"]["app.kubernetes.io/component"];
        is_there |= component == "operator";
        if pod["status"]["phase"] == "Running" {
            continue;
        }
        let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"status": {
            "phase": "Running",
            "podIP": ADDRESS,
            "podIPs": [{"ip": ADDRESS}],
            "conditions": [condition("Ready"), condition("ContainersReady")],
        }});
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        bind(kubectl, name);
        let patch = status.to_string();
        let arguments = ["patch", "pod", name, "--subresource=status", "-p", &patch];
        let _ = kubectl.said(&[arguments.as_slice(), &namespace].concat());
    }
    is_there
}

/// As a scheduler does: a pod without a node is no endpoint.
fn bind(kubectl: &Kubectl, pod: &str) {
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod, "namespace": "headgate-system"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "node1"},
    });
    let path = format!("/api/v1/namespaces/headgate-system/pods/{pod}/binding");
    let _ = kubectl.said_of(&["create", "--raw", &path, "-f", "-"], &binding.to_string());
}
