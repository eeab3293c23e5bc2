//! Several hosts on one machine: three network namespaces on a bridge, a process in each. One is
//! killed, one is cut off; under supervision they find together again and come to the right table.
//!
//! It needs user namespaces and `ip`; where it may not, it says so loudly. `UPTAKE_CUT_SECONDS`
//! cuts off for longer.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::live::{
    Live, PATIENCE, SOON, Streamed, append, asked, kill, ledger, program, seeded, table_now, wait_until,
};
use common::{Place, say, skip};

/// Makes the hosts, and keeps them until it ends.
const HOSTS: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mkdir /run/netns
ip link add hub type bridge
ip link set hub up
for host in 0 1 2; do
  ip netns add h$host
  ip link add port$host type veth peer name eth0 netns h$host
  ip link set port$host master hub up
  nsenter --net=/run/netns/h$host sh -c "
    ip addr add 10.77.0.1$host/24 dev eth0; ip link set eth0 up; ip link set lo up"
done
echo ready
exec sleep 600
"#;

struct Hosts(Live);

impl Hosts {
    /// The hosts, or why there are none.
    fn new() -> Result<Self, String> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", HOSTS]);
        if Command::new("unshare").arg("--version").output().is_err() {
            return Err("there is no unshare".to_owned());
        }
        let mut live = Live::start(&mut unshare);
        let begun = Instant::now();
        while !live.stdout().contains("ready") {
            if !live.is_running() || begun.elapsed() > SOON {
                std::thread::sleep(Duration::from_millis(100));
                return Err(format!("no network namespaces here: {}", live.stderr()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self(live))
    }

    /// A command where the bridge is.
    fn at_hub(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--user", "--mount", "--net", "--preserve-credentials", "--target"]);
        command.arg(self.0.pid().to_string()).arg(program);
        command
    }

    /// A process of the cluster, on the host of its number.
    fn process(&self, number: usize, data: &Path, hosts: &Path, settings: &[&str]) -> Live {
        let mut command = self.at_hub("nsenter");
        command.arg(format!("--net=/run/netns/h{number}")).arg(program()).arg("run");
        command.arg("--data").arg(data).arg("--hosts").arg(hosts).args(["--process", &number.to_string()]);
        command.args(["--workers", "1", "--supervise"]);
        settings.iter().for_each(|setting| {
            command.args(["--set", setting]);
        });
        Live::start(&mut command)
    }

    fn link(&self, number: usize, state: &str) {
        let mut ip = self.at_hub("ip");
        assert!(ip.args(["link", "set", &format!("port{number}"), state]).status().unwrap().success());
    }
}

#[test]
fn three_hosts_of_which_one_is_killed_and_one_cut_off() {
    let test = "three_hosts_of_which_one_is_killed_and_one_cut_off";
    let place = Place::new();
    let hosts = match Hosts::new() {
        Ok(hosts) => hosts,
        Err(reason) => return skip(test, &reason),
    };
    let mut rng = seeded(test);
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 40_000);
    let text = std::fs::read_to_string(&stream.file).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let parts: Vec<_> = (lines.chunks(10_000).enumerate())
        .map(|(n, part)| place.write(&format!("parts/{n}.jsonl"), part.concat()))
        .collect();
    let data = place.data();
    append(&data, &[&parts[0]]);
    let addresses = place.write("hosts", "10.77.0.10:4711\n10.77.0.11:4711\n10.77.0.12:4711\n");
    let settings = [
        "cluster.start_deadline=3s",
        "cluster.progress_deadline=3s",
        "checkpoint.interval=100ms",
        "table.write_interval=50ms",
    ];
    let all: Vec<Live> = (0..3).map(|n| hosts.process(n, &data, &addresses, &settings)).collect();
    let reads = |lines: u64| {
        wait_until(&format!("{lines} lines are read"), PATIENCE, || {
            let read = data
                .join("checkpoints/main")
                .is_dir()
                .then(|| common::uptake(["ledger", "--json", "--data", data.to_str().unwrap()]));
            let json = read.and_then(|p| serde_json::from_str::<serde_json::Value>(&p.stdout).ok());
            json.is_some_and(|books| books["read"] == lines)
        });
    };
    reads(10_000);
    // Killed.
    let victim = (rng.next_u64() % 3) as usize;
    kill("KILL", &all[victim].supervised().unwrap().to_string());
    append(&data, &[&parts[1]]);
    reads(20_000);
    // Cut off.
    let victim = (rng.next_u64() % 3) as usize;
    hosts.link(victim, "down");
    let cut = Instant::now();
    append(&data, &[&parts[2]]);
    for process in &all {
        process.says("all processes of the cluster stop", SOON);
    }
    let seconds = asked("UPTAKE_CUT_SECONDS", 10);
    std::thread::sleep(Duration::from_secs(seconds).saturating_sub(cut.elapsed()));
    hosts.link(victim, "up");
    let back = Instant::now();
    append(&data, &[&parts[3]]);
    reads(40_000);
    say(&format!("process {victim} was cut off for {seconds} s; all was read {:?} after", back.elapsed()));
    wait_until("the table is complete", PATIENCE, || table_now(&data) == stream.table);
    all[0].signal("TERM");
    for process in all {
        let said = process.end(SOON).ok();
        assert!(said.contains("starting again in"), "{said}");
    }
    stream.check_table(&data);
    assert_eq!(ledger(&data)["read"], 40_000);
}
