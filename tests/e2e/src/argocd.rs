//! Argo CD: its application controller and its repository server, beside a control plane.

use std::{
    env,
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    assets::{ARGO_CD, program},
    control_plane::ControlPlane,
    git::Repository,
    kubectl::Kubectl,
    namespace::unique_name,
    process::Process,
    wait::{wait_for, wait_for_some},
};

/// The namespace of its Applications and settings.
pub const NAMESPACE: &str = "argocd";
/// Time within which it must have done what it is about to do, on a busy machine.
pub const SOON: Duration = Duration::from_secs(120);

/// They are reached in the control plane's namespace alone.
const REDIS: &str = "127.0.0.1:6379";
const REPO_SERVER: &str = "127.0.0.1:8081";

/// An Argo CD that knows our kinds. All of it goes away with it, but for what it synced.
#[derive(Debug)]
pub struct ArgoCd {
    // Processes first: they are to be gone before their files.
    controller: Process,
    repo_server: Process,
    redis: Process,
    folder: TempDir,
    /// What it syncs to.
    pub control_plane: Arc<ControlPlane>,
}

impl ArgoCd {
    /// One beside this control plane.
    ///
    /// # Panics
    /// Where something of it cannot be started.
    #[must_use]
    pub fn start(control_plane: &Arc<ControlPlane>) -> Self {
        let prefix = format!("{}-argocd-", unique_name());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
        let folder = folder.expect("a temporary folder can be made");
        for name in ["bin", "home", "tmp", "tls", "ssh", "gpg", "plugins"] {
            fs::create_dir(folder.path().join(name)).expect("the folder is new and empty");
        }
        write_kustomize(&folder.path().join("bin/kustomize"));
        configure(control_plane.kubectl());
        let environment = environment(folder.path(), control_plane.kubectl());
        let start = |name: &str, arguments: &[&str]| {
            Process::start_with(
                &control_plane.namespace,
                &ARGO_CD.program(name),
                arguments.iter().copied(),
                &environment,
                folder.path().join(format!("{name}.log")),
            )
        };
        Self {
            redis: start("argocd-redis", &[REDIS]),
            repo_server: start("argocd-repo-server", &REPO_SERVER_ARGUMENTS),
            controller: start("argocd-application-controller", &CONTROLLER_ARGUMENTS),
            folder,
            control_plane: Arc::clone(control_plane),
        }
    }

    /// An empty repository that it can read.
    #[must_use]
    pub fn repository(&self) -> Repository {
        Repository::new(&format!("{}-git-", unique_name()))
    }

    /// Makes an Application of a folder of a repository, with these annotations, and these fields
    /// of its spec besides.
    ///
    /// # Panics
    /// Where the API server refuses.
    pub fn apply(
        &self,
        name: &str,
        (repository, path): (&Repository, &str),
        annotations: &Value,
        fields: &Value,
    ) {
        let mut spec = json!({
            "project": "default",
            "source": {"repoURL": repository.url(), "path": path, "targetRevision": "main"},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "default"},
        });
        for (field, value) in fields.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let application = json!({
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Application",
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
            "spec": spec,
        });
        self.kubectl().apply(&application.to_string());
    }

    /// Deletes an Application; with what it synced where `cascade`.
    ///
    /// # Panics
    /// Where that does not come to its end.
    pub fn delete(&self, name: &str, cascade: bool) {
        if cascade {
            let finalizer =
                json!({"metadata": {"finalizers": ["resources-finalizer.argocd.argoproj.io"]}});
            let patch = finalizer.to_string();
            self.run(&["patch", "application", name, "--type=merge", "-p", &patch]);
        }
        self.run(&["delete", "application", name, "--timeout=120s"]);
    }

    /// An Application as it is.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn application(&self, name: &str) -> Value {
        self.kubectl()
            .json(&["get", "application", name, "-n", NAMESPACE])
    }

    /// Lets it compare an Application anew with what is in Git now, and waits until it has.
    ///
    /// # Panics
    /// Where it does not, with its log.
    pub fn refresh(&mut self, name: &str) {
        let refresh = "argocd.argoproj.io/refresh=hard";
        self.run(&["annotate", "application", name, "--overwrite", refresh]);
        self.wait_for(name, "is refreshed", |application| {
            let annotations = &application["metadata"]["annotations"];
            annotations["argocd.argoproj.io/refresh"].is_null()
        });
    }

    /// Syncs an Application once, as a user's click does with its retries.
    ///
    /// # Panics
    /// Where the API server refuses.
    pub fn sync(&self, name: &str, options: &[&str]) {
        let operation = json!({"operation": {
            "initiatedBy": {"username": "tests"},
            "sync": {"prune": true, "revision": "main", "syncOptions": options},
            // A definition that is not established yet fails the wave: Argo CD takes it for broken.
            "retry": {"limit": 5, "backoff": {"duration": "2s", "factor": 1}},
        }});
        let patch = operation.to_string();
        self.run(&["patch", "application", name, "--type=merge", "-p", &patch]);
    }

    /// Waits until an Application is as `is_so` wants it, and gives it.
    ///
    /// # Panics
    /// Where it is not, with what it says and the log.
    pub fn wait_for(
        &mut self,
        name: &str,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> (Value, Duration) {
        let mut last = Value::Null;
        let find = || {
            self.redis.assert_runs();
            self.repo_server.assert_runs();
            self.controller.assert_runs();
            last = self.application(name);
            is_so(&last).then(|| last.clone())
        };
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for_some(SOON, &format!("the Application {name} {what}"), find)
        }));
        found.unwrap_or_else(|panic| {
            eprintln!("{name}: {:#}\n{}", last["status"], self.log());
            std::panic::resume_unwind(panic)
        })
    }

    /// Waits until an Application is synced to a commit, by an operation without fault.
    pub fn wait_until_synced(&mut self, name: &str, commit: &str) -> (Value, Duration) {
        let what = format!("is synced to {commit}");
        self.wait_for(name, &what, |application| is_synced(application, commit))
    }

    /// What its controller said last.
    #[must_use]
    pub fn log(&self) -> String {
        let path = self.folder.path().join("argocd-application-controller.log");
        let log = fs::read_to_string(path).unwrap_or_default();
        let worth = |line: &&str| !line.contains("level=debug");
        let lines: Vec<&str> = log.lines().filter(worth).collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// kubectl with all rights.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        self.control_plane.kubectl()
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.kubectl()
            .run(&[arguments, &["-n", NAMESPACE]].concat())
    }
}

/// Whether an Application is synced to a commit, by an operation without fault. Its health alone
/// says nothing: a broken one may be Healthy.
#[must_use]
pub fn is_synced(application: &Value, commit: &str) -> bool {
    let status = &application["status"];
    status["sync"]["status"] == "Synced"
        && status["sync"]["revision"] == commit
        && status["operationState"]["phase"] == "Succeeded"
        && application["operation"].is_null()
}

const REPO_SERVER_ARGUMENTS: [&str; 10] = [
    "--address=127.0.0.1",
    "--port=8081",
    "--metrics-address=127.0.0.1",
    "--metrics-port=8084",
    "--redis",
    REDIS,
    "--disable-tls",
    "--logformat=text",
    "--loglevel=info",
    "--parallelismlimit=2",
];

const CONTROLLER_ARGUMENTS: [&str; 13] = [
    "--namespace",
    NAMESPACE,
    "--metrics-port=8082",
    "--redis",
    REDIS,
    "--repo-server",
    REPO_SERVER,
    "--repo-server-plaintext",
    "--logformat=text",
    // It overlooks now and then that a definition was established, and goes on at its next look: two
    // minutes later, if left to itself.
    "--app-resync=10",
    "--app-resync-jitter=0",
    "--status-processors=2",
    "--operation-processors=2",
];

fn environment(folder: &Path, kubectl: &Kubectl) -> Vec<(&'static str, OsString)> {
    let within = |name: &str| folder.join(name).into_os_string();
    // What it calls: git's helper for passwords, and kustomize.
    let mut path = within("bin");
    for folder in [
        ARGO_CD
            .folder()
            .expect("looked for by this test")
            .as_os_str(),
        &env::var_os("PATH").unwrap_or_default(),
    ] {
        path.push(":");
        path.push(folder);
    }
    vec![
        ("PATH", path),
        ("HOME", within("home")),
        ("TMPDIR", within("tmp")),
        ("KUBECONFIG", kubectl.kubeconfig().into()),
        // The cluster that it runs in is the one of its kubeconfig.
        ("ARGOCD_FAKE_IN_CLUSTER", "true".into()),
        ("ARGOCD_GPG_ENABLED", "false".into()),
        ("ARGOCD_GNUPGHOME", within("gpg")),
        ("ARGOCD_TLS_DATA_PATH", within("tls")),
        ("ARGOCD_SSH_DATA_PATH", within("ssh")),
        ("ARGOCD_PLUGINSOCKFILEPATH", within("plugins")),
        ("ARGOCD_CONTROLLER_REPLICAS", "1".into()),
        ("HOSTNAME", "argocd-application-controller-0".into()),
        ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
    ]
}

/// kubectl carries a kustomize; it wants to be called otherwise.
fn write_kustomize(path: &Path) {
    let kubectl = program("kubectl");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = build ] || exit 2\nshift\nexec '{}' kustomize \"$@\"\n",
        kubectl.display()
    );
    fs::write(path, script).expect("the folder is ours");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("the file is ours");
}

/// Its kinds and settings; and how it tells the health of ours, as its users are told to say it.
fn configure(kubectl: &Kubectl) {
    let crds = ARGO_CD.program("crds").display().to_string();
    kubectl.run(&["apply", "--server-side", "-f", &crds]);
    let established = ["wait", "--for=condition=Established", "-f", &crds];
    kubectl.run(&established);
    wait_for(SOON, "Applications are served", || {
        kubectl
            .said(&["get", "applications,appprojects", "-A"])
            .code
            == 0
    });
    let named = |api: &str, kind: &str, name: &str, fields: Value| {
        let labels = json!({"app.kubernetes.io/part-of": "argocd", "app.kubernetes.io/name": name});
        let metadata = json!({"name": name, "namespace": NAMESPACE, "labels": labels});
        let mut object = json!({"apiVersion": api, "kind": kind, "metadata": metadata});
        for (field, value) in fields.as_object().into_iter().flatten() {
            object[field] = value.clone();
        }
        object
    };
    let project = json!({
        "sourceRepos": ["*"],
        "destinations": [{"namespace": "*", "server": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    });
    let objects = json!([
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        named("v1", "ConfigMap", "argocd-cm", json!({})),
        named("v1", "Secret", "argocd-secret", json!({})),
        named("argoproj.io/v1alpha1", "AppProject", "default", json!({"spec": project})),
    ]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    kubectl.apply(&list.to_string());
    kubectl.run(&[
        "patch",
        "configmap",
        "argocd-cm",
        "-n",
        NAMESPACE,
        "--patch-file",
        "manifests/argocd/argocd-cm-patch.yaml",
    ]);
}

/// The runner of tests of health checks.
///
/// # Panics
/// Where there is none; tests that need it are skipped.
#[must_use]
pub fn health_test() -> PathBuf {
    ARGO_CD.program("argocd-health-test")
}
