//! `uptake dead-letters`: what could not be used, to look at and, after a fix, to read again.
//!
//! A record that was read twice around a crash is in the topic twice; here it is one letter,
//! known by its place and its bytes. (An array may hold several dead records at one place.)

mod list;
mod replay;

use std::collections::HashSet;

pub(super) use list::newest;
pub(super) use replay::again;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use uptake_connectors::log::{Log, Stored};
use uptake_model::{Reason, RequestId};

use super::{CommandError, READ_BYTES, READ_RECORDS};
use crate::data_dir::{DEAD_LETTERS, DEAD_LETTERS_REPLAYED};
use crate::outputs::notice;
use crate::stages::collect::DeadLetterKey;

#[derive(Subcommand, Debug)]
pub(super) enum DeadLetters {
    /// Print what could not be used: when, why, where it was read, and its bytes
    List(list::List),
    /// Append dead letters to the input again, after a fix of the configuration
    ///
    /// Appends the original bytes as `uptake append` does. Only what the given configuration can
    /// read is appended; the rest stays for another fix. What was appended is written down in the
    /// topic dead-letters-replayed, so that doing it again appends only what is new. After a crash
    /// in between some records may be appended twice, which the join takes for duplicates.
    ///
    /// `uptake run` reads them on. Events that are too late for it by now go to the topic late;
    /// `uptake backfill` counts them.
    Replay(replay::Replay),
}

impl DeadLetters {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self {
            Self::List(list) => list.run(),
            Self::Replay(replay) => replay.run(),
        }
    }
}

/// A reason by its name.
fn reason(text: &str) -> Result<Reason, String> {
    Reason::ALL.into_iter().find(|reason| reason.name() == text).ok_or_else(|| {
        format!("the reasons are {}", Reason::ALL.map(|reason| reason.name().to_owned()).join(", "))
    })
}

/// A dead letter.
struct Letter {
    /// Its offset in the topic of dead letters.
    number: u64,
    appended_ms: i64,
    key: DeadLetterKey,
    bytes: Vec<u8>,
    /// Whether it was appended to the input again.
    replayed: bool,
}

/// How many dead letters of a log were appended to the input again.
pub(super) fn replayed(log: &dyn Log) -> Result<u64, CommandError> {
    Ok(Replayed::read(log)?.len())
}

/// Which letters were appended again, in ranges of their numbers: from, and the first behind.
#[derive(Default, Serialize, Deserialize)]
struct Replayed {
    ranges: Vec<(u64, u64)>,
}

impl Replayed {
    fn read(log: &dyn Log) -> Result<Self, CommandError> {
        let mut all = Self::default();
        if log.partitions(DEAD_LETTERS_REPLAYED).is_ok() {
            each_copy(log, DEAD_LETTERS_REPLAYED, &mut |record| {
                if let Ok(replayed) = serde_json::from_slice::<Self>(&record.value) {
                    all.ranges.extend(replayed.ranges);
                }
                Ok(())
            })?;
        }
        all.ranges.sort_unstable();
        Ok(all)
    }

    /// How many there are.
    fn len(&self) -> u64 {
        self.ranges.iter().map(|(from, end)| end - from).sum()
    }

    /// Adds the number of a later letter.
    fn add(&mut self, number: u64) {
        match self.ranges.last_mut() {
            Some((_, end)) if *end == number => *end += 1,
            _ => self.ranges.push((number, number + 1)),
        }
    }

    /// The ranges do not overlap, as no letter is appended twice, but around a crash.
    fn contains(&self, number: u64) -> bool {
        let behind = self.ranges.partition_point(|(from, _)| *from <= number);
        behind > 0 && number < self.ranges[behind - 1].1
    }
}

/// Reads a topic of one partition up to where it ends now, as copies: `each` may append to the log.
fn each_copy(
    log: &dyn Log,
    topic: &str,
    each: &mut dyn FnMut(Stored) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let (mut offset, end) = (log.start_offset(topic, 0)?, log.end_offset(topic, 0)?);
    while offset < end {
        for record in log.read(topic, 0, offset, READ_RECORDS, READ_BYTES)? {
            offset = record.offset + 1;
            each(record)?;
        }
    }
    Ok(())
}

/// Calls `each` with every dead letter once, in the order in which they came.
fn each_letter(
    log: &dyn Log,
    each: &mut dyn FnMut(Letter) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    if log.partitions(DEAD_LETTERS).is_err() {
        return Ok(());
    }
    let replayed = Replayed::read(log)?;
    let (mut seen, mut others) = (HashSet::new(), 0u64);
    each_copy(log, DEAD_LETTERS, &mut |record| {
        let Ok(key) = serde_json::from_slice::<DeadLetterKey>(&record.key) else {
            others += 1;
            return Ok(());
        };
        // Any good hash of bytes does; two of them do not meet by chance.
        let hash = |bytes: &[u8]| RequestId::from_text(bytes);
        let place = format!("{}\n{}\n{}", key.source, key.partition, key.offset);
        if !seen.insert((hash(place.as_bytes()), hash(&[b"bytes ", &*record.value].concat()))) {
            return Ok(());
        }
        each(Letter {
            number: record.offset,
            appended_ms: record.appended_ms,
            key,
            bytes: record.value,
            replayed: replayed.contains(record.offset),
        })
    })?;
    if others > 0 {
        notice(&format!("{others} records of the topic {DEAD_LETTERS} are no dead letters; left out"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_numbers() {
        let mut replayed = Replayed::default();
        [0, 1, 2, 7, 9, 10].into_iter().for_each(|number| replayed.add(number));
        assert_eq!(replayed.ranges, [(0, 3), (7, 8), (9, 11)]);
        let inside: Vec<u64> = (0..13).filter(|&number| replayed.contains(number)).collect();
        assert_eq!(inside, [0, 1, 2, 7, 9, 10]);
        assert!(!Replayed::default().contains(0));
    }

    #[test]
    fn reasons_by_name() {
        assert_eq!(reason("not-json"), Ok(Reason::NotJson));
        assert!(reason("json").unwrap_err().contains("not-json, not-an-object"));
    }
}
