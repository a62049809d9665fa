//! Policies in the running kernel and the same tables on the host.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    process::Command,
};

use headgate_compile::{
    compile,
    finding::{Finding, FindingReason},
    memory::{Memory, Seconds},
    node::{Interface, InterfaceKind, NextHop, NodeFacts},
    snapshot::{Content, ResourceName, Snapshot, Submitted},
};
use headgate_crds::{Kind, check};
use headgate_datapath::{
    plan::Plan,
    state::{Block, DatapathState, Digest, Ifindex, PortIndex},
};
use headgate_kernel_tests::{
    network::{quiet, veth},
    node::{Node, port},
};
use headgate_layout::{
    flows::{self, Flow, Shared},
    services::RING_CAPACITY,
    settling::{PLACEMENTS, Placement},
    verdict::{Action, Count, Reason},
};
use headgate_packet::{
    balance::Subject,
    failsafe::Claim,
    flows::HostFlows,
    forward::{Departure, Next, Passing, Refusal, depart, open},
    frame::HostFrame,
    icmp,
    judge::{Cause, Environment, Verdict, judge},
    parse::Addresses,
    report::report,
    settling::{HostPlacements, placed},
    tables::HostTables,
};
use serde_json::Value;
use zerocopy::FromZeros as _;

/// An interface of this node that enforces policies.
pub(crate) struct Compiled {
    /// The instance, in the kernel.
    pub(crate) node: Node,
    /// Counters by rule.
    pub(crate) rules: BTreeMap<String, u32>,
    block: Vec<u64>,
    ring_blocks: Vec<u64>,
    flows: Option<Flows>,
    placements: Vec<Placement>,
    memory: Memory,
    interface: Interface,
}

/// The interface that a test run pretends to have got its frame from: the loopback.
pub(crate) const ARRIVED: Ifindex = Ifindex(1);

impl Compiled {
    /// The port that all is enforced on.
    pub(crate) fn port() -> PortIndex {
        port(0)
    }

    /// Makes one end of a veth pair enforce these objects, which must all be good.
    pub(crate) fn new(objects: &[Value]) -> Self {
        Self::with_next_hops(objects, BTreeMap::new())
    }

    /// Bytes that the kernel has set aside for each of the node's maps, by `bpftool`.
    pub(crate) fn memory(&self) -> BTreeMap<PathBuf, u64> {
        let pins = std::fs::read_dir(self.node.layout_pins()).expect("the folder of pins");
        let paths = pins.map(|pin| pin.expect("a pin").path());
        let sizes = paths.filter_map(|path| {
            let mut bpftool = Command::new("bpftool");
            let output = bpftool.args(["-j", "map", "show", "pinned"]).arg(&path);
            let output = output.output().expect("bpftool can be run");
            let shown: Value = serde_json::from_slice(&output.stdout).ok()?;
            Some((path, shown["bytes_memlock"].as_u64()?))
        });
        let sizes: BTreeMap<PathBuf, u64> = sizes.collect();
        assert!(!sizes.is_empty());
        sizes
    }

    /// The same where these are the ways to backends.
    pub(crate) fn with_next_hops(objects: &[Value], next_hops: BTreeMap<IpAddr, NextHop>) -> Self {
        let mut node = Node::new();
        quiet();
        let interface = Interface {
            name: "v0".to_owned(),
            ifindex: veth("v0", "v1"),
            kind: InterfaceKind::Other,
            mtu: 1_500,
            master: None,
            lower: None,
            has_default_route: true,
        };
        let memory = Memory::default();
        let wanted = Wanted::of(objects, next_hops, interface.clone(), &memory);
        node.converge(&wanted.state);
        Self {
            block: wanted.block(),
            ring_blocks: wanted.ring_blocks(),
            flows: wanted.state.flows.then(Flows::new),
            placements: (0..PLACEMENTS).map(|_| Placement::new_zeroed()).collect(),
            rules: wanted.rules,
            memory: wanted.memory,
            interface,
            node,
        }
    }

    /// Enforces these objects instead, by this plan.
    pub(crate) fn change(
        &mut self,
        objects: &[Value],
        next_hops: BTreeMap<IpAddr, NextHop>,
    ) -> Plan {
        let wanted = Wanted::of(objects, next_hops, self.interface.clone(), &self.memory);
        let plan = self.node.converge(&wanted.state);
        self.block = wanted.block();
        self.ring_blocks = wanted.ring_blocks();
        self.rules = wanted.rules;
        self.memory = wanted.memory;
        plan
    }

    /// What the host makes of `frame`.
    pub(crate) fn on_host(&self, frame: &[u8]) -> Verdict {
        judge(frame, &self.host())
    }

    /// What the host makes of `frame`, and which interface it leaves by.
    pub(crate) fn rewritten_on_host(&self, frame: &mut [u8]) -> Result<Option<u32>, Reason> {
        let host = self.host();
        let verdict = judge(frame, &host);
        match verdict.cause {
            Cause::Reason(reason) if verdict.action == Action::Drop => return Err(reason),
            _ => {}
        }
        let departure = host.depart(frame, &verdict);
        let departure = departure.map_err(|refusal| refusal.reason)?;
        Ok(departure.map(|departure| departure.way.ifindex))
    }

    /// What the host tells the sender of `frame`, which must not be sent on.
    pub(crate) fn told_by_host(&self, frame: &[u8]) -> Vec<u8> {
        const FRONT: usize = 64;
        let host = self.host();
        let mut memory = vec![0; FRONT];
        memory.extend(frame);
        let verdict = judge(frame, &host);
        let refusal = host.depart(&mut memory[FRONT..], &verdict);
        let refusal = refusal.expect_err("it cannot be sent on");
        let mut frame = HostFrame::new(&mut memory, FRONT);
        let length = verdict.length;
        let told = report(&mut frame, &host.tables, refusal, length, ARRIVED.0);
        assert_eq!(told.expect("something is told").ifindex, ARRIVED.0);
        frame.bytes().to_vec()
    }

    fn host(&self) -> Host<'_> {
        Host {
            tables: HostTables::with_ring_blocks(&self.block, &self.ring_blocks),
            flows: &self.flows,
            placements: &self.placements,
        }
    }

    /// What the kernel returns for `frame`.
    pub(crate) fn in_kernel(&self, frame: &[u8]) -> u32 {
        self.node.verdict(Self::port(), frame)
    }

    /// What the kernel has counted since the start, by cause; nothing where nothing was.
    pub(crate) fn counted(&self) -> BTreeMap<String, Count> {
        let indices: BTreeSet<u32> = self.rules.values().copied().collect();
        let kernel = &self.node.kernel;
        let rules = kernel.rule_counters(&indices).expect("read");
        let reasons = kernel
            .reason_counters(&[Self::port()].into())
            .expect("read");
        let rules = rules.into_iter().map(|(c, count)| (Cause::Rule(c), count));
        let reasons = reasons
            .into_iter()
            .map(|((_, reason), count)| (Cause::Reason(reason), count));
        rules
            .chain(reasons)
            .filter(|(_, count)| count.packets > 0)
            .map(|(cause, count)| (self.name(cause), count))
            .collect()
    }

    /// A rule's or reason's name.
    pub(crate) fn name(&self, cause: Cause) -> String {
        match cause {
            Cause::Reason(reason) => Reason::name(reason).to_owned(),
            Cause::Rule(counter) => {
                let mut rules = self.rules.iter();
                let rule = rules.find(|(_, c)| **c == counter);
                rule.map_or_else(|| format!("counter {counter}"), |(name, _)| name.clone())
            }
        }
    }
}

/// What is to be enforced.
struct Wanted {
    state: DatapathState,
    rules: BTreeMap<String, u32>,
    memory: Memory,
}

impl Wanted {
    fn of(
        objects: &[Value],
        next_hops: BTreeMap<IpAddr, NextHop>,
        interface: Interface,
        memory: &Memory,
    ) -> Self {
        let facts = NodeFacts {
            name: "node".to_owned(),
            labels: BTreeMap::new(),
            interfaces: vec![interface],
            next_hops,
            ..NodeFacts::default()
        };
        let snapshot = Snapshot {
            submitted: objects.iter().map(submitted).collect(),
            unreadable: Vec::new(),
            endpoints: None,
        };
        let compilation = compile(&snapshot, &facts, memory, Seconds(0));
        // Where backends answer is made up: see `ARRIVED`. Of Services there are no endpoints.
        let unexpected = |finding: &&Finding| {
            !matches!(
                finding.reason,
                FindingReason::RepliesUnseen | FindingReason::UnresolvedReferences
            )
        };
        let unexpected: Vec<_> = compilation.findings.iter().filter(unexpected).collect();
        assert!(unexpected.is_empty(), "{unexpected:?}");
        let mut state = compilation.state.expect("a wanted state");
        // New maps count from zero.
        state.fresh_counters.clear();
        let rules = compilation.policies.iter().flat_map(|policy| &policy.rules);
        let rules = rules.map(|rule| (rule.name.clone(), rule.counter.expect("a counter")));
        let ports = compilation.services.iter().flat_map(|s| &s.frontends);
        let ports = ports.map(|port| (port.name.clone(), port.counter));
        let ranges = compilation.services.iter().filter_map(|service| {
            let counter = service.source_ranges.as_ref()?.counter;
            Some((format!("{}/sourceRanges", service.name), counter))
        });
        Self {
            rules: rules.chain(ports).chain(ranges).collect(),
            memory: compilation.memory,
            state,
        }
    }

    fn tables(&self) -> &Block {
        &self.state.blocks[&self.state.ports[&Compiled::port()].tables]
    }

    fn block(&self) -> Vec<u64> {
        words(self.tables())
    }

    /// As [`HostTables::with_ring_blocks`] wants them.
    fn ring_blocks(&self) -> Vec<u64> {
        let each = self.tables().ring_blocks().iter().map(|block| {
            let mut words = words(block);
            words.resize(RING_CAPACITY as usize / size_of::<u64>(), 0);
            words
        });
        each.flatten().collect()
    }
}

/// What an XDP program returns for this action.
pub(crate) fn returned(action: Action) -> u32 {
    match action {
        Action::Allow => headgate_kernel_tests::frames::XDP_PASS,
        Action::Drop => headgate_kernel_tests::frames::XDP_DROP,
    }
}

/// The flows that the host knows.
struct Flows {
    flows: Vec<Flow>,
    index: Vec<Shared<u64>>,
}

impl Flows {
    fn new() -> Self {
        let words = flows::ROWS * flows::ROW_WORDS;
        Self {
            flows: (0..flows::FLOWS).map(|_| Flow::new_zeroed()).collect(),
            index: (0..words).map(|_| Shared::new_zeroed()).collect(),
        }
    }
}

struct Host<'a> {
    tables: HostTables<'a>,
    flows: &'a Option<Flows>,
    placements: &'a [Placement],
}

impl Host<'_> {
    fn depart(&self, frame: &mut [u8], verdict: &Verdict) -> Result<Option<Departure>, Refusal> {
        let flows = || self.flows();
        let passing = Passing {
            backend: verdict.backend,
            flow: verdict.flow,
            length: verdict.length,
            ifindex: ARRIVED.0,
        };
        let placements = || {
            Some(HostPlacements {
                placements: self.placements,
                now: 1,
            })
        };
        match Subject::from_word(verdict.backend) {
            Some(subject) => {
                let tables = &self.tables;
                let departure = icmp::pass_on(frame, subject, &passing, tables, flows, placements);
                departure.map_err(Refusal::from)
            }
            None => {
                let next = match depart(frame, &passing, &self.tables, flows)? {
                    Next::Settles => {
                        let backend = placed(frame, &self.tables, passing.backend, placements);
                        let passing = Passing { backend, ..passing };
                        depart(frame, &passing, &self.tables, flows)?
                    }
                    Next::Opens => {
                        let flow =
                            open(frame, passing.backend, passing.ifindex, &self.tables, flows)?;
                        let passing = Passing { flow, ..passing };
                        depart(frame, &passing, &self.tables, flows)?
                    }
                    next => next,
                };
                Ok(match next {
                    Next::Leaves(departure) => Some(departure),
                    _ => None,
                })
            }
        }
    }
}

impl<'a> Environment for Host<'a> {
    const BALANCES: bool = true;

    type Tables = HostTables<'a>;
    type Flows = HostFlows<'a>;

    fn tables(&self) -> Option<HostTables<'a>> {
        Some(self.tables)
    }

    fn flows(&self) -> Option<HostFlows<'a>> {
        self.flows.as_ref().map(|known| HostFlows {
            flows: &known.flows,
            index: &known.index,
            now: 1,
        })
    }

    fn is_failsafe_peer(&self, _: &Addresses, _: Claim) -> bool {
        false
    }
}

fn submitted(object: &Value) -> Submitted {
    let kind = Kind::from_name(object["kind"].as_str().expect("a kind")).expect("a kind");
    let name = object["metadata"]["name"].as_str().expect("a name");
    let namespace = object["metadata"]["namespace"].as_str();
    let name = ResourceName::new(kind, kind.full_name(namespace, name));
    let checked = check(object).unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
    Submitted {
        uid: name.to_string(),
        written: Digest::of(object.to_string().as_bytes()),
        name,
        generation: None,
        list: "objects".to_owned(),
        line: Some(1),
        content: Ok(Content::from(checked.resource)),
        warnings: Vec::new(),
    }
}

fn words(block: &Block) -> Vec<u64> {
    let words = block.bytes().chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_ne_bytes(word)
    });
    words.collect()
}
