//! The catalogue as it lies in a file: CSV, a JSON array, or Parquet.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use uptake_connectors::input::{Block, EventFiles, InputOptions};
use uptake_trends::{Catalogue, Title};

/// Reads a catalogue. What is Parquet is told by the name, CSV from JSON by how the text begins.
///
/// # Errors
/// The file, and what is wrong with it.
pub(crate) fn read(path: &Path) -> Result<Catalogue, String> {
    let wrong = |what: String| format!("{}: {what}", path.display());
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet")) {
        return parquet(path).map(Catalogue::new).map_err(wrong);
    }
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    match text.trim_start().starts_with('[') {
        true => Catalogue::from_json(&text),
        false => Catalogue::from_csv(&text),
    }
    .map_err(wrong)
}

/// The rows of a Parquet file, its columns being named as the fields of a title.
fn parquet(path: &Path) -> Result<Vec<Title>, String> {
    let mut files =
        EventFiles::open(&[path.to_owned()], InputOptions::default()).map_err(|error| error.to_string())?;
    let (mut block, mut titles) = (Block::default(), Vec::new());
    while files.next_block(usize::MAX, &mut block).map_err(|error| error.to_string())? {
        for line in block.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let title: Title =
                serde_json::from_slice(line).map_err(|error| format!("row {}: {error}", titles.len() + 1))?;
            titles.push(title);
        }
    }
    Ok(titles)
}

/// A catalogue's file that is read again when it has changed.
pub(crate) struct Watched {
    path: PathBuf,
    is_strict: bool,
    /// When it was changed last, and its size, as of the last look.
    seen: Mutex<Option<(SystemTime, u64)>>,
}

impl Watched {
    pub(crate) fn new(path: PathBuf, is_strict: bool) -> Self {
        Self { path, is_strict, seen: Mutex::default() }
    }

    /// What it holds, if it was not read since it changed.
    ///
    /// # Errors
    /// As [`read`]; it is said once, and tried again when the file changes.
    pub(crate) fn changed(&self) -> Result<Option<Catalogue>, String> {
        let stamp = std::fs::metadata(&self.path).and_then(|of| Ok((of.modified()?, of.len())));
        let stamp = stamp.map_err(|error| format!("{}: {error}", self.path.display()))?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == Some(stamp) {
            return Ok(None);
        }
        *seen = Some(stamp);
        let mut catalogue = read(&self.path)?;
        catalogue.strict = self.is_strict;
        Ok(Some(catalogue))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    /// Two titles; the second one has no year. Genres as a list, as most tools write them, or as one text.
    fn write(path: &Path, has_lists: bool) {
        let genres = match has_lists {
            true => {
                "optional group genres (LIST) { repeated group list { optional binary element (UTF8); } }"
            }
            false => "optional binary genres (UTF8);",
        };
        let schema = format!(
            "message titles {{ required binary id (UTF8); required binary title (UTF8); optional int32 year; {genres} }}"
        );
        let schema = Arc::new(parse_message_type(&schema).unwrap());
        let file = std::fs::File::create(path).unwrap();
        let mut writer =
            SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::builder().build())).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let texts =
            |all: &[&str]| -> Vec<ByteArray> { all.iter().map(|text| ByteArray::from(*text)).collect() };
        for values in [["v1", "v2"], ["Love, Actually", "Hugo"]] {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&texts(&values), None, None).unwrap();
            column.close().unwrap();
        }
        let mut year = group.next_column().unwrap().unwrap();
        year.typed::<Int32Type>().write_batch(&[2003], Some(&[1, 0]), None).unwrap();
        year.close().unwrap();
        let mut genres = group.next_column().unwrap().unwrap();
        let of = genres.typed::<ByteArrayType>();
        match has_lists {
            // Comedy and Romance of the first, Drama of the second.
            true => {
                of.write_batch(&texts(&["Comedy", "Romance", "Drama"]), Some(&[3, 3, 3]), Some(&[0, 1, 0]))
            }
            false => of.write_batch(&texts(&["Comedy|Romance", "Drama"]), Some(&[1, 1]), None),
        }
        .unwrap();
        genres.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn what_is_in_parquet_is_what_is_in_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let csv = folder.path().join("titles.csv");
        std::fs::write(
            &csv,
            "id,title,year,genres\nv1,\"Love, Actually\",2003,Comedy|Romance\nv2,Hugo,,Drama\n",
        )
        .unwrap();
        let json = folder.path().join("titles.json");
        let text = r#"[{"id":"v1","title":"Love, Actually","year":2003,"genres":["Comedy","Romance"]},
            {"id":"v2","title":"Hugo","genres":"Drama"}]"#;
        std::fs::write(&json, text).unwrap();
        let expected = read(&csv).unwrap();
        assert_eq!(expected.get("v1").unwrap().genres, ["Comedy", "Romance"]);
        assert_eq!(read(&json).unwrap(), expected);
        for has_lists in [true, false] {
            let path = folder.path().join("titles.parquet");
            write(&path, has_lists);
            assert_eq!(read(&path).unwrap(), expected, "lists: {has_lists}");
        }
        std::fs::write(folder.path().join("none.parquet"), "no Parquet").unwrap();
        assert!(read(&folder.path().join("none.parquet")).unwrap_err().contains("none.parquet"));
    }
}
