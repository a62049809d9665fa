//! The resources as they were read.

use std::{collections::BTreeMap, fmt, sync::Arc};

use headgate_crds::{
    AddressPoolSpec, Kind, LoadBalancerServiceSpec, Problem, Resource, TunnelPeerSpec,
    XdpPolicySpec, parse_cidr,
};
use headgate_datapath::state::Digest;
use serde::{Deserialize, Serialize};

use crate::{addresses::AddressSet, endpoints::Endpoints};

/// What tells one resource from another, over renames and re-creations.
pub type Uid = String;

/// A resource by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceName {
    /// `XdpPolicy`, `CidrGroup` and so on.
    pub kind: String,
    /// Its name, of a kind that has namespaces as `NAMESPACE/NAME`.
    pub name: String,
}

impl ResourceName {
    /// The name of a resource of this kind.
    #[must_use]
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self {
            kind: kind.as_str().to_owned(),
            name: name.into(),
        }
    }

    /// The namespace of a kind that has one, and the object's name in it.
    #[must_use]
    pub fn namespace_and_name(&self) -> (Option<&str>, &str) {
        Kind::split_name(&self.name)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// A group's addresses, looked up, and the labels that select it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Labels of the object.
    pub labels: BTreeMap<String, String>,
    /// The addresses.
    pub addresses: AddressSet,
}

/// What a resource says, in the form in which it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// An `XdpPolicy`, as written.
    Policy(Arc<XdpPolicySpec>),
    /// A `CidrGroup`, in packed form: no text is kept.
    Group(Arc<Group>),
    /// A `LoadBalancerService`.
    Service(Arc<BalancedService>),
    /// An `AddressPool`, as written.
    Pool(Arc<AddressPoolSpec>),
    /// A `TunnelPeer`.
    Peer(Arc<JoinedPeer>),
}

/// A service, as written, and its age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalancedService {
    /// What it says.
    pub spec: LoadBalancerServiceSpec,
    /// When the API took it in, in seconds since 1970: of two that want one address, the older has it.
    pub created: Option<i64>,
}

/// A peer of the tunnel, as written, and its age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinedPeer {
    /// What it says.
    pub spec: TunnelPeerSpec,
    /// When the API took it in, in seconds since 1970: of two that want one network, the older has it.
    pub created: Option<i64>,
}

impl From<Resource> for Content {
    fn from(resource: Resource) -> Self {
        match resource {
            Resource::XdpPolicy(policy) => Self::Policy(Arc::new(policy.spec)),
            Resource::AddressPool(pool) => Self::Pool(Arc::new(pool.spec)),
            Resource::LoadBalancerService(service) => {
                let created = service.metadata.creation_timestamp;
                Self::Service(Arc::new(BalancedService {
                    spec: service.spec,
                    created: created.map(|time| time.0.as_second()),
                }))
            }
            Resource::TunnelPeer(peer) => {
                let created = peer.metadata.creation_timestamp;
                Self::Peer(Arc::new(JoinedPeer {
                    spec: peer.spec,
                    created: created.map(|time| time.0.as_second()),
                }))
            }
            Resource::CidrGroup(group) => {
                // The check that made a Resource has parsed every one of them.
                let networks = group
                    .spec
                    .cidrs
                    .iter()
                    .filter_map(|cidr| parse_cidr(cidr).ok());
                Self::Group(Arc::new(Group {
                    labels: group.metadata.labels.unwrap_or_default(),
                    addresses: AddressSet::from_networks(networks),
                }))
            }
        }
    }
}

/// One resource as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// Kind and name.
    pub name: ResourceName,
    /// Its uid.
    pub uid: Uid,
    /// Digest of what was written, good or bad: another digest is another generation.
    pub written: Digest,
    /// Its generation, where an API counts them.
    pub generation: Option<u64>,
    /// The file that it was read from, relative to the source, or the API's list.
    pub list: String,
    /// Line of its first word in there, in a file.
    pub line: Option<u32>,
    /// What it says, or what is wrong with it.
    pub content: Result<Content, Vec<Problem>>,
    /// What is accepted but hardly meant.
    pub warnings: Vec<Problem>,
}

/// A file or list whose resources could not be told: all that were last read from it stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The file, relative to the source, or the API's list.
    pub list: String,
    /// Where in it.
    pub line: Option<u32>,
    /// Why.
    pub reason: String,
}

/// All resources of a source at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Resources.
    pub submitted: Vec<Submitted>,
    /// Files and lists that could not be read as resources.
    pub unreadable: Vec<Unreadable>,
    /// The endpoints of Services that services name; `None` where they are not known, so that what they were
    /// counts. A directory has none.
    pub endpoints: Option<Arc<Endpoints>>,
}
