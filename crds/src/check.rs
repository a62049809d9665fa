//! The one validation.

use std::{fmt, sync::OnceLock};

use garde::Validate;
use kube::{CustomResourceExt, core::cel::Validator};
use serde_json::{Map, Value, json};

use crate::{
    API_VERSION, AddressPool, CidrGroup, LoadBalancerService, TunnelPeer, XdpPolicy, host_bits,
    metadata, path::Path, remedy, rules::Compiler, source_ranges, structural::Node, validation,
};

/// The namespace of an object that gives none, as for kubectl.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// As many problems of one object as anybody reads.
const MOST_PROBLEMS: usize = 50;

/// What is wrong, or odd, at one place of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, such as `spec.rules[2].from.cidrs[0]`; empty for the object itself.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
    /// What the user can do about it; may be empty.
    pub remedy: String,
    /// Line of the file that the object was read from, where there is one; [`check`] sees
    /// no file and leaves it out.
    pub line: Option<u32>,
}

impl fmt::Display for Problem {
    /// `path: reason; remedy`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// The kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Addresses that services may serve.
    AddressPool,
    /// A list of address ranges.
    CidrGroup,
    /// Addresses and ports, and the backends that serve them.
    LoadBalancerService,
    /// Networks that are reached through a tunnel.
    TunnelPeer,
    /// A packet filter.
    XdpPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::AddressPool,
        Self::CidrGroup,
        Self::LoadBalancerService,
        Self::TunnelPeer,
        Self::XdpPolicy,
    ];

    /// The kind as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AddressPool => "AddressPool",
            Self::CidrGroup => "CidrGroup",
            Self::LoadBalancerService => "LoadBalancerService",
            Self::TunnelPeer => "TunnelPeer",
            Self::XdpPolicy => "XdpPolicy",
        }
    }

    /// Whether its objects belong to a namespace; else to the whole cluster.
    pub fn is_namespaced(self) -> bool {
        self == Self::LoadBalancerService
    }

    /// How an object of this kind is named among all of its kind: by its name, and before it the
    /// namespace of a kind that has one.
    pub fn full_name(self, namespace: Option<&str>, name: &str) -> String {
        if self.is_namespaced() {
            format!("{}/{name}", namespace.unwrap_or(DEFAULT_NAMESPACE))
        } else {
            name.to_owned()
        }
    }

    /// The namespace and the name in it of a [`Self::full_name`].
    pub fn split_name(full_name: &str) -> (Option<&str>, &str) {
        match full_name.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, full_name),
        }
    }

    /// The kind that manifests spell so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A resource that passed [`check`], with the schema's defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// Addresses that services may serve.
    AddressPool(AddressPool),
    /// A list of address ranges.
    CidrGroup(CidrGroup),
    /// Addresses and ports, and the backends that serve them.
    LoadBalancerService(LoadBalancerService),
    /// Networks that are reached through a tunnel.
    TunnelPeer(TunnelPeer),
    /// A packet filter.
    XdpPolicy(XdpPolicy),
}

/// The outcome of a check that found nothing to refuse.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// The object, defaults filled in, otherwise as written.
    pub resource: Resource,
    /// What is accepted but hardly meant.
    pub warnings: Vec<Problem>,
}

/// Checks one object as `kubectl apply`, the API server and the admission webhook
/// would: unknown fields, the CRD's schema and defaults, its CEL rules, and, with
/// garde, what CEL cannot say. Later steps run only on what passed the earlier ones.
pub fn check(value: &Value) -> Result<Checked, Vec<Problem>> {
    let Value::Object(object) = value else {
        let reason = "is no object";
        return Err(vec![remedy::problem(
            "",
            reason,
            "write apiVersion, kind, metadata and spec",
        )]);
    };
    let schema = identify(object).map_err(|problem| vec![problem])?;
    let mut warnings = Vec::new();
    let mut problems = metadata::check(object, schema.kind, &mut warnings);

    let mut object = value.clone();
    schema.root.walk(&mut object, &Path::ROOT, &mut problems);
    if problems.is_empty() {
        let Schema {
            root, validator, ..
        } = schema;
        root.run_rules(validator, &object, &Path::ROOT, &mut problems);
    }
    if !problems.is_empty() {
        return Err(shortened(problems));
    }
    let resource = schema.parse(object).map_err(|problem| vec![problem])?;
    if let Err(report) = resource.validate() {
        return Err(shortened(validation::problems(report)));
    }
    host_bits::check(&resource, &mut warnings);
    source_ranges::check(&resource, &mut warnings);
    Ok(Checked { resource, warnings })
}

/// A kind's schema, compiled once.
struct Schema {
    kind: Kind,
    root: Node,
    validator: Validator,
}

fn identify(object: &Map<String, Value>) -> Result<&'static Schema, Problem> {
    for (field, remedy) in [
        ("apiVersion", format!("add apiVersion: {API_VERSION}")),
        ("kind", format!("add kind: {}", remedy::any_of(&kinds()))),
    ] {
        if !object.get(field).is_some_and(Value::is_string) {
            return Err(remedy::problem(field, "is required", remedy));
        }
    }
    if object["apiVersion"] != API_VERSION {
        let reason = format!("{} is not served", object["apiVersion"]);
        let remedy = format!("write apiVersion: {API_VERSION}");
        return Err(remedy::problem("apiVersion", reason, remedy));
    }
    let name = object["kind"].as_str().unwrap_or_default();
    let Some(kind) = Kind::from_name(name) else {
        return Err(remedy::no_choice(&Path::ROOT.field("kind"), name, &kinds()));
    };
    Ok(Schema::of(kind))
}

fn kinds() -> [String; 5] {
    Kind::ALL.map(|kind| kind.as_str().to_owned())
}

impl Schema {
    fn of(kind: Kind) -> &'static Self {
        static SCHEMAS: [OnceLock<Schema>; 5] = [const { OnceLock::new() }; 5];
        SCHEMAS[kind as usize].get_or_init(|| {
            let crd = match kind {
                Kind::AddressPool => AddressPool::crd(),
                Kind::CidrGroup => CidrGroup::crd(),
                Kind::LoadBalancerService => LoadBalancerService::crd(),
                Kind::TunnelPeer => TunnelPeer::crd(),
                Kind::XdpPolicy => XdpPolicy::crd(),
            };
            Self::compile(kind, crd)
        })
    }

    fn compile(kind: Kind, crd: impl serde::Serialize) -> Self {
        let crd = serde_json::to_value(crd).expect("a definition is plain JSON");
        let mut schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        // The API server adds these to every schema; `metadata` checks them.
        for field in ["apiVersion", "kind"] {
            schema["properties"][field] = json!({"type": "string"});
        }
        schema["properties"]["metadata"] = json!({"type": "object", "additionalProperties": true});
        // What an author writes there goes nowhere: it is refused by name.
        if let Some(properties) = schema["properties"].as_object_mut() {
            properties.remove("status");
        }
        Self {
            kind,
            root: Node::compile(&schema, &mut Compiler::default()),
            validator: Validator::new(),
        }
    }

    fn parse(&self, object: Value) -> Result<Resource, Problem> {
        let parsed = match self.kind {
            Kind::AddressPool => serde_json::from_value(object).map(Resource::AddressPool),
            Kind::CidrGroup => serde_json::from_value(object).map(Resource::CidrGroup),
            Kind::LoadBalancerService => {
                serde_json::from_value(object).map(Resource::LoadBalancerService)
            }
            Kind::TunnelPeer => serde_json::from_value(object).map(Resource::TunnelPeer),
            Kind::XdpPolicy => serde_json::from_value(object).map(Resource::XdpPolicy),
        };
        // The schema let it through, so only metadata can be amiss.
        parsed.map_err(|error| {
            remedy::problem(
                "metadata",
                error.to_string(),
                "write the fields of Kubernetes' ObjectMeta in their types",
            )
        })
    }
}

fn shortened(mut problems: Vec<Problem>) -> Vec<Problem> {
    let more = problems.len().saturating_sub(MOST_PROBLEMS);
    if more > 0 {
        problems.truncate(MOST_PROBLEMS);
        let reason = format!("{more} more problems are not listed");
        problems.push(remedy::problem("", reason, "mend these first"));
    }
    problems
}

impl Resource {
    /// The resource's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::AddressPool(_) => Kind::AddressPool,
            Self::CidrGroup(_) => Kind::CidrGroup,
            Self::LoadBalancerService(_) => Kind::LoadBalancerService,
            Self::TunnelPeer(_) => Kind::TunnelPeer,
            Self::XdpPolicy(_) => Kind::XdpPolicy,
        }
    }

    /// The resource's name; [`check`] has seen that there is one.
    pub fn name(&self) -> &str {
        let metadata = match self {
            Self::AddressPool(pool) => &pool.metadata,
            Self::CidrGroup(group) => &group.metadata,
            Self::LoadBalancerService(service) => &service.metadata,
            Self::TunnelPeer(peer) => &peer.metadata,
            Self::XdpPolicy(policy) => &policy.metadata,
        };
        metadata.name.as_deref().unwrap_or_default()
    }
}
