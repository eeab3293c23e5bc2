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
