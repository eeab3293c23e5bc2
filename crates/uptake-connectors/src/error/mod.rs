//! What can go wrong at the edges: one enum a family.
//!
//! Each variant names the operation and the object and keeps its cause as `source`, without
//! repeating it in its own text. `kind` says what the caller can do about it.

mod archive;
mod input;
mod log;
mod objects;
mod remote;
mod table;
mod url;

use std::io;

pub use archive::ArchiveError;
pub use input::{InputError, PathProblem};
pub use log::LogError;
pub use objects::ObjectsError;
pub use remote::{OptionError, RemoteError};
pub use table::TableError;
pub use url::UrlError;

/// What the caller can do about a failure.
///
/// ```
/// use uptake_connectors::error::FailureKind;
/// use uptake_connectors::log::{Log, MemoryLog};
/// let error = MemoryLog::new().end_offset("plays", 0).unwrap_err();
/// assert_eq!(error.kind(), FailureKind::Permanent);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FailureKind {
    /// The system was busy, or a mounted directory is away or not ours for now. The same call is
    /// worth repeating, with pauses, for some minutes.
    Transient,
    /// The device or the quota is full. The same call succeeds once somebody has made room; until
    /// then the best is to stop and say so.
    DeviceFull,
    /// The same call fails in the same way: damaged data, a value out of range, another meaning.
    Permanent,
}

impl FailureKind {
    /// What the system's answer to an operation on a file means.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind as K;
        match error.kind() {
            K::StorageFull | K::QuotaExceeded => Self::DeviceFull,
            K::InvalidInput
            | K::InvalidData
            | K::InvalidFilename
            | K::UnexpectedEof
            | K::Unsupported
            | K::AlreadyExists
            | K::NotADirectory
            | K::IsADirectory
            | K::DirectoryNotEmpty
            | K::FileTooLarge
            | K::TooManyLinks
            | K::NotSeekable
            | K::WriteZero => Self::Permanent,
            // All else that a file system says goes away by itself or by an operator's hand: busy,
            // timed out, a stale handle, no permission, not found (both of a directory that is
            // being mounted), too many open files, an error of the device. Retrying a hopeless
            // case costs minutes; giving up on a passing one costs the run.
            _ => Self::Transient,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::ffi;

    use super::FailureKind::{DeviceFull, Permanent, Transient};
    use super::*;

    /// What the system says, by the numbers of Linux.
    #[cfg(target_os = "linux")]
    fn system_errors() -> Vec<(io::Error, FailureKind)> {
        let numbers = [
            (4, Transient),    // EINTR
            (5, Transient),    // EIO
            (2, Transient),    // ENOENT
            (11, Transient),   // EAGAIN
            (13, Transient),   // EACCES
            (16, Transient),   // EBUSY
            (24, Transient),   // EMFILE
            (110, Transient),  // ETIMEDOUT
            (116, Transient),  // ESTALE
            (28, DeviceFull),  // ENOSPC
            (122, DeviceFull), // EDQUOT
            (20, Permanent),   // ENOTDIR
            (22, Permanent),   // EINVAL
            (27, Permanent),   // EFBIG
            (36, Permanent),   // ENAMETOOLONG
        ];
        numbers.map(|(number, kind)| (io::Error::from_raw_os_error(number), kind)).into()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn every_family_sorts_what_the_system_says() {
        let path = Path::new("data/x");
        for (error, kind) in system_errors() {
            let again = || io::Error::from_raw_os_error(error.raw_os_error().unwrap());
            assert_eq!(LogError::io("read", path, again()).kind(), kind, "{error}");
            assert_eq!(TableError::io("read", path, again()).kind(), kind, "{error}");
            assert_eq!(ArchiveError::io("read", path, again()).kind(), kind, "{error}");
            assert_eq!(ObjectsError::io("read", path, again()).kind(), kind, "{error}");
            let wrapped = parquet::errors::ParquetError::External(Box::new(again()));
            assert_eq!(ArchiveError::parquet("write", path, wrapped).kind(), kind, "{error}");
            let input = InputError::Read { path: "a".into(), lines: 0, bytes: 0, source: again() };
            assert_eq!(input.kind(), kind, "{error}");
        }
    }

    #[test]
    fn the_driver_of_the_table_is_sorted() {
        for (code, kind) in [
            (ffi::SQLITE_BUSY, Transient),
            (ffi::SQLITE_BUSY_SNAPSHOT, Transient),
            (ffi::SQLITE_LOCKED, Transient),
            (ffi::SQLITE_PROTOCOL, Transient),
            (ffi::SQLITE_IOERR_WRITE, Transient),
            (ffi::SQLITE_CANTOPEN, Transient),
            (ffi::SQLITE_PERM, Transient),
            (ffi::SQLITE_READONLY, Transient),
            (ffi::SQLITE_FULL, DeviceFull),
            (ffi::SQLITE_IOERR_SHMSIZE, DeviceFull),
            (ffi::SQLITE_CORRUPT, Permanent),
            (ffi::SQLITE_NOTADB, Permanent),
            (ffi::SQLITE_CONSTRAINT, Permanent),
            (ffi::SQLITE_MISMATCH, Permanent),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(TableError::sqlite("write to", Path::new("t"), error).kind(), kind, "{code}");
        }
    }

    #[test]
    fn what_is_wrong_in_itself_stays_wrong() {
        let (path, what) = (|| Path::new("x").to_path_buf(), || String::new());
        assert_eq!(LogError::Corrupt { path: path(), position: 1, what: what() }.kind(), Permanent);
        assert_eq!(LogError::TopicName { topic: what() }.kind(), Permanent);
        assert_eq!(TableError::OutOfRange { video_id: what(), epoch: 1 }.kind(), Permanent);
        assert_eq!(TableError::Corrupt { path: path(), what: what() }.kind(), Permanent);
        assert_eq!(ArchiveError::Corrupt { path: path(), what: what() }.kind(), Permanent);
        let other = ArchiveError::OtherLength { path: path(), found_ms: 1, asked_ms: 2 };
        assert_eq!(other.kind(), Permanent);
        assert_eq!(ObjectsError::Name { name: what(), what: "is empty" }.kind(), Permanent);
        assert_eq!(InputError::Nothing.kind(), Permanent);
        let damaged = parquet::errors::ParquetError::General(what());
        assert_eq!(ArchiveError::parquet("read", Path::new("x"), damaged).kind(), Permanent);
    }

    #[test]
    fn a_full_device_says_what_to_do() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let path = Path::new("data/log/t/0/1.log");
        let says = "no space left on the device that holds data/log/t/0/1.log; make room and run it again";
        assert_eq!(LogError::io("append to", path, full()).to_string(), says);
        assert_eq!(TableError::io("make", path, full()).to_string(), says);
        assert_eq!(ArchiveError::io("write", path, full()).to_string(), says);
        assert_eq!(ObjectsError::io("write", path, full()).to_string(), says);
    }
}
