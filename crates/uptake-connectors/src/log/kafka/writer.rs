//! Appending: one idempotent producer; an append returns when all its records are acknowledged.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use super::super::{Record, Result};
use super::events::{Events, Shared};
use crate::error::LogError;

/// An append on its way: counts what is not acknowledged yet.
pub(super) struct Appending {
    /// Records on their way, and one for the append itself until all are handed over.
    open: AtomicUsize,
    first: AtomicI64,
    error: Mutex<Option<KafkaError>>,
    done: Condvar,
}

impl Appending {
    fn new() -> Arc<Self> {
        let (open, first) = (AtomicUsize::new(1), AtomicI64::new(i64::MAX));
        Arc::new(Self { open, first, error: Mutex::new(None), done: Condvar::new() })
    }

    pub(super) fn written(&self, offset: i64) {
        self.first.fetch_min(offset, Ordering::AcqRel);
        self.close();
    }

    pub(super) fn failed(&self, error: KafkaError) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.close();
    }

    fn close(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            // With the lock, so that who waits is not missed between its look and its wait.
            drop(self.error.lock().unwrap_or_else(PoisonError::into_inner));
            self.done.notify_all();
        }
    }

    /// The first offset, if everything was acknowledged in time.
    fn wait(&self, until: Instant) -> Option<std::result::Result<u64, KafkaError>> {
        let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        while self.open.load(Ordering::Acquire) > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            error = self.done.wait_timeout(error, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(match error.take() {
            Some(error) => Err(error),
            None => Ok(u64::try_from(self.first.load(Ordering::Acquire)).unwrap_or(0)),
        })
    }
}

type Made = Arc<ThreadedProducer<Events>>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    servers: String,
    /// Made with the first append, and again after an error that is the end of a producer.
    producer: Mutex<Option<Made>>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, servers: String) -> Self {
        Self { shared, servers, producer: Mutex::new(None) }
    }

    fn producer(&self) -> Result<Made> {
        let mut made = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*made
            && producer.client().fatal_error().is_none()
        {
            return Ok(Arc::clone(producer));
        }
        let config = self.shared.options.writing(&self.servers);
        let producer: ThreadedProducer<Events> = config
            .create_with_context(Events(Arc::clone(&self.shared)))
            .map_err(|error| self.shared.failed("append to", &error))?;
        Ok(Arc::clone(made.insert(Arc::new(producer))))
    }

    /// Appends to `topic`, which is there and has the partition; returns the first offset.
    pub(super) fn append(&self, topic: &str, partition: u32, records: &[Record], now_ms: i64) -> Result<u64> {
        let producer = self.producer()?;
        let appending = Appending::new();
        let allowed = self.shared.options.append_timeout;
        let until = Instant::now() + allowed;
        for record in records {
            if let Err(error) = send(&producer, &appending, topic, partition, record, now_ms, until) {
                // What was handed over before is waited for, so that a repeat comes behind it.
                appending.close();
                let _ = appending.wait(until + GRACE);
                return Err(self.refused(topic, records, &error));
            }
        }
        appending.close();
        match appending.wait(until + GRACE) {
            Some(Ok(first)) => Ok(first),
            Some(Err(error)) => Err(self.refused(topic, records, &error)),
            None => Err(self.shared.late(format!("append to topic {topic} of"), allowed)),
        }
    }

    fn refused(&self, topic: &str, records: &[Record], error: &KafkaError) -> LogError {
        let operation = format!("append to topic {topic} of");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            let bytes = records.iter().map(|r| r.key.len() + r.value.len()).max().unwrap_or(0);
            return LogError::RecordTooLarge { topic: topic.to_owned(), bytes };
        }
        self.shared.failed(operation, error)
    }
}

/// The driver gives its own verdict when the time of a record is up; it is waited for.
const GRACE: Duration = Duration::from_secs(3);

fn send(
    producer: &ThreadedProducer<Events>,
    appending: &Arc<Appending>,
    topic: &str,
    partition: u32,
    record: &Record,
    now_ms: i64,
    until: Instant,
) -> std::result::Result<(), KafkaError> {
    appending.open.fetch_add(1, Ordering::AcqRel);
    let mut message = BaseRecord::with_opaque_to(topic, Arc::clone(appending))
        .partition(i32::try_from(partition).unwrap_or(i32::MAX))
        .payload(record.value.as_slice())
        // Zero would mean now to the driver.
        .timestamp(now_ms.max(1));
    if !record.key.is_empty() {
        message = message.key(record.key.as_slice());
    }
    loop {
        match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                if Instant::now() < until =>
            {
                std::thread::sleep(Duration::from_millis(2));
                message = back;
            }
            // A partition that came after the producer asked for them last.
            Err((
                KafkaError::MessageProduction(
                    RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::UnknownTopic,
                ),
                back,
            )) if Instant::now() < until => {
                // An answer is looked for in the next round, and asked for again without one.
                let _ = producer.client().fetch_metadata(Some(topic), Duration::from_secs(1));
                std::thread::sleep(Duration::from_millis(20));
                message = back;
            }
            Err((error, _)) => {
                appending.open.fetch_sub(1, Ordering::AcqRel);
                return Err(error);
            }
        }
    }
}
