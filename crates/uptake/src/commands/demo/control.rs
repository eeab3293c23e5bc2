//! What the page sees, and what it may do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uptake_connectors::table::SqliteTable;
use uptake_serve::problem::Problem;
use uptake_serve::{is_local, page_file};
use uptake_sim::{Moment, Reranked, Season, Trouble};

use super::clock::WorldClock;
use super::pipeline::Inner;
use super::story::{Story, hour, later};
use crate::crowd::{Crowd, Rise, Rises};
use crate::memory::held_by;
use crate::outputs::notice;

/// How long the table is locked.
const LOCKED_FOR: Duration = Duration::from_secs(10);

/// What the main thread is told.
pub(super) enum Told {
    /// Go to another moment.
    Jump(Moment),
    /// End.
    Stop,
}

/// What page, server and main thread share.
pub(super) struct Shared {
    pub(super) clock: Arc<WorldClock>,
    sender: Mutex<Sender<Told>>,
    story: Mutex<Story>,
    now: Mutex<Now>,
    is_locked: Arc<AtomicBool>,
}

/// What there is at the moment.
#[derive(Default)]
struct Now {
    moment: Option<Moment>,
    preparing: Option<Moment>,
    trouble: Trouble,
    crowd: Option<Arc<Crowd>>,
    pipeline: Option<Arc<Inner>>,
    folder: std::path::PathBuf,
    check: Check,
}

/// How tallies of past epochs compare with what the crowd knows.
#[derive(Clone, Default, Serialize)]
pub(super) struct Check {
    pub(super) equal: u64,
    pub(super) differing: Vec<String>,
}

impl Shared {
    pub(super) fn new(clock: Arc<WorldClock>, sender: Sender<Told>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            sender: Mutex::new(sender),
            story: Mutex::default(),
            now: Mutex::default(),
            is_locked: Arc::default(),
        })
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the page and the terminal what happens.
    pub(super) fn say(&self, text: &str) {
        let at = self.clock.now();
        self.story().say(at, text.to_owned());
        notice(&format!("{} {text}", hour(at)));
    }

    /// Another deployment is being prepared, or it is not any more.
    pub(super) fn preparing(&self, moment: Option<Moment>) {
        self.now().preparing = moment;
    }

    /// Another deployment begins.
    pub(super) fn begins(
        &self,
        moment: Moment,
        crowd: &Arc<Crowd>,
        pipeline: Arc<Inner>,
        folder: &std::path::Path,
    ) {
        self.story().clear();
        let mut now = self.now();
        crowd.set_trouble(now.trouble);
        now.moment = Some(moment);
        now.crowd = Some(Arc::clone(crowd));
        now.pipeline = Some(pipeline);
        folder.clone_into(&mut now.folder);
        now.check = Check::default();
    }

    pub(super) fn checked(&self, check: Check) {
        self.now().check = check;
    }

    /// Tells what is new.
    pub(super) fn tell(&self) {
        let Some(crowd) = self.now().crowd.clone() else { return };
        let at = self.clock.now();
        let new = crowd.rises(|rises| self.story().tell(at, rises.all()));
        new.iter().for_each(|text| notice(&format!("{} {text}", hour(at))));
    }

    /// What rose.
    pub(super) fn rises(&self) -> Vec<Rise> {
        let crowd = self.now().crowd.clone();
        crowd.map_or_else(Vec::new, |crowd| crowd.rises(|rises| rises.all().cloned().collect()))
    }

    /// The same as a table.
    pub(super) fn rises_text(&self) -> String {
        let mut text = format!(
            "{:<28} {:>6}  {:<18} charts of plays, ranked daily / half-hourly / live\n",
            "rose", "at", "Trending"
        );
        for rise in self.rises() {
            let when = |at: Option<i64>| at.map_or("not".to_owned(), |at| later(rise.since, at));
            let charts: Vec<String> = rise.charts.into_iter().map(when).collect();
            let title: String = rise.title.chars().take(28).collect();
            let (at, trending) = (hour(rise.since), when(rise.trending));
            text.push_str(&format!("{title:<28} {at:>6}  {trending:<18} {}\n", charts.join(" / ")));
        }
        text
    }

    fn state(&self) -> Value {
        let (speed, is_paused) = self.clock.pace();
        let (at, lines) = (self.clock.now(), self.story().lines.clone());
        let now = self.now();
        let crowd = now.crowd.as_ref();
        let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let counts = crowd.map(|crowd| {
            let (counts, latency) = (&crowd.counts, crowd.latency());
            json!({
                "visits": count(&counts.visits), "events_made": count(&counts.made), "events_taken": count(&counts.taken),
                "events_taken_again": count(&counts.taken_again), "retried": count(&counts.retried),
                "robot_plays": count(&counts.robots), "waiting": crowd.waiting(),
                "play_to_tally_ms": latency.tally(), "play_to_row_ms": latency.row(),
            })
        });
        let of = |rises: &Rises| {
            let all: Vec<&Rise> = rises.all().rev().collect();
            let points: Vec<_> = rises.points().collect();
            json!({ "rises": all, "points": points })
        };
        let loop_of = crowd.map(|crowd| crowd.rises(of));
        let named = |moment: Option<&Moment>| {
            moment.map(|moment| json!({ "name": moment.name, "what": moment.what }))
        };
        let moments: Vec<Value> = Season::MOMENTS.iter().map(|moment| json!(named(Some(moment)))).collect();
        json!({
            "now": at, "speed": speed, "paused": is_paused, "moment": named(now.moment.as_ref()), "moments": moments,
            "season": { "from": Season::FROM_MS, "until": Season::UNTIL_MS },
            "preparing": named(now.preparing.as_ref()), "crowd": counts, "loop": loop_of, "story": lines,
            "charts": Reranked::ALL.map(Reranked::name),
            "trouble": {
                "twice": now.trouble.all_twice, "held": now.trouble.quarter_held, "clocks": now.trouble.clocks_wrong,
                "locked": self.is_locked.load(Ordering::Relaxed),
            },
            "memory": {
                "server_and_crowd": held_by(std::process::id()),
                "pipeline": now.pipeline.as_ref().and_then(|pipeline| pipeline.memory()),
            },
            "pipeline_starts": now.pipeline.as_ref().map(|pipeline| count(&pipeline.starts)), "check": now.check,
        })
    }
}

/// What the page may do.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
enum Do {
    Pause,
    Go,
    Speed { speed: f64 },
    Jump { to: String },
    Kill,
    Lock,
    Trouble { what: String, on: bool },
}

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("demo.js");

/// The routes of the page.
pub(super) fn routes(shared: &Arc<Shared>) -> Router {
    Router::new()
        .route("/demo", get(|| async { page_file("text/html; charset=utf-8", PAGE) }))
        .route("/demo.js", get(|| async { page_file("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/demo/state", get(|State(shared): State<Arc<Shared>>| async move { Json(shared.state()) }))
        .route("/demo/control", post(control))
        .with_state(Arc::clone(shared))
}

async fn control(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    parts: Parts,
    action: Result<Json<Do>, axum::extract::rejection::JsonRejection>,
) -> Response {
    if !peer.ip().is_loopback() || !is_local(&parts) {
        return Problem::new(403, "not-local", "the demo is controlled from this machine alone")
            .into_response();
    }
    let action = match action {
        Ok(Json(action)) => action,
        Err(error) => return Problem::new(400, "bad-action", error.body_text()).into_response(),
    };
    match shared.act(action) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(what) => Problem::new(400, "bad-action", what).into_response(),
    }
}

impl Shared {
    fn act(&self, action: Do) -> Result<(), String> {
        match action {
            Do::Pause => self.clock.set_pace(None, Some(true)),
            Do::Go => self.clock.set_pace(None, Some(false)),
            Do::Speed { speed } if (1.0..=3_600.0).contains(&speed) => self.clock.set_pace(Some(speed), None),
            Do::Speed { .. } => return Err("speed is from 1 to 3600".to_owned()),
            Do::Jump { to } => {
                let moment = super::moment(&to)?;
                let mut now = self.now();
                if now.preparing.is_some() {
                    return Err("another moment is being prepared".to_owned());
                }
                now.preparing = Some(moment.clone());
                let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
                sender.send(Told::Jump(moment)).map_err(|_| "the demo is ending".to_owned())?;
            }
            Do::Kill => {
                let pipeline = self.now().pipeline.clone();
                if pipeline.is_some_and(|pipeline| pipeline.kill()) {
                    self.say("The pipeline was killed, as by kill -9.");
                }
            }
            Do::Lock => self.lock()?,
            Do::Trouble { what, on } => {
                let mut now = self.now();
                let words = match what.as_str() {
                    "twice" => {
                        now.trouble.all_twice = on;
                        "send everything twice"
                    }
                    "held" => {
                        now.trouble.quarter_held = on;
                        "keep a quarter of their reports for an hour"
                    }
                    "clocks" => {
                        now.trouble.clocks_wrong = on;
                        "have clocks that are wrong by days"
                    }
                    _ => return Err("trouble is twice, held or clocks".to_owned()),
                };
                if let Some(crowd) = &now.crowd {
                    crowd.set_trouble(now.trouble);
                }
                drop(now);
                self.say(&format!("Devices {}{words}.", if on { "" } else { "no longer " }));
            }
        }
        Ok(())
    }

    /// Keeps the pipeline away from the table for some seconds.
    fn lock(&self) -> Result<(), String> {
        let folder = self.now().folder.clone();
        if self.is_locked.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let free = || self.is_locked.store(false, Ordering::Release);
        let held = SqliteTable::hold(&folder).map_err(|error| {
            free();
            error.to_string()
        })?;
        self.say(&format!("Nobody can write to the table for {} s.", LOCKED_FOR.as_secs()));
        let is_locked = Arc::clone(&self.is_locked);
        std::thread::spawn(move || {
            std::thread::sleep(LOCKED_FOR);
            drop(held);
            is_locked.store(false, Ordering::Release);
        });
        Ok(())
    }
}
