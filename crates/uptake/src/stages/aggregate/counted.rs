//! The events that counted since the checkpoint before, as sections of a checkpoint.
//!
//! They are most of what a checkpoint writes, so an event names its tally by a small number. Per event: a head u16,
//! slot << 2 | other dimensions << 1 | play; video u64 and epoch i64, where the slot is that of no event before or
//! [`NO_SLOT`]; dimensions u64, where they are not those of the event before it in the section, which has none
//! before the first; request u64. Slots are given in order of first use.

use uptake_flow::{SHARDS, shard};
use uptake_model::{DimsHash, Epoch, Kind, RequestId, VideoHash};

use crate::checkpoint::{CheckpointError, Fields, SectionKind, Segment};

const PLAY: u16 = 1;
const OTHER_DIMS: u16 = 2;
const SLOT_SHIFT: u32 = 2;
/// What stands for the slot of tallies beyond as many as there are.
const NO_SLOT: u16 = u16::MAX >> SLOT_SHIFT;

/// What is remembered of an event that counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counted {
    pub(super) video: VideoHash,
    pub(super) epoch: Epoch,
    pub(super) dims: DimsHash,
    pub(in crate::stages) request: RequestId,
    pub(super) kind: Kind,
}

/// Which slot a tally has, and in the section of which checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Slot {
    round: u32,
    slot: u16,
}

/// The events since the checkpoint before, by shard of their videos.
pub(super) struct CountedNotes {
    /// Counts the checkpoints, from 1: a slot of an earlier one is none.
    round: u32,
    shards: Vec<Notes>,
}

#[derive(Default)]
struct Notes {
    bytes: Vec<u8>,
    slots: u16,
    dims: DimsHash,
}

impl Default for CountedNotes {
    fn default() -> Self {
        Self { round: 1, shards: (0..SHARDS).map(|_| Notes::default()).collect() }
    }
}

impl CountedNotes {
    /// Notes an event. `slot` is that of one of its tallies, and of no other video or epoch.
    #[inline]
    pub(super) fn note(&mut self, counted: &Counted, slot: &mut Slot) {
        let notes = &mut self.shards[shard(&counted.video) as usize];
        let is_known = slot.round == self.round && slot.slot != NO_SLOT;
        if !is_known || counted.dims != notes.dims {
            return notes.note_in_full(counted, slot, self.round);
        }
        let head = slot.slot << SLOT_SHIFT | counted.kind as u16;
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&head.to_le_bytes());
        bytes[2..].copy_from_slice(&counted.request.0.to_le_bytes());
        notes.bytes.extend_from_slice(&bytes);
    }

    /// Those of the next checkpoint, with room for as much as is noted here.
    pub(super) fn next(&self) -> Self {
        let room = |notes: &Notes| Vec::with_capacity(notes.bytes.len() / 8 * 9);
        let shards = self.shards.iter().map(|notes| Notes { bytes: room(notes), ..Notes::default() });
        Self { round: self.next_round(), shards: shards.collect() }
    }

    fn next_round(&self) -> u32 {
        self.round.wrapping_add(1).max(1)
    }

    /// Lets go of all that is noted, and of the room for it.
    pub(super) fn clear(&mut self) {
        *self = Self { round: self.next_round(), ..Self::default() };
    }

    /// The sections of the shards.
    pub(super) fn into_shards(self) -> Vec<Vec<u8>> {
        self.shards.into_iter().map(|notes| notes.bytes).collect()
    }

    /// How many bytes are noted.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(|notes| notes.bytes.len()).sum()
    }
}

impl Notes {
    #[inline(never)]
    fn note_in_full(&mut self, counted: &Counted, slot: &mut Slot, round: u32) {
        let is_known = slot.round == round && slot.slot != NO_SLOT;
        if !is_known {
            *slot = Slot { round, slot: self.slots };
            self.slots = (self.slots + 1).min(NO_SLOT);
        }
        let other_dims = if counted.dims == self.dims { 0 } else { OTHER_DIMS };
        let head = slot.slot << SLOT_SHIFT | other_dims | counted.kind as u16;
        self.bytes.extend_from_slice(&head.to_le_bytes());
        if !is_known {
            self.bytes.extend_from_slice(&counted.video.0.to_le_bytes());
            self.bytes.extend_from_slice(&counted.epoch.0.to_le_bytes());
        }
        if other_dims != 0 {
            self.bytes.extend_from_slice(&counted.dims.0.to_le_bytes());
            self.dims = counted.dims;
        }
        self.bytes.extend_from_slice(&counted.request.0.to_le_bytes());
    }
}

/// Calls `each` with the events of a shard that a segment notes, also one of the format before.
///
/// # Errors
/// The segment is damaged, or the first error of `each`.
pub fn each_counted(
    segment: &Segment,
    shard: u32,
    mut each: impl FnMut(&Counted) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let bytes = segment.section(SectionKind::Counted, shard)?;
    let mut fields = Fields::new(segment, &bytes);
    let (mut keys, mut dims) = (Vec::new(), DimsHash::NONE);
    while !fields.is_empty() {
        let head = u16::from_le_bytes(fields.array()?);
        let slot = head >> SLOT_SHIFT;
        let (video, epoch) = match keys.get(usize::from(slot)) {
            Some(&key) => key,
            None if slot == NO_SLOT || usize::from(slot) == keys.len() => {
                let key = (VideoHash(fields.u64()?), Epoch(fields.i64()?));
                if slot != NO_SLOT {
                    keys.push(key);
                }
                key
            }
            None => return Err(segment.damaged("an event counts in a tally that is nowhere named")),
        };
        if head & OTHER_DIMS != 0 {
            dims = DimsHash(fields.u64()?);
        }
        let kind = if head & PLAY != 0 { Kind::Play } else { Kind::Impression };
        each(&Counted { video, epoch, dims, request: RequestId(fields.u64()?), kind })?;
    }
    let bytes = segment.section(SectionKind::CountedBefore, shard)?;
    let mut fields = Fields::new(segment, &bytes);
    while !fields.is_empty() {
        each(&before(&mut fields)?)?;
    }
    Ok(())
}

/// An event as the format before has it: flags u8, 1 for a play and 2 where it has dimensions | video u64 |
/// request u64 | epoch i64 | dimensions u64 if it has any.
fn before(fields: &mut Fields<'_>) -> Result<Counted, CheckpointError> {
    let [flags] = fields.array()?;
    Ok(Counted {
        kind: if flags & 1 != 0 { Kind::Play } else { Kind::Impression },
        video: VideoHash(fields.u64()?),
        request: RequestId(fields.u64()?),
        epoch: Epoch(fields.i64()?),
        dims: DimsHash(if flags & 2 != 0 { fields.u64()? } else { 0 }),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::Sections;

    fn read(shards: Vec<Vec<u8>>) -> Result<Vec<Counted>, CheckpointError> {
        let mut sections = Sections::default();
        sections.put_shards(SectionKind::Counted, shards);
        let segment = Segment::decode("s", sections.encode()).unwrap();
        let mut all = Vec::new();
        for shard in 0..SHARDS {
            each_counted(&segment, shard, |counted| {
                all.push(*counted);
                Ok(())
            })?;
        }
        Ok(all)
    }

    /// Of one shard, in the order in which they came.
    fn counted() -> impl Strategy<Value = Vec<Counted>> {
        let event =
            (0u64..40, -2i64..3, prop_oneof![4 => Just(0u64), 1 => 0u64..3], any::<u64>(), any::<bool>());
        let of = |(video, epoch, dims, request, play)| Counted {
            video: VideoHash(video << 32),
            epoch: Epoch(epoch),
            dims: DimsHash(dims),
            request: RequestId(request),
            kind: if play { Kind::Play } else { Kind::Impression },
        };
        prop::collection::vec(event.prop_map(of), 0..300)
    }

    proptest! {
        #[test]
        fn what_was_noted_is_read(rounds in prop::collection::vec(counted(), 1..4), first in any::<bool>()) {
            let mut notes = CountedNotes { round: if first { 1 } else { u32::MAX }, ..CountedNotes::default() };
            let mut slots: HashMap<(VideoHash, Epoch), Slot> = HashMap::new();
            for round in rounds {
                for counted in &round {
                    notes.note(counted, slots.entry((counted.video, counted.epoch)).or_default());
                }
                let mut expected = round;
                let next = notes.next();
                let mut got = read(std::mem::replace(&mut notes, next).into_shards()).unwrap();
                let key = |c: &Counted| (shard(&c.video), c.video);
                // Events keep their order within a shard.
                expected.sort_by_key(key);
                got.sort_by_key(key);
                prop_assert_eq!(got, expected);
            }
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..200)) {
            let _ = read(vec![bytes]);
        }
    }

    #[test]
    fn more_tallies_than_slots_are_noted_in_full() {
        let mut notes = CountedNotes::default();
        let count = |n: u64| Counted {
            video: VideoHash(7),
            epoch: Epoch((n % 20_000) as i64),
            dims: DimsHash::NONE,
            request: RequestId(n),
            kind: Kind::Impression,
        };
        let (mut slots, all) = (vec![Slot::default(); 20_000], (0..50_000).map(count).collect::<Vec<_>>());
        all.iter().for_each(|counted| notes.note(counted, &mut slots[counted.epoch.0 as usize]));
        assert_eq!(read(notes.into_shards()).unwrap(), all);
    }

    #[test]
    fn what_the_format_before_has_is_read() {
        let (mut bytes, id) = (Vec::new(), |n: u64| n.to_le_bytes());
        // A play with dimensions, and an impression without any.
        bytes.extend([vec![3], [id(7), id(10), id(8), id(9)].concat()].concat());
        bytes.extend([vec![0], [id(u64::MAX), id(11), id(u64::MAX - 1)].concat()].concat());
        let mut sections = Sections::default();
        *sections.section(SectionKind::CountedBefore, 5) = bytes;
        let segment = Segment::decode("s", sections.encode()).unwrap();
        let mut read = Vec::new();
        each_counted(&segment, 5, |counted| {
            read.push(*counted);
            Ok(())
        })
        .unwrap();
        let counted = |video, epoch, dims, request, kind| Counted {
            video: VideoHash(video),
            epoch: Epoch(epoch),
            dims: DimsHash(dims),
            request: RequestId(request),
            kind,
        };
        let expected = [counted(7, 8, 9, 10, Kind::Play), counted(u64::MAX, -2, 0, 11, Kind::Impression)];
        assert_eq!(read, expected);
    }

    #[test]
    fn what_breaks_off_is_damaged() {
        let mut notes = CountedNotes::default();
        let counted = Counted {
            video: VideoHash(7),
            epoch: Epoch(8),
            dims: DimsHash(9),
            request: RequestId(10),
            kind: Kind::Play,
        };
        notes.note(&counted, &mut Slot::default());
        let bytes: Vec<u8> = notes.into_shards().concat();
        for end in 1..bytes.len() {
            assert!(read(vec![bytes[..end].to_vec()]).is_err(), "{end}");
        }
        // A slot that nothing has been given.
        assert!(read(vec![[4, 0].into_iter().chain([1; 8]).collect()]).is_err());
    }
}
