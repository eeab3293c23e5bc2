//! Signs that no audience is behind a title's plays.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uptake_model::segment::{CAPPED, MEMBERS};
use uptake_model::tally::Counts;

/// Who is behind the plays of a title in an epoch, as the tallies of the reserved segments
/// [`MEMBERS`] and [`CAPPED`] say.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Support {
    /// Requests that played it, whether they name a member or not.
    pub played: u64,
    /// Requests of plays that name a member.
    pub plays: u64,
    /// Different members that played it; 0 if not known.
    pub members: u64,
    /// Requests of which a cap cut plays.
    pub capped: u64,
}

/// Fewer members than this make no trend, however often they play.
pub const MEMBERS_MIN: u64 = 10;
/// Up to here members are not looked at: what is played little yet has few members, and no robots.
pub const MEMBERS_PLAYS_MIN: u64 = 20;
/// Less than this many requests beyond the caps may be chance.
pub const CAPPED_MIN: u64 = 5;
/// More plays per member than this are no audience's.
pub const PLAYS_PER_MEMBER_MAX: f64 = 5.0;
/// A larger part of the requests that played it, of which something is wrong, is no audience's. A smaller one
/// is let pass, so that a few requests that somebody sends take no title of others out of the rows.
pub const PUSHED_PART_MAX: f64 = 0.2;

/// Why a title is thought to be pushed.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Suspicion {
    /// Few members played it.
    FewMembers {
        /// How many.
        members: u64,
    },
    /// Each member played it again and again.
    ManyPlaysPerMember {
        /// How often on average.
        plays: f64,
    },
    /// Much of it was beyond the caps.
    BeyondCaps {
        /// Which part.
        part: f64,
    },
    /// It stands at one height, out of nowhere.
    Flat {
        /// For how many epochs.
        epochs: u32,
    },
}

impl Support {
    /// What is suspicious of it, if anything.
    ///
    /// ```
    /// use uptake_trends::robots::{Support, Suspicion};
    /// let of = |plays, members, capped| Support { played: plays, plays, members, capped }.suspicion();
    /// assert_eq!(of(500, 400, 3), None);
    /// assert_eq!(of(500, 4, 0), Some(Suspicion::FewMembers { members: 4 }));
    /// assert!(matches!(of(500, 50, 0), Some(Suspicion::ManyPlaysPerMember { .. })));
    /// assert!(matches!(of(500, 400, 300), Some(Suspicion::BeyondCaps { .. })));
    /// // What few do to a title of which others make most of the plays says nothing of it.
    /// let few = Support { played: 100_000, plays: 20, members: 2, capped: 5 };
    /// assert_eq!(few.suspicion(), None);
    /// ```
    pub fn suspicion(&self) -> Option<Suspicion> {
        let Self { played, plays, members, capped } = *self;
        let all = played.max(plays).saturating_add(capped).max(1) as f64;
        let is_much = |requests: u64| requests as f64 > PUSHED_PART_MAX * all;
        let known = members > 0 && plays >= MEMBERS_PLAYS_MIN && is_much(plays);
        let per_member = plays as f64 / members.max(1) as f64;
        match () {
            () if capped >= CAPPED_MIN && is_much(capped) => {
                Some(Suspicion::BeyondCaps { part: capped as f64 / all })
            }
            () if known && members < MEMBERS_MIN => Some(Suspicion::FewMembers { members }),
            () if known && per_member > PLAYS_PER_MEMBER_MAX => {
                Some(Suspicion::ManyPlaysPerMember { plays: per_member })
            }
            () => None,
        }
    }
}

/// Who was behind a title's plays lately, by epoch.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Behind(BTreeMap<i64, Support>);

impl Behind {
    /// Takes in a row of a reserved segment: absolute values, of which the larger count.
    pub(crate) fn put(&mut self, segment: &str, epoch: i64, counts: Counts) {
        let support = self.0.entry(epoch).or_default();
        match segment {
            MEMBERS => {
                support.plays = support.plays.max(counts.impressions);
                support.members = support.members.max(counts.plays);
            }
            CAPPED => support.capped = support.capped.max(counts.plays),
            _ => {}
        }
    }

    /// Forgets the epochs before `first`; says whether any is left.
    pub(crate) fn forget(&mut self, first: i64) -> bool {
        self.0 = self.0.split_off(&first);
        !self.0.is_empty()
    }

    /// What is suspicious of the epochs from `first` on, the newest such first. `played` says how many requests
    /// played the title in an epoch.
    pub(crate) fn suspicion(&self, first: i64, played: impl Fn(i64) -> u64) -> Option<Suspicion> {
        let newest_first = self.0.range(first..).rev();
        newest_first
            .map(|(epoch, support)| Support { played: played(*epoch), ..*support })
            .find_map(|support| support.suspicion())
    }
}
