//! What every log must do, wherever it is.

use uptake_connectors::LogError;
use uptake_connectors::log::{Log, Record};

/// Runs all of it; `make` makes an empty log and what keeps it alive.
pub(crate) fn log<K>(make: impl Fn() -> (Box<dyn Log>, K)) {
    topics_keep_their_number_of_partitions(&*make().0);
    a_topic_name_is_safe_in_a_path(&*make().0);
    what_was_appended_is_read_in_order(&*make().0);
    limits_of_a_read(&*make().0);
    visiting_is_reading(&*make().0);
    a_visitor_may_use_the_log(&*make().0);
    offsets_out_of_range_are_errors(&*make().0);
    times_find_offsets(&*make().0);
    retention_keeps_what_it_must(&*make().0);
    partitions_are_apart_under_threads(&*make().0);
}

fn topics_keep_their_number_of_partitions(log: &dyn Log) {
    log.create_topic("plays", 3).unwrap();
    log.create_topic("plays", 3).unwrap();
    log.create_topic("impressions", 1).unwrap();
    assert_eq!(log.topics(), ["impressions", "plays"]);
    assert_eq!(log.partitions("plays").unwrap(), 3);
    assert!(matches!(log.create_topic("plays", 4), Err(LogError::PartitionCount { has: 3, asked: 4, .. })));
    assert!(matches!(log.create_topic("none", 0), Err(LogError::PartitionCount { asked: 0, .. })));
    assert!(matches!(log.partitions("late"), Err(LogError::UnknownTopic { .. })));
    assert!(matches!(log.append("late", 0, &[], 0), Err(LogError::UnknownTopic { .. })));
    assert!(matches!(
        log.end_offset("plays", 3),
        Err(LogError::UnknownPartition { partition: 3, partitions: 3, .. })
    ));
}

fn a_topic_name_is_safe_in_a_path(log: &dyn Log) {
    for name in ["", ".", "..", ".lock", "a/b", "A", "a b", "ä", &"x".repeat(201)] {
        assert!(matches!(log.create_topic(name, 1), Err(LogError::TopicName { .. })), "{name}");
    }
    for name in ["a", "dead-letters", "a.b_c-0", &"x".repeat(200)] {
        log.create_topic(name, 1).unwrap();
    }
}

fn records(from: u64, n: u64) -> Vec<Record> {
    (from..from + n).map(|i| Record::new(format!("k{i}"), format!("value {i}"))).collect()
}

fn what_was_appended_is_read_in_order(log: &dyn Log) {
    log.create_topic("t", 1).unwrap();
    assert_eq!(log.append("t", 0, &[], 5).unwrap(), 0);
    let mut next = 0;
    for n in [1, 5, 2, 30, 1, 1] {
        assert_eq!(log.append("t", 0, &records(next, n), 1_000 + next as i64).unwrap(), next);
        next += n;
    }
    assert_eq!(log.append("t", 0, &[Record::default()], 7).unwrap(), next, "an empty record is one");
    assert_eq!((log.start_offset("t", 0).unwrap(), log.end_offset("t", 0).unwrap()), (0, next + 1));
    for from in 0..=next {
        let read = log.read("t", 0, from, usize::MAX, usize::MAX).unwrap();
        assert_eq!(read.len() as u64, next + 1 - from);
        for (stored, offset) in read.iter().zip(from..) {
            assert_eq!(stored.offset, offset);
            if offset < next {
                assert_eq!(Record::new(stored.key.clone(), stored.value.clone()), records(offset, 1)[0]);
            }
        }
    }
    assert_eq!(log.read("t", 0, 3, 1, usize::MAX).unwrap()[0].appended_ms, 1_001);
}

fn limits_of_a_read(log: &dyn Log) {
    log.create_topic("t", 1).unwrap();
    let ten: Vec<_> = (0..10).map(|_| Record::new(vec![b'k'; 10], vec![b'v'; 90])).collect();
    log.append("t", 0, &ten[..7], 1).unwrap();
    log.append("t", 0, &ten[7..], 1).unwrap();
    for (max_records, max_bytes, expected) in
        [(0, 1_000, 0), (3, 1_000, 3), (100, 0, 1), (100, 99, 1), (100, 100, 1), (100, 299, 2), (100, 300, 3)]
    {
        assert_eq!(log.read("t", 0, 0, max_records, max_bytes).unwrap().len(), expected);
    }
    // Reading on in steps of any size gives every record once.
    for step in 1..=11 {
        let mut next = 0;
        while next < 10 {
            let read = log.read("t", 0, next, step, usize::MAX).unwrap();
            assert!(read.iter().map(|r| r.offset).eq(next..next + read.len() as u64) && !read.is_empty());
            next += read.len() as u64;
        }
        assert_eq!(log.read("t", 0, next, step, usize::MAX).unwrap(), []);
    }
}

fn visiting_is_reading(log: &dyn Log) {
    log.create_topic("t", 1).unwrap();
    for (n, first) in [(3, 0), (1, 3), (20, 4), (6, 24)] {
        log.append("t", 0, &records(first, n), 1_000 + first as i64).unwrap();
    }
    // Two readers at different places, each going on where it stopped, and a third that jumps.
    let mut places = [0, 7];
    for step in 0..40 {
        let limit = [1, 2, 5][step % 3];
        for place in &mut places {
            let mut seen = Vec::new();
            let next = log
                .read_each("t", 0, *place, limit, usize::MAX, &mut |record| seen.push(record.to_stored()))
                .unwrap();
            assert_eq!(seen, log.read("t", 0, *place, limit, usize::MAX).unwrap());
            assert_eq!(
                (next, seen.len() as u64),
                (*place + seen.len() as u64, (30 - *place).min(limit as u64))
            );
            *place = next;
        }
        let jump = (step as u64 * 7) % 31;
        let read = log.read("t", 0, jump, 3, usize::MAX).unwrap();
        assert!(read.iter().map(|r| r.offset).eq(jump..30.min(jump + 3)));
    }
    assert_eq!(places, [30, 30]);
    assert_eq!(log.read_each("t", 0, 4, 0, 100, &mut |_| panic!("none is wanted")).unwrap(), 4);
}

fn a_visitor_may_use_the_log(log: &dyn Log) {
    log.create_topic("t", 1).unwrap();
    log.append("t", 0, &records(0, 3), 1).unwrap();
    let mut again = Vec::new();
    let next = log
        .read_each("t", 0, 0, 10, usize::MAX, &mut |record| {
            again.push(log.append("t", 0, &[Record::new(record.key, record.value)], 2).unwrap());
        })
        .unwrap();
    assert_eq!((next, again), (3, vec![3, 4, 5]), "what was there when it began");
}

fn offsets_out_of_range_are_errors(log: &dyn Log) {
    log.create_topic("t", 1).unwrap();
    assert_eq!(log.read("t", 0, 0, 10, 10).unwrap(), []);
    log.append("t", 0, &records(0, 2), 1).unwrap();
    assert_eq!(log.read("t", 0, 2, 10, 10).unwrap(), []);
    assert!(matches!(
        log.read("t", 0, 3, 10, 10),
        Err(LogError::OffsetOutOfRange { offset: 3, start: 0, end: 2, .. })
    ));
}

fn times_find_offsets(log: &dyn Log) {
    log.create_topic("t", 1).unwrap();
    assert_eq!(log.offset_for_time("t", 0, 0).unwrap(), 0);
    for i in 0..10 {
        log.append("t", 0, &records(2 * i, 2), 1_000 + 100 * i as i64).unwrap();
    }
    for (ms, offset) in
        [(-1, 0), (0, 0), (1_000, 0), (1_001, 2), (1_100, 2), (1_850, 18), (1_900, 18), (1_901, 20)]
    {
        assert_eq!(log.offset_for_time("t", 0, ms).unwrap(), offset, "{ms} ms");
    }
}

fn retention_keeps_what_it_must(log: &dyn Log) {
    log.create_topic("t", 1).unwrap();
    for i in 0..20 {
        log.append("t", 0, &records(3 * i, 3), i as i64).unwrap();
    }
    for offset in [0, 10, 10, 31, 31, 60, 99] {
        let start = log.truncate_before("t", 0, offset).unwrap();
        assert!(start <= offset && start <= 60);
        assert_eq!(log.start_offset("t", 0).unwrap(), start);
        assert_eq!(log.end_offset("t", 0).unwrap(), 60);
        let read = log.read("t", 0, start, 1_000, usize::MAX).unwrap();
        assert!(read.iter().map(|r| r.offset).eq(start..60));
        if start > 0 {
            assert!(matches!(log.read("t", 0, 0, 1, 1), Err(LogError::OffsetOutOfRange { .. })));
        }
    }
    assert_eq!(log.append("t", 0, &records(60, 1), 0).unwrap(), 60);
}

fn partitions_are_apart_under_threads(log: &dyn Log) {
    log.create_topic("t", 4).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            scope.spawn(move || {
                for i in 0..50 {
                    let partition = (thread % 4) as u32;
                    let offset = log.append("t", partition, &records(thread, 2), i).unwrap();
                    let read = log.read("t", partition, offset, 2, usize::MAX).unwrap();
                    assert_eq!(read[0].key, records(thread, 1)[0].key);
                }
            });
        }
    });
    for partition in 0..4 {
        let read = log.read("t", partition, 0, 1_000, usize::MAX).unwrap();
        assert!(read.iter().map(|r| r.offset).eq(0..200));
    }
}
