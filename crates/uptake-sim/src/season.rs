//! Four weeks in which things happened: how often real films and series were looked up, hour by hour.
//!
//! From 14 February to 13 March 2012: an awards night, premieres, weekly episodes, releases, and a robot. The
//! numbers are page views of Wikipedia (in the public domain), made into `data/season.csv` by the script beside it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use crate::world::HOUR;

/// A film or a series, with what is known of the interest in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Show {
    /// The video id in the events.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Whether it is a series.
    pub is_series: bool,
    /// The year it came out, where it is known.
    pub year: Option<u16>,
    /// Its genres, with | between.
    pub genres: &'static str,
    /// Whether what looked it up was a program, most likely: people had no interest in it.
    pub is_robots: bool,
    /// How often it was looked up in each hour of the season; 0 where it was not among the first.
    views: Vec<u32>,
}

/// A moment worth seeing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moment {
    /// How it is asked for.
    pub name: Cow<'static, str>,
    /// What happens.
    pub what: Cow<'static, str>,
    /// Where to begin, in milliseconds since 1970 UTC: an hour or two before.
    pub at_ms: i64,
}

impl Moment {
    const fn known(name: &'static str, what: &'static str, at_ms: i64) -> Self {
        Self { name: Cow::Borrowed(name), what: Cow::Borrowed(what), at_ms }
    }
}

/// The season.
#[derive(Debug)]
pub struct Season {
    shows: Vec<Show>,
    by_id: HashMap<&'static str, u16>,
}

/// Views of an hour below which a title is not among the first: what the others are taken to have.
const UNLISTED: f64 = 120.0;
/// With as many views in an hour, every second one who sees a title plays it.
const HALF_TAKE: f64 = 20_000.0;
/// Who plays whatever is there.
const TAKE_LEAST: f64 = 0.01;

impl Season {
    /// When the first hour begins: 2012-02-14T16:00Z.
    pub const FROM_MS: i64 = 1_329_235_200_000;
    /// How many hours there are.
    pub const HOURS: usize = 679;
    /// When the last hour ends.
    pub const UNTIL_MS: i64 = Self::FROM_MS + Self::HOURS as i64 * HOUR;
    /// What happens, in order.
    pub const MOMENTS: [Moment; 5] = [
        Moment::known("quiet", "a quiet Wednesday", 1_329_904_800_000),
        Moment::known("awards", "the awards night of 26 February", 1_330_300_800_000),
        Moment::known("premiere", "the premiere of GCB", 1_330_909_200_000),
        Moment::known("robot", "a robot takes to a title", 1_331_254_800_000),
        Moment::known("release", "John Carter comes to the cinemas", 1_331_283_600_000),
    ];

    /// The season as it was.
    ///
    /// ```
    /// use uptake_sim::Season;
    /// let season = Season::real();
    /// let hugo = season.find("Hugo").unwrap();
    /// let night = Season::MOMENTS[1].at_ms;
    /// assert!(season.views(hugo, night + 3 * 3_600_000) > 10.0 * season.views(hugo, night));
    /// ```
    pub fn real() -> &'static Self {
        static SEASON: OnceLock<Season> = OnceLock::new();
        SEASON.get_or_init(|| {
            let lines = include_str!("../data/season.csv").lines().skip(1);
            let shows: Vec<Show> = lines.filter_map(show).collect();
            let by_id = (0..).zip(&shows).map(|(n, show)| (show.id, n)).collect();
            Season { shows, by_id }
        })
    }

    /// All titles, those that were looked up most first.
    pub fn shows(&self) -> &[Show] {
        &self.shows
    }

    /// The place of a title among [`Season::shows`], by its id in the events.
    pub fn by_id(&self, id: &str) -> Option<u16> {
        self.by_id.get(id).copied()
    }

    /// The place of a title, by its name.
    pub fn find(&self, name: &str) -> Option<u16> {
        self.shows.iter().position(|show| show.name == name).map(|n| n as u16)
    }

    /// How often people look up a title, in views an hour. Between the middles of two hours it goes from one to
    /// the other; before and after the season it is as at its ends.
    pub fn views(&self, show: u16, at_ms: i64) -> f64 {
        let show = &self.shows[usize::from(show)];
        if show.is_robots {
            return UNLISTED;
        }
        let of = |hour: i64| {
            let hour = hour.clamp(0, Self::HOURS as i64 - 1) as usize;
            f64::from(show.views.get(hour).copied().unwrap_or(0)).max(UNLISTED)
        };
        let since = at_ms - Self::FROM_MS - HOUR / 2;
        let (hour, part) = (since.div_euclid(HOUR), since.rem_euclid(HOUR) as f64 / HOUR as f64);
        of(hour) * (1.0 - part) + of(hour + 1) * part
    }

    /// The chance that somebody who sees a title plays it.
    pub fn chance(&self, show: u16, at_ms: i64) -> f64 {
        let views = self.views(show, at_ms);
        TAKE_LEAST + (1.0 - TAKE_LEAST) * views / (views + HALF_TAKE)
    }

    /// How often programs ask for a title that is theirs, an hour.
    pub fn robots(&self, show: u16, at_ms: i64) -> u32 {
        let show = &self.shows[usize::from(show)];
        let hour = usize::try_from((at_ms - Self::FROM_MS).div_euclid(HOUR)).unwrap_or(usize::MAX);
        if show.is_robots { show.views.get(hour).copied().unwrap_or(0) } else { 0 }
    }

    /// The titles as a catalogue in CSV, as `rows.catalogue` reads it.
    pub fn catalogue(&self) -> String {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let mut text = "id,title,year,genres\n".to_owned();
        for show in &self.shows {
            let year = show.year.map_or(String::new(), |year| year.to_string());
            let genres = if show.is_series { "Series" } else { show.genres };
            text.push_str(&format!("{},{},{year},{}\n", show.id, quoted(show.name), quoted(genres)));
        }
        text
    }
}

/// A line of the file.
fn show(line: &'static str) -> Option<Show> {
    let (id, rest) = line.split_once(',')?;
    let (kind, rest) = rest.split_once(',')?;
    // A name may hold commas, in quotation marks; none holds a quotation mark.
    let (name, rest) = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once("\",")?,
        None => rest.split_once(',')?,
    };
    let mut fields = rest.split(',');
    let (year, genres) = (fields.next()?, fields.next()?);
    let (robot, cells) = (fields.next()?, fields.next()?);
    let mut views = Vec::with_capacity(Season::HOURS);
    for cell in cells.split(' ') {
        match cell.strip_prefix('*') {
            Some(hours) => views.resize(views.len() + hours.parse::<usize>().ok()?, 0),
            None => views.push(cell.parse().ok()?),
        }
    }
    let (is_series, is_robots) = (kind == "tv", robot == "robot");
    Some(Show { id, name, is_series, year: year.parse().ok(), genres, is_robots, views })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_whole() {
        let season = Season::real();
        assert_eq!(season.shows.len(), include_str!("../data/season.csv").lines().count() - 1);
        assert_eq!(season.by_id.len(), season.shows.len(), "no id twice");
        assert!(season.shows.iter().all(|show| show.views.len() == Season::HOURS));
        assert!(season.shows.iter().all(|show| !show.name.contains('"') && !show.name.is_empty()));
        assert_eq!(season.shows.iter().filter(|show| show.is_robots).count(), 1);
        assert_eq!(season.catalogue().lines().count(), season.shows.len() + 1);
    }

    #[test]
    fn what_happened_is_in_it() {
        let season = Season::real();
        let at = |moment: usize, hours: i64| Season::MOMENTS[moment].at_ms + hours * HOUR;
        for (name, at) in [("The Artist", at(1, 4)), ("Hugo", at(1, 2)), ("GCB", at(2, 2))] {
            let show = season.find(name).unwrap();
            assert!(season.chance(show, at) > 0.4 && season.chance(show, at - 12 * HOUR) < 0.2, "{name}");
        }
        let robot = season.shows.iter().position(|show| show.is_robots).unwrap() as u16;
        assert!(season.robots(robot, at(3, 3)) > 100_000 && season.robots(robot, at(1, 0)) == 0);
        assert!(season.chance(robot, at(3, 3)) < 0.02, "nobody wants it");
        assert!(Season::MOMENTS.is_sorted_by_key(|moment| moment.at_ms));
    }
}
