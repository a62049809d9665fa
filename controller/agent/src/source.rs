//! Where this agent's resources come from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::PathBuf,
};

use headgate_compile::{inputs, snapshot::Content};
use headgate_crds::LabelSelector;
use headgate_source::{
    DirectorySource, Reading,
    kubernetes::{ClientError, KubernetesSource, NodeObject, Uses, connect},
};
use kube::Client;

/// Where to read resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    /// A directory of YAML files.
    Directory(PathBuf),
    /// The Kubernetes API.
    Kubernetes {
        /// How to reach it; a pod's service account where absent.
        kubeconfig: Option<PathBuf>,
    },
}

impl fmt::Display for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Kubernetes { .. } => f.write_str("kubernetes"),
        }
    }
}

pub(crate) enum Source {
    Directory(Box<DirectorySource<Content>>),
    Kubernetes(Box<Api>),
}

pub(crate) struct Api {
    source: KubernetesSource<Content>,
    client: Client,
    /// The server that the kubeconfig names.
    peers: BTreeSet<SocketAddr>,
}

/// What a resource uses on a node with these labels.
pub(crate) fn uses(content: &Content, labels: &BTreeMap<String, String>) -> Uses {
    let selects = |selector: &Option<LabelSelector>| {
        selector
            .as_ref()
            .is_none_or(|selector| selector.matches(labels))
    };
    match content {
        Content::Policy(spec) => Uses {
            groups: inputs::uses_groups(spec, labels),
            endpoints: false,
        },
        Content::Service(service) => Uses {
            groups: false,
            endpoints: service.spec.backends.service_ref.is_some()
                && selects(&service.spec.node_selector),
        },
        _ => Uses::default(),
    }
}

impl Source {
    pub(crate) async fn open(config: &SourceConfig, node: &str) -> Result<Self, ClientError> {
        let kubeconfig = match config {
            SourceConfig::Directory(path) => {
                let source = DirectorySource::new(path, Content::from);
                return Ok(Self::Directory(Box::new(source)));
            }
            SourceConfig::Kubernetes { kubeconfig } => kubeconfig,
        };
        let connection = connect(kubeconfig.as_ref()).await?;
        let client = connection.client.clone();
        let source = KubernetesSource::new(connection.client, node, Content::from, uses);
        Ok(Self::Kubernetes(Box::new(Api {
            source,
            client,
            peers: connection.peers,
        })))
    }

    pub(crate) fn read(&mut self) -> Reading<Content> {
        match self {
            Self::Directory(source) => source.read(),
            Self::Kubernetes(api) => api.source.read(),
        }
    }

    /// Tells a source that watches some things only where they are used what is in effect.
    pub(crate) fn set_uses_in_effect(&mut self, in_effect: Uses) {
        if let Self::Kubernetes(api) = self {
            api.source.set_uses_in_effect(in_effect);
        }
    }

    pub(crate) async fn changed(&mut self) {
        match self {
            Self::Directory(source) => source.changed().await,
            Self::Kubernetes(api) => api.source.changed().await,
        }
    }

    /// The API's client, where there is an API.
    pub(crate) fn client(&self) -> Option<&Client> {
        match self {
            Self::Directory(_) => None,
            Self::Kubernetes(api) => Some(&api.client),
        }
    }

    /// The node as the API has it.
    pub(crate) fn node(&self) -> Option<&NodeObject> {
        match self {
            Self::Directory(_) => None,
            Self::Kubernetes(api) => api.source.node(),
        }
    }

    /// Where the API servers listen; `None` before that is known.
    pub(crate) fn api_servers(&self) -> Option<BTreeSet<SocketAddr>> {
        match self {
            Self::Directory(_) => None,
            Self::Kubernetes(api) => {
                let mut servers = api.source.api_servers()?;
                servers.extend(&api.peers);
                Some(servers)
            }
        }
    }

    /// The API server that the kubeconfig names.
    pub(crate) fn peers(&self) -> BTreeSet<SocketAddr> {
        match self {
            Self::Directory(_) => BTreeSet::new(),
            Self::Kubernetes(api) => api.peers.clone(),
        }
    }
}
