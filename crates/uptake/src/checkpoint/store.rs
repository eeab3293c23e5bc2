//! Checkpoints as objects: which there are, which is the newest that is whole, which may go.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uptake_connectors::objects::{Objects, PutObject};

use super::{CheckpointError, Manifest, Segment, SegmentInfo};

/// The number of a checkpoint: of the run that took it, and within that run. Printed as `3.17`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Number(pub u64);

const WITHIN_BITS: u32 = 32;

impl Number {
    /// The first checkpoint of a run.
    pub fn first(run: u32) -> Self {
        Self(u64::from(run) << WITHIN_BITS)
    }

    /// Its number within its run, from 0.
    pub fn within(self) -> u64 {
        self.0 & ((1 << WITHIN_BITS) - 1)
    }

    /// The run.
    pub fn run(self) -> u32 {
        (self.0 >> WITHIN_BITS) as u32
    }

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    fn label(self) -> String {
        format!("{:06}-{:08}", self.run(), self.within())
    }

    fn of_label(label: &str) -> Option<Self> {
        let (run, within) = label.get(..15)?.split_once('-')?;
        Some(Self(u64::from(run.parse::<u32>().ok()?) << WITHIN_BITS | within.parse::<u64>().ok()?))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run(), self.within())
    }
}

/// The checkpoints of one cluster.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn Objects>,
    cluster: String,
    spool: Option<PathBuf>,
}

/// The newest checkpoint that is whole, and what was wrong with newer ones.
pub struct Newest {
    /// The manifest and the segments it names; `None` where nothing was ever written.
    pub checkpoint: Option<(Manifest, Vec<Segment>)>,
    /// One line for each checkpoint that was refused.
    pub refused: Vec<String>,
}

impl Store {
    /// The checkpoints of `cluster` in `objects`.
    pub fn new(objects: Arc<dyn Objects>, cluster: impl Into<String>) -> Self {
        Self { objects, cluster: cluster.into(), spool: None }
    }

    /// Keeps what is read of segments in files in `folder`, so that a checkpoint may be larger
    /// than memory.
    pub fn spooling_to(mut self, folder: Option<&Path>) -> Self {
        self.spool = folder.map(Path::to_owned);
        self
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    fn manifest_name(&self, number: Number) -> String {
        format!("{}/manifest-{}.json", self.cluster, number.label())
    }

    fn part_name(&self, number: Number, process: usize) -> String {
        format!("{}/part-{}-{process:03}.json", self.cluster, number.label())
    }

    fn segment_name(&self, number: Number, worker: usize) -> String {
        format!("{}/segment-{}-{worker:04}.bin", self.cluster, number.label())
    }

    fn run_name(&self, run: u32) -> String {
        format!("{}/run-{run:06}", self.cluster)
    }

    /// The objects whose names begin with `prefix` behind the cluster's, by what follows it.
    fn list(&self, prefix: &str) -> Result<Vec<(String, String)>, CheckpointError> {
        let start = format!("{}/{prefix}", self.cluster);
        let found = self.objects.list(&start)?.into_iter();
        Ok(found.filter_map(|o| Some((o.name.strip_prefix(&start)?.to_owned(), o.name))).collect())
    }

    /// The manifests there are, oldest first.
    pub fn manifests(&self) -> Result<Vec<(Number, String)>, CheckpointError> {
        let all = self.list("manifest-")?.into_iter();
        Ok(all.filter_map(|(label, name)| Some((Number::of_label(&label)?, name))).collect())
    }

    /// Reads a manifest alone.
    ///
    /// # Errors
    /// It is gone or damaged.
    pub fn manifest(&self, name: &str) -> Result<Manifest, CheckpointError> {
        let bytes = self.objects.get(name)?;
        Manifest::decode(name, &bytes.ok_or_else(|| CheckpointError::Missing { name: name.to_owned() })?)
    }

    /// The newest checkpoint that is whole.
    ///
    /// # Errors
    /// There are some and none is; or the store refuses.
    pub fn newest(&self) -> Result<Newest, CheckpointError> {
        let manifests = self.manifests()?;
        let mut refused = Vec::new();
        for (number, name) in manifests.iter().rev() {
            match self.whole(name) {
                Ok(checkpoint) => return Ok(Newest { checkpoint: Some(checkpoint), refused }),
                // A store that does not answer says nothing about the checkpoint.
                Err(error) if error.is_of_storage() => return Err(error),
                Err(error) => refused.push(format!("checkpoint {number} is refused: {error}")),
            }
        }
        match refused.pop() {
            None => Ok(Newest { checkpoint: None, refused }),
            Some(last) => Err(CheckpointError::NoneReadable {
                cluster: self.cluster.clone(),
                tried: manifests.len(),
                last,
            }),
        }
    }

    fn whole(&self, name: &str) -> Result<(Manifest, Vec<Segment>), CheckpointError> {
        let manifest = self.manifest(name)?;
        let segments = manifest.segments.iter().map(|info| {
            let name = &info.name;
            let bytes = self.objects.get(name)?;
            let bytes = bytes.ok_or_else(|| CheckpointError::Missing { name: name.clone() })?;
            if bytes.len() as u64 != info.bytes || crc32c::crc32c(&bytes) != info.crc32c {
                return Err(CheckpointError::damaged(name, "its bytes are not those that were written"));
            }
            let segment = Segment::decode(name, bytes)?;
            match &self.spool {
                Some(folder) => segment.spooled_to(folder),
                None => Ok(segment),
            }
        });
        let segments = segments.collect::<Result<_, _>>()?;
        Ok((manifest, segments))
    }

    /// Begins a run: takes the next number, which no other run has.
    ///
    /// # Errors
    /// The store refuses.
    pub fn begin_run(&self) -> Result<u32, CheckpointError> {
        let taken = self.newest_run()?;
        // A few others may begin at the same moment.
        for run in taken + 1.. {
            if self.objects.put_if_absent(&self.run_name(run), b"")? == PutObject::Created {
                return Ok(run);
            }
        }
        Err(CheckpointError::TakenOver { cluster: self.cluster.clone() })
    }

    /// The newest run that began; 0 where none did.
    pub fn newest_run(&self) -> Result<u32, CheckpointError> {
        let begun = self.list("run-")?.into_iter().filter_map(|(label, _)| label.parse::<u32>().ok()).max();
        // A checkpoint holds its run's number too, for the case that the mark is gone: who cleared
        // the store may have overlooked a run that committed after.
        let committed = self.manifests()?.last().map(|(number, _)| number.run());
        Ok(begun.max(committed).unwrap_or(0))
    }

    /// Writes a segment.
    ///
    /// # Errors
    /// The store refuses.
    pub fn put_segment(
        &self,
        number: Number,
        worker: usize,
        bytes: &[u8],
    ) -> Result<SegmentInfo, CheckpointError> {
        let name = self.segment_name(number, worker);
        // One that is there is of an attempt of this same process that was not told of its success.
        self.objects.put_if_absent(&name, bytes)?;
        Ok(SegmentInfo { number: number.0, name, bytes: bytes.len() as u64, crc32c: crc32c::crc32c(bytes) })
    }

    /// Says what a process of a cluster has written for a checkpoint, in the form of a manifest.
    ///
    /// # Errors
    /// The store refuses.
    pub fn put_part(&self, number: Number, process: usize, part: &Manifest) -> Result<(), CheckpointError> {
        self.objects.put_if_absent(&self.part_name(number, process), &part.encode()?)?;
        Ok(())
    }

    /// What a process has written for a checkpoint, once it has.
    ///
    /// # Errors
    /// The store refuses, or the part is damaged.
    pub fn part(&self, number: Number, process: usize) -> Result<Option<Manifest>, CheckpointError> {
        let name = self.part_name(number, process);
        self.objects.get(&name)?.map(|bytes| Manifest::decode(&name, &bytes)).transpose()
    }

    /// Makes a checkpoint of what was written.
    ///
    /// # Errors
    /// A later run has begun, or the store refuses.
    pub fn commit(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let number = Number(manifest.number);
        if self.newest_run()? > number.run() {
            return Err(CheckpointError::TakenOver { cluster: self.cluster.clone() });
        }
        self.objects.put_if_absent(&self.manifest_name(number), &manifest.encode()?)?;
        Ok(())
    }

    /// Deletes all but the newest `keep` checkpoints, and what none of them refers to.
    ///
    /// # Errors
    /// The store refuses. What was not deleted is next time.
    pub fn retain(&self, keep: usize) -> Result<(), CheckpointError> {
        let manifests = self.manifests()?;
        let (old, kept) = manifests.split_at(manifests.len().saturating_sub(keep.max(1)));
        let Some((newest, _)) = kept.last().map(|(number, name)| (*number, name)) else { return Ok(()) };
        // Manifests first: one must never name what is gone.
        for (_, name) in old {
            self.objects.delete(name)?;
        }
        let mut needed = BTreeSet::new();
        for (_, name) in kept {
            match self.manifest(name) {
                Ok(manifest) => needed.extend(manifest.segments.into_iter().map(|s| s.name)),
                // Nobody can go on from it; it stays for whoever wants to know what happened.
                Err(CheckpointError::Damaged { .. } | CheckpointError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for prefix in ["segment-", "part-"] {
            for (label, name) in self.list(prefix)? {
                // What is newer than the newest manifest may belong to one that is being written.
                if Number::of_label(&label).is_some_and(|n| n <= newest) && !needed.contains(&name) {
                    self.objects.delete(&name)?;
                }
            }
        }
        for (label, name) in self.list("run-")? {
            if label.parse::<u32>().is_ok_and(|run| run < newest.run()) {
                self.objects.delete(&name)?;
            }
        }
        Ok(())
    }

    /// Deletes everything of this cluster.
    ///
    /// # Errors
    /// The store refuses.
    pub fn clear(&self) -> Result<(), CheckpointError> {
        let mut names: Vec<String> = self.list("")?.into_iter().map(|(_, name)| name).collect();
        // Manifests first: one must never name what is gone. The numbers of runs last: as long as
        // a segment is left, no other run may take its name.
        names.sort_by_key(|name| (!name.contains("/manifest-"), name.contains("/run-")));
        names.iter().try_for_each(|name| self.objects.delete(name).map_err(CheckpointError::from))
    }
}
