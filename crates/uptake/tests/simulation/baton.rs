//! The baton: of all threads of a simulation only its holder runs, and who holds it next is drawn.
//!
//! Each cluster has a thread that starts and ends its runs, seat 0, and while one runs its
//! workers, seats 1 and on. Threads come when the system lets them; who has been drawn and has
//! not come yet is waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::dice::Dice;

/// A seat: the cluster, and the number there.
pub(crate) type Seat = (usize, usize);

struct Seated {
    /// How often it is drawn, in relation to the others.
    weight: u64,
    /// Its thread has taken its first turn.
    came: bool,
    wake: Arc<Condvar>,
}

struct State {
    holder: Option<Seat>,
    seats: BTreeMap<Seat, Seated>,
    dice: Dice,
    /// How many percent of all times the holder goes on.
    stays: u64,
}

/// The baton of one simulation.
pub(crate) struct Baton(Mutex<State>);

impl State {
    fn seat(&mut self, seat: Seat) {
        let weight = self.dice.pick(&[1, 2, 4, 4, 4, 16]);
        self.seats.insert(seat, Seated { weight, came: false, wake: Arc::default() });
    }

    fn draw(&mut self) {
        let all: u64 = self.seats.values().map(|seated| seated.weight).sum();
        if all == 0 {
            self.holder = None;
            return;
        }
        let mut at = self.dice.below(all);
        for (seat, seated) in &self.seats {
            if at < seated.weight {
                self.holder = Some(*seat);
                seated.wake.notify_one();
                return;
            }
            at -= seated.weight;
        }
    }
}

impl Baton {
    /// A baton for the threads that run these clusters, one of which holds it.
    pub(crate) fn new(mut dice: Dice, clusters: usize) -> Self {
        let stays = dice.pick(&[0, 30, 60, 90]);
        let mut state = State { holder: None, seats: BTreeMap::new(), dice, stays };
        (0..clusters).for_each(|cluster| state.seat((cluster, 0)));
        state.draw();
        Self(Mutex::new(state))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether whoever sits here runs already, and does not come for the first time.
    pub(crate) fn is_held_by(&self, seat: Seat) -> bool {
        let state = self.lock();
        state.holder == Some(seat) && state.seats.get(&seat).is_some_and(|seated| seated.came)
    }

    /// Hands the baton on and waits until it comes back.
    pub(crate) fn turn(&self, seat: Seat) {
        let mut state = self.lock();
        let Some(seated) = state.seats.get_mut(&seat) else { return };
        let (first, wake) = (!std::mem::replace(&mut seated.came, true), Arc::clone(&seated.wake));
        if !first {
            let stays = state.stays;
            if state.dice.percent(stays) {
                return;
            }
            state.draw();
        }
        while state.holder != Some(seat) {
            state = wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The holder, who runs a cluster, makes room for its workers.
    pub(crate) fn begin(&self, cluster: usize, workers: usize) {
        let mut state = self.lock();
        state.seats.remove(&(cluster, 0));
        (0..workers).for_each(|worker| state.seat((cluster, worker + 1)));
        state.draw();
    }

    /// The holder goes. After the last worker of a cluster whoever runs the cluster has it.
    pub(crate) fn leave(&self, seat: Seat) {
        let mut state = self.lock();
        state.seats.remove(&seat);
        let (cluster, number) = seat;
        if number > 0 && state.seats.range((cluster, 0)..(cluster + 1, 0)).next().is_none() {
            state.seat((cluster, 0));
            if let Some(seated) = state.seats.get_mut(&(cluster, 0)) {
                seated.came = true;
            }
            state.holder = Some((cluster, 0));
            return;
        }
        state.draw();
    }
}
