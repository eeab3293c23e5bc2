//! A video's past, epoch by epoch: how the scorer judged it, and its place among all by plays.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde_json::{Value, json};
use uptake_connectors::TableError;
use uptake_connectors::table::Table;
use uptake_model::Epoch;
use uptake_trends::special::gamma_quantile;

use crate::app::App;
use crate::problem::Answer;
use crate::rows::serve::Asked;
use crate::videos::tallies;

/// The newest epochs that are told: four weeks of half hours.
const EPOCHS_MAX: usize = 4 * 7 * 48;
/// The newest epochs whose places are told: for each, an epoch of all videos is read.
const PLACES_EPOCHS: usize = 48;
/// Places behind are not told.
const PLACES_MAX: usize = 200;
/// How many epochs' places are kept, of all segments.
const KEPT_MAX: usize = 512;
/// What may still change is read again after as long.
const FRESH: Duration = Duration::from_secs(10);
/// What lies outside of the interval of a rate, on each side.
const OUTSIDE: f64 = 0.05;

/// Who stood where in an epoch by plays, as far as [`PLACES_MAX`].
#[derive(Clone)]
struct Order {
    places: Arc<HashMap<Arc<str>, usize>>,
    is_final: bool,
    read_at: Instant,
}

/// The orders of some epochs, so that not every question reads them again.
#[derive(Default)]
pub(crate) struct Orders(Mutex<BTreeMap<(i64, String), Order>>);

impl Orders {
    fn of(&self, table: &dyn Table, segment: &str, epoch: Epoch) -> Result<Order, TableError> {
        let key = (epoch.0, segment.to_owned());
        let held = |orders: &Self| orders.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(order) = held(self).filter(|order| order.is_final || order.read_at.elapsed() < FRESH) {
            return Ok(order);
        }
        let rows = table.top(segment, Some(epoch), PLACES_MAX)?;
        let is_final = !rows.is_empty() && rows.iter().all(|row| row.sealed);
        let places =
            rows.into_iter().filter(|row| row.counts.plays > 0).map(|row| row.video_id).zip(1..).collect();
        let order = Order { places: Arc::new(places), is_final, read_at: Instant::now() };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The oldest epoch is the one that is asked for least.
        while all.len() >= KEPT_MAX && all.pop_first().is_some() {}
        all.insert(key, order.clone());
        Ok(order)
    }
}

/// How the epochs of a video were judged when they were over: its rate (of which nine tenths of the belief lie between
/// low and high), the plays that were to be expected, whether it was rising, and for the newest its place by plays.
#[utoipa::path(get, path = "/v1/videos/{id}/timeline", tag = "videos",
    params(("id" = String, Path, description = "The video's id"),
        ("segment" = Option<String>, Query, description = "As country=BR,device=tv")),
    responses((status = 200, description = "Its past, oldest first", body = Object),
        (status = 404, description = "It has no tally"), (status = 400, description = "A segment that is not kept")))]
pub(crate) async fn timeline(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Answer<Json<Value>> {
    let asked = Asked::checked(query)?;
    let for_it = Arc::clone(&app);
    app.blocking(move || {
        let (segment, mut rows) = tallies(&for_it, &id, &asked)?;
        let away = |error: TableError| for_it.table_away(&error);
        let all = rows.len();
        rows.drain(..all.saturating_sub(EPOCHS_MAX));
        let past = for_it.choosing(|choice| {
            for_it.tables.with(|table| for_it.board.rows().past(table, &segment, &id, &rows, choice))
        });
        let past = past.map_err(away)?.unwrap_or_default();
        let placed_from = past.len().saturating_sub(PLACES_EPOCHS);
        let epochs = past.iter().enumerate().map(|(n, past)| {
            let place = match n >= placed_from {
                true => for_it.tables.with(|table| for_it.orders.of(table, &segment, past.epoch))?,
                false => None,
            };
            let place = place.and_then(|order| order.places.get(id.as_str()).copied());
            let estimate = past.estimate;
            // Of a rate that is known to the last digit the law has no width.
            let is_certain = estimate.shape > 1e9;
            let at = |chance: f64| match is_certain {
                true => estimate.rate,
                false => gamma_quantile(estimate.shape, chance) / estimate.whole,
            };
            Ok(json!({
                "epoch": past.epoch, "start": for_it.epochs(past.epoch), "rate": estimate.rate, "rate_low": at(OUTSIDE),
                "rate_high": at(1.0 - OUTSIDE), "expected_plays": past.expected_plays, "rising": past.rising,
                "place": place,
            }))
        });
        let epochs = epochs.collect::<Result<Vec<Value>, TableError>>().map_err(away)?;
        Ok(Json(json!({
            "video_id": id, "segment": segment, "places_of_last": PLACES_EPOCHS, "place_max": PLACES_MAX,
            "epochs": epochs,
        })))
    })
    .await
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use uptake_connectors::table::MemoryTable;
    use uptake_model::TallyRow;
    use uptake_model::tally::Counts;

    use super::*;

    #[test]
    fn an_order_that_is_final_is_read_once_and_the_oldest_is_forgotten() {
        let row = |video: &str, epoch, plays, sealed| TallyRow {
            video_id: video.into(),
            segment: "".into(),
            epoch: Epoch(epoch),
            counts: Counts { plays, impressions: 100, exact: true },
            sealed,
            sets: None,
        };
        let mut table = MemoryTable::new();
        table.write(&[row("a", 1, 5, true), row("b", 1, 9, true), row("c", 1, 0, true)]).unwrap();
        table.write(&[row("a", 2, 5, false)]).unwrap();
        let orders = Orders::default();
        let order = orders.of(&table, "", Epoch(1)).unwrap();
        assert_eq!(
            (order.places.get("b"), order.places.get("a"), order.places.get("c")),
            (Some(&1), Some(&2), None)
        );
        assert!(order.is_final && !orders.of(&table, "", Epoch(2)).unwrap().is_final);
        table.write(&[row("d", 1, 99, true)]).unwrap();
        assert_eq!(orders.of(&table, "", Epoch(1)).unwrap().places.get("b"), Some(&1), "as it was read");
        for epoch in 3..2 * KEPT_MAX as i64 {
            orders.of(&table, "", Epoch(epoch)).unwrap();
        }
        assert_eq!(orders.0.lock().unwrap().len(), KEPT_MAX);
        assert_eq!(orders.of(&table, "", Epoch(1)).unwrap().places.get("b"), Some(&2), "read anew");
    }
}
