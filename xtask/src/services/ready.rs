//! Whether a server does its work yet: an open port says little.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Kind;
use super::server::{CASSANDRA_USER, Server};
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

fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

/// Sends a question and reads as many bytes of the answer as asked for.
fn ask<const N: usize>(port: u16, question: &[u8]) -> std::io::Result<[u8; N]> {
    let mut stream = connect(port)?;
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

/// Whether its first user may log in: it makes that one after it takes connections.
fn cassandra(port: u16) -> std::io::Result<bool> {
    const STARTUP: u8 = 1;
    const AUTHENTICATE: u8 = 3;
    const AUTH_RESPONSE: u8 = 15;
    const AUTH_SUCCESS: u8 = 16;
    let mut stream = connect(port)?;
    let mut ask = |operation: u8, body: &[u8]| {
        let mut frame = vec![4, 0, 0, 0, operation];
        frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
        frame.extend_from_slice(body);
        stream.write_all(&frame)?;
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        std::io::copy(&mut (&mut stream).take(length.into()), &mut std::io::sink())?;
        std::io::Result::Ok(head[4])
    };
    // A map of one text to another; then bytes with their length.
    if ask(STARTUP, b"\0\x01\0\x0bCQL_VERSION\0\x053.0.0")? != AUTHENTICATE {
        return Ok(false);
    }
    let login = format!("\0{CASSANDRA_USER}\0{CASSANDRA_USER}");
    let body = [&(login.len() as u32).to_be_bytes()[..], login.as_bytes()].concat();
    Ok(ask(AUTH_RESPONSE, &body)? == AUTH_SUCCESS)
}

/// Whether HTTP is spoken.
fn s3(port: u16) -> std::io::Result<bool> {
    let answer: [u8; 5] = ask(port, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    Ok(&answer == b"HTTP/")
}
