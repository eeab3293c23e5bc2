//! Whether the jobs that `docs/moving.md` shows are jobs: its Spark and its Flink code, put into what stands
//! around them (`tests/moving/`), are compiled, run on events of ours, and count what uptake counts.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{install, process};

const NO_JAVA: &str = "; install Java 17 (Debian: apt-get install openjdk-17-jdk-headless)";

/// What Spark looks at inside Java.
const OPENED: [&str; 12] = [
    "java.lang",
    "java.lang.invoke",
    "java.lang.reflect",
    "java.io",
    "java.net",
    "java.nio",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "sun.nio.ch",
    "sun.nio.cs",
    "sun.util.calendar",
];

/// Plays and impressions by kind, video and half hour.
type Tallies = BTreeMap<String, u64>;

/// Runs both jobs and uptake. The tests before have built the program.
///
/// # Errors
/// A job does not compile or run, or counts something else; or there is no Java or Maven.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join("moving");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let (lines, table) = (folder.join("events.jsonl"), folder.join("events.tsv"));
    let (as_lines, as_table) = events();
    fs::write(&lines, as_lines).map_err(Error::io("write", &lines))?;
    fs::write(&table, as_table).map_err(Error::io("write", &table))?;
    let ours = uptake(workspace, &lines, &folder.join("data"))?;
    let page = workspace.root.join("docs/moving.md");
    let page = fs::read_to_string(&page).map_err(Error::io("read", &page))?;
    for job in [Job::SPARK, Job::FLINK] {
        let theirs = job.run(workspace, &page, &folder, &table)?;
        if theirs != ours {
            let differ = ours.iter().filter(|(key, n)| theirs.get(*key) != Some(n));
            let differ: Vec<_> = differ.take(5).collect();
            return Err(Error::Other(format!(
                "the job of {} counts {} tallies and uptake {}; of uptake's, these are not among them: {differ:?}",
                job.engine,
                theirs.len(),
                ours.len()
            )));
        }
        println!("{}: the page's job counts the same {} tallies as uptake", job.engine, ours.len());
    }
    Ok(())
}

/// A job of the page.
struct Job {
    engine: &'static str,
    /// The language, as the page's fence says it, and the file that stands around the code.
    language: &'static str,
    around: &'static str,
}

impl Job {
    const SPARK: Self = Self { engine: "spark", language: "scala", around: "Spark.scala" };
    const FLINK: Self = Self { engine: "flink", language: "java", around: "Flink.java" };

    fn run(&self, workspace: &Workspace, page: &str, folder: &Path, events: &Path) -> Result<Tallies> {
        let path = workspace.root.join("tests/moving").join(self.around);
        let around = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let source = folder.join(self.around);
        let whole = put_into(&around, page, self.language).ok_or_else(|| {
            Error::Other(format!(
                "docs/moving.md has no {} code, or {} no place for it",
                self.language, self.around
            ))
        })?;
        fs::write(&source, whole).map_err(Error::io("write", &source))?;
        let jars = self.jars(workspace)?;
        let classes = folder.join(self.engine);
        fs::create_dir_all(&classes).map_err(Error::io("create", &classes))?;
        let mut compile = match self.language {
            "scala" => {
                let mut scala = process::command("java");
                scala.args(["-cp", &jars, "scala.tools.nsc.Main", "-nowarn"]);
                scala
            }
            _ => process::command("javac"),
        };
        compile.args(["-cp", &jars, "-d"]).arg(&classes).arg(&source);
        process::quietly(&mut compile, NO_JAVA)?;
        let mut java = process::command("java");
        java.args(OPENED.iter().map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED")));
        let log = path.with_file_name("log4j2.properties");
        java.arg(format!("-Dlog4j2.configurationFile={}", log.display()));
        java.arg("-cp").arg(format!("{}:{jars}", classes.display()));
        let class = self.around.split('.').next().unwrap_or_default();
        // Both would like to know the machine by its name.
        java.arg(class).arg(events).env("SPARK_LOCAL_IP", "127.0.0.1");
        let said = process::output(&mut java, NO_JAVA)?;
        tallies(&String::from_utf8_lossy(&said))
    }

    /// The engine's jars, as Java's class path.
    fn jars(&self, workspace: &Workspace) -> Result<String> {
        let pom = workspace.root.join("tests/moving/pom.xml");
        let wanted = fs::read_to_string(&pom).map_err(Error::io("read", &pom))?;
        let folder = workspace.target.join("tools").join(self.engine);
        let copy = || install::jars(&pom, self.engine, &folder);
        install::once(workspace, &folder, (self.engine, &wanted), copy)?;
        let files = fs::read_dir(&folder).map_err(Error::io("read", &folder))?;
        let files = files.filter_map(|file| Some(file.ok()?.path()));
        let mut jars: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|e| e == "jar")).collect();
        jars.sort();
        Ok(jars.iter().map(|jar| jar.display().to_string()).collect::<Vec<_>>().join(":"))
    }
}

/// The page's first code of a language, where the file around it says.
fn put_into(around: &str, page: &str, language: &str) -> Option<String> {
    const PLACE: &str = "// <page>";
    let (_, code) = page.split_once(&format!("```{language}\n"))?;
    let (code, _) = code.split_once("```")?;
    around.contains(PLACE).then(|| around.replacen(PLACE, code, 1))
}

/// Lines of `tally KIND VIDEO HALF-HOUR REQUESTS`, among whatever else is printed.
fn tallies(said: &str) -> Result<Tallies> {
    let lines = said.lines().filter_map(|line| line.strip_prefix("tally "));
    let read = |line: &str| {
        let (key, requests) = line.rsplit_once(' ')?;
        Some((key.to_owned(), requests.parse().ok()?))
    };
    lines.map(|line| read(line).ok_or_else(|| Error::Other(format!("the job says {line:?}")))).collect()
}

/// What uptake counts.
fn uptake(workspace: &Workspace, events: &Path, data: &Path) -> Result<Tallies> {
    let program = workspace.target.join("debug/uptake");
    let mut replay = process::command(&program);
    process::quietly(replay.arg("replay").arg(events).arg("--data").arg(data), "")?;
    let mut csv = process::command(&program);
    let csv = process::output(csv.args(["tallies", "--format", "csv", "--data"]).arg(data), "")?;
    let mut all = Tallies::new();
    for line in String::from_utf8_lossy(&csv).lines().skip(1) {
        let [video, epoch, plays, impressions, _] = line.split(',').collect::<Vec<_>>()[..] else {
            return Err(Error::Other(format!("uptake's table has the line {line:?}")));
        };
        for (kind, n) in [("play", plays), ("impression", impressions)] {
            let n = n.parse().map_err(|_| Error::Other(format!("uptake's table has the line {line:?}")))?;
            if n > 0 {
                all.insert(format!("{kind} {video} {epoch}"), n);
            }
        }
    }
    Ok(all)
}

/// Two hundred requests of a morning, of which some are played and some events come twice, in the order of
/// their times: as lines of JSON, and as a table with tabs.
fn events() -> (String, String) {
    let mut state = 5u64;
    let mut below = |most: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % most
    };
    let mut all = Vec::new();
    for request in 0..200 {
        let began = 1_768_435_200_000 + below(3 * 3_600_000);
        for n in 0..1 + below(9) {
            all.push((began + n * 1_000, "impression", request, below(12)));
        }
        if below(10) < 4 {
            all.push((began + below(3_600_000), "play", request, below(12)));
        }
    }
    all.sort_unstable();
    let (mut lines, mut table) = (String::new(), String::new());
    for (time, kind, request, video) in all {
        for _ in 0..1 + u64::from(below(10) == 0) {
            // Writing into a text cannot fail.
            let _ = writeln!(
                lines,
                "{{\"kind\":\"{kind}\",\"request_id\":\"r{request}\",\"video_id\":\"v{video}\",\"timestamp\":{time}}}"
            );
            let _ = writeln!(table, "{kind}\tr{request}\tv{video}\t{time}");
        }
    }
    (lines, table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_put_where_the_file_says() {
        let page = "text\n```java\na();\n```\nmore\n```java\nb();\n```\n";
        assert_eq!(put_into("{ // <page>\n}", page, "java").as_deref(), Some("{ a();\n\n}"));
        assert_eq!(put_into("{ }", page, "java"), None);
        assert_eq!(put_into("// <page>", page, "scala"), None);
    }

    #[test]
    fn tallies_are_found_among_other_lines() {
        let found = tallies("INFO x\ntally play v1 982464 3\n").unwrap();
        assert_eq!(found, Tallies::from([("play v1 982464".to_owned(), 3)]));
        assert!(tallies("tally play v1 982464 many").is_err());
    }
}
