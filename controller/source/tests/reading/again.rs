//! Reading once more after a change.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use headgate_crds::Resource;
use headgate_source::{DirectorySource, Reading};

use crate::{Directory, group};

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

/// A resource whose file or directory is renamed at this moment is there, unreadable, or the whole is
/// unavailable; it is never taken for deleted.
#[test]
fn a_rename_under_the_reader_deletes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let [here, away] = ["here", "away"].map(|name| folder.path().join(name));
    fs::create_dir(&here).expect("made");
    fs::write(here.join("a.yaml"), group("a", "10.0.0.0/8")).expect("written");
    let mut source = DirectorySource::new(&here, |resource: Resource| resource);
    let ended = AtomicBool::new(false);
    let (mut complete, mut short) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                fs::rename(here.join("a.yaml"), here.join("0.yaml")).expect("renamed");
                fs::rename(&here, &away).expect("renamed");
                thread::sleep(Duration::from_micros(300));
                fs::rename(&away, &here).expect("renamed");
                fs::rename(here.join("0.yaml"), here.join("a.yaml")).expect("renamed");
                thread::sleep(Duration::from_micros(300));
            }
        });
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            if let Reading::Complete(listing) = source.read() {
                complete += 1;
                short += usize::from(listing.documents.len() + listing.unreadable.len() != 1);
            }
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert!(complete > 0);
    assert_eq!(short, 0, "of {complete} readings");
}

/// As a ConfigMap volume is updated: one rename changes every file.
#[test]
fn a_swap_under_the_reader_is_seen_whole() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path();
    let files = ["a", "b", "c", "d"];
    for (version, cidr) in [("..1", "10.0.0.0/8"), ("..2", "11.0.0.0/8")] {
        fs::create_dir(path.join(version)).expect("made");
        for name in files {
            let file = path.join(version).join(format!("{name}.yaml"));
            fs::write(file, group(name, cidr)).expect("written");
        }
    }
    symlink("..1", path.join("..data")).expect("linked");
    for name in files {
        let file = format!("{name}.yaml");
        symlink(format!("..data/{file}"), path.join(&file)).expect("linked");
    }
    let mut source = DirectorySource::new(path, |resource: Resource| resource);
    let ended = AtomicBool::new(false);
    let (mut readings, mut mixed) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for version in ["..2", "..1"].iter().cycle() {
                symlink(version, path.join("..data_tmp")).expect("linked");
                fs::rename(path.join("..data_tmp"), path.join("..data")).expect("renamed");
                thread::sleep(Duration::from_millis(3));
                if ended.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            let Reading::Complete(listing) = source.read() else {
                continue;
            };
            let contents: Vec<_> = listing
                .documents
                .iter()
                .map(|document| match &document.content {
                    Ok(Resource::CidrGroup(group)) => group.spec.cidrs.clone(),
                    other => panic!("{other:?}"),
                })
                .collect();
            readings += 1;
            mixed += usize::from(contents.iter().any(|content| *content != contents[0]));
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert!(readings > 0);
    assert_eq!(mixed, 0, "of {readings} readings");
}
