//! What compile needs to know of this node.

use headgate_compile::node::{Interface, InterfaceKind, NodeFacts};
use headgate_datapath::kernel::KernelError;
use headgate_kernel::interfaces::{self, InterfaceFacts};

use crate::config::Config;

/// Reads the facts of the running node.
///
/// # Errors
/// The interfaces cannot be read.
pub fn read(config: &Config) -> Result<NodeFacts, KernelError> {
    Ok(NodeFacts {
        name: config.node_name.clone(),
        labels: config.node_labels.clone(),
        interfaces: interfaces::interfaces()?
            .into_iter()
            .map(interface)
            .collect(),
        failsafe: config.failsafe.clone(),
    })
}

fn interface(facts: InterfaceFacts) -> Interface {
    Interface {
        name: facts.name,
        ifindex: facts.ifindex,
        kind: match facts.kind {
            interfaces::InterfaceKind::Loopback => InterfaceKind::Loopback,
            interfaces::InterfaceKind::Bond => InterfaceKind::Bond,
            interfaces::InterfaceKind::Bridge => InterfaceKind::Bridge,
            interfaces::InterfaceKind::Vlan => InterfaceKind::Vlan,
            interfaces::InterfaceKind::Veth => InterfaceKind::Veth,
            _ => InterfaceKind::Other,
        },
        master: facts.master,
        lower: facts.lower,
        has_default_route: facts.has_default_route,
    }
}
