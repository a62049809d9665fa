//! What cannot be read, and what is said of it.

use std::fs;

use headgate_source::{DirectorySource, Reading};

use crate::{Directory, group, problems};

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
            "a.yaml:16: is not well-formed: the key \"kind\" is written a second time in one mapping; delete one of the two",
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
