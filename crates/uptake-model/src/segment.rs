//! Segments: the groups of members for which tallies are kept apart.
//!
//! A segment is a list of dimensions, as `["country", "device"]`; the empty list is everyone.
//! An event adds to one tally per configured segment: to the one of its own values.

use std::sync::Arc;

/// The segment in which a title's tally says who is behind its plays, for the rule against robots: its
/// "impressions" are the requests of plays that name a member, its "plays" the different members.
/// The members stand in it as hashes that differ from title to title and epoch to epoch, see
/// [`MemberHash::within`](crate::MemberHash::within).
pub const MEMBERS: &str = "~members";

/// The segment in which a title's tally has the requests of which a play was beyond a cap. Which events a
/// cap cuts depends on the order in which they come, so this tally does too.
pub const CAPPED: &str = "~capped";

/// Whether a segment is no group of members but one that is kept for the rule against robots.
///
/// ```
/// use uptake_model::segment::{MEMBERS, is_reserved};
/// assert!(is_reserved(MEMBERS) && !is_reserved("") && !is_reserved("country=~"));
/// ```
pub fn is_reserved(segment: &str) -> bool {
    segment.starts_with('~')
}

/// The configured segments and the dimensions they use.
///
/// ```
/// use uptake_model::segment::Segments;
/// let segments = Segments::new(vec![vec![], vec!["country".into()]]).unwrap();
/// assert_eq!(segments.dimensions(), ["country"]);
/// assert_eq!(segments.names(&["BR"]).map(|s| s.to_string()).collect::<Vec<_>>(), ["", "country=BR"]);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segments {
    dimensions: Vec<String>,
    /// For each segment, indices into `dimensions`.
    segments: Vec<Vec<usize>>,
}

impl Default for Segments {
    /// Everyone.
    fn default() -> Self {
        Self { dimensions: Vec::new(), segments: vec![Vec::new()] }
    }
}

impl Segments {
    /// The most segments a configuration may have: each costs one tally update per event.
    pub const COUNT_MAX: usize = 64;

    /// Segments from lists of dimension names.
    ///
    /// # Errors
    /// A message for each mistake: none or too many segments, a segment given twice, a dimension
    /// repeated in one, or a name that is empty, begins with `~`, or holds `=`, `,` or a control character.
    pub fn new(lists: Vec<Vec<String>>) -> Result<Self, Vec<String>> {
        let (mut dimensions, mut segments, mut mistakes) = (Vec::<String>::new(), Vec::new(), Vec::new());
        if lists.is_empty() {
            mistakes.push("no segment at all; [] is everyone: [[]]".to_owned());
        }
        if lists.len() > Self::COUNT_MAX {
            mistakes.push(format!("{} segments; at most {} are allowed", lists.len(), Self::COUNT_MAX));
        }
        for list in lists {
            let mut segment = Vec::new();
            for name in list {
                if name.is_empty()
                    || is_reserved(&name)
                    || name.contains(['=', ','])
                    || name.contains(char::is_control)
                {
                    mistakes.push(format!("{name:?} is not a dimension's name"));
                    continue;
                }
                let index = dimensions.iter().position(|d| *d == name).unwrap_or_else(|| {
                    dimensions.push(name.clone());
                    dimensions.len() - 1
                });
                if segment.contains(&index) {
                    mistakes.push(format!("{name:?} stands twice in one segment"));
                }
                segment.push(index);
            }
            if segments.contains(&segment) {
                mistakes
                    .push(format!("the segment {:?} is given twice", dimensions_of(&dimensions, &segment)));
            }
            segments.push(segment);
        }
        if mistakes.is_empty() { Ok(Self { dimensions, segments }) } else { Err(mistakes) }
    }

    /// The dimensions that any segment uses, in the order in which values are passed.
    pub fn dimensions(&self) -> &[String] {
        &self.dimensions
    }

    /// How many segments there are.
    pub fn count(&self) -> usize {
        self.segments.len()
    }

    /// The names of the segments that an event with these values belongs to, one per configured
    /// segment. `values` are in the order of [`Segments::dimensions`]; an absent value is empty.
    pub fn names<'a>(&'a self, values: &'a [&'a str]) -> impl Iterator<Item = Arc<str>> + 'a {
        self.segments.iter().map(move |segment| {
            let mut name = String::new();
            for &d in segment {
                if !name.is_empty() {
                    name.push(',');
                }
                name.push_str(&self.dimensions[d]);
                name.push('=');
                escape_into(&mut name, values.get(d).copied().unwrap_or(""));
            }
            Arc::from(name)
        })
    }
}

/// The name, as it is stored, of the segment that somebody asks for: `country=BR,device=tv` in any
/// order of its parts; the empty text is everyone. `stored` are the names that are kept.
///
/// A group of which no member was seen has no tallies, and its name is returned all the same.
///
/// # Errors
/// If the text is not of that form, or no segment is kept by those dimensions.
///
/// ```
/// use uptake_model::segment::find;
/// let stored = ["", "country=BR,device=tv"];
/// assert_eq!(find("device=tv, country=BR", stored).unwrap(), "country=BR,device=tv");
/// assert_eq!(find("device=web,country=FR", stored).unwrap(), "country=FR,device=web");
/// assert!(find("country=BR", stored).is_err());
/// ```
pub fn find<'a>(asked: &str, stored: impl IntoIterator<Item = &'a str>) -> Result<String, String> {
    let mut parts = Vec::new();
    for part in asked.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(format!("{part:?} is not of the form dimension=value"));
        };
        let mut canonical = format!("{}=", name.trim());
        // Who copies a stored name copies its escapes too.
        if value.contains('%') {
            canonical.push_str(value)
        } else {
            escape_into(&mut canonical, value.trim())
        }
        parts.push(canonical);
    }
    let dimension = |part: &str| part.split('=').next().unwrap_or_default().to_owned();
    let mut kept = std::collections::BTreeSet::new();
    for name in stored.into_iter().filter(|name| !is_reserved(name)) {
        let dimensions: Vec<String> = name.split(',').filter(|p| !p.is_empty()).map(dimension).collect();
        let found: Option<Vec<&String>> =
            dimensions.iter().map(|d| parts.iter().find(|p| dimension(p) == *d)).collect();
        match found {
            Some(found) if found.len() == parts.len() => {
                return Ok(found.into_iter().map(String::as_str).collect::<Vec<_>>().join(","));
            }
            _ => drop(kept.insert(format!("[{}]", dimensions.join(",")))),
        }
    }
    if parts.is_empty() {
        return Ok(String::new());
    }
    let kept: Vec<String> = kept.into_iter().collect();
    Err(format!("no segment is kept by those dimensions; there are: {}", kept.join(" ")))
}

fn dimensions_of(dimensions: &[String], segment: &[usize]) -> Vec<String> {
    segment.iter().map(|&d| dimensions[d].clone()).collect()
}

/// A value may hold any text, but a segment's name must split again at `,` and `=`.
fn escape_into(name: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            ',' => name.push_str("%2C"),
            '=' => name.push_str("%3D"),
            '%' => name.push_str("%25"),
            c if c.is_control() => name.push_str(&format!("%{:02X}", c as u32)),
            c => name.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(lists: &[&[&str]]) -> Result<Segments, Vec<String>> {
        Segments::new(lists.iter().map(|l| l.iter().map(|s| s.to_string()).collect()).collect())
    }

    #[test]
    fn an_event_belongs_to_one_group_of_each_segment() {
        let s = segments(&[&[], &["country"], &["country", "device"]]).unwrap();
        let names: Vec<_> = s.names(&["BR", "tv"]).map(|n| n.to_string()).collect();
        assert_eq!(names, ["", "country=BR", "country=BR,device=tv"]);
        let unknown: Vec<_> = s.names(&["", "a,b=%"]).map(|n| n.to_string()).collect();
        assert_eq!(unknown, ["", "country=", "country=,device=a%2Cb%3D%25"]);
    }

    #[test]
    fn a_segment_is_asked_for_in_any_order() {
        let stored = ["", "country=BR,device=tv", "country=US,device=a%2Cb"];
        assert_eq!(find("", stored).unwrap(), "");
        assert_eq!(find("device=a%2Cb,country=US", stored).unwrap(), "country=US,device=a%2Cb");
        assert!(find("country=BR", stored).unwrap_err().contains("[country,device]"));
        assert!(find("BR", stored).unwrap_err().contains("dimension=value"));
        assert_eq!(find("", []).unwrap(), "", "an empty table has everyone, with nothing");
    }

    #[test]
    fn all_mistakes_are_told() {
        let mistakes = segments(&[&["a", "a"], &["b="], &[""], &["a"], &["a"]]).unwrap_err();
        assert_eq!(mistakes.len(), 5, "{mistakes:?}"); // a twice, two bad names, [] and [a] given twice
        assert!(segments(&[]).is_err());
    }
}
