//! Which documents there are, and where.

use std::{fs, os::unix::fs::symlink};

use headgate_crds::Kind;

use crate::{Directory, HEAD, group, places, problems};

#[test]
fn files_in_order_with_their_lines() {
    let two = format!(
        "# two groups\n{}---\n{}",
        group("b", "10.0.0.0/8"),
        group("a", "::/0")
    );
    let json = r#"{"apiVersion": "headgate.dev/v1alpha1", "kind": "CidrGroup",
        "metadata": {"name": "j"}, "spec": {"cidrs": ["10.0.0.0/8"]}}"#;
    let mut directory = Directory::new(&[
        ("z.yml", &group("z", "10.0.0.0/8")),
        ("b.yaml", &two),
        ("sub/deeper/c.yaml", &group("c", "10.0.0.0/8")),
        ("j.json", json),
        (
            "tabs.json",
            &json.replace("  ", "\t").replace("\"j\"", "\"tabs\""),
        ),
        ("notes.txt", "not ours"),
        (".hidden.yaml", "not ours"),
        (".git/config.yaml", "not ours"),
        ("b.yaml~", "not ours"),
        ("#b.yaml#", "not ours"),
        ("comment.yaml", "# no resources here\n---\n"),
    ]);
    let listing = directory.read();
    assert_eq!(
        places(&listing),
        [
            "b.yaml:2 CidrGroup b",
            "b.yaml:10 CidrGroup a",
            "j.json:1 CidrGroup j",
            "sub/deeper/c.yaml:1 CidrGroup c",
            "tabs.json:1 CidrGroup tabs",
            "z.yml:1 CidrGroup z",
        ]
    );
    assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
    assert!(listing.warnings.is_empty(), "{:?}", listing.warnings);
    assert!(listing.documents.iter().all(|d| d.content.is_ok()));
}

#[test]
fn problems_have_the_line_of_their_field() {
    let text = "\
apiVersion: headgate.dev/v1alpha1
kind: XdpPolicy
metadata:
  name: web
  labels:
    example.org/team: a b
spec:
  priority: 2000
  rules:
  - name: first
    action: Drop
    from:
      cidrs:
      - 10.0.0.0/8
      - 10.0.0.1
  - name: second
    protocols:
    - tcp: {ports: [{port: 1},
                    {port: 70000}]}
    tpyo:
      a: b
";
    let mut directory = Directory::new(&[("web.yaml", text)]);
    let first = problems(&directory.read().documents[0]);
    let lines = |problems: &[String]| -> Vec<String> {
        let paths = problems
            .iter()
            .map(|p| p.splitn(3, ": ").take(2).collect::<Vec<_>>().join(" "));
        paths.collect()
    };
    assert_eq!(
        lines(&first),
        [
            "6 metadata.labels[example.org/team]",
            "8 spec.priority",
            "20 spec.rules[1].tpyo",
            "16 spec.rules[1].action",
            "19 spec.rules[1].protocols[0].tcp.ports[1].port",
        ]
    );
    // The CEL rules run only on what fits the schema.
    let mended = text
        .replace("a b", "a")
        .replace("2000", "20")
        .replace("70000", "7")
        .replace("tpyo:\n      a: b", "action: Drop");
    directory.write("web.yaml", mended);
    let second = problems(&directory.read().documents[0]);
    assert_eq!(lines(&second), ["15 spec.rules[0].from.cidrs[1]"]);
}

#[test]
fn warnings_have_lines_too() {
    let mut directory = Directory::new(&[("a.yaml", &group("a", "10.0.0.1/8"))]);
    let listing = directory.read();
    let [warning] = listing.documents[0].warnings.as_slice() else {
        panic!("{listing:?}");
    };
    assert_eq!(warning.line, Some(7));
    assert!(warning.reason.contains("means 10.0.0.0/8"), "{warning}");
}

#[test]
fn two_of_one_name_are_an_error_on_both() {
    let mut directory = Directory::new(&[
        ("a.yaml", &group("same", "10.0.0.0/8")),
        ("b.yaml", &format!("\n{}", group("same", "10.0.0.0/8"))),
        ("c.yaml", &group("other", "10.0.0.0/8")),
    ]);
    let listing = directory.read();
    assert_eq!(
        problems(&listing.documents[0]),
        [
            "1: metadata.name: CidrGroup same at a.yaml:1 is also at b.yaml:2, and neither is \
          taken; rename or delete one of them"
        ]
    );
    assert_eq!(
        problems(&listing.documents[1]),
        [
            "2: metadata.name: CidrGroup same at b.yaml:2 is also at a.yaml:1, and neither is \
          taken; rename or delete one of them"
        ]
    );
    assert!(listing.documents[2].content.is_ok());

    fs::remove_file(directory.path().join("b.yaml")).expect("removed");
    assert!(directory.read().documents.iter().all(|d| d.content.is_ok()));
}

#[test]
fn one_name_of_two_kinds_is_two_resources() {
    let policy = format!("{HEAD}kind: XdpPolicy\nmetadata: {{name: same}}\nspec: {{}}\n");
    let mut directory = Directory::new(&[("a.yaml", &group("same", "::/0")), ("b.yaml", &policy)]);
    let listing = directory.read();
    assert!(listing.documents.iter().all(|d| d.content.is_ok()));
    let [group, policy] = listing.documents.as_slice() else {
        panic!("{listing:?}");
    };
    assert_eq!(
        (group.kind, policy.kind),
        (Kind::CidrGroup, Kind::XdpPolicy)
    );
    assert_ne!(group.uid, policy.uid);
    assert_eq!(group.uid.len(), 32);
}

#[test]
fn lists_are_flattened_and_other_groups_left_aside() {
    let item = |name: &str| {
        format!(
            "- apiVersion: headgate.dev/v1alpha1\n  kind: CidrGroup\n  metadata: {{name: {name}}}\n  \
             spec: {{cidrs: [10.0.0.0/8]}}\n"
        )
    };
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n{}{}",
        item("a"),
        item("b")
    );
    let ours = format!("{HEAD}kind: CidrGroupList\nitems:\n{}", item("c"));
    let other = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";
    let core = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n";
    let mut directory = Directory::new(&[
        ("list.yaml", &list),
        ("ours.yaml", &ours),
        ("other.yaml", &format!("{other}---\n{core}")),
    ]);
    let listing = directory.read();
    assert_eq!(
        places(&listing),
        [
            "list.yaml:4 CidrGroup a",
            "list.yaml:8 CidrGroup b",
            "ours.yaml:4 CidrGroup c",
        ]
    );
    let warnings: Vec<String> = listing
        .warnings
        .iter()
        .map(|w| format!("{}: {}", w.origin, w.message))
        .collect();
    assert_eq!(
        warnings,
        [
            "other.yaml:1: Kustomization of kustomize.config.k8s.io/v1beta1 is left aside: it \
             is no headgate.dev resource",
            "other.yaml:4: ConfigMap of v1 is left aside: it is no headgate.dev resource",
        ]
    );
}

#[test]
fn links_are_followed_and_dangling_ones_told() {
    let mut directory = Directory::new(&[("..2024/a.yaml", &group("a", "10.0.0.0/8"))]);
    symlink("..2024", directory.path().join("..data")).expect("linked");
    symlink("..data/a.yaml", directory.path().join("a.yaml")).expect("linked");
    assert_eq!(places(&directory.read()), ["a.yaml:1 CidrGroup a"]);
    // A loop ends.
    symlink(".", directory.path().join("loop")).expect("linked");
    assert!(directory.read().documents.len() > 1);
    fs::remove_file(directory.path().join("loop")).expect("removed");

    fs::remove_file(directory.path().join("..data")).expect("removed");
    assert_eq!(
        directory.only_unreadable(),
        "a.yaml: is a symbolic link that leads nowhere; mend or delete it"
    );
}
