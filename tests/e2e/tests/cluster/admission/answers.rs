//! What the webhook answers.

use std::{collections::BTreeMap, sync::Arc};

use headgate_compile::snapshot::Content;
use headgate_crds::{Kind, check};
use headgate_e2e_tests::wait::wait_for;
use headgate_operator::fleet::{Fleet, Node, Resource};
use headgate_source::{Document, Origin};
use serde_json::{Value, json};

use super::webhook::{Guarded, SOON, guarded, labels, policy_without_match};
use crate::objects::{group, peer, policy, pool, rule, service};

/// The words of the check for the only problem of an object.
fn words(object: &Value) -> String {
    let problems = check(object).expect_err("the check refuses it");
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(!problems[0].path.is_empty() && !problems[0].remedy.is_empty());
    problems[0].to_string()
}

fn with_name(mut object: Value, name: &str) -> Value {
    object["metadata"]["name"] = name.into();
    object
}

pub(super) fn refusals() {
    guarded(|guarded| {
        let bad = policy_without_match();
        for arguments in [
            &["create", "-f", "-"][..],
            &["create", "--dry-run=server", "-f", "-"],
            &["apply", "-f", "-"],
            &["apply", "--server-side", "--dry-run=server", "-f", "-"],
        ] {
            let said = guarded.kubectl().said_of(arguments, &bad.to_string());
            assert_eq!(said.code, 1, "{said:?}");
            assert!(said.errors.contains(&words(&bad)), "{said:?}");
        }
        let many = with_name(
            policy(json!({"rules": [
                bad["spec"]["rules"][0],
                {"name": "s", "action": "Drop", "from": {"cidrs": ["10.0.0.0/8"]},
                    "protocols": [{"icmpv6": {}}]},
            ]})),
            "many",
        );
        let problems = check(&many).expect_err("two are wrong");
        assert!(problems.len() > 1);
        let said = guarded
            .kubectl()
            .said_of(&["create", "-f", "-"], &many.to_string());
        for problem in problems {
            assert!(
                said.errors.contains(&problem.to_string()),
                "{problem}: {said:?}"
            );
        }
        let generated = json!({
            "apiVersion": "headgate.dev/v1alpha1", "kind": "XdpPolicy",
            "metadata": {"generateName": "generated-"}, "spec": {},
        });
        let created = guarded
            .kubectl()
            .said_of(&["create", "-f", "-"], &generated.to_string());
        assert_eq!(created.code, 0, "{created:?}");
    });
}

/// The definition of XdpPolicy with a schema that lets anything through.
fn without_schema(guarded: &Guarded) {
    let schema = json!([{
        "op": "replace",
        "path": "/spec/versions/0/schema/openAPIV3Schema",
        "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }]);
    let patch = [
        "patch",
        "crd",
        "xdppolicies.headgate.dev",
        "--type=json",
        "-p",
        &schema.to_string(),
    ];
    guarded.kubectl().run(&patch);
    wait_for(SOON, "the schema is gone", || {
        let odd = with_name(policy(json!({"priority": "high"})), "odd");
        let dry = ["create", "--validate=false", "--dry-run=server", "-f", "-"];
        let said = guarded.kubectl().said_of(&dry, &odd.to_string());
        said.errors.contains(&words(&odd))
    });
}

pub(super) fn without_a_schema() {
    guarded(|guarded| {
        without_schema(guarded);
        let cases = [
            policy(json!({"priority": 1001})),
            policy(json!({"defaultAction": "drop"})),
            policy(json!({"rulez": []})),
            policy(json!({"interfaces": []})),
            rule(json!({"from": {"cidrs": ["10.0.0.0/33"]}})),
            rule(json!({"from": {}})),
            rule(json!({"protocols": [{"tcp": {"ports": [{"port": 9, "endPort": 8}]}}]})),
            rule(json!({"fragments": "Later", "protocols": [{"udp": {"ports": [{"port": 1}]}}]})),
        ];
        for case in cases {
            let case = with_name(case, "case");
            let create = ["create", "--validate=false", "-f", "-"];
            let said = guarded.kubectl().said_of(&create, &case.to_string());
            assert_eq!(said.code, 1, "{said:?}");
            assert!(
                said.errors.contains(&words(&case)),
                "{}: {said:?}",
                words(&case)
            );
        }
    });
}

/// What the operator would know of a cluster of one node with these labels, and of these objects.
fn fleet(node: &[(&str, &str)], objects: &[Value]) -> Fleet {
    let resources = objects.iter().map(|object| {
        let resource = check(object).expect("it is good").resource;
        let name = resource.kind().full_name(None, resource.name());
        let document: Resource = Document {
            origin: Origin {
                list: String::new(),
                line: None,
            },
            kind: resource.kind(),
            uid: name.clone(),
            name,
            generation: Some(1),
            written: [0; 32],
            content: Ok(Content::from(resource)),
            warnings: Vec::new(),
        };
        (document.uid.clone(), Arc::new(document))
    });
    Fleet {
        resources: resources.collect(),
        nodes: BTreeMap::from([(
            "one".to_owned(),
            Arc::new(Node::with_labels("1", labels(node))),
        )]),
        ..Fleet::default()
    }
}

pub(super) fn warnings() {
    guarded(|guarded| {
        let mut known = with_name(group(json!({"cidrs": ["10.0.0.0/8"]})), "known");
        known["metadata"]["labels"] = json!({"list": "ours"});
        let all = with_name(
            policy(json!({"priority": 1, "rules": [{"name": "all", "action": "Allow"}]})),
            "all",
        );
        let pool = with_name(pool(json!({"cidrs": ["203.0.113.0/24"]})), "pool");
        let first = with_name(service(json!({})), "first");
        let second = json!({"podCIDRs": ["10.244.2.0/24"], "endpoint": "192.0.2.9", "vni": 7});
        let second = with_name(peer(second), "second");
        guarded.fleet.send_replace(Arc::new(fleet(
            &[("role", "edge")],
            &[known, all, pool, first, second],
        )));
        let joined =
            |podcidr: &str| json!({"podCIDRs": [podcidr], "endpoint": "192.0.2.2", "vni": 7});
        let unreached = |mut spec: Value| {
            spec["nodeSelector"] = json!({"matchLabels": {"role": "core"}});
            spec
        };
        let none = json!({"matchLabels": {"role": "core"}});
        let elsewhere = json!({"addresses": ["198.51.100.1"]});
        let groups = |names: &[&str], list: &str| json!({"from": {"cidrGroups": {"names": names, "selector": {"matchLabels": {"list": list}}}}});
        let allow = json!({"name": "a", "action": "Allow", "from": {"cidrs": ["192.0.2.0/24"]}});
        let here = |mut spec: Value| {
            spec["interfaces"] = json!(["eth7"]);
            policy(spec)
        };
        let on = |mut object: Value| {
            object["spec"]["interfaces"] = json!(["eth7"]);
            object
        };
        let cases = [
            (
                here(json!({"nodeSelector": none})),
                "spec.nodeSelector: selects none of the 1 nodes",
            ),
            (
                on(rule(groups(&["known", "gone"], "ours"))),
                "spec.rules[0].from.cidrGroups.names[1]: there is no CidrGroup gone",
            ),
            (
                on(rule(groups(&["known"], "theirs"))),
                "spec.rules[0].from.cidrGroups.selector: selects no CidrGroup",
            ),
            (
                here(json!({"defaultAction": "Drop"})),
                "spec.defaultAction: allows nothing but the failsafe",
            ),
            (
                here(json!({"rules": [{"name": "b", "action": "Drop"}, allow]})),
                "spec.rules[1]: is hidden: rule b matches every packet",
            ),
            (
                here(
                    json!({"rules": [allow, {"name": "c", "action": "Drop", "from": allow["from"]}]}),
                ),
                "spec.rules[1]: is hidden: rule a has the same conditions",
            ),
            (
                on(rule(json!({"from": {"cidrs": ["10.0.0.1/8"]}}))),
                "spec.rules[0].from.cidrs[0]: ",
            ),
            (
                policy(json!({})),
                "spec.priority: has no effect: XdpPolicy all",
            ),
            (
                service(json!({"nodeSelector": none, "addresses": ["203.0.113.11"]})),
                "spec.nodeSelector: selects none of the 1 nodes, so nothing serves it",
            ),
            (
                service(elsewhere),
                "spec.addresses[0]: lies in no AddressPool that admits this namespace",
            ),
            (
                service(json!({})),
                "spec.addresses: LoadBalancerService default/first wants an address and port",
            ),
            (
                peer(unreached(joined("10.244.3.0/24"))),
                "spec.nodeSelector: selects none of the 1 nodes, so nobody reaches the peer",
            ),
            (
                peer(joined("10.244.2.0/24")),
                "spec.podCIDRs: TunnelPeer second wants 10.244.2.0/24 as well",
            ),
        ];
        for (object, warning) in cases {
            let object = with_name(object, "warned").to_string();
            let dry = ["apply", "--dry-run=server", "-f", "-"];
            wait_for(SOON, warning, || {
                let said = guarded.kubectl().said_of(&dry, &object);
                assert_eq!(said.code, 0, "{said:?}");
                said.errors.contains(&format!("Warning: {warning}"))
            });
        }
        let quiet = with_name(on(rule(groups(&["known"], "ours"))), "quiet");
        let said = guarded
            .kubectl()
            .said_of(&["apply", "-f", "-"], &quiet.to_string());
        assert_eq!((said.code, said.errors.as_str()), (0, ""), "{said:?}");
        assert_eq!(Kind::ALL.len(), 5, "a new kind has warnings of its own");
    });
}

pub(super) fn unchanged() {
    guarded(|guarded| {
        let kubectl = guarded.kubectl();
        guarded.unregister();
        kubectl.apply(&policy_without_match().to_string());
        guarded.register();
        kubectl.run(&["label", "xdppolicy", "bad", "team=edge"]);
        kubectl.run(&["annotate", "xdppolicy", "bad", "note=seen"]);
        let status = json!({"status": {"observedGeneration": 1}}).to_string();
        kubectl.run(&[
            "patch",
            "xdppolicy",
            "bad",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ]);
        let worse = json!({"spec": {"priority": 7}}).to_string();
        let changed = kubectl.said(&["patch", "xdppolicy", "bad", "--type=merge", "-p", &worse]);
        assert_eq!(changed.code, 1, "{changed:?}");
        assert!(
            changed.errors.contains(&words(&policy_without_match())),
            "{changed:?}"
        );

        let finalizers = json!({"metadata": {"finalizers": ["example.org/held"]}}).to_string();
        kubectl.run(&[
            "patch",
            "xdppolicy",
            "bad",
            "--type=merge",
            "-p",
            &finalizers,
        ]);
        kubectl.run(&["delete", "xdppolicy", "bad", "--wait=false"]);
        let released = json!({"metadata": {"finalizers": null}}).to_string();
        kubectl.run(&["patch", "xdppolicy", "bad", "--type=merge", "-p", &released]);
        wait_for(SOON, "it is gone", || {
            kubectl
                .run(&["get", "xdppolicies", "-o", "name"])
                .is_empty()
        });
    });
}
