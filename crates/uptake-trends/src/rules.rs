//! People's rules: pin, block and boost titles in rows, each with an end.
//!
//! Who set a rule, when and why is kept where rules are written down; here is what they do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    /// Their ids by title: each title that is ranked is asked for.
    of_videos: HashMap<String, BTreeSet<String>>,
    version: u64,
}

impl Rules {
    /// Sets a rule, in place of one with the same id.
    pub fn set(&mut self, rule: Rule) {
        self.remove(&rule.id);
        self.of_videos.entry(rule.video_id.clone()).or_default().insert(rule.id.clone());
        self.rules.insert(rule.id.clone(), rule);
    }

    /// Takes a rule back.
    pub fn remove(&mut self, id: &str) -> Option<Rule> {
        self.version += 1;
        let rule = self.rules.remove(id)?;
        if let Some(ids) = self.of_videos.get_mut(&rule.video_id) {
            ids.remove(id);
            if ids.is_empty() {
                self.of_videos.remove(&rule.video_id);
            }
        }
        Some(rule)
    }

    /// Forgets those whose end has come. Returns how many.
    ///
    /// ```
    /// use uptake_model::EventTime;
    /// use uptake_trends::rules::Rules;
    /// let mut rules = Rules::default();
    /// rules.set(serde_json::from_str(r#"{"id":"1","action":"block","video_id":"v1","expires_at":100}"#).unwrap());
    /// assert_eq!((rules.forget_ended(EventTime(99)), rules.forget_ended(EventTime(100))), (0, 1));
    /// assert_eq!(rules.all().len(), 0);
    /// ```
    pub fn forget_ended(&mut self, now: EventTime) -> usize {
        let ended: Vec<String> =
            self.rules.values().filter(|rule| rule.is_over(now)).map(|rule| rule.id.clone()).collect();
        ended.iter().for_each(|id| drop(self.remove(id)));
        ended.len()
    }

    /// A rule by its id.
    pub fn get(&self, id: &str) -> Option<&Rule> {
        self.rules.get(id)
    }

    /// All of them, also those whose end has come and that were not forgotten yet.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.values()
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The rules about a title that do something in this row, for this segment, now.
    fn holding(
        &self,
        video: &str,
        row: RowName,
        segment: &str,
        now: EventTime,
    ) -> impl Iterator<Item = &Rule> {
        let ids = self.of_videos.get(video).into_iter().flatten();
        ids.filter_map(|id| self.rules.get(id)).filter(move |rule| rule.holds(row, segment, now))
    }

    /// The pinned titles with their positions from 1, first ones first.
    pub fn pinned(&self, row: RowName, segment: &str, now: EventTime) -> Vec<(usize, Arc<str>)> {
        let pins = self.rules.values().filter(|rule| rule.action == Action::Pin);
        let mut holding: Vec<&Rule> = pins.filter(|rule| rule.holds(row, segment, now)).collect();
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
        self.holding(video, row, segment, now).any(|rule| rule.action == Action::Block)
    }

    /// By what its score is multiplied.
    pub fn boost(&self, video: &str, row: RowName, segment: &str, now: EventTime) -> f64 {
        let boosts = self.holding(video, row, segment, now).filter(|rule| rule.action == Action::Boost);
        boosts.filter_map(|rule| rule.factor).product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: RowName = RowName::Popular;

    fn rule(id: usize, action: Action, video: &str, expires_at: Option<i64>) -> Rule {
        Rule {
            id: format!("{id:04}"),
            action,
            video_id: video.to_owned(),
            row: None,
            segment: None,
            position: (action == Action::Pin).then_some(1),
            factor: (action == Action::Boost).then_some(1.1 + id as f64),
            expires_at,
            note: None,
        }
    }

    /// What the index by title says is what a walk through all rules says, whatever was set, moved and taken back.
    #[test]
    fn a_title_is_found_by_its_rules_whatever_became_of_them() {
        let mut rules = Rules::default();
        let videos = ["a", "b", "c", "d"];
        let actions = [Action::Pin, Action::Block, Action::Boost];
        let mut seed = 7u32;
        let mut draw = |n: usize| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as usize % n
        };
        for step in 0..2_000 {
            let (id, now) = (draw(12), EventTime(step));
            match draw(5) {
                0 => drop(rules.remove(&format!("{id:04}"))),
                1 => drop(rules.forget_ended(now)),
                _ => {
                    let end = (draw(2) == 0).then(|| step + draw(20) as i64);
                    rules.set(rule(id, actions[draw(3)], videos[draw(4)], end));
                }
            }
            for video in videos {
                let of = |action| {
                    let all = rules.all().filter(move |rule| rule.action == action && rule.video_id == video);
                    all.filter(|rule| rule.holds(ROW, "", now))
                };
                assert_eq!(rules.is_blocked(video, ROW, "", now), of(Action::Block).count() > 0, "{step}");
                let boost: f64 = of(Action::Boost).filter_map(|rule| rule.factor).product();
                assert_eq!(rules.boost(video, ROW, "", now).to_bits(), boost.to_bits(), "{step}");
            }
            let indexed: usize = rules.of_videos.values().map(BTreeSet::len).sum();
            assert_eq!(indexed, rules.all().len(), "{step}");
        }
    }
}
