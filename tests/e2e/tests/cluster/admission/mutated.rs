//! Resources grown from the examples, one change each, most of them bad.

use std::collections::BTreeMap;

use headgate_crds::check;
use headgate_e2e_tests::trials::soak;
use serde_json::{Deserializer, Value, json};

use super::webhook::guarded;
use crate::submit::{Named, create};

/// Deterministic: a failure can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let bound = u64::try_from(bound.max(1)).expect("it is small");
        usize::try_from(self.0 % bound).expect("it is below the bound")
    }
}

/// JSON pointers to everything below `value`.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), value))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(i, v)| (i.to_string(), v))
            .collect(),
        _ => Vec::new(),
    };
    for (key, value) in below {
        let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        places(value, &at, found);
        found.push(at);
    }
}

/// What a field gets instead.
fn odd(random: &mut Random) -> Value {
    let values = [
        json!(""),
        json!("x"),
        json!("0.0.0.0/0"),
        json!("::/0"),
        json!("10.0.0.0/33"),
        json!("010.0.0.0/8"),
        json!("Drop"),
        json!("drop"),
        json!("a".repeat(300)),
        json!("\u{0}\u{1F}"),
        json!("ü"),
        json!("a\nb: c"),
        json!(-1),
        json!(0),
        json!(65536),
        json!(4_294_967_296_u64),
        json!(1.5),
        json!(true),
        json!([]),
        json!({}),
        json!([[]]),
        json!([1, 1]),
        json!({"a": {}}),
        json!(["eth0", "eth0"]),
        json!([{"tcp": {}, "udp": {}}]),
        json!([{"icmpv6": {}}]),
    ];
    values[random.below(values.len())].clone()
}

fn mutate(object: &mut Value, random: &mut Random) {
    let mut found = Vec::new();
    places(&object["spec"], "/spec", &mut found);
    if found.is_empty() {
        return;
    }
    let place = &found[random.below(found.len())];
    let (parent, key) = place.rsplit_once('/').expect("a pointer has a slash");
    let parent = object.pointer_mut(parent).expect("it was just found");
    match (random.below(4), parent) {
        (0, Value::Object(fields)) => {
            fields.remove(key);
        }
        (1, Value::Object(fields)) => {
            let value = fields.remove(key).unwrap_or_default();
            fields.insert(format!("{key}s"), value);
        }
        (0 | 1, Value::Array(items)) => {
            let index: usize = key.parse().expect("a list's pointer ends in a number");
            let item = items[index].clone();
            items.push(item);
        }
        (_, Value::Object(fields)) => {
            fields.insert(key.to_owned(), odd(random));
        }
        (_, Value::Array(items)) => {
            let index: usize = key.parse().expect("a list's pointer ends in a number");
            items[index] = odd(random);
        }
        _ => {}
    }
}

/// Something that the schema lets through, and that is bad in most rules.
fn graft(object: &mut Value, random: &mut Random) {
    let contradiction = json!({"established": true, "flags": {"unset": ["Ack", "Rst"]}});
    let spec = &mut object["spec"];
    let Some(rules) = spec["rules"]
        .as_array_mut()
        .filter(|rules| !rules.is_empty())
    else {
        return;
    };
    let index = random.below(rules.len());
    let rule = &mut rules[index];
    match random.below(5) {
        0 => rule["from"] = json!({"cidrs": ["10.1.0.0/16"], "except": ["10.0.0.0/8"]}),
        1 => rule["protocols"] = json!([{"icmpv6": {}}]),
        2 => rule["to"] = json!({"cidrs": ["2001:db8::/32"]}),
        3 => rule["protocols"] = json!([{"tcp": contradiction}]),
        _ => spec["nodeSelector"] = json!({"matchLabels": {"a role": "edge"}}),
    }
}

/// So many objects, from one to three changes away from an example.
fn objects(examples: &[Value], count: usize) -> Vec<(String, Value)> {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut objects = Vec::new();
    for index in 0..count {
        let mut object = examples[random.below(examples.len())].clone();
        if random.below(4) == 0 {
            graft(&mut object, &mut random);
        } else {
            for _ in 0..=random.below(3) {
                mutate(&mut object, &mut random);
            }
        }
        let name = format!("m{index}");
        object["metadata"] = json!({"name": name});
        objects.push((name, object));
    }
    objects
}

pub(super) fn five_hundred() {
    guarded(|guarded| {
        let kubectl = guarded.kubectl();
        let render = [
            "create",
            "--dry-run=client",
            "-o",
            "json",
            "-f",
            "examples/policies",
        ];
        let rendered = kubectl.run(&render);
        let examples = Deserializer::from_str(&rendered).into_iter::<Value>();
        let examples = examples.map(|object| object.expect("kubectl prints JSON"));
        let examples: Vec<Value> = examples.collect();
        assert!(examples.len() > 4);
        let count = if soak() { 10_000 } else { 500 };
        let objects = objects(&examples, count);
        let named: Named<'_> = objects
            .iter()
            .map(|(name, object)| (name.as_str(), object.clone()))
            .collect();

        let with = create(kubectl, &named, &["--dry-run=server"]);
        guarded.unregister();
        let without = create(kubectl, &named, &["--dry-run=server"]);
        let only_the_webhook: BTreeMap<&String, &String> = with
            .refused
            .iter()
            .filter(|(name, _)| without.stored.contains_key(*name))
            .collect();
        println!(
            "{count} resources: {} stored, {} refused by the schema and CEL, {} by the webhook",
            with.stored.len(),
            without.refused.len(),
            only_the_webhook.len()
        );
        for (name, stored) in &with.stored {
            let checked = check(&as_its_author_knows_it(stored));
            assert!(
                checked.is_ok(),
                "{name} was stored: {stored:#}\n{checked:#?}"
            );
        }
        for (name, refusal) in &only_the_webhook {
            let problems = check(&as_its_author_knows_it(&without.stored[*name]));
            for problem in problems.expect_err("the webhook refused it") {
                assert!(
                    !problem.path.is_empty() && !problem.remedy.is_empty(),
                    "{problem:?}"
                );
                assert!(
                    refusal.contains(&problem.to_string()),
                    "{problem}: {refusal}"
                );
            }
        }
        for (name, refusal) in &without.refused {
            assert!(
                with.refused.contains_key(name),
                "{name} passes with the webhook"
            );
            let has_path = refusal.contains("spec") || refusal.contains("unknown field");
            assert!(has_path && !refusal.contains("panic"), "{name}: {refusal}");
        }
        assert!(with.stored.len() > count / 20 && only_the_webhook.len() > count / 20);
    });
}

/// What the API server would store, without what it adds.
fn as_its_author_knows_it(stored: &Value) -> Value {
    json!({
        "apiVersion": stored["apiVersion"],
        "kind": stored["kind"],
        "metadata": {"name": stored["metadata"]["name"]},
        "spec": stored["spec"],
    })
}
