//! People's rules: pin, block and boost videos in rows, with an expiry and an account of who did what.
//!
//! A rule is a record in the log's topic `rules`, and so is its end; all processes read the topic
//! and come to the same rules. Nothing is ever changed in place: the topic is the audit.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use uptake_connectors::LogError;
use uptake_connectors::log::{Log, Record};

use crate::app::App;
use crate::clock::now_ms;
use crate::ids::random;
use crate::problem::{Answer, Problem};
use crate::rows::{Item, RowName};

/// The topic.
pub(crate) const RULES: &str = "rules";
/// How many entries of the audit are kept in memory.
const AUDIT_MAX: usize = 1_000;
/// How many rules may hold at once.
const RULES_MAX: usize = 10_000;

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// It stands at a position, whatever its score.
    Pin,
    /// It is not shown.
    Block,
    /// Its score is multiplied.
    Boost,
}

/// A rule.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Its id; given by the server.
    #[serde(default)]
    pub(crate) id: String,
    pub(crate) action: Action,
    pub(crate) video_id: String,
    /// The row it holds in; all rows where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) row: Option<String>,
    /// The segment it holds in, as the rows name it; all where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) segment: Option<String>,
    /// Where a pin stands, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) position: Option<usize>,
    /// What a boost multiplies the score by, from 0.01 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) factor: Option<f64>,
    /// When it ends, in milliseconds since 1970 UTC; never where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<i64>,
    /// Why it is there, for those who come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// A line of the audit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Entry {
    /// When, in milliseconds since 1970 UTC.
    at: i64,
    /// Who, as the header `x-uptake-actor` said.
    by: String,
    /// `put` or `delete`.
    op: String,
    rule: Rule,
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let id = &self.video_id;
        if id.is_empty() || id.len() > 1_024 {
            return Err("video_id has 1 to 1024 bytes".to_owned());
        }
        if let Some(row) = &self.row
            && crate::rows::of_name(row).is_none()
        {
            return Err(format!("there is no row {row:?}; there are popular, loved, trending"));
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

    fn holds(&self, row: RowName, segment: &str, now: i64) -> bool {
        self.row.as_ref().is_none_or(|of| of == row.as_str())
            && self.segment.as_ref().is_none_or(|of| of == segment)
            && self.expires_at.is_none_or(|end| now < end)
    }
}

/// The rules that hold, as of the last look at the topic.
#[derive(Default)]
pub(crate) struct RuleBook {
    known: RwLock<Arc<Known>>,
    next: Mutex<u64>,
}

#[derive(Clone, Default)]
struct Known {
    rules: BTreeMap<String, Rule>,
    audit: std::collections::VecDeque<Entry>,
}

impl RuleBook {
    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads what was added to the topic.
    pub(crate) fn refresh(&self, log: &dyn Log) -> Result<(), LogError> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let end = log.end_offset(RULES, 0)?;
        if *next >= end {
            return Ok(());
        }
        let mut known = Known::clone(&self.known());
        *next = (*next).max(log.start_offset(RULES, 0)?);
        while *next < end {
            *next = log.read_each(RULES, 0, *next, 10_000, 1 << 20, &mut |record| {
                // What somebody else wrote there is no rule.
                let Ok(entry) = serde_json::from_slice::<Entry>(record.value) else { return };
                match entry.op.as_str() {
                    "put" => drop(known.rules.insert(entry.rule.id.clone(), entry.rule.clone())),
                    _ => drop(known.rules.remove(&entry.rule.id)),
                }
                known.audit.push_back(entry);
                if known.audit.len() > AUDIT_MAX {
                    known.audit.pop_front();
                }
            })?;
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(())
    }

    /// A row by the rules that hold now.
    pub(crate) fn applied(&self, items: &[Item], row: RowName, segment: &str, now: i64) -> Vec<Item> {
        let known = self.known();
        let mut items = items.to_vec();
        let holding: Vec<&Rule> = known.rules.values().filter(|rule| rule.holds(row, segment, now)).collect();
        if holding.is_empty() {
            return items;
        }
        let with = |action: Action| holding.iter().filter(move |rule| rule.action == action);
        for rule in with(Action::Boost) {
            for item in items.iter_mut().filter(|item| *item.video_id == *rule.video_id) {
                item.score *= rule.factor.unwrap_or(1.0);
            }
        }
        items.sort_by(|a, b| b.score.total_cmp(&a.score));
        let is_blocked = |video: &str| with(Action::Block).any(|rule| rule.video_id == video);
        items.retain(|item| !is_blocked(&item.video_id));
        let mut pins: Vec<&&Rule> = with(Action::Pin).filter(|rule| !is_blocked(&rule.video_id)).collect();
        pins.sort_by_key(|rule| (rule.position, &rule.id));
        for rule in pins {
            let there = items.iter().position(|item| *item.video_id == *rule.video_id);
            let mut item = match there {
                Some(place) => items.remove(place),
                None => Item {
                    video_id: rule.video_id.as_str().into(),
                    score: 0.0,
                    plays: 0,
                    impressions: 0,
                    propensity: 1.0,
                    pinned: true,
                },
            };
            item.pinned = true;
            let place = rule.position.unwrap_or(1).saturating_sub(1).min(items.len());
            items.insert(place, item);
        }
        items
    }
}

/// The rules that hold.
#[utoipa::path(get, path = "/v1/rules", tag = "rules",
    responses((status = 200, body = Vec<Rule>), (status = 401, description = "Not the admin token")))]
pub(crate) async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Answer<Json<Vec<Rule>>> {
    app.access.check_admin(&headers)?;
    let (known, now) = (app.rules.known(), now_ms());
    let holding = known.rules.values().filter(|rule| rule.expires_at.is_none_or(|end| now < end));
    Ok(Json(holding.cloned().collect()))
}

/// Who did what with rules, newest first.
#[utoipa::path(get, path = "/v1/rules/audit", tag = "rules",
    responses((status = 200, body = Vec<Entry>), (status = 401, description = "Not the admin token")))]
pub(crate) async fn audit(State(app): State<Arc<App>>, headers: HeaderMap) -> Answer<Json<Vec<Entry>>> {
    app.access.check_admin(&headers)?;
    Ok(Json(app.rules.known().audit.iter().rev().cloned().collect()))
}

/// Adds a rule; it holds when this is answered, in other processes within their refresh interval.
#[utoipa::path(post, path = "/v1/rules", tag = "rules", request_body = Rule,
    params(("x-uptake-actor" = Option<String>, Header, description = "Who does it, for the audit")),
    responses((status = 201, body = Rule), (status = 400, description = "No such rule can be"),
        (status = 409, description = "There are as many as can be"),
        (status = 415, description = "Not application/json"), (status = 422, description = "Not the fields of a rule"),
        (status = 401, description = "Not the admin token")))]
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    rule: Result<Json<Rule>, JsonRejection>,
) -> Answer<Response> {
    app.access.check_admin(&headers)?;
    let Json(mut rule) =
        rule.map_err(|error| Problem::new(error.status().as_u16(), "bad-rule", error.body_text()))?;
    rule.check().map_err(|what| Problem::new(400, "bad-rule", what))?;
    if app.rules.known().rules.len() >= RULES_MAX {
        return Err(Problem::new(409, "too-many-rules", format!("there are {RULES_MAX} rules; delete some")));
    }
    let bytes =
        random::<8>().ok_or_else(|| Problem::new(500, "no-random", "the system gives no random bytes"))?;
    rule.id = format!("{:016x}", u64::from_le_bytes(bytes));
    write(&app, &headers, "put", rule.clone()).await?;
    Ok((StatusCode::CREATED, Json(rule)).into_response())
}

/// Ends a rule.
#[utoipa::path(delete, path = "/v1/rules/{id}", tag = "rules",
    params(("id" = String, Path, description = "The rule's id")),
    responses((status = 204, description = "It holds no more"), (status = 404, description = "There is none"),
        (status = 401, description = "Not the admin token")))]
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    app.access.check_admin(&headers)?;
    let rule = app.rules.known().rules.get(&id).cloned();
    let rule = rule.ok_or_else(|| Problem::new(404, "no-such-rule", "there is no rule with this id"))?;
    write(&app, &headers, "delete", rule).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn write(app: &Arc<App>, headers: &HeaderMap, op: &str, rule: Rule) -> Answer<()> {
    let by = headers.get("x-uptake-actor").and_then(|value| value.to_str().ok()).unwrap_or("unknown");
    let by = by.chars().take(100).collect();
    let entry = Entry { at: now_ms(), by, op: op.to_owned(), rule };
    let record =
        serde_json::to_vec(&entry).map_err(|error| Problem::new(500, "defect", error.to_string()))?;
    let record = Record::new(entry.rule.id.clone(), record);
    let for_it = Arc::clone(app);
    app.blocking(move || {
        let done = for_it.log.append(RULES, 0, &[record], entry.at);
        done.and_then(|_| for_it.rules.refresh(&*for_it.log)).map_err(|error| {
            for_it.metrics.say(&format!("cannot write a rule: {error}"));
            Problem::new(503, "log-away", "the log does not take the rule now").retry_after(5)
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use uptake_connectors::log::MemoryLog;

    fn rules(rules: &[&str]) -> RuleBook {
        let log = MemoryLog::new();
        log.create_topic(RULES, 1).unwrap();
        for (n, rule) in rules.iter().enumerate() {
            let rule = Rule { id: n.to_string(), ..serde_json::from_str(rule).unwrap() };
            rule.check().unwrap();
            let entry = Entry { at: 1, by: "me".into(), op: "put".into(), rule };
            log.append(RULES, 0, &[Record::new("", serde_json::to_vec(&entry).unwrap())], 1).unwrap();
        }
        let book = RuleBook::default();
        book.refresh(&log).unwrap();
        book
    }

    fn check(given: &[&str], row: RowName, segment: &str, expected: &str) {
        let items: Vec<Item> = ["a", "b", "c", "d"]
            .into_iter()
            .zip([9.0, 8.0, 7.0, 6.0])
            .map(|(video, score)| Item {
                video_id: video.into(),
                score,
                plays: 1,
                impressions: 1,
                propensity: 1.0,
                pinned: false,
            })
            .collect();
        let applied = rules(given).applied(&items, row, segment, 1_000);
        let text: Vec<&str> = applied.iter().map(|item| &*item.video_id).collect();
        assert_eq!(text.join(" "), expected, "{given:?}");
    }

    #[test]
    fn rules_move_what_they_name_and_nothing_else() {
        use RowName::{Loved, Popular};
        check(&[], Popular, "", "a b c d");
        check(&[r#"{"action":"pin","video_id":"d","position":2}"#], Popular, "", "a d b c");
        check(&[r#"{"action":"pin","video_id":"z","position":1}"#], Popular, "", "z a b c d");
        check(&[r#"{"action":"block","video_id":"a"}"#], Popular, "", "b c d");
        check(&[r#"{"action":"boost","video_id":"d","factor":1.4}"#], Popular, "", "a d b c");
        check(&[r#"{"action":"block","video_id":"a","expires_at":1000}"#], Popular, "", "a b c d");
        check(&[r#"{"action":"block","video_id":"a","row":"loved"}"#], Popular, "", "a b c d");
        check(&[r#"{"action":"block","video_id":"a","row":"loved"}"#], Loved, "", "b c d");
        check(&[r#"{"action":"block","video_id":"a","segment":"country=BR"}"#], Loved, "", "a b c d");
        let both =
            [r#"{"action":"block","video_id":"a"}"#, r#"{"action":"pin","video_id":"a","position":1}"#];
        check(&both, Popular, "", "b c d");
    }

    #[test]
    fn what_can_be_no_rule_is_refused() {
        for rule in [
            r#"{"action":"pin","video_id":"a"}"#,
            r#"{"action":"pin","video_id":"a","position":0}"#,
            r#"{"action":"boost","video_id":"a","factor":1e9}"#,
            r#"{"action":"block","video_id":""}"#,
            r#"{"action":"block","video_id":"a","row":"other"}"#,
        ] {
            assert!(serde_json::from_str::<Rule>(rule).unwrap().check().is_err(), "{rule}");
        }
        assert!(serde_json::from_str::<Rule>(r#"{"action":"block","video_id":"a","x":1}"#).is_err());
    }
}
