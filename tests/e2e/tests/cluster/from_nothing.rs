//! The CRDs and the examples, applied to a control plane that knows nothing of Headgate.

use std::{collections::BTreeMap, fs};

use headgate_e2e_tests::{
    control_plane::ControlPlane, kubectl::Kubectl, paths::workspace, trials::on_cluster,
};
use libtest_mimic::Trial;

/// What `kubectl apply` is told by its users to apply, in this order.
const FOLDERS: [&str; 3] = ["crds", "examples/data", "examples/policies"];
/// A CRD that is larger is refused where client-side apply keeps it in an annotation.
const MOST_BYTES: u64 = 200_000;

pub(crate) fn trials() -> Vec<Trial> {
    // On a control plane of its own: the examples select every node.
    vec![on_cluster(
        "crds_and_examples_apply_and_a_second_apply_changes_nothing",
        apply_twice,
    )]
}

fn apply_twice() {
    let control_plane = ControlPlane::start();
    let kubectl = control_plane.kubectl();
    let count = |folder| manifests(folder).len();
    for folder in FOLDERS {
        if folder == "crds" {
            control_plane.install_crds();
            continue;
        }
        assert_eq!(
            results(kubectl, folder, &["--dry-run=server"]),
            all("created", count(folder))
        );
        assert_eq!(results(kubectl, folder, &[]), all("created", count(folder)));
    }
    let before = FOLDERS.map(|folder| generations(kubectl, folder));
    for folder in FOLDERS {
        let diff = kubectl.said(&["diff", "-f", folder]);
        assert_eq!((diff.code, diff.output.as_str()), (0, ""), "{diff:?}");
        assert_eq!(
            results(kubectl, folder, &[]),
            all("unchanged", count(folder))
        );
        let dry = results(kubectl, folder, &["--dry-run=server"]);
        assert_eq!(dry, all("unchanged", count(folder)));
    }
    assert_eq!(FOLDERS.map(|folder| generations(kubectl, folder)), before);
    for generations in before {
        assert!(
            generations.values().all(|of| of.ends_with("generation 1")),
            "{generations:#?}"
        );
    }
}

/// Sizes of a folder's manifests by their names.
fn manifests(folder: &str) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(workspace().join(folder)).expect("it is a folder");
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry.expect("the folder can be read");
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = entry.metadata().expect("the file is there").len();
        if name.ends_with(".yaml") {
            assert!(
                folder != "crds" || size < MOST_BYTES,
                "{name} has {size} bytes"
            );
            found.insert(name, size);
        }
    }
    assert!(!found.is_empty(), "{folder}");
    found
}

/// How often `kubectl apply` says which result.
fn results(kubectl: &Kubectl, folder: &str, arguments: &[&str]) -> BTreeMap<String, usize> {
    let said = kubectl.run(&[&["apply", "-f", folder], arguments].concat());
    let mut results = BTreeMap::new();
    for line in said.lines() {
        let line = line.trim_end_matches(" (server dry run)");
        let (_, result) = line.rsplit_once(' ').expect("an object and a result");
        *results.entry(result.to_owned()).or_default() += 1;
    }
    results
}

fn all(result: &str, count: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([(result.to_owned(), count)])
}

/// What changes with every write of an object, by its name.
fn generations(kubectl: &Kubectl, folder: &str) -> BTreeMap<String, String> {
    let list = kubectl.json(&["get", "-f", folder]);
    let objects = list["items"].as_array().expect("a list of objects");
    let written = |object: &serde_json::Value| {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        let (version, generation) = (&metadata["resourceVersion"], &metadata["generation"]);
        (name, format!("version {version}, generation {generation}"))
    };
    objects.iter().map(written).collect()
}
