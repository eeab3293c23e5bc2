//! What all requests share, and the routes.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tokio::sync::{Semaphore, watch};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::cors::{AllowOrigin, CorsLayer};
use uptake_connectors::log::Log;
use uptake_connectors::{LogError, TableError};
use uptake_model::{Epoch, EpochLength, EventTime};
use uptake_trends::Catalogue;
use uptake_trends::rows::Choice;

use crate::access::Access;
use crate::clock::Now;
use crate::collect::{self, InputTopics, Judge, Writer};
use crate::ids::Signer;
use crate::metrics::Metrics;
use crate::problem::{Answer, Problem, in_one_form, of_panic};
use crate::rows::age::RowAge;
use crate::rows::board::Board;
use crate::rows::{inspect, serve as row, stream};
use crate::rules::{self, RULES, RuleBook};
use crate::server::Parts;
use crate::settings::{Secrets, Settings};
use crate::tables::{HANDLES_MAX, Tables};
use crate::timeline::{self, Orders};
use crate::{assets, letters, operations, pipeline, traces, videos};

/// The topic of served rows: what was shown under which request, with which probability.
pub const SERVED_ROWS: &str = "served-rows";

/// The largest body beside those of events: a rule has less.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Reads the catalogue; `None` where it is as it was when it was read last.
pub type LoadCatalogue = Box<dyn Fn() -> Result<Option<Catalogue>, String> + Send + Sync>;

/// What all requests share.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) access: Access,
    pub(crate) signer: Arc<Signer>,
    pub(crate) judge: Judge,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) writer: Writer,
    pub(crate) input: InputTopics,
    pub(crate) input_topics: Vec<String>,
    pub(crate) served_partitions: u32,
    pub(crate) tables: Tables,
    pub(crate) board: Board,
    pub(crate) row_age: RowAge,
    pub(crate) orders: Orders,
    pub(crate) rules: RuleBook,
    load_catalogue: LoadCatalogue,
    catalogue: RwLock<Arc<Catalogue>>,
    pub(crate) books: Arc<dyn pipeline::Books>,
    pub(crate) metrics: Arc<Metrics>,
    /// Bytes of bodies that are being read.
    pub(crate) bodies: Arc<Semaphore>,
    pub(crate) streams: Arc<Semaphore>,
    /// Who may read files.
    reading: Arc<Semaphore>,
    pub(crate) stopping: watch::Sender<bool>,
    epoch: EpochLength,
    now: Now,
}

/// Why the server cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The address cannot be listened on, or a thread not be started.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// Where.
        listen: String,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot use the certificate of serve.tls_cert and serve.tls_key: {what}")]
    Tls {
        /// Why.
        what: String,
    },
    /// The catalogue.
    #[error("cannot use the catalogue of rows.catalogue: {0}")]
    Catalogue(String),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

impl App {
    pub(crate) fn new(
        settings: Settings,
        secrets: &Secrets,
        parts: Parts,
        listening: SocketAddr,
    ) -> Result<Self, ServeError> {
        let Parts { log, open_table, rows, books, decode, input_topics, epoch, load_catalogue, now, .. } =
            parts;
        let metrics = Arc::new(Metrics::default());
        let ends = [input_topics.first(), input_topics.last()];
        let topics = ends.map(|topic| Arc::from(topic.map_or("", String::as_str)));
        let partitions = [log.partitions(&topics[0])?, log.partitions(&topics[1])?];
        log.create_topic(RULES, 1)?;
        if log.partitions(SERVED_ROWS).is_err() {
            log.create_topic(SERVED_ROWS, partitions[0])?;
        }
        let served_partitions = log.partitions(SERVED_ROWS)?;
        let signer = Arc::new(Signer::new(&secrets.request_keys));
        let writer =
            Writer::start(&log, settings.queue_events_max, settings.bodies_bytes_max, &metrics, &now);
        let writer = writer.map_err(ServeError::Thread)?;
        let rules = RuleBook::default();
        rules.refresh(&*log, now())?;
        let lost = log.start_offset(RULES, 0)?;
        if lost > 0 {
            metrics.say(&format!(
                "the first {lost} records of the topic {RULES} were dropped, and the rules in them hold no more; let the \
                 topic keep its records (in Kafka retention.ms=-1), and set those rules again"
            ));
        }
        let catalogue = load_catalogue().map_err(ServeError::Catalogue)?.unwrap_or_default();
        Ok(Self {
            access: Access::new(&settings, secrets, listening),
            judge: Judge::new(&settings, secrets, &decode, Arc::clone(&signer)),
            signer,
            writer,
            input: InputTopics { topics, partitions },
            input_topics,
            served_partitions,
            tables: Tables::new(open_table),
            board: Board::new(rows),
            row_age: RowAge::new(),
            orders: Orders::default(),
            rules,
            load_catalogue,
            catalogue: RwLock::new(catalogue.into()),
            books,
            metrics,
            bodies: Arc::new(Semaphore::new(settings.bodies_bytes_max)),
            streams: Arc::new(Semaphore::new(settings.streams_max)),
            reading: Arc::new(Semaphore::new(HANDLES_MAX)),
            stopping: watch::Sender::new(false),
            epoch,
            now,
            log,
            settings,
        })
    }

    /// What time it is where the events happen.
    pub(crate) fn now(&self) -> EventTime {
        (self.now)()
    }

    /// What is known of the titles.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the catalogue if it has changed. One that cannot be used leaves the one before it.
    pub(crate) fn refresh_catalogue(&self) {
        match (self.load_catalogue)() {
            Ok(None) => {}
            Ok(Some(new)) => *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = new.into(),
            Err(what) => self.metrics.say(&format!("cannot use the catalogue, it stays as it was: {what}")),
        }
    }

    /// Does something with what rows are chosen with, as of now.
    pub(crate) fn choosing<T>(&self, choose: impl FnOnce(&Choice<'_>) -> T) -> T {
        let (known, catalogue) = (self.rules.known(), self.catalogue());
        let (options, now) = (&self.settings.rows, self.now());
        choose(&Choice { options, rules: &known.rules, catalogue: &catalogue, now })
    }

    /// The start of an epoch, as text.
    pub(crate) fn epochs(&self, epoch: Epoch) -> String {
        self.epoch.start(epoch).to_string()
    }

    /// What the row of everyone has of a video: the number of its epoch, and the plays.
    pub(crate) fn plays(&self, video: &str) -> Option<(i64, u64)> {
        self.board.rows().plays(video).map(|(epoch, plays)| (epoch.0, plays))
    }

    /// The answer where the table cannot be read: what is wrong with it is said to the operator.
    pub(crate) fn table_away(&self, error: &TableError) -> Problem {
        self.metrics.say(&format!("cannot read the table: {error}"));
        Problem::new(503, "table-away", "the table cannot be read now").retry_after(5)
    }

    /// Does what reads files, away from the threads that serve everyone.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        // Each has a handle of the table, and memory for it: of many requests at once most wait.
        let Ok(permit) = Arc::clone(&self.reading).acquire_owned().await else {
            return Err(Problem::new(503, "stopping", "the server is being stopped"));
        };
        let work = move || {
            let answer = work();
            drop(permit);
            answer
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(answer) => answer,
            Err(_) => Err(Problem::new(500, "defect", "the server met a defect of its own")),
        }
    }
}

/// All routes and those beside ours, with what holds for all of them around.
pub(crate) fn router(app: &Arc<App>, beside: Router) -> Router {
    let routes = Router::new()
        .route("/v1/events", post(collect::events))
        .route("/v1/rows/{name}", get(row::row))
        .route("/v1/rows/{name}/stream", get(stream::stream))
        .route("/v1/rows/{name}/inspect", get(inspect::inspect))
        .route("/v1/videos/{id}", get(videos::series))
        .route("/v1/videos/{id}/timeline", get(timeline::timeline))
        .route("/v1/videos/{id}/why", get(videos::why))
        .route("/v1/explain/request/{id}", get(videos::explain))
        .route("/v1/rules", get(rules::list).post(rules::add))
        .route("/v1/rules/audit", get(rules::audit))
        .route("/v1/rules/{id}", delete(rules::remove))
        .route("/v1/pipeline", get(pipeline::pipeline))
        .route("/v1/dead-letters", get(letters::list))
        .route("/v1/dead-letters/replay", post(letters::replay))
        .route("/healthz", get(operations::healthz))
        .route("/readyz", get(operations::readyz))
        .route("/metrics", get(operations::metrics))
        .route("/openapi.json", get(operations::openapi))
        .merge(assets::routes())
        .merge(beside.with_state(()));
    let compressed = SizeAbove::new(512).and(NotForContentType::SSE);
    routes
        .fallback(|| async { Problem::new(404, "not-found", "there is nothing at this address") })
        .method_not_allowed_fallback(|| async {
            Problem::new(405, "method-not-allowed", "this address does not take that method")
        })
        // The collector reads its bodies itself, up to what is configured.
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(app), bounded))
        .layer(CatchPanicLayer::custom(of_panic))
        .layer(from_fn(in_one_form))
        .layer(CompressionLayer::new().compress_when(compressed))
        .layer(cors(&app.settings))
        .layer(from_fn_with_state(Arc::clone(app), counted))
        .layer(from_fn(secured))
        .with_state(Arc::clone(app))
}

fn cors(settings: &Settings) -> CorsLayer {
    let origins = match settings.origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(settings.origins.iter().filter_map(|origin| origin.parse().ok())),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::AUTHORIZATION,
            header::IF_NONE_MATCH,
            HeaderName::from_static(crate::access::KEY_HEADER),
            HeaderName::from_static(collect::CLIENT),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([header::ETAG, header::RETRY_AFTER])
        .max_age(std::time::Duration::from_secs(7_200))
}

/// No request takes for ever, and nobody makes too many.
async fn bounded(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    // Who watches over us is not counted among those who use us.
    if !matches!(path, "/healthz" | "/readyz" | "/metrics")
        && let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>()
        && let Err(problem) = app.access.check_rate(request.headers(), peer.ip())
    {
        return problem.into_response();
    }
    match tokio::time::timeout(app.settings.timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(504, "timeout", "the request took too long").retry_after(1).into_response(),
    }
}

async fn counted(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let mut span = traces::begin(request.method(), route.as_deref(), request.headers());
    let response = next.run(request).await;
    span.end(response.status());
    let route = route.as_deref().unwrap_or("none");
    app.metrics.request(route, response.status().as_u16(), begun.elapsed().as_secs_f64());
    response
}

/// Headers that keep a browser from doing more with an answer than it is meant for.
async fn secured(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
        );
    }
    response
}
