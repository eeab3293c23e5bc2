//! One title in one segment: what is remembered of its tallies.
//!
//! Epochs that may still grow are kept as they are, absolute; what has left that window is folded
//! into sums. So everything here is a function of the final tallies, whatever order they came in,
//! and applying a row twice changes nothing.

use crate::hours::Hours;
use crate::lift::{Level, Rising};
use crate::memory::{MEMORIES, Scores, TITLE_FORGETTING};
use crate::options::{Exposure, Options};
use crate::rate::{Evidence, Prior, discount};
use crate::special::neg_binomial_ln;

/// An epoch that may still grow: its row, absolute.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Open {
    pub(crate) epoch: i64,
    pub(crate) plays: u64,
    pub(crate) impressions: u64,
    /// The impressions as they weigh after position correction.
    pub(crate) effective: f64,
}

impl Open {
    /// Lets an impression weigh so much, or where that is not known as much as before; returns by how much the
    /// exposure has grown. `counted` are the impressions that are in it already.
    pub(crate) fn weigh(&mut self, weight: Option<f64>, counted: u64) -> f64 {
        let known = if counted > 0 { self.effective / counted as f64 } else { 1.0 };
        let effective = self.impressions as f64 * weight.unwrap_or(known);
        effective - std::mem::replace(&mut self.effective, effective)
    }
}

/// What a cell's epochs are read with.
pub(crate) struct Context<'a> {
    pub(crate) options: &'a Options,
    pub(crate) level: Level,
    pub(crate) hours: &'a Hours,
    pub(crate) prior: Prior,
    /// The same for the usual rate: what is usual in the parent, not what is so just now.
    pub(crate) usual: Prior,
    /// Up to this epoch nothing can be usual yet: the segment is too new.
    pub(crate) cold_until: i64,
    pub(crate) epoch: i64,
    /// How much of the current epoch has passed.
    pub(crate) part: f64,
}

impl Context<'_> {
    /// The first epoch of those that a rise is looked for in.
    pub(crate) fn window_from(&self) -> i64 {
        self.epoch - self.options.window_epochs()
    }

    /// The last epoch that cannot grow any more.
    pub(crate) fn settled_until(&self) -> i64 {
        self.epoch - self.options.open_epochs - 1
    }
}

/// Is told of an epoch, once, how well each half-life foretold it, relative to the best.
pub(crate) type Foretold<'a> = dyn FnMut(i64, [f64; MEMORIES]) + 'a;

/// Sums of the epochs that cannot grow any more.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Settled {
    /// As of which epoch; the one after is the first that is not in the sums.
    pub(crate) until: i64,
    /// The last epoch of which there is a row.
    pub(crate) last: i64,
    pub(crate) sums: [Evidence; MEMORIES],
    /// Impressions by squared discounts of the longest memory: the variance of its plays.
    pub(crate) squared: f64,
    pub(crate) usual: Evidence,
    pub(crate) scores: Scores,
    pub(crate) rising: Rising,
}

/// What a cell says now.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct View {
    pub(crate) now: Settled,
    /// Plays and what was expected of the last epochs.
    pub(crate) recent_plays: f64,
    pub(crate) recent_expected: f64,
    /// Epochs at one height out of nowhere, as no audience makes.
    pub(crate) flat_epochs: u32,
    /// The first epoch that said nothing of what is usual.
    pub(crate) window_from: i64,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Cell {
    pub(crate) settled: Settled,
    pub(crate) open: Vec<Open>,
    pub(crate) view: View,
}

impl Cell {
    pub(crate) fn new(epoch: i64) -> Self {
        let settled = Settled { until: epoch - 1, last: epoch, ..Settled::default() };
        Self { settled, open: Vec::new(), view: View::default() }
    }

    /// Puts a row's absolute values, an impression weighing `weight`; returns by how much plays and exposure
    /// have grown, if anything says something new.
    pub(crate) fn put(
        &mut self,
        epoch: i64,
        plays: u64,
        impressions: u64,
        weight: Option<f64>,
    ) -> Option<(f64, f64)> {
        let at = self.open.partition_point(|open| open.epoch < epoch);
        if self.open.get(at).is_none_or(|open| open.epoch != epoch) {
            self.open.insert(at, Open { epoch, plays: 0, impressions: 0, effective: 0.0 });
        }
        let open = &mut self.open[at];
        let grown = (plays.saturating_sub(open.plays), impressions.saturating_sub(open.impressions));
        open.plays += grown.0;
        open.impressions += grown.1;
        let exposed = open.weigh(weight, open.impressions - grown.1);
        (grown != (0, 0) || exposed != 0.0).then_some((grown.0 as f64, exposed))
    }

    /// Whether it has epochs that cannot grow any more as of `settled_until`, or that say what is usual since the window
    /// begins at `window_from`.
    pub(crate) fn is_due(&self, settled_until: i64, window_from: i64) -> bool {
        let newly_usual = self.view.window_from..window_from;
        self.open.first().is_some_and(|open| open.epoch <= settled_until)
            || self.open.iter().any(|open| newly_usual.contains(&open.epoch))
    }

    /// Whether there was no row for so long that it is as one that was never seen, and whatever row may still come of
    /// it is of a new one.
    pub(crate) fn is_forgotten(&self, settled_until: i64, options: &Options) -> bool {
        self.open.is_empty() && settled_until - self.view.now.last > options.forget_epochs()
    }

    /// The plays of an epoch that may still grow.
    pub(crate) fn plays_in(&self, epoch: i64) -> u64 {
        self.open.iter().find(|open| open.epoch == epoch).map_or(0, |open| open.plays)
    }

    /// Folds what cannot grow any more into the sums and looks at the rest. `foretold` is told of each epoch that
    /// is folded how well the half-lives foretold it.
    pub(crate) fn look(&mut self, context: &Context, foretold: &mut Foretold<'_>) {
        let settle_until = context.settled_until();
        let done = self.open.partition_point(|open| open.epoch <= settle_until);
        let closed: Vec<Open> = self.open.drain(..done).collect();
        let mut settled = self.settled;
        fold(&mut settled, &closed, settle_until, context, Some(foretold), &mut View::default());
        self.settled = settled;
        let mut view = View { now: settled, window_from: context.window_from(), ..View::default() };
        let mut now = settled;
        fold(&mut now, &self.open, context.epoch, context, None, &mut view);
        // What was shown to nobody for so long is not rising.
        if context.epoch - now.until > context.options.lift_epochs {
            now.rising = Rising::default();
        }
        view.now = now;
        view.flat_epochs = flat(&self.open, context, now.usual, context.usual);
        self.view = view;
    }

    /// Sums as of `epoch`, at which nothing new may have come.
    pub(crate) fn sums_at(&self, epoch: i64, options: &Options) -> [Evidence; MEMORIES] {
        let now = &self.view.now;
        let hours = options.epoch_length.ms() as f64 / 3_600_000.0;
        let ticks = (epoch - now.until).max(0);
        std::array::from_fn(|j| now.sums[j].times(discount(options.half_lives_hours[j], hours, ticks)))
    }
}

/// Takes the epochs after `sums.until` up to `until`. Without impressions every epoch exposes, also one
/// in which nothing was played; with them, only what has a row does.
fn fold(
    sums: &mut Settled,
    open: &[Open],
    until: i64,
    context: &Context,
    mut foretold: Option<&mut Foretold<'_>>,
    view: &mut View,
) {
    let options = context.options;
    let hours = options.epoch_length.ms() as f64 / 3_600_000.0;
    let mut rows = open.iter().peekable();
    while sums.until < until {
        let next = rows.peek().map_or(until, |row| row.epoch);
        let by_time = options.exposure == Exposure::Epochs;
        // Beyond four weeks of silence nothing is left to be said of each silent epoch.
        let gap_max = if by_time { 4 * 7 * 24 * 3_600_000 / options.epoch_length.ms() } else { 1 };
        let from = sums.until + 1;
        let epoch = if by_time { from.max(next - gap_max) } else { next };
        let row = rows.next_if(|row| row.epoch == epoch);
        let ticks = epoch - sums.until;
        if row.is_some() {
            // Whether it was let go of meanwhile or not makes no difference.
            if epoch - sums.last > options.forget_epochs() {
                *sums = Settled { until: sums.until, ..Settled::default() };
            }
            sums.last = epoch;
        }
        if ticks > options.lift_epochs {
            sums.rising = Rising::default();
        }
        let part = if epoch == context.epoch { context.part } else { 1.0 };
        let plays = row.map_or(0.0, |row| row.plays as f64);
        let shown = if by_time { part } else { row.map_or(0.0, |row| row.effective) };
        sums.until = epoch;
        let factor = context.hours.factor(options.epoch_length.start(uptake_model::Epoch(epoch)).0);
        let decays: [f64; MEMORIES] =
            std::array::from_fn(|j| discount(options.half_lives_hours[j], hours, ticks));
        let before: [Evidence; MEMORIES] = std::array::from_fn(|j| sums.sums[j].times(decays[j]));
        if shown > 0.0 {
            let scores = std::array::from_fn(|j| {
                let prior = context.prior.with(before[j]);
                neg_binomial_ln(plays, shown, prior.shape, prior.whole)
            });
            let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let relative = scores.map(|score: f64| score - best);
            sums.scores.tick(TITLE_FORGETTING, relative);
            if let Some(tell) = foretold.as_deref_mut() {
                tell(epoch, relative);
            }
        }
        for (j, sum) in sums.sums.iter_mut().enumerate() {
            sum.tick(decays[j], plays, shown);
        }
        let longest = decays[MEMORIES - 1];
        sums.squared = sums.squared * longest * longest + shown;
        // What was to be expected: the usual rate and a deviation, so that little knowledge is not
        // taken for a low rate.
        let usual = context.usual.with(sums.usual);
        let expected = shown * usual.rate * factor;
        let careful = shown * (usual.rate + usual.sd) * factor;
        if shown > 0.0 && epoch > context.cold_until {
            let is_over = epoch < context.epoch || context.part >= 1.0;
            sums.rising.step(plays, careful, options.evenness, is_over, &context.level);
        }
        // What was before a rise does not dilute it.
        if sums.rising.epochs == 1 {
            (view.recent_plays, view.recent_expected) = (0.0, 0.0);
        }
        if epoch > context.epoch - options.lift_epochs {
            view.recent_plays += plays;
            view.recent_expected += expected;
        }
        let decay = discount(options.baseline_half_life_hours, hours, ticks);
        let weight = if sums.rising.flagged { options.rising_weight } else { 1.0 };
        // An epoch of the window is judged by what was usual before the window.
        if epoch < context.window_from() {
            sums.usual.tick(decay, weight * plays, weight * shown * factor);
        }
        if rows.peek().is_none() && !by_time {
            break;
        }
    }
}

/// The last whole epochs in which a title stands at one height that no audience keeps: within 6 % of
/// their mean, at least 200 plays and ten times the usual for its exposure each. What stands in a row is
/// shown evenly and so is played evenly: height alone tells nobody from a robot.
fn flat(open: &[Open], context: &Context, usual: Evidence, prior: Prior) -> u32 {
    let usual = prior.with(usual).rate;
    let high = |row: &&Open| {
        let exposure = match context.options.exposure {
            Exposure::Epochs => 1.0,
            Exposure::Impressions => row.effective,
        };
        row.plays >= 200 && row.plays as f64 > 10.0 * usual * exposure
    };
    let whole = open.iter().rev().filter(|row| row.epoch < context.epoch);
    let run: Vec<f64> = whole.take_while(high).map(|row| row.plays as f64).collect();
    // The first and the last may be cut off by the epoch's bounds.
    let mut best = 0;
    for n in 3..=run.len() {
        let mean = run[..n].iter().sum::<f64>() / n as f64;
        if run[..n].iter().all(|plays| (plays / mean - 1.0).abs() < 0.06) {
            best = n;
        }
    }
    best as u32
}
