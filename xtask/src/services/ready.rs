//! Whether a server does its work yet: an open port says little.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Kind;
use super::server::Server;
use crate::error::{Error, Result};

/// How long a server may take on a machine that does other things too.
const DEADLINE: Duration = Duration::from_secs(180);

/// The most that one question may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Waits until the server answers.
pub(super) fn wait(server: &Server, kind: Kind, port: u16) -> Result<()> {
    let began = Instant::now();
    loop {
        let ready = match kind {
            Kind::Kafka => kafka(port),
            Kind::Cassandra => cassandra(port),
            Kind::S3 => s3(port),
        };
        if ready.is_ok_and(|ready| ready) {
            return Ok(());
        }
        let why = match server.pid() {
            None => "has ended",
            Some(_) if began.elapsed() > DEADLINE => "does not answer",
            Some(_) => {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let (name, log) = (kind.name(), server.folder().join("log"));
        return Err(Error::Other(format!(
            "{name} {why}; the end of {}:\n{}",
            log.display(),
            server.log_end()
        )));
    }
}

/// Sends a question and reads as many bytes of the answer as asked for.
fn ask<const N: usize>(port: u16, question: &[u8]) -> std::io::Result<[u8; N]> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(question)?;
    let mut answer = [0; N];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// Whether the metadata name a broker: it takes connections before it is registered.
fn kafka(port: u16) -> std::io::Result<bool> {
    // Metadata, version 1, correlation 1, no client id, no topics.
    let answer: [u8; 12] = ask(port, &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 255, 255, 0, 0, 0, 0])?;
    Ok(answer[8..] > [0, 0, 0, 0][..])
}

/// Whether OPTIONS is answered with SUPPORTED.
fn cassandra(port: u16) -> std::io::Result<bool> {
    let answer: [u8; 5] = ask(port, &[4, 0, 0, 0, 5, 0, 0, 0, 0])?;
    Ok(answer[4] == 6)
}

/// Whether HTTP is spoken.
fn s3(port: u16) -> std::io::Result<bool> {
    let answer: [u8; 5] = ask(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    Ok(&answer == b"HTTP/")
}
