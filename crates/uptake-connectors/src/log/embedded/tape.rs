//! Writing a frame whole or not at all.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

use crate::faults::{is_armed, point};

/// What appending needs of a file; a test puts a full device here.
pub(super) trait Tape: Write + Seek {
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
    fn flush_to_device(&mut self) -> io::Result<()>;
}

impl Tape for File {
    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn flush_to_device(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Writes `frame` at `position`, the end of the file, or leaves the file as it was.
///
/// Where even cutting fails, the next append of anyone finds what is left: a part of a frame it
/// cuts, a whole one it takes for appended.
pub(super) fn write_or_cut(file: &mut impl Tape, position: u64, frame: &[u8], power: bool) -> io::Result<()> {
    let mut write = || {
        file.seek(SeekFrom::Start(position))?;
        point("about to write a frame");
        // A crash in the middle of a write, which one call of the system does not show.
        let half = if is_armed() { frame.len() / 2 } else { 0 };
        file.write_all(&frame[..half])?;
        point("half of a frame written");
        file.write_all(&frame[half..])?;
        point("frame written");
        if power {
            file.flush_to_device()?;
            point("frame flushed");
        }
        Ok(())
    };
    let written = write();
    if written.is_err() {
        let _ = file.cut(position);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A device with room for so many bytes, which may also refuse to flush.
    struct Device {
        content: Cursor<Vec<u8>>,
        room: usize,
        flushes: bool,
    }

    impl Write for Device {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let free = self.room.saturating_sub(self.content.get_ref().len());
            if free == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.content.write(&bytes[..bytes.len().min(free)])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Device {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.content.seek(to)
        }
    }

    impl Tape for Device {
        fn cut(&mut self, bytes: u64) -> io::Result<()> {
            self.content.get_mut().truncate(bytes as usize);
            Ok(())
        }

        fn flush_to_device(&mut self) -> io::Result<()> {
            if self.flushes { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }
    }

    #[test]
    fn an_append_that_meets_a_full_device_leaves_nothing() {
        let device = |room| Device { content: Cursor::default(), room, flushes: true };
        for (room, first, second) in [(10, true, true), (9, true, false), (5, true, false), (4, false, false)]
        {
            let mut device = device(room);
            assert_eq!(write_or_cut(&mut device, 0, b"frame", true).is_ok(), first);
            assert_eq!(device.content.get_ref().len(), if first { 5 } else { 0 });
            if first {
                assert_eq!(write_or_cut(&mut device, 5, b"again", true).is_ok(), second);
                assert_eq!(device.content.get_ref().len(), if second { 10 } else { 5 });
            }
        }
        // Refused only when flushed, as some file systems do: not acknowledged, so not there.
        let mut late = Device { flushes: false, ..device(100) };
        write_or_cut(&mut late, 0, b"frame", true).unwrap_err();
        assert!(late.content.get_ref().is_empty());
        write_or_cut(&mut late, 0, b"frame", false).unwrap();
    }
}
