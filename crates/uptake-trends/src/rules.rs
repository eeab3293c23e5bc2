//! People's rules: pin, block and boost titles in rows, each with an end.
//!
//! Who set a rule, when and why is kept where rules are written down; here is what they do.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uptake_model::EventTime;

use crate::rows::RowName;

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It stands at a position, whatever its score.
    Pin,
    /// It is not shown. A block wins over a pin.
    Block,
    /// Its score is multiplied.
    Boost,
}

/// A rule about one title.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its id; given by the server.
    #[serde(default)]
    pub id: String,
    /// What it does.
    pub action: Action,
    /// The title.
    pub video_id: String,
    /// The row it holds in; all rows where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<RowName>,
    /// The segment it holds in, as the rows name it; all where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// Where a pin stands, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// What a boost multiplies the score by, from 0.01 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// When it ends, in milliseconds since 1970 UTC; never where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// Why it is there, for those who come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Rule {
    /// Checks that it can be a rule.
    ///
    /// ```
    /// use uptake_trends::rules::Rule;
    /// let rule = |text: &str| serde_json::from_str::<Rule>(text).unwrap();
    /// assert!(rule(r#"{"action":"pin","video_id":"v1","position":3}"#).check().is_ok());
    /// assert!(rule(r#"{"action":"pin","video_id":"v1"}"#).check().unwrap_err().contains("position"));
    /// ```
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let id = &self.video_id;
        if id.is_empty() || id.len() > 1_024 {
            return Err("video_id has 1 to 1024 bytes".to_owned());
        }
        if self.note.as_ref().is_some_and(|note| note.len() > 1_000)
            || self.segment.as_ref().is_some_and(|segment| segment.len() > 1_024)
        {
            return Err("a note has at most 1000 bytes, a segment 1024".to_owned());
        }
        match (self.action, self.position, self.factor) {
            (Action::Pin, Some(1..=100), None) | (Action::Block, None, None) => Ok(()),
            (Action::Boost, None, Some(factor)) if (0.01..=100.0).contains(&factor) => Ok(()),
            (Action::Pin, ..) => Err("a pin has a position from 1 to 100 and no factor".to_owned()),
            (Action::Block, ..) => Err("a block has neither position nor factor".to_owned()),
            (Action::Boost, ..) => Err("a boost has a factor from 0.01 to 100 and no position".to_owned()),
        }
    }

    /// Whether it does something in this row, for this segment, now.
    pub fn holds(&self, row: RowName, segment: &str, now: EventTime) -> bool {
        self.row.is_none_or(|of| of == row)
            && self.segment.as_ref().is_none_or(|of| of == segment)
            && !self.is_over(now)
    }

    /// Whether its end has come.
    pub fn is_over(&self, now: EventTime) -> bool {
        self.expires_at.is_some_and(|end| end <= now.0)
    }
}

/// The rules that were set, by their ids.
///
/// ```
/// use uptake_model::EventTime;
/// use uptake_trends::rows::RowName;
/// use uptake_trends::rules::Rules;
/// let mut rules = Rules::default();
/// rules.set(serde_json::from_str(r#"{"id":"1","action":"block","video_id":"v1","expires_at":100}"#).unwrap());
/// assert!(rules.is_blocked("v1", RowName::Loved, "", EventTime(99)));
/// assert!(!rules.is_blocked("v1", RowName::Loved, "", EventTime(100)), "it has expired");
/// ```
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rules {
    rules: BTreeMap<String, Rule>,
    version: u64,
}

impl Rules {
    /// Sets a rule, in place of one with the same id.
    pub fn set(&mut self, rule: Rule) {
        self.version += 1;
        self.rules.insert(rule.id.clone(), rule);
    }

    /// Takes a rule back.
    pub fn remove(&mut self, id: &str) -> Option<Rule> {
        self.version += 1;
        self.rules.remove(id)
    }

    /// A rule by its id.
    pub fn get(&self, id: &str) -> Option<&Rule> {
        self.rules.get(id)
    }

    /// All of them, also those whose end has come.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.values()
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    fn holding(
        &self,
        action: Action,
        row: RowName,
        segment: &str,
        now: EventTime,
    ) -> impl Iterator<Item = &Rule> {
        self.rules.values().filter(move |rule| rule.action == action && rule.holds(row, segment, now))
    }

    /// The pinned titles with their positions from 1, first ones first.
    pub fn pinned(&self, row: RowName, segment: &str, now: EventTime) -> Vec<(usize, Arc<str>)> {
        let mut holding: Vec<&Rule> = self.holding(Action::Pin, row, segment, now).collect();
        holding.sort_by_key(|rule| (rule.position, &rule.id));
        let mut pins: Vec<(usize, Arc<str>)> = Vec::new();
        for rule in holding {
            if !pins.iter().any(|(_, video)| **video == *rule.video_id) {
                pins.push((rule.position.unwrap_or(1).max(1), rule.video_id.as_str().into()));
            }
        }
        pins
    }

    /// Whether a title is not to be shown.
    pub fn is_blocked(&self, video: &str, row: RowName, segment: &str, now: EventTime) -> bool {
        self.holding(Action::Block, row, segment, now).any(|rule| rule.video_id == video)
    }

    /// By what its score is multiplied.
    pub fn boost(&self, video: &str, row: RowName, segment: &str, now: EventTime) -> f64 {
        let of = self.holding(Action::Boost, row, segment, now).filter(|rule| rule.video_id == video);
        of.filter_map(|rule| rule.factor).product()
    }
}
