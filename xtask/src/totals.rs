//! The totals of many test binaries, read from what `cargo test` prints.
//!
//! It takes the output in pieces as they come, so that the same bytes can be shown at once.

use std::fmt;

/// How many tests passed, failed and were skipped, over all test binaries so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
    /// Tests that are marked as ignored.
    pub(crate) skipped: u64,
    /// Result lines seen.
    pub(crate) binaries: u64,
    /// A line whose end has not come yet.
    line: Vec<u8>,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "total: {} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl Totals {
    /// Takes the next piece of the output.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// Ends a program's output, whose last line may have no end.
    pub(crate) fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let Some([passed, failed, ignored]) = result_line(&without_colours(&line)) else { return };
        self.passed += passed;
        self.failed += failed;
        self.skipped += ignored;
        self.binaries += 1;
    }
}

/// Passed, failed and ignored of `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn result_line(line: &str) -> Option<[u64; 3]> {
    let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = counts.split("; ");
    let mut next = |name: &str| counts.next()?.strip_suffix(name)?.trim_end().parse().ok();
    Some([next("passed")?, next("failed")?, next("ignored")?])
}

/// The text without the escape sequences of a terminal.
fn without_colours(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text.chars());
    while let Some(c) = rest.next() {
        match c {
            // `ESC [ … letter`, and `ESC ( letter`, which selects a character set.
            '\x1b' if rest.next() == Some('[') => {
                rest.find(char::is_ascii_alphabetic);
            }
            '\x1b' => {
                rest.next();
            }
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, expected: &str) {
        let mut whole = Totals::default();
        whole.push(output.as_bytes());
        whole.end_line();
        assert_eq!(whole.to_string(), expected, "{output:?}");
        // The same in pieces of every size.
        for size in 1..output.len() {
            let mut pieces = Totals::default();
            output.as_bytes().chunks(size).for_each(|piece| pieces.push(piece));
            pieces.end_line();
            assert_eq!(pieces, whole, "in pieces of {size}");
        }
    }

    #[test]
    fn result_lines_add_up() {
        let ok =
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s";
        let bad =
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s";
        check("", "total: 0 passed, 0 failed, 0 skipped");
        check(ok, "total: 3 passed, 0 failed, 1 skipped");
        check(
            &format!("\nrunning 4 tests\n..i.\n{ok}\n\n{bad}\nerror: test failed\n"),
            "total: 13 passed, 2 failed, 1 skipped",
        );
        check(&format!("{ok}\r\n{ok}\r\n"), "total: 6 passed, 0 failed, 2 skipped");
    }

    #[test]
    fn colours_do_not_matter() {
        check(
            "test result: \x1b[32mok\x1b(B\x1b[m. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
            "total: 7 passed, 0 failed, 0 skipped",
        );
        check(
            "\x1b[1mtest result: \x1b[31mFAILED\x1b[0m. 7 passed; 1 failed; 0 ignored; 0 measured\x1b[0m\n",
            "total: 7 passed, 1 failed, 0 skipped",
        );
    }

    #[test]
    fn other_lines_that_look_alike_are_not_counted() {
        check("test result: ok.\n", "total: 0 passed, 0 failed, 0 skipped");
        check("test result: ok. many passed; 0 failed; 0 ignored\n", "total: 0 passed, 0 failed, 0 skipped");
        check("the test result: ok. 1 passed; 0 failed; 0 ignored\n", "total: 0 passed, 0 failed, 0 skipped");
        check("test result::tests::ok ... ok\n", "total: 0 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        let mut totals = Totals::default();
        totals.push(b"\xff\xfe\x1b\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\n\x1b");
        totals.end_line();
        assert_eq!((totals.passed, totals.binaries), (1, 1));
    }
}
