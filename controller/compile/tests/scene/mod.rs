//! Nodes, snapshots and what is enforced of them: what tests start from and end with.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]

mod enforced;
mod packets;

pub use enforced::{Agent, Enforced};
pub use packets::{other_from, packet_of, tcp_to, udp_from};

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headgate_compile::{
    addresses::AddressSet,
    memory::Seconds,
    node::{Interface, InterfaceKind, NodeFacts},
    snapshot::{self, BalancedService, Content, ResourceName, Snapshot, Submitted, Unreadable},
};
use headgate_crds::{AddressPoolSpec, Kind, check};
use headgate_datapath::state::{Digest, Ifindex};
use serde_json::{Value, json};

use crate::model::World;

/// The time of tests that ask for none.
pub const NOW: Seconds = Seconds(1_800_000_000);

/// A network card with this name and number, not the way to the world.
pub fn card(name: &str, ifindex: u32) -> Interface {
    Interface {
        name: name.to_owned(),
        ifindex: Ifindex(ifindex),
        kind: InterfaceKind::Other,
        mtu: 1_500,
        master: None,
        lower: None,
        has_default_route: false,
    }
}

/// A node with these interfaces.
pub fn node(interfaces: impl IntoIterator<Item = Interface>) -> NodeFacts {
    NodeFacts {
        name: "node-1".to_owned(),
        labels: BTreeMap::new(),
        interfaces: interfaces.into_iter().collect(),
        failsafe: BTreeSet::new(),
        ..NodeFacts::default()
    }
}

/// A node with the card eth0.
pub fn plain_node() -> NodeFacts {
    node([card("eth0", 2)])
}

/// A policy on eth0 with these fields beside.
pub fn policy(name: &str, fields: Value) -> Value {
    let mut spec = json!({"interfaces": ["eth0"]});
    let Value::Object(fields) = fields else {
        panic!("{fields} is no object");
    };
    for (key, value) in fields {
        spec[key] = value;
    }
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "XdpPolicy",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// A policy on eth0 that drops what comes from these addresses.
pub fn drop_from(name: &str, cidrs: &[&str]) -> Value {
    policy(
        name,
        json!({"rules": [{"name": "block", "action": "Drop", "from": {"cidrs": cidrs}}]}),
    )
}

/// A policy on eth0 that drops what comes from this group.
pub fn drop_group(name: &str, group: &str) -> Value {
    policy(
        name,
        json!({"rules": [{
            "name": "block", "action": "Drop", "from": {"cidrGroups": {"names": [group]}},
        }]}),
    )
}

/// A group labelled `feed: bad`.
pub fn group(name: &str, cidrs: &[&str]) -> Value {
    json!({
        "apiVersion": "headgate.dev/v1alpha1",
        "kind": "CidrGroup",
        "metadata": {"name": name, "labels": {"feed": "bad"}},
        "spec": {"cidrs": cidrs},
    })
}

/// The snapshot of a file `policies.yaml` that holds these objects, checked as every source does.
pub fn snapshot<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Snapshot {
    let objects = objects.into_iter().enumerate();
    Snapshot {
        submitted: objects
            .map(|(index, object)| submitted(object, "policies.yaml", 10 * index as u32 + 1))
            .collect(),
        unreadable: Vec::new(),
        endpoints: None,
    }
}

/// One object as read from this place.
pub fn submitted(object: &Value, file: &str, line: u32) -> Submitted {
    let text = object.to_string();
    let kind = Kind::from_name(object["kind"].as_str().unwrap()).unwrap();
    let metadata = &object["metadata"];
    let name = kind.full_name(
        metadata["namespace"].as_str(),
        metadata["name"].as_str().unwrap(),
    );
    let name = ResourceName::new(kind, name);
    let (content, warnings) = match check(object) {
        Ok(checked) => (Ok(Content::from(checked.resource)), checked.warnings),
        Err(problems) => (Err(problems), Vec::new()),
    };
    Submitted {
        uid: Digest::of(name.to_string().as_bytes()).to_string(),
        name,
        written: Digest::of(text.as_bytes()),
        generation: None,
        list: file.to_owned(),
        line: Some(line),
        content,
        warnings,
    }
}

/// The object with a field that the check refuses.
pub fn refused(object: &Value) -> Submitted {
    let mut object = object.clone();
    object["spec"]["colour"] = json!("red");
    let submitted = submitted(&object, "policies.yaml", 1);
    assert!(submitted.content.is_err());
    submitted
}

/// A file that does not parse.
pub fn unreadable(file: &str) -> Unreadable {
    Unreadable {
        list: file.to_owned(),
        line: Some(3),
        reason: "a tab where none may be".to_owned(),
    }
}

/// A snapshot of the model's resources, which need not pass the check, and a pool for all services.
pub fn snapshot_of_model(world: &World) -> Snapshot {
    let policies = world.policies.iter().map(|policy| {
        let name = ResourceName::new(Kind::XdpPolicy, &policy.name);
        (name, Content::Policy(Arc::new(policy.spec.clone())))
    });
    let groups = world.groups.iter().map(|group| {
        let name = ResourceName::new(Kind::CidrGroup, &group.name);
        let networks = group.cidrs.iter().map(|cidr| cidr.parse().unwrap());
        let content = snapshot::Group {
            labels: group.labels.clone(),
            addresses: AddressSet::from_networks(networks),
        };
        (name, Content::Group(Arc::new(content)))
    });
    let services = world.services.iter().map(|service| {
        let name = Kind::LoadBalancerService.full_name(Some("shop"), &service.name);
        let content = BalancedService {
            spec: service.spec.clone(),
            created: None,
        };
        let name = ResourceName::new(Kind::LoadBalancerService, name);
        (name, Content::Service(Arc::new(content)))
    });
    let pool = AddressPoolSpec {
        cidrs: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
        namespaces: None,
    };
    let pool = (
        ResourceName::new(Kind::AddressPool, "all"),
        Content::Pool(Arc::new(pool)),
    );
    let resources = policies.chain(groups).chain(services).chain([pool]);
    let submitted = resources.map(|(name, content)| Submitted {
        uid: Digest::of(name.to_string().as_bytes()).to_string(),
        written: Digest::of(format!("{content:?}").as_bytes()),
        name,
        generation: None,
        list: "policies.yaml".to_owned(),
        line: Some(1),
        content: Ok(content),
        warnings: Vec::new(),
    });
    Snapshot {
        submitted: submitted.collect(),
        unreadable: Vec::new(),
        endpoints: None,
    }
}
