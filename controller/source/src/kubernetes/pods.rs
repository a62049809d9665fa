//! The Pods of one node, as far as anybody asks.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, runtime::watcher};
use serde::{Deserialize, Serialize};

use super::{Watched, list};

/// A Pod that has a network namespace of its own, or will have one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LocalPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its addresses; none before its network is made.
    pub addresses: BTreeSet<IpAddr>,
}

impl fmt::Display for LocalPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The Pods that are bound to the node of this name; `None` stands for one that has no network namespace of its
/// own. Nothing is asked before it is awaited.
#[must_use]
pub fn local_pods(client: Client, node_name: &str) -> Watched<Pod, Option<LocalPod>> {
    let here = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
    Watched::new(list(Api::all(client), here), local)
}

/// One that has ended keeps its address in its status, which may be another's by now.
fn local(pod: Pod) -> Option<LocalPod> {
    let spec = pod.spec.unwrap_or_default();
    let status = pod.status.unwrap_or_default();
    let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if spec.host_network == Some(true) || has_ended {
        return None;
    }
    let addresses = status.pod_ips.into_iter().flatten();
    Some(LocalPod {
        namespace: pod.metadata.namespace?,
        name: pod.metadata.name?,
        uid: pod.metadata.uid?,
        addresses: addresses.filter_map(|one| one.ip.parse().ok()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn made_of(spec: &Value, status: &Value) -> Option<LocalPod> {
        let metadata = json!({"namespace": "shop", "name": "web-0", "uid": "1-2"});
        let pod = json!({"metadata": metadata, "spec": spec, "status": status});
        local(serde_json::from_value(pod).expect("a Pod"))
    }

    #[test]
    fn pods_with_a_network_of_their_own_are_kept_with_their_addresses() {
        let spec = json!({"containers": []});
        let ips = json!([{"ip": "10.244.1.2"}, {"ip": "fd24:1::2"}]);
        let running = json!({"phase": "Running", "podIP": "10.244.1.2", "podIPs": ips});
        let pod = made_of(&spec, &running).expect("kept");
        assert_eq!(pod.to_string(), "shop/web-0");
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.244.1.2", "fd24:1::2"]);
        let pending = made_of(&spec, &json!({"phase": "Pending"})).expect("kept");
        assert!(pending.addresses.is_empty());
        let ended = json!({"phase": "Succeeded", "podIPs": ips});
        assert_eq!(made_of(&spec, &ended), None);
        let of_node = json!({"containers": [], "hostNetwork": true});
        assert_eq!(made_of(&of_node, &running), None);
    }
}
