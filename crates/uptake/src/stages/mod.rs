//! The stages of the pipeline, each in its own file: what the model says, on the engine's streams.

pub mod aggregate;
pub mod archive;
pub mod cap;
pub mod collect;
pub mod join;
pub mod keep;
pub mod outlets;
pub mod search;
pub mod spill;

use serde::{Deserialize, Serialize};
use uptake_model::{DimsHash, Event, EventTime, Kind, MemberHash, RequestId, VideoHash};

/// What an event says beside its request and its time, with which it travels to the join: 32 bytes instead of 48, of
/// which most are copied twice between decoding and joining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrived {
    video: VideoHash,
    member: MemberHash,
    dims: DimsHash,
    partition: u32,
    kind: Kind,
}

impl Arrived {
    /// What `event` says.
    #[inline]
    pub fn of(event: &Event) -> Self {
        let &Event { video, member, dims, partition, kind, .. } = event;
        Self { video, member, dims, partition, kind }
    }

    /// The event, with its request and time.
    #[inline]
    pub fn event(self, request: RequestId, time: EventTime) -> Event {
        let Self { video, member, dims, partition, kind } = self;
        Event { request, video, time, member, dims, partition, kind }
    }
}

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
