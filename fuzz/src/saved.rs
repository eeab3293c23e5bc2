//! What must hold of any bytes that are taken for saved state: they are refused, or what they make can be
//! saved again and is the same then; nothing panics, and nothing is asked for that the bytes do not pay for.
//!
//! The first byte of an input chooses what the rest is. This file is shared by the fuzz target and the test
//! that replays the corpus.

use uptake_model::join::{JoinDictionary, JoinNames, JoinRules, JoinSaver, RequestState};
use uptake_model::tally::{RequestSet, Tally, TallyLimits, TallySets};
use uptake_model::{Event, EventTime, Kind, RequestId, VideoHash};

const REQUEST: RequestId = RequestId(7);

fn limits(choice: u8) -> TallyLimits {
    // One that is soon a sketch, and the default.
    if choice & 4 != 0 {
        TallyLimits { exact_max: 16, ..TallyLimits::default() }
    } else {
        TallyLimits::default()
    }
}

/// Panics if anything that must hold of `input` does not.
pub(crate) fn check(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    match choice & 3 {
        0 => tally(bytes, limits(*choice)),
        1 => sketch(bytes, limits(*choice)),
        _ => request(bytes),
    }
}

fn tally(bytes: &[u8], limits: TallyLimits) {
    let mut tally = Tally::default();
    if tally.merge_saved(bytes, limits).is_err() {
        assert!(tally.is_empty(), "what is refused leaves it as it was");
        return;
    }
    let counts = tally.counts(limits);
    tally.merge_saved(bytes, limits).expect("what was taken once");
    assert_eq!(tally.counts(limits), counts, "once more changes nothing");
    let mut saved = Vec::new();
    tally.save(&mut saved);
    let mut again = Tally::default();
    again.merge_saved(&saved, limits).expect("what it saved itself");
    assert_eq!(again.counts(limits), counts);
    again.insert(Kind::Play, REQUEST, limits);
    again.counts(limits);
    again.into_sets();
}

fn sketch(bytes: &[u8], limits: TallyLimits) {
    let sets = TallySets { played: RequestSet::Sketch(bytes.to_vec()), shown: RequestSet::Exact(vec![1]) };
    let mut tally = Tally::default();
    if tally.merge_sets(&sets, limits).is_ok() {
        let counts = tally.counts(limits);
        let mut again = Tally::default();
        again.merge_sets(&tally.into_sets(), limits).expect("what it made itself");
        assert_eq!(again.counts(limits), counts);
    }
    RequestSet::Sketch(bytes.to_vec()).estimate();
}

/// Two bytes say how many of the others are the names; what follows them is the state.
fn request(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let Some((names, mut state)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else { return };
    let Ok(names) = JoinNames::read(names) else { return };
    let (rules, mut dictionary) = (JoinRules::default(), JoinDictionary::default());
    let Ok(mut loaded) = RequestState::load(REQUEST, &mut state, &names, &rules, &mut dictionary) else {
        dictionary.forget_before(EventTime::MAX);
        assert!(dictionary.is_empty(), "what is refused leaves nothing behind");
        return;
    };
    let mut saver = JoinSaver::default();
    // With numbers of its own for the videos, and with those of the dictionary.
    let again = [0, usize::MAX].map(|states| {
        saver.begin(&dictionary, states);
        let mut saved = Vec::new();
        loaded.save(&dictionary, &mut saver, &mut saved);
        let names = JoinNames::read(&saver.names(&dictionary)).expect("names that it saved itself");
        let mut others = JoinDictionary::default();
        let again = RequestState::load(REQUEST, &mut saved.as_slice(), &names, &rules, &mut others)
            .expect("a state that it saved itself");
        (again, others)
    });
    let event = Event { request: REQUEST, video: VideoHash(3), kind: Kind::Play, ..Event::default() };
    let outcome = |state: &mut RequestState, dictionary: &mut JoinDictionary| {
        let mut counted = Vec::new();
        let arrival = state.step(&event, &rules, dictionary, &mut |event| counted.push(event));
        (arrival, counted)
    };
    let over = |state: RequestState, dictionary: &mut JoinDictionary| {
        let mut expired = Vec::new();
        state.expire(REQUEST, dictionary, &mut |event| expired.push(event));
        dictionary.forget_before(EventTime::MAX);
        (expired, dictionary.len())
    };
    let counted = outcome(&mut loaded, &mut dictionary);
    let left = over(loaded, &mut dictionary);
    assert_eq!(left.1, 0, "nothing is referred to any more");
    for (mut again, mut others) in again {
        assert_eq!(counted, outcome(&mut again, &mut others));
        assert_eq!(left, over(again, &mut others));
    }
}
