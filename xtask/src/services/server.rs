//! One server: its folder, its process, its end.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Kind, Variables};
use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

/// How many ports each server is given; the first is the one that clients use.
pub(super) const PORTS: usize = 3;

/// The credentials of the S3 server, which is reached from this machine only.
const S3_KEY: &str = "uptake";
const S3_SECRET: &str = "uptake-secret";
/// Who may log in to Kafka over TLS; the password is that of `kafka.properties`.
const KAFKA_USER: &str = "uptake";
/// The first user of every new Cassandra, by its name and password.
pub(super) const CASSANDRA_USER: &str = "cassandra";
/// Of the login to Kafka, and of the file with the servers' key.
const SECRET: &str = "uptake-secret";
/// A bucket that is there.
const S3_BUCKET: &str = "uptake";

/// A start script, but for the command; pid and start of the process are written down.
const START: &str = include_str!("../../services/start.sh");

/// Kills the servers of a folder when a process is gone.
const WATCH: &str = include_str!("../../services/watch.sh");

/// Any one will do; a fixed one saves a start of Java.
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// A server in its folder.
pub(super) struct Server {
    kind: Kind,
    folder: PathBuf,
}

impl Server {
    /// The server of this kind below `folder`, whether it runs or not.
    pub(super) fn of(folder: &Path, kind: Kind) -> Self {
        Self { kind, folder: folder.join(kind.name()) }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes its folder anew, without data.
    pub(super) fn create(&self, workspace: &Workspace, installed: &Path, ports: &[u16]) -> Result<Variables> {
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).map_err(Error::io("remove", &self.folder))?;
        }
        fs::create_dir_all(&self.folder).map_err(Error::io("create", &self.folder))?;
        let address = format!("127.0.0.1:{}", ports[0]);
        let copy = |name: &str| self.copy(workspace, name, ports);
        let jars = format!("-cp {}", quoted(&installed.join("*")));
        match self.kind {
            Kind::Kafka => {
                copy("kafka.properties")?;
                copy("log4j2.xml")?;
                let certificate = self.certificate()?;
                let mut format = process::command("java");
                format.args(["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp"]).arg(installed.join("*"));
                format.arg("-Dlog4j2.configurationFile=log4j2.xml").current_dir(&self.folder);
                format.args([
                    "kafka.tools.StorageTool",
                    "format",
                    "-t",
                    CLUSTER_ID,
                    "-c",
                    "kafka.properties",
                ]);
                process::quietly(&mut format, "")?;
                self.script(&format!(
                    "java -Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true \
                     -Dlog4j2.configurationFile=log4j2.xml {jars} kafka.Kafka kafka.properties"
                ))?;
                Ok(vec![
                    ("UPTAKE_TEST_KAFKA".into(), address),
                    ("UPTAKE_TEST_KAFKA_SECURE".into(), format!("127.0.0.1:{}", ports[2])),
                    ("UPTAKE_TEST_KAFKA_CA".into(), certificate),
                    ("UPTAKE_TEST_KAFKA_USER".into(), KAFKA_USER.into()),
                    ("UPTAKE_TEST_KAFKA_PASSWORD".into(), SECRET.into()),
                ])
            }
            Kind::Cassandra => {
                copy("cassandra.yaml")?;
                copy("logback.xml")?;
                copy("cassandra.jvm")?;
                let certificate = self.certificate()?;
                self.script(&format!(
                    "java @cassandra.jvm -Dcassandra.config=\"file://$PWD/cassandra.yaml\" \
                     -Dcassandra.storagedir=\"$PWD/data\" -Dlogback.configurationFile=logback.xml {jars} \
                     org.apache.cassandra.service.CassandraDaemon"
                ))?;
                Ok(vec![
                    ("UPTAKE_TEST_CASSANDRA".into(), address),
                    ("UPTAKE_TEST_CASSANDRA_CA".into(), certificate),
                    ("UPTAKE_TEST_CASSANDRA_USER".into(), CASSANDRA_USER.into()),
                    ("UPTAKE_TEST_CASSANDRA_PASSWORD".into(), CASSANDRA_USER.into()),
                ])
            }
            Kind::S3 => {
                let bucket = self.folder.join("data").join(S3_BUCKET);
                fs::create_dir_all(&bucket).map_err(Error::io("create", &bucket))?;
                let program = quoted(&installed.join("versitygw"));
                self.script(&format!(
                    "env ROOT_ACCESS_KEY={S3_KEY} ROOT_SECRET_KEY={S3_SECRET} {program} --port {address} posix data"
                ))?;
                Ok(vec![
                    ("UPTAKE_TEST_S3".into(), format!("http://{address}")),
                    ("UPTAKE_TEST_S3_KEY".into(), S3_KEY.into()),
                    ("UPTAKE_TEST_S3_SECRET".into(), S3_SECRET.into()),
                    ("UPTAKE_TEST_S3_BUCKET".into(), S3_BUCKET.into()),
                ])
            }
        }
    }

    /// Makes a key in `server.p12`, and its certificate in `server.pem`, whose path it returns.
    fn certificate(&self) -> Result<String> {
        let keytool = |words: &[&str]| {
            let mut command = process::command("keytool");
            command.args(words).args(["-alias", "server", "-keystore", "server.p12", "-storepass", SECRET]);
            process::quietly(command.current_dir(&self.folder), "; it comes with Java")
        };
        keytool(&[
            "-genkeypair",
            "-storetype",
            "PKCS12",
            "-keyalg",
            "EC",
            "-dname",
            "CN=localhost",
            "-ext",
            "san=ip:127.0.0.1,dns:localhost",
            "-validity",
            "30",
        ])?;
        keytool(&["-exportcert", "-rfc", "-file", "server.pem"])?;
        Ok(self.folder.join("server.pem").display().to_string())
    }

    /// Copies a file of `xtask/services` and fills in where this server is.
    fn copy(&self, workspace: &Workspace, name: &str, ports: &[u16]) -> Result<()> {
        let from = workspace.root.join("xtask/services").join(name);
        let text = fs::read_to_string(&from).map_err(Error::io("read", &from))?;
        let folder = self.folder.to_string_lossy();
        let filled: Vec<String> = text
            .lines()
            .map(|line| match line.starts_with('#') {
                true => line.to_owned(),
                false => fill(line, &folder, ports),
            })
            .collect();
        let to = self.folder.join(name);
        fs::write(&to, filled.join("\n") + "\n").map_err(Error::io("write", &to))
    }

    /// Writes the script that starts it.
    fn script(&self, command: &str) -> Result<()> {
        let path = self.folder.join("start");
        fs::write(&path, START.replace("COMMAND", command)).map_err(Error::io("write", &path))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).map_err(Error::io("make executable", &path))
    }

    /// Starts it, on the data that is there.
    pub(super) fn start(&self) -> Result<()> {
        process::quietly(&mut process::command(self.folder.join("start")), "")
    }

    /// Its process, if that is the one that was started: a pid alone may be another's by now.
    pub(super) fn pid(&self) -> Option<u32> {
        let pid = fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()?;
        let started = fs::read_to_string(self.folder.join("started")).ok()?;
        (started_at(pid)? == started.trim()).then_some(pid)
    }

    /// Ends its process, if it runs; returns which it was.
    ///
    /// It is killed: nothing that it still could write is ever read again.
    pub(super) fn stop(&self) -> Result<Option<u32>> {
        let Some(pid) = self.pid() else { return Ok(None) };
        process::quietly(process::command("kill").args(["-9", &pid.to_string()]), "")?;
        let began = Instant::now();
        while self.pid().is_some() {
            if began.elapsed() > Duration::from_secs(10) {
                return Err(Error::Other(format!("{} (pid {pid}) cannot be stopped", self.kind.name())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(pid))
    }

    /// The end of what it logged.
    pub(super) fn log_end(&self) -> String {
        let text = fs::read(self.folder.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// Has the servers of a folder killed when this process is gone, however it ended.
pub(super) fn stop_with_us(folder: &Path) -> Result<()> {
    let mut watch = process::command("sh");
    watch.args(["-c", WATCH, "watch", &std::process::id().to_string()]).current_dir(folder);
    watch.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    watch.spawn().map_err(Error::start(&watch, "")).map(drop)
}

/// When a process was started, in the words that the start script uses too; none if it is gone.
fn started_at(pid: u32) -> Option<String> {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The name, in parentheses, may hold anything; after it come the state and 18 numbers.
        Ok(stat) => {
            let mut words = stat.rsplit_once(") ")?.1.split(' ');
            (words.next()? != "Z").then(|| words.nth(18).map(str::to_owned))?
        }
        Err(_) if Path::new("/proc/self/stat").exists() => None,
        Err(_) => {
            let asked =
                process::command("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
            let started = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
            (!started.is_empty()).then_some(started)
        }
    }
}

fn fill(line: &str, folder: &str, ports: &[u16]) -> String {
    let mut line = line.replace("FOLDER", folder);
    // A name that begins with another one comes first.
    for (name, port) in [
        (":PORT", 0),
        (": PORT", 0),
        (":SECURE", 2),
        ("@127.0.0.1:CONTROLLER", 1),
        ("127.0.0.1:CONTROLLER", 1),
        ("STORAGE_TLS", 2),
        ("STORAGE", 1),
    ] {
        let with = name.trim_end_matches(|c: char| c.is_ascii_uppercase() || c == '_');
        line = line.replace(name, &format!("{with}{}", ports[port]));
    }
    line
}

/// Ports of this machine that nobody listens on, below those that the system gives to clients: a
/// server that is away for a moment shall find its port free when it comes back.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let spread = std::process::id() as u16 % 900;
    let candidates = (0..12_000_u16).map(|n| 15_000 + (spread * 13 + n) % 12_000);
    // Held until all are found, so that none is found twice.
    let held: Vec<TcpListener> =
        candidates.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(count).collect();
    let ports: Vec<u16> = held.iter().filter_map(|l| l.local_addr().ok()).map(|a| a.port()).collect();
    match ports.len() == count {
        true => Ok(ports),
        false => Err(Error::Other("there are no free ports on 127.0.0.1 between 15000 and 27000".into())),
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(folder: &Path) -> Server {
        fs::create_dir_all(folder.join("s3")).unwrap();
        let server = Server::of(folder, Kind::S3);
        server.script("sleep 60").unwrap();
        server
    }

    #[test]
    fn a_server_is_started_again_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path());
        assert_eq!(server.stop().unwrap(), None);
        server.start().unwrap();
        let first = server.stop().unwrap();
        assert!(first.is_some() && server.pid().is_none());
        server.start().unwrap();
        let second = server.stop().unwrap();
        assert!(second.is_some() && second != first);
    }

    #[test]
    fn a_process_that_only_has_its_pid_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let server = server(folder.path());
        fs::write(folder.path().join("s3/pid"), std::process::id().to_string()).unwrap();
        fs::write(folder.path().join("s3/started"), "1").unwrap();
        assert_eq!(server.stop().unwrap(), None);
        let started = started_at(std::process::id()).unwrap();
        fs::write(folder.path().join("s3/started"), started).unwrap();
        assert_eq!(server.pid(), Some(std::process::id()));
    }

    #[test]
    fn free_ports_are_different_and_free() {
        let ports = free_ports(9).unwrap();
        let mut sorted = ports.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 9);
        // A process that another thread is just starting holds a copy of what was open, until it
        // runs its own program: a port may be taken for that moment.
        let until = std::time::Instant::now() + Duration::from_secs(20);
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        while !ports.iter().all(free) {
            assert!(std::time::Instant::now() < until, "{ports:?} are not free");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn templates_are_filled_in() {
        let ports = [1, 2, 3];
        assert_eq!(
            fill("listeners=PLAINTEXT://h:PORT,CONTROLLER://127.0.0.1:CONTROLLER", "f", &ports),
            "listeners=PLAINTEXT://h:1,CONTROLLER://127.0.0.1:2"
        );
        assert_eq!(fill("ssl_storage_port: STORAGE_TLS", "f", &ports), "ssl_storage_port: 3");
        assert_eq!(fill("native_transport_port: PORT", "f", &ports), "native_transport_port: 1");
        assert_eq!(fill("log.dirs=FOLDER/data", "f", &ports), "log.dirs=f/data");
    }
}
