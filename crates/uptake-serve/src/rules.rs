//! People's rules: pin, block and boost videos in rows, with an expiry and an account of who did what.
//!
//! A rule is a record in the log's topic `rules`, and so is its end; all processes read the topic
//! and come to the same rules. Nothing is ever changed in place: the topic is the audit.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use uptake_connectors::LogError;
use uptake_connectors::log::{Log, Record};
use uptake_trends::RowName;
use uptake_trends::Rules;
use uptake_trends::rules::{Action, Rule};

use crate::app::App;
use crate::ids::random;
use crate::problem::{Answer, Problem};
use crate::rows::serve::stored_segment;

/// The topic.
pub(crate) const RULES: &str = "rules";
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
    next: Mutex<u64>,
}

#[derive(Clone, Default)]
pub(crate) struct Known {
    /// Also those whose end has come.
    pub(crate) rules: Rules,
    audit: VecDeque<Entry>,
}

impl RuleBook {
    /// What is known as of the last look.
    pub(crate) fn known(&self) -> Arc<Known> {
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
                    "put" => known.rules.set(entry.rule.clone()),
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
        book.refresh(log)?;
    }
    Ok(book.known().rules.clone())
}

/// The rules that hold.
#[utoipa::path(get, path = "/v1/rules", tag = "rules",
    responses((status = 200, body = Vec<RuleSchema>), (status = 401, description = "Not the admin token")))]
pub(crate) async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Answer<Json<Vec<Rule>>> {
    app.access.check_admin(&headers)?;
    let (known, now) = (app.rules.known(), app.now());
    let holding = known.rules.all().filter(|rule| !rule.is_over(now));
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
#[utoipa::path(post, path = "/v1/rules", tag = "rules", request_body = RuleSchema,
    params(("x-uptake-actor" = Option<String>, Header, description = "Who does it, for the audit")),
    responses((status = 201, body = RuleSchema), (status = 400, description = "No such rule can be, or no such segment is kept"),
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
    if let Some(asked) = rule.segment.take() {
        // By the name that the rows have: by another one, or for a segment that is not kept, it would never hold.
        let for_it = Arc::clone(&app);
        rule.segment = Some(app.blocking(move || stored_segment(&for_it, &asked)).await?);
    }
    if app.rules.known().rules.all().len() >= RULES_MAX {
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
    let entry = Entry { at: app.now().0, by, op: op.to_owned(), rule };
    let record =
        serde_json::to_vec(&entry).map_err(|error| Problem::new(500, "defect", error.to_string()))?;
    let record = Record::new(entry.rule.id.clone(), record);
    let for_it = Arc::clone(app);
    app.blocking(move || {
        let done = for_it.log.append(RULES, 0, &[record], entry.at);
        done.and_then(|_| for_it.rules.refresh(&*for_it.log)).map_err(|error| {
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
