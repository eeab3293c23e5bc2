//! Why a title is in a row, and why not: its numbers, where they lean on others', what it lacks.

use serde::{Deserialize, Serialize};

use crate::rows::{Choice, Lacks, RowName, Shelf, score};
use crate::trends::Trends;

/// The answer, as numbers (JSON) and as plain words ([`std::fmt::Display`]).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Why {
    /// The title.
    pub video: String,
    /// The row.
    pub row: RowName,
    /// The segment; empty for everyone.
    pub segment: String,
    /// Its place from 1, if it is in.
    pub place: Option<usize>,
    /// Whether a person pinned it.
    pub pinned: bool,
    /// By what people multiply its score; 1 where nobody does.
    pub boost: f64,
    /// Its score, with that, if it lacks nothing for one.
    pub score: Option<f64>,
    /// What it lacks to enter, if it is not in.
    pub lacks: Option<Lacks>,
    /// What was counted of it, if anything was.
    #[serde(flatten)]
    pub counted: Option<Counted>,
}

/// The numbers of a title in a segment, as they are told.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Counted {
    /// Discounted plays, by which Popular ranks.
    pub plays: f64,
    /// Discounted impressions, or epochs, of the longest memory.
    pub evidence: f64,
    /// The plays of those, discounted alike.
    pub evidence_plays: f64,
    /// The estimated rate and its deviation.
    pub rate: f64,
    /// See `rate`.
    pub rate_sd: f64,
    /// What was expected of it before its own evidence, and how many impressions that weighs.
    pub prior_rate: f64,
    /// See `prior_rate`.
    pub prior_weight: f64,
    /// The segment it leans on: the parent's name (empty for everyone), or nothing but the mean of all
    /// titles.
    pub backed_off_to: Option<String>,
    /// Which part of the estimate comes from there.
    pub backed_off_part: f64,
    /// The weight of each half-life, shortest first.
    pub memories: Vec<f64>,
    /// Plays of the last epochs.
    pub recent_plays: f64,
    /// What was to be expected of them.
    pub recent_expected: f64,
    /// The lift and its lower bound.
    pub lift: f64,
    /// See `lift`.
    pub lift_lower: f64,
    /// ln of the evidence that it rises, and what is asked for.
    pub ln_evidence: f64,
    /// See `ln_evidence`.
    pub ln_evidence_needed: f64,
}

/// What is known of a title in a row. What people and the catalogue say of it comes before what it lacks for a score.
pub fn why(
    trends: &Trends,
    shelf: &Shelf,
    row: RowName,
    segment: &str,
    video: &str,
    choice: &Choice<'_>,
) -> Why {
    let numbers = trends.numbers(video, segment);
    let scored = match &numbers {
        Some(numbers) => score(trends, row, numbers),
        None => Err(Lacks::Unseen),
    };
    let boost = choice.rules.boost(video, row, segment, choice.now);
    let at = shelf.placed().iter().position(|placed| *placed.video == *video);
    let lacks = match (at, &scored) {
        (Some(_), _) => None,
        _ if choice.rules.is_blocked(video, row, segment, choice.now) => Some(Lacks::Blocked),
        _ if !choice.catalogue.is_available(video, choice.now) => Some(Lacks::Unavailable),
        (None, Err(lacks)) => Some(lacks.clone()),
        (None, Ok(_)) => Some(shelf.left_out(video).cloned().unwrap_or(Lacks::Budget)),
    };
    let counted = numbers.map(|numbers| Counted {
        plays: numbers.plays,
        evidence: numbers.evidence,
        evidence_plays: numbers.evidence_plays,
        rate: numbers.estimate.rate,
        rate_sd: numbers.estimate.sd,
        prior_rate: numbers.prior.mean,
        prior_weight: numbers.prior.weight,
        backed_off_to: trends.parent_of(segment).map(str::to_owned),
        backed_off_part: numbers.prior_part,
        memories: numbers.memories.to_vec(),
        recent_plays: numbers.recent_plays,
        recent_expected: numbers.recent_expected,
        lift: numbers.lift,
        lift_lower: numbers.lift_lower,
        ln_evidence: numbers.ln_evidence,
        ln_evidence_needed: -trends.options().level.ln(),
    });
    Why {
        video: video.to_owned(),
        row,
        segment: segment.to_owned(),
        place: at.map(|at| at + 1),
        pinned: at.is_some_and(|at| shelf.placed()[at].pinned),
        boost,
        score: scored.ok().map(|score| score * boost),
        lacks,
        counted,
    }
}

fn group(name: &str) -> &str {
    if name.is_empty() { "everyone" } else { name }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (row, segment) = (self.row.as_str(), group(&self.segment));
        match (self.place, &self.lacks) {
            (Some(place), _) if self.pinned => {
                writeln!(f, "{} is number {place} of {row} for {segment}: a person pinned it.", self.video)?;
            }
            (Some(place), _) => writeln!(f, "{} is number {place} of {row} for {segment}.", self.video)?,
            (None, lacks) => {
                let lacks = lacks.as_ref().map(ToString::to_string).unwrap_or_default();
                writeln!(f, "{} is not in {row} for {segment}: {lacks}.", self.video)?;
            }
        }
        if self.boost != 1.0 {
            writeln!(f, "People multiply its score by {}.", self.boost)?;
        }
        match &self.counted {
            Some(counted) => counted.fmt(f),
            None => write!(f, "Nothing was counted of it in this segment."),
        }
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "Lately {:.0} plays where {:.1} were to be expected: lift {:.2}, surely beyond {:.2}.",
            self.recent_plays, self.recent_expected, self.lift, self.lift_lower
        )?;
        writeln!(
            f,
            "Evidence of a rise: {:.1}; it is believed at {:.1}.",
            self.ln_evidence, self.ln_evidence_needed
        )?;
        writeln!(
            f,
            "Rate {:.4} ± {:.4} from {:.0} shown and {:.1} plays (discounted).",
            self.rate, self.rate_sd, self.evidence, self.evidence_plays
        )?;
        let from = match &self.backed_off_to {
            Some(parent) => format!("its rate among {}", group(parent)),
            None => "the mean of all titles".to_owned(),
        };
        write!(
            f,
            "{:.0} % of that estimate is {from}, {:.4}, which weighs {:.0}.",
            100.0 * self.backed_off_part,
            self.prior_rate,
            self.prior_weight
        )
    }
}

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use crate::robots::Suspicion;
        match self {
            Self::Unseen => write!(f, "nobody was shown it"),
            Self::Evidence { has, needs } => {
                write!(f, "shown {has:.1} times (discounted), it needs {needs:.0}")
            }
            Self::Plays { has, needs } => write!(f, "{has:.0} plays lately, it needs {needs:.0}"),
            Self::Rise { has, needs } => {
                write!(f, "its rise may be chance, evidence {has:.1} where {needs:.1} is asked for")
            }
            Self::Suspicious(Suspicion::FewMembers { members }) => {
                write!(f, "only {members} members played it")
            }
            Self::Suspicious(Suspicion::ManyPlaysPerMember { plays }) => {
                write!(f, "each member played it {plays:.1} times")
            }
            Self::Suspicious(Suspicion::BeyondCaps { part }) => {
                write!(f, "{:.0} % of its plays were beyond the caps", 100.0 * part)
            }
            Self::Suspicious(Suspicion::Flat { epochs }) => {
                write!(f, "it stood at one height for {epochs} epochs, out of nowhere")
            }
            Self::Blocked => write!(f, "a person blocked it"),
            Self::Unavailable => write!(f, "the catalogue does not have it now"),
            Self::Capped { group } => write!(f, "{group} has its places"),
            Self::Rank { has, needs: 0 } => {
                write!(f, "its rank is {has}, and none enters before somebody falls further behind")
            }
            Self::Rank { has, needs } => write!(f, "its rank is {has}, it enters at {needs}"),
            Self::Pinned => write!(f, "those that people pinned have all its places"),
            Self::Budget => write!(f, "the row has let in as many in the last minutes as it may"),
        }
    }
}
