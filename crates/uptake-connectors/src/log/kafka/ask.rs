//! Questions to the brokers: topics, offsets, retention, positions of the group. Each is asked
//! again while the failure may pass, until its time is up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::super::Result;
use super::events::{Events, Shared, kind_of};
use super::wait::wait_for;
use crate::error::{FailureKind, LogError};

/// The pause before a question is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// The topic of people's rules: what stands in it holds until it is taken back, however long ago it was written.
const RULES: &str = "rules";

/// A client for questions: a reader's connections are held up by its fetches.
pub(super) struct Asker {
    shared: Arc<Shared>,
    servers: String,
    pub(super) consumer: Arc<BaseConsumer<Events>>,
}

/// A topic as the brokers describe it.
pub(super) struct Described {
    pub(super) partitions: u32,
    /// Whether each partition has a leader.
    pub(super) complete: bool,
}

impl Asker {
    pub(super) fn new(shared: Arc<Shared>, servers: String, consumer: Arc<BaseConsumer<Events>>) -> Self {
        Self { shared, servers, consumer }
    }

    /// Asks until there is an answer, the failure is for good, or the time is up.
    fn ask<T>(
        &self,
        operation: &str,
        question: impl Fn(Duration) -> std::result::Result<T, KafkaError>,
    ) -> Result<T> {
        let until = Instant::now() + self.shared.options.ask_timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let error = match question(left.max(Duration::from_millis(1))) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // What the driver has to say of the reason comes with its events.
            let said = self.consumer.poll(Duration::ZERO);
            let passes = error.rdkafka_error_code().is_some_and(|c| kind_of(c) == FailureKind::Transient);
            let refused = said.and_then(|said| said.err()).and_then(|error| error.rdkafka_error_code());
            let refused = refused.is_some_and(|c| kind_of(c) == FailureKind::Permanent);
            let no_time = Instant::now() + PAUSE >= until;
            if !passes || refused || no_time {
                return Err(self.shared.failed(operation, &error));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether the brokers answer at all; a refusal for good is told at once.
    pub(super) fn reach(&self) -> Result<()> {
        let until = Instant::now() + self.shared.options.ask_timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.consumer.fetch_metadata(None, left.min(Duration::from_millis(500))) {
                Ok(_) => return Ok(()),
                Err(error) => {
                    while let Some(said) = self.consumer.poll(Duration::ZERO) {
                        if let Err(said) = said
                            && said.rdkafka_error_code().is_some_and(|c| kind_of(c) == FailureKind::Permanent)
                        {
                            return Err(self.shared.failed("log in to", &said));
                        }
                    }
                    if Instant::now() >= until {
                        return Err(self.shared.failed("reach", &error));
                    }
                    std::thread::sleep(PAUSE.min(left));
                }
            }
        }
    }

    /// The topic of this full name, if there is one.
    pub(super) fn describe(&self, name: &str, topic: &str) -> Result<Option<Described>> {
        self.ask(&format!("look for topic {topic} at"), |left| {
            let metadata = self.consumer.fetch_metadata(Some(name), left)?;
            let Some(found) = metadata.topics().iter().find(|found| found.name() == name) else {
                return Ok(None);
            };
            match found.error().map(RDKafkaErrorCode::from) {
                None => {}
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                    return Ok(None);
                }
                Some(code) => return Err(KafkaError::MetadataFetch(code)),
            }
            let partitions = found.partitions();
            let complete = partitions.iter().all(|p| p.error().is_none() && p.leader() >= 0);
            Ok(Some(Described { partitions: u32::try_from(partitions.len()).unwrap_or(u32::MAX), complete }))
        })
    }

    /// The full names of all topics.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        self.ask("list the topics of", |left| {
            let metadata = self.consumer.fetch_metadata(None, left)?;
            Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
        })
    }

    /// For each partition the offset at a time or at an end: one request a broker for all.
    pub(super) fn offsets(&self, of: &[(String, u32)], at: Offset) -> Result<Vec<Option<u64>>> {
        let mut list = TopicPartitionList::with_capacity(of.len());
        for (name, partition) in of {
            let added = list.add_partition_offset(name, number(*partition), at);
            added.map_err(|error| self.shared.failed("ask offsets of", &error))?;
        }
        self.ask("ask offsets of", |left| {
            let found = self.consumer.offsets_for_times(list.clone(), left)?;
            let found = found.elements();
            let by_place: BTreeMap<_, _> = found.iter().map(|e| ((e.topic(), e.partition()), e)).collect();
            let answers = of.iter().map(|(name, partition)| {
                let Some(element) = by_place.get(&(name.as_str(), number(*partition))) else {
                    return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition));
                };
                element.error()?;
                Ok(match element.offset() {
                    Offset::Offset(offset) => u64::try_from(offset).ok(),
                    _ => None,
                })
            });
            answers.collect()
        })
    }

    fn admin(&self, operation: &str) -> Result<AdminClient<DefaultClientContext>> {
        let config = self.shared.options.asking(&self.servers);
        config.create().map_err(|error| self.shared.failed(operation, &error))
    }

    /// Creates a topic; it is no error if another did meanwhile.
    pub(super) fn create(&self, name: &str, topic: &str, partitions: u32) -> Result<()> {
        let operation = format!("create topic {topic} at");
        let (admin, options) = (self.admin(&operation)?, &self.shared.options);
        let replication = options.replication.map_or(-1, i32::from);
        let mut new = NewTopic::new(name, number(partitions), TopicReplication::Fixed(replication));
        let settings = &options.topic;
        for (key, value) in settings_of(topic, settings) {
            new = new.set(key, value);
        }
        let allowed = options.ask_timeout;
        let asked = AdminOptions::new().request_timeout(Some(allowed)).operation_timeout(Some(allowed));
        let answer = wait_for(admin.create_topics([&new], &asked), allowed)
            .ok_or_else(|| self.shared.late(operation.as_str(), allowed))?
            .map_err(|error| self.shared.failed(operation.as_str(), &error))?;
        for result in answer {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(self.shared.failed(operation, &KafkaError::AdminOp(code))),
            }
        }
        Ok(())
    }

    /// Drops the records below an offset; returns the new start.
    pub(super) fn delete_before(&self, name: &str, partition: u32, offset: u64) -> Result<u64> {
        let operation = format!("drop records of topic {name} at");
        let (admin, allowed) = (self.admin(&operation)?, self.shared.options.ask_timeout);
        let mut list = TopicPartitionList::new();
        let at = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        let added = list.add_partition_offset(name, number(partition), at);
        added.map_err(|error| self.shared.failed(operation.as_str(), &error))?;
        let asked = AdminOptions::new().request_timeout(Some(allowed)).operation_timeout(Some(allowed));
        let answer = wait_for(admin.delete_records(&list, &asked), allowed)
            .ok_or_else(|| self.shared.late(operation.as_str(), allowed))?
            .map_err(|error| self.shared.failed(operation.as_str(), &error))?;
        for element in answer.elements() {
            element.error().map_err(|error| self.shared.failed(operation.as_str(), &error))?;
        }
        Ok(offset)
    }

    /// Commits positions to the group, where lag tools look for them.
    pub(super) fn commit(&self, positions: &[(String, u32, u64)]) -> Result<()> {
        let group = &self.shared.options.group;
        let operation = format!("report positions of group {group} to");
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (name, partition, offset) in positions {
            let at = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
            let added = list.add_partition_offset(name, number(*partition), at);
            added.map_err(|error| self.shared.failed(operation.as_str(), &error))?;
        }
        self.consumer.commit(&list, CommitMode::Sync).map_err(|error| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration) => {
                LogError::Remote {
                    operation,
                    url: self.shared.url.clone(),
                    reason: "other consumers are members of that group".to_owned(),
                    advice: "give Uptake a group of its own",
                    kind: FailureKind::Permanent,
                }
            }
            _ => self.shared.failed(operation, &error),
        })
    }
}

/// The settings of a topic that is created: ours, those that are configured, and what a topic cannot do without.
fn settings_of<'a>(topic: &str, configured: &'a BTreeMap<String, String>) -> BTreeMap<&'a str, &'a str> {
    // Room for a dead letter, which is a record and its reason.
    let mut settings = BTreeMap::from([("max.message.bytes", "8388608")]);
    settings.extend(configured.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    if topic == RULES {
        // Not by the age of events: a block that was dropped would hold no more when the next server starts.
        settings.extend([("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")]);
    }
    settings
}

/// A number as the driver takes it.
pub(super) fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_kept_whatever_is_configured_for_events() {
        let configured: BTreeMap<String, String> =
            [("retention.ms", "3600000"), ("segment.bytes", "1048576")]
                .map(|(k, v)| (k.into(), v.into()))
                .into();
        let plays = settings_of("plays", &configured);
        assert_eq!((plays["retention.ms"], plays["max.message.bytes"]), ("3600000", "8388608"));
        let rules = settings_of("rules", &configured);
        assert_eq!(
            (rules["retention.ms"], rules["retention.bytes"], rules["segment.bytes"]),
            ("-1", "-1", "1048576")
        );
        assert!(!settings_of("plays", &BTreeMap::new()).contains_key("retention.ms"), "as the broker is set");
    }
}
