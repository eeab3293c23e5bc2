//! What the events of a request usually share.

use crate::DamagedState;
use crate::bytes::{put_u64, put_varint, take_u64, take_varint};
use crate::event::Event;
use crate::ids::{DimsHash, MemberHash};

/// Everything of an event that the join passes on and does not ask about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Context {
    pub(crate) member: MemberHash,
    pub(crate) dims: DimsHash,
    pub(crate) partition: u32,
}

impl Context {
    /// Bytes of the shortest saved context.
    pub(crate) const SAVED_BYTES_MIN: usize = 1;

    #[inline]
    pub(crate) fn of(event: &Event) -> Self {
        Self { member: event.member, dims: event.dims, partition: event.partition }
    }

    /// Appends varint(partition << 2 | dims follow << 1 | member follows), then those that are
    /// not 0, which stands for none.
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        let (member, dims) = (self.member.0, self.dims.0);
        put_varint(out, u64::from(self.partition) << 2 | u64::from(dims != 0) << 1 | u64::from(member != 0));
        [member, dims].into_iter().filter(|v| *v != 0).for_each(|v| put_u64(out, v));
    }

    pub(crate) fn take(bytes: &mut &[u8]) -> Result<Self, DamagedState> {
        let head = take_varint(bytes)?;
        let member = MemberHash(if head & 1 != 0 { take_u64(bytes)? } else { 0 });
        let dims = DimsHash(if head & 2 != 0 { take_u64(bytes)? } else { 0 });
        let partition =
            u32::try_from(head >> 2).map_err(|_| DamagedState("no partition has such a number"))?;
        Ok(Self { member, dims, partition })
    }
}
