//! A simulated audience: people browse pages of titles and play some, and their devices report it.
//!
//! [`Audience`] gives the reports as lines of JSON in the order in which they arrive. It reads no
//! clock and no file: the same options give the same bytes, on every machine, because all
//! arithmetic is exact or correctly rounded (no `ln`, `exp` or `sin` of the platform). [`Truth`]
//! says what the lines amount to, counted without any of Uptake's code.

mod audience;
mod rng;
mod titles;
mod truth;
mod world;

pub use audience::{Audience, Dirt, EVENTS_PER_REQUEST, Options, Sent};
pub use rng::Rng;
pub use titles::{Title, titles};
pub use truth::{Counting, Requests, Truth};
pub use world::Happening;
