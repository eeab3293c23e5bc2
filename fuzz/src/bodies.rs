//! What must hold of any body that comes to the collector: compressed or not, it is refused with a reason or
//! split into events within the bounds, each of which is a piece of the body; nothing panics.
//!
//! The first byte of an input chooses the encoding, the rest is the body. This file is shared by the fuzz target
//! and the test that replays the corpus; both have a module `body`.

use super::body::{decompressed, split};

const BYTES_MAX: usize = 64 << 10;
const EVENTS_MAX: usize = 20;

/// Panics if anything that must hold of `input` does not.
pub(crate) fn check(input: &[u8]) {
    let Some((choice, body)) = input.split_first() else { return };
    let encoding = match choice % 4 {
        0 => return plain(body),
        1 => "gzip",
        2 => " ZSTD ",
        _ => "br",
    };
    match decompressed(body, encoding, BYTES_MAX) {
        Ok(found) => {
            assert!(found.len() <= BYTES_MAX, "{} bytes", found.len());
            plain(&found);
        }
        Err(problem) => {
            let status = problem.json()["status"].as_u64();
            assert!(matches!(status, Some(400 | 413 | 415)), "{status:?}");
        }
    }
}

fn plain(body: &[u8]) {
    let items = match split(body, EVENTS_MAX) {
        Ok(items) => items,
        Err(problem) => {
            let status = problem.json()["status"].as_u64();
            assert!(matches!(status, Some(400 | 413)), "{status:?}");
            return;
        }
    };
    assert!(items.events.len() <= EVENTS_MAX, "{} events", items.events.len());
    let inside = body.as_ptr_range();
    let mut end = inside.start;
    for event in &items.events {
        let event = event.as_ptr_range();
        assert!(end <= event.start && event.end <= inside.end, "in their order, without overlap");
        end = event.end;
    }
    // One event for each line, whatever is in the lines: nothing is lost between them.
    if !body.trim_ascii_start().starts_with(b"[") && !body.trim_ascii_start().starts_with(b"{") {
        let lines = body.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count();
        assert_eq!(items.events.len(), lines);
    }
}
