//! The server: connections with deadlines, a limit to their number, TLS, and a stop that loses nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tower_http::add_extension::AddExtension;
use uptake_connectors::log::Log;
use uptake_model::EpochLength;
use uptake_model::decode::DecodeConfig;

use crate::access::{Held, Holders};
use crate::app::{App, LoadCatalogue, ServeError, router};
use crate::clock::Now;
use crate::patience::Patient;
use crate::pipeline::Books;
use crate::rows::Rows;
use crate::settings::{Secrets, Settings};
use crate::tables::OpenTable;

/// How long a stop waits for requests that have begun.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// What the server is put together from.
pub struct Parts {
    /// Where events go; has the input's topics.
    pub log: Arc<dyn Log>,
    /// Where tallies are read.
    pub open_table: OpenTable,
    /// What ranks.
    pub rows: Arc<dyn Rows>,
    /// What the pipeline did.
    pub books: Arc<dyn Books>,
    /// How records look.
    pub decode: Arc<DecodeConfig>,
    /// The topics that the pipeline reads: impressions go to the first, plays to the last.
    pub input_topics: Vec<String>,
    /// The length of an epoch.
    pub epoch: EpochLength,
    /// What is known of the titles.
    pub load_catalogue: LoadCatalogue,
    /// What time it is where the events happen.
    pub now: Now,
    /// Routes beside our own.
    pub routes: Router,
    /// A socket that listens already, for servers that follow each other: who comes in between waits in its queue.
    /// Otherwise one is made at the address of the settings.
    pub listener: Option<std::net::TcpListener>,
}

/// How many connections may wait to be accepted: as many as come at once after a break. Of more, the system lets each
/// wait for a second.
const QUEUE: u32 = 4_096;

/// A server that listens.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    address: SocketAddr,
    beside: Router,
}

impl Server {
    /// Listens on the address of the settings, or takes over a socket that does; connections wait until [`Server::run`].
    ///
    /// # Errors
    /// The address is taken, the certificate cannot be used, or the log lacks the input's topics.
    pub async fn bind(settings: Settings, secrets: &Secrets, mut parts: Parts) -> Result<Self, ServeError> {
        let tls = settings.tls.as_ref().map(|(certificate, key)| acceptor(certificate, key)).transpose()?;
        let failed = |source| ServeError::Listen { listen: settings.listen.clone(), source };
        let listener = match parts.listener.take() {
            Some(listener) => adopt(listener),
            None => listen(&settings.listen).await,
        };
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let beside = std::mem::take(&mut parts.routes);
        let app = Arc::new(App::new(settings, secrets, parts, address)?);
        Ok(Self { app, listener, tls, address, beside })
    }

    /// Where it listens, with the port that the system chose where none was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it speaks TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves until `stop`; then takes nothing new, finishes what has begun, and writes what was
    /// taken.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { app, listener, tls, beside, .. } = self;
        let background = tokio::spawn(refresh(Arc::clone(&app)));
        let routes = router(&app, beside);
        let graceful = GracefulShutdown::new();
        let connections = Arc::new(Semaphore::new(app.settings.connections_max));
        let holders = Holders::new(&app.settings);
        let mut stop = std::pin::pin!(stop);
        loop {
            // Beyond the limit the next one waits in the system's queue, which is bounded too.
            let permit = tokio::select! {
                permit = Arc::clone(&connections).acquire_owned() => permit,
                () = &mut stop => break,
            };
            let Ok(permit) = permit else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stop => break,
            };
            let Ok((stream, peer)) = accepted else {
                // Out of file descriptors, most likely: others are given time to end.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let Some(held) = holders.take(peer.ip()) else { continue };
            let connection = Connection {
                app: Arc::clone(&app),
                routes: routes.clone(),
                peer,
                watcher: graceful.watcher(),
                _holds: (permit, held),
            };
            tokio::spawn(connection.serve(stream, tls.clone()));
        }
        drop(listener);
        app.stopping.send_replace(true);
        // A client that never ends its request does not keep us.
        let _ = tokio::time::timeout(STOP_WITHIN, graceful.shutdown()).await;
        background.abort();
        let closing = Arc::clone(&app);
        let _ = tokio::task::spawn_blocking(move || closing.writer.close()).await;
    }
}

struct Connection {
    app: Arc<App>,
    routes: Router,
    peer: SocketAddr,
    watcher: hyper_util::server::graceful::Watcher,
    /// One of all connections, and one of its address.
    _holds: (OwnedSemaphorePermit, Held),
}

impl Connection {
    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // An answer is small and waited for.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.speak(stream).await };
        let handshake = tokio::time::timeout(self.app.settings.read_timeout, tls.accept(stream));
        if let Ok(Ok(stream)) = handshake.await {
            self.speak(stream).await;
        }
    }

    async fn speak(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { app, routes, peer, watcher, _holds } = self;
        app.metrics.connections.inc();
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(app.settings.read_timeout)
            .max_buf_size(64 << 10);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .max_concurrent_streams(100)
            .max_header_list_size(32 << 10);
        // Around the router as a whole: a layer of the router would be made for each route of each connection.
        let service = TowerToHyperService::new(AddExtension::new(routes, ConnectInfo(peer)));
        let stream = Patient::new(stream, app.settings.read_timeout, app.settings.timeout);
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        // How a connection ends is the client's matter.
        let _ = watcher.watch(connection).await;
        app.metrics.connections.dec();
    }
}

fn adopt(listener: std::net::TcpListener) -> std::io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Listens on the first address of a name that allows it.
async fn listen(on: &str) -> std::io::Result<TcpListener> {
    let mut refused = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host(on).await? {
        let begin = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A server that was ended a moment ago may begin again at once.
            socket.set_reuseaddr(cfg!(unix))?;
            socket.bind(address)?;
            socket.listen(QUEUE)
        };
        match begin() {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Looks at rows and rules again and again.
async fn refresh(app: Arc<App>) {
    let mut stopping: watch::Receiver<bool> = app.stopping.subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(app.settings.rows_refresh) => {}
            _ = stopping.changed() => return,
        }
        let for_it = Arc::clone(&app);
        let looked = tokio::task::spawn_blocking(move || {
            if let Err(error) = for_it.rules.refresh(&*for_it.log, for_it.now()) {
                for_it.metrics.say(&format!("cannot read the rules: {error}"));
            }
            for_it.refresh_catalogue();
            let refreshed = for_it.choosing(|choice| for_it.board.refresh(&for_it.tables, choice));
            for_it.row_age.look(|video| for_it.plays(video));
            if let Err(error) = refreshed {
                for_it.metrics.say(&format!("cannot read the table: {error}; rows stay as they were"));
            }
        });
        if looked.await.is_err() {
            app.metrics.say("a defect in ranking the rows; they stay as they were");
        }
    }
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, ServeError> {
    let failed = |what: String| ServeError::Tls { what };
    let read = |path: &Path, error: &dyn std::fmt::Display| failed(format!("{}: {error}", path.display()));
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(|e| read(certificate, &e))?.collect();
    let chain = chain.map_err(|e| read(certificate, &e))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| read(key, &e))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| failed(e.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
