//! The catalogue: what is known of the titles. Reading files is left to others; the text of one is
//! understood here.
//!
//! CSV has a header with `id` and any of `title`, `year`, `genres` (`|` between), `franchise`,
//! `available_from_ms`, `available_to_ms`; other columns are passed over. JSON is an array of objects
//! with the same names, `genres` being an array.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uptake_model::EventTime;

/// A title.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Title {
    /// The video id of the events.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// The year it came out.
    pub year: Option<i32>,
    /// Its genres; in a file also as one text, with | between.
    #[serde(deserialize_with = "genres")]
    pub genres: Vec<String>,
    /// What it is a part of.
    pub franchise: Option<String>,
    /// From when on it may be shown.
    pub available_from_ms: Option<i64>,
    /// From when on no more.
    pub available_to_ms: Option<i64>,
}

/// A list, or a text with | between, or nothing.
fn genres<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Genres {
        Of(Vec<String>),
        Text(String),
        None(()),
    }
    Ok(match Genres::deserialize(from)? {
        Genres::Of(genres) => genres,
        Genres::Text(text) => text.split('|').filter(|genre| !genre.is_empty()).map(str::to_owned).collect(),
        Genres::None(()) => Vec::new(),
    })
}

/// Titles by id.
///
/// ```
/// use uptake_model::EventTime;
/// use uptake_trends::Catalogue;
/// let text = "id,title,year,genres,available_to_ms\nv1,\"Love, Actually\",2003,Comedy|Romance,5000\n";
/// let catalogue = Catalogue::from_csv(text).unwrap();
/// assert_eq!(catalogue.get("v1").unwrap().title, "Love, Actually");
/// assert!(catalogue.is_available("v1", EventTime(4999)) && !catalogue.is_available("v1", EventTime(5000)));
/// assert!(catalogue.is_available("v2", EventTime(0)), "what it does not know may be shown");
/// ```
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Catalogue {
    titles: BTreeMap<String, Title>,
    /// Whether what it does not hold may not be shown.
    pub strict: bool,
}

impl Catalogue {
    /// A catalogue of these titles; of two with one id the last.
    pub fn new(titles: Vec<Title>) -> Self {
        Self { titles: titles.into_iter().map(|title| (title.id.clone(), title)).collect(), strict: false }
    }

    /// From a JSON array.
    ///
    /// # Errors
    /// What is wrong with the text, and where.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map(Self::new).map_err(|error| error.to_string())
    }

    /// From CSV with a header.
    ///
    /// # Errors
    /// The line and what is wrong with it.
    pub fn from_csv(text: &str) -> Result<Self, String> {
        let mut records = csv_records(text).into_iter();
        let header = records.next().ok_or("an empty catalogue")?;
        let column = |name: &str| header.iter().position(|field| field.trim() == name);
        let id = column("id").ok_or("the header has no column id")?;
        let mut titles = Vec::new();
        for (n, record) in records.enumerate() {
            let field = |name: &str| {
                column(name).and_then(|at| record.get(at)).map(|f| f.trim()).filter(|f| !f.is_empty())
            };
            let number = |name: &str| match field(name).map(str::parse::<i64>) {
                None => Ok(None),
                Some(Ok(number)) => Ok(Some(number)),
                Some(Err(_)) => Err(format!("record {}: {name} is no whole number", n + 2)),
            };
            titles.push(Title {
                id: record
                    .get(id)
                    .filter(|id| !id.is_empty())
                    .cloned()
                    .ok_or(format!("record {}: no id", n + 2))?,
                title: field("title").unwrap_or_default().to_owned(),
                year: number("year")?.and_then(|year| i32::try_from(year).ok()),
                genres: field("genres")
                    .map(|g| g.split('|').map(|g| g.trim().to_owned()).collect())
                    .unwrap_or_default(),
                franchise: field("franchise").map(str::to_owned),
                available_from_ms: number("available_from_ms")?,
                available_to_ms: number("available_to_ms")?,
            });
        }
        Ok(Self::new(titles))
    }

    /// A title.
    pub fn get(&self, id: &str) -> Option<&Title> {
        self.titles.get(id)
    }

    /// Whether a title may be shown at `now`.
    pub fn is_available(&self, id: &str, now: EventTime) -> bool {
        match self.titles.get(id) {
            None => !self.strict,
            Some(title) => {
                title.available_from_ms.is_none_or(|from| from <= now.0)
                    && title.available_to_ms.is_none_or(|to| now.0 < to)
            }
        }
    }

    /// All titles, by id.
    pub fn titles(&self) -> impl Iterator<Item = &Title> {
        self.titles.values()
    }

    /// How many titles it holds.
    pub fn len(&self) -> usize {
        self.titles.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.titles.is_empty()
    }
}

/// The records of a CSV text (RFC 4180): commas, quotes doubled inside quotes, line ends of any kind.
pub fn csv_records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut chars = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                let whole = std::mem::take(&mut record);
                records.extend((whole.len() > 1 || !whole[0].is_empty()).then_some(whole));
            }
            c => field.push(c),
        }
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push(record);
    }
    records
}
