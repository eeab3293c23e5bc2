//! A sealed row without some of its requests, so that it takes the place of the row that is stored.
//!
//! The larger row wins and of equal ones the larger sets, so a row cannot simply lose a request: whoever writes the
//! old one again would bring it back. Instead each request is exchanged for a number that nobody has, drawn until the
//! new row wins by the table's own rule. The sizes of the sets, which are what is served, stay as they were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uptake_model::tally::{Counts, RequestSet, TallySets};
use uptake_model::{RequestId, TallyRow};

use super::cassandra::sets_at;
use super::sqlite::encode_set;

/// How often numbers are drawn before the row is let grow by one impression: where Cassandra's timestamp leaves no
/// place above the stored one, which it does for one row of 62.
const DRAWS: usize = 1_000;

/// The row without `requests`; `None` if it holds none of them, has no sets of ids, or cannot be made to win. `by_timestamp`:
/// the table is Cassandra. `random` gives a new number at each call.
///
/// ```
/// use std::collections::BTreeSet;
/// use std::sync::Arc;
/// use uptake_connectors::table::{MemoryTable, Table, without};
/// use uptake_model::tally::{Counts, RequestSet, TallySets};
/// use uptake_model::{Epoch, RequestId, TallyRow};
/// let (played, shown) = (RequestSet::Exact(vec![7]), RequestSet::Exact(vec![5, 7]));
/// let row = TallyRow {
///     video_id: "v".into(), segment: "".into(), epoch: Epoch(1), sealed: true,
///     counts: Counts { plays: 1, impressions: 2, exact: true }, sets: Some(Arc::new(TallySets { played, shown })),
/// };
/// let mut numbers = 1_000..;
/// let mut random = || numbers.next().unwrap_or_default();
/// let new = without(&row, &BTreeSet::from([RequestId(7)]), false, &mut random).unwrap();
/// assert_eq!(new.counts, row.counts);
/// let mut table = MemoryTable::new();
/// table.write(&[row.clone()])?;
/// table.write(&[new.clone()])?;
/// table.write(&[row])?; // a process that was paused changes nothing
/// assert_eq!(table.get("v", "", Epoch(1))?, Some(new));
/// assert!(table.find_request(RequestId(7))?.is_empty());
/// # Ok::<(), uptake_connectors::TableError>(())
/// ```
pub fn without(
    row: &TallyRow,
    requests: &BTreeSet<RequestId>,
    by_timestamp: bool,
    random: &mut dyn FnMut() -> u64,
) -> Option<TallyRow> {
    let sets = row.sets.as_deref()?;
    let holds = |set: &RequestSet| set.contains_any(requests) == Some(true);
    if !holds(&sets.played) && !holds(&sets.shown) {
        return None;
    }
    // To a sketch nothing can be added without its being another one.
    let can_grow = matches!(sets.shown, RequestSet::Exact(_));
    for draw in 0..2 * DRAWS {
        let more = usize::from(draw >= DRAWS && can_grow);
        // The same number in both sets: who played was shown it, as a rule.
        let mut instead = BTreeMap::new();
        let Some(played) = exchanged(&sets.played, requests, 0, &mut instead, random) else { continue };
        let Some(shown) = exchanged(&sets.shown, requests, more, &mut instead, random) else { continue };
        let counts = Counts { impressions: row.counts.impressions + more as u64, ..row.counts };
        let new = TallyRow { counts, sets: Some(Arc::new(TallySets { played, shown })), ..row.clone() };
        if supersedes(&new, row, by_timestamp) {
            return Some(new);
        }
    }
    None
}

/// The set with other numbers for `requests` and with so many more; `None` if one was there already.
fn exchanged(
    set: &RequestSet,
    requests: &BTreeSet<RequestId>,
    more: usize,
    instead: &mut BTreeMap<u64, u64>,
    random: &mut dyn FnMut() -> u64,
) -> Option<RequestSet> {
    let RequestSet::Exact(ids) = set else { return Some(set.clone()) };
    let mut new: Vec<u64> = Vec::with_capacity(ids.len() + more);
    for id in ids {
        new.push(match requests.contains(&RequestId(*id)) {
            true => *instead.entry(*id).or_insert_with(&mut *random),
            false => *id,
        });
    }
    new.extend((0..more).map(|_| random()));
    new.sort_unstable();
    let all_differ = new.windows(2).all(|pair| pair[0] != pair[1]);
    all_differ.then_some(RequestSet::Exact(new))
}

/// Whether a row takes the place of a stored one in a table.
fn supersedes(new: &TallyRow, stored: &TallyRow, by_timestamp: bool) -> bool {
    if new.counts.size() > stored.counts.size() {
        return true;
    }
    let bytes =
        |row: &TallyRow| row.sets.as_ref().map(|sets| (encode_set(&sets.played), encode_set(&sets.shown)));
    if by_timestamp { sets_at(new) > sets_at(stored) } else { bytes(new) > bytes(stored) }
}
