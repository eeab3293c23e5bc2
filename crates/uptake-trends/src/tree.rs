//! The segment tree: which segment a smaller one leans on.

/// `segment` and the known ones that it leans on, smallest first.
///
/// ```
/// use uptake_trends::tree::lineage;
/// let known = ["", "country=BR", "device=tv"];
/// assert_eq!(lineage("country=BR,device=tv", &known), ["country=BR,device=tv", "country=BR", ""]);
/// ```
pub fn lineage<'a>(segment: &'a str, known: &[&'a str]) -> Vec<&'a str> {
    std::iter::successors(Some(segment), |child| parent(child, known.iter().copied())).collect()
}

/// The parent of `segment` among `known`: the largest group that holds all of it, so the known name
/// with the most of its parts; of two such, the first by name. `None` for everyone.
///
/// ```
/// use uptake_trends::tree::parent;
/// let known = ["", "country=BR", "device=tv"];
/// assert_eq!(parent("country=BR,device=tv", known), Some("country=BR"));
/// assert_eq!(parent("country=FR,device=web", known), Some(""));
/// assert_eq!(parent("", known), None);
/// ```
pub fn parent<'a>(segment: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let parts: Vec<&str> = segment.split(',').filter(|part| !part.is_empty()).collect();
    let size = |name: &str| name.split(',').filter(|part| !part.is_empty()).count();
    let holds = |name: &&str| {
        size(name) < parts.len() && name.split(',').all(|part| part.is_empty() || parts.contains(&part))
    };
    known.into_iter().filter(holds).max_by(|a, b| size(a).cmp(&size(b)).then_with(|| b.cmp(a)))
}
