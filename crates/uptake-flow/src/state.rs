//! A store of states by key: compact, with deadlines in time buckets.
//!
//! An open-addressing index of 4-byte slot numbers over pages of slots, so that growing moves no
//! state. Each slot with a deadline hangs in the list of its minute; a deadline that moved is
//! found out when the minute comes, so touching a key costs nothing. States may be put away where
//! they take no memory, those of the earliest minutes first; a record of their key brings them back.

use std::collections::BTreeMap;
use std::hash::Hash;

use uptake_model::EventTime;
use uptake_model::index::Index;

use crate::cold::Cold;
use crate::hash_of;

/// Slots in a page: large enough that a page's own cost vanishes, small enough not to waste memory.
const PAGE: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 10;

/// No slot.
const NONE: u32 = u32::MAX;

/// A deadline in seconds since 1970, rounded up, as 4 bytes: 0 stands for everything before and
/// [`NEVER`] for everything after 2106, which then waits for the end of all time: a state may be
/// kept longer than asked for, never shorter.
type Seconds = u32;
const NEVER: Seconds = u32::MAX;

fn seconds_up(time: EventTime) -> Seconds {
    let seconds = time.0.div_euclid(1000) + i64::from(time.0.rem_euclid(1000) != 0);
    u32::try_from(seconds.max(0)).unwrap_or(NEVER)
}

#[derive(Debug)]
struct Slot<K, S> {
    key: K,
    /// `None`: removed, and waiting to be unhooked from its minute.
    state: Option<S>,
    deadline: Seconds,
    /// The next slot of the same minute, or of the free list.
    next: u32,
}

impl<K, S> Slot<K, S> {
    /// Sets a deadline that is later than what was set before; the slot has number `n`.
    #[inline]
    fn set_deadline(&mut self, n: u32, seconds: Seconds, minutes: &mut BTreeMap<u32, u32>) {
        if self.next == NONE {
            self.deadline = seconds;
            let head = minutes.entry(seconds / 60).or_insert(n);
            // A slot that is the last of its list points at itself: NONE says "in no list".
            self.next = std::mem::replace(head, n);
        } else {
            self.deadline = self.deadline.max(seconds);
        }
    }

    /// Only a slot that hangs in a list has one.
    fn deadline(&self) -> Option<EventTime> {
        (self.next != NONE).then(|| match self.deadline {
            NEVER => EventTime::MAX,
            seconds => EventTime(i64::from(seconds) * 1000),
        })
    }
}

/// The hash of the key in a slot.
fn hash_in<K: Hash, S>(pages: &[Vec<Slot<K, S>>]) -> impl Fn(u32) -> u64 {
    |n| hash_of(&pages[n as usize >> PAGE_BITS][n as usize % PAGE].key)
}

/// States by key.
///
/// ```
/// use uptake_flow::{EventTime, KeyedState};
/// let mut counts: KeyedState<&str, u32> = KeyedState::default();
/// *counts.entry(&"a", None).get_or_insert(0) += 1;
/// *counts.entry(&"a", Some(EventTime(60_000))).get_or_insert(0) += 1;
/// assert_eq!(counts.get(&"a"), Some(&2));
/// let mut over = Vec::new();
/// counts.expire(EventTime(60_001), &mut |key, n| over.push((*key, n)));
/// assert_eq!((over, counts.len()), (vec![("a", 2)], 0));
/// ```
#[derive(Debug)]
pub struct KeyedState<K, S> {
    index: Index,
    pages: Vec<Vec<Slot<K, S>>>,
    free: u32,
    /// By minute of the deadline, the first slot of the minute's list.
    minutes: BTreeMap<u32, u32>,
    /// The slot used last: events of one key often follow one another.
    recent: u32,
    /// Whether its touch was noted by everyone who drains.
    recent_touched: bool,
    /// The slots touched since they were drained last, by [`Tracking`].
    touched: [Option<Touched>; 2],
    /// What was put away.
    cold: Option<Box<dyn Cold<K, S>>>,
}

/// For whom touched keys are remembered; each drains them at a pace of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracking {
    /// For what happens at the end of a batch, or now and then.
    Batch,
    /// For a checkpoint.
    Checkpoint,
}

/// A bit for each touched slot, and their numbers.
#[derive(Debug, Default)]
struct Touched {
    bits: Vec<u64>,
    list: Vec<u32>,
}

impl Touched {
    #[inline]
    fn touch(&mut self, n: u32) {
        let (word, bit) = (n as usize / 64, 1u64 << (n % 64));
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        if self.bits[word] & bit == 0 {
            self.bits[word] |= bit;
            self.list.push(n);
        }
    }

    fn is_touched(&self, n: u32) -> bool {
        self.bits.get(n as usize / 64).is_some_and(|word| word & 1 << (n % 64) != 0)
    }
}

impl<K, S> Default for KeyedState<K, S> {
    fn default() -> Self {
        Self {
            index: Index::default(),
            pages: Vec::new(),
            free: NONE,
            minutes: BTreeMap::new(),
            recent: NONE,
            recent_touched: false,
            touched: [None, None],
            cold: None,
        }
    }
}

impl<K: Eq + Hash + Clone, S> KeyedState<K, S> {
    /// From now on remembers which keys are touched, for [`KeyedState::drain_touched`].
    pub fn track(&mut self, tracking: Tracking) {
        self.touched[tracking as usize].get_or_insert_default();
        self.recent_touched = false;
    }

    /// How many slots were touched since they were drained.
    pub fn touched(&self, tracking: Tracking) -> usize {
        self.touched[tracking as usize].as_ref().map_or(0, |touched| touched.list.len())
    }

    /// States that [`KeyedState::spill`] takes out of memory go to `cold`, and come back from it.
    pub fn spilling_to(mut self, cold: Box<dyn Cold<K, S>>) -> Self {
        self.cold = Some(cold);
        self
    }

    /// How many keys have a state.
    pub fn len(&self) -> usize {
        self.held() + self.cold.as_ref().map_or(0, |cold| cold.len())
    }

    /// Whether no key has a state.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many states are in memory.
    pub fn held(&self) -> usize {
        self.index.len()
    }

    #[inline]
    fn slot(&self, n: u32) -> &Slot<K, S> {
        &self.pages[n as usize >> PAGE_BITS][n as usize % PAGE]
    }

    #[inline]
    fn slot_mut(&mut self, n: u32) -> &mut Slot<K, S> {
        &mut self.pages[n as usize >> PAGE_BITS][n as usize % PAGE]
    }

    /// The slot used last, if it is this key's.
    #[inline(always)]
    fn find_recent(&self, key: &K) -> Option<u32> {
        let slot = (self.recent != NONE).then(|| self.slot(self.recent))?;
        (slot.key == *key && slot.state.is_some()).then_some(self.recent)
    }

    fn look_up(&self, key: &K) -> Option<u32> {
        self.index.find(hash_of(key), |n| self.slot(n).key == *key)
    }

    /// The state of `key`, if it is in memory.
    pub fn get(&self, key: &K) -> Option<&S> {
        self.find_recent(key).or_else(|| self.look_up(key)).and_then(|n| self.slot(n).state.as_ref())
    }

    /// The place of `key`'s state, to read, set or clear. It must hold a state when it is let
    /// go of, or [`KeyedState::settle`] must be called for the key.
    ///
    /// `deadline`: the key is handed to [`KeyedState::expire`] once the watermark has passed it;
    /// the latest one given holds. `None` sets none and leaves one that was set.
    #[inline]
    pub fn entry(&mut self, key: &K, deadline: Option<EventTime>) -> &mut Option<S> {
        let n = match self.find_recent(key) {
            Some(n) => n,
            None => self.look_up(key).unwrap_or_else(|| self.insert(key)),
        };
        if n != self.recent || !self.recent_touched {
            (self.recent, self.recent_touched) = (n, true);
            for touched in self.touched.iter_mut().flatten() {
                touched.touch(n);
            }
        }
        let slot = &mut self.pages[n as usize >> PAGE_BITS][n as usize % PAGE];
        // Most records are not a second later than the one before of their key.
        if let Some(deadline) = deadline
            && (slot.next == NONE || deadline.0 > i64::from(slot.deadline) * 1000)
        {
            slot.set_deadline(n, seconds_up(deadline), &mut self.minutes);
        }
        &mut slot.state
    }

    #[cold]
    fn insert(&mut self, key: &K) -> u32 {
        let slot = Slot { key: key.clone(), state: None, deadline: 0, next: NONE };
        let n = if self.free != NONE {
            let n = self.free;
            self.free = self.slot(n).next;
            *self.slot_mut(n) = slot;
            n
        } else {
            if self.pages.last().is_none_or(|page| page.len() == PAGE) {
                self.pages.push(Vec::with_capacity(PAGE));
            }
            let page = self.pages.len() - 1;
            self.pages[page].push(slot);
            (page * PAGE + self.pages[page].len() - 1) as u32
        };
        self.index.insert(hash_of(key), n, hash_in(&self.pages));
        if let Some((state, deadline)) = self.cold.as_mut().and_then(|cold| cold.take(key)) {
            let slot = &mut self.pages[n as usize >> PAGE_BITS][n as usize % PAGE];
            slot.state = Some(state);
            slot.set_deadline(n, seconds_up(deadline), &mut self.minutes);
        }
        n
    }

    /// Forgets `key` if its entry was left without a state.
    #[inline]
    pub fn settle(&mut self, key: &K) {
        let Some(n) = self.find_empty(key) else { return };
        self.unindex(n);
        if self.slot(n).next == NONE {
            self.release(n);
        }
    }

    /// The slot of `key` if it is empty: only the one just used can be.
    #[inline]
    fn find_empty(&self, key: &K) -> Option<u32> {
        let n = self.recent;
        (n != NONE && self.slot(n).state.is_none() && self.slot(n).key == *key).then_some(n)
    }

    fn unindex(&mut self, n: u32) {
        let hash = hash_of(&self.slot(n).key);
        self.index.remove(hash, n, hash_in(&self.pages));
        if self.recent == n {
            self.recent = NONE;
        }
    }

    fn release(&mut self, n: u32) {
        debug_assert_ne!(
            self.look_up(&self.slot(n).key),
            Some(n),
            "a slot is given back that a key still has"
        );
        let free = self.free;
        let slot = self.slot_mut(n);
        slot.next = free;
        self.free = n;
    }

    /// Whether [`KeyedState::expire`] hands over a key with this deadline at this watermark.
    pub fn is_over(deadline: EventTime, watermark: EventTime) -> bool {
        match seconds_up(deadline) {
            NEVER => watermark == EventTime::MAX,
            seconds => i64::from(seconds) * 1000 < watermark.0,
        }
    }

    /// Hands over every key whose deadline lies before `watermark`, once, and forgets it.
    /// Of one minute those with the later deadline may come first.
    ///
    /// Deadlines are kept in whole seconds, rounded up, so that a key may stay for up to a second longer.
    /// One after 2106 is over at [`EventTime::MAX`] alone, and nothing is at a watermark before 1970.
    pub fn expire(&mut self, watermark: EventTime, over: &mut dyn FnMut(&K, S)) {
        if watermark.0 < 0 {
            return;
        }
        self.expire_held(watermark, over);
        // Those put away end in memory, some at a time, with all others of their second.
        while let Some(mut cold) = self.cold.take_if(|cold| !cold.is_empty()) {
            let some = cold.take_due(watermark, &mut |key, state, deadline| {
                self.restore(&key, Some(deadline), state);
            });
            self.cold = Some(cold);
            if !some {
                return;
            }
            self.expire_held(watermark, over);
        }
    }

    fn expire_held(&mut self, watermark: EventTime, over: &mut dyn FnMut(&K, S)) {
        // A deadline in whole seconds is over if it is smaller than the watermark's seconds, or
        // equal and the watermark is some milliseconds further on.
        let reached = (watermark.0 / 1000) as u64 + u64::from(watermark.0 % 1000 != 0);
        let is_over = |deadline: Seconds| match deadline {
            NEVER => watermark == EventTime::MAX,
            deadline => u64::from(deadline) < reached,
        };
        while let Some(minute) = self.minutes.first_entry() {
            if !is_over(minute.key().saturating_mul(60)) {
                return;
            }
            let (minute, mut n) = minute.remove_entry();
            let mut kept = Vec::new();
            loop {
                let slot = self.slot_mut(n);
                let (next, deadline) = (slot.next, slot.deadline);
                if slot.state.is_none() {
                    self.release(n);
                } else if is_over(deadline) {
                    let state = slot.state.take();
                    self.unindex(n);
                    if let Some(state) = state {
                        over(&self.slot(n).key, state);
                    }
                    self.release(n);
                } else {
                    kept.push(n);
                }
                if next == n {
                    break;
                }
                n = next;
            }
            let same_minute = kept.iter().any(|&n| self.slot(n).deadline / 60 == minute);
            self.hang(kept);
            if same_minute {
                return;
            }
        }
    }

    /// Hangs slots that are in no list into those of their minutes.
    fn hang(&mut self, slots: Vec<u32>) {
        for n in slots {
            let head = self.minutes.entry(self.slot(n).deadline / 60).or_insert(n);
            let next = std::mem::replace(head, n);
            self.slot_mut(n).next = next;
        }
    }

    /// Puts `count` states away, or as many as there are that can be, those first whose deadlines
    /// come first and of one minute those that had theirs first. Needs
    /// [`KeyedState::spilling_to`]; states without a deadline stay.
    pub fn spill(&mut self, count: usize) {
        let Some(mut cold) = self.cold.take_if(|_| count > 0) else { return };
        let (mut left, mut stay) = (count, Vec::new());
        while left > 0
            && let Some(minute) = self.minutes.first_entry()
        {
            let (minute, head) = minute.remove_entry();
            let mut slots = vec![head];
            let mut n = head;
            while self.slot(n).next != n {
                n = self.slot(n).next;
                slots.push(n);
            }
            let mut moved = Vec::new();
            // The list begins with what came last.
            for n in slots.into_iter().rev() {
                let unsaved = self.touched[Tracking::Checkpoint as usize]
                    .as_ref()
                    .is_some_and(|touched| touched.is_touched(n));
                let slot = self.slot_mut(n);
                if slot.state.is_some() && slot.deadline / 60 != minute {
                    moved.push(n);
                    continue;
                }
                if slot.state.is_some() && left == 0 {
                    stay.push(n);
                    continue;
                }
                let (deadline, state) = (slot.deadline(), slot.state.take());
                let Some((deadline, state)) = deadline.zip(state) else {
                    self.release(n);
                    continue;
                };
                match cold.put(&slot.key, state, deadline, unsaved) {
                    Ok(()) => {
                        left -= 1;
                        self.unindex(n);
                        self.release(n);
                    }
                    Err(state) => {
                        self.slot_mut(n).state = Some(state);
                        stay.push(n);
                    }
                }
            }
            self.hang(moved);
        }
        self.hang(stay);
        cold.settle();
        self.cold = Some(cold);
    }

    /// Each key touched since the last call that still has a state in memory, once, with its deadline. Needs
    /// [`KeyedState::track`]. They come in the order in which their places were touched first; a key that was given
    /// the place of one that is gone takes its turn. What was put away since, unsaved, is told to
    /// [`Cold::put`].
    pub fn drain_touched(&mut self, tracking: Tracking, each: &mut dyn FnMut(&K, &mut S, Option<EventTime>)) {
        self.recent_touched = false;
        let Some(touched) = &mut self.touched[tracking as usize] else { return };
        for n in touched.list.drain(..) {
            touched.bits[n as usize / 64] &= !(1 << (n % 64));
            let slot = &mut self.pages[n as usize >> PAGE_BITS][n as usize % PAGE];
            let deadline = slot.deadline();
            if let Some(state) = &mut slot.state {
                each(&slot.key, state, deadline);
            }
        }
    }

    /// In how many parts [`KeyedState::part`] gives the states in memory.
    pub fn parts(&self) -> usize {
        self.pages.len()
    }

    /// The states in memory of one part, from 0, with their deadlines. A key stays in its part as long as
    /// its state stays in memory, so who takes a few parts at a time sees every state after one round that was not
    /// put away meanwhile. One that comes back may be in another part.
    pub fn part(&mut self, part: usize, each: &mut dyn FnMut(&K, &mut S, Option<EventTime>)) {
        for slot in self.pages.get_mut(part).into_iter().flatten() {
            let deadline = slot.deadline();
            if let Some(state) = &mut slot.state {
                each(&slot.key, state, deadline);
            }
        }
    }

    /// Puts back a state that [`KeyedState::part`] or [`KeyedState::drain_touched`] gave, in
    /// place of an older one.
    pub fn restore(&mut self, key: &K, deadline: Option<EventTime>, state: S) {
        *self.entry(key, deadline) = Some(state);
    }

    /// Calls `each` with all keys and their states, in no particular order.
    pub fn each(&mut self, each: &mut dyn FnMut(&K, &S)) {
        for slot in self.pages.iter().flatten() {
            if let Some(state) = &slot.state {
                each(&slot.key, state);
            }
        }
        if let Some(cold) = &mut self.cold {
            cold.each(each);
        }
    }

    /// Bytes held on the heap, without what the states hold there themselves.
    pub fn heap_bytes(&self) -> usize {
        let pages = self.pages.len() * PAGE * size_of::<Slot<K, S>>();
        let touched = self.touched.iter().flatten();
        let touched: usize = touched.map(|of| of.bits.capacity() * 8 + of.list.capacity() * 4).sum();
        self.index.heap_bytes() + pages + touched + self.minutes.len() * size_of::<(u32, u32)>()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    /// The obviously right one: a map from key to state and deadline.
    #[derive(Default)]
    struct Plain(BTreeMap<u8, (u32, Option<i64>)>);

    /// Put away: by key its state and deadline; the keys that were put away unsaved, and those that
    /// were given back without being asked for.
    #[derive(Default, Debug)]
    struct Away {
        states: BTreeMap<u8, (u32, EventTime)>,
        unsaved: Vec<u8>,
        back: Vec<u8>,
    }

    /// Keeps what is put away in a map, and of every seventh key nothing.
    #[derive(Debug)]
    struct AwayMap(Rc<RefCell<Away>>);

    impl Cold<u8, u32> for AwayMap {
        fn put(&mut self, key: &u8, state: u32, deadline: EventTime, unsaved: bool) -> Result<(), u32> {
            if key.is_multiple_of(7) {
                return Err(state);
            }
            let mut away = self.0.borrow_mut();
            assert_eq!(away.states.insert(*key, (state, deadline)), None, "{key} is in two places");
            away.unsaved.extend(unsaved.then_some(*key));
            Ok(())
        }

        fn settle(&mut self) {}

        fn take(&mut self, key: &u8) -> Option<(u32, EventTime)> {
            self.0.borrow_mut().states.remove(key)
        }

        fn take_due(&mut self, watermark: EventTime, each: &mut dyn FnMut(u8, u32, EventTime)) -> bool {
            let Away { states, back, .. } = &mut *self.0.borrow_mut();
            // One that is due, and one that may not be.
            let due = states.iter().find(|(_, (_, deadline))| *deadline < watermark).map(|(key, _)| *key);
            let Some(due) = due else { return false };
            for key in [Some(due), states.keys().find(|key| **key != due).copied()].into_iter().flatten() {
                let (state, deadline) = states.remove(&key).unwrap();
                back.push(key);
                each(key, state, deadline);
            }
            true
        }

        fn each(&mut self, each: &mut dyn FnMut(&u8, &u32)) {
            self.0.borrow().states.iter().for_each(|(key, (state, _))| each(key, state));
        }

        fn len(&self) -> usize {
            self.0.borrow().states.len()
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(u8, Option<i64>),
        Remove(u8, Option<i64>),
        Expire(i64),
        Touched,
        Spill(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let deadline = || prop::option::of(0i64..600);
        prop_oneof![
            6 => (0u8..40, deadline()).prop_map(|(k, d)| Step::Add(k, d)),
            2 => (0u8..40, deadline()).prop_map(|(k, d)| Step::Remove(k, d)),
            1 => (0i64..700).prop_map(Step::Expire),
            1 => Just(Step::Touched),
            1 => (0usize..30).prop_map(Step::Spill),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        #[test]
        fn a_keyed_state_is_a_map_with_deadlines(steps in prop::collection::vec(step(), 0..300)) {
            let (away, mut plain) = (Rc::new(RefCell::new(Away::default())), Plain::default());
            let mut fast = KeyedState::<u8, u32>::default().spilling_to(Box::new(AwayMap(Rc::clone(&away))));
            fast.track(Tracking::Checkpoint);
            let mut touched = std::collections::BTreeSet::new();
            for step in steps {
                match step {
                    Step::Add(k, d) => {
                        *fast.entry(&k, d.map(|d| EventTime(d * 1000))).get_or_insert(0) += 1;
                        let entry = plain.0.entry(k).or_default();
                        entry.0 += 1;
                        entry.1 = entry.1.max(d);
                        touched.insert(k);
                    }
                    Step::Remove(k, d) => {
                        fast.entry(&k, d.map(|d| EventTime(d * 1000))).take();
                        fast.settle(&k);
                        plain.0.remove(&k);
                    }
                    Step::Expire(at) => {
                        let mut over = Vec::new();
                        fast.expire(EventTime(at * 1000), &mut |k, s| over.push((*k, s)));
                        over.sort_unstable();
                        let expected: Vec<_> = plain.0.iter()
                            .filter(|(_, (_, d))| d.is_some_and(|d| d < at)).map(|(k, (s, _))| (*k, *s)).collect();
                        plain.0.retain(|_, (_, d)| d.is_none_or(|d| d >= at));
                        prop_assert_eq!(over, expected);
                    }
                    Step::Touched => {
                        let mut got = Vec::new();
                        fast.drain_touched(Tracking::Checkpoint, &mut |k, _, _| got.push(*k));
                        // What was put away unsaved is due as well, if it has not come to an end.
                        got.extend(away.borrow_mut().unsaved.drain(..).filter(|k| plain.0.contains_key(k)));
                        got.sort_unstable();
                        got.dedup();
                        // What came back counts as touched.
                        touched.extend(away.borrow_mut().back.drain(..));
                        let expected: Vec<u8> =
                            touched.iter().filter(|k| plain.0.contains_key(k)).copied().collect();
                        touched.clear();
                        prop_assert_eq!(got, expected);
                    }
                    Step::Spill(count) => {
                        let (held, before) = (fast.held(), away.borrow().states.len());
                        // Those without a deadline and every seventh key stay.
                        let can = |k: &u8| {
                            !k.is_multiple_of(7) && plain.0[k].1.is_some() && !away.borrow().states.contains_key(k)
                        };
                        let most = plain.0.keys().filter(|k| can(k)).count();
                        let latest = |keys: &mut dyn Iterator<Item = &u8>| keys.filter_map(|k| plain.0[k].1).max();
                        let candidates: Vec<u8> = plain.0.keys().filter(|k| can(k)).copied().collect();
                        fast.spill(count);
                        let gone = away.borrow().states.len() - before;
                        prop_assert_eq!((gone, fast.held()), (count.min(most), held - gone));
                        // Nobody stays who has to go a minute before one that went.
                        let went = candidates.iter().filter(|k| away.borrow().states.contains_key(k));
                        let stayed = candidates.iter().filter(|k| !away.borrow().states.contains_key(k));
                        if let (Some(last), Some(first)) =
                            (latest(&mut went.into_iter()), stayed.filter_map(|k| plain.0[k].1).min())
                        {
                            prop_assert!(last / 60 <= first / 60, "{} went before {}", last, first);
                        }
                    }
                }
                prop_assert_eq!(fast.len(), plain.0.len());
                for k in 0..40 {
                    let away = away.borrow().states.get(&k).map(|(s, _)| *s);
                    prop_assert_eq!(fast.get(&k).copied().or(away), plain.0.get(&k).map(|(s, _)| *s));
                }
            }
            let mut all = Vec::new();
            fast.each(&mut |k, s| all.push((*k, *s)));
            all.sort_unstable();
            prop_assert_eq!(all, plain.0.into_iter().map(|(k, (s, _))| (k, s)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn deadlines_out_of_range_keep_a_state_longer_never_shorter() {
        let mut states = KeyedState::<u8, ()>::default();
        *states.entry(&1, Some(EventTime(i64::MAX))) = Some(());
        *states.entry(&2, Some(EventTime(-5))) = Some(());
        let mut over = Vec::new();
        states.expire(EventTime(-1), &mut |k, ()| over.push(*k));
        states.expire(EventTime::LATEST, &mut |k, ()| over.push(*k));
        assert_eq!(over, [2]);
        states.expire(EventTime::MAX, &mut |k, ()| over.push(*k));
        assert_eq!(over, [2, 1]);
    }
}
