//! What the driver says: lines for the notices, and the reason it gave last for a failure.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};
use rdkafka::util::Timeout;

use super::options::KafkaOptions;
use super::writer::Appending;
use crate::error::{FailureKind, LogError};

/// The URL, the options, and the driver's last word on what failed.
pub(super) struct Shared {
    pub(super) url: String,
    pub(super) options: KafkaOptions,
    last: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn new(url: String, options: KafkaOptions) -> Arc<Self> {
        Arc::new(Self { url, options, last: Mutex::default() })
    }

    fn last(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A failure in words: what was tried, where, why, and what to look at.
    pub(super) fn failed(&self, operation: impl Into<String>, error: &KafkaError) -> LogError {
        if let KafkaError::ClientConfig(_, what, key, _) = error {
            return LogError::Option { key: key.clone(), what: self.options.redact(what) };
        }
        let code = error.rdkafka_error_code();
        let kind = code.map_or(FailureKind::Permanent, kind_of);
        let said = match code {
            Some(code) => code.to_string(),
            None => error.to_string(),
        };
        let mut reason = self.options.redact(&said);
        if connection_is_meant(code)
            && let Some(last) = self.last()
        {
            reason = format!("{reason}: {last}");
        }
        let advice = advice(&reason);
        LogError::Remote { operation: operation.into(), url: self.url.clone(), reason, advice, kind }
    }

    /// As [`Shared::failed`], of an answer that did not come in time.
    pub(super) fn late(&self, operation: impl Into<String>, waited: Duration) -> LogError {
        let mut reason = format!("no answer within {} s", waited.as_secs_f32());
        if let Some(last) = self.last() {
            reason = format!("{reason}: {last}");
        }
        let advice = advice(&reason);
        let (operation, url) = (operation.into(), self.url.clone());
        LogError::Remote { operation, url, reason, advice, kind: FailureKind::Transient }
    }
}

fn connection_is_meant(code: Option<RDKafkaErrorCode>) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        Some(
            C::BrokerTransportFailure
                | C::AllBrokersDown
                | C::OperationTimedOut
                | C::TimedOutQueue
                | C::MessageTimedOut
                | C::Resolve
                | C::SSL
                | C::Authentication
                | C::LeaderNotAvailable
        )
    )
}

/// What the caller can do. Everything about reaching brokers and their leaders passes; what a
/// broker refuses by its rules does not.
pub(super) fn kind_of(code: RDKafkaErrorCode) -> FailureKind {
    use RDKafkaErrorCode as C;
    match code {
        C::Authentication
        | C::SaslAuthenticationFailed
        | C::UnsupportedSASLMechanism
        | C::TopicAuthorizationFailed
        | C::GroupAuthorizationFailed
        | C::ClusterAuthorizationFailed
        | C::SecurityDisabled
        | C::InvalidConfig
        | C::InvalidRequest
        | C::InvalidTopic
        | C::InvalidPartitions
        | C::InvalidReplicationFactor
        | C::PolicyViolation
        | C::UnsupportedVersion
        | C::UnsupportedFeature
        | C::InvalidArgument
        | C::InvalidTimestamp
        | C::MessageSizeTooLarge
        | C::BadCompression
        | C::BadMessage
        | C::Fatal => FailureKind::Permanent,
        _ => FailureKind::Transient,
    }
}

fn advice(reason: &str) -> &'static str {
    let reason = reason.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if has(&["sasl", "authentication"]) {
        "check security.protocol, sasl.mechanism, sasl.username and sasl.password"
    } else if has(&["ssl", "certificate", "tls", "security.protocol"]) {
        "check security.protocol and ssl.ca.location, and that the port speaks it"
    } else if has(&["resolve", "unknown host", "name or service"]) {
        "check the host's name, and that the brokers' advertised.listeners are names known here"
    } else if has(&["refused"]) {
        "check that a broker runs there and that the port is right"
    } else if has(&["authoriz"]) {
        "check the rights of this user"
    } else if has(&["timed out", "no answer", "transport", "disconnect", "brokers are down"]) {
        "check host, port, firewall and the brokers' advertised.listeners"
    } else {
        "the broker's own log says more"
    }
}

/// The context of each of our clients.
#[derive(Clone)]
pub(super) struct Events(pub(super) Arc<Shared>);

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Options of readers told to writers, and the other way round, are ours to sort out.
        if facility == "CONFWARN" {
            return;
        }
        let message = self.0.options.redact(message);
        // The driver begins with the name of its thread, which says nothing to a reader.
        let message = match message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")) {
            Some((_, rest)) => rest,
            None => &message,
        };
        if facility == "FAIL" || facility == "ERROR" || facility == "SASL" || facility == "SSL" {
            *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(message.to_owned());
        }
        if (level as i32) <= RDKafkaLogLevel::Warning as i32 {
            self.0.options.notices.tell(&format!("kafka: {message}"));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode as C;
        // Answers to a read, which tells them itself.
        if matches!(error, KafkaError::PartitionEOF(_))
            || matches!(error.rdkafka_error_code(), Some(C::PartitionEOF | C::AutoOffsetReset))
        {
            return;
        }
        let reason = self.0.options.redact(reason);
        self.0.options.notices.tell(&format!("kafka: {reason}"));
        if error.rdkafka_error_code() != Some(C::AllBrokersDown) {
            *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        }
    }
}

impl ConsumerContext for Events {
    fn main_queue_min_poll_interval(&self) -> Timeout {
        Timeout::After(Duration::from_millis(200))
    }
}

impl ProducerContext<NoCustomPartitioner> for Events {
    type DeliveryOpaque = Arc<Appending>;

    fn delivery(&self, result: &DeliveryResult<'_>, appending: Self::DeliveryOpaque) {
        match result {
            Ok(message) => appending.written(message.offset()),
            Err((error, _)) => appending.failed(error.clone()),
        }
    }
}
