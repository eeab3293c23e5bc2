//! Which files are meant, and what is in them.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use crate::error::{InputError, PathProblem};

/// A file to be read.
pub(super) struct Listed {
    pub(super) path: PathBuf,
    /// Its size as it is stored; 0 where it is not known (a pipe).
    pub(super) bytes: u64,
}

/// How a file is packed, by its first bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Plain,
    Gzip,
    Zstd,
    Parquet,
}

/// The files behind `paths`, and what lies beside them and is not read.
pub(super) fn find(paths: &[PathBuf]) -> Result<(Vec<Listed>, Vec<PathBuf>), InputError> {
    if paths.is_empty() {
        return Err(InputError::Nothing);
    }
    let mut found = Found::default();
    for path in paths {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                found.problem(path, &error);
                continue;
            }
        };
        if !metadata.is_dir() {
            found.file(path.clone(), &metadata);
            continue;
        }
        let (first, problems) = (found.files.len(), found.problems.len());
        let first_skipped = found.skipped.len();
        found.folder(path);
        found.files[first..]
            .sort_by(|a, b| a.path.as_os_str().as_encoded_bytes().cmp(b.path.as_os_str().as_encoded_bytes()));
        found.skipped[first_skipped..].sort();
        if found.files.len() == first && found.problems.len() == problems {
            found.problems.push(PathProblem {
                path: path.clone(),
                what: "no event file in this folder; name a folder with .jsonl, .ndjson, .json or \
                       .parquet files (also .gz, .zst), or the files themselves"
                    .to_owned(),
            });
        }
    }
    if found.problems.is_empty() {
        Ok((found.files, found.skipped))
    } else {
        Err(InputError::Paths { problems: found.problems })
    }
}

#[derive(Default)]
struct Found {
    files: Vec<Listed>,
    skipped: Vec<PathBuf>,
    problems: Vec<PathProblem>,
}

impl Found {
    fn problem(&mut self, path: &Path, error: &io::Error) {
        let what = match error.kind() {
            io::ErrorKind::NotFound if path.is_symlink() => {
                "a link to a file that is not there; repair or remove it".to_owned()
            }
            io::ErrorKind::NotFound => "no such file or folder; check the path".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "may not be read by this user; change its permissions".to_owned()
            }
            _ => format!("cannot be read ({error}); repair it or leave it out"),
        };
        self.problems.push(PathProblem { path: path.to_path_buf(), what });
    }

    /// Lists a file that can be opened. A pipe is opened only when its turn comes: opening one
    /// waits for its writer.
    fn file(&mut self, path: PathBuf, metadata: &fs::Metadata) {
        if metadata.is_file()
            && let Err(error) = File::open(&path)
        {
            return self.problem(&path, &error);
        }
        self.files.push(Listed { path, bytes: if metadata.is_file() { metadata.len() } else { 0 } });
    }

    fn folder(&mut self, folder: &Path) {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.problem(folder, &error),
        };
        for entry in entries {
            let path = match &entry {
                Ok(entry) => entry.path(),
                Err(error) => {
                    self.problem(folder, error);
                    continue;
                }
            };
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let is_link = path.is_symlink();
            match fs::metadata(&path) {
                _ if hidden => self.skipped.push(path),
                // A link to a folder may lead back here.
                Ok(metadata) if metadata.is_dir() && is_link => self.skipped.push(path),
                Ok(metadata) if metadata.is_dir() => self.folder(&path),
                _ if !is_event_name(&path) => self.skipped.push(path),
                Ok(metadata) => self.file(path, &metadata),
                Err(error) => self.problem(&path, &error),
            }
        }
    }
}

/// Whether a file in a folder is taken for events by its name.
fn is_event_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name = [".gz", ".zst", ".zstd"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    [".jsonl", ".ndjson", ".json", ".parquet"].iter().any(|end| name.ends_with(end))
}

/// What a file is by its first bytes. Gives back the bytes that were read and cannot be read
/// again (of a pipe), and the file.
pub(super) fn format(mut file: File) -> io::Result<(Format, Vec<u8>, File)> {
    let mut head = Vec::with_capacity(4);
    file.by_ref().take(4).read_to_end(&mut head)?;
    let format = match head.as_slice() {
        [0x1f, 0x8b, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Format::Zstd,
        b"PAR1" => Format::Parquet,
        _ => Format::Plain,
    };
    if file.metadata()?.is_file() {
        file.rewind()?;
        head.clear();
    }
    Ok((format, head, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_event_files() {
        for name in ["a.jsonl", "A.JSONL", "a.ndjson.gz", "a.json.zst", "a.json.zstd", "a.parquet"] {
            assert!(is_event_name(Path::new(name)), "{name}");
        }
        for name in ["a", "a.csv", "a.jsonl.bak", "a.gz", "_SUCCESS", "a.json.crc", "jsonl"] {
            assert!(!is_event_name(Path::new(name)), "{name}");
        }
    }
}
