//! What a directory reads as: places, refusals, what is left aside.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc, time::Instant};

use headgate_crds::{Kind, Resource};
use headgate_source::{DirectorySource, Document, Listing, Reading};
use tempfile::TempDir;

const HEAD: &str = "apiVersion: headgate.dev/v1alpha1\n";

fn group(name: &str, cidr: &str) -> String {
    format!("{HEAD}kind: CidrGroup\nmetadata:\n  name: {name}\nspec:\n  cidrs:\n  - {cidr}\n")
}

struct Directory {
    folder: TempDir,
    source: DirectorySource<Resource>,
}

impl Directory {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let source = DirectorySource::new(folder.path(), |resource| resource);
        let directory = Self { folder, source };
        for (name, text) in files {
            directory.write(name, text);
        }
        directory
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("inside of the directory")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn read(&mut self) -> Listing<Resource> {
        match self.source.read() {
            Reading::Complete(listing) => listing,
            Reading::Unavailable { reason } => panic!("unavailable: {reason}"),
        }
    }

    fn only_unreadable(&mut self) -> String {
        let listing = self.read();
        assert!(listing.documents.is_empty(), "{listing:?}");
        let [file] = listing.unreadable.as_slice() else {
            panic!("{listing:?}");
        };
        match file.line {
            Some(line) => format!("{}:{line}: {}", file.file, file.reason),
            None => format!("{}: {}", file.file, file.reason),
        }
    }
}

fn places(listing: &Listing<Resource>) -> Vec<String> {
    let documents = listing.documents.iter();
    documents
        .map(|d| format!("{} {} {}", d.origin, d.kind, d.name))
        .collect()
}

/// `line: path: reason; remedy` of every problem.
fn problems(document: &Document<Resource>) -> Vec<String> {
    let problems = document.content.as_ref().expect_err("it has problems");
    problems
        .iter()
        .map(|p| format!("{}: {p}", p.line.expect("a line")))
        .collect()
}

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
fn an_empty_directory_holds_nothing_and_a_missing_one_is_unavailable() {
    let mut directory = Directory::new(&[]);
    assert!(directory.read().documents.is_empty());
    fs::remove_dir(directory.path()).expect("removed");
    let Reading::Unavailable { reason } = directory.source.read() else {
        panic!("a missing directory was read");
    };
    assert!(reason.contains("No such file"), "{reason}");
}

#[test]
fn a_file_in_place_of_the_directory_is_unavailable() {
    let directory = Directory::new(&[("a.yaml", "")]);
    let mut source = DirectorySource::new(directory.path().join("a.yaml"), |resource| resource);
    assert!(matches!(source.read(), Reading::Unavailable { .. }));
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
fn unreadable_files_say_where_and_why() {
    let good = group("a", "10.0.0.0/8");
    let anchors = "a: &a [x, x, x, x, x, x, x, x, x, x]\n\
                   b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
                   c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\n\
                   d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n\
                   e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\n\
                   f: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]\n\
                   g: [*f, *f, *f, *f, *f, *f, *f, *f, *f, *f]\n";
    let deep = format!("a: {}{}\n", "[".repeat(100), "]".repeat(100));
    let cases: &[(&str, &str)] = &[
        ("", "a.yaml: is empty; delete the file"),
        ("a: [1, 2\nb: 3\n", "a.yaml:2: is not well-formed"),
        ("a:\n\tb: 2\n", "a.yaml:2: is not well-formed"),
        (
            &format!("{good}---\n{good}kind: XdpPolicy\n"),
            "a.yaml:16: is not well-formed: duplicate mapping key: kind",
        ),
        (anchors, "a.yaml:"),
        (&deep, "a.yaml:1: is not well-formed"),
        ("- a\n- b\n", "a.yaml:1: is no object"),
        ("just text\n", "a.yaml:1: is no object"),
        ("\nspec: {}\n", "a.yaml:2: has no apiVersion or no kind"),
        (
            &good.replace("CidrGroup", "CidrGruop"),
            "a.yaml:2: \"CidrGruop\" is no kind of headgate.dev",
        ),
        (
            &good.replace("name: a", "labels: {}"),
            "a.yaml:3: a CidrGroup has no name",
        ),
        (
            &format!("{good}---\nspec: {{}}\n"),
            "a.yaml:9: has no apiVersion",
        ),
    ];
    for (text, expected) in cases {
        let mut directory = Directory::new(&[("a.yaml", text)]);
        let told = directory.only_unreadable();
        assert!(told.starts_with(expected), "{text:?}\n{told:?}");
        assert!(!told.contains('\n'), "{told:?}");
    }
}

#[test]
fn a_wrong_version_is_a_problem_of_that_document() {
    let old = group("a", "::/0").replace("v1alpha1", "v1");
    let mut directory = Directory::new(&[("a.yaml", &old)]);
    let listing = directory.read();
    assert_eq!(
        problems(&listing.documents[0]),
        [
            "1: apiVersion: \"headgate.dev/v1\" is not served; write apiVersion: headgate.dev/v1alpha1"
        ]
    );
}

#[test]
fn encodings_and_line_ends() {
    let text = group("a", "10.0.0.0/8");
    let mut directory = Directory::new(&[]);
    directory.write("a.yaml", format!("\u{feff}{text}"));
    directory.write("b.yaml", group("b", "10.0.0.1").replace('\n', "\r\n"));
    let listing = directory.read();
    assert!(listing.unreadable.is_empty(), "{listing:?}");
    assert!(listing.documents[0].content.is_ok(), "{listing:?}");
    assert!(problems(&listing.documents[1])[0].starts_with("7: spec.cidrs[0]"));

    let mut directory = Directory::new(&[]);
    directory.write("a.yaml", b"a: 1\nb: \xff\xfe\n");
    assert_eq!(
        directory.only_unreadable(),
        "a.yaml:2: is not UTF-8; save it in that encoding"
    );
}

#[test]
fn a_file_beyond_all_measure_is_not_read() {
    let mut directory = Directory::new(&[]);
    let file = fs::File::create(directory.path().join("a.yaml")).expect("made");
    file.set_len((16 << 20) + 1).expect("a sparse file");
    assert!(directory.only_unreadable().contains("16777217 bytes"));
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

#[test]
fn what_did_not_change_is_the_same_document() {
    let mut directory = Directory::new(&[
        ("a.yaml", &group("a", "10.0.0.0/8")),
        ("b.yaml", &group("b", "10.0.0.0/8")),
    ]);
    let before = directory.read().documents;
    directory.write("b.yaml", group("b", "11.0.0.0/8"));
    let after = directory.read().documents;
    assert!(Arc::ptr_eq(&before[0], &after[0]));
    assert!(!Arc::ptr_eq(&before[1], &after[1]));
    assert_ne!(before[1].written, after[1].written);
    assert_eq!(before[1].uid, after[1].uid);
}

/// Same size, same inode, and on coarse clocks the same time: only the bytes tell.
#[test]
fn quick_edits_of_one_size_are_all_seen() {
    let mut directory = Directory::new(&[]);
    for i in 0..200 {
        let cidr = format!("10.0.{}.0/24", 100 + i % 100);
        directory.write("a.yaml", group("a", &cidr));
        let listing = directory.read();
        let Ok(Resource::CidrGroup(group)) = &listing.documents[0].content else {
            panic!("{listing:?}");
        };
        assert_eq!(group.spec.cidrs, [cidr], "edit {i}");
    }
}

#[test]
fn meaning_alone_is_digested() {
    let text = group("a", "10.0.0.0/8");
    let mut directory = Directory::new(&[("a.yaml", &text)]);
    let before = directory.read().documents[0].written;
    directory.write("a.yaml", format!("# a comment\n{text}  # another\n"));
    assert_eq!(directory.read().documents[0].written, before);
    directory.write(
        "a.yaml",
        text.replace("  name: a\n", "  name: a\n  labels: {x: y}\n"),
    );
    assert_ne!(directory.read().documents[0].written, before);
}

#[test]
fn a_full_group_is_read_in_a_moment() {
    let mut text = group("full", "10.0.0.0/24");
    for i in 1..5000 {
        text += &format!("  - 10.{}.{}.0/24\n", i / 256, i % 256);
    }
    let mut directory = Directory::new(&[("full.yaml", &text)]);
    directory.write("small.yaml", group("small", "10.0.0.0/8"));
    // The schema is compiled once in a process.
    DirectorySource::new(directory.path(), |resource| resource).read();
    let start = Instant::now();
    let listing = directory.read();
    let cold = start.elapsed();
    assert!(listing.documents[0].content.is_ok());
    directory.write("small.yaml", group("small", "11.0.0.0/8"));
    let start = Instant::now();
    directory.read();
    println!(
        "a group of 5,000 CIDRs, {} KiB: {cold:?}; another file's edit beside it: {:?}",
        text.len() >> 10,
        start.elapsed()
    );
}
