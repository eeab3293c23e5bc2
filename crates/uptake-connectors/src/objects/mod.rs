//! Objects: named bytes that appear whole or not at all and never change, for checkpoints.
//!
//! An object is put only where there is none, so of several writers of one name one wins, and
//! what was read once stays true. Names are steps with `/` between them.

mod directory;
mod memory;
mod store;

pub use directory::DirectoryObjects;
pub use memory::MemoryObjects;
pub use store::StoreObjects;

use crate::error::ObjectsError;
use crate::options::Options;
use crate::url::{Backend, Content};

/// The result of an operation on objects.
pub type Result<T> = std::result::Result<T, ObjectsError>;

/// What became of an object that was put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutObject {
    /// There was none of this name; now there is, and it survives a power cut.
    Created,
    /// There is one of this name, which stays as it is. Behind a network it may be this call's own:
    /// where the answer to an attempt was lost, the next attempt finds what that one has put.
    Exists,
}

/// An object as it is listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectInfo {
    /// Its name.
    pub name: String,
    /// How many bytes it has.
    pub bytes: u64,
}

/// A store of objects. All methods may be called from many threads at once, and a directory's
/// from many processes.
///
/// ```
/// use uptake_connectors::objects::{MemoryObjects, Objects, PutObject};
/// let objects = MemoryObjects::new();
/// assert_eq!(objects.put_if_absent("run-1/batch-000007", b"state")?, PutObject::Created);
/// assert_eq!(objects.put_if_absent("run-1/batch-000007", b"other")?, PutObject::Exists);
/// assert_eq!(objects.get("run-1/batch-000007")?.as_deref(), Some(b"state".as_slice()));
/// assert_eq!(objects.list("run-1/")?.len(), 1);
/// # Ok::<(), uptake_connectors::ObjectsError>(())
/// ```
pub trait Objects: Send + Sync {
    /// Puts `bytes` under `name` unless there is an object of that name. Durable on return.
    ///
    /// # Errors
    /// The name is not one, or lies below an object, or others lie below it; the device is full
    /// or the system refuses. Nothing is left behind then. So for all that take a name.
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<PutObject>;

    /// The bytes of an object, if there is one.
    ///
    /// # Errors
    /// The name is not one, or the system refuses.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// The bytes of an object from `start` on: `len` of them, or fewer where it ends before.
    ///
    /// # Errors
    /// As [`Objects::get`].
    fn get_range(&self, name: &str, start: u64, len: u64) -> Result<Option<Vec<u8>>>;

    /// The objects whose names begin with `prefix` (any text, not only whole steps), by name,
    /// bytewise. One that is put or deleted meanwhile may be listed or not.
    ///
    /// # Errors
    /// The system refuses.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>>;

    /// Deletes an object; fine where there is none.
    ///
    /// # Errors
    /// As [`Objects::get`].
    fn delete(&self, name: &str) -> Result<()>;
}

/// The folder of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";

/// Opens the objects that `backend` names, in a folder there, as [`CHECKPOINTS`].
///
/// # Errors
/// As [`DirectoryObjects::open`] and [`StoreObjects::open`]; or the options make no sense.
pub fn open(backend: &Backend, folder: &str, options: &Options) -> Result<Box<dyn Objects>> {
    Ok(match backend {
        Backend::Memory => Box::new(MemoryObjects::new()),
        Backend::File(directory) => Box::new(DirectoryObjects::open(directory, folder)?),
        Backend::S3 { .. } => Box::new(StoreObjects::open(backend, folder, options)?),
        Backend::Kafka { .. } | Backend::Cassandra { .. } => {
            return Err(backend.cannot_hold(Content::Checkpoints).into());
        }
    })
}

/// The one rule for names, safe in a path on every file system.
fn check_name(name: &str) -> Result<()> {
    let step = |step: &str| match step {
        "" => Some("has an empty step"),
        _ if step.starts_with('.') => Some("has a step that begins with '.'"),
        _ if step.len() > 200 => Some("has a step of more than 200 bytes"),
        _ => None,
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-=/".contains(c);
    let what = match name {
        "" => Some("is empty"),
        _ if !name.chars().all(allowed) => Some("has other characters than a-z, A-Z, 0-9 and ._-=/"),
        _ => name.split('/').find_map(step),
    };
    what.map_or(Ok(()), |what| Err(ObjectsError::Name { name: name.to_owned(), what }))
}

fn beside(name: &str, other: &str) -> ObjectsError {
    ObjectsError::Beside { name: name.to_owned(), other: other.to_owned() }
}

/// The names that would have to be folders for `name` to be an object: `a` and `a/b` for `a/b/c`.
fn folders(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(end, _)| &name[..end])
}
