//! Records that a schema registry describes: a zero byte, the schema's number in four bytes, and the
//! value as that schema writes it.
//!
//! What is read becomes JSON, as if the producer had written that. A record that is not framed so stays
//! as it is, and so does one that its schema does not fit or whose schema nobody knows: it becomes a
//! dead letter with its own bytes. Only a registry that is away is an error.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::Value;

use super::super::Result;
use super::avro::AvroSchema;
use super::{KafkaOptions, Notices};
use crate::error::{FailureKind, LogError};
use crate::runtime::block_on;

/// What a framed record begins with.
const FRAME: u8 = 0;
const HEAD_BYTES: usize = 5;
/// The most schemas that are remembered; a topic has a handful.
const KNOWN_MAX: usize = 1_000;
/// How long what cannot be used is remembered: somebody may register it, or mend it.
const UNREADABLE_FOR: Duration = Duration::from_secs(10);
/// Of one request, and between two.
const REQUEST: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(250);
/// A schema is text that people write.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// How a schema writes values.
enum Form {
    Avro(AvroSchema),
    /// The value is JSON; the schema only says what may be in it.
    Json,
    /// Nothing can be made of it here.
    Unreadable,
}

/// Why a question was not answered, and whether asking again may help.
struct Unanswered {
    reason: String,
    kind: FailureKind,
}

impl Unanswered {
    fn for_now(reason: String) -> Self {
        Self { reason, kind: FailureKind::Transient }
    }
}

/// A registry, and the schemas that it told.
pub(super) struct Schemas {
    client: reqwest::Client,
    url: String,
    login: Option<(String, String)>,
    patience: Duration,
    /// With the moment each was told.
    known: Mutex<HashMap<u32, (Arc<Form>, Instant)>>,
    notices: Notices,
}

impl Schemas {
    /// The registry at `url`; it is asked when the first record needs it, for at most
    /// [`KafkaOptions::ask_timeout`].
    pub(super) fn new(url: &str, options: &KafkaOptions) -> Result<Self> {
        let wrong = |what: String| LogError::Option { key: "schema_registry".to_owned(), what };
        let parsed = reqwest::Url::parse(url).map_err(|e| wrong(format!("is no URL: {e}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(wrong("is no URL that begins with http:// or https://".to_owned()));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            let what = "takes no user and password; set schema_registry_user and schema_registry_password";
            return Err(wrong(what.to_owned()));
        }
        let client = reqwest::Client::builder().timeout(REQUEST).build();
        let client = client.map_err(|e| wrong(format!("cannot be asked: {e}")))?;
        let url = url.trim_end_matches('/').to_owned();
        let (login, notices) = (options.schema_registry_login.clone(), options.notices.clone());
        Ok(Self { client, url, login, patience: options.ask_timeout, known: Mutex::default(), notices })
    }

    /// The record as JSON; `None` if it stays as it is.
    ///
    /// # Errors
    /// The registry is away.
    pub(super) fn json(&self, record: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some((&[FRAME, a, b, c, d], value)) = record.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let form = self.form(u32::from_be_bytes([a, b, c, d]))?;
        Ok(match &*form {
            Form::Json => Some(value.to_vec()),
            Form::Avro(schema) => schema.json(value),
            Form::Unreadable => None,
        })
    }

    fn form(&self, id: u32) -> Result<Arc<Form>> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((form, told)) = known().get(&id)
            && (!matches!(**form, Form::Unreadable) || told.elapsed() < UNREADABLE_FOR)
        {
            return Ok(Arc::clone(form));
        }
        let form = Arc::new(self.ask(id)?);
        let mut known = known();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(id, (Arc::clone(&form), Instant::now()));
        Ok(form)
    }

    /// Asks until there is an answer.
    fn ask(&self, id: u32) -> Result<Form> {
        let until = Instant::now() + self.patience;
        loop {
            let Unanswered { reason, kind } = match block_on(self.fetch(id)) {
                Ok(Ok(form)) => return Ok(form),
                Ok(Err(unanswered)) => unanswered,
                Err(error) => Unanswered::for_now(error.to_string()),
            };
            if kind == FailureKind::Permanent || Instant::now() >= until {
                let advice = match kind {
                    FailureKind::Permanent => {
                        "check the options schema_registry_user and schema_registry_password"
                    }
                    _ => "check the option schema_registry, and that the registry runs",
                };
                let (operation, url) = (format!("ask for schema {id} at"), self.url.clone());
                return Err(LogError::Remote { operation, url, reason, advice, kind });
            }
            std::thread::sleep(PAUSE);
        }
    }

    async fn fetch(&self, id: u32) -> std::result::Result<Form, Unanswered> {
        // The URL is told with every error already.
        let away = |error: reqwest::Error| Unanswered::for_now(with_causes(&error.without_url()));
        let mut request = self.client.get(format!("{}/schemas/ids/{id}", self.url));
        if let Some((user, password)) = &self.login {
            request = request.basic_auth(user, Some(password));
        }
        let mut answer = request.send().await.map_err(away)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(self.unreadable(id, "the registry does not know it")),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let reason = format!("it refuses the login ({status})");
                return Err(Unanswered { reason, kind: FailureKind::Permanent });
            }
            status => return Err(Unanswered::for_now(format!("it answers {status}"))),
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(away)? {
            body.extend_from_slice(&piece);
            if body.len() > ANSWER_BYTES_MAX {
                return Ok(self.unreadable(id, "it is too large"));
            }
        }
        let told: Value = serde_json::from_slice(&body)
            .map_err(|e| Unanswered::for_now(format!("it answers no JSON: {e}")))?;
        Ok(match (told["schemaType"].as_str().unwrap_or("AVRO"), told["schema"].as_str()) {
            ("JSON", _) => Form::Json,
            ("AVRO", Some(text)) => match AvroSchema::parse(text) {
                Ok(schema) => Form::Avro(schema),
                Err(error) => self.unreadable(id, &error.to_string()),
            },
            (kind, _) => self.unreadable(id, &format!("{kind} is not read here; AVRO and JSON are")),
        })
    }

    fn unreadable(&self, id: u32, why: &str) -> Form {
        self.notices.tell(&format!(
            "schema {id} of {} cannot be used, so its records become dead letters: {why}",
            self.url
        ));
        Form::Unreadable
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text += &format!(": {next}");
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use apache_avro::Schema;
    use apache_avro::types::Value as Avro;
    use apache_avro::writer::datum::GenericDatumWriter;

    use super::*;

    const PLAY: &str = r#"{"type":"record","name":"Event","fields":[
        {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["impression","play"]}},
        {"name":"request_id","type":"string"},
        {"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"member_id","type":["null","string"]}]}"#;

    /// A registry that knows an Avro schema as 7, one of JSON as 8 and one of protobuf as 9, and answers so often.
    fn registry(answers: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming().take(answers) {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let (status, body) = match line.split_whitespace().nth(1) {
                    Some("/schemas/ids/7") => ("200 OK", serde_json::json!({ "schema": PLAY })),
                    Some("/schemas/ids/8") => {
                        ("200 OK", serde_json::json!({ "schema": "{}", "schemaType": "JSON" }))
                    }
                    Some("/schemas/ids/9") => {
                        ("200 OK", serde_json::json!({ "schema": "", "schemaType": "PROTOBUF" }))
                    }
                    Some("/schemas/ids/11") => ("401 Unauthorized", serde_json::json!({})),
                    _ => ("404 Not Found", serde_json::json!({ "error_code": 40403 })),
                };
                let body = body.to_string();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
            }
        });
        url
    }

    fn schemas(url: &str) -> Schemas {
        let ask_timeout = Duration::from_millis(600);
        Schemas::new(url, &KafkaOptions { ask_timeout, ..KafkaOptions::default() }).unwrap()
    }

    fn framed(id: u32, value: &[u8]) -> Vec<u8> {
        [&[FRAME], &id.to_be_bytes()[..], value].concat()
    }

    fn play() -> Vec<u8> {
        let value = Avro::Record(vec![
            ("kind".into(), Avro::Enum(1, "play".into())),
            ("request_id".into(), Avro::String("r1".into())),
            ("timestamp".into(), Avro::TimestampMillis(1_768_435_260_456)),
            ("member_id".into(), Avro::Union(1, Box::new(Avro::String("m".into())))),
        ]);
        let schema = Schema::parse_str(PLAY).unwrap();
        GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(value).unwrap()
    }

    #[test]
    fn what_a_schema_wrote_becomes_json_and_all_else_stays() {
        // One answer for each schema: they are remembered.
        let schemas = schemas(&registry(4));
        let json = |record: &[u8]| schemas.json(record).unwrap().map(|json| String::from_utf8(json).unwrap());
        for _ in 0..3 {
            let read: Value = serde_json::from_str(&json(&framed(7, &play())).unwrap()).unwrap();
            let expected = serde_json::json!({
                "kind": "play", "request_id": "r1", "timestamp": 1_768_435_260_456_i64, "member_id": "m",
            });
            assert_eq!(read, expected);
            assert_eq!(json(&framed(8, b"{\"a\":1}")).as_deref(), Some("{\"a\":1}"));
            let whole = play();
            let longer = [whole.as_slice(), b"x"].concat();
            for stays in [
                &framed(7, &whole[..2]),
                &framed(7, &whole[..6]),
                &framed(7, &longer),
                &framed(7, b""),
                &framed(9, b"\x08\x01"),
                &framed(10, b"?"),
                &b"{\"kind\":\"play\"}".to_vec(),
                &vec![0, 0, 0],
                &Vec::new(),
            ] {
                assert_eq!(json(stays), None, "{stays:?}");
            }
        }
    }

    #[test]
    fn a_registry_that_refuses_the_login_says_so_at_once() {
        let error = schemas(&registry(1)).json(&framed(11, b"")).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Permanent);
        assert!(error.to_string().contains("schema_registry_password"), "{error}");
    }

    #[test]
    fn a_registry_that_is_away_is_named() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = schemas(&format!("http://{closed}/")).json(&framed(1, b"")).unwrap_err();
        assert_eq!(error.kind(), FailureKind::Transient);
        let text = error.to_string();
        assert!(text.contains(&format!("http://{closed}")) && text.contains("schema_registry"), "{text}");
        for url in ["registry:8081", "ftp://a", "http://u:p@a", ""] {
            let refused = Schemas::new(url, &KafkaOptions::default()).err().unwrap().to_string();
            assert!(refused.contains("schema_registry") && !refused.contains("u:p"), "{refused}");
        }
    }
}
