//! What must hold of the trends whatever comes: order, repeats, unfinished epochs, people's rules.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::sync::Arc;

use proptest::prelude::*;
use uptake_model::segment::{CAPPED, MEMBERS};
use uptake_model::tally::Counts;
use uptake_model::{Epoch, EpochLength, EventTime, TallyRow};
use uptake_trends::catalogue::Title;
use uptake_trends::explore::{Random, draw, shares};
use uptake_trends::lift::{Level, Rising};
use uptake_trends::rate::{Evidence, Prior};
use uptake_trends::robots::Suspicion;
use uptake_trends::rows::{Choice, Lacks, candidates};
use uptake_trends::rules::{Action, Rule};
use uptake_trends::why::why;
use uptake_trends::{Catalogue, Exposure, Options, RowName, RowOptions, Rules, Shelf, Trends};

fn row(video: &str, segment: &str, epoch: i64, plays: u64, impressions: u64) -> TallyRow {
    TallyRow {
        video_id: video.into(),
        segment: segment.into(),
        epoch: Epoch(epoch),
        counts: Counts { plays, impressions, exact: true },
        sealed: false,
        sets: None,
    }
}

fn end(epoch: i64) -> EventTime {
    EpochLength::default().end(Epoch(epoch))
}

/// All that can be asked of it, as text.
fn state(trends: &Trends) -> String {
    let segments: Vec<String> = trends.segments().map(str::to_owned).collect();
    segments.iter().map(|s| format!("{s} {:?}\n", trends.ranked(s, |n| n.estimate.rate))).collect()
}

proptest! {
    #[test]
    fn neither_order_nor_repeats_within_a_tick_matter(
        cells in proptest::collection::vec((0..6u8, 0..3u8, 0..5i64, 0..40u64, 0..400u64), 1..60),
        shuffled in any::<u64>(),
    ) {
        let segments = ["", "country=BR", "country=BR,device=tv"];
        let of = |(v, s, e, p, i): &(u8, u8, i64, u64, u64)| {
            row(&format!("v{v}"), segments[usize::from(*s)], 1000 + e, *p, *p + *i)
        };
        let (mut forth, mut back) = (Trends::new(Options::default()), Trends::new(Options::default()));
        for tick in 0..3i64 {
            let due: Vec<_> = cells.iter().filter(|cell| cell.2 % 3 <= tick).collect();
            due.iter().for_each(|cell| forth.ingest(&of(cell)));
            let mut other = due.clone();
            let mut random = Random::new(shuffled);
            other.sort_by_cached_key(|_| (random.unit() * 1e9) as u64);
            other.iter().chain(other.iter().take(7)).for_each(|cell| back.ingest(&of(cell)));
            let now = end(1002 + tick);
            prop_assert_eq!(forth.refresh(now), back.refresh(now));
            prop_assert_eq!(state(&forth), state(&back));
            // The same rows once more: nothing.
            due.iter().for_each(|cell| forth.ingest(&of(cell)));
            prop_assert_eq!(forth.refresh(now).changed, 0);
            prop_assert_eq!(state(&forth), state(&back));
        }
    }
}

/// A title at 5 % for days, in company.
fn steady(options: Options, epochs: i64) -> Trends {
    let mut trends = Trends::new(options);
    for epoch in 1000..1000 + epochs {
        for title in 0..20 {
            trends.ingest(&row(&format!("v{title:02}"), "", epoch, 50, 1000));
        }
        trends.refresh(end(epoch));
    }
    trends
}

#[test]
fn in_a_new_segment_nothing_rises_before_anything_can_be_usual() {
    // Fifty titles that differ by far in how they are played, from the first epoch on, and never change.
    let play = |title: u64| 4 + 3 * title;
    let mut trends = Trends::new(Options::default());
    let mut ever = Vec::new();
    for epoch in 0..60 {
        for title in 0..50 {
            trends.ingest(&row(&format!("v{title}"), "", epoch, play(title), 400));
        }
        trends.refresh(end(epoch));
        ever.extend(trends.rising("").into_iter().map(|numbers| (epoch, numbers.video)));
    }
    assert!(ever.is_empty(), "{ever:?}");
    // What rises then is told as soon as ever.
    trends.ingest(&row("v1", "", 60, 60, 400));
    trends.refresh(end(60));
    assert_eq!(trends.rising("").len(), 1);
}

#[test]
fn an_unfinished_epoch_is_no_fall() {
    let mut trends = steady(Options::default(), 60);
    let before = trends.numbers("v05", "").unwrap();
    trends.ingest(&row("v05", "", 1060, 5, 100));
    trends.refresh(end(1059).plus(180_000));
    let now = trends.numbers("v05", "").unwrap();
    assert!((now.estimate.rate / before.estimate.rate - 1.0).abs() < 0.03, "{now:?}");
    assert!((now.lift - 1.0).abs() < 0.1, "{now:?}");
    // The same of a stream without impressions: 5 plays in a tenth of an epoch are 50 an epoch.
    let mut trends = steady(Options { exposure: Exposure::Epochs, ..Options::default() }, 60);
    trends.ingest(&row("v05", "", 1060, 5, 0));
    trends.refresh(end(1059).plus(180_000));
    let now = trends.numbers("v05", "").unwrap();
    assert!((now.estimate.rate / 50.0 - 1.0).abs() < 0.05 && (now.lift - 1.0).abs() < 0.1, "{now:?}");
}

#[test]
fn a_burst_is_flagged_while_its_epoch_lasts_and_ends() {
    let mut trends = steady(Options::default(), 60);
    assert!(trends.rising("").is_empty());
    trends.ingest(&row("v05", "", 1060, 60, 300));
    trends.refresh(end(1059).plus(600_000));
    let rising = trends.rising("");
    assert_eq!(rising.iter().map(|n| &*n.video).collect::<Vec<_>>(), ["v05"]);
    assert!(rising[0].lift_lower > 1.5, "{rising:?}");
    for epoch in 1061..1064 {
        (0..20).for_each(|title| trends.ingest(&row(&format!("v{title:02}"), "", epoch, 50, 1000)));
        trends.refresh(end(epoch));
    }
    assert!(trends.rising("").is_empty(), "it is as usual again");
}

/// What has just begun, with a few impressions and no play yet, ends no rise; a whole epoch at rest does.
#[test]
fn an_epoch_that_has_just_begun_ends_no_rise() {
    let rising = |trends: &Trends| trends.rising("").iter().map(|n| n.video.to_string()).collect::<Vec<_>>();
    let mut trends = steady(Options::default(), 60);
    trends.ingest(&row("v05", "", 1060, 300, 1000));
    trends.refresh(end(1060));
    assert_eq!(rising(&trends), ["v05"]);
    trends.ingest(&row("v05", "", 1061, 0, 20));
    trends.refresh(end(1060).plus(20_000));
    assert_eq!(rising(&trends), ["v05"]);
    trends.ingest(&row("v05", "", 1061, 50, 1000));
    trends.refresh(end(1061).plus(-1));
    assert_eq!(rising(&trends), ["v05"], "the epoch is still going on");
    trends.refresh(end(1061).plus(1));
    assert!(rising(&trends).is_empty());
    // Without impressions a new epoch has no play of any title when it begins.
    let mut trends = steady(Options { exposure: Exposure::Epochs, ..Options::default() }, 60);
    trends.ingest(&row("v05", "", 1060, 300, 0));
    trends.refresh(end(1060));
    trends.refresh(end(1060).plus(60_000));
    assert_eq!(rising(&trends), ["v05"]);
    trends.refresh(end(1061).plus(60_000));
    assert!(rising(&trends).is_empty());
}

/// The rate of a title follows the recursion α ← δα + P, γ ← δγ + I with each half-life.
#[test]
fn the_sums_are_those_of_the_formula() {
    let options = Options { half_lives_hours: [0.5; 4], ..Options::default() };
    let mut trends = Trends::new(options);
    let (mut plain, seen) = (Evidence::default(), [(3, 90), (0, 40), (7, 120), (2, 10)]);
    for (epoch, (plays, impressions)) in (1000..).zip(seen) {
        trends.ingest(&row("v1", "", epoch, plays, impressions));
        trends.ingest(&row("v2", "", epoch, 1, 10));
        trends.refresh(end(epoch));
        plain.tick(0.5, plays as f64, impressions as f64);
    }
    let numbers = trends.numbers("v1", "").unwrap();
    assert!((numbers.plays - plain.plays).abs() < 1e-12 && (numbers.evidence - plain.shown).abs() < 1e-12);
    let estimate = trends.segment_prior("").unwrap().with(plain);
    assert!((numbers.estimate.rate - estimate.rate).abs() < 1e-12, "{numbers:?} {estimate:?}");
    assert!((numbers.estimate.sd - estimate.sd).abs() < 1e-9);
}

#[test]
fn a_small_group_leans_on_the_larger_one() {
    let mut trends = steady(Options::default(), 20);
    trends.ingest(&row("v05", "country=BR", 1020, 0, 3));
    trends.ingest(&row("v06", "country=BR", 1020, 4, 80));
    trends.refresh(end(1020));
    let small = trends.numbers("v05", "country=BR").unwrap();
    let parent = trends.numbers("v05", "").unwrap().estimate.rate;
    assert_eq!(trends.parent_of("country=BR"), Some(""));
    assert!((small.prior.mean / parent - 1.0).abs() < 1e-12, "{small:?} {parent}");
    assert!(small.estimate.rate > 0.8 * parent, "three without a play say little");
}

/// A segment between two others that is kept only later is leant on from then on.
#[test]
fn a_segment_that_comes_later_is_leant_on() {
    let mut trends = steady(Options::default(), 20);
    trends.ingest(&row("v05", "country=BR,device=tv", 1020, 0, 3));
    trends.refresh(end(1020));
    for title in 0..20 {
        trends.ingest(&row(&format!("v{title:02}"), "country=BR", 1021, 300, 1000));
    }
    trends.refresh(end(1021));
    assert_eq!(trends.parent_of("country=BR,device=tv"), Some("country=BR"));
    let [small, parent] = ["country=BR,device=tv", "country=BR"].map(|of| trends.numbers("v05", of).unwrap());
    assert!((small.prior.mean / parent.estimate.rate - 1.0).abs() < 1e-12, "{small:?} {parent:?}");
}

/// At rest, at most one false alarm in 1/level epochs; here 200 titles for 400 epochs at 1/100.
#[test]
fn false_alarms_keep_to_the_level() {
    let level = Level { ln_threshold: 100.0f64.ln(), lift_min: 1.0, lift_end: 1.1 };
    let mut random = Random::new(5);
    let mut alarms = 0;
    for _ in 0..200 {
        let mut rising = Rising::default();
        for _ in 0..400 {
            // Poisson with mean 8 as a sum of exponential waits.
            let (mut plays, mut wait) = (0.0, -random.unit().ln());
            while wait < 8.0 {
                plays += 1.0;
                wait -= random.unit().ln();
            }
            rising.step(plays, 8.0, f64::INFINITY, true, &level);
            if rising.flagged {
                alarms += 1;
                rising = Rising::default();
            }
        }
    }
    assert!(alarms <= 800, "{alarms} of 80,000 epochs");
    assert!(alarms > 0, "a test that never alarms at 1/100 does not test");
}

fn shelf(trends: &Trends, row: RowName, rules: &Rules, catalogue: &Catalogue, options: &RowOptions) -> Shelf {
    let mut shelf = Shelf::default();
    let choice = Choice { options, rules, catalogue, now: EventTime(1) };
    shelf.update(row, "", candidates(trends, row, ""), &choice);
    shelf
}

fn names(shelf: &Shelf) -> Vec<&str> {
    shelf.placed().iter().map(|placed| &*placed.video).collect()
}

#[test]
fn people_have_the_last_word() {
    let mut trends = Trends::new(Options::default());
    for (title, plays) in [("a", 90), ("b", 80), ("c", 70), ("d", 60), ("e", 50)] {
        trends.ingest(&row(title, "", 1000, plays, 1000));
    }
    trends.refresh(end(1000));
    let rule = |video: &str, action| Rule {
        id: video.into(),
        action,
        video_id: video.into(),
        row: None,
        segment: None,
        position: (action == Action::Pin).then_some(1),
        factor: (action == Action::Boost).then_some(2.0),
        expires_at: None,
        note: None,
    };
    let (mut rules, options) = (Rules::default(), RowOptions { places: 3, ..RowOptions::default() });
    let titles = |franchise: &str, ids: &[&str]| -> Vec<Title> {
        let title =
            |id: &&str| Title { id: id.to_string(), franchise: Some(franchise.into()), ..Title::default() };
        ids.iter().map(title).collect()
    };
    let catalogue = Catalogue::new(titles("saga", &["b", "c"]));
    let shelf_of = |rules: &Rules| shelf(&trends, RowName::Popular, rules, &catalogue, &options);
    let first = shelf_of(&rules);
    assert_eq!(names(&first), ["a", "b", "d"], "one place for a franchise");
    assert!(matches!(first.left_out("c"), Some(Lacks::Capped { .. })));
    rules.set(rule("a", Action::Block));
    rules.set(rule("e", Action::Pin));
    rules.set(rule("c", Action::Boost));
    let second = shelf_of(&rules);
    assert_eq!(names(&second), ["e", "c", "d"]);
    assert_eq!(second.left_out("a"), Some(&Lacks::Blocked));
    let choice = Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(1) };
    let answer = why(&trends, &second, RowName::Popular, "", "a", &choice);
    assert!(answer.to_string().contains("a person blocked it"), "{answer}");
    let back: uptake_trends::why::Why =
        serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap();
    assert_eq!(back, answer);
    // Blocked comes before what it lacks besides: it is not rising either.
    let why_of = |row, video: &str| why(&trends, &Shelf::default(), row, "", video, &choice).to_string();
    let answer = why_of(RowName::Trending, "a");
    assert!(answer.contains("a person blocked it"), "{answer}");
    let answer = why(&trends, &second, RowName::Popular, "", "c", &choice);
    assert_eq!((answer.boost, answer.score), (2.0, Some(140.0)));
    assert!(answer.to_string().contains("multiply its score by 2"), "{answer}");
    // Of a premiere that is pinned nothing was counted yet.
    rules.set(rule("new", Action::Pin));
    let third = shelf_of(&rules);
    let choice = Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(1) };
    let answer = why(&trends, &third, RowName::Popular, "", "new", &choice);
    assert_eq!((answer.place, answer.pinned, answer.counted.is_some()), (Some(1), true, false));
    assert!(answer.to_string().ends_with("Nothing was counted of it in this segment."), "{answer}");
    let back: uptake_trends::why::Why =
        serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap();
    assert_eq!(back, answer);
    // Pins have all places: whatever a title's rank, none is left.
    rules.set(rule("d", Action::Pin));
    let full = shelf_of(&rules);
    assert_eq!((names(&full).len(), full.left_out("c")), (3, Some(&Lacks::Pinned)));
}

#[test]
fn what_few_members_push_does_not_enter() {
    let mut trends = steady(Options::default(), 60);
    trends.ingest(&row("v05", "", 1060, 400, 1000));
    // 400 plays that name a member, by 4 of them.
    trends.ingest(&row("v05", MEMBERS, 1060, 4, 400));
    trends.refresh(end(1060));
    let (rules, catalogue, options) = (Rules::default(), Catalogue::default(), RowOptions::default());
    let shelf = shelf(&trends, RowName::Trending, &rules, &catalogue, &options);
    assert!(names(&shelf).is_empty());
    let choice = Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(1) };
    let answer = why(&trends, &shelf, RowName::Trending, "", "v05", &choice);
    assert!(answer.to_string().contains("only 4 members"), "{answer}");
}

/// Somebody sends a few requests beyond the caps, or a few plays of two members, of a title that thousands play.
#[test]
fn a_few_requests_take_no_title_out_of_the_rows() {
    let mut trends = steady(Options::default(), 60);
    let suspicion = |trends: &Trends| trends.numbers("v05", "").unwrap().suspicion;
    trends.ingest(&row("v05", "", 1060, 4_000, 10_000));
    trends.ingest(&row("v05", CAPPED, 1060, 5, 0));
    trends.ingest(&row("v05", MEMBERS, 1060, 2, 20));
    trends.refresh(end(1060));
    assert_eq!(suspicion(&trends), None);
    // Where those are a quarter of all, they make it.
    trends.ingest(&row("v05", CAPPED, 1060, 1_400, 0));
    trends.refresh(end(1060));
    assert!(matches!(suspicion(&trends), Some(Suspicion::BeyondCaps { part }) if (part - 0.26).abs() < 0.01));
}

/// What the half-lives of a segment are weighed by does not depend on which titles come last.
#[test]
fn a_segment_learns_from_all_titles_of_an_epoch_alike() {
    // Half of the titles are played evenly, half in fits and starts.
    let memories = |steady_first: bool| {
        let mut trends = Trends::new(Options::default());
        for epoch in 1000..1060i64 {
            for title in 0..400i64 {
                let is_steady = (title < 200) == steady_first;
                let plays = if is_steady || epoch / 3 % 2 == 0 { 50 } else { 5 };
                trends.ingest(&row(&format!("v{title:03}"), "", epoch, plays, 1000));
            }
            trends.refresh(end(epoch));
        }
        trends.ingest(&row("new", "", 1060, 1, 20));
        trends.refresh(end(1060));
        trends.numbers("new", "").unwrap().memories
    };
    for (forth, back) in memories(true).into_iter().zip(memories(false)) {
        assert!((forth - back).abs() < 1e-6, "{forth} {back}");
    }
}

/// Who looks at the third place is one in four of those who look at the first. The best titles are stuck at the
/// third, so that by what was played of what was shown the worst seem the best; a few titles that change places
/// tell the factors.
#[test]
fn rates_are_corrected_for_the_places_where_titles_were_shown() {
    let worth = [1.0, 0.5, 0.25];
    let ranked = |with_places: bool| {
        let mut trends = Trends::new(Options::default());
        for epoch in 1000..1100i64 {
            for title in 0..12i64 {
                let place = match title {
                    0..4 => 0,
                    4..8 => 2,
                    _ => (title + epoch).rem_euclid(3),
                };
                let rate = if (4..8).contains(&title) { 0.08 } else { 0.04 };
                let plays = (2_000.0 * rate * worth[place as usize]) as u64;
                let video = format!("v{title:02}");
                trends.ingest(&row(&video, "", epoch, plays, 2_000));
                if with_places {
                    let segment = format!("row=home,position={}", place + 1);
                    trends.ingest(&row(&video, &segment, epoch, plays, 2_000));
                }
            }
            trends.refresh(end(epoch));
        }
        assert_eq!(trends.segments().collect::<Vec<_>>(), [""], "a place is no group of members");
        let ranked = trends.ranked("", |numbers| numbers.estimate.rate);
        ranked.into_iter().map(|(rate, numbers)| (numbers.video.to_string(), rate)).collect::<Vec<_>>()
    };
    let best = |ranked: &[(String, f64)]| {
        let mut best: Vec<String> = ranked[..4].iter().map(|(video, _)| video.clone()).collect();
        best.sort();
        best
    };
    assert_eq!(best(&ranked(false)), ["v00", "v01", "v02", "v03"]);
    let corrected = ranked(true);
    assert_eq!(best(&corrected), ["v04", "v05", "v06", "v07"]);
    let rate = |video: &str| corrected.iter().find(|(v, _)| v == video).unwrap().1;
    let ratio = rate("v04") / rate("v00");
    assert!(
        (1.65..2.1).contains(&ratio),
        "the true one is 2, without places it is a half, and all are drawn to the mean: {ratio}"
    );
}

#[test]
fn a_flat_series_out_of_nowhere_is_suspicious() {
    let options = Options { exposure: Exposure::Epochs, ..Options::default() };
    let mut trends = steady(options, 60);
    for epoch in 1060..1064 {
        trends.ingest(&row("v05", "", epoch, 110_000 + (epoch as u64 % 3) * 900, 0));
        trends.ingest(&row("v06", "", epoch, 100_000 >> (epoch - 1060), 0));
        trends.refresh(end(epoch));
    }
    assert!(trends.numbers("v05", "").unwrap().suspicion.is_some());
    assert_eq!(trends.numbers("v06", "").unwrap().suspicion, None, "a burst that fades is an audience");
    // In a row a title is shown evenly, and the more are shown it the more evenly it is played.
    let mut trends = steady(Options::default(), 60);
    for epoch in 1060..1064 {
        trends.ingest(&row("v05", "", epoch, 40_000, 400_000));
        trends.ingest(&row("v06", "", epoch, 4_000, 4_100));
        trends.refresh(end(epoch));
    }
    assert_eq!(trends.numbers("v05", "").unwrap().suspicion, None);
    assert!(trends.numbers("v06", "").unwrap().suspicion.is_some(), "all who were shown it play it");
}

#[test]
fn at_most_the_budget_is_pushed_out_at_once_and_a_fall_within_the_buffer_is_none() {
    let ranked = |from: u32| -> Vec<(f64, Arc<str>)> {
        (0..40).map(|i| (f64::from(100 - i), Arc::from(format!("t{:02}", (i + from) % 40)))).collect()
    };
    let options =
        RowOptions { places: 10, hysteresis: 3, entries_max: 2, franchise_max: 0, ..RowOptions::default() };
    let (rules, catalogue) = (Rules::default(), Catalogue::default());
    let at = |now| Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(now) };
    let choice = at(0);
    let mut shelf = Shelf::default();
    assert_eq!(shelf.update(RowName::Loved, "", ranked(0), &choice), 10);
    let before: Vec<String> = names(&shelf).iter().map(ToString::to_string).collect();
    assert_eq!(shelf.update(RowName::Loved, "", ranked(20), &choice), 2, "all ranks changed");
    let kept = names(&shelf).iter().filter(|name| before.contains(&name.to_string())).count();
    assert_eq!(kept, 8);
    // To look twice a second gives nobody more; when the time is over, the next two come.
    for now in [500, 1_000, 299_999] {
        assert_eq!(shelf.update(RowName::Loved, "", ranked(20), &at(now)), 0, "{now}");
    }
    assert_eq!(shelf.update(RowName::Loved, "", ranked(20), &at(300_000)), 2);
}

/// Ten series of ten episodes rank first, and one of each may stand in the row; what changes behind them moves its
/// other half all the same.
#[test]
fn caps_do_not_freeze_the_end_of_a_row() {
    let titles = (0..100).map(|n| Title {
        id: format!("s{}e{}", n / 10, n % 10),
        franchise: Some(format!("series {}", n / 10)),
        ..Title::default()
    });
    let catalogue = Catalogue::new(titles.collect());
    let (rules, options) = (Rules::default(), RowOptions::default());
    let ranked = |shift: u32| -> Vec<(f64, Arc<str>)> {
        let episodes = (0..100).map(|n| (f64::from(1_000 - n), Arc::from(format!("s{}e{}", n % 10, n / 10))));
        let others = (0..200).map(|n| (f64::from(500 - n), Arc::from(format!("t{:03}", (n + shift) % 200))));
        episodes.chain(others).collect()
    };
    let at = |now| Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(now) };
    let mut shelf = Shelf::default();
    shelf.update(RowName::Loved, "", ranked(0), &at(0));
    assert_eq!(names(&shelf)[10..], (0..10).map(|n| format!("t{n:03}")).collect::<Vec<_>>());
    // After it is all another order, three come in each time until those of the first ranks stand there.
    for n in 1..=4 {
        shelf.update(RowName::Loved, "", ranked(100), &at(n * 300_000));
    }
    assert_eq!(names(&shelf)[10..], (100..110).map(|n| format!("t{n}")).collect::<Vec<_>>());
    // The last that may enter is told as it is: nobody stands beyond K, or between K and K + h.
    assert_eq!(shelf.left_out("t110"), Some(&Lacks::Rank { has: 21, needs: 20 }));
    let mut order = ranked(100);
    order[..].iter_mut().filter(|(_, video)| &**video == "t108").for_each(|one| one.0 = 487.5);
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    shelf.update(RowName::Loved, "", order, &at(3_000_000));
    assert!(names(&shelf).contains(&"t108"), "it fell behind, and not far enough");
    assert_eq!(shelf.left_out("t110"), Some(&Lacks::Rank { has: 20, needs: 15 }));
}

/// Of a franchise the better title takes the place of the one that stands there, if it ranks far enough before it.
#[test]
fn a_better_part_of_a_franchise_takes_the_place_of_the_other() {
    let part = |id: &str| Title { id: id.into(), franchise: Some("saga".into()), ..Title::default() };
    let catalogue = Catalogue::new(vec![part("one"), part("two")]);
    let (rules, options) = (Rules::default(), RowOptions::default());
    let update = |shelf: &mut Shelf, first: usize, second: usize| {
        let mut order: Vec<Arc<str>> = (0..40).map(|n| Arc::from(format!("x{n:02}"))).collect();
        order.insert(first, "one".into());
        order.insert(second, "two".into());
        let ranked = order.into_iter().zip(0u32..).map(|(video, n)| (f64::from(100 - n), video));
        let choice =
            Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(1_000) };
        shelf.update(RowName::Loved, "", ranked.collect(), &choice);
        let names = names(shelf);
        assert_eq!(names.len(), 20);
        names.into_iter().filter(|name| !name.starts_with('x')).collect::<Vec<_>>().join(" ")
    };
    let mut shelf = Shelf::default();
    assert_eq!(update(&mut shelf, 3, 30), "one");
    assert_eq!(update(&mut shelf, 3, 1), "one", "a little better is not enough");
    assert!(matches!(shelf.left_out("two"), Some(Lacks::Capped { .. })));
    assert_eq!(update(&mut shelf, 15, 0), "two");
    assert!(matches!(shelf.left_out("one"), Some(Lacks::Capped { .. })));
    // When it falls out of the row, the place of its franchise is free at once for the other.
    assert_eq!(update(&mut shelf, 2, 39), "one");
}

#[test]
fn propensities_are_the_shares_of_the_draws() {
    let of = |plays, shown| Prior { mean: 0.05, weight: 20.0 }.with(Evidence { plays, shown });
    let all = [of(5.0, 100.0), of(6.0, 100.0), of(1.0, 100.0)];
    let mut drawn = [0.0f64; 3];
    let mut said = [0.0f64; 3];
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let shares = shares(&all, &mut random);
        let which = draw(&shares, random.unit()).unwrap();
        drawn[which] += 1.0 / 300.0;
        said[which] = shares[which];
    }
    for (drawn, said) in drawn.iter().zip(said) {
        assert!((drawn - said).abs() < 0.12, "{drawn} {said}");
    }
}

#[test]
fn rules_move_what_they_name_and_nothing_else() {
    use RowName::{Loved, Popular};
    let check = |given: &[&str], row: RowName, segment: &str, expected: &str| {
        let mut rules = Rules::default();
        for (n, rule) in given.iter().enumerate() {
            let rule = Rule { id: n.to_string(), ..serde_json::from_str(rule).unwrap() };
            rule.check().unwrap();
            rules.set(rule);
        }
        let options = RowOptions { places: 3, behind: 10, ..RowOptions::default() };
        let catalogue = Catalogue::default();
        let choice =
            Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(1_000) };
        let ranked = ["a", "b", "c", "d"].into_iter().zip([9.0, 8.0, 7.0, 6.0]);
        let mut shelf = Shelf::default();
        shelf.update(row, segment, ranked.map(|(video, score)| (score, video.into())).collect(), &choice);
        let line: Vec<&str> = shelf.placed().iter().chain(shelf.behind()).map(|p| &*p.video).collect();
        assert_eq!(line.join(" "), expected, "{given:?}");
        assert_eq!(shelf.placed().len(), 3, "{given:?}");
    };
    check(&[], Popular, "", "a b c d");
    check(&[r#"{"action":"pin","video_id":"d","position":2}"#], Popular, "", "a d b c");
    check(&[r#"{"action":"pin","video_id":"z","position":1}"#], Popular, "", "z a b c d");
    check(&[r#"{"action":"pin","video_id":"z","position":5}"#], Popular, "", "a b c d z");
    check(&[r#"{"action":"pin","video_id":"z","position":4}"#], Popular, "", "a b c z d");
    check(&[r#"{"action":"block","video_id":"a"}"#], Popular, "", "b c d");
    check(&[r#"{"action":"boost","video_id":"d","factor":1.4}"#], Popular, "", "a d b c");
    check(&[r#"{"action":"block","video_id":"a","expires_at":1000}"#], Popular, "", "a b c d");
    check(&[r#"{"action":"block","video_id":"a","row":"loved"}"#], Popular, "", "a b c d");
    check(&[r#"{"action":"block","video_id":"a","row":"loved"}"#], Loved, "", "b c d");
    check(&[r#"{"action":"block","video_id":"a","segment":"country=BR"}"#], Loved, "", "a b c d");
    let both = [r#"{"action":"block","video_id":"a"}"#, r#"{"action":"pin","video_id":"a","position":1}"#];
    check(&both, Popular, "", "b c d");
}

#[test]
fn what_can_be_no_rule_is_refused() {
    for rule in [
        r#"{"action":"pin","video_id":"a"}"#,
        r#"{"action":"pin","video_id":"a","position":0}"#,
        r#"{"action":"boost","video_id":"a","factor":1e9}"#,
        r#"{"action":"block","video_id":""}"#,
    ] {
        assert!(serde_json::from_str::<Rule>(rule).unwrap().check().is_err(), "{rule}");
    }
    for text in
        [r#"{"action":"block","video_id":"a","x":1}"#, r#"{"action":"block","video_id":"a","row":"other"}"#]
    {
        assert!(serde_json::from_str::<Rule>(text).is_err(), "{text}");
    }
}
