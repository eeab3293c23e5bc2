//! What the driver is told: its own options, those that are ours alone, and what must not be printed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use super::super::Result;
use crate::error::LogError;

/// Who is told what the driver has to say, a line each; nobody by default.
#[derive(Clone, Default)]
pub struct Notices(Option<Listener>);

type Listener = Arc<dyn Fn(&str) + Send + Sync>;

impl Notices {
    /// Tells `listener`, which must return soon.
    pub fn new(listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(super) fn tell(&self, line: &str) {
        if let Some(listener) = &self.0 {
            listener(line);
        }
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Notices(..)" } else { "Notices(nobody)" })
    }
}

/// How Kafka is used. The defaults suit a broker without TLS and SASL.
///
/// ```
/// use uptake_connectors::log::KafkaOptions;
/// let mut options = KafkaOptions { group: "uptake-eu".into(), ..KafkaOptions::default() };
/// options.client.insert("security.protocol".into(), "SASL_SSL".into());
/// options.client.insert("sasl.password".into(), "hunter2".into());
/// assert!(!format!("{options:?}").contains("hunter2"));
/// ```
#[derive(Clone)]
pub struct KafkaOptions {
    /// Options of the driver (librdkafka) by its names: TLS, SASL, compression, buffers.
    pub client: BTreeMap<String, String>,
    /// The consumer group under which positions are reported, for tools that show lag.
    pub group: String,
    /// Put in front of the name of every topic.
    pub topic_prefix: String,
    /// Copies of a topic that is created; the broker's default without it.
    pub replication: Option<u16>,
    /// Settings of a topic that is created, by the broker's names.
    pub topic: BTreeMap<String, String>,
    /// How long a question to the brokers may take, with all its retries.
    pub ask_timeout: Duration,
    /// How long an append may take, with all its retries.
    pub append_timeout: Duration,
    /// Where a schema registry is (`http://…`), if records are written by schemas.
    pub schema_registry: Option<String>,
    /// User and password of the registry.
    pub schema_registry_login: Option<(String, String)>,
    /// Who is told what the driver says.
    pub notices: Notices,
}

impl Default for KafkaOptions {
    /// Group `uptake`, no prefix, 15 s for a question and 60 s for an append.
    fn default() -> Self {
        Self {
            client: BTreeMap::new(),
            group: "uptake".to_owned(),
            topic_prefix: String::new(),
            replication: None,
            topic: BTreeMap::new(),
            ask_timeout: Duration::from_secs(15),
            append_timeout: Duration::from_secs(60),
            schema_registry: None,
            schema_registry_login: None,
            notices: Notices::default(),
        }
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secret under names nobody here knows, so only the keys are shown.
        f.debug_struct("KafkaOptions")
            .field("client", &self.client.keys().collect::<Vec<_>>())
            .field("group", &self.group)
            .field("topic_prefix", &self.topic_prefix)
            .field("replication", &self.replication)
            .field("topic", &self.topic)
            .field("ask_timeout", &self.ask_timeout)
            .field("append_timeout", &self.append_timeout)
            .field("schema_registry", &self.schema_registry)
            .finish_non_exhaustive()
    }
}

/// Whether a driver option holds a secret, which belongs neither in a URL nor in a message.
pub(crate) fn is_secret(key: &str) -> bool {
    let named = ["password", "secret", "token", "sasl.jaas", "assertion", "oauthbearer.config"];
    named.iter().any(|part| key.contains(part)) || key == "ssl.key.pem" || key == "sasl.username"
}

/// Keys that decide what a log is, and what to do instead of setting them.
const OURS: [(&str, &str); 13] = [
    ("bootstrap.servers", "the hosts are those of the URL"),
    ("metadata.broker.list", "the hosts are those of the URL"),
    ("group.id", "set the group instead"),
    ("group.instance.id", "partitions are assigned by Uptake, not by the group"),
    ("partition.assignment.strategy", "partitions are assigned by Uptake, not by the group"),
    ("enable.auto.commit", "positions are reported with each checkpoint"),
    ("enable.auto.offset.store", "positions are reported with each checkpoint"),
    ("auto.offset.reset", "a lost offset is never skipped in silence; see input.on_gap"),
    ("enable.partition.eof", "the reader needs it"),
    ("transactional.id", "appends are idempotent, not transactional"),
    ("message.timeout.ms", "set the time an append may take instead"),
    ("delivery.timeout.ms", "set the time an append may take instead"),
    ("log.queue", "the driver's lines are told as notices"),
];

const READING: [(&str, &str); 13] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
    ("isolation.level", "read_committed"),
    // How long a report of positions waits for brokers that are away.
    ("session.timeout.ms", "10000"),
    // Bounded buffers of each partition, so that memory does not grow with what is waiting.
    ("queued.min.messages", "100000"),
    ("queued.max.messages.kbytes", "16384"),
    ("max.partition.fetch.bytes", "2097152"),
    // A reader at the end learns of it soon; a full buffer is refilled soon.
    ("fetch.wait.max.ms", "100"),
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.error.backoff.ms", "100"),
];

const WRITING: [(&str, &str); 6] = [
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("compression.type", "lz4"),
    ("linger.ms", "1"),
    ("queue.buffering.max.kbytes", "65536"),
    // The broker and the topic decide what is too large.
    ("message.max.bytes", "100000000"),
];

const BOTH: [(&str, &str); 3] =
    [("client.id", "uptake"), ("reconnect.backoff.max.ms", "1000"), ("socket.keepalive.enable", "true")];

impl KafkaOptions {
    /// Refuses what contradicts the way a log works, or itself.
    pub(super) fn check(&self) -> Result<()> {
        let wrong =
            |key: &str, what: &str| Err(LogError::Option { key: key.to_owned(), what: what.to_owned() });
        for (key, instead) in OURS {
            if self.client.contains_key(key) {
                return wrong(key, &format!("cannot be set here: {instead}"));
            }
        }
        let get = |key: &str| self.client.get(key).map(|value| value.trim().to_ascii_lowercase());
        if get("enable.idempotence").is_some_and(|value| value != "true") {
            return wrong("enable.idempotence", "must be true: a retried append must not come twice");
        }
        for key in ["acks", "request.required.acks"] {
            if get(key).is_some_and(|value| value != "all" && value != "-1") {
                return wrong(key, "must be all: an append is durable when it returns");
            }
        }
        let protocol = get("security.protocol").unwrap_or_else(|| "plaintext".to_owned());
        for key in self.client.keys() {
            if key.starts_with("sasl.") && !protocol.starts_with("sasl") {
                return wrong(key, "needs security.protocol = SASL_SSL or SASL_PLAINTEXT");
            }
            if key.starts_with("ssl.") && !protocol.ends_with("ssl") {
                return wrong(key, "needs security.protocol = SSL or SASL_SSL");
            }
        }
        let ok = |c: u8| matches!(c, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if self.topic_prefix.len() > 49 || !self.topic_prefix.bytes().all(ok) {
            return wrong("topic_prefix", "is of letters, digits, '.', '_' and '-', at most 49");
        }
        if self.group.is_empty() {
            return wrong("group", "is empty");
        }
        Ok(())
    }

    pub(super) fn reading(&self, servers: &str) -> ClientConfig {
        let mut config = self.config(servers, &READING);
        config.set("group.id", &self.group);
        config
    }

    pub(super) fn writing(&self, servers: &str) -> ClientConfig {
        let mut config = self.config(servers, &WRITING);
        config.set("message.timeout.ms", self.append_timeout.as_millis().to_string());
        config
    }

    pub(super) fn asking(&self, servers: &str) -> ClientConfig {
        self.config(servers, &[])
    }

    fn config(&self, servers: &str, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in BOTH.iter().chain(defaults) {
            config.set(*key, *value);
        }
        for (key, value) in &self.client {
            config.set(key, value);
        }
        config.set("bootstrap.servers", servers);
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }

    /// `text` without the secrets among the options.
    pub(super) fn redact(&self, text: &str) -> String {
        let secret = self.client.iter().filter(|(key, value)| is_secret(key) && value.len() > 2);
        secret.fold(text.to_owned(), |text, (_, value)| text.replace(value.as_str(), "***"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(options: &[(&str, &str)]) -> KafkaOptions {
        let client = options.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        KafkaOptions { client, ..KafkaOptions::default() }
    }

    #[test]
    fn options_that_contradict_are_refused_by_name() {
        for (options, key) in [
            (&[("group.id", "x")][..], "group.id"),
            (&[("acks", "1")], "acks"),
            (&[("enable.idempotence", "false")], "enable.idempotence"),
            (&[("auto.offset.reset", "latest")], "auto.offset.reset"),
            (&[("sasl.username", "u")], "sasl.username"),
            (&[("security.protocol", "SASL_PLAINTEXT"), ("ssl.ca.location", "x")], "ssl.ca.location"),
        ] {
            let error = with(options).check().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        with(&[("security.protocol", "SASL_SSL"), ("sasl.username", "u"), ("acks", "all")]).check().unwrap();
    }

    #[test]
    fn secrets_are_never_shown() {
        let options = with(&[("sasl.password", "hunter2"), ("ssl.key.pem", "KEY"), ("linger.ms", "5")]);
        assert!(!format!("{options:?}").contains("hunter2"));
        assert_eq!(options.redact("login hunter2 with KEY"), "login *** with ***");
    }
}
