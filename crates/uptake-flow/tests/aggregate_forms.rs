//! The forms of the aggregate come to one table, on random input, batches and workers.

#[path = "../examples/aggregate_forms.rs"]
mod forms;

use std::collections::BTreeMap;

use forms::{FORMS, Form, Plays, Requests, table};
use proptest::prelude::*;
use uptake_flow::EventTime;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn all_forms_make_the_same_table(
        batches in prop::collection::vec(prop::collection::vec((0u32..5, 0u32..40, 0i64..60), 0..20), 1..8),
        workers in prop::sample::select(vec![1usize, 2, 4]),
    ) {
        let mut expected: BTreeMap<String, Requests> = BTreeMap::new();
        batches.iter().flatten().for_each(|(v, r, _)| {
            expected.entry(format!("v{v}")).or_default().insert(*r);
        });
        let mut plays: Plays = batches.iter().map(|batch| batch.iter().map(|(video, request, minute)| {
            (EventTime(minute * 60_000), (format!("v{video}"), *request))
        }).collect()).collect();
        // So that a snapshot comes after the last play, however many batches there are.
        plays.extend([Vec::new(), Vec::new()]);
        let mut emitted = Vec::new();
        for form in FORMS {
            let (n, table) = table(&plays, form, workers).unwrap();
            prop_assert_eq!(&table, &expected, "{:?}, {} workers", form, workers);
            emitted.push(n);
        }
        prop_assert!(emitted[Form::GroupFirst as usize] <= emitted[Form::EveryUpdate as usize]);
        prop_assert_eq!(emitted[Form::LargestPerBatch as usize], emitted[Form::Changes as usize]);
    }
}
