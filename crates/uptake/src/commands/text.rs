//! Numbers and tables as people read them.

use std::fmt::Write as _;

/// `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// `18.3 %`, or a dash where there is nothing to divide by.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "–".to_owned(),
        _ => format!("{:.1} %", 100.0 * part as f64 / whole as f64),
    }
}

/// A table with aligned columns: the first to the left, the others to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        for (i, cell) in cells.enumerate() {
            match i {
                0 => _ = write!(text, "{cell:<0$}", widths[0]),
                i => _ = write!(text, "  {cell:>0$}", widths[i]),
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    };
    line(&mut header.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// A field of a CSV file, quoted where it must be (RFC 4180).
pub(crate) fn csv_field(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

/// Bytes as text of about `width` columns or somewhat more, in which nothing moves a terminal's
/// cursor or turns the writing around: control and format characters stand as escapes, and so do
/// bytes that are no UTF-8.
pub(crate) fn visible(bytes: &[u8], width: usize) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if text.len() > width.saturating_mul(4) {
                return text;
            }
            let turns = matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}');
            match c {
                c if c.is_control() || turns => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        if text.len() > width.saturating_mul(4) {
            return text;
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_fields() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(percent(1, 8), "12.5 %");
        assert_eq!(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(visible(b"a\tb\x1b[2J \xc3\xa9 \xff\xc2\x9b", 80), "a\\tb\\u{1b}[2J é \\xff\\u{9b}");
        assert_eq!(visible("x\u{202e}y".as_bytes(), 80), "x\\u{202e}y");
        assert!(visible(&[0xff; 1_000_000], 80).len() <= 4 * 80 + 16);
        assert_eq!(table(&["v", "n"], &[vec!["é".into(), "10".into()]]), "v   n\né  10\n");
    }
}
