//! The CRDs as an API server serves them.

use std::time::Duration;

use headgate_crds::{API_VERSION, all};
use headgate_e2e_tests::{
    control_plane::ControlPlane,
    trials::on_cluster,
    wait::{wait_for, wait_for_some},
};
use libtest_mimic::Trial;
use serde_json::Value;

/// What is served follows what is stored within moments.
const SOON: Duration = Duration::from_secs(20);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_cluster("the_api_server_finds_no_fault_with_the_crds", no_fault),
        on_cluster("every_field_is_explained", explained),
        on_cluster("short_names_and_the_category_are_served", names),
    ]
}

fn no_fault() {
    let control_plane = ControlPlane::shared();
    for crd in all() {
        let name = crd.metadata.name.expect("a CRD has a name");
        let served = control_plane.kubectl().json(&["get", "crd", &name]);
        let mut conditions: Vec<String> = served["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|condition| format!("{}={}", condition["type"], condition["status"]))
            .collect();
        conditions.sort();
        assert_eq!(
            conditions,
            ["\"Established\"=\"True\"", "\"NamesAccepted\"=\"True\""],
            "{name}"
        );
    }
}

fn explained() {
    let control_plane = ControlPlane::shared();
    let kubectl = control_plane.kubectl();
    let path = format!("/openapi/v3/apis/{API_VERSION}");
    for crd in all() {
        let names = crd.spec.names;
        let schema = || {
            let said = kubectl.said(&["get", "--raw", &path]);
            let document: Value = serde_json::from_str(&said.output).ok()?;
            let schemas = document["components"]["schemas"].as_object()?;
            let name = format!(".{}", names.kind);
            schemas
                .iter()
                .find(|(key, _)| key.ends_with(&name))
                .map(|(_, found)| found.clone())
        };
        let (schema, _) = wait_for_some(SOON, &format!("{} in {path}", names.kind), schema);
        assert_described(&names.kind, &schema);

        // What is discovered may lag behind what is described.
        let kind = format!("KIND:       {}", names.kind);
        wait_for(SOON, &format!("{} is explained", names.kind), || {
            let said = kubectl.said(&["explain", &names.plural, "--recursive"]);
            said.output.contains(&kind)
        });
    }
    let said = kubectl.run(&["explain", "xp.spec.rules.from.cidrs"]);
    assert!(said.contains("Address ranges in CIDR form"), "{said}");
}

/// A description here and at every field below.
fn assert_described(path: &str, schema: &Value) {
    let description = schema["description"].as_str().unwrap_or_default();
    assert!(
        !description.is_empty(),
        "{path} has no description: {schema:#}"
    );
    let below = |schema: &Value, path: &str| {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            assert_described(&format!("{path}.{name}"), field);
        }
    };
    below(schema, path);
    below(&schema["items"], &format!("{path}[]"));
}

fn names() {
    let control_plane = ControlPlane::shared();
    let kubectl = control_plane.kubectl();
    let resources = ["api-resources", "--categories=headgate", "-o", "name"];
    let resources = kubectl.run(&resources);
    let wanted = all()
        .into_iter()
        .map(|crd| crd.metadata.name.expect("a CRD has a name"));
    let mut wanted: Vec<String> = wanted.collect();
    wanted.sort();
    assert_eq!(resources.lines().collect::<Vec<_>>(), wanted);
    for crd in all() {
        let short = crd
            .spec
            .names
            .short_names
            .expect("every kind has a short name");
        for short in short {
            kubectl.run(&["get", &short]);
        }
    }
    kubectl.run(&["get", "headgate"]);
}
