//! A log of slots as it is read from a file.

use std::path::Path;

use uptake_trends::catalogue::csv_records;
use uptake_trends::eval::offpolicy::Sample;

use crate::commands::CommandError;

/// Reads NDJSON, or CSV with a header.
pub(super) fn read(path: &Path) -> Result<Vec<Sample>, CommandError> {
    let wrong = |what: String| CommandError::Usage(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let samples = match text.trim_start().starts_with('{') {
        true => lines(&text),
        false => csv(&text),
    }
    .map_err(wrong)?;
    for (n, sample) in samples.iter().enumerate() {
        let is_probability = |p: f64| (0.0..=1.0).contains(&p);
        if !(sample.behaviour > 0.0 && is_probability(sample.behaviour) && is_probability(sample.target)) {
            return Err(wrong(format!("slot {}: behaviour must be above 0, and both at most 1", n + 1)));
        }
        if ![sample.reward, sample.predicted, sample.predicted_target].iter().all(|x| x.is_finite()) {
            return Err(wrong(format!("slot {}: a number is not finite", n + 1)));
        }
    }
    Ok(samples)
}

fn lines(text: &str) -> Result<Vec<Sample>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(n, line)| serde_json::from_str(line).map_err(|e| format!("line {}: {e}", n + 1))).collect()
}

fn csv(text: &str) -> Result<Vec<Sample>, String> {
    let mut records = csv_records(text).into_iter();
    let header = records.next().ok_or("an empty file")?;
    let column = |name: &str| header.iter().position(|field| field.trim() == name);
    for needed in ["reward", "behaviour", "target"] {
        column(needed).ok_or(format!("the header has no column {needed}"))?;
    }
    let mut samples = Vec::new();
    for (n, record) in records.enumerate() {
        let number = |name: &str| match column(name).and_then(|at| record.get(at)) {
            None if column(name).is_none() => Ok(0.0),
            None => Err(format!("record {}: no {name}", n + 2)),
            Some(field) => {
                field.trim().parse::<f64>().map_err(|_| format!("record {}: {name} is no number", n + 2))
            }
        };
        samples.push(Sample {
            reward: number("reward")?,
            behaviour: number("behaviour")?,
            target: number("target")?,
            predicted: number("predicted")?,
            predicted_target: number("predicted_target")?,
        });
    }
    Ok(samples)
}
