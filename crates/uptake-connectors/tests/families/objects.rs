//! What every store of objects must do.

use uptake_connectors::ObjectsError;
use uptake_connectors::objects::{Objects, PutObject};

/// Runs all of it; `make` makes an empty one and what keeps it alive.
pub(crate) fn objects<K>(make: impl Fn() -> (Box<dyn Objects>, K)) {
    the_first_put_stays(&*make().0);
    ranges_of_an_object(&*make().0);
    objects_are_listed_by_name(&*make().0);
    a_name_is_safe_in_a_path(&*make().0);
    objects_do_not_lie_below_objects(&*make().0);
    of_many_writers_one_wins(&*make().0);
    putting_and_deleting_do_not_disturb_each_other(&*make().0);
}

fn the_first_put_stays(objects: &dyn Objects) {
    assert_eq!(objects.get("a/b").unwrap(), None);
    assert_eq!(objects.put_if_absent("a/b", b"first").unwrap(), PutObject::Created);
    assert_eq!(objects.put_if_absent("a/b", b"second").unwrap(), PutObject::Exists);
    assert_eq!(objects.get("a/b").unwrap().unwrap(), b"first");
    assert_eq!(objects.get("a").unwrap(), None, "a folder is no object");
    assert_eq!(objects.get("a/b/c").unwrap(), None);
    objects.delete("a").unwrap();
    objects.delete("a/b/c").unwrap();
    objects.delete("x/y").unwrap();
    assert_eq!(objects.get("a/b").unwrap().unwrap(), b"first");
    objects.delete("a/b").unwrap();
    objects.delete("a/b").unwrap();
    assert_eq!(objects.get("a/b").unwrap(), None);
    assert_eq!(objects.put_if_absent("a/b", b"").unwrap(), PutObject::Created);
    assert_eq!(objects.get("a/b").unwrap().unwrap(), b"");
    objects.delete("a/b").unwrap();
    assert_eq!(objects.put_if_absent("a", b"now an object").unwrap(), PutObject::Created);
}

fn ranges_of_an_object(objects: &dyn Objects) {
    objects.put_if_absent("a", b"0123456789").unwrap();
    for (start, len, expected) in [
        (0, 10, "0123456789"),
        (0, 3, "012"),
        (4, 3, "456"),
        (8, 5, "89"),
        (10, 1, ""),
        (11, 1, ""),
        (3, 0, ""),
        (5, u64::MAX, "56789"),
        (u64::MAX, u64::MAX, ""),
    ] {
        assert_eq!(
            objects.get_range("a", start, len).unwrap().unwrap(),
            expected.as_bytes(),
            "{start}, {len}"
        );
    }
    assert_eq!(objects.get_range("b", 0, 1).unwrap(), None);
}

fn objects_are_listed_by_name(objects: &dyn Objects) {
    assert_eq!(objects.list("").unwrap(), []);
    for (n, name) in ["run/b/2", "run/a", "run/b/10", "run-2", "run.x", "z", "run/b-1"].iter().enumerate() {
        objects.put_if_absent(name, &vec![0; n]).unwrap();
    }
    let list = |prefix| {
        let found = objects.list(prefix).unwrap().into_iter();
        found.map(|info| format!("{} {}", info.name, info.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(list(""), ["run-2 3", "run.x 4", "run/a 1", "run/b-1 6", "run/b/10 2", "run/b/2 0", "z 5"]);
    assert_eq!(list("run/b"), ["run/b-1 6", "run/b/10 2", "run/b/2 0"]);
    assert_eq!(list("run/b/"), ["run/b/10 2", "run/b/2 0"]);
    assert_eq!(list("run/b/1"), ["run/b/10 2"]);
    assert!(list("x").is_empty() && list("z/").is_empty() && list("/").is_empty() && list("..").is_empty());
}

fn a_name_is_safe_in_a_path(objects: &dyn Objects) {
    let long = "x".repeat(201);
    for name in
        ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", ".a", "a/.b", "a b", "ä", "a\\b", "a\0", &long]
    {
        let refused = |error: ObjectsError| matches!(error, ObjectsError::Name { .. });
        assert!(objects.put_if_absent(name, b"").is_err_and(refused), "{name}");
        assert!(objects.get(name).is_err_and(refused), "{name}");
        assert!(objects.get_range(name, 0, 1).is_err_and(refused), "{name}");
        assert!(objects.delete(name).is_err_and(refused), "{name}");
    }
    for name in ["a", "A-1_b.c=d", "a.b/c..d/0", &long[1..]] {
        assert_eq!(objects.put_if_absent(name, b"").unwrap(), PutObject::Created, "{name}");
    }
}

fn objects_do_not_lie_below_objects(objects: &dyn Objects) {
    objects.put_if_absent("a/b", b"").unwrap();
    for (name, other) in [("a/b/c", "a/b"), ("a/b/c/d", "a/b"), ("a", "a/b")] {
        let error = objects.put_if_absent(name, b"").unwrap_err();
        assert!(matches!(&error, ObjectsError::Beside { other: found, .. } if found == other), "{error}");
    }
    assert_eq!(objects.list("").unwrap().len(), 1);
}

fn of_many_writers_one_wins(objects: &dyn Objects) {
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let put = |i: u8| move || objects.put_if_absent("a/b/c", &vec![i; 100_000]).unwrap();
        let threads: Vec<_> = (0..8).map(|i| scope.spawn(put(i))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winner = outcomes.iter().position(|put| *put == PutObject::Created).unwrap();
    assert_eq!(outcomes.iter().filter(|put| **put == PutObject::Created).count(), 1);
    assert!(objects.get("a/b/c").unwrap().unwrap() == vec![winner as u8; 100_000]);
    assert_eq!(objects.list("").unwrap().len(), 1, "and nothing else is left");
}

fn putting_and_deleting_do_not_disturb_each_other(objects: &dyn Objects) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for i in 0..40 {
                    let name = format!("run/batch/{thread}-{i}");
                    assert_eq!(objects.put_if_absent(&name, name.as_bytes()).unwrap(), PutObject::Created);
                    objects.list("run/").unwrap();
                    assert_eq!(objects.get(&name).unwrap().unwrap(), name.as_bytes());
                    objects.delete(&name).unwrap();
                }
            });
        }
    });
    assert_eq!(objects.list("").unwrap(), []);
}
