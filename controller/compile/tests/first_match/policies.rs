//! Random policies and groups, out of few enough values that rules overlap.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use headgate_crds::{
    Action, CidrGroupReference, Endpoint, Fragments, IcmpMatch, LabelSelector,
    LabelSelectorOperator, LabelSelectorRequirement, PolicyRule, PortRange, Protocol, SctpMatch,
    TcpFlag, TcpFlags, TcpMatch, UdpMatch, XdpPolicySpec,
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{select, subsequence},
};

use crate::model::{Group, Policy, World};

const CIDRS: [&str; 26] = [
    "0.0.0.0/0",
    "0.0.0.0/32",
    "9.255.255.255/32",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "10.1.2.128/25",
    "10.1.3.0/24",
    "11.0.0.0/8",
    "128.0.0.0/1",
    "192.0.2.77/24",
    "255.255.255.255/32",
    "::/0",
    "::/128",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1::/64",
    "2001:db8:1:1::/64",
    "2001:db8:1::1/128",
    "2001:db8:1:0:8000::/65",
    "2001:db8:1:0:0:ffff::/96",
    "2001:db9::7/32",
    "8000::/1",
    "fe80::/10",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
];
/// Names whose order as text is not that of the numbers in them.
const NAMES: [&str; 6] = ["a", "a-1", "a-10", "a-2", "b", "z"];
const PRIORITIES: [u16; 4] = [0, 500, 500, 1000];
const PORTS: [u16; 14] = [
    0, 1, 22, 53, 80, 255, 256, 257, 443, 1023, 1024, 32768, 65534, 65535,
];
/// Numbers of protocols that have a name in the resources, and of some that have none.
pub const PROTOCOLS: [u8; 9] = [1, 6, 17, 58, 132, 47, 50, 59, 255];
pub const KINDS: [u8; 6] = [0, 8, 128, 135, 254, 255];
const FLAGS: [TcpFlag; 8] = [
    TcpFlag::Fin,
    TcpFlag::Syn,
    TcpFlag::Rst,
    TcpFlag::Psh,
    TcpFlag::Ack,
    TcpFlag::Urg,
    TcpFlag::Ece,
    TcpFlag::Cwr,
];

/// Policies, the groups that they refer to, and a node.
pub fn world() -> impl Strategy<Value = World> {
    vec((labels(), vec(cidr(), 0..8)), 0..4).prop_flat_map(|groups| {
        let groups: Vec<Group> = groups
            .into_iter()
            .enumerate()
            .map(|(index, (labels, cidrs))| Group {
                name: format!("group-{index}"),
                labels,
                cidrs,
            })
            .collect();
        let names: Vec<String> = groups.iter().map(|group| group.name.clone()).collect();
        let policies = subsequence(NAMES.to_vec(), 0..=4).prop_shuffle();
        let policies = policies.prop_flat_map(move |chosen| {
            let specs = vec(spec(&names), chosen.len());
            specs.prop_map(move |specs| named(&chosen, specs))
        });
        (policies, Just(groups), labels()).prop_map(|(policies, groups, node_labels)| World {
            policies,
            groups,
            services: Vec::new(),
            node_labels,
        })
    })
}

fn named(names: &[&str], specs: Vec<XdpPolicySpec>) -> Vec<Policy> {
    let named = names.iter().zip(specs);
    named
        .map(|(name, spec)| Policy {
            name: (*name).to_owned(),
            spec,
        })
        .collect()
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let pairs = subsequence(
        vec![("feed", "bad"), ("feed", "good"), ("zone", "a")],
        0..=3,
    );
    pairs.prop_map(|pairs| {
        let owned = pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned()));
        owned.collect()
    })
}

fn spec(groups: &[String]) -> impl Strategy<Value = XdpPolicySpec> + use<> {
    let interfaces = prop_oneof![
        subsequence(vec!["eth0", "eth1", "wan0"], 1..=3),
        subsequence(vec!["eth*", "wan0", "absent0"], 1..=3),
    ];
    (
        option::weighted(0.2, selector()),
        interfaces,
        select(&PRIORITIES[..]),
        action(),
        vec(rule(groups), 0..7),
    )
        .prop_map(
            |(node_selector, interfaces, priority, default_action, rules)| XdpPolicySpec {
                node_selector,
                interfaces: interfaces.into_iter().map(str::to_owned).collect(),
                attach_mode: headgate_crds::AttachMode::Auto,
                priority,
                default_action,
                rules: with_names(rules),
            },
        )
}

fn with_names(mut rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    for (index, rule) in rules.iter_mut().enumerate() {
        rule.name = format!("rule-{index}");
    }
    rules
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    use LabelSelectorOperator::{DoesNotExist, Exists, In, NotIn};
    let requirement = (
        select(vec!["feed", "zone"]),
        select(vec![In, NotIn, Exists, DoesNotExist]),
        subsequence(vec!["bad", "good", "a"], 1..=2),
    )
        .prop_map(|(key, operator, values)| LabelSelectorRequirement {
            key: key.to_owned(),
            operator,
            values: match operator {
                In | NotIn => values.into_iter().map(str::to_owned).collect(),
                Exists | DoesNotExist => Vec::new(),
            },
        });
    (option::weighted(0.5, labels()), vec(requirement, 0..=2)).prop_map(
        |(match_labels, match_expressions)| LabelSelector {
            match_labels: match_labels.unwrap_or_default(),
            match_expressions,
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    select(vec![Action::Allow, Action::Drop])
}

fn rule(groups: &[String]) -> impl Strategy<Value = PolicyRule> + use<> {
    (
        action(),
        option::weighted(0.6, endpoint(groups)),
        option::weighted(0.4, endpoint(groups)),
        option::weighted(0.7, vec(protocol(), 1..4)),
        option::weighted(0.2, select(vec![Fragments::First, Fragments::Later])),
    )
        .prop_map(|(action, from, to, protocols, fragments)| PolicyRule {
            name: String::new(),
            action,
            from,
            to,
            protocols,
            fragments,
        })
}

fn endpoint(groups: &[String]) -> impl Strategy<Value = Endpoint> + use<> {
    let reference = (
        subsequence(groups.to_vec(), 0..=groups.len().min(2)),
        option::weighted(0.3, selector()),
    );
    let reference = reference.prop_map(|(names, selector)| CidrGroupReference { names, selector });
    (
        vec(cidr(), 0..5),
        prop_oneof![2 => Just(Vec::new()), 1 => vec(cidr(), 1..4)],
        option::weighted(0.3, reference),
    )
        .prop_map(|(cidrs, except, cidr_groups)| Endpoint {
            cidrs,
            except,
            cidr_groups,
        })
}

pub fn cidr() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(&CIDRS[..]).prop_map(str::to_owned),
        1 => (any::<u32>(), 0..=32u8)
            .prop_map(|(bits, length)| format!("{}/{length}", Ipv4Addr::from_bits(bits))),
        1 => (any::<u128>(), 0..=128u8)
            .prop_map(|(bits, length)| format!("{}/{length}", Ipv6Addr::from_bits(bits))),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    let tcp = (
        ports(),
        ports(),
        option::weighted(0.4, flags()),
        option::weighted(0.3, any::<bool>()),
    )
        .prop_map(|(ports, source_ports, flags, established)| {
            Protocol::Tcp(TcpMatch {
                ports,
                source_ports,
                flags,
                established,
            })
        });
    let udp = (ports(), ports()).prop_map(|(ports, source_ports)| {
        Protocol::Udp(UdpMatch {
            ports,
            source_ports,
        })
    });
    let sctp = (ports(), ports()).prop_map(|(ports, source_ports)| {
        Protocol::Sctp(SctpMatch {
            ports,
            source_ports,
        })
    });
    let number = prop_oneof![select(&PROTOCOLS[..]), any::<u8>()];
    prop_oneof![
        3 => tcp,
        2 => udp,
        1 => sctp,
        1 => types().prop_map(|types| Protocol::Icmp(IcmpMatch { types })),
        1 => types().prop_map(|types| Protocol::Icmpv6(IcmpMatch { types })),
        2 => number.prop_map(Protocol::Number),
    ]
}

fn ports() -> impl Strategy<Value = Option<Vec<PortRange>>> {
    let port = || prop_oneof![4 => select(&PORTS[..]), 1 => any::<u16>()];
    let range = (port(), option::of(port())).prop_map(|(a, b)| PortRange {
        port: a.min(b.unwrap_or(a)),
        end_port: b.map(|b| a.max(b)),
    });
    option::weighted(0.6, vec(range, 1..4))
}

fn types() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::weighted(0.7, vec(select(&KINDS[..]), 1..4))
}

fn flags() -> impl Strategy<Value = TcpFlags> {
    let some = || subsequence(FLAGS.to_vec(), 0..=2);
    (some(), some())
        .prop_map(|(set, unset)| TcpFlags { set, unset })
        .prop_filter("flags say something", |flags| {
            !(flags.set.is_empty() && flags.unset.is_empty())
        })
}
