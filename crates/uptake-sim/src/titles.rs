//! The titles that are shown: 200 real films, by id.

use std::sync::OnceLock;

/// A film.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Title {
    /// The video id in the events.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The year it came out.
    pub year: u16,
    /// Its genres, with | between.
    pub genres: &'static str,
}

/// All titles, by id.
pub fn titles() -> &'static [Title] {
    static TITLES: OnceLock<Vec<Title>> = OnceLock::new();
    TITLES.get_or_init(|| include_str!("../data/titles.csv").lines().skip(1).filter_map(title).collect())
}

/// A line of the file; no field of it holds a comma.
fn title(line: &'static str) -> Option<Title> {
    let mut fields = line.trim_end().split(',');
    let (id, name, year, genres) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    Some(Title { id, name, year: year.parse().ok()?, genres })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_200_films() {
        assert_eq!(titles().len(), 200);
        assert!(titles().windows(2).all(|t| t[0].id < t[1].id), "sorted, and no id twice");
        assert!(titles().iter().all(|t| (1970..2024).contains(&t.year) && t.id.len() == 6));
        assert!(titles().iter().any(|t| t.name == "The Artist" && t.year == 2011));
    }
}
