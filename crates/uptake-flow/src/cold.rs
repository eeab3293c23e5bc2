//! Where states go that memory has no room for.

use std::fmt::Debug;

use uptake_model::EventTime;

/// States that were put away, by key: those of [`KeyedState`](crate::KeyedState) that
/// [`KeyedState::spill`](crate::KeyedState::spill) took out of memory.
///
/// A store that fails stops the run itself, and from then on holds nothing: what it had is in the
/// last checkpoint.
pub trait Cold<K, S>: Debug {
    /// Takes a state with its deadline, or gives back one that has to stay in memory. `unsaved`
    /// says that it changed after the last checkpoint. What was put is there after
    /// [`Cold::settle`].
    ///
    /// # Errors
    /// The state, which stays in memory.
    fn put(&mut self, key: &K, state: S, deadline: EventTime, unsaved: bool) -> Result<(), S>;

    /// Brings what was put to where it stays.
    fn settle(&mut self);

    /// Gives back the state of a key and its deadline.
    fn take(&mut self, key: &K) -> Option<(S, EventTime)>;

    /// Gives back some of the states of which at least the first deadlines lie before the
    /// watermark, each with its own; `false` once there are none.
    fn take_due(&mut self, watermark: EventTime, each: &mut dyn FnMut(K, S, EventTime)) -> bool;

    /// Calls `each` with every state.
    fn each(&mut self, each: &mut dyn FnMut(&K, &S));

    /// How many states there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
