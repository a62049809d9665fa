//! Pods that may send longer packets than the tunnel takes.

use super::{Standing, finding};
use crate::{
    compilation::Compiler,
    finding::{Finding, FindingReason, Severity},
    select::Remark,
};

impl Compiler<'_> {
    /// Said of the peer that is this node; of ways that are not known nothing is said.
    pub(super) fn oversized_pods(&self, standing: &[Standing<'_>]) -> Option<Finding> {
        let own = standing.iter().find(|peer| peer.is_own)?;
        let others = standing.iter().filter(|peer| !peer.is_own);
        let tunnel = others.filter_map(|peer| self.inner_mtu(peer.spec)).min()?;
        let pods = self.node.pods_mtu.filter(|pods| *pods > tunnel)?;
        let message = format!(
            "pods of this node may send packets of {pods} bytes, going by the node's ends of their veth pairs, and the tunnel takes {tunnel}: longer ones to other nodes are answered with ICMP, and lost where that is not heeded; give pods an MTU of {tunnel} in the settings of their network plugin, or raise that of the network below"
        );
        Some(finding(
            own.version,
            Remark {
                severity: Severity::Warning,
                reason: FindingReason::PodMtuTooLarge,
                path: String::new(),
                message,
            },
        ))
    }
}
