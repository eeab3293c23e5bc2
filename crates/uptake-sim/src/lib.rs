//! A simulated audience: people browse pages of titles and play some, and their devices report it.
//!
//! [`Audience`] gives the reports as lines of JSON in the order in which they arrive. It reads no
//! clock and no file: the same options give the same bytes, on every machine, because all
//! arithmetic is exact or correctly rounded (no `ln`, `exp` or `sin` of the platform). [`Truth`]
//! says what the lines amount to, counted without any of Uptake's code.
//!
//! [`Visitors`] are asked one by one what they do with what they are shown, for a site that answers them: their
//! interest is that of a [`Season`] that was.

mod audience;
mod charts;
mod rng;
mod season;
mod titles;
mod truth;
mod visitors;
mod world;

pub use audience::{Audience, Dirt, EVENTS_PER_REQUEST, Options, Sent};
pub use charts::{Charts, Reranked};
pub use rng::Rng;
pub use season::{Moment, Season, Show};
pub use titles::{Title, titles};
pub use truth::{Counting, Requests, Seen, Truth};
pub use visitors::{Act, Trouble, Visit, Visitor, Visitors, row_value};
pub use world::Happening;
