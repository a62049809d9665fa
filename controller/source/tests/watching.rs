//! When a change is told.

use std::{fs, io::Write, os::unix::fs::symlink, path::Path, time::Duration};

use headgate_crds::Resource;
use headgate_source::{DirectorySource, Reading};
use tokio::time::{Instant, sleep, timeout};

/// Well below the poll, so that only the kernel's word can be in time.
const SOON: Duration = Duration::from_secs(2);
/// Longer than a burst.
const A_WHILE: Duration = Duration::from_millis(300);

fn group(name: &str, cidr: &str) -> String {
    format!(
        "apiVersion: headgate.dev/v1alpha1\nkind: CidrGroup\nmetadata: {{name: {name}}}\n\
         spec: {{cidrs: [{cidr}]}}\n"
    )
}

fn source(path: &Path) -> DirectorySource<Resource> {
    DirectorySource::new(path, |resource| resource)
}

fn names(source: &mut DirectorySource<Resource>) -> Vec<String> {
    match source.read() {
        Reading::Complete(listing) => {
            assert!(listing.unreadable.is_empty(), "{listing:?}");
            listing.documents.iter().map(|d| d.name.clone()).collect()
        }
        Reading::Unavailable { reason } => vec![format!("unavailable: {reason}")],
    }
}

async fn is_told(source: &mut DirectorySource<Resource>) -> bool {
    timeout(SOON, source.changed()).await.is_ok()
}

async fn is_quiet(source: &mut DirectorySource<Resource>) -> bool {
    timeout(A_WHILE, source.changed()).await.is_err()
}

#[tokio::test]
async fn before_the_first_reading_all_is_news() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut source = source(folder.path());
    assert!(is_told(&mut source).await);
    source.read();
    assert!(is_quiet(&mut source).await);
}

#[tokio::test]
async fn writes_renames_and_removals_are_told() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path();
    let mut source = source(path);
    source.read();
    assert!(is_quiet(&mut source).await);

    fs::write(path.join("a.yaml"), group("a", "10.0.0.0/8")).expect("written");
    assert!(is_told(&mut source).await, "a new file");
    assert_eq!(names(&mut source), ["a"]);

    // As editors save: beside it, then over it.
    fs::write(path.join(".a.yaml.swp"), group("b", "10.0.0.0/8")).expect("written");
    assert!(is_quiet(&mut source).await, "a hidden file");
    fs::rename(path.join(".a.yaml.swp"), path.join("a.yaml")).expect("renamed");
    assert!(is_told(&mut source).await, "an atomic save");
    assert_eq!(names(&mut source), ["b"]);

    fs::create_dir_all(path.join("x/y")).expect("made");
    assert!(is_quiet(&mut source).await, "empty folders");
    fs::write(path.join("x/y/c.yaml"), group("c", "10.0.0.0/8")).expect("written");
    assert!(is_told(&mut source).await, "a file in a new folder");
    assert_eq!(names(&mut source), ["b", "c"]);

    fs::remove_dir_all(path.join("x")).expect("removed");
    assert!(is_told(&mut source).await, "a removed folder");
    assert_eq!(names(&mut source), ["b"]);
}

#[tokio::test]
async fn an_edit_while_nobody_waits_is_told_later() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut source = source(folder.path());
    source.read();
    fs::write(folder.path().join("a.yaml"), group("a", "10.0.0.0/8")).expect("written");
    sleep(A_WHILE).await;
    assert!(is_told(&mut source).await);
}

#[tokio::test]
async fn an_edit_of_the_same_size_right_after_a_reading_is_told() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("a.yaml");
    let mut source = source(folder.path());
    fs::write(&file, group("a", "10.0.0.0/8")).expect("written");
    source.read();
    for i in 0..20 {
        fs::write(&file, group("a", &format!("1{}.0.0.0/8", (i + 1) % 10))).expect("written");
        assert!(is_told(&mut source).await, "edit {i}");
        source.read();
    }
}

#[tokio::test]
async fn a_directory_that_goes_and_comes_back_is_told() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("policies");
    let mut source = source(&path);
    assert!(names(&mut source)[0].contains("No such file"));
    assert!(is_quiet(&mut source).await);

    for round in ["a", "b"] {
        fs::create_dir(&path).expect("made");
        assert!(is_told(&mut source).await, "it comes");
        assert!(names(&mut source).is_empty());
        fs::write(path.join("x.yaml"), group(round, "10.0.0.0/8")).expect("written");
        assert!(is_told(&mut source).await, "a file in it");
        assert_eq!(names(&mut source), [round]);
        fs::remove_dir_all(&path).expect("removed");
        // The file may be seen gone before its folder is.
        for _ in 0..2 {
            assert!(is_told(&mut source).await, "it goes");
            if matches!(source.read(), Reading::Unavailable { .. }) {
                break;
            }
        }
        assert!(matches!(source.read(), Reading::Unavailable { .. }));
    }
}

#[tokio::test]
async fn a_swapped_link_is_told() {
    // As a ConfigMap volume is updated.
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path();
    for (version, name) in [("..1", "a"), ("..2", "b")] {
        fs::create_dir(path.join(version)).expect("made");
        let text = group(name, "10.0.0.0/8");
        fs::write(path.join(version).join("x.yaml"), text).expect("written");
    }
    symlink("..1", path.join("..data")).expect("linked");
    symlink("..data/x.yaml", path.join("x.yaml")).expect("linked");
    let mut source = source(path);
    assert_eq!(names(&mut source), ["a"]);
    assert!(is_quiet(&mut source).await);

    symlink("..2", path.join("..data_tmp")).expect("linked");
    fs::rename(path.join("..data_tmp"), path.join("..data")).expect("renamed");
    assert!(is_told(&mut source).await);
    assert_eq!(names(&mut source), ["b"]);
}

#[tokio::test]
async fn the_directory_itself_may_be_a_link() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for name in ["a", "b"] {
        fs::create_dir(folder.path().join(name)).expect("made");
        let file = folder.path().join(name).join("x.yaml");
        fs::write(file, group(name, "10.0.0.0/8")).expect("written");
    }
    let link = folder.path().join("current");
    symlink("a", &link).expect("linked");
    let mut source = source(&link);
    assert_eq!(names(&mut source), ["a"]);
    assert!(is_quiet(&mut source).await);

    symlink("b", folder.path().join("next")).expect("linked");
    fs::rename(folder.path().join("next"), &link).expect("renamed");
    assert!(is_told(&mut source).await);
    assert_eq!(names(&mut source), ["b"]);
    fs::write(folder.path().join("b/x.yaml"), group("c", "10.0.0.0/8")).expect("written");
    assert!(is_told(&mut source).await, "a file behind the new link");
}

#[tokio::test]
async fn a_half_written_file_is_waited_for() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("a.yaml");
    let mut source = source(folder.path());
    source.read();
    assert!(is_quiet(&mut source).await);

    let text = format!(
        "{}---\n{}",
        group("a", "10.0.0.0/8"),
        group("b", "10.0.0.0/8")
    );
    let half = text.find("---").expect("two documents");
    let mut writer = fs::File::create(&file).expect("made");
    // Half of it is well-formed, with one resource less.
    writer.write_all(&text.as_bytes()[..half]).expect("written");
    let rest = async {
        sleep(Duration::from_millis(150)).await;
        writer.write_all(&text.as_bytes()[half..]).expect("written");
        drop(writer);
    };
    let ((), told) = tokio::join!(rest, is_told(&mut source));
    assert!(told);
    assert_eq!(names(&mut source), ["a", "b"]);
}

#[tokio::test]
async fn a_burst_is_told_once_and_soon() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut source = source(folder.path());
    source.read();
    assert!(is_quiet(&mut source).await);

    let start = Instant::now();
    for i in 0..100 {
        let file = folder.path().join(format!("{i}.yaml"));
        fs::write(file, group(&format!("g{i}"), "10.0.0.0/8")).expect("written");
    }
    let written = start.elapsed();
    assert!(is_told(&mut source).await);
    println!(
        "100 files written in {written:?}, told after {:?}",
        start.elapsed()
    );
    assert_eq!(names(&mut source).len(), 100);
    assert!(is_quiet(&mut source).await);
}
