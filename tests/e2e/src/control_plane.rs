//! A Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    assets::{self, NODES},
    audit::{self, Written},
    binary::headgate,
    certificates::{Authority, Credentials, key_pair},
    kubeconfig::{User, kubeconfig},
    kubectl::Kubectl,
    namespace::{Namespace, unique_name},
    operator::Operator,
    process::Process,
    wait::wait_for,
};

/// Where the API server listens in the control plane's namespace. No loopback address: an endpoint
/// of the Service `kubernetes` is none.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Its port.
pub const PORT: u16 = 6443;
/// The namespace of the agents' service account.
pub const AGENT_NAMESPACE: &str = "headgate-system";
/// The agents' service account.
pub const AGENT: &str = "headgate-agent";

/// The operator's service account, in the same namespace.
const OPERATOR: &str = "headgate-operator";
/// What operators write is told there.
const AUDIT_LOG: &str = "audit.log";
const AUDIT_POLICY: &str = "audit.json";
/// Services get their addresses from here; the first is the API server's own.
const SERVICES: &str = "10.96.0.0/16";
/// Pods of real nodes get theirs from here, each node a /24 of its own.
pub(crate) const PODS: &str = "10.244.0.0/16";
const SERVICE_ADDRESS: &str = "10.96.0.1";
/// Time within which each program is at work, on a busy machine.
const START: Duration = Duration::from_secs(60);

static SHARED: Mutex<Option<Arc<ControlPlane>>> = Mutex::new(None);

/// A control plane in a network namespace of its own. All of it goes away with it.
#[derive(Debug)]
pub struct ControlPlane {
    // Processes first: they are to be gone before their files and their network.
    #[allow(dead_code, reason = "it is killed when dropped")]
    controller_manager: Option<Process>,
    #[allow(dead_code, reason = "it is killed when dropped")]
    scheduler: Option<Process>,
    api_server: Option<Process>,
    etcd: Mutex<Process>,
    kubectl: Kubectl,
    files: Files,
    clusters: AtomicU8,
    nodes: Nodes,
    /// Where it lives.
    pub namespace: Arc<Namespace>,
}

/// What the nodes are that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nodes {
    /// Objects of the API, to which agents are added.
    Named,
    /// Machines with a kubelet, to which pods are scheduled.
    Real,
}

impl ControlPlane {
    /// One with nothing in it but the agents' service account.
    ///
    /// # Panics
    /// Where it is not healthy within a minute, with what its programs said.
    #[must_use]
    pub fn start() -> Self {
        let mut control_plane = Self::start_api(Nodes::Named);
        control_plane.kubectl.apply(&agents_account());
        control_plane.start_controller_manager();
        control_plane
    }

    /// One with nothing in it, for nodes that have a kubelet.
    ///
    /// # Panics
    /// Where it is not healthy within a minute, with what its programs said.
    #[must_use]
    pub fn start_for_kubelets() -> Self {
        let mut control_plane = Self::start_api(Nodes::Real);
        control_plane.start_controller_manager();
        control_plane.start_scheduler();
        control_plane
    }

    fn start_api(nodes: Nodes) -> Self {
        let namespace = Arc::new(Namespace::new("control-plane"));
        namespace.ip(&format!("addr add {ADDRESS}/32 dev lo"));
        let files = Files::new();
        let etcd = start_etcd(&namespace, &files);
        let mut control_plane = Self {
            controller_manager: None,
            scheduler: None,
            api_server: None,
            etcd: Mutex::new(etcd),
            kubectl: Kubectl::new(
                &namespace,
                &files.path("admin.kubeconfig"),
                &files.path("home"),
            ),
            files,
            clusters: AtomicU8::new(0),
            nodes,
            namespace,
        };
        control_plane.start_api_server();
        control_plane
    }

    /// The one that all tests of this process share, with Headgate's CRDs in it; started when it
    /// is first asked for.
    ///
    /// # Panics
    /// Where it does not start, now or before.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().expect("its start failed before");
        let control_plane = shared.get_or_insert_with(|| {
            let control_plane = Self::start();
            control_plane.install_crds();
            Arc::new(control_plane)
        });
        Arc::clone(control_plane)
    }

    /// kubectl with all rights, in the control plane's namespace.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Applies `crds/` and waits until the kinds are served.
    ///
    /// # Panics
    /// Where the API server refuses.
    pub fn install_crds(&self) {
        self.kubectl.run(&["apply", "-f", "crds"]);
        let plurals = "jsonpath={.items[*].spec.names.plural}";
        let kinds = self.kubectl.run(&["get", "-f", "crds", "-o", plurals]);
        // What the API server lists follows what it stores.
        let list = ["api-resources", "--api-group=headgate.dev", "-o", "name"];
        wait_for(START, "the kinds are served", || {
            let said = self.kubectl.said(&list);
            let listed: Vec<&str> = said.output.split_whitespace().collect();
            let is_listed = |kind: &str| listed.contains(&format!("{kind}.headgate.dev").as_str());
            said.code == 0 && kinds.split_whitespace().all(is_listed)
        });
    }

    /// Writes a kubeconfig for whoever has this token; gives its path.
    ///
    /// # Panics
    /// Where it cannot be written.
    #[must_use]
    pub fn kubeconfig(&self, name: &str, token: &str) -> PathBuf {
        let file = format!("{name}.kubeconfig");
        let authority = self.files.path("ca.crt");
        let text = kubeconfig(&server(), &authority, User::Token(token));
        self.files.write(&file, &text)
    }

    /// kubectl of a user with this kubeconfig, in a namespace that reaches the API server.
    #[must_use]
    pub fn kubectl_of(&self, namespace: &Arc<Namespace>, kubeconfig: &Path) -> Kubectl {
        Kubectl::new(namespace, kubeconfig, &self.files.path("home"))
    }

    /// The kubeconfig with all rights; it is of use inside of the control plane's namespace.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.files.path("admin.kubeconfig")
    }

    /// Starts an operator with this name among its replicas. It ends when it is dropped.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn start_operator(&self, identity: &str, arguments: &[&str]) -> Operator {
        self.start_operator_in(&self.namespace, identity, arguments)
    }

    /// The same in a namespace that reaches the API server.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn start_operator_in(
        &self,
        namespace: &Namespace,
        identity: &str,
        arguments: &[&str],
    ) -> Operator {
        // With its own rights and no more.
        self.kubectl
            .run(&["apply", "-f", "manifests/operator/rbac.yaml"]);
        let token = [
            "create",
            "token",
            OPERATOR,
            "-n",
            AGENT_NAMESPACE,
            "--duration=24h",
        ];
        let token = self.kubectl.run(&token);
        let kubeconfig = self.kubeconfig(identity, token.trim_end());
        let kubeconfig = kubeconfig.display().to_string();
        let own = [
            "operator",
            "--kubeconfig",
            &kubeconfig,
            "--identity",
            identity,
        ];
        let log = self.files.path(&format!("{identity}.log"));
        Operator::of(Process::start(
            namespace,
            headgate(),
            own.into_iter().chain(arguments.iter().copied()),
            log,
        ))
    }

    /// What operators have written, in the order in which the API server was done with it.
    ///
    /// # Panics
    /// Where its audit log is none.
    #[must_use]
    pub fn written_by_operators(&self) -> Vec<Written> {
        audit::read(&self.files.path(AUDIT_LOG))
    }

    /// A number for a cluster that nobody else here has.
    pub(crate) fn next_cluster(&self) -> u8 {
        let number = self.clusters.fetch_add(1, Ordering::Relaxed);
        number.checked_add(1).expect("255 clusters are enough")
    }

    fn etcd(&self) -> MutexGuard<'_, Process> {
        self.etcd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills etcd, waits, and starts it again on what it has written.
    ///
    /// # Panics
    /// Where the API server is not ready a minute later.
    pub fn restart_etcd(&self, after: Duration) {
        let mut etcd = self.etcd();
        etcd.kill();
        std::thread::sleep(after);
        *etcd = start_etcd(&self.namespace, &self.files);
        drop(etcd);
        wait_for(START, "the API server is ready", || {
            self.etcd().assert_runs();
            self.kubectl.said(&["get", "--raw", "/readyz"]).code == 0
        });
    }

    /// Kills the API server. Whatever it was told is in etcd.
    pub fn kill_api_server(&mut self) {
        self.api_server = None;
    }

    /// Starts the API server and waits until it is ready.
    ///
    /// # Panics
    /// Where it is not within a minute, with what it said.
    pub fn start_api_server(&mut self) {
        let mut arguments = api_server_arguments(&self.files);
        if self.nodes == Nodes::Real {
            arguments.extend(kubelet_arguments(&self.files));
        }
        let mut process = Process::start(
            &self.namespace,
            &assets::program("kube-apiserver"),
            arguments.iter().map(String::as_str),
            self.files.path("kube-apiserver.log"),
        );
        wait_for(START, "the API server is ready", || {
            self.etcd().assert_runs();
            process.assert_runs();
            self.is_listening() && self.kubectl.said(&["get", "--raw", "/readyz"]).code == 0
        });
        self.api_server = Some(process);
    }

    /// Much cheaper to ask than kubectl.
    fn is_listening(&self) -> bool {
        let to = SocketAddr::from((ADDRESS, PORT));
        self.namespace.enter(|| TcpStream::connect(to).is_ok())
    }

    /// Starts the controllers, where `KUBEBUILDER_ASSETS` has them: its convention asks only for
    /// the other programs.
    fn start_controller_manager(&mut self) {
        let program = assets::program("kube-controller-manager");
        if !program.exists() {
            return;
        }
        let arguments = controller_manager_arguments(&self.files, self.nodes);
        self.controller_manager = Some(Process::start(
            &self.namespace,
            &program,
            arguments.iter().map(String::as_str),
            self.files.path("kube-controller-manager.log"),
        ));
        // They are at work when namespaces have what controllers put into each.
        let account = "serviceaccount/default";
        let work = ["wait", "--for=create", account, "--timeout=60s"];
        self.kubectl.run(&work);
    }

    fn start_scheduler(&mut self) {
        let kubeconfig = self.admin_kubeconfig().display().to_string();
        let arguments = [
            format!("--kubeconfig={kubeconfig}"),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        self.scheduler = Some(Process::start(
            &self.namespace,
            &NODES.program("kube-scheduler"),
            arguments.iter().map(String::as_str),
            self.files.path("kube-scheduler.log"),
        ));
    }

    /// Writes a kubeconfig for a user of this name, in a group; gives its path.
    pub(crate) fn kubeconfig_of(&self, name: &str, user: &str, group: &str) -> PathBuf {
        self.files.client(name, user, group)
    }

    /// Writes a server's certificate and key for these addresses; gives their paths.
    pub(crate) fn server_certificate(&self, name: &str, reached_as: &[&str]) -> [PathBuf; 2] {
        let credentials = self.files.authority.server(name, reached_as);
        self.files.keep(name, &credentials)
    }

    /// The certificate of its authority.
    pub(crate) fn authority(&self) -> PathBuf {
        self.files.path("ca.crt")
    }
}

/// Takes down the control plane that tests share; for the end of a test binary.
pub fn shut_down() {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// The URL of the API server.
fn server() -> String {
    format!("https://{ADDRESS}:{PORT}")
}

fn start_etcd(namespace: &Namespace, files: &Files) -> Process {
    let data = format!("--data-dir={}", files.path("etcd").display());
    let arguments = [
        data.as_str(),
        // The data does not outlive the run.
        "--unsafe-no-fsync",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
    ];
    let program = assets::program("etcd");
    Process::start(namespace, &program, arguments, files.path("etcd.log"))
}

fn api_server_arguments(files: &Files) -> Vec<String> {
    let file = |name: &str| files.path(name).display().to_string();
    vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--bind-address={ADDRESS}"),
        format!("--advertise-address={ADDRESS}"),
        format!("--secure-port={PORT}"),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        // Nobody routes the addresses of Services here: a webhook is reached at its endpoints.
        "--enable-aggregator-routing=true".to_owned(),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("tokens.pub")),
        format!("--service-account-signing-key-file={}", file("tokens.key")),
        format!("--audit-policy-file={}", file(AUDIT_POLICY)),
        format!("--audit-log-path={}", file(AUDIT_LOG)),
    ]
}

/// How the API server asks kubelets, for logs and commands in pods.
fn kubelet_arguments(files: &Files) -> [String; 4] {
    let file = |name: &str| files.path(name).display().to_string();
    [
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        format!("--kubelet-client-certificate={}", file("admin.crt")),
        format!("--kubelet-client-key={}", file("admin.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ]
}

fn controller_manager_arguments(files: &Files, nodes: Nodes) -> Vec<String> {
    let file = |name: &str| files.path(name).display().to_string();
    let mut arguments = vec![
        format!("--kubeconfig={}", file("admin.kubeconfig")),
        "--leader-elect=false".to_owned(),
        // It serves nothing that tests ask for.
        "--secure-port=0".to_owned(),
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--service-account-private-key-file={}", file("tokens.key")),
    ];
    arguments.extend(match nodes {
        // It would find nodes without a kubelet all dead.
        Nodes::Named => vec!["--controllers=*,-node-lifecycle-controller".to_owned()],
        Nodes::Real => vec![
            "--allocate-node-cidrs".to_owned(),
            format!("--cluster-cidr={PODS}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--node-monitor-period=1s".to_owned(),
        ],
    });
    arguments
}

fn agents_account() -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {AGENT_NAMESPACE}}}\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {AGENT}, namespace: {AGENT_NAMESPACE}}}\n"
    )
}

/// The folder of the control plane: keys, kubeconfigs, logs, and etcd's data.
#[derive(Debug)]
struct Files {
    folder: TempDir,
    authority: Authority,
}

impl Files {
    /// A new one, with a certificate authority of its own.
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}-", unique_name()))
            .tempdir();
        let files = Self {
            folder: folder.expect("a temporary folder can be made"),
            authority: Authority::new("test-authority"),
        };
        fs::create_dir(files.path("home")).expect("the folder is new and empty");
        files.write("ca.crt", files.authority.certificate());
        let (address, service) = (ADDRESS.to_string(), "kubernetes.default.svc");
        let reached_as = [address.as_str(), SERVICE_ADDRESS, "kubernetes", service];
        let server = files.authority.server("kube-apiserver", &reached_as);
        files.keep("server", &server);
        let (private, public) = key_pair();
        files.write("tokens.key", &private);
        files.write("tokens.pub", &public);
        files.client("admin", "admin", "system:masters");
        let operator = format!("system:serviceaccount:{AGENT_NAMESPACE}:{OPERATOR}");
        files.write(AUDIT_POLICY, &audit::writes_of(&operator));
        files
    }

    /// Writes a kubeconfig for a user of this name, in a group, and what it refers to.
    fn client(&self, name: &str, user: &str, group: &str) -> PathBuf {
        let [certificate, key] = self.keep(name, &self.authority.client(user, group));
        let user = User::Certificate {
            certificate: &certificate,
            key: &key,
        };
        let config = kubeconfig(&server(), &self.path("ca.crt"), user);
        self.write(&format!("{name}.kubeconfig"), &config)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the folder is ours");
        path
    }

    fn keep(&self, name: &str, credentials: &Credentials) -> [PathBuf; 2] {
        [
            self.write(&format!("{name}.crt"), &credentials.certificate),
            self.write(&format!("{name}.key"), &credentials.key),
        ]
    }
}
