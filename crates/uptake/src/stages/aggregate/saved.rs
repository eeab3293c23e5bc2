//! Tallies in checkpoints: sets of a part of all tallies, and the events counted since the one
//! before. Sets only grow, so what is read is united, in any order, as often as it is there.

use std::sync::Arc;

use uptake_flow::{Flow, KeyedState, shard};
use uptake_model::join::JoinRules;
use uptake_model::{DimsHash, Epoch, RequestId, VideoHash};

use super::counted::each_counted;
use super::{Behind, Open, Tallies, TallyKey, add};
use crate::checkpoint::{
    CheckpointError, Coordinator, Fields, ROUND, Restored, SectionKind, Sections, each_due, for_own_shards,
    put_part, shard_buffers,
};

impl Behind {
    /// Video u64 | epoch i64 | request u64 | u8, whether a member follows | member u64.
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.video.0.to_le_bytes());
        out.extend_from_slice(&self.epoch.0.to_le_bytes());
        out.extend_from_slice(&self.request.0.to_le_bytes());
        out.push(self.member.is_some().into());
        self.member.iter().for_each(|member| out.extend_from_slice(&member.to_le_bytes()));
    }

    pub(in crate::stages) fn load(fields: &mut Fields<'_>) -> Result<Self, CheckpointError> {
        let (video, epoch) = (VideoHash(fields.u64()?), Epoch(fields.i64()?));
        let request = RequestId(fields.u64()?);
        let [has_member] = fields.array()?;
        let member = if has_member == 1 { Some(fields.u64()?) } else { None };
        Ok(Self { video, epoch, request, member })
    }
}

impl Tallies {
    /// What belongs into checkpoint `number`.
    ///
    /// Names: hash u64, last epoch i64, text. Dimensions: hash, last epoch, number of values u32,
    /// values. Tallies: video u64, epoch i64, segment, sets; texts and sets behind their lengths.
    pub(super) fn save(&mut self, number: u64) -> Sections {
        let mut sections = Sections::default();
        let Some(changes) = &mut self.since_checkpoint else { return sections };
        let changes = changes.take();
        let is_due = |hash: u64| Coordinator::takes_part(number, hash as usize % ROUND);
        let mut names = shard_buffers();
        let mut put_name = |video: VideoHash| {
            if let Some((id, last)) = self.videos.get(&video) {
                let out = &mut names[shard(&video) as usize];
                out.extend_from_slice(&video.0.to_le_bytes());
                out.extend_from_slice(&last.0.to_le_bytes());
                put_part(out, id.as_bytes());
            }
        };
        changes.videos.into_iter().filter(|video| !is_due(video.0)).for_each(&mut put_name);
        self.videos.keys().filter(|video| is_due(video.0)).for_each(|video| put_name(*video));
        // Every worker has them all.
        if self.worker == 0 {
            let out = sections.section(SectionKind::Dimensions, 0);
            let told = changes.dims.into_iter().filter(|dims| !is_due(dims.0));
            for dims in told.chain(self.groups.by_dims.keys().copied().filter(|dims| is_due(dims.0))) {
                let Some(group) = self.groups.by_dims.get(&dims).filter(|_| dims != DimsHash::NONE) else {
                    continue;
                };
                out.extend_from_slice(&dims.0.to_le_bytes());
                out.extend_from_slice(&group.last.0.to_le_bytes());
                out.extend_from_slice(&(group.values.len() as u32).to_le_bytes());
                group.values.iter().for_each(|value| put_part(out, value.as_bytes()));
            }
        }
        let (mut tallies, mut sets) = (shard_buffers(), Vec::new());
        let segments = &self.groups.names;
        let mut put = |key: &TallyKey, open: &mut Open, _| {
            let out = &mut tallies[shard(&key.video) as usize];
            out.extend_from_slice(&key.video.0.to_le_bytes());
            out.extend_from_slice(&key.epoch.0.to_le_bytes());
            put_part(out, segments[key.segment as usize].as_bytes());
            sets.clear();
            open.tally.save(&mut sets);
            put_part(out, &sets);
        };
        match changes.whole {
            true => (0..self.states.parts()).for_each(|part| self.states.part(part, &mut put)),
            false => each_due(number, &mut self.states, &mut put),
        }
        sections.put_shards(SectionKind::Names, names);
        sections.put_shards(SectionKind::Tallies, tallies);
        sections.put_shards(SectionKind::Counted, changes.counted.into_shards());
        sections.put_shards(SectionKind::Behind, changes.behind);
        sections
    }

    /// Takes this worker's tallies out of a checkpoint.
    pub(super) fn restore(&mut self, restored: &Restored, flow: &Flow<'_>) -> Result<(), CheckpointError> {
        // Whether it was sealed when the checkpoint was taken, by the lateness that held then: what was not is still
        // to be sealed, whatever the lateness is now.
        let lateness_ms = restored.manifest.lateness_ms.unwrap_or(self.config.join.lateness_ms);
        let kept_ms = JoinRules { lateness_ms, ..self.config.join }.retention_ms();
        let (epochs, watermark) = (self.config.epoch, restored.manifest.watermark);
        let was_sealed =
            |epoch: Epoch| KeyedState::<TallyKey, Open>::is_over(epochs.end(epoch).plus(kept_ms), watermark);
        for section in restored.sections(SectionKind::Dimensions, 0) {
            let (segment, bytes) = section?;
            let mut fields = Fields::new(segment, &bytes);
            while !fields.is_empty() {
                let (dims, last) = (DimsHash(fields.u64()?), Epoch(fields.i64()?));
                let count = fields.u32()? as usize;
                if count != self.config.segments.dimensions().len() {
                    return Err(segment.damaged("it has other dimensions than the configuration"));
                }
                let values = (0..count).map(|_| fields.text().map(str::to_owned));
                let values = values.collect::<Result<Vec<_>, _>>()?;
                self.groups.tell(&self.config, dims, values, last);
            }
        }
        for_own_shards(flow, |shard| {
            for section in restored.sections(SectionKind::Names, shard) {
                let (segment, bytes) = section?;
                let mut fields = Fields::new(segment, &bytes);
                while !fields.is_empty() {
                    let (video, epoch) = (VideoHash(fields.u64()?), Epoch(fields.i64()?));
                    let id: Arc<str> = fields.text()?.into();
                    let (_, last) = self.videos.entry(video).or_insert((id, epoch));
                    *last = epoch.max(*last);
                }
            }
            for section in restored.sections(SectionKind::Tallies, shard) {
                let (segment, bytes) = section?;
                let mut fields = Fields::new(segment, &bytes);
                while !fields.is_empty() {
                    let (video, epoch) = (VideoHash(fields.u64()?), Epoch(fields.i64()?));
                    let (name, sets) = (fields.text()?, fields.part()?);
                    // What had been sealed by then is in older segments still.
                    if was_sealed(epoch) {
                        continue;
                    }
                    let key = TallyKey { video, epoch, segment: self.groups.number(name) };
                    let sealed_at = self.config.sealed_at(epoch);
                    let open = self.states.entry(&key, Some(sealed_at)).get_or_insert_default();
                    open.tally
                        .merge_saved(sets, self.config.tally)
                        .map_err(|error| segment.damaged(error.to_string()))?;
                }
            }
            for segment in &restored.segments {
                each_counted(segment, shard, |counted| {
                    let (states, groups) = (&mut self.states, &self.groups);
                    match was_sealed(counted.epoch) || add(states, groups, &self.config, counted).is_some() {
                        true => Ok(()),
                        false => Err(segment.damaged("an event has dimensions that are nowhere named")),
                    }
                })?;
            }
            for section in restored.sections(SectionKind::Behind, shard) {
                let (segment, bytes) = section?;
                let mut fields = Fields::new(segment, &bytes);
                while !fields.is_empty() {
                    let behind = Behind::load(&mut fields)?;
                    if !was_sealed(behind.epoch) {
                        self.add_behind(&behind);
                    }
                }
            }
            Ok(())
        })?;
        self.videos.retain(|_, (_, last)| !was_sealed(*last));
        Ok(())
    }
}
