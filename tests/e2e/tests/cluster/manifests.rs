//! What is installed, as an API server sees it.

use std::{collections::BTreeMap, fs};

use headgate_e2e_tests::{
    control_plane::ControlPlane, kubectl::Kubectl, paths::workspace, trials::on_cluster,
};
use libtest_mimic::Trial;
use serde_json::Value;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        on_cluster("manifests_apply_and_a_second_apply_changes_nothing", twice),
        on_cluster("manifests_hold_nothing_that_shows_as_drift", no_drift),
    ]
}

fn twice() {
    // On a control plane of its own: it is to be empty.
    let control_plane = ControlPlane::start();
    let kubectl = control_plane.kubectl();
    // A dry run knows no namespace that it would make.
    kubectl.run(&["apply", "-k", "manifests/base"]);
    for manifests in [
        "manifests/default",
        "manifests/argocd",
        "examples/peers-from-nodes",
    ] {
        let apply = ["apply", "--server-side", "-k", manifests];
        kubectl.run(&[apply.as_slice(), &["--dry-run=server"]].concat());
        kubectl.run(&apply);
        let before = written(kubectl, manifests);
        assert!(before.len() > 15, "{before:?}");
        let diff = kubectl.said(&["diff", "--server-side", "-k", manifests]);
        assert_eq!((diff.code, diff.output.as_str()), (0, ""), "{diff:?}");
        kubectl.run(&apply);
        assert_eq!(written(kubectl, manifests), before);
    }
    let namespace = "headgate-system";
    let operator = kubectl.json(&["get", "deployment", "headgate-operator", "-n", namespace]);
    let arguments = &operator["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(arguments.to_string().contains("--peers-from-nodes=1"));
    // As some apply it still; what was applied the other way is taken over.
    let apply = ["apply", "-k", "manifests/default"];
    kubectl.run(&apply);
    let before = written(kubectl, "manifests/default");
    kubectl.run(&apply);
    assert_eq!(written(kubectl, "manifests/default"), before);
}

/// Generations and specs by kind and name.
fn written(kubectl: &Kubectl, manifests: &str) -> BTreeMap<String, String> {
    let list = kubectl.json(&["get", "-k", manifests]);
    let objects = list["items"].as_array().into_iter().flatten();
    let of = |object: &Value| {
        let metadata = &object["metadata"];
        let name = format!("{} {}", object["kind"], metadata["name"]);
        let (generation, spec) = (&metadata["generation"], &object["spec"]);
        (name, format!("{generation} {spec} {}", object["rules"]))
    };
    objects.map(of).collect()
}

fn no_drift() {
    let control_plane = ControlPlane::shared();
    let kubectl = control_plane.kubectl();
    let all = kubectl.run(&["kustomize", "manifests/default"]);
    for line in all.lines() {
        assert!(!line.starts_with("status:"), "a status is shipped");
        assert!(!line.trim_start().starts_with("caBundle:"), "{line}");
    }
    // The image is the one that this version builds.
    let image = format!("image: localhost/headgate:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(all.matches("image: ").count(), all.matches(&image).count());
    // An agent watches all kinds, and is not ready where one is not served.
    let files = fs::read_dir(workspace().join("crds")).expect("the folder is there");
    let files = files.map(|file| file.expect("it can be read").file_name());
    for file in files.filter_map(|file| file.into_string().ok()) {
        if let Some(name) = file.strip_suffix(".yaml") {
            assert!(
                all.contains(&format!("\n  name: {name}\n")),
                "without {name}"
            );
        }
    }
}
