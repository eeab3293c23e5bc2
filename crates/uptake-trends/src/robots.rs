//! Signs that no audience is behind a title's plays.

use serde::{Deserialize, Serialize};

/// Who is behind the plays of a title, as the caller counted it over the last epochs.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Support {
    /// Plays.
    pub plays: u64,
    /// Different members that played it; 0 if not known.
    pub members: u64,
    /// Plays that the caps per request or per member cut.
    pub capped: u64,
}

/// As few members as this make no trend.
pub const MEMBERS_MIN: u64 = 10;
/// More plays per member than this are no audience's.
pub const PLAYS_PER_MEMBER_MAX: f64 = 5.0;
/// A larger part of plays beyond the caps is no audience's.
pub const CAPPED_PART_MAX: f64 = 0.2;

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
    /// let of = |plays, members, capped| Support { plays, members, capped }.suspicion();
    /// assert_eq!(of(500, 400, 3), None);
    /// assert_eq!(of(500, 4, 0), Some(Suspicion::FewMembers { members: 4 }));
    /// assert!(matches!(of(500, 50, 0), Some(Suspicion::ManyPlaysPerMember { .. })));
    /// assert!(matches!(of(500, 400, 300), Some(Suspicion::BeyondCaps { .. })));
    /// ```
    pub fn suspicion(&self) -> Option<Suspicion> {
        let Self { plays, members, capped } = *self;
        let (all, known) = (plays + capped, members > 0);
        let part = capped as f64 / all.max(1) as f64;
        let per_member = plays as f64 / members.max(1) as f64;
        match () {
            () if part > CAPPED_PART_MAX => Some(Suspicion::BeyondCaps { part }),
            () if known && members < MEMBERS_MIN => Some(Suspicion::FewMembers { members }),
            () if known && per_member > PLAYS_PER_MEMBER_MAX => {
                Some(Suspicion::ManyPlaysPerMember { plays: per_member })
            }
            () => None,
        }
    }
}
