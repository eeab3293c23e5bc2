//! The ledger: what became of every record that was read, so that nothing disappears silently.
//!
//! Per source partition: read = counted + waiting + expired + filtered + dead + duplicate + late
//! + capped + gap. It holds numbers only and is added up over workers.

use serde::{Deserialize, Serialize};

use crate::event::{Kind, Reason};

/// Upper ends of the age classes of late events, in hours behind the watermark; the last class is open.
pub const LATE_AGE_HOURS: [u32; 5] = [1, 3, 6, 12, 24];

/// The books of one source partition. All fields are numbers of records.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    /// Records read: lines, or elements of an array of events.
    pub read: u64,
    /// Events that count.
    pub counted: u64,
    /// Events whose request may still bring its other half.
    pub waiting: u64,
    /// Events whose request never brought its other half in time.
    pub expired: u64,
    /// Of the expired: plays, which no impression came for. Under `join.kind = "left"` they are the
    /// organic plays, and all that expires. Saved under the name it had when it was counted for these alone.
    #[serde(rename = "organic")]
    pub expired_plays: u64,
    /// Dropped by each filter, in the order of the configuration.
    pub filtered: Vec<u64>,
    /// Dead letters by reason, in the order of [`Reason::ALL`].
    #[serde(deserialize_with = "padded")]
    pub dead: [u64; Reason::ALL.len()],
    /// Delivered again: request, kind, video and time as before.
    pub duplicate: u64,
    /// Came when the watermark had passed them by more than horizon and lateness.
    pub late: u64,
    /// The late ones by age, see [`LATE_AGE_HOURS`].
    #[serde(deserialize_with = "padded")]
    pub late_by_age: [u64; LATE_AGE_HOURS.len() + 1],
    /// Cut by the cap per request or per member and epoch.
    pub capped: u64,
    /// Dropped by the log before they could be read. They count as read, so that the books still
    /// say how many records there were.
    #[serde(default)]
    pub gap: u64,
    /// Blank lines, which are no records and not part of `read`.
    pub blank: u64,
}

/// Reads a list of classes that may have been written before the last ones were added.
fn padded<'de, D: serde::Deserializer<'de>, const N: usize>(from: D) -> Result<[u64; N], D::Error> {
    let known = Vec::<u64>::deserialize(from)?;
    if known.len() > N {
        return Err(serde::de::Error::invalid_length(known.len(), &"at most the known classes"));
    }
    let mut all = [0; N];
    all[..known.len()].copy_from_slice(&known);
    Ok(all)
}

impl Account {
    /// Records dropped by any filter.
    pub fn filtered_sum(&self) -> u64 {
        self.filtered.iter().sum()
    }

    /// Dead letters for any reason.
    pub fn dead_sum(&self) -> u64 {
        self.dead.iter().sum()
    }

    /// All that is accounted for; equals `read` when the books balance.
    pub fn accounted(&self) -> u64 {
        self.counted.wrapping_add(self.waiting).wrapping_add(self.expired)
            + self.filtered_sum()
            + self.dead_sum()
            + self.duplicate
            + self.late
            + self.capped
            + self.gap
    }

    /// Whether every record read is accounted for, and every class adds up.
    pub fn balances(&self) -> bool {
        self.read == self.accounted() && self.late == self.late_by_age.iter().sum::<u64>()
    }

    /// Counts one late event that lies `age_ms` behind the watermark.
    pub fn add_late(&mut self, age_ms: i64) {
        let hours = age_ms / 3_600_000;
        let class = LATE_AGE_HOURS.iter().position(|&h| hours < i64::from(h)).unwrap_or(LATE_AGE_HOURS.len());
        self.late += 1;
        self.late_by_age[class] += 1;
    }

    /// Counts `n` records that the log dropped before they could be read, in `read`, too.
    pub fn add_gap(&mut self, n: u64) {
        self.read += n;
        self.gap += n;
    }

    /// So many events wait.
    #[inline]
    pub fn begin_waiting(&mut self, events: u64) {
        self.waiting = self.waiting.wrapping_add(events);
    }

    /// One event waits no longer.
    ///
    /// Where the books are kept in parts, the part that saw the event begin to wait may be
    /// another one: this one then stands below nothing, which only shows when all are added up.
    #[inline]
    pub fn end_waiting(&mut self) {
        self.waiting = self.waiting.wrapping_sub(1);
    }

    /// So many events of a kind wait no longer, because their request never brought its other half.
    #[inline]
    pub fn expire(&mut self, kind: Kind, events: u64) {
        self.waiting = self.waiting.wrapping_sub(events);
        self.expired += events;
        self.expired_plays += if kind == Kind::Play { events } else { 0 };
    }

    /// Counts one dead letter.
    pub fn add_dead(&mut self, reason: Reason) {
        self.dead[reason as usize] += 1;
    }

    /// Counts one record dropped by filter number `rule`.
    pub fn add_filtered(&mut self, rule: usize) {
        if self.filtered.len() <= rule {
            self.filtered.resize(rule + 1, 0);
        }
        self.filtered[rule] += 1;
    }

    fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.counted += other.counted;
        self.waiting = self.waiting.wrapping_add(other.waiting);
        self.expired += other.expired;
        self.expired_plays += other.expired_plays;
        if self.filtered.len() < other.filtered.len() {
            self.filtered.resize(other.filtered.len(), 0);
        }
        self.filtered.iter_mut().zip(&other.filtered).for_each(|(a, b)| *a += b);
        self.dead.iter_mut().zip(&other.dead).for_each(|(a, b)| *a += b);
        self.duplicate += other.duplicate;
        self.late += other.late;
        self.late_by_age.iter_mut().zip(&other.late_by_age).for_each(|(a, b)| *a += b);
        self.capped += other.capped;
        self.gap += other.gap;
        self.blank += other.blank;
    }
}

/// The books of all partitions.
///
/// ```
/// use uptake_model::ledger::Ledger;
/// let mut ledger = Ledger::default();
/// ledger.account(0).read += 2;
/// ledger.account(0).counted += 1;
/// assert!(!ledger.balances());
/// ledger.account(0).duplicate += 1;
/// assert!(ledger.balances());
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    accounts: Vec<Account>,
}

impl Ledger {
    /// The books of `partition`.
    #[inline]
    pub fn account(&mut self, partition: u32) -> &mut Account {
        let index = partition as usize;
        if index >= self.accounts.len() {
            self.accounts.resize_with(index + 1, Account::default);
        }
        &mut self.accounts[index]
    }

    /// The books of all partitions, by number.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// All partitions added up.
    pub fn total(&self) -> Account {
        let mut total = Account::default();
        self.accounts.iter().for_each(|a| total.add(a));
        total
    }

    /// Adds the books of another worker.
    pub fn merge(&mut self, other: &Self) {
        for (partition, account) in (0..).zip(&other.accounts) {
            self.account(partition).add(account);
        }
    }

    /// Whether every partition balances.
    pub fn balances(&self) -> bool {
        self.accounts.iter().all(Account::balances)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_events_are_classed_by_age() {
        let mut a = Account::default();
        for hours in [0, 1, 2, 23, 24, 1000] {
            a.add_late(hours * 3_600_000);
        }
        a.read = 6;
        assert_eq!(a.late_by_age, [1, 2, 0, 0, 1, 2]);
        assert!(a.balances());
    }

    #[test]
    fn a_gap_is_read_and_accounted_for() {
        let (mut one, mut two) = (Ledger::default(), Ledger::default());
        one.account(0).add_gap(5);
        two.account(0).add_gap(2);
        one.merge(&two);
        assert!(one.balances());
        assert_eq!((one.total().read, one.total().gap), (7, 7));
    }

    #[test]
    fn books_from_before_a_reason_was_added_are_read() {
        let mut json = serde_json::to_value(Account { capped: 1, ..Account::default() }).unwrap();
        json["dead"].as_array_mut().unwrap().pop();
        let account: Account = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(account, Account { capped: 1, ..Account::default() });
        json["dead"].as_array_mut().unwrap().extend([0.into(), 0.into()]);
        assert!(serde_json::from_value::<Account>(json).is_err(), "of a later program");
    }

    #[test]
    fn books_from_before_gaps_were_kept_are_read() {
        let mut json = serde_json::to_value(Account { capped: 1, ..Account::default() }).unwrap();
        assert_eq!(json.as_object_mut().unwrap().remove("gap"), Some(0.into()));
        let account: Account = serde_json::from_value(json).unwrap();
        assert_eq!(account, Account { capped: 1, ..Account::default() });
    }

    #[test]
    fn workers_add_up_to_one_ledger() {
        let (mut one, mut two) = (Ledger::default(), Ledger::default());
        one.account(0).read = 3;
        one.account(0).add_dead(Reason::NotJson);
        one.account(0).add_filtered(2);
        two.account(1).read = 1;
        two.account(1).counted = 1;
        two.account(0).counted = 1;
        one.merge(&two);
        assert!(one.balances());
        assert_eq!(one.total().read, 4);
        assert_eq!(one.total().filtered, [0, 0, 1]);
    }
}
