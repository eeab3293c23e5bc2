//! Objects in a directory: what others see of the files, and what a crash leaves.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use uptake_connectors::objects::{CHECKPOINTS, DirectoryObjects, Objects, PutObject};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_object_is_a_file_and_nothing_else_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let objects = DirectoryObjects::open(directory.path(), CHECKPOINTS).unwrap();
    objects.put_if_absent("run/7/state", b"bytes").unwrap();
    let root = directory.path().join("checkpoints");
    assert_eq!(fs::read(root.join("run/7/state")).unwrap(), b"bytes");
    assert_eq!(names(&root), ["run"]);
    // What lies beside it of others is neither listed nor removed.
    fs::write(root.join("run/7/.hidden"), "").unwrap();
    assert_eq!(objects.list("").unwrap().len(), 1);
    objects.delete("run/7/state").unwrap();
    assert_eq!(names(&root.join("run/7")), [".hidden"]);
    fs::remove_file(root.join("run/7/.hidden")).unwrap();
    objects.put_if_absent("run/7/state", b"").unwrap();
    objects.delete("run/7/state").unwrap();
    assert!(names(&root).is_empty(), "folders go with their last object");
    // Another one on the same directory sees the same.
    objects.put_if_absent("a", b"1").unwrap();
    let other = DirectoryObjects::open(directory.path(), CHECKPOINTS).unwrap();
    assert_eq!(other.put_if_absent("a", b"2").unwrap(), PutObject::Exists);
    assert_eq!(other.get("a").unwrap().unwrap(), b"1");
}

#[test]
fn what_a_crash_left_is_removed_an_hour_later() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("checkpoints");
    fs::create_dir_all(root.join("run")).unwrap();
    let hours = |hours: f64| SystemTime::now() - Duration::from_secs_f64(3_600.0 * hours);
    for (name, age) in [
        (".a.1-0.tmp", 1.1),
        (".b.1-1.tmp", 0.9),
        (".lock", 50.0),
        ("old-object", 50.0),
        ("object.tmp", 50.0),
    ] {
        File::create(root.join(name)).unwrap().set_modified(hours(age)).unwrap();
    }
    let objects = DirectoryObjects::open(directory.path(), CHECKPOINTS).unwrap();
    assert_eq!(names(&root), [".b.1-1.tmp", ".lock", "object.tmp", "old-object", "run"]);
    let listed: Vec<_> = objects.list("").unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(listed, ["object.tmp", "old-object"]);
}
