//! The one validation.

use std::{fmt, sync::OnceLock};

use garde::Validate;
use kube::{CustomResourceExt, core::cel::Validator};
use serde_json::{Map, Value, json};

use crate::{
    API_VERSION, CidrGroup, XdpPolicy, host_bits, metadata, path::Path, remedy, rules::Compiler,
    structural::Node, validation,
};

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
    /// A list of address ranges.
    CidrGroup,
    /// A packet filter.
    XdpPolicy,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::CidrGroup, Self::XdpPolicy];

    /// The kind as manifests spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CidrGroup => "CidrGroup",
            Self::XdpPolicy => "XdpPolicy",
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
    /// A list of address ranges.
    CidrGroup(CidrGroup),
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
    let mut problems = metadata::check(object, &mut warnings);

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
        ("kind", "add kind: XdpPolicy or kind: CidrGroup".into()),
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
        let choices = Kind::ALL.map(|kind| kind.as_str().to_string());
        return Err(remedy::no_choice(&Path::ROOT.field("kind"), name, &choices));
    };
    Ok(Schema::of(kind))
}

impl Schema {
    fn of(kind: Kind) -> &'static Self {
        static CIDR_GROUP: OnceLock<Schema> = OnceLock::new();
        static XDP_POLICY: OnceLock<Schema> = OnceLock::new();
        match kind {
            Kind::CidrGroup => CIDR_GROUP.get_or_init(|| Self::compile(kind, CidrGroup::crd())),
            Kind::XdpPolicy => XDP_POLICY.get_or_init(|| Self::compile(kind, XdpPolicy::crd())),
        }
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
            Kind::CidrGroup => serde_json::from_value(object).map(Resource::CidrGroup),
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
            Self::CidrGroup(_) => Kind::CidrGroup,
            Self::XdpPolicy(_) => Kind::XdpPolicy,
        }
    }

    /// The resource's name; [`check`] has seen that there is one.
    pub fn name(&self) -> &str {
        let metadata = match self {
            Self::CidrGroup(group) => &group.metadata,
            Self::XdpPolicy(policy) => &policy.metadata,
        };
        metadata.name.as_deref().unwrap_or_default()
    }
}
