//! The real servers that `cargo xtask services` starts, as the environment says where they are.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::live::{PATIENCE, kill, wait_until};

/// Tests kill servers, so only one uses them at a time.
static IN_USE: Mutex<()> = Mutex::new(());

/// The servers, for one test.
pub(crate) struct Servers {
    /// A prefix of topics, keyspaces and paths that nobody else uses.
    pub(crate) own: String,
    _in_use: MutexGuard<'static, ()>,
}

/// A variable of the environment.
#[track_caller]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: this test needs real servers. `cargo xtask test` starts them; or run \
             `cargo xtask services up`, set the variables that it prints, and run the test again"
        )
    })
}

impl Servers {
    #[track_caller]
    pub(crate) fn take(test: &str) -> Self {
        variable("UPTAKE_TEST_SERVICES");
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let own = format!("{test}-{:x}-", nanos as u64 & 0xff_ffff_ffff);
        Self { own, _in_use: IN_USE.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// The settings with which log, table and archive are on the servers.
    pub(crate) fn settings(&self) -> Vec<String> {
        self.settings_with_stores("")
    }

    /// The same log, with a table and an archive that differ by `name`.
    pub(crate) fn settings_with_stores(&self, name: &str) -> Vec<String> {
        let own = &self.own;
        let keyspace: String = own.chars().chain(name.chars()).filter(char::is_ascii_alphanumeric).collect();
        vec![
            format!("table.url=cassandra://{}/{keyspace}", variable("UPTAKE_TEST_CASSANDRA")),
            format!("cassandra.user={}", variable("UPTAKE_TEST_CASSANDRA_USER")),
            "cassandra.password=env:UPTAKE_TEST_CASSANDRA_PASSWORD".to_owned(),
            "cassandra.replication=1".to_owned(),
            "cassandra.consistency=ONE".to_owned(),
            format!("archive.url=s3://{}/{own}data{name}", variable("UPTAKE_TEST_S3_BUCKET")),
            format!("s3.endpoint={}", variable("UPTAKE_TEST_S3")),
            "s3.allow_http=true".to_owned(),
            "s3.region=us-east-1".to_owned(),
            format!("s3.access_key_id={}", variable("UPTAKE_TEST_S3_KEY")),
            "s3.secret_access_key=env:UPTAKE_TEST_S3_SECRET".to_owned(),
            format!("log.url=kafka://{}", variable("UPTAKE_TEST_KAFKA")),
            format!("kafka.topic_prefix={own}"),
            format!("kafka.group={own}group{name}"),
        ]
    }

    fn folder(&self, server: &str) -> PathBuf {
        PathBuf::from(variable("UPTAKE_TEST_SERVICES")).join(server)
    }

    /// kill -9.
    pub(crate) fn kill(&self, server: &str) {
        let pid = std::fs::read_to_string(self.folder(server).join("pid")).unwrap();
        kill("KILL", pid.trim());
        let gone = format!("/proc/{}", pid.trim());
        wait_until("the server is gone", PATIENCE, || !std::path::Path::new(&gone).exists());
    }

    /// Starts a server again that was killed, and waits until it takes connections.
    pub(crate) fn start(&self, server: &str) {
        assert!(Command::new(self.folder(server).join("start")).status().unwrap().success());
        let address = variable(&format!("UPTAKE_TEST_{}", server.to_uppercase()));
        let address = address.trim_start_matches("http://").to_owned();
        wait_until("the server takes connections", PATIENCE, || TcpStream::connect(&address).is_ok());
    }
}
