//! Notices: lines on standard error for whoever watches the process, as text or as JSON.

use std::io::Write;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The environment variable that says in which form: `text`, as without it, or `json`, an object a line. It holds for
/// the processes that this one starts, too.
pub const FORMAT: &str = "UPTAKE_LOG_FORMAT";

/// What a notice is as JSON.
#[derive(Serialize, Deserialize, Debug)]
struct Line {
    /// When it was said: milliseconds since 1970.
    time_ms: i64,
    /// Which process said it, by the system's number.
    process: u32,
    message: String,
}

/// Whether the environment asks for JSON.
///
/// # Errors
/// It asks for something that there is not.
pub fn is_json() -> Result<bool, String> {
    match std::env::var(FORMAT).as_deref() {
        Ok("json") => Ok(true),
        Err(_) | Ok("" | "text") => Ok(false),
        Ok(other) => Err(format!("{FORMAT}: {other:?} is neither \"text\" nor \"json\"")),
    }
}

/// Says something.
pub fn notice(message: &str) {
    static JSON: OnceLock<bool> = OnceLock::new();
    say(&written(message, *JSON.get_or_init(|| is_json().unwrap_or(false))));
}

/// Prints a line as it is. That nobody reads it, as when a supervisor was killed, is no reason to end.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Wall time in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

fn written(message: &str, json: bool) -> String {
    if !json {
        return format!("uptake: {message}");
    }
    let line = Line { time_ms: now_ms(), process: std::process::id(), message: message.to_owned() };
    // A number and two texts always serialise.
    serde_json::to_string(&line).unwrap_or_default()
}

/// What a line says, in either form.
///
/// ```
/// use uptake_connectors::notices::message_of;
/// assert_eq!(message_of(r#"{"time_ms":1,"process":7,"message":"all is well"}"#), "all is well");
/// assert_eq!(message_of("uptake: all is well"), "uptake: all is well");
/// ```
pub fn message_of(line: &str) -> String {
    serde_json::from_str::<Line>(line).map_or_else(|_| line.to_owned(), |line| line.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_one_line_in_either_form() {
        assert_eq!(written("a \"b\"", false), "uptake: a \"b\"");
        let line = written("a \"b\"\nc", true);
        assert_eq!((line.lines().count(), message_of(&line).as_str()), (1, "a \"b\"\nc"));
    }
}
