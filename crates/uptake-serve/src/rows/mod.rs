//! Rows: what is ranked, how it is kept ready, and how it is served.
//!
//! [`Rows`] ranks; a board asks it again and again in the background, so that a request
//! reads memory. A rule that changes has all rows looked at again before it is answered.

pub(crate) mod age;
pub(crate) mod board;
pub(crate) mod inspect;
pub(crate) mod serve;
pub(crate) mod stream;
mod trends;

use std::sync::Arc;

use serde::Serialize;
use uptake_connectors::TableError;
use uptake_connectors::table::Table;
use uptake_model::{Epoch, TallyRow};
use uptake_trends::Past;
pub use uptake_trends::RowName;
use uptake_trends::rows::Choice;

pub use self::trends::{Lineage, TrendsRows, read_lineage};
pub(crate) use self::trends::{SEGMENTS_KNOWN, only_pinned};

/// A video in a row.
#[derive(Clone, PartialEq, Debug, Serialize, utoipa::ToSchema)]
pub struct Item {
    /// The video.
    #[schema(value_type = String)]
    pub video_id: Arc<str>,
    /// By what it is ranked; comparable within this row only.
    pub score: f64,
    /// Requests that played it, in the row's epoch.
    pub plays: u64,
    /// Requests that were shown it.
    pub impressions: u64,
    /// With what probability it was put here; 1 where nothing was drawn.
    pub propensity: f64,
    /// Whether a rule put it here.
    pub pinned: bool,
    /// Whether it was drawn to learn how it is taken, in a place that others would have had.
    pub explored: bool,
    /// What the catalogue calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The year it came out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub year: Option<i32>,
    /// Its genres.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub genres: Vec<String>,
}

/// A title that a row may draw to learn how it is taken.
#[derive(Clone, PartialEq, Debug)]
pub struct Candidate {
    /// The title as it would be served.
    pub item: Item,
    /// The chance that it is the best of the candidates.
    pub share: f64,
    /// Its estimated rate.
    pub rate: f64,
}

/// A ranked row, best first.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Ranked {
    /// The epoch it is of; none where there are no tallies.
    pub epoch: Option<Epoch>,
    /// The items.
    pub items: Vec<Item>,
    /// Whom its explored places are drawn from.
    pub candidates: Vec<Candidate>,
}

/// What ranks videos.
pub trait Rows: Send + Sync {
    /// The name and version of the way it ranks, which is logged with every served row.
    fn scorer(&self) -> &str;

    /// The `limit` best of a row, for a segment as the table names it.
    ///
    /// # Errors
    /// The table cannot be read.
    fn rank(
        &self,
        table: &dyn Table,
        row: RowName,
        segment: &str,
        limit: usize,
        choice: &Choice<'_>,
    ) -> Result<Ranked, TableError>;

    /// The newest epoch that was ranked of everyone, and the plays of a video in it; `None` where nothing was. Waits
    /// for nobody who reads the table.
    fn plays(&self, video: &str) -> Option<(Epoch, u64)>;

    /// How the epochs of a video were judged, oldest first; `rows` are its tallies of the segment.
    ///
    /// # Errors
    /// The table cannot be read.
    fn past(
        &self,
        table: &dyn Table,
        segment: &str,
        video: &str,
        rows: &[TallyRow],
        choice: &Choice<'_>,
    ) -> Result<Vec<Past>, TableError>;

    /// Why a video stands where it does, or what it lacks: numbers by name.
    ///
    /// # Errors
    /// The table cannot be read.
    fn why(
        &self,
        table: &dyn Table,
        segment: &str,
        video: &str,
        choice: &Choice<'_>,
    ) -> Result<serde_json::Value, TableError>;
}

/// The row of a name in an address.
pub(crate) fn of_name(name: &str) -> Option<RowName> {
    RowName::ALL.into_iter().find(|row| row.as_str() == name)
}
