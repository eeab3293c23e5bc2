//! Several processes as one cluster: finding together by a deadline, and noticing who is gone.
//!
//! Each process listens on its own address and calls those before it. A greeting makes sure that
//! both sides mean the same run of the same program. What follows is timely's own protocol, which
//! has neither encryption nor authentication: the addresses must be on a private network.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::{
    CommsGuard, initialize_networking_from_sockets,
};
use timely::communication::allocator::zero_copy::stream::Stream;
use timely::communication::{AllocatorBuilder, Hooks};

use crate::run::{Error, Failure, Halt};

/// The processes that run one flow together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    /// This process's number, from 0.
    pub process: usize,
    /// Where each process listens, as `host:port`.
    pub addresses: Vec<String>,
    /// What all processes must agree on, such as a hash of version and configuration.
    pub fingerprint: u64,
    /// How long to wait for the others at the start.
    pub start_deadline: Duration,
    /// How long a batch may take before a peer is taken for lost.
    pub progress_deadline: Duration,
}

const MAGIC: [u8; 8] = *b"uptakecl";
/// Magic, fingerprint, number of processes, workers in each, number of this one.
const GREETING_BYTES: usize = 8 + 8 + 4 + 4 + 4;
/// A stranger's connection is dropped if it says nothing for as long.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks for the others: twice as long each time, up to the second.
const RETRY_AFTER: Duration = Duration::from_millis(1);
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// How long the last messages may take to leave at the end of a run.
const FAREWELL: Duration = Duration::from_secs(10);

/// What greets a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Greeting {
    fingerprint: u64,
    processes: u32,
    workers: u32,
    process: u32,
}

impl Greeting {
    fn send(self, socket: &mut TcpStream) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(GREETING_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.fingerprint.to_le_bytes());
        for number in [self.processes, self.workers, self.process] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        socket.write_all(&bytes)
    }

    /// `None`: whoever called is not one of us.
    fn receive(socket: &mut TcpStream) -> io::Result<Option<Self>> {
        let (mut magic, mut fingerprint, mut numbers) = ([0; 8], [0; 8], [[0; 4]; 3]);
        socket.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Ok(None);
        }
        socket.read_exact(&mut fingerprint)?;
        for number in &mut numbers {
            socket.read_exact(number)?;
        }
        let [processes, workers, process] = numbers.map(u32::from_le_bytes);
        Ok(Some(Self { fingerprint: u64::from_le_bytes(fingerprint), processes, workers, process }))
    }
}

/// The connections to the other processes.
pub(crate) struct Network {
    guard: CommsGuard,
}

impl Network {
    /// Lets the last messages leave. After a failure the connections were cut already.
    pub(crate) fn close(self, failed: bool) {
        if failed {
            // Its threads wait for what will not come, until the process ends.
            std::mem::forget(self.guard);
            return;
        }
        let (done, wait) = mpsc::channel();
        std::thread::spawn(move || {
            drop(self.guard);
            // Nobody listens any more where this took too long.
            let _ = done.send(());
        });
        let _ = wait.recv_timeout(FAREWELL);
    }
}

impl Cluster {
    fn failed(reason: impl Into<String>) -> Error {
        Error::Cluster { reason: reason.into() }
    }

    /// Connects to all others, and gives the parts that the workers are built of; `None` if it was
    /// told to stop before they were all there.
    pub(crate) fn connect(
        &self,
        workers: usize,
        failure: &Arc<Failure>,
        halt: &Halt,
    ) -> Result<Option<(Vec<AllocatorBuilder>, Network)>, Error> {
        let Some(sockets) = self.sockets(workers, halt)? else { return Ok(None) };
        let io = |e: io::Error| Self::failed(format!("cannot use a connection: {e}"));
        let mut kept = Vec::new();
        let mut watched = Vec::new();
        for (process, socket) in sockets.into_iter().enumerate() {
            let Some(socket) = socket else {
                watched.push(None);
                continue;
            };
            socket.set_read_timeout(None).map_err(io)?;
            socket.set_nodelay(true).map_err(io)?;
            kept.push(socket.try_clone().map_err(io)?);
            let peer =
                Peer { process, address: self.addresses[process].clone(), failure: Arc::clone(failure) };
            watched.push(Some(Watched { socket, peer: Arc::new(peer), framing: Framing::default() }));
        }
        // A process that fails must not take its leave as one that has finished: workers that end
        // would have it say so, and the others would wait for it.
        failure.cuts(kept);
        let hooks = Hooks::default();
        let threads = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
        let (builders, guard) =
            initialize_networking_from_sockets(threads, watched, self.process, workers, hooks).map_err(io)?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        Ok(Some((builders, Network { guard })))
    }

    /// A socket to each other process, by number.
    fn sockets(&self, workers: usize, halt: &Halt) -> Result<Option<Vec<Option<TcpStream>>>, Error> {
        let greeting = Greeting {
            fingerprint: self.fingerprint,
            processes: self.addresses.len() as u32,
            workers: workers as u32,
            process: self.process as u32,
        };
        let own = self.addresses.get(self.process).ok_or_else(|| {
            let n = self.addresses.len();
            Self::failed(format!("this is process {}, but there are only {n} addresses", self.process))
        })?;
        let cannot_listen =
            |e| Self::failed(format!("cannot listen on {own}, the address of process {}: {e}", self.process));
        let listener = TcpListener::bind(own).map_err(cannot_listen)?;
        listener.set_nonblocking(true).map_err(cannot_listen)?;
        let mut sockets: Vec<Option<TcpStream>> = self.addresses.iter().map(|_| None).collect();
        let deadline = Instant::now() + self.start_deadline;
        let mut pause = RETRY_AFTER;
        loop {
            for (process, socket) in sockets.iter_mut().enumerate().take(self.process) {
                if socket.is_none() {
                    *socket = self.call(process, greeting)?;
                }
            }
            while let Some((process, socket)) = self.answer(&listener, greeting)? {
                // One that called again was started again.
                sockets[process] = Some(socket);
            }
            // Whoever begins with a connection that has ended loses its peer at once, and starts
            // again while the others still hold its own: three could go on so for ever, each
            // waiting for one that has just gone.
            for socket in &mut sockets {
                socket.take_if(|socket| has_ended(socket));
            }
            let missing: Vec<usize> =
                (0..sockets.len()).filter(|&p| p != self.process && sockets[p].is_none()).collect();
            if missing.is_empty() {
                return Ok(Some(sockets));
            }
            if halt.is_halted() {
                return Ok(None);
            }
            if Instant::now() > deadline {
                let names: Vec<String> =
                    missing.iter().map(|&p| format!("{p} ({})", self.addresses[p])).collect();
                return Err(Error::Missing { missing: names.join(", "), waited: self.start_deadline });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(RETRY_EVERY);
        }
    }

    /// Calls a process; `None` if it does not listen yet.
    fn call(&self, process: usize, greeting: Greeting) -> Result<Option<TcpStream>, Error> {
        let address = &self.addresses[process];
        let resolved = address.to_socket_addrs().map_err(|e| {
            Self::failed(format!("the address of process {process}, {address}, means nothing: {e}"))
        })?;
        for address in resolved {
            let Ok(mut socket) = TcpStream::connect_timeout(&address, GREETING_TIMEOUT) else { continue };
            let greeted = socket
                .set_read_timeout(Some(GREETING_TIMEOUT))
                .and_then(|()| greeting.send(&mut socket))
                .and_then(|()| Greeting::receive(&mut socket));
            // Without a greeting it may be an old one that is just ending.
            if let Ok(Some(other)) = greeted {
                self.check(greeting, other)?;
                if other.process as usize == process {
                    return Ok(Some(socket));
                }
                return Err(Self::failed(format!(
                    "{address} should be process {process} but says it is process {}",
                    other.process
                )));
            }
        }
        Ok(None)
    }

    /// Takes the next call that waits, if any of ours does.
    fn answer(
        &self,
        listener: &TcpListener,
        greeting: Greeting,
    ) -> Result<Option<(usize, TcpStream)>, Error> {
        while let Ok((mut socket, _)) = listener.accept() {
            let greeted = socket
                .set_nonblocking(false)
                .and_then(|()| socket.set_read_timeout(Some(GREETING_TIMEOUT)))
                .and_then(|()| Greeting::receive(&mut socket));
            // A stranger, or one that went away again.
            let Ok(Some(other)) = greeted else { continue };
            // It is told who we are in any case, so that both sides can say what is wrong.
            if greeting.send(&mut socket).is_err() {
                continue;
            }
            self.check(greeting, other)?;
            let process = other.process as usize;
            if process > self.process && process < self.addresses.len() {
                return Ok(Some((process, socket)));
            }
        }
        Ok(None)
    }

    fn check(&self, own: Greeting, other: Greeting) -> Result<(), Error> {
        let differs = |what: &str| {
            Err(Self::failed(format!(
                "process {} has {what} than process {}; start all with the same program and settings",
                other.process, own.process
            )))
        };
        if other.processes != own.processes {
            return differs("another number of hosts");
        }
        if other.workers != own.workers {
            return differs("another number of workers");
        }
        if other.fingerprint != own.fingerprint {
            return differs("another version, configuration, cluster name or checkpoint");
        }
        Ok(())
    }
}

/// Whether the other side has closed the connection, as far as one can know without a word of it.
fn has_ended(socket: &TcpStream) -> bool {
    let looked = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut [0]));
    let ended = match looked {
        Ok(bytes) => bytes == 0,
        Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
    };
    ended || socket.set_nonblocking(false).is_err()
}

/// Whom a connection leads to.
struct Peer {
    process: usize,
    address: String,
    failure: Arc<Failure>,
}

/// The head of a timely message: six big-endian numbers, the fifth being the length of what
/// follows. One of zeros is the farewell.
const HEAD_BYTES: usize = 48;

/// Follows the messages in what is read, to tell a farewell from a connection that broke, whatever
/// bytes came last.
#[derive(Clone, Debug)]
struct Framing {
    head: [u8; HEAD_BYTES],
    /// How much of the head is there.
    have: usize,
    /// How much of the message is to come.
    body_left: u64,
    is_farewell: bool,
}

impl Default for Framing {
    fn default() -> Self {
        Self { head: [0; HEAD_BYTES], have: 0, body_left: 0, is_farewell: false }
    }
}

impl Framing {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let skipped = bytes.len().min(usize::try_from(self.body_left).unwrap_or(usize::MAX));
                self.body_left -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = bytes.len().min(HEAD_BYTES - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            (self.have, bytes) = (self.have + taken, &bytes[taken..]);
            if self.have == HEAD_BYTES {
                let length = self.head[32..40].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
                (self.have, self.body_left) = (0, length);
                self.is_farewell = self.head == [0; HEAD_BYTES];
            }
        }
    }

    /// Whether the last message was the farewell, and it was whole.
    fn has_ended(&self) -> bool {
        self.is_farewell && self.have == 0
    }
}

/// A socket whose end is reported in a line of ours: timely panics in a thread of its own.
struct Watched {
    socket: TcpStream,
    peer: Arc<Peer>,
    framing: Framing,
}

impl Watched {
    /// Says that the peer is gone. The thread has nothing left to do, and returning an error
    /// would make it panic.
    fn lost(&self, reason: impl Into<String>) -> ! {
        self.peer.failure.set(Error::PeerLost {
            process: self.peer.process,
            address: self.peer.address.clone(),
            reason: reason.into(),
        });
        loop {
            std::thread::park();
        }
    }
}

impl Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(into) {
                Ok(0) if self.framing.has_ended() => return Ok(0),
                Ok(0) => self.lost("it closed the connection"),
                Ok(n) => {
                    self.framing.follow(&into[..n]);
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.lost(e.to_string()),
            }
        }
    }
}

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.socket.write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.lost(e.to_string()),
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().or_else(|e| self.lost(e.to_string()))
    }
}

impl Stream for Watched {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            peer: Arc::clone(&self.peer),
            framing: self.framing.clone(),
        })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // At the end of a run the other side may have closed first.
        self.socket.shutdown(how).or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(addresses: &[String], process: usize, halt: &Halt) -> std::thread::JoinHandle<Joined> {
        let cluster = Cluster {
            process,
            addresses: addresses.to_vec(),
            fingerprint: 7,
            start_deadline: Duration::from_secs(20),
            progress_deadline: Duration::from_secs(20),
        };
        let halt = halt.clone();
        std::thread::spawn(move || cluster.sockets(1, &halt).map_err(|error| error.to_string()))
    }

    type Joined = Result<Option<Vec<Option<TcpStream>>>, String>;

    /// Until a process that waits for another has met it.
    fn a_moment() {
        std::thread::sleep(3 * RETRY_EVERY);
    }

    #[test]
    fn a_farewell_is_told_from_zeros_at_the_end_of_a_message() {
        let message = |length: usize| {
            let mut bytes = vec![0u8; HEAD_BYTES + length];
            bytes[32..40].copy_from_slice(&(length as u64).to_be_bytes());
            bytes
        };
        let ended = |bytes: &[u8], step: usize| {
            let mut framing = Framing::default();
            bytes.chunks(step).for_each(|part| framing.follow(part));
            framing.has_ended()
        };
        for step in [1, 7, 48, 1_000] {
            let zeros = message(200);
            assert!(!ended(&zeros, step), "the message ends with zeros");
            assert!(!ended(&zeros[..150], step) && !ended(&zeros[..20], step) && !ended(&[], step));
            let farewell = [zeros.clone(), message(0)].concat();
            assert!(ended(&farewell, step));
            assert!(!ended(&farewell[..farewell.len() - 1], step));
            assert!(!ended(&[farewell, vec![0]].concat(), step), "something follows");
        }
    }

    #[test]
    fn a_failure_cuts_the_connections_before_anybody_acts_on_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut there, _) = listener.accept().unwrap();
        let failure = Failure::default();
        failure.cuts(vec![here.try_clone().unwrap()]);
        failure.set(Error::NoProgress { waited: Duration::ZERO });
        assert_eq!(there.read(&mut [0]).unwrap(), 0, "the other side has noticed");
        assert!((&here).write_all(&[0; HEAD_BYTES]).is_err(), "no farewell leaves any more");
    }

    #[test]
    fn who_waits_lets_go_of_who_went_and_meets_it_again() {
        let free: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<String> = free.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        drop(free);
        for gone in [0, 1] {
            let (stays, goes) = (Halt::default(), Halt::default());
            let other = join(&addresses, 1 - gone, &stays);
            let first = join(&addresses, gone, &goes);
            a_moment();
            // The third is not there yet when one of the two that have met goes, and comes again.
            goes.halt();
            assert!(first.join().unwrap().unwrap().is_none());
            let last = join(&addresses, 2, &stays);
            a_moment();
            assert!(!other.is_finished(), "it began with a connection that had ended");
            let again = join(&addresses, gone, &stays);
            let all = [other, last, again].map(|process| process.join().unwrap().unwrap().unwrap());
            for sockets in &all {
                assert_eq!(sockets.iter().flatten().count(), 2);
                assert!(sockets.iter().flatten().all(|socket| !has_ended(socket)));
            }
        }
    }
}
