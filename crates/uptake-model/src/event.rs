//! Events that can be used, and the reasons why others cannot.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{DimsHash, MemberHash, RequestId, VideoHash};
use crate::time::EventTime;

/// Which side of the join an event is on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// A video appeared in a member's viewport.
    #[default]
    Impression = 0,
    /// A member started a video.
    Play = 1,
}

impl Kind {
    /// The other side of the join.
    #[inline]
    pub fn other(self) -> Self {
        match self {
            Self::Impression => Self::Play,
            Self::Play => Self::Impression,
        }
    }
}

/// One event as it travels through the pipeline: 48 bytes, nothing on the heap.
///
/// Two events are the same event delivered twice when request, kind, video and time agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Event {
    /// The request that was its source.
    pub request: RequestId,
    /// The video shown or played.
    pub video: VideoHash,
    /// When it happened.
    pub time: EventTime,
    /// Who saw or played it; [`MemberHash::NONE`] where it is not needed or not known.
    pub member: MemberHash,
    /// The values that place it in segments.
    pub dims: DimsHash,
    /// The source partition it was read from, for the ledger.
    pub partition: u32,
    /// Impression or play.
    pub kind: Kind,
}

/// Why a record could not be used. The names are stable: scripts and metrics use them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Longer than the configured limit.
    TooLong,
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON: truncated, or followed by something else.
    NotJson,
    /// JSON, but not an object (or an array of objects).
    NotAnObject,
    /// No kind, or not a text.
    NoKind,
    /// A kind other than impression and play.
    UnknownKind,
    /// No request id, an empty one, or not a text.
    NoRequestId,
    /// No video id, an empty one, or not a text.
    NoVideoId,
    /// An id, or the value of a dimension that a segment is made of, longer than 1,024 bytes.
    IdTooLong,
    /// No timestamp, or none in the configured unit.
    NoTimestamp,
    /// Before 1970 or after the year 9999.
    TimestampOutOfRange,
    /// Further ahead of its arrival than the configured guard allows.
    TimestampInFuture,
}

impl Reason {
    /// All reasons, in the order of the checks.
    pub const ALL: [Self; 12] = [
        Self::TooLong,
        Self::NotUtf8,
        Self::NotJson,
        Self::NotAnObject,
        Self::NoKind,
        Self::UnknownKind,
        Self::NoRequestId,
        Self::NoVideoId,
        Self::IdTooLong,
        Self::NoTimestamp,
        Self::TimestampOutOfRange,
        Self::TimestampInFuture,
    ];

    /// The stable name, as in `unknown-kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::NotUtf8 => "not-utf8",
            Self::NotJson => "not-json",
            Self::NotAnObject => "not-an-object",
            Self::NoKind => "no-kind",
            Self::UnknownKind => "unknown-kind",
            Self::NoRequestId => "no-request-id",
            Self::NoVideoId => "no-video-id",
            Self::IdTooLong => "id-too-long",
            Self::NoTimestamp => "no-timestamp",
            Self::TimestampOutOfRange => "timestamp-out-of-range",
            Self::TimestampInFuture => "timestamp-in-future",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
