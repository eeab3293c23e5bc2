//! What must hold at the end: everything is as the plain contract says of all records.

use std::collections::{BTreeMap, BTreeSet};

use uptake::checkpoint::Store;
use uptake::stages::collect::DeadLetterKey;
use uptake_connectors::archive::Archive;
use uptake_connectors::log::Log;
use uptake_connectors::objects::{MemoryObjects, Objects};
use uptake_connectors::table::Table;
use uptake_model::TallyRow;
use uptake_model::tally::RequestSet;

use crate::dice::Dice;
use crate::events::{Expected, Question, RowKey};
use crate::life::Lived;
use crate::world::World;

/// Compares what the world has come to with what it must have.
///
/// # Errors
/// What differs.
pub(crate) fn check(world: &World, lived: &[Lived]) -> Result<(), String> {
    let config = world.case.config(&mut Dice::of(0, 0));
    let question = Question {
        rules: &config.join,
        epoch: config.epoch,
        segments: world.case.segments,
        member_max: world.case.member_max,
        counts_members: config.counts_members,
        cuts: world.case.cuts(),
    };
    let expected = Expected::of(&world.case.arrivals, &world.lock().at, &question);
    let rows = rows(world);
    table(world, &rows, &expected)?;
    let all_sealed = lived.iter().any(|lived| !lived.epochs_open && lived.last.is_some());
    archive(world, &rows, all_sealed)?;
    if !world.case.cuts()
        && all_sealed
        && let Some(open) = rows.values().find(|row| !row.sealed)
    {
        return Err(format!("the end sealed everything but {open:?}"));
    }
    for lived in lived {
        ledger(lived, &expected)?;
    }
    dead_letters(world, &expected)?;
    checkpoints(world)
}

fn rows(world: &World) -> BTreeMap<RowKey, TallyRow> {
    let mut rows = BTreeMap::new();
    for segment in world.table.segments().expect("in memory") {
        let mut keys = Vec::new();
        let scanned = world.table.scan(&segment, &mut |row| {
            keys.push((row.video_id, row.epoch));
            Ok(())
        });
        scanned.expect("in memory");
        for (video, epoch) in keys {
            let row = world.table.get(&video, &segment, epoch).expect("in memory").expect("it is there");
            rows.insert((segment.to_string(), video.to_string(), epoch.0), row);
        }
    }
    rows
}

fn table(world: &World, rows: &BTreeMap<RowKey, TallyRow>, expected: &Expected) -> Result<(), String> {
    let sizes = |key: &RowKey| {
        expected.rows.get(key).map(|(played, shown)| (played.len() as u64, shown.len() as u64))
    };
    let mut sealed: Vec<(&RowKey, (u64, u64))> = Vec::new();
    let state = world.lock();
    sealed.extend(state.sealed.iter().flat_map(|(key, with)| with.iter().map(move |with| (key, *with))));
    for (key, with) in sealed {
        let most = sizes(key).ok_or_else(|| format!("{key:?} was sealed, and should not be there"))?;
        if if world.case.cuts() { with.0 > most.0 || with.1 > most.1 } else { with != most } {
            return Err(format!("{key:?} was sealed with {with:?} instead of {most:?}"));
        }
    }
    drop(state);
    for (key, row) in rows {
        let counts = (row.counts.plays, row.counts.impressions);
        let Some(most) = sizes(key) else { return Err(format!("{row:?} should not be there")) };
        if world.case.cuts() {
            if counts.0 > most.0 || counts.1 > most.1 {
                return Err(format!("{row:?} is larger than {most:?}"));
            }
            continue;
        }
        if counts != most {
            return Err(format!("{row:?} should have {most:?}"));
        }
        let Some(sets) = &row.sets else { continue };
        let is_exact = |set: &RequestSet, ids: &BTreeSet<u64>| match set {
            RequestSet::Exact(found) => found.iter().eq(ids.iter()),
            RequestSet::Sketch(_) => world.case.sketches,
        };
        let (played, shown) = &expected.rows[key];
        if !is_exact(&sets.played, played) || !is_exact(&sets.shown, shown) {
            return Err(format!("{row:?} should hold {played:?} and {shown:?}"));
        }
    }
    match expected.rows.keys().find(|key| !rows.contains_key(*key)) {
        Some(key) if !world.case.cuts() => Err(format!("{key:?} is not in the table")),
        _ => Ok(()),
    }
}

/// The archive has what is sealed in the table, no more and no less. While epochs are open, a run
/// that died may have sealed one in one of them alone, which a later one does again when the
/// watermark is there again.
fn archive(world: &World, rows: &BTreeMap<RowKey, TallyRow>, all_sealed: bool) -> Result<(), String> {
    let mut archived = BTreeMap::new();
    for info in world.archive.parts().expect("in memory") {
        for row in world.archive.read_tallies(&info.part).expect("in memory") {
            let key = (row.segment.to_string(), row.video_id.to_string(), row.epoch.0);
            if archived.insert(key.clone(), row).is_some() {
                return Err(format!("{key:?} is in the archive twice"));
            }
        }
    }
    if world.case.cuts() {
        return Ok(());
    }
    if all_sealed
        && let Some((key, row)) = rows.iter().find(|(key, row)| row.sealed != archived.contains_key(*key))
    {
        return Err(format!("{key:?} is sealed in one of table and archive: {row:?}"));
    }
    for (key, row) in &archived {
        match rows.get(key) {
            Some(stored) if stored == row || (!all_sealed && stored.counts == row.counts) => {}
            other => return Err(format!("the archive has {row:?}, the table {other:?}")),
        }
    }
    Ok(())
}

fn ledger(lived: &Lived, expected: &Expected) -> Result<(), String> {
    let Some(ledger) = &lived.ledger else { return Ok(()) };
    let total = ledger.total();
    let (waiting, expired) = if lived.epochs_open {
        (total.waiting, expected.alone - total.waiting.min(expected.alone))
    } else {
        (0, expected.alone)
    };
    let found = [
        ("read", total.read, expected.read),
        ("counted", total.counted, expected.counted),
        ("duplicate", total.duplicate, expected.duplicate),
        ("waiting", total.waiting, waiting),
        ("expired", total.expired, expired),
        ("filtered", total.filtered_sum(), expected.filtered),
        ("dead", total.dead_sum(), expected.dead),
        ("blank", total.blank, expected.blank),
        ("capped", total.capped, expected.capped),
        ("late", total.late, 0),
        ("gap", total.gap, 0),
    ];
    match found.iter().find(|(_, found, expected)| found != expected) {
        Some((class, found, expected)) => Err(format!(
            "the ledger of a cluster that ended {:?} has {class} {found} instead of {expected}: {total:?}",
            lived.last
        )),
        None if ledger.balances() => Ok(()),
        None => Err(format!("the ledger does not balance: {ledger:?}")),
    }
}

fn dead_letters(world: &World, expected: &Expected) -> Result<(), String> {
    let read = |topic| world.log.read(topic, 0, 0, usize::MAX, usize::MAX).expect("in memory");
    if let Some(late) = read("late").first() {
        return Err(format!("nothing comes late, but {}", String::from_utf8_lossy(&late.value)));
    }
    let mut letters = BTreeSet::new();
    for stored in read("dead-letters") {
        let key: DeadLetterKey = serde_json::from_slice(&stored.key).expect("as it was written");
        letters.insert((key.source, key.partition, key.offset, stored.value));
    }
    match letters.symmetric_difference(&expected.letters).next() {
        None => Ok(()),
        Some(letter) => Err(format!("dead letters differ by {letter:?}")),
    }
}

/// Every checkpoint that is kept is whole but for what was torn.
fn checkpoints(world: &World) -> Result<(), String> {
    let torn = world.lock().torn.clone();
    let names: BTreeSet<&str> = world.case.clusters.iter().map(|(name, ..)| *name).collect();
    for cluster in names {
        let objects = std::sync::Arc::new(copy(&world.objects));
        let store = Store::new(objects.clone(), cluster);
        let manifests = store.manifests().map_err(|error| error.to_string())?;
        // From the newest to the oldest, each is the newest when those after it are gone.
        for (number, name) in manifests.iter().rev() {
            let newest = store.newest();
            objects.delete(name).expect("in memory");
            if torn.contains(name) {
                continue;
            }
            let found = newest.map_err(|error| error.to_string())?.checkpoint.map(|(m, _)| m.number);
            if found != Some(number.0) {
                return Err(format!("checkpoint {number} of {cluster} is not whole; {found:?} is"));
            }
        }
    }
    Ok(())
}

fn copy(objects: &MemoryObjects) -> MemoryObjects {
    let copy = MemoryObjects::new();
    for info in objects.list("").expect("in memory") {
        let bytes = objects.get(&info.name).expect("in memory").expect("it is there");
        copy.put_if_absent(&info.name, &bytes).expect("a new name");
    }
    copy
}
