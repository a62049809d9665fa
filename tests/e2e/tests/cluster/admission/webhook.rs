//! A control plane with the admission webhook in front of it, served by this process.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use headgate_e2e_tests::{
    control_plane::{ADDRESS, ControlPlane},
    kubectl::Kubectl,
    wait::wait_for,
};
use headgate_operator::{
    admission::{self, Certificates, Config, Lifetimes},
    fleet::Fleet,
};
use headgate_source::kubernetes::connect;
use serde_json::{Deserializer, Value, json};
use tokio::{
    runtime::Builder,
    sync::{oneshot, watch},
};

/// Where it is served.
const PORT: u16 = 9443;
/// What is changed in the API server has an effect within.
pub(crate) const SOON: Duration = Duration::from_secs(30);

const NAMESPACE: &str = "headgate-system";
const ACCOUNT: &str = "headgate-operator";
/// What the webhook asks of the API.
const RIGHTS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: headgate-operator, namespace: headgate-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: headgate-webhook}
rules:
- {apiGroups: [\"\"], resources: [secrets], verbs: [create]}
- {apiGroups: [\"\"], resources: [secrets], resourceNames: [headgate-webhook], verbs: [get, list, watch, update]}
- {apiGroups: [admissionregistration.k8s.io], resources: [validatingwebhookconfigurations], resourceNames: [headgate], verbs: [get, list, watch, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: headgate-webhook}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: headgate-webhook}
subjects: [{kind: ServiceAccount, name: headgate-operator, namespace: headgate-system}]
";

static SHARED: Mutex<Option<Guarded>> = Mutex::new(None);

/// A control plane that asks the webhook.
pub(crate) struct Guarded {
    // First: it goes before what it talks to.
    webhook: Option<Webhook>,
    pub(crate) fleet: watch::Sender<Arc<Fleet>>,
    pub(crate) control_plane: Arc<ControlPlane>,
}

/// Runs a test on the control plane that these tests share, one at a time: with the CRDs, the rights
/// of agents, the webhook's configuration and no resource in it, and the webhook at work.
pub(crate) fn guarded(test: impl FnOnce(&mut Guarded)) {
    let mut shared: MutexGuard<'_, Option<Guarded>> =
        SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let guarded = shared.get_or_insert_with(Guarded::new);
    guarded.reset();
    test(guarded);
}

/// Takes down the control plane that these tests share.
pub(crate) fn shut_down() {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner).take();
}

impl Guarded {
    fn new() -> Self {
        let control_plane = Arc::new(ControlPlane::start());
        control_plane.install_crds();
        let kubectl = control_plane.kubectl();
        kubectl.run(&["apply", "-k", "manifests/base"]);
        kubectl.apply(RIGHTS);
        Self {
            webhook: None,
            fleet: watch::Sender::new(Arc::default()),
            control_plane,
        }
    }

    fn reset(&mut self) {
        self.fleet.send_replace(Arc::default());
        // A test may have changed the definitions.
        self.control_plane.install_crds();
        self.unregister();
        let kinds = [
            "delete",
            "xdppolicies,cidrgroups,lbs,addresspools,tunnelpeers",
            "--all",
        ];
        self.kubectl().run(&kinds);
        if self.webhook.is_none() {
            self.start(Lifetimes::default());
        }
        self.register();
    }

    /// kubectl with all rights.
    pub(crate) fn kubectl(&self) -> &Kubectl {
        self.control_plane.kubectl()
    }

    /// Starts the webhook.
    pub(crate) fn start(&mut self, lifetimes: Lifetimes) {
        let webhook = Webhook::start(&self.control_plane, lifetimes, self.fleet.subscribe());
        self.webhook = Some(webhook);
    }

    /// Stops it; nobody listens then.
    pub(crate) fn stop(&mut self) {
        self.webhook = None;
    }

    /// Applies the webhook's configuration and waits until it is asked.
    pub(crate) fn register(&self) {
        self.kubectl().apply(&self.configuration());
        let bad = policy_without_match().to_string();
        wait_for(SOON, "the webhook is asked", || {
            let said = self
                .kubectl()
                .said_of(&["create", "--dry-run=server", "-f", "-"], &bad);
            said.errors.contains("cidrGroups") || said.errors.contains("except")
        });
    }

    /// Removes the configuration and waits until nobody is asked.
    pub(crate) fn unregister(&self) {
        let delete = [
            "delete",
            "--ignore-not-found",
            "validatingwebhookconfiguration",
            "headgate",
        ];
        self.kubectl().run(&delete);
        let bad = policy_without_match().to_string();
        wait_for(SOON, "the webhook is not asked", || {
            let dry = ["create", "--dry-run=server", "-f", "-"];
            self.kubectl().said_of(&dry, &bad).code == 0
        });
    }

    /// The shipped configuration, reached by URL: no Service works without kube-proxy.
    pub(crate) fn configuration(&self) -> String {
        let render = [
            "create",
            "--dry-run=client",
            "-o",
            "json",
            "-f",
            "manifests/operator/webhook.yaml",
        ];
        let rendered = self.kubectl().run(&render);
        let objects = Deserializer::from_str(&rendered).into_iter::<Value>();
        let objects = objects.map(|object| object.expect("kubectl prints JSON"));
        let mut configurations =
            objects.filter(|object| object["kind"] == "ValidatingWebhookConfiguration");
        let mut configuration = configurations.next().expect("the manifest holds it");
        let url = format!("https://{ADDRESS}:{PORT}/validate");
        for webhook in configuration["webhooks"].as_array_mut().expect("a list") {
            assert_eq!(webhook["clientConfig"]["caBundle"], Value::Null);
            webhook["clientConfig"] = json!({"url": url});
        }
        configuration.to_string()
    }

    /// The configuration as it is stored.
    pub(crate) fn stored_configuration(&self) -> Value {
        let get = [
            "get",
            "validatingwebhookconfiguration",
            "headgate",
            "--show-managed-fields",
        ];
        self.kubectl().json(&get)
    }
}

/// A policy that the schema lets through and the check does not.
pub(crate) fn policy_without_match() -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "XdpPolicy",
        "metadata": {"name": "bad"},
        "spec": {"rules": [{
            "name": "r",
            "action": "Drop",
            "from": {"cidrs": ["10.1.0.0/16"], "except": ["10.0.0.0/8"]},
        }]},
    })
}

/// The server, in a thread of its own inside of the control plane's network.
struct Webhook {
    stop: oneshot::Sender<()>,
    thread: Option<JoinHandle<()>>,
    stopped: mpsc::Receiver<()>,
}

impl Webhook {
    fn start(
        control_plane: &Arc<ControlPlane>,
        lifetimes: Lifetimes,
        fleet: watch::Receiver<Arc<Fleet>>,
    ) -> Self {
        let token = [
            "create",
            "token",
            ACCOUNT,
            "-n",
            NAMESPACE,
            "--duration=24h",
        ];
        let token = control_plane.kubectl().run(&token);
        let kubeconfig = control_plane.kubeconfig(ACCOUNT, token.trim_end());
        let config = Config {
            listen: SocketAddr::from((ADDRESS, PORT)),
            namespace: NAMESPACE.to_owned(),
            names: vec![ADDRESS.to_string()],
            certificates: Certificates::Own(lifetimes),
        };
        let (stop, stopping) = oneshot::channel();
        let (said, stopped) = mpsc::channel();
        let namespace = Arc::clone(&control_plane.namespace);
        let serve = async move {
            let connection = connect(Some(&kubeconfig))
                .await
                .expect("it is a kubeconfig");
            let leads = watch::Sender::new(true);
            let stopping = async { stopping.await.unwrap_or_default() };
            let is_leader = leads.subscribe();
            let served = admission::serve(connection.client, config, fleet, is_leader, stopping);
            served.await.expect("the port is free");
        };
        let thread = thread::spawn(move || {
            namespace.enter(move || {
                let runtime = Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("the machine has room for it");
                runtime.block_on(serve);
            });
            let _ = said.send(());
        });
        Self {
            stop,
            thread: Some(thread),
            stopped,
        }
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let (nobody, _) = oneshot::channel();
        // Dropping the sender is the word to stop.
        drop(std::mem::replace(&mut self.stop, nobody));
        let _ = self.stopped.recv_timeout(SOON);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Labels of a node or of a group.
pub(crate) fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    of.iter().map(owned).collect()
}
