//! The rules as `check` answers them, held against kube's CEL evaluator.

mod common;

use common::policy;
use headgate_crds::{XdpPolicy, check};
use kube::{
    CustomResourceExt,
    core::cel::{CompiledSchema, Validator, compile_schema},
};
use proptest::{prelude::*, sample::subsequence};
use serde_json::{Value, json};

fn schema() -> CompiledSchema {
    let crd = serde_json::to_value(XdpPolicy::crd()).expect("a definition is plain JSON");
    compile_schema(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
}

/// A field that is there half of the time.
fn maybe(
    name: &'static str,
    value: impl Strategy<Value = Value> + 'static,
) -> BoxedStrategy<Option<(&'static str, Value)>> {
    prop_oneof![Just(None), value.prop_map(move |v| Some((name, v)))].boxed()
}

fn object(
    fields: Vec<BoxedStrategy<Option<(&'static str, Value)>>>,
) -> impl Strategy<Value = Value> {
    fields.prop_map(|fields| {
        fields
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    })
}

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::sample::select(words).prop_map(Value::from)
}

fn list(
    item: impl Strategy<Value = Value>,
    size: std::ops::Range<usize>,
) -> impl Strategy<Value = Value> {
    prop::collection::vec(item, size).prop_map(Value::from)
}

/// Numbers without leading zeros: those kube's parser lets through in IPv4, as the API
/// server and `check` do not.
fn cidr() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => "(10|192)\\.[1-9][0-9]?\\.0\\.0/(8|16|24)",
        2 => "([1-9][0-9]{0,2}\\.){2,4}[1-9][0-9]{0,2}/[1-9][0-9]{0,2}",
        2 => "[0-9a-f:]{2,20}/[1-9][0-9]{0,2}",
        1 => "::ffff:1[0-9]\\.1\\.1\\.1/1[0-9]{2}",
        1 => "[0-9a-f:.%/]{0,30}",
    ]
    .prop_filter("leading zeros", |text| {
        let numbers = || text.split(['.', '/', ':', '%']);
        !text.contains(['.', '/']) || !numbers().any(|n| n.len() > 1 && n.starts_with('0'))
    })
    .prop_map(Value::from)
}

fn ports() -> impl Strategy<Value = Value> {
    let port = (0..65536, 0..65536).prop_map(|(port, end)| {
        if end % 4 == 0 {
            json!({"port": port, "endPort": end})
        } else {
            json!({"port": port})
        }
    });
    list(port, 1..3)
}

fn flags() -> impl Strategy<Value = Value> {
    let names = || subsequence(vec!["Fin", "Syn", "Ack", "Cwr"], 1..3).prop_map(|f| json!(f));
    object(vec![maybe("set", names()), maybe("unset", names())])
}

fn protocol() -> impl Strategy<Value = Value> {
    let tcp = object(vec![
        maybe("ports", ports()),
        maybe("sourcePorts", ports()),
        maybe("flags", flags()),
    ]);
    prop_oneof![
        tcp.prop_map(|tcp| json!({"tcp": tcp})),
        object(vec![maybe("ports", ports())]).prop_map(|udp| json!({"udp": udp})),
        object(vec![maybe("sourcePorts", ports())]).prop_map(|sctp| json!({"sctp": sctp})),
        object(vec![maybe("types", Just(json!([8])))]).prop_map(|icmp| json!({"icmp": icmp})),
        (0..256).prop_map(|number| json!({"number": number})),
    ]
}

fn selector() -> impl Strategy<Value = Value> {
    let requirement = (
        one_of(&["In", "NotIn", "Exists", "DoesNotExist"]),
        any::<bool>(),
    )
        .prop_map(|(operator, with_values)| {
            if with_values {
                json!({"key": "k", "operator": operator, "values": ["v"]})
            } else {
                json!({"key": "k", "operator": operator})
            }
        });
    object(vec![maybe("matchExpressions", list(requirement, 1..2))])
}

fn rule() -> impl Strategy<Value = Value> {
    let groups = object(vec![
        maybe("names", Just(json!(["g"]))),
        maybe("selector", selector()),
    ]);
    let from = object(vec![
        maybe("cidrs", list(cidr(), 1..3)),
        maybe("except", Just(json!(["10.99.99.0/30"]))),
        maybe("cidrGroups", groups),
    ]);
    let fields = object(vec![
        maybe("from", from),
        maybe("protocols", list(protocol(), 1..3)),
        maybe("fragments", one_of(&["First", "Later"])),
    ]);
    ("[a-e]", fields).prop_map(|(name, mut rule)| {
        rule["name"] = name.into();
        rule["action"] = "Drop".into();
        rule
    })
}

fn spec() -> impl Strategy<Value = Value> {
    object(vec![
        maybe("nodeSelector", selector()),
        maybe("interfaces", list(one_of(&["eth0", "eth1", "wg*"]), 1..3)),
        maybe("rules", list(rule(), 1..3)),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn check_refuses_where_kube_does(spec in spec()) {
        thread_local!(static KUBE: (CompiledSchema, Validator) = (schema(), Validator::new()));
        let object = policy(spec);
        let refused_by_kube: Vec<String> = KUBE.with(|(schema, validator)| {
            match validator.validate_compiled(schema, &object, None) {
                Ok(()) => Vec::new(),
                Err(errors) => errors.into_iter().map(|error| error.field_path).collect(),
            }
        });
        let refused: Vec<String> = match check(&object) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.into_iter().map(|problem| problem.path).collect(),
        };
        // Ours may point deeper: to the item that is there twice, not to its list.
        for path in &refused_by_kube {
            prop_assert!(refused.iter().any(|p| p.starts_with(path)), "{path} not in {refused:?}");
        }
        for path in &refused {
            prop_assert!(
                refused_by_kube.iter().any(|p| path.starts_with(p)),
                "{path} not in {refused_by_kube:?}"
            );
        }
    }
}
