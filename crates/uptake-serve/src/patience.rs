//! How long a client is waited for: to begin, and to take what it asked for.
//!
//! HTTP of either version has its own deadlines only once it is known which version is spoken; until then, and while
//! nothing that is written leaves, a client could hold a connection for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// What a client of HTTP/2 begins with. What differs from it is HTTP/1.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose client must say within a time which version it speaks, and must take something of what is written
/// to it within another one.
pub(crate) struct Patient<S> {
    stream: S,
    /// How much of the preface has come; `None` when the version is known.
    begun: Option<usize>,
    begin_within: Pin<Box<Sleep>>,
    take_within: Duration,
    /// When the client must have taken something; unset while nothing waits for it.
    taken_by: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S, begin_within: Duration, take_within: Duration) -> Self {
        let begin_within = Box::pin(sleep(begin_within));
        Self { stream, begun: Some(0), begin_within, take_within, taken_by: None }
    }

    fn note_begun(&mut self, new: &[u8]) {
        let Some(begun) = self.begun else { return };
        let rest = &PREFACE[begun..];
        let is_part = new.len() < rest.len() && rest.starts_with(new);
        self.begun = is_part.then_some(begun + new.len());
    }

    /// What came of writing; a failure if it waits for the client for too long.
    fn taken<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.taken_by = None;
            return written;
        }
        let until = Instant::now() + self.take_within;
        let taken_by = self.taken_by.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        ready!(taken_by.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if self.begun.is_none() {
            return read;
        }
        if read.is_ready() {
            self.note_begun(&buffer.filled()[before..]);
            return read;
        }
        ready!(self.begin_within.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.taken(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.taken(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.taken(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.taken(ended, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const SOON: Duration = Duration::from_millis(100);
    const LATER: Duration = Duration::from_secs(60);

    fn wait<T>(what: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), what).await.unwrap() })
    }

    /// What reading comes to after the client has sent this and says nothing more.
    fn read_after(sent: &'static [&'static [u8]]) -> Option<io::ErrorKind> {
        wait(async {
            let (mut client, server) = duplex(1_024);
            let mut server = Patient::new(server, SOON, LATER);
            let mut bytes = [0; 64];
            for part in sent {
                client.write_all(part).await.unwrap();
                server.read_exact(&mut bytes[..part.len()]).await.unwrap();
            }
            let read = tokio::time::timeout(5 * SOON, server.read(&mut bytes)).await;
            read.ok().map(|read| read.unwrap_err().kind())
        })
    }

    #[test]
    fn who_does_not_say_which_version_it_speaks_is_not_waited_for() {
        let late = Some(io::ErrorKind::TimedOut);
        assert_eq!(read_after(&[]), late);
        assert_eq!(read_after(&[b"PRI "]), late);
        assert_eq!(read_after(&[b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r"]), late);
        // From here on the version's own deadlines hold.
        assert_eq!(read_after(&[b"PRI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\n"]), None);
        assert_eq!(read_after(&[b"P", b"O"]), None);
        assert_eq!(read_after(&[b"GET /"]), None);
        assert_eq!(read_after(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore"]), None);
    }

    #[test]
    fn who_takes_nothing_of_its_answer_is_not_waited_for() {
        wait(async {
            let (mut client, server) = duplex(16);
            let mut server = Patient::new(server, LATER, SOON);
            let writing = tokio::spawn(async move { server.write_all(&[7; 64]).await });
            // As long as it takes something it may be slow.
            let mut bytes = [0; 8];
            for _ in 0..3 {
                tokio::time::sleep(SOON / 2).await;
                client.read_exact(&mut bytes).await.unwrap();
            }
            assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }
}
