//! Who may do what: write keys, the admin token, and how often.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Version, header};

use crate::app::App;
use crate::ids::{is_equal, random};
use crate::problem::{Answer, Problem};
use crate::settings::{Secrets, Settings};

/// Where a write key may stand, beside `Authorization: Bearer`.
pub(crate) const KEY_HEADER: &str = "x-uptake-key";

/// Decides who may do what.
pub(crate) struct Access {
    write_keys: Vec<Vec<u8>>,
    admin_token: Option<Vec<u8>>,
    /// Whether nobody but this machine can reach us: a proxy on it could, for the whole world.
    is_loopback: bool,
    proxies: usize,
    rate: Option<Rate>,
}

impl Access {
    pub(crate) fn new(settings: &Settings, secrets: &Secrets, listening: SocketAddr) -> Self {
        Self {
            write_keys: secrets.write_keys.clone(),
            admin_token: secrets.admin_token.clone(),
            is_loopback: listening.ip().is_loopback() && settings.proxies == 0,
            proxies: settings.proxies,
            rate: settings.rate_per_second.map(Rate::new),
        }
    }

    /// Whether a body is to be read at all: a key that is wrong is refused before. A beacon has no headers, so its key
    /// comes in the body; whoever compresses sets a header for that, and can set this one too.
    pub(crate) fn check_before_reading(&self, headers: &HeaderMap, is_compressed: bool) -> Answer<()> {
        match is_compressed || key_in(headers).is_some() {
            true => self.check_write_key(headers, None),
            false => Ok(()),
        }
    }

    /// Whether events may be sent. All keys are compared, in a time that says nothing of them.
    pub(crate) fn check_write_key(&self, headers: &HeaderMap, in_body: Option<&str>) -> Answer<()> {
        if self.write_keys.is_empty() {
            return Ok(());
        }
        let given = key_in(headers).or(in_body).unwrap_or_default();
        let known = self.write_keys.iter().fold(false, |known, key| known | is_equal(key, given.as_bytes()));
        if known {
            return Ok(());
        }
        Err(Problem::new(401, "no-write-key", format!("a write key is needed, in the header {KEY_HEADER}")))
    }

    /// Whether rules and operations may be seen and changed.
    fn check_admin(&self, request: &Parts) -> Answer<()> {
        let Some(token) = &self.admin_token else {
            if self.is_loopback && is_local(request) {
                return Ok(());
            }
            let detail = "no admin token is configured, so this is for the machine itself only";
            return Err(Problem::new(403, "no-admin-token", detail));
        };
        let given = bearer(&request.headers).unwrap_or_default();
        if is_equal(token, given.as_bytes()) {
            return Ok(());
        }
        Err(Problem::new(401, "not-admin", "the admin token is needed, as Authorization: Bearer"))
    }

    /// Whether this key or address may make another request now.
    pub(crate) fn check_rate(&self, headers: &HeaderMap, peer: IpAddr) -> Answer<()> {
        let Some(rate) = &self.rate else { return Ok(()) };
        // Only a key that is known has a rate of its own: others could be made up.
        let key = key_in(headers).map(str::as_bytes);
        let known = key.filter(|given| self.write_keys.iter().any(|key| is_equal(key, given)));
        let is_free = match known {
            Some(key) => rate.take(key),
            None => rate.take(&address_bytes(self.client(headers, peer))),
        };
        if is_free {
            return Ok(());
        }
        Err(Problem::new(429, "too-many-requests", "too many requests from this key or address")
            .retry_after(1))
    }

    /// Who is behind the proxies that we know of: each adds the address it saw at the end.
    fn client(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        if self.proxies == 0 {
            return peer;
        }
        let lists: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
        let all: Vec<&str> = lists.iter().flat_map(|list| list.split(',')).map(str::trim).collect();
        let place = all.len().checked_sub(self.proxies);
        place.and_then(|place| all[place].parse().ok()).unwrap_or(peer)
    }
}

fn key_in(headers: &HeaderMap) -> Option<&str> {
    headers.get(KEY_HEADER).and_then(|value| value.to_str().ok()).or_else(|| bearer(headers))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whoever may see and change rules and operations. Named first among what a route takes, so that nothing of the
/// body is read for others.
pub(crate) struct Admin;

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Answer<Self> {
        app.access.check_admin(parts).map(|()| Self)
    }
}

/// Whether a header says for whom a proxy asks.
fn is_of_a_proxy(name: &str) -> bool {
    name.starts_with("x-forwarded") || matches!(name, "forwarded" | "via" | "x-real-ip")
}

/// Whether the request was meant for this machine and made on it, and comes from no page of somebody else: a page
/// whose name points here says its own name, one of another origin says that, and a proxy says for whom it asks.
/// A proxy that says nothing may still speak HTTP/1.0, as nginx does where it is not told otherwise; clients of today
/// do not.
///
/// ```
/// use axum::http::Request;
/// let request = |name: &str, value: &str| {
///     let request = Request::get("/v1/rules").header("host", "localhost:8080").header(name, value);
///     request.body(()).unwrap().into_parts().0
/// };
/// assert!(uptake_serve::is_local(&request("origin", "http://localhost:8080")));
/// assert!(!uptake_serve::is_local(&request("origin", "https://elsewhere.example")));
/// assert!(!uptake_serve::is_local(&request("x-forwarded-for", "203.0.113.9")));
/// ```
pub fn is_local(request: &Parts) -> bool {
    let headers = &request.headers;
    let all = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?"));
    // HTTP/2 has the name in the address.
    let mut names =
        all(header::HOST).chain(request.uri.authority().map(|authority| authority.as_str())).peekable();
    let mut origins =
        all(header::ORIGIN).map(|origin| origin.split_once("://").map_or("?", |(_, host)| host));
    request.version > Version::HTTP_10
        && names.peek().is_some()
        && names.all(is_this_machine)
        && origins.all(is_this_machine)
        && !headers.keys().any(|name| is_of_a_proxy(name.as_str()))
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An address as its owner has it: of IPv6, a whole network.
fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets()[..8].to_vec(),
    }
}

/// The part of all connections that one address may hold, so that no one takes them all.
const SHARE: usize = 4;

/// How many connections each address holds; no more addresses than there are connections.
pub(crate) struct Holders {
    /// The most of one; `None` where all come from proxies, which hold them for others.
    most: Option<usize>,
    held: Mutex<HashMap<Vec<u8>, usize>>,
}

/// A connection of an address, as long as it is open.
pub(crate) struct Held {
    of: Arc<Holders>,
    address: Vec<u8>,
}

impl Holders {
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        let most = (settings.proxies == 0).then(|| settings.connections_max.div_ceil(SHARE));
        Arc::new(Self { most, held: Mutex::default() })
    }

    /// One more of this address; `None` if it has as many as it may. On this machine may be a proxy that nobody counts.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Held> {
        let most = self.most.filter(|_| !address.to_canonical().is_loopback()).unwrap_or(usize::MAX);
        let address = address_bytes(address);
        let mut held = self.held();
        let count = held.entry(address.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(held);
        Some(Held { of: Arc::clone(self), address })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Vec<u8>, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.of.held();
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

/// A rate for each of many, in memory that never grows: two that fall into one place share its rate.
struct Rate {
    /// When a place would be without debt, in nanoseconds since the start.
    places: Box<[AtomicU64]>,
    started: Instant,
    seed: u64,
    interval: u64,
}

impl Rate {
    const PLACES: usize = 1 << 16;
    /// What was saved up while nothing came.
    const BURST: Duration = Duration::from_secs(2);

    fn new(per_second: u32) -> Self {
        Self {
            places: (0..Self::PLACES).map(|_| AtomicU64::new(0)).collect(),
            started: Instant::now(),
            // Nobody outside can choose whose place to fall into.
            seed: random::<8>().map_or(0, u64::from_le_bytes),
            interval: 1_000_000_000 / u64::from(per_second.max(1)),
        }
    }

    fn take(&self, who: &[u8]) -> bool {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.take_at(who, now)
    }

    fn take_at(&self, who: &[u8], now: u64) -> bool {
        use std::hash::Hasher;
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(who);
        let place = &self.places[(hasher.finish() % Self::PLACES as u64) as usize];
        let burst = Self::BURST.as_nanos() as u64;
        let taken = place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free_at| {
            let free_at = free_at.max(now);
            (free_at - now <= burst).then_some(free_at + self.interval)
        });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, Request};

    #[test]
    fn a_rate_is_kept_after_a_burst() {
        let rate = Rate::new(10);
        let mut now = 0;
        let taken = (0..100).filter(|_| rate.take_at(b"one", now)).count();
        assert_eq!(taken, 21, "two seconds were saved up");
        now += 1_000_000_000;
        assert_eq!((0..100).filter(|_| rate.take_at(b"one", now)).count(), 10);
        assert!(rate.take_at(b"other", now), "another is not concerned");
    }

    fn parts(address: &str, headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::get(address), |request, (name, value)| {
            request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn nobody_holds_all_connections() {
        let of = |proxies| Holders::new(&Settings { connections_max: 10, proxies, ..Settings::default() });
        let (one, other) = (IpAddr::from([203, 0, 113, 9]), IpAddr::from([203, 0, 113, 10]));
        let holders = of(0);
        let mut held: Vec<Held> = (0..3).map(|_| holders.take(one).unwrap()).collect();
        assert!(holders.take(one).is_none() && holders.take(other).is_some());
        held.pop();
        assert!(holders.take(one).is_some(), "one was let go");
        let network = |last| holders.take(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]));
        let of_one: Vec<Option<Held>> = (0..4).map(network).collect();
        assert_eq!(of_one.iter().flatten().count(), 3, "of IPv6, a whole network");
        let mine: Vec<Option<Held>> = (0..9).map(|_| holders.take(IpAddr::from([127, 0, 0, 1]))).collect();
        assert!(mine.iter().all(Option::is_some));
        drop((held, of_one, mine));
        assert!(holders.held().is_empty(), "nothing is kept of who has left");
        let behind = of(1);
        assert!((0..9).map(|_| behind.take(one)).collect::<Vec<_>>().iter().all(Option::is_some));
    }

    #[test]
    fn a_page_elsewhere_whose_name_points_here_is_not_local() {
        let host = |name: &str| is_local(&parts("/", &[("host", name)]));
        assert!(host("127.0.0.1:8080") && host("localhost") && host("[::1]:8080") && host("LOCALHOST:1"));
        let from = |origin| is_local(&parts("/", &[("host", "localhost:8080"), ("origin", origin)]));
        assert!(from("http://localhost:8080"));
        assert!(!from("https://evil.example") && !from("null"), "a page of another origin");
        assert!(!host("evil.example:8080") && !host("localhost.evil.example") && !host("10.0.0.1"));
        assert!(
            !is_local(&parts("/", &[("host", "localhost"), ("host", "evil.example")])),
            "both are asked for"
        );
    }

    #[test]
    fn http2_says_the_name_in_the_address_and_who_says_none_is_not_local() {
        assert!(is_local(&parts("http://localhost:8080/v1/rules", &[])));
        assert!(!is_local(&parts("http://evil.example:8080/v1/rules", &[])));
        assert!(!is_local(&parts("http://evil.example/v1/rules", &[("host", "localhost")])));
        assert!(!is_local(&parts("/v1/rules", &[])));
    }

    #[test]
    fn whom_a_proxy_asks_for_is_not_local() {
        for header in [
            ("x-forwarded-for", "203.0.113.9"),
            ("X-Forwarded-Host", "site.example"),
            ("X-Forwarded-Proto", "https"),
            ("X-Real-IP", "203.0.113.9"),
            ("Forwarded", "for=203.0.113.9"),
            ("Via", "1.1 proxy"),
        ] {
            assert!(!is_local(&parts("/", &[("host", "127.0.0.1:8080"), header])), "{header:?}");
        }
        let mut old = parts("/", &[("host", "127.0.0.1:8080")]);
        assert!(is_local(&old));
        old.version = Version::HTTP_10;
        assert!(!is_local(&old), "nginx, as it is set at first");
    }

    fn access(proxies: usize, admin_token: Option<&[u8]>) -> Access {
        let secrets = Secrets {
            write_keys: vec![b"key-one-two".to_vec()],
            admin_token: admin_token.map(<[u8]>::to_vec),
            request_keys: vec![vec![7; 32]],
            member_key: vec![8; 32],
        };
        Access::new(&Settings { proxies, ..Settings::default() }, &secrets, ([127, 0, 0, 1], 80).into())
    }

    #[test]
    fn behind_a_proxy_nobody_is_let_in_without_a_token() {
        let own = parts("/", &[("host", "127.0.0.1:8080")]);
        assert!(access(0, None).check_admin(&own).is_ok());
        assert!(access(1, None).check_admin(&own).is_err(), "a proxy that says nothing of who asks");
        let with_token =
            parts("/", &[("host", "site.example"), ("authorization", "Bearer an admin token..")]);
        assert!(access(1, Some(b"an admin token..")).check_admin(&with_token).is_ok());
    }

    #[test]
    fn the_client_is_whom_our_own_proxy_saw() {
        let access = access(1, Some(b"an admin token.."));
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "1.1.1.1, 9.9.9.9".parse().unwrap());
        let peer = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(
            access.client(&headers, peer),
            IpAddr::from([9, 9, 9, 9]),
            "what came before may be a lie"
        );
        assert!(access.check_write_key(&headers, None).is_err());
        assert!(access.check_write_key(&headers, Some("key-one-two")).is_ok());
        headers.insert(KEY_HEADER, "key-one-two".parse().unwrap());
        assert!(access.check_write_key(&headers, None).is_ok());
    }
}
