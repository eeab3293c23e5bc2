//! The stages of the pipeline, each in its own file: what the model says, on the engine's streams.

pub mod aggregate;
pub mod archive;
pub mod cap;
pub mod collect;
pub mod join;
pub mod outlets;
pub mod search;
pub mod spill;

use serde::{Deserialize, Serialize};
use uptake_model::Event;

/// What the join lets out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Joined {
    /// The event counts.
    Counted(Event),
    /// The event came too late to be joined.
    Late(Event),
    /// A play that a cap cut: it does not count, but says something of who plays the video.
    Cut(Event),
}

impl Joined {
    /// The event, whatever became of it.
    #[inline]
    pub fn event(&self) -> &Event {
        match self {
            Self::Counted(event) | Self::Late(event) | Self::Cut(event) => event,
        }
    }
}
