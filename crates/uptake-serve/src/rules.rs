//! People's rules: pin, block and boost videos in rows, with an expiry and an account of who did what.
//!
//! A rule is a record in the log's topic `rules`, and so is its end; all processes read the topic
//! and come to the same rules. Nothing is ever changed in place: the topic is the audit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use uptake_connectors::LogError;
use uptake_connectors::log::{Log, Record};
use uptake_model::EventTime;
use uptake_trends::RowName;
use uptake_trends::Rules;
use uptake_trends::rules::{Action, Rule};

use crate::access::Admin;
use crate::app::App;
use crate::ids::random;
use crate::problem::{Answer, Problem};
use crate::rows::serve::stored_segment;

/// The topic of people's rules. What stands in it holds until it is taken back, so nothing of it may be dropped.
pub const RULES: &str = "rules";
/// How many entries of the audit are kept in memory.
const AUDIT_MAX: usize = 1_000;
/// How many rules may hold at once.
const RULES_MAX: usize = 10_000;

/// How [`Rule`] looks in the API's document. The domain knows no such document; serde checks that both have
/// the same fields.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Rule)]
#[serde(remote = "Rule")]
#[expect(dead_code, reason = "it is there to be described")]
pub(crate) struct RuleSchema {
    /// Its id; given by the server.
    #[schema(required = false)]
    id: String,
    #[schema(value_type = ActionSchema)]
    action: Action,
    /// The title.
    video_id: String,
    /// The row it holds in; all rows where none is named.
    #[schema(value_type = Option<String>)]
    row: Option<RowName>,
    /// The segment it holds in, as country=BR,device=tv; all where none is named.
    segment: Option<String>,
    /// Where a pin stands, from 1 to 100.
    position: Option<usize>,
    /// What a boost multiplies the score by, from 0.01 to 100.
    factor: Option<f64>,
    /// When it ends, in milliseconds since 1970 UTC; never where nothing is said.
    expires_at: Option<i64>,
    /// Why it is there, for those who come later.
    note: Option<String>,
}

/// What a rule does.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Action)]
#[serde(remote = "Action", rename_all = "lowercase")]
#[expect(dead_code, reason = "it is there to be described")]
pub(crate) enum ActionSchema {
    /// It stands at a position, whatever its score.
    Pin,
    /// It is not shown. A block wins over a pin.
    Block,
    /// Its score is multiplied.
    Boost,
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
    #[schema(value_type = RuleSchema)]
    rule: Rule,
}

/// The rules that hold, as of the last look at the topic.
#[derive(Default)]
pub(crate) struct RuleBook {
    known: RwLock<Arc<Known>>,
    /// Held by the one who looks.
    looking: Mutex<()>,
}

#[derive(Clone, Default)]
pub(crate) struct Known {
    /// Those whose end has come since the last look are among them.
    pub(crate) rules: Rules,
    audit: VecDeque<Entry>,
    /// Up to where the topic was read for this: the two are put in place together.
    next: u64,
}

impl RuleBook {
    /// What is known as of the last look.
    pub(crate) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads what was added to the topic, and forgets the rules whose end has come by now.
    pub(crate) fn refresh(&self, log: &dyn Log, now: EventTime) -> Result<(), LogError> {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let end = log.end_offset(RULES, 0)?;
        let before = self.known();
        if before.next >= end && !before.rules.all().any(|rule| rule.is_over(now)) {
            return Ok(());
        }
        let mut known = Known::clone(&before);
        let mut next = known.next.max(log.start_offset(RULES, 0)?);
        while next < end {
            next = log.read_each(RULES, 0, next, 10_000, 1 << 20, &mut |record| {
                // What somebody else wrote there is no rule.
                let Ok(entry) = serde_json::from_slice::<Entry>(record.value) else { return };
                match entry.op.as_str() {
                    "put" => known.rules.set(entry.rule.clone()),
                    _ => drop(known.rules.remove(&entry.rule.id)),
                }
                known.audit.push_back(entry);
                if known.audit.len() > AUDIT_MAX {
                    known.audit.pop_front();
                }
            })?;
        }
        known.next = next;
        known.rules.forget_ended(now);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(())
    }
}

/// The rules that a log holds, for who does not serve; none where there is no topic for them. Those whose end has come
/// are among them.
///
/// ```
/// use uptake_connectors::log::{Log, MemoryLog, Record};
/// let log = MemoryLog::new();
/// assert_eq!(uptake_serve::rules_of(&log)?.all().len(), 0);
/// log.create_topic("rules", 1)?;
/// let rule = r#"{"at":0,"by":"ann","op":"put","rule":{"id":"r1","action":"block","video_id":"v1"}}"#;
/// log.append("rules", 0, &[Record::new("r1", rule)], 0)?;
/// assert_eq!(uptake_serve::rules_of(&log)?.all().len(), 1);
/// # Ok::<(), uptake_connectors::LogError>(())
/// ```
///
/// # Errors
/// The log cannot be read.
pub fn rules_of(log: &dyn Log) -> Result<Rules, LogError> {
    let book = RuleBook::default();
    if log.topics().iter().any(|topic| topic == RULES) {
        book.refresh(log, EventTime::MIN)?;
    }
    Ok(book.known().rules.clone())
}

/// The rules that hold.
#[utoipa::path(get, path = "/v1/rules", tag = "rules",
    responses((status = 200, body = Vec<RuleSchema>), (status = 401, description = "Not the admin token")))]
pub(crate) async fn list(_: Admin, State(app): State<Arc<App>>) -> Answer<Json<Vec<Rule>>> {
    let (known, now) = (app.rules.known(), app.now());
    let holding = known.rules.all().filter(|rule| !rule.is_over(now));
    Ok(Json(holding.cloned().collect()))
}

/// Who did what with rules, newest first.
#[utoipa::path(get, path = "/v1/rules/audit", tag = "rules",
    responses((status = 200, body = Vec<Entry>), (status = 401, description = "Not the admin token")))]
pub(crate) async fn audit(_: Admin, State(app): State<Arc<App>>) -> Answer<Json<Vec<Entry>>> {
    Ok(Json(app.rules.known().audit.iter().rev().cloned().collect()))
}

/// Adds a rule; it holds when this is answered, in other processes within their refresh interval.
#[utoipa::path(post, path = "/v1/rules", tag = "rules", request_body = RuleSchema,
    params(("x-uptake-actor" = Option<String>, Header, description = "Who does it, for the audit")),
    responses((status = 201, body = RuleSchema), (status = 400, description = "No such rule can be, or no such segment is kept"),
        (status = 409, description = "There are as many as can be"),
        (status = 415, description = "Not application/json"), (status = 422, description = "Not the fields of a rule"),
        (status = 401, description = "Not the admin token")))]
pub(crate) async fn add(
    _: Admin,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    rule: Result<Json<Rule>, JsonRejection>,
) -> Answer<Response> {
    let Json(mut rule) =
        rule.map_err(|error| Problem::new(error.status().as_u16(), "bad-rule", error.body_text()))?;
    rule.check().map_err(|what| Problem::new(400, "bad-rule", what))?;
    if let Some(asked) = rule.segment.take() {
        // By the name that the rows have: by another one, or for a segment that is not kept, it would never hold.
        let for_it = Arc::clone(&app);
        rule.segment = Some(app.blocking(move || stored_segment(&for_it, &asked)).await?);
    }
    let (known, now) = (app.rules.known(), app.now());
    if known.rules.all().filter(|rule| !rule.is_over(now)).count() >= RULES_MAX {
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
    _: Admin,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    let rule = app.rules.known().rules.get(&id).cloned();
    let rule = rule.ok_or_else(|| Problem::new(404, "no-such-rule", "there is no rule with this id"))?;
    write(&app, &headers, "delete", rule).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A name as a header has it: in UTF-8, or as browsers write it, a byte for each character.
fn actor(value: &HeaderValue) -> String {
    let bytes = value.as_bytes();
    let name = std::str::from_utf8(bytes)
        .map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_owned);
    name.chars().take(100).collect()
}

async fn write(app: &Arc<App>, headers: &HeaderMap, op: &str, rule: Rule) -> Answer<()> {
    let by = headers.get("x-uptake-actor").map_or_else(|| "unknown".to_owned(), actor);
    let entry = Entry { at: app.now().0, by, op: op.to_owned(), rule };
    let record =
        serde_json::to_vec(&entry).map_err(|error| Problem::new(500, "defect", error.to_string()))?;
    let record = Record::new(entry.rule.id.clone(), record);
    let for_it = Arc::clone(app);
    app.blocking(move || {
        let done = for_it.log.append(RULES, 0, &[record], entry.at);
        done.and_then(|_| for_it.rules.refresh(&*for_it.log, for_it.now())).map_err(|error| {
            for_it.metrics.say(&format!("cannot write a rule: {error}"));
            Problem::new(503, "log-away", "the log does not take the rule now").retry_after(5)
        })?;
        // The rule is written; that the rows cannot be looked at now does not take it back.
        if let Err(error) = for_it.choosing(|choice| for_it.board.refresh(&for_it.tables, choice)) {
            for_it.metrics.say(&format!("cannot read the table: {error}; the rule shows later"));
        }
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use uptake_connectors::log::{MemoryLog, StoredRef};

    type Logged<T> = Result<T, LogError>;

    /// A log of which one read fails.
    struct Failing {
        log: MemoryLog,
        /// How many more reads succeed before.
        reads: AtomicUsize,
    }

    impl Log for Failing {
        fn create_topic(&self, topic: &str, partitions: u32) -> Logged<()> {
            self.log.create_topic(topic, partitions)
        }
        fn partitions(&self, topic: &str) -> Logged<u32> {
            self.log.partitions(topic)
        }
        fn topics(&self) -> Vec<String> {
            self.log.topics()
        }
        fn append(&self, topic: &str, partition: u32, records: &[Record], now_ms: i64) -> Logged<u64> {
            self.log.append(topic, partition, records, now_ms)
        }
        fn read_each(
            &self,
            topic: &str,
            partition: u32,
            from: u64,
            _: usize,
            max_bytes: usize,
            each: &mut dyn FnMut(StoredRef<'_>),
        ) -> Logged<u64> {
            let left = self.reads.fetch_sub(1, Ordering::Relaxed);
            // Read one by one, as a long topic is in chunks. There is no such partition.
            self.log.read_each(topic, if left == 0 { 9 } else { partition }, from, 1, max_bytes, each)
        }
        fn start_offset(&self, topic: &str, partition: u32) -> Logged<u64> {
            self.log.start_offset(topic, partition)
        }
        fn end_offset(&self, topic: &str, partition: u32) -> Logged<u64> {
            self.log.end_offset(topic, partition)
        }
        fn offset_for_time(&self, topic: &str, partition: u32, ms: i64) -> Logged<u64> {
            self.log.offset_for_time(topic, partition, ms)
        }
        fn truncate_before(&self, topic: &str, partition: u32, offset: u64) -> Logged<u64> {
            self.log.truncate_before(topic, partition, offset)
        }
    }

    fn log_of(rules: &[(&str, Option<i64>)]) -> MemoryLog {
        let log = MemoryLog::new();
        log.create_topic(RULES, 1).unwrap();
        for (id, expires_at) in rules {
            let rule = serde_json::json!({ "id": id, "action": "block", "video_id": "v1", "expires_at": expires_at });
            let entry = serde_json::json!({ "at": 0, "by": "ann", "op": "put", "rule": rule });
            log.append(RULES, 0, &[Record::new(*id, entry.to_string())], 0).unwrap();
        }
        log
    }

    fn ids(book: &RuleBook) -> Vec<String> {
        book.known().rules.all().map(|rule| rule.id.clone()).collect()
    }

    #[test]
    fn a_read_that_fails_half_way_loses_no_rule() {
        let log =
            Failing { log: log_of(&[("r1", None), ("r2", None), ("r3", None)]), reads: AtomicUsize::new(2) };
        let book = RuleBook::default();
        assert!(book.refresh(&log, EventTime(0)).is_err());
        log.reads.store(100, Ordering::Relaxed);
        book.refresh(&log, EventTime(0)).unwrap();
        assert_eq!(ids(&book), ["r1", "r2", "r3"]);
    }

    #[test]
    fn rules_whose_end_has_come_are_forgotten_though_nothing_is_added() {
        let log = log_of(&[("r1", Some(100)), ("r2", None)]);
        let book = RuleBook::default();
        book.refresh(&log, EventTime(99)).unwrap();
        assert_eq!(ids(&book), ["r1", "r2"]);
        let before = book.known().rules.version();
        book.refresh(&log, EventTime(100)).unwrap();
        assert_eq!(ids(&book), ["r2"]);
        assert!(book.known().rules.version() > before, "rows are chosen anew");
        assert_eq!(book.known().audit.len(), 2, "the account stays");
        assert_eq!(rules_of(&log).unwrap().all().len(), 2);
    }

    #[test]
    fn who_did_it_may_have_any_name() {
        assert_eq!(actor(&HeaderValue::from_bytes("José".as_bytes()).unwrap()), "José");
        assert_eq!(actor(&HeaderValue::from_bytes(b"Jos\xe9").unwrap()), "José", "as a browser writes it");
        assert_eq!(actor(&HeaderValue::from_static("ann")), "ann");
    }
}
