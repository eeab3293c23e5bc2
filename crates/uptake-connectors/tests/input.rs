//! Event files: every line exactly once, whatever the packing, the block size and the limits.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int64Type, Int96, Int96Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use tempfile::TempDir;
use uptake_connectors::InputError;
use uptake_connectors::input::{Block, EventFiles, InputOptions, LinesRead, OVERSIZED_HEAD_BYTES, Oversized};

/// What reading gave: the text of each file in order, the oversized lines, and the errors.
#[derive(Default, Debug, PartialEq)]
struct Read {
    files: Vec<(String, Vec<u8>, u64)>,
    oversized: Vec<Oversized>,
    errors: Vec<String>,
}

/// Reads everything, checking what holds of each block.
fn read(paths: &[PathBuf], options: InputOptions, max_lines: impl Fn() -> usize) -> Read {
    let mut files = EventFiles::open(paths, options).unwrap();
    let (mut read, mut block, mut done) = (Read::default(), Block::default(), 0);
    loop {
        let max_lines = max_lines();
        match files.next_block(max_lines, &mut block) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                assert!(block.bytes.is_empty() && block.lines == 0);
                read.errors.push(error.to_string());
                continue;
            }
        }
        assert!(block.lines > 0 && block.lines <= max_lines);
        let file = block.file.to_string();
        if read.files.last().is_none_or(|(last, ..)| *last != file) {
            read.files.push((file, Vec::new(), 0));
        }
        let (_, text, lines) = read.files.last_mut().unwrap();
        assert_eq!(block.first_line, *lines);
        *lines += block.lines as u64;
        text.extend_from_slice(&block.bytes);
        if block.oversized.is_empty() {
            assert_eq!(block.bytes.iter().filter(|c| **c == b'\n').count(), block.lines);
            assert_eq!(block.bytes.last(), Some(&b'\n'));
        } else {
            assert_eq!((block.oversized.len(), block.lines, block.bytes.len()), (1, 1, 0));
            assert_eq!(block.oversized[0].line, block.first_line);
            read.oversized.append(&mut block.oversized);
        }
        assert!(files.bytes_done() >= done && files.bytes_done() <= files.total_bytes());
        done = files.bytes_done();
    }
    assert_eq!(files.bytes_done(), files.total_bytes());
    assert!(!files.next_block(1, &mut block).unwrap(), "the end stays the end");
    read
}

/// The same, said plainly.
fn plainly(content: &[u8], line_bytes_max: usize) -> (Vec<u8>, Vec<Oversized>, u64) {
    let content = content.strip_suffix(b"\n").map_or(content, |rest| rest);
    let (mut text, mut oversized) = (Vec::new(), Vec::new());
    let mut n = 0;
    for line in content.split(|c| *c == b'\n') {
        if line.len() > line_bytes_max {
            let head = line[..line.len().min(OVERSIZED_HEAD_BYTES)].to_vec();
            oversized.push(Oversized { line: n, bytes: line.len() as u64, head });
        } else {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        n += 1;
    }
    (text, oversized, n)
}

fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zst(content: &[u8]) -> Vec<u8> {
    zstd::encode_all(content, 1).unwrap()
}

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    directory
}

fn check(name: &str, stored: &[u8], text: &str) {
    let directory = directory(&[(name, stored)]);
    let read = read(&[directory.path().join(name)], InputOptions::default(), || 1_000);
    let found: Vec<u8> = read.files.into_iter().flat_map(|(_, text, _)| text).collect();
    assert_eq!(String::from_utf8(found).unwrap(), text, "{name}");
    assert_eq!((read.oversized, read.errors), (vec![], vec![]), "{name}");
}

#[test]
fn files_of_every_packing() {
    check("a.jsonl", b"", "");
    check("a.jsonl", b"\n", "\n");
    check("a.jsonl", b"a", "a\n");
    check("a.jsonl", b"a\nb", "a\nb\n");
    check("a.jsonl", b"a\n\n \r\nb\r\n", "a\n\n \r\nb\r\n");
    check("a.jsonl.gz", &gz(b"a\nb"), "a\nb\n");
    check("a.jsonl.gz", b"", "");
    check("a.jsonl.gz", &gz(b""), "");
    check("plain-by-its-bytes.gz", b"a\n", "a\n");
    check("gzip-by-its-bytes.jsonl", &gz(b"a\n"), "a\n");
    check("no-name-at-all", b"a\n", "a\n");
    check("a.jsonl.zst", &zst(b"a\nb"), "a\nb\n");
    // A line may go on from one member or frame to the next.
    check("a.jsonl.gz", &[gz(b"a\nb"), gz(b""), gz(b"c\nd")].concat(), "a\nbc\nd\n");
    check("a.jsonl.zst", &[zst(b"a\nb"), zst(b""), zst(b"c\nd")].concat(), "a\nbc\nd\n");
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        8 => prop::collection::vec(prop::sample::select(b"ab \r".to_vec()), 0..12),
        1 => (60usize..400).prop_map(|n| vec![b'x'; n]),
    ];
    (prop::collection::vec(line, 0..60), any::<bool>()).prop_map(|(lines, ended)| {
        let mut content = lines.join(&b'\n');
        if ended {
            content.push(b'\n');
        }
        content
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_line_comes_exactly_once(
        contents in prop::collection::vec((content(), 0..3usize), 1..4),
        block_bytes in 1usize..200,
        line_bytes_max in 1usize..300,
        max_lines in prop::collection::vec(1usize..12, 1..5),
    ) {
        let names: Vec<_> = (0..contents.len()).map(|i| format!("{i}.jsonl")).collect();
        let packed: Vec<_> =
            contents.iter().map(|(text, how)| [|t: &[u8]| t.to_vec(), gz, zst][*how](text)).collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip(packed.iter().map(Vec::as_slice)).collect();
        let directory = directory(&files);
        let turn = std::cell::Cell::new(0);
        let found = read(&[directory.path().to_path_buf()], InputOptions { block_bytes, line_bytes_max }, || {
            turn.set(turn.get() + 1);
            max_lines[turn.get() % max_lines.len()]
        });
        let mut expected = Read::default();
        for (name, (content, _)) in names.iter().zip(&contents) {
            if content.is_empty() {
                continue;
            }
            let (text, mut oversized, lines) = plainly(content, line_bytes_max);
            expected.files.push((directory.path().join(name).display().to_string(), text, lines));
            expected.oversized.append(&mut oversized);
        }
        prop_assert_eq!(found, expected);
    }

    /// Whatever the damage: the lines before it, in order, then one error or none, and no panic.
    #[test]
    fn damaged_files_give_a_prefix(
        how in 0..2usize, at in any::<prop::sample::Index>(), flip in 1u8..=255, cut in any::<bool>(),
    ) {
        let line = |i| format!("{{\"line\":{i},\"noise\":{}}}\n", i * 7_919 % 1_009);
        let text: String = (0..3_000).map(line).collect();
        let mut packed = [gz, zst][how](text.as_bytes());
        let at = at.index(packed.len());
        if cut { packed.truncate(at) } else { packed[at] ^= flip }
        let directory = directory(&[("a.jsonl", &packed)]);
        let options = InputOptions { block_bytes: 1_000, ..Default::default() };
        let found = read(&[directory.path().to_path_buf()], options, || 10);
        prop_assert!(found.errors.len() <= 1);
        // Flips of the magic or of a sketchy header turn the file into plain bytes; nothing to compare then.
        if cut && at >= 4 {
            prop_assert!(found.files.iter().all(|(_, read, _)| text.as_bytes().starts_with(read)));
            prop_assert_eq!(found.errors.len(), 1);
        }
    }
}

#[test]
fn a_truncated_file_delivers_what_was_whole_and_goes_on_with_the_next() {
    // Noise, so that the packed file is about as long as its text.
    let text: String =
        (0..20_000u64).map(|i| format!("{:016x}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    for pack in [gz, zst] {
        let packed = pack(text.as_bytes());
        let directory = directory(&[("1.jsonl", &packed[..packed.len() * 2 / 3]), ("2.jsonl", b"next\n")]);
        let read = read(&[directory.path().to_path_buf()], InputOptions::default(), || 700);
        let (first, read_text, lines) = &read.files[0];
        assert!(text.as_bytes().starts_with(read_text) && *lines > 5_000, "{lines} lines of 20,000");
        assert_eq!(read.files[1].1, b"next\n");
        assert_eq!(read.errors.len(), 1);
        let error = &read.errors[0];
        for part in [
            first.as_str(),
            &format!("line {lines}"),
            "everything before was read",
            "read all of the input again",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn a_huge_line_is_passed_over_in_bounded_memory() {
    let mut content = b"first\n".to_vec();
    content.resize(content.len() + 40_000_000, b'x');
    content.extend_from_slice(b"\nlast");
    let directory = directory(&[("a.jsonl", &content), ("b.jsonl", &content[6..30_000_000])]);
    let options = InputOptions { line_bytes_max: 1 << 20, ..InputOptions::default() };
    let mut files = EventFiles::open(&[directory.path().to_path_buf()], options).unwrap();
    let (mut block, mut lines, mut oversized) = (Block::default(), Vec::new(), Vec::new());
    while files.next_block(100, &mut block).unwrap() {
        lines.extend_from_slice(&block.bytes);
        oversized.append(&mut block.oversized);
        assert!(block.bytes.capacity() <= 4 << 20, "{}", block.bytes.capacity());
    }
    assert_eq!(lines, b"first\nlast\n");
    let found: Vec<_> = oversized.iter().map(|o| (o.line, o.bytes, o.head.len())).collect();
    assert_eq!(found, [(1, 40_000_000, 64 << 10), (0, 29_999_994, 64 << 10)]);
}

#[test]
fn lines_as_long_as_allowed_and_one_longer() {
    for (length, whole) in [(99, true), (100, true), (101, false), (250, false)] {
        for end in ["", "\n", "\nb"] {
            let content = format!("a\n{}{end}", "x".repeat(length));
            let directory = directory(&[("a.jsonl", content.as_bytes())]);
            let options = InputOptions { line_bytes_max: 100, block_bytes: 64 };
            let read = read(&[directory.path().to_path_buf()], options, || 5);
            assert_eq!(read.oversized.is_empty(), whole, "{length} {end:?}");
        }
    }
}

fn names(paths: &[PathBuf], root: &Path) -> (Vec<String>, Vec<String>) {
    let files = EventFiles::open(paths, InputOptions::default()).unwrap();
    let short = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    (files.files().map(short).collect(), files.skipped().iter().map(|p| short(p)).collect())
}

#[test]
fn folders_are_read_in_the_order_of_names_and_say_what_they_skip() {
    let folder = directory(&[
        ("f/b.jsonl", b""),
        ("f/B.ndjson.gz", b""),
        ("f/a/z.json.zst", b""),
        ("f/a.parquet", b""),
        ("f/readme.md", b""),
        ("f/a/_SUCCESS", b""),
        ("f/.hidden.jsonl", b""),
        ("f/x.jsonl/inner.jsonl", b""),
        ("other.txt", b""),
    ]);
    let root = folder.path();
    #[cfg(unix)]
    std::os::unix::fs::symlink(root.join("f"), root.join("f/loop")).unwrap();
    let (files, skipped) = names(&[root.join("other.txt"), root.join("f")], root);
    assert_eq!(
        files,
        ["other.txt", "f/B.ndjson.gz", "f/a.parquet", "f/a/z.json.zst", "f/b.jsonl", "f/x.jsonl/inner.jsonl"]
    );
    #[cfg(unix)]
    assert_eq!(skipped, ["f/.hidden.jsonl", "f/a/_SUCCESS", "f/loop", "f/readme.md"]);
    // The order of the arguments is kept, and a file named twice is read twice.
    let again = [root.join("f/b.jsonl"), root.join("f/B.ndjson.gz"), root.join("f/b.jsonl")];
    assert_eq!(names(&again, root).0, ["f/b.jsonl", "f/B.ndjson.gz", "f/b.jsonl"]);
}

#[test]
fn all_mistakes_in_the_paths_are_told_at_once() {
    let folder = directory(&[("empty/readme.md", b""), ("good/a.jsonl", b"")]);
    let root = folder.path();
    fs::create_dir(root.join("nothing")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("gone", root.join("good/dangling.jsonl")).unwrap();
    let paths = [root.join("missing"), root.join("empty"), root.join("good"), root.join("nothing")];
    let Err(InputError::Paths { problems }) = EventFiles::open(&paths, InputOptions::default()) else {
        panic!("the mistakes were not found");
    };
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(said[0].contains("missing: no such file or folder; check the path"), "{}", said[0]);
    assert!(said[1].contains("empty: no event file in this folder; name"), "{}", said[1]);
    #[cfg(unix)]
    assert!(said[2].contains("dangling.jsonl: a link to a file that is not there"), "{}", said[2]);
    assert!(said.last().unwrap().contains("nothing: no event file"));
    assert!(matches!(EventFiles::open(&[], InputOptions::default()), Err(InputError::Nothing)));
}

#[test]
fn a_file_that_vanishes_is_an_error_and_the_next_is_read() {
    let folder = directory(&[("a.jsonl", b"a\n"), ("b.jsonl", b"b\n")]);
    let mut files = EventFiles::open(&[folder.path().to_path_buf()], InputOptions::default()).unwrap();
    fs::remove_file(folder.path().join("a.jsonl")).unwrap();
    let mut block = Block::default();
    assert!(matches!(files.next_block(10, &mut block), Err(InputError::Read { lines: 0, .. })));
    assert!(files.next_block(10, &mut block).unwrap());
    assert_eq!(&*block.bytes, b"b\n");
    assert!(!files.next_block(10, &mut block).unwrap());
}

#[cfg(unix)]
#[test]
fn a_pipe_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    if !std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        return; // a system without mkfifo
    }
    let writer = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::write(pipe, gz(b"a\nb\nc")).unwrap())
    };
    let mut files = EventFiles::open(&[pipe], InputOptions::default()).unwrap();
    let mut block = Block::default();
    assert!(files.next_block(10, &mut block).unwrap());
    assert_eq!(&*block.bytes, b"a\nb\nc\n");
    writer.join().unwrap();
}

/// Parquet with the columns that other systems write.
fn parquet_file(path: &Path, rows: usize) {
    let schema = "message events {
        required binary kind (STRING);
        required binary request_id;
        optional binary member_id (STRING);
        required int64 ms (TIMESTAMP(MILLIS, true));
        required int64 us (TIMESTAMP(MICROS, false));
        required int64 ns (TIMESTAMP(NANOS, true));
        required int96 old;
        required int64 plain;
        optional boolean autoplay;
        required group dimensions {
            required binary country (STRING);
            required int64 at (TIMESTAMP(NANOS, true));
        }
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    let text = |text: &str| vec![ByteArray::from(text); rows];
    let time = 1_768_435_200_123i64;
    let nanos = (time * 1_000_000) as u64;
    let mut int96 = Int96::new();
    let (day, in_day) = (nanos / 86_400_000_000_000 + 2_440_588, nanos % 86_400_000_000_000);
    int96.set_data(in_day as u32, (in_day >> 32) as u32, day as u32);
    for _ in 0..2 {
        let mut group = writer.next_row_group().unwrap();
        let mut column = 0;
        while let Some(mut out) = group.next_column().unwrap() {
            let some = vec![1; rows];
            match column {
                0 => out.typed::<ByteArrayType>().write_batch(&text("play"), None, None),
                1 => out.typed::<ByteArrayType>().write_batch(&text("r1"), None, None),
                2 => out.typed::<ByteArrayType>().write_batch(&[], Some(&vec![0; rows]), None),
                3 => out.typed::<Int64Type>().write_batch(&vec![time; rows], None, None),
                4 => out.typed::<Int64Type>().write_batch(&vec![time * 1_000 + 999; rows], None, None),
                5 => out.typed::<Int64Type>().write_batch(&vec![time * 1_000_000 + 999; rows], None, None),
                6 => out.typed::<Int96Type>().write_batch(&vec![int96; rows], None, None),
                7 => out.typed::<Int64Type>().write_batch(&vec![-7; rows], None, None),
                8 => out.typed::<BoolType>().write_batch(&vec![true; rows], Some(&some), None),
                9 => out.typed::<ByteArrayType>().write_batch(&text("BR"), None, None),
                _ => out.typed::<Int64Type>().write_batch(&vec![time * 1_000_000; rows], None, None),
            }
            .unwrap();
            out.close().unwrap();
            column += 1;
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn parquet_rows_come_as_lines_of_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.parquet");
    parquet_file(&path, 1_000);
    let read = read(&[folder.path().to_path_buf()], InputOptions::default(), || 300);
    let (_, text, lines) = &read.files[0];
    assert_eq!((*lines, read.errors.len()), (2_000, 0));
    let expected = serde_json::json!({
        "kind": "play", "request_id": "r1", "ms": 1_768_435_200_123i64, "us": 1_768_435_200_123i64,
        "ns": 1_768_435_200_123i64, "old": 1_768_435_200_123i64, "plain": -7, "autoplay": true,
        "dimensions": {"country": "BR", "at": 1_768_435_200_123i64},
    });
    for line in text.split_inclusive(|c| *c == b'\n') {
        assert_eq!(serde_json::from_slice::<serde_json::Value>(line).unwrap(), expected);
    }
}

#[test]
fn a_parquet_row_that_is_too_long_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    parquet_file(&folder.path().join("a.parquet"), 3);
    let options = InputOptions { line_bytes_max: 20, block_bytes: 100 };
    let read = read(&[folder.path().to_path_buf()], options, || 10);
    assert_eq!(read.oversized.iter().map(|o| o.line).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_damaged_parquet_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    parquet_file(&path, 100);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let read = read(std::slice::from_ref(&path), InputOptions::default(), || 10);
    assert!(read.errors.len() == 1 && read.errors[0].contains("a.parquet"), "{:?}", read.errors);
}

#[test]
fn a_damaged_parquet_file_never_stops_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    parquet_file(&path, 5);
    let whole = fs::read(&path).unwrap();
    for at in (4..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        let read = read(std::slice::from_ref(&path), InputOptions::default(), || 10);
        assert!(read.errors.len() <= 1);
    }
}

#[test]
fn a_parquet_column_nobody_can_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let schema = "message m { required fixed_len_byte_array(12) span (INTERVAL); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let writer = SerializedFileWriter::new(fs::File::create(&path).unwrap(), schema, Default::default());
    writer.unwrap().close().unwrap();
    let mut files = EventFiles::open(&[path], InputOptions::default()).unwrap();
    let error = files.next_block(1, &mut Block::default()).unwrap_err().to_string();
    assert!(error.contains("column span") && error.contains("INTERVAL"), "{error}");
}

/// A Parquet file of `rows` rows in two groups; the n-th has n times 20 bytes and a few.
fn small_parquet_file(path: &Path, rows: usize) {
    let schema = Arc::new(parse_message_type("message m { required binary id (STRING); }").unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
    for part in [0..rows / 2, rows / 2..rows] {
        let mut group = writer.next_row_group().unwrap();
        let ids: Vec<_> =
            part.map(|row| ByteArray::from(format!("{row} {}", "x".repeat(row * 20)).as_str())).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// Where a line is, and the line: `None` for one that was too long.
type Numbered = ((usize, u64), Option<Vec<u8>>);

/// The blocks of `files`, each with its lines; and the errors.
fn blocks(files: &mut EventFiles, max_lines: &[usize]) -> (Vec<Vec<Numbered>>, usize) {
    let paths: Vec<_> = files.files().map(|path| path.display().to_string()).collect();
    let (mut found, mut errors, mut block) = (Vec::new(), 0, Block::default());
    for turn in 0.. {
        match files.next_block(max_lines[turn % max_lines.len()], &mut block) {
            Ok(true) => {}
            Ok(false) => break,
            Err(_) => {
                errors += 1;
                continue;
            }
        }
        assert_eq!(*block.file, *paths[block.file_index]);
        let place = |i: usize| (block.file_index, block.first_line + i as u64);
        let lines = block.bytes.split_inclusive(|c| *c == b'\n').map(|line| Some(line.to_vec()));
        let lines = lines.chain(block.oversized.iter().map(|_| None));
        found.push(lines.enumerate().map(|(i, line)| (place(i), line)).collect::<Vec<_>>());
        assert_eq!(found[found.len() - 1].len(), block.lines);
    }
    assert_eq!(files.bytes_done(), files.total_bytes());
    (found, errors)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Some blocks of a first run were read: a second run that passes over them, whatever its
    /// own blocks are, delivers exactly the other lines, with the same numbers.
    #[test]
    fn what_was_read_is_passed_over(
        contents in prop::collection::vec((content(), 0..4usize), 1..5),
        first_run in (1usize..200, prop::collection::vec(1usize..12, 1..5)),
        second_run in (1usize..200, prop::collection::vec(1usize..12, 1..5)),
        line_bytes_max in 20usize..300,
        marked in prop::collection::vec(any::<bool>(), 1..40),
        before in prop::option::of((any::<prop::sample::Index>(), 0u64..30)),
        order in any::<u64>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        for (i, (text, how)) in contents.iter().enumerate() {
            let path = folder.path().join(format!("{i}.jsonl"));
            match how {
                0 => fs::write(path, text).unwrap(),
                1 => fs::write(path, gz(text)).unwrap(),
                2 => fs::write(path, zst(text)).unwrap(),
                _ => small_parquet_file(&path.with_extension("parquet"), text.len() % 23),
            }
        }
        let open = |block_bytes| {
            let options = InputOptions { block_bytes, line_bytes_max };
            EventFiles::open(&[folder.path().to_path_buf()], options).unwrap()
        };
        let (all, _) = blocks(&mut open(first_run.0), &first_run.1);
        let before = before.map(|(file, line)| (file.index(contents.len()), line));
        let mut files = open(second_run.0);
        let (mut read, mut expected) = (Vec::new(), Vec::new());
        for (block, marked) in all.into_iter().zip(marked.iter().cycle()) {
            let (file_index, first_line) = block[0].0;
            if *marked {
                read.push(LinesRead { file_index, first_line, lines: block.len() as u64 });
            } else {
                let is_after = |line: &Numbered| before.is_none_or(|before| line.0 >= before);
                expected.extend(block.into_iter().filter(is_after));
            }
        }
        // In another order, and some of them twice, in two calls.
        let key = |read: &LinesRead| (read.first_line + 7 * read.file_index as u64).wrapping_mul(order | 1);
        read.sort_by_key(key);
        files.skip(read[..read.len() / 2].to_vec());
        if let Some((file, line)) = before {
            files.skip_before(file, line);
        }
        files.skip(read[read.len() / 3..].to_vec());
        let (rest, errors) = blocks(&mut files, &second_run.1);
        prop_assert_eq!(errors, 0);
        prop_assert_eq!(rest.concat(), expected);
    }
}

#[test]
fn files_before_the_place_are_not_opened() {
    let folder = directory(&[("a.jsonl", b"a\n"), ("b.jsonl", b"0\n1\n2\n"), ("c.jsonl", b"c\n")]);
    let mut files = EventFiles::open(&[folder.path().to_path_buf()], InputOptions::default()).unwrap();
    fs::remove_file(folder.path().join("a.jsonl")).unwrap();
    files.skip_before(1, 2);
    let (found, errors) = blocks(&mut files, &[10]);
    let line = |file, line, text: &[u8]| ((file, line), Some(text.to_vec()));
    assert_eq!((found.concat(), errors), (vec![line(1, 2, b"2\n"), line(2, 0, b"c\n")], 0));
}

#[test]
fn damage_in_lines_that_were_read_is_still_told() {
    let text: String =
        (0..20_000u64).map(|i| format!("{:016x}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let packed = gz(text.as_bytes());
    let folder = directory(&[("1.jsonl", &packed[..packed.len() / 2]), ("2.jsonl", b"next\n")]);
    let mut files = EventFiles::open(&[folder.path().to_path_buf()], InputOptions::default()).unwrap();
    files.skip(vec![LinesRead { file_index: 0, first_line: 0, lines: 20_000 }]);
    let (found, errors) = blocks(&mut files, &[1_000]);
    assert_eq!((found.concat(), errors), (vec![((1, 0), Some(b"next\n".to_vec()))], 1));
}
