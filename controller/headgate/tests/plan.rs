//! `headgate plan DIR --against DIR`: files in, words out, without root and without a kernel.

mod common;

use std::{fs, path::Path};

use common::{Run, headgate};
use tempfile::TempDir;

const WEB: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: XdpPolicy
metadata:
  name: web
spec:
  interfaces: [eth0]
  rules:
    - name: from-ten
      action: Drop
      from: {cidrs: [10.0.0.0/8]}
      protocols: [{tcp: {ports: [{port: 80}]}}]
";

const DNS: &str = "\
apiVersion: headgate.dev/v1alpha1
kind: XdpPolicy
metadata:
  name: dns
spec:
  interfaces: [eth1]
  priority: 100
  rules:
    - name: amplified
      action: Drop
      protocols: [{udp: {sourcePorts: [{port: 53}]}}]
";

/// Two directories of resources beside each other.
struct Sides {
    folder: TempDir,
}

impl Sides {
    /// `old` and `new`, each given as (file name, content).
    fn new(old: &[(&str, &str)], new: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (side, files) in [("old", old), ("new", new)] {
            let side = folder.path().join(side);
            fs::create_dir(&side).expect("a folder in it");
            for (name, content) in files {
                fs::write(side.join(name), content).expect("a file in that");
            }
        }
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Plans `new` against `old` on a node with eth0 and eth1.
    fn plan(&self, more: &[&str]) -> Run {
        let flags = [
            "plan",
            "new",
            "--against",
            "old",
            "--interfaces",
            "eth0,eth1",
        ];
        headgate(self.path(), &[&flags, more].concat())
    }
}

/// `text` with each digest replaced by its place in the order of appearance, which no change of the
/// tables' layout touches; columns keep their width.
fn without_digests(text: &str) -> String {
    let mut seen: Vec<String> = Vec::new();
    let mut result = String::new();
    for piece in text.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        if word.len() == 12 {
            let known = seen.iter().position(|digest| digest == word);
            let place = known.unwrap_or_else(|| {
                seen.push(word.to_owned());
                seen.len() - 1
            });
            result.push_str(&format!("<digest-{place:0>3}>"));
            result.push_str(&piece[word.len()..]);
        } else {
            result.push_str(piece);
        }
    }
    result
}

#[test]
fn the_same_files_change_nothing() {
    let sides = Sides::new(&[("web.yaml", WEB)], &[("web.yaml", WEB)]);
    let run = sides.plan(&[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(
        run.stdout
            .ends_with("\nNothing would change against old.\n"),
        "{}",
        run.stdout
    );
    assert!(!run.stdout.contains("Steps:"), "{}", run.stdout);
}

#[test]
fn a_first_policy_is_attached() {
    let run = Sides::new(&[], &[("web.yaml", WEB)]).plan(&[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let lines: Vec<_> = run.stdout.lines().map(str::trim).collect();
    for expected in [
        "+ XdpPolicy/web",
        "priority 500, default Allow, 1 rule",
        "+ eth0",
        "1. reset 1 rule counters",
    ] {
        assert!(lines.contains(&expected), "{expected}: {}", run.stdout);
    }
    assert!(
        run.stdout.contains("attach port 0 to eth0, mode Auto"),
        "{}",
        run.stdout
    );
}

#[test]
fn one_policy_for_another_in_full() {
    let edited = WEB.replace("action: Drop", "action: Allow");
    let sides = Sides::new(
        &[("web.yaml", WEB), ("dns.yaml", DNS)],
        &[("web.yaml", edited.as_str())],
    );
    let run = sides.plan(&[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let text = without_digests(&run.stdout);
    let (table, rest) = text.split_once("\n\n").expect("a table first");
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.starts_with("TABLES "), "{table}");
    assert!(rest.starts_with(GOLDEN), "{rest}");
    assert!(rest.contains(". detach port 1\n"), "{rest}");
}

const GOLDEN: &str = "\
Resources:
  - XdpPolicy/dns
  ~ XdpPolicy/web
      rule from-ten changed: action Drop -> Allow

Interfaces:
  ~ eth0
      tables <digest-001> -> <digest-000>
  - eth1
      detached, nothing is enforced there any more

Steps:
";

#[test]
fn what_is_refused_is_told_with_file_and_line_and_its_own_exit_code() {
    let broken = WEB.replace("port: 80", "port: 80, endPort: 70");
    let sides = Sides::new(&[("web.yaml", WEB)], &[("web.yaml", broken.as_str())]);
    let run = sides.plan(&[]);
    assert_eq!(run.code, 3, "{}{}", run.stdout, run.stderr);
    let finding = run
        .stdout
        .lines()
        .find(|line| line.starts_with("  web.yaml:"));
    let finding = finding.unwrap_or_else(|| panic!("{}", run.stdout));
    assert!(
        finding.contains("XdpPolicy/web: spec.rules[0].protocols[0]"),
        "{finding}"
    );
    assert!(
        finding.contains("generation 1 stays in effect"),
        "{finding}"
    );
    // The last good content stays, so nothing would change.
    assert!(
        run.stdout.ends_with("Nothing would change against old.\n"),
        "{}",
        run.stdout
    );
}

#[test]
fn a_group_that_does_not_exist_is_refused() {
    let named = WEB.replace("{cidrs: [10.0.0.0/8]}", "{cidrGroups: {names: [nowhere]}}");
    let run = Sides::new(&[], &[("web.yaml", named.as_str())]).plan(&[]);
    assert_eq!(run.code, 3);
    assert!(
        run.stdout.contains("UnresolvedReferences"),
        "{}",
        run.stdout
    );
}

#[test]
fn an_interface_that_is_not_there_is_waited_for() {
    let elsewhere = WEB.replace("[eth0]", "[eth7]");
    let run = Sides::new(&[], &[("web.yaml", elsewhere.as_str())]).plan(&[]);
    assert_eq!(run.code, 0, "{}", run.stdout);
    assert!(
        run.stdout.contains("no interface \"eth7\" on this node"),
        "{}",
        run.stdout
    );
}

#[test]
fn labels_decide_whether_a_policy_concerns_the_node() {
    let edge = WEB.replace(
        "spec:\n",
        "spec:\n  nodeSelector: {matchLabels: {role: edge}}\n",
    );
    let sides = Sides::new(&[], &[("web.yaml", edge.as_str())]);
    let elsewhere = sides.plan(&[]);
    assert!(!elsewhere.stdout.contains("+ eth0"), "{}", elsewhere.stdout);
    let edge = sides.plan(&["--node-labels", "role=edge"]);
    assert!(edge.stdout.contains("+ eth0"), "{}", edge.stdout);
}

#[test]
fn programs_get_an_object() {
    let run = Sides::new(&[("web.yaml", WEB)], &[]).plan(&["-o", "json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let plan: serde_json::Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(plan["against"], "old");
    assert_eq!(plan["wouldChange"], true);
    assert_eq!(plan["refused"], false);
    assert_eq!(plan["resources"][0]["resource"], "XdpPolicy/web");
    assert_eq!(plan["resources"][0]["change"], "Removed");
    assert_eq!(plan["interfaces"][0]["interface"], "eth0");
    assert!(
        plan["steps"]
            .as_array()
            .is_some_and(|steps| !steps.is_empty())
    );
}

#[test]
fn a_directory_that_is_not_there_is_an_error_and_not_an_empty_one() {
    let sides = Sides::new(&[("web.yaml", WEB)], &[]);
    for (directory, against) in [("gone", "old"), ("new", "gone")] {
        let run = headgate(sides.path(), &["plan", directory, "--against", against]);
        assert_eq!(run.code, 1, "{}", run.stdout);
        assert_eq!(run.stdout, "");
        assert!(run.stderr.starts_with("headgate: "), "{}", run.stderr);
        assert!(run.stderr.contains("gone"), "{}", run.stderr);
    }
}

#[test]
fn a_plan_leaves_nothing_behind() {
    let sides = Sides::new(&[("web.yaml", WEB)], &[("web.yaml", WEB)]);
    sides.plan(&["--state-dir", "state"]);
    assert!(!sides.path().join("state").exists());
}
