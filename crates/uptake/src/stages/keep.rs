//! What counts, kept instead of tallied: the joined events, for who exports them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use uptake_flow::{Context, Emit, Flow, Process, Stream, To};
use uptake_model::{DimsHash, Epoch, Event, VideoHash};

use crate::config::Config;
use crate::stages::Joined;
use crate::stages::collect::Name;
use crate::stages::outlets::{Books, Outlets};

/// The events that count, from all workers of a process, once a run has ended.
#[derive(Clone, Debug, Default)]
pub struct Keeping(Arc<Mutex<Kept>>);

/// Events that count, and the names of what they speak of.
#[derive(Debug, Default)]
pub struct Kept {
    /// The events of each epoch, in no order.
    pub epochs: BTreeMap<Epoch, Vec<Event>>,
    /// The id of each video.
    pub videos: HashMap<VideoHash, Arc<str>>,
    /// The values of each combination, in the order of the configured dimensions.
    pub dims: HashMap<DimsHash, Vec<String>>,
}

impl Keeping {
    /// What was kept; nothing is left here.
    pub fn take(&self) -> Kept {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, kept: Kept) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (epoch, mut events) in kept.epochs {
            all.epochs.entry(epoch).or_default().append(&mut events);
        }
        all.videos.extend(kept.videos);
        all.dims.extend(kept.dims);
    }
}

/// Keeps what counts.
pub fn by_video<'s>(
    flow: &Flow<'s>,
    (joined, names): (Stream<'s, Joined>, Stream<'s, Name>),
    (config, outlets, keeping): (&Arc<Config>, &Outlets, &Keeping),
) {
    let keep = Keep {
        config: Arc::clone(config),
        kept: Kept::default(),
        keeping: keeping.clone(),
        books: outlets.books(),
    };
    let worker = flow.worker();
    let to = move |name: &Name| match name {
        Name::Video { .. } => To::Worker(worker),
        Name::Dims { worker, .. } => To::Worker(*worker),
    };
    joined.key_by(|joined| joined.event().video).process_with(names, to, keep);
}

struct Keep {
    config: Arc<Config>,
    kept: Kept,
    keeping: Keeping,
    books: Books,
}

impl Process<VideoHash, Joined> for Keep {
    type Side = Name;
    type Out = ();

    fn record(&mut self, _: &VideoHash, joined: Joined, _: Context, _: &mut Emit<'_, ()>) {
        if let Joined::Counted(event) = joined {
            self.books.ledger.account(event.partition).counted += 1;
            self.kept.epochs.entry(self.config.epoch.epoch(event.time)).or_default().push(event);
        }
    }

    fn side(&mut self, name: Name) {
        match name {
            Name::Video { video, id, .. } => {
                self.kept.videos.insert(video, id);
            }
            // All workers are told; who knows them all is one of them.
            Name::Dims { dims, values, .. } => {
                self.kept.dims.insert(dims, values);
            }
        }
    }

    fn end_batch(&mut self, context: Context, _: &mut Emit<'_, ()>) {
        if context.is_last {
            self.keeping.add(std::mem::take(&mut self.kept));
        }
        self.books.publish();
    }
}
