//! What a checkpoint gives back, for the stages to take what is theirs.

use super::{CheckpointError, InputPosition, Manifest, SectionKind, Segment, Store};

/// A checkpoint that a run goes on from.
#[derive(Debug)]
pub struct Restored {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its segments, oldest first.
    pub segments: Vec<Segment>,
}

impl Restored {
    /// The newest checkpoint that is whole, if there is any, and a line for each refused one.
    ///
    /// # Errors
    /// None of those that there are is whole, its state means something else than `meaning`
    /// says, or the store refuses.
    pub fn newest(store: &Store, meaning: &str) -> Result<(Option<Self>, Vec<String>), CheckpointError> {
        let newest = store.newest()?;
        let Some((manifest, segments)) = newest.checkpoint else { return Ok((None, newest.refused)) };
        if manifest.meaning != meaning {
            return Err(CheckpointError::OtherMeaning {
                stored: manifest.meaning,
                asked: meaning.to_owned(),
            });
        }
        Ok((Some(Self { manifest, segments }), newest.refused))
    }

    /// Where the input is read on.
    pub fn input(&self) -> &InputPosition {
        &self.manifest.input
    }

    /// The sections of a kind and shard, newest first, each with its segment; an error where one
    /// cannot be had.
    pub fn sections(&self, kind: SectionKind, shard: u32) -> impl Iterator<Item = Section<'_>> {
        filled(self.segments.iter().rev(), kind, shard)
    }

    /// Those that were written for this very checkpoint, of stages that write all they have each
    /// time.
    pub fn latest_sections(&self, kind: SectionKind, shard: u32) -> impl Iterator<Item = Section<'_>> {
        let named = self.segments.iter().zip(&self.manifest.segments);
        let latest = named.filter(|(_, info)| info.number == self.manifest.number);
        filled(latest.map(|(segment, _)| segment), kind, shard)
    }
}

/// A section's bytes and the segment that they are of.
pub type Section<'a> = Result<(&'a Segment, Vec<u8>), CheckpointError>;

fn filled<'a>(
    segments: impl Iterator<Item = &'a Segment>,
    kind: SectionKind,
    shard: u32,
) -> impl Iterator<Item = Section<'a>> {
    let filled = segments.filter(move |segment| segment.has(kind, shard));
    filled.map(move |segment| Ok((segment, segment.section(kind, shard)?)))
}
