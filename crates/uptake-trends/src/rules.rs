//! People's rules: pin, block, boost; each with an end, and a record of who set it and why.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uptake_model::EventTime;

use crate::rows::RowName;

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum Action {
    /// It stands in the first places, in the order of the rules.
    Pin,
    /// It is not shown. A block wins over a pin.
    Block,
    /// Its score is multiplied.
    Boost {
        /// By this much.
        factor: f64,
    },
}

/// A rule about one title.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// The title.
    pub video: Arc<str>,
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
    /// Only in this row.
    #[serde(default)]
    pub row: Option<RowName>,
    /// Only in this segment.
    #[serde(default)]
    pub segment: Option<String>,
    /// From when on it does no more, in ms since 1970.
    #[serde(default)]
    pub expires_ms: Option<i64>,
}

/// A line of the record: who changed which rule when, and why.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Audit {
    /// When, in ms since 1970.
    pub at_ms: i64,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
    /// Whether the rule was set, not taken back.
    pub set: bool,
    /// The rule.
    pub rule: Rule,
}

/// The rules in force, and the record of how they came to be.
///
/// ```
/// use uptake_model::EventTime;
/// use uptake_trends::rows::RowName;
/// use uptake_trends::rules::{Action, Rule, Rules};
/// let rule = Rule { video: "v1".into(), action: Action::Block, row: None, segment: None, expires_ms: Some(100) };
/// let mut rules = Rules::default();
/// rules.set(rule, EventTime(10), "ana", "licence ends");
/// assert!(rules.is_blocked("v1", RowName::Loved, "", EventTime(99)));
/// assert!(!rules.is_blocked("v1", RowName::Loved, "", EventTime(100)), "it has expired");
/// assert_eq!(rules.audit()[0].by, "ana");
/// ```
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Rules {
    rules: Vec<Rule>,
    audit: Vec<Audit>,
}

impl Rules {
    /// Sets a rule.
    pub fn set(&mut self, rule: Rule, at: EventTime, by: &str, why: &str) {
        self.rules.retain(|other| *other != rule);
        self.rules.push(rule.clone());
        self.record(rule, at, by, why, true);
    }

    /// Takes back all rules about a title that do the same; returns how many.
    pub fn unset(&mut self, rule: &Rule, at: EventTime, by: &str, why: &str) -> usize {
        let before = self.rules.len();
        self.rules.retain(|other| other != rule);
        if before > self.rules.len() {
            self.record(rule.clone(), at, by, why, false);
        }
        before - self.rules.len()
    }

    fn record(&mut self, rule: Rule, at: EventTime, by: &str, why: &str, set: bool) {
        self.audit.push(Audit { at_ms: at.0, by: by.to_owned(), why: why.to_owned(), set, rule });
    }

    /// All changes, oldest first.
    pub fn audit(&self) -> &[Audit] {
        &self.audit
    }

    /// The rules, also those that have expired.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn in_force<'a>(
        &'a self,
        row: RowName,
        segment: &'a str,
        now: EventTime,
    ) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| {
            rule.expires_ms.is_none_or(|end| now.0 < end)
                && rule.row.is_none_or(|of| of == row)
                && rule.segment.as_ref().is_none_or(|of| of == segment)
        })
    }

    /// The pinned titles, in the order in which they were pinned.
    pub fn pinned(&self, row: RowName, segment: &str, now: EventTime) -> Vec<Arc<str>> {
        let mut pins: Vec<Arc<str>> = Vec::new();
        for rule in self.in_force(row, segment, now).filter(|rule| rule.action == Action::Pin) {
            if !pins.contains(&rule.video) {
                pins.push(rule.video.clone());
            }
        }
        pins
    }

    /// Whether a title is not to be shown.
    pub fn is_blocked(&self, video: &str, row: RowName, segment: &str, now: EventTime) -> bool {
        self.in_force(row, segment, now).any(|rule| rule.action == Action::Block && *rule.video == *video)
    }

    /// By what its score is multiplied.
    pub fn boost(&self, video: &str, row: RowName, segment: &str, now: EventTime) -> f64 {
        let of = self.in_force(row, segment, now).filter(|rule| *rule.video == *video);
        of.map(|rule| match rule.action {
            Action::Boost { factor } => factor,
            _ => 1.0,
        })
        .product()
    }
}
