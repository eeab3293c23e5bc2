//! Where log, table, archive and checkpoints are, and what their drivers are told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::Value;
use uptake_connectors::log::{KafkaOptions, LogOptions, Notices};
use uptake_connectors::url::Content;
use uptake_connectors::{Backend, Options};

use super::KEYS;
use super::read::Reader;
use crate::outputs::notice;

/// Sections whose keys are handed to a driver as they are.
const DRIVERS: [&str; 3] = ["kafka.", "cassandra.", "s3."];

/// Names the environment variable that holds the value, as `env:KAFKA_PASSWORD`.
const FROM_ENVIRONMENT: &str = "env:";

/// What a driver is told, by its own names.
type DriverOptions = BTreeMap<String, String>;

/// Where one of the four is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Place {
    /// In the `--data` directory.
    #[default]
    Data,
    /// Where a URL says.
    Url(Backend),
}

impl Place {
    /// The backend, if the data directory is `data`.
    pub fn backend(&self, data: &Path) -> Backend {
        match self {
            Self::Data => Backend::File(data.to_owned()),
            Self::Url(backend) => backend.clone(),
        }
    }

    /// Whether it is in the data directory.
    pub fn is_data(&self) -> bool {
        *self == Self::Data
    }
}

/// Where all four are.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The log.
    pub log: Place,
    /// The table.
    pub table: Place,
    /// The archive.
    pub archive: Place,
    /// The checkpoints.
    pub checkpoints: Place,
    /// How Kafka is used.
    pub kafka: KafkaOptions,
    /// `cassandra.*`, without that prefix.
    pub cassandra: Options,
    /// `s3.*`, without that prefix.
    pub s3: Options,
}

impl Places {
    /// How the log is opened.
    pub(crate) fn log_options(&self) -> LogOptions {
        LogOptions { kafka: self.kafka.clone(), ..LogOptions::default() }
    }
}

/// Whether a key is handed to a driver.
pub(super) fn is_driver_key(key: &str) -> bool {
    DRIVERS.iter().any(|prefix| key.len() > prefix.len() && key.starts_with(prefix))
}

/// What the values say about places; takes the keys of drivers out of them.
pub(super) fn places(r: &mut Reader<'_>) -> Places {
    let [kafka, cassandra, s3] = DRIVERS.map(|prefix| driver(r, prefix));
    let kafka = kafka_options(r, kafka);
    let [cassandra, s3] = [cassandra, s3].map(|given| given.into_iter().collect());
    let [log, table, archive] =
        [("log.url", Content::Log), ("table.url", Content::Table), ("archive.url", Content::Archive)]
            .map(|(key, content)| place(r, key, content));
    let checkpoints = match r.is_empty("checkpoint.url") {
        true => archive.clone(),
        false => place(r, "checkpoint.url", Content::Checkpoints),
    };
    Places { log, table, archive, checkpoints, kafka, cassandra, s3 }
}

/// What is ours of the keys of Kafka, and the rest for its driver.
fn kafka_options(r: &mut Reader<'_>, given: DriverOptions) -> KafkaOptions {
    let mut options = KafkaOptions { notices: Notices::new(notice), ..KafkaOptions::default() };
    for (key, value) in given {
        match &*key {
            "group" => options.group = value,
            "topic_prefix" => options.topic_prefix = value,
            "schema_registry" => options.schema_registry = Some(value),
            "schema_registry_user" => options.schema_registry_login.get_or_insert_default().0 = value,
            "schema_registry_password" => options.schema_registry_login.get_or_insert_default().1 = value,
            "replication" => match value.parse() {
                Ok(copies) if copies > 0 => options.replication = Some(copies),
                _ => r.mistake("kafka.replication", "is not a whole number from 1 on"),
            },
            _ => match key.strip_prefix("topic.") {
                Some(of_topic) => drop(options.topic.insert(of_topic.to_owned(), value)),
                None => drop(options.client.insert(key, value)),
            },
        }
    }
    options
}

fn place(r: &mut Reader<'_>, key: &str, content: Content) -> Place {
    let url = r.text(key);
    if url == "file:" {
        return Place::Data;
    }
    // A message with the URL would print the password.
    if !url.starts_with("file:") && url.contains('@') {
        r.mistake(
            key,
            "a URL here takes no user and password; they have keys of their own (`uptake config`)",
        );
        return Place::Data;
    }
    match Backend::parse_for(&url, content) {
        Ok(backend) => Place::Url(backend),
        Err(error) => {
            r.mistake(key, error);
            Place::Data
        }
    }
}

/// The keys of one driver, without the prefix; what is empty is not said to it.
fn driver(r: &mut Reader<'_>, prefix: &str) -> DriverOptions {
    let documented = KEYS.iter().map(|key| key.name);
    let keys: BTreeSet<String> =
        documented.chain(r.keys()).filter(|key| key.starts_with(prefix)).map(str::to_owned).collect();
    let mut options = DriverOptions::new();
    for key in keys {
        let text = match r.value(&key) {
            Value::String(text) => text,
            Value::Integer(n) => n.to_string(),
            Value::Float(n) => n.to_string(),
            Value::Boolean(b) => b.to_string(),
            // The value may be a password, so it is not repeated.
            _ => {
                r.mistake(&key, "is not a text, a number, true or false");
                continue;
            }
        };
        let text = match text.strip_prefix(FROM_ENVIRONMENT) {
            None => text,
            Some(name) => match std::env::var(name) {
                Ok(value) => value,
                Err(_) => {
                    r.mistake(&key, format_args!("the environment has no variable {name}"));
                    continue;
                }
            },
        };
        if !text.is_empty() {
            options.insert(key[prefix.len()..].to_owned(), text);
        }
    }
    options
}

/// Drops lines of a TOML error that show the file: they may show a password.
pub(super) fn without_lines(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let secret = ["password", "secret", "token", "key"];
    if secret.iter().any(|word| text.to_lowercase().contains(word)) {
        let place = text.lines().next().unwrap_or_default();
        return format!("{place}: {}", error.message());
    }
    text
}
