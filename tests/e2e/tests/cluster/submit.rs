//! Many objects given to the API server by one kubectl.

use std::{collections::BTreeMap, fs};

use headgate_e2e_tests::kubectl::Kubectl;
use serde_json::{Deserializer, Value};

/// Objects under names that they get where they have none.
pub(crate) type Named<'a> = BTreeMap<&'a str, Value>;

/// What became of them, by their names.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Those that the API server took, as it would store them.
    pub(crate) stored: BTreeMap<String, Value>,
    /// What it says against the others.
    pub(crate) refused: BTreeMap<String, String>,
}

/// Gives these names to objects that have none.
pub(crate) fn named<'a>(objects: impl IntoIterator<Item = (&'a str, Value)>) -> Named<'a> {
    let mut all = Named::new();
    for (name, mut object) in objects {
        let metadata = object["metadata"].as_object_mut().expect("it is an object");
        metadata.entry("name").or_insert_with(|| name.into());
        assert!(all.insert(name, object).is_none(), "{name} is there twice");
    }
    all
}

/// Runs `kubectl create` on them with these further arguments.
pub(crate) fn create(kubectl: &Kubectl, objects: &Named<'_>, arguments: &[&str]) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, object) in objects {
        let file = folder.path().join(format!("{name}.json"));
        fs::write(file, object.to_string()).expect("the folder is ours");
    }
    let path = folder.path().display().to_string();
    let said = kubectl.said(&[&["create", "-o", "json", "-f", &path], arguments].concat());
    let mut outcome = Outcome {
        stored: BTreeMap::new(),
        refused: BTreeMap::new(),
    };
    for object in Deserializer::from_str(&said.output).into_iter::<Value>() {
        let object = object.expect("kubectl prints JSON");
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        outcome.stored.insert(name.to_owned(), object);
    }
    // A refusal may have several lines; the first names the file.
    let mut last = None;
    for line in said
        .errors
        .lines()
        .filter(|line| !line.starts_with("Warning:"))
    {
        let name = objects
            .keys()
            .find(|name| line.contains(&format!("/{name}.json\"")));
        let Some(name) = name.or(last) else {
            panic!("of no object: {line}");
        };
        last = Some(name);
        let refusal = outcome.refused.entry((*name).to_owned()).or_default();
        *refusal += &line.replace(&path, "");
    }
    assert_eq!(said.code == 0, outcome.refused.is_empty(), "{outcome:#?}");
    outcome
}
