//! The table in Cassandra, the archive and the objects in S3 against real servers: what every table,
//! archive and store of objects must do, and what they say when a server is not as it should be.
//!
//! `cargo xtask services up` prints the variables that say where the servers are.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod families;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uptake_connectors::options::Options;
use uptake_connectors::{Backend, archive, objects, table};

/// A variable of the environment.
#[track_caller]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `cargo xtask services up` and set the variables that it prints")
    })
}

/// A name that nobody else uses.
fn own_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    format!("t{since}n{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn options(of: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    of.iter().for_each(|(key, value)| options.set(*key, *value));
    options
}

fn cassandra(keyspace: &str) -> Backend {
    format!("cassandra://{}/{keyspace}", variable("UPTAKE_TEST_CASSANDRA")).parse().unwrap()
}

/// Options with a login to the server of the tests, and `more`.
fn login(more: &[(&str, &str)]) -> Options {
    let (user, password) =
        (variable("UPTAKE_TEST_CASSANDRA_USER"), variable("UPTAKE_TEST_CASSANDRA_PASSWORD"));
    let mut all = options(&[("consistency", "ONE"), ("user", &user), ("password", &password)]);
    more.iter().for_each(|(key, value)| all.set(*key, *value));
    all
}

/// Those of a new table.
const NEW: [(&str, &str); 2] = [("replication", "1"), ("create_schema", "true")];

fn bucket(prefix: &str) -> Backend {
    format!("s3://{}/{prefix}", variable("UPTAKE_TEST_S3_BUCKET")).parse().unwrap()
}

/// Options for the server of the tests, with `secret` as its key's secret.
fn s3(endpoint: &str, secret: &str) -> Options {
    options(&[
        ("endpoint", endpoint),
        ("allow_http", "true"),
        ("region", "us-east-1"),
        ("access_key_id", &variable("UPTAKE_TEST_S3_KEY")),
        ("secret_access_key", secret),
        ("connect_timeout", "2s"),
        ("request_timeout", "3s"),
        ("retry_timeout", "3s"),
    ])
}

fn real_s3() -> Options {
    s3(&variable("UPTAKE_TEST_S3"), &variable("UPTAKE_TEST_S3_SECRET"))
}

#[test]
fn cassandra_table_conforms() {
    let options = login(&NEW);
    families::table::table(|| (table::open(&cassandra(&own_name()), &options).unwrap(), ()));
}

#[test]
fn s3_archive_conforms() {
    families::archive::archive(|| (archive::open(&bucket(&own_name()), &real_s3()).unwrap(), ()));
}

#[test]
fn s3_objects_conform() {
    families::objects::objects(|| {
        (objects::open(&bucket(&own_name()), objects::CHECKPOINTS, &real_s3()).unwrap(), ())
    });
}

/// An address that nobody listens on, and one where connections are taken and nothing is said.
fn closed_and_silent() -> (String, TcpListener) {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    (closed.to_string(), TcpListener::bind("127.0.0.1:0").unwrap())
}

/// `open` must fail soon, and say all of `parts` and never the secret.
#[track_caller]
fn refuses<T, E: std::fmt::Display>(open: impl FnOnce() -> Result<T, E>, parts: &[&str]) {
    let begun = Instant::now();
    let Err(error) = open() else { panic!("it opened, and should have said {parts:?}") };
    let (said, took) = (error.to_string(), begun.elapsed());
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(!said.contains("hunter2") && took < Duration::from_secs(20), "after {took:?}: {said}");
}

#[test]
fn a_cassandra_that_does_not_answer_is_named() {
    let (closed, silent) = closed_and_silent();
    let silent_address = silent.local_addr().unwrap().to_string();
    for address in [&closed, &silent_address] {
        let url = format!("cassandra://{address}/uptake");
        let options = options(&[("connect_timeout", "3s"), ("user", "u"), ("password", "hunter2")]);
        refuses(|| table::open(&url.parse().unwrap(), &options), &[&url, "check"]);
    }
}

#[test]
fn a_cassandra_without_the_tables_says_how_to_make_them() {
    let backend = cassandra(&own_name());
    refuses(|| table::open(&backend, &login(&[])), &[&backend.to_string(), "uptake migrate"]);
}

#[test]
fn cassandra_is_spoken_to_over_tls() {
    let certificate = variable("UPTAKE_TEST_CASSANDRA_CA");
    let tls = [NEW.as_slice(), &[("tls_ca", certificate.as_str())]].concat();
    let mut table = table::open(&cassandra(&own_name()), &login(&tls)).unwrap();
    table.meta_put("over", "tls").unwrap();
    assert_eq!(table.meta_get("over").unwrap().as_deref(), Some("tls"));
    // Another's certificate is not believed.
    let others = variable("UPTAKE_TEST_KAFKA_CA");
    let backend = cassandra(&own_name());
    let refused = login(&[("tls_ca", &others), ("connect_timeout", "5s")]);
    refuses(|| table::open(&backend, &refused), &[&backend.to_string(), "check"]);
}

#[test]
fn a_cassandra_that_refuses_the_login_says_so() {
    let backend = cassandra(&own_name());
    let named = backend.to_string();
    for options in [login(&[("password", "hunter2")]), options(&[("consistency", "ONE")])] {
        refuses(|| table::open(&backend, &options), &[&named, "user", "password"]);
    }
}

#[test]
fn an_s3_server_that_does_not_answer_is_named() {
    let (closed, silent) = closed_and_silent();
    for address in [closed, silent.local_addr().unwrap().to_string()] {
        let (backend, options) = (bucket(&own_name()), s3(&format!("http://{address}"), "hunter2"));
        let named = backend.to_string();
        let parts = [&*named, "endpoint"];
        refuses(|| archive::open(&backend, &options), &parts);
        refuses(|| objects::open(&backend, objects::CHECKPOINTS, &options), &parts);
    }
}

#[test]
fn wrong_keys_and_a_missing_bucket_are_told_apart() {
    let options = s3(&variable("UPTAKE_TEST_S3"), "hunter2");
    refuses(|| archive::open(&bucket(&own_name()), &options), &["secret_access_key"]);
    let missing: Backend = format!("s3://{}/x", own_name()).parse().unwrap();
    refuses(|| archive::open(&missing, &real_s3()), &["no such bucket", &missing.to_string()]);
}
