use std::path::Path;

use headgate_compile::{
    finding::{FindingReason, Severity},
    snapshot::Content,
};
use headgate_datapath::fake::FakeKernel;
use headgate_source::DirectorySource;

use super::*;

const POLICY: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: XdpPolicy
metadata: {name: closed}
spec: {interfaces: [eth0], defaultAction: Drop}
";

fn facts() -> NodeFacts {
    let eth0 = headgate_compile::node::Interface {
        name: "eth0".to_owned(),
        ifindex: headgate_datapath::state::Ifindex(2),
        kind: headgate_compile::node::InterfaceKind::Other,
        mtu: 1_500,
        master: None,
        lower: None,
        has_default_route: true,
    };
    NodeFacts {
        name: "node".to_owned(),
        interfaces: vec![eth0],
        ..NodeFacts::default()
    }
}

/// A turn on what a folder holds.
fn turn_on<K: Kernel>(node: &mut Node<K>, folder: &Path, facts: &NodeFacts, pods: &Pods) -> Report {
    let reading = DirectorySource::new(folder, Content::from).read();
    let inputs = Inputs {
        resources: &Resources::new(&reading, node.memory()),
        facts,
        pods,
        source: "folder",
        api_servers: &BTreeSet::new(),
        reachability: &Book::new(),
        now: Seconds(1),
    };
    node.turn(&inputs).0
}

#[test]
fn packets_that_pass_unjudged_are_told_while_they_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies).expect("made");
    std::fs::write(policies.join("closed.yaml"), POLICY).expect("written");
    let store = Store::open(&folder.path().join("state")).expect("a store");
    let object = Digest::of(b"object");
    let kernel = FakeKernel::new(object);
    let mut node = Node::new(kernel, store, Memory::default(), object);
    let turn = |node: &mut Node<FakeKernel>| {
        let report = turn_on(node, &policies, &facts(), &Pods::new());
        let [port] = report
            .ports
            .into_values()
            .collect::<Vec<_>>()
            .try_into()
            .expect("eth0");
        port.status
    };
    assert_eq!(turn(&mut node), PortStatus::Enforced);
    let port = *node.kernel.state.links.keys().next().expect("attached");
    node.kernel.state.unjudged.insert(port, 1_000);
    // What passed before this agent's time is not its to tell.
    assert_eq!(turn(&mut node), PortStatus::Enforced);
    node.kernel.state.unjudged.insert(port, 1_007);
    let PortStatus::NotEnforced(error) = turn(&mut node) else {
        panic!("packets passed");
    };
    assert!(error.starts_with("7 packets found no tables"), "{error}");
    assert_eq!(turn(&mut node), PortStatus::Enforced);
}
const PEER: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: TunnelPeer
metadata: {name: node-b}
spec: {podCIDRs: [10.244.2.0/24], endpoint: 192.0.2.2, vni: 7}
";

const SERVICES: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: AddressPool
metadata: {name: all}
spec: {cidrs: [198.51.100.0/24]}
---
apiVersion: headgate.dev/v1alpha1
kind: LoadBalancerService
metadata: {name: web, namespace: shop}
spec:
  addresses: [198.51.100.1]
  ports: [{name: http, protocol: TCP, port: 80}]
  backends: {serviceRef: {name: web}}
  forwarding: Nat
  interfaces: [eth0]
---
apiVersion: headgate.dev/v1alpha1
kind: LoadBalancerService
metadata: {name: dns, namespace: shop}
spec:
  addresses: [198.51.100.2]
  ports: [{name: dns, protocol: UDP, port: 53}]
  backends: {static: [{address: 192.0.2.9}]}
  forwarding: DirectReturn
  interfaces: [eth0]
";

/// One that refuses the same step as often as it is asked for.
struct Refusing {
    kernel: FakeKernel,
    refused: Option<headgate_datapath::plan::StepKind>,
}

impl Kernel for Refusing {
    fn observe(&mut self) -> Result<Observed, KernelError> {
        self.kernel.observe()
    }

    fn apply(
        &mut self,
        step: &Step,
        blocks: &BTreeMap<Digest, headgate_datapath::state::Block>,
    ) -> Result<Applied, KernelError> {
        self.kernel.fail_next = self.refused;
        self.kernel.apply(step, blocks)
    }
}

#[test]
fn a_policy_goes_live_where_a_service_cannot() {
    use headgate_datapath::plan::StepKind;

    let folder = tempfile::tempdir().expect("a folder");
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies).expect("made");
    std::fs::write(policies.join("services.yaml"), SERVICES).expect("written");
    let store = Store::open(&folder.path().join("state")).expect("a store");
    let object = Digest::of(b"object");
    let kernel = Refusing {
        kernel: FakeKernel::new(object),
        refused: Some(StepKind::AttachEgress),
    };
    let mut node = Node::new(kernel, store, Memory::default(), object);
    let turn = |node: &mut Node<Refusing>| turn_on(node, &policies, &facts(), &Pods::new());
    let refused = |report: &Report| -> Vec<(String, Severity)> {
        let findings = report.findings.iter();
        let refused = findings.filter(|f| f.reason == FindingReason::NotEnforced);
        refused
            .map(|finding| {
                let said = "could not attach port 0 to the egress of eth0";
                assert!(finding.message.starts_with(said), "{finding}");
                let resource = finding.resource.as_ref().expect("a service");
                (resource.to_string(), finding.severity)
            })
            .collect()
    };
    let web = || "LoadBalancerService/shop/web".to_owned();
    turn(&mut node);
    std::fs::write(policies.join("closed.yaml"), POLICY).expect("written");
    let report = turn(&mut node);
    // The policy is live, and the service alone that needs the program is said not to work.
    let statuses: Vec<_> = report.ports.values().map(|port| &port.status).collect();
    assert_eq!(statuses, [&PortStatus::Enforced]);
    assert_eq!(
        report.live_enforcement,
        Some(node.kernel.kernel.state.enforcement())
    );
    assert_eq!(report.tables[0].policies, ["closed"]);
    assert_eq!(refused(&report), [(web(), Severity::Stalled)]);
    assert_eq!(report.failures.len(), 1, "{:?}", report.failures);
    node.kernel.refused = None;
    let report = turn(&mut node);
    assert_eq!(refused(&report), []);
    assert_eq!(report.failures, Vec::<String>::new());
    // An agent with another object cannot replace the program, and the former goes on.
    node.kernel.refused = Some(StepKind::AttachEgress);
    node.object = Digest::of(b"next");
    node.kernel.kernel.object = Some(node.object);
    let report = turn(&mut node);
    assert_eq!(refused(&report), [(web(), Severity::Pending)]);
}

#[test]
fn pods_get_packets_directly_where_a_peer_asks_for_it() {
    use headgate_compile::node::{Access, Underlay};
    use headgate_datapath::{
        state::Ifindex,
        tunnel::{LocalPod, MacAddress},
    };

    let folder = tempfile::tempdir().expect("a folder");
    let peers = folder.path().join("peers");
    std::fs::create_dir(&peers).expect("made");
    let store = Store::open(&folder.path().join("state")).expect("a store");
    let object = Digest::of(b"object");
    let mut node = Node::new(FakeKernel::new(object), store, Memory::default(), object);
    let local = std::net::IpAddr::from([192, 0, 2, 1]);
    let way = Underlay {
        ifindex: Ifindex(2),
        access: Access::OnLink,
        local: Some(local),
        mtu: 1_500,
    };
    let facts = NodeFacts {
        underlays: [([192, 0, 2, 2].into(), way)].into(),
        addresses: [local].into(),
        ..facts()
    };
    let pod = LocalPod {
        ifindex: Ifindex(7),
        mac: MacAddress([2; 6]),
    };
    let pods: Pods = [([10, 244, 1, 2].into(), pod)].into();
    for (asked, given) in [
        ("", false),
        (", localDelivery: Direct", true),
        (", localDelivery: Stack", false),
    ] {
        let peer = PEER.replace("vni: 7", &format!("vni: 7{asked}"));
        std::fs::write(peers.join("peer.yaml"), peer).expect("written");
        turn_on(&mut node, &peers, &facts, &pods);
        let expected = if given { pods.clone() } else { Pods::new() };
        assert_eq!(node.kernel.state.tunnel.pods, expected, "{asked:?}");
    }
}

#[test]
fn the_tunnel_is_said_to_lack_what_it_lacks() {
    use headgate_compile::node::Underlay;
    use headgate_datapath::plan::StepKind;

    let folder = tempfile::tempdir().expect("a folder");
    let peers = folder.path().join("peers");
    std::fs::create_dir(&peers).expect("made");
    std::fs::write(peers.join("peer.yaml"), PEER).expect("written");
    let local = std::net::IpAddr::from([192, 0, 2, 1]);
    let way = Underlay {
        ifindex: headgate_datapath::state::Ifindex(2),
        access: headgate_compile::node::Access::OnLink,
        local: Some(local),
        mtu: 1_500,
    };
    let facts = NodeFacts {
        underlays: [([192, 0, 2, 2].into(), way)].into(),
        addresses: [local].into(),
        ..facts()
    };
    let said = |fails: StepKind| {
        let state = tempfile::tempdir().expect("a folder");
        let store = Store::open(&state.path().join("state")).expect("a store");
        let object = Digest::of(b"object");
        let mut node = Node::new(FakeKernel::new(object), store, Memory::default(), object);
        node.kernel.fail_next = Some(fails);
        let report = turn_on(&mut node, &peers, &facts, &Pods::new());
        match report.tunnel.expect("a tunnel is wanted").status {
            PortStatus::Enforced => String::new(),
            PortStatus::Outdated(why) | PortStatus::NotEnforced(why) => why,
        }
    };
    let own = said(StepKind::RaiseTunnel);
    assert!(own.starts_with("could not set headgate_vxlan up"), "{own}");
    let earlier = said(StepKind::Prepare);
    assert!(
        earlier.starts_with("not reached: could not make"),
        "{earlier}"
    );
    assert_eq!(said(StepKind::Flip), "");
}
