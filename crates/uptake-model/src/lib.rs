//! What Uptake counts and how: plain values and functions, no input or output, no clock.
//!
//! An *impression* says that a video appeared on a member's screen, a *play* that a member
//! started it; both carry the id of the request that put the video there. This crate turns bytes
//! into such events ([`decode`]), joins them by request ([`join`]), counts them per video and
//! half hour as sets of requests ([`tally`]) and keeps the books ([`ledger`]). States and tallies
//! turn into bytes that another process can load. [`contract`] says what all of that must amount
//! to, as plainly as it can be said.

mod bytes;
pub mod contract;
pub mod decode;
pub mod event;
pub mod filter;
pub mod ids;
pub mod index;
pub mod join;
pub mod ledger;
pub mod segment;
pub mod tally;
pub mod time;
pub mod watermark;

pub use bytes::DamagedState;
pub use event::{Event, Kind, Reason};
pub use ids::{DimsHash, MemberHash, RequestId, VideoHash};
pub use tally::TallyRow;
pub use time::{Epoch, EpochLength, EventTime};
