//! Whatever JSON comes in, an answer goes out.

mod common;

use common::policy;
use headgate_crds::check;
use proptest::prelude::*;
use serde_json::{Value, json};

fn full_policy() -> Value {
    policy(json!({
        "nodeSelector": {"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "k", "operator": "In", "values": ["v"]},
        ]},
        "interfaces": ["eth0"],
        "attachMode": "Auto",
        "priority": 7,
        "defaultAction": "Drop",
        "rules": [{
            "name": "r",
            "action": "Allow",
            "from": {"cidrs": ["10.0.0.0/8"], "except": ["10.1.0.0/16"],
                     "cidrGroups": {"names": ["g"], "selector": {"matchLabels": {"x": "y"}}}},
            "to": {"cidrs": ["2001:db8::/32", "192.0.2.0/24"]},
            "protocols": [
                {"tcp": {"ports": [{"port": 1, "endPort": 2}], "sourcePorts": [{"port": 3}],
                         "flags": {"set": ["Syn"], "unset": ["Ack"]}, "established": true}},
                {"udp": {}}, {"sctp": {}}, {"icmp": {"types": [8]}}, {"icmpv6": {}}, {"number": 47},
            ],
            "fragments": "First",
        }],
    }))
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z0-9./:]{0,60}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner.clone()), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            prop::collection::vec(("tcp|spec|port|cidrs|from|names", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// The places of a value, as JSON pointers.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                // RFC 6901, section 3.
                let key = key.replace('~', "~0").replace('/', "~1");
                places(field, format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
    found.push(at);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_json_gets_an_answer(value in json_value()) {
        let _ = check(&value);
    }

    #[test]
    fn a_policy_with_places_overwritten_gets_an_answer(
        changes in prop::collection::vec((any::<prop::sample::Index>(), json_value()), 1..3)
    ) {
        let mut object = full_policy();
        for (place, value) in changes {
            let mut found = Vec::new();
            places(&object, String::new(), &mut found);
            let pointer = place.get(&found);
            *object.pointer_mut(pointer).expect("the place was just found") = value;
        }
        if let Err(problems) = check(&object) {
            prop_assert!(!problems.is_empty());
        }
    }
}

#[test]
fn the_policy_to_break_is_whole() {
    common::good(&full_policy());
}
