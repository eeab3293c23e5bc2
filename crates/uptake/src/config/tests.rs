use clap::Parser;

use super::*;
use crate::commands::Cli;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

fn load(settings: &[&str]) -> Result<Config, ConfigError> {
    Config::load(None, &settings.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
}

#[test]
fn the_reference_is_the_default_and_names_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("uptake.toml");
    std::fs::write(&path, reference()).unwrap();
    let read = Config::load(Some(&path), &[]).unwrap();
    assert_eq!(format!("{read:?}"), format!("{:?}", Config::default()));
    for key in KEYS {
        let name = key.name.rsplit('.').next().unwrap();
        assert!(reference().contains(&format!("\n{name} = {}", key.default)), "{}", key.name);
    }
    assert!(Config::load(None, &[]).is_ok(), "the defaults are themselves without a mistake");
}

#[test]
fn settings_need_no_quotes() {
    let c = load(&["join.kind=left", "join.horizon = 1min", "join.method=\"window\"", "batch.events_max=1"])
        .unwrap();
    assert_eq!((c.join.horizon_ms, c.join_method, c.batch_events_max), (60_000, JoinMethod::Window, 1));
    let c = load(&["segments=[[],[\"country\",\"device\"]]", "filters=[]", "join.lateness=off"]).unwrap();
    assert_eq!((c.segments.count(), c.filters.count(), c.join.lateness_ms), (2, 0, UNBOUNDED));
    for (text, ms) in [("90m", 5_400_000), ("1h 30m", 5_400_000), ("2d", 172_800_000), ("PT5M", 300_000)] {
        assert_eq!(load(&[&format!("join.horizon={text}")]).unwrap().join.horizon_ms, ms, "{text}");
    }
    assert_eq!(
        load(&["events.fields.dimensions={ country = \"geo.country\" }"]).unwrap().decode.fields.dimensions["country"],
        "geo.country"
    );
}

#[test]
fn all_mistakes_are_told_at_once_each_with_its_key() {
    let error = load(&[
        "join.knd=left",
        "join.kind=outer",
        "join.horizon=60000",
        "join.lateness=soon",
        "batch.events_max=0",
        "segments=[\"country\"]",
        "filters=[\"device =\"]",
        "epoch.length=1y",
        "nonsense",
        "kafka=left",
        "join=left",
        "tally.sketch_lg_k=40",
    ])
    .unwrap_err();
    let text = error.to_string();
    for start in [
        "join.knd: there is no such key; did you mean join.kind?",
        "join: there is no such key; it is a section, of join.method, join.kind, ",
        "kafka: there is no such key; it is a section",
        "join.kind: \"outer\" is none of \"inner\", \"left\"",
        "join.horizon: 60000 has no unit; write \"60000ms\"",
        "join.lateness: \"soon\" is not a duration",
        "batch.events_max: 0 is not a whole number from 1 to",
        "segments: [\"country\"] is not a list of lists",
        "filters: ",
        "epoch.length: ",
        "--set nonsense: is not of the form key=value",
        "tally.sketch_lg_k: 40 is not",
    ] {
        assert!(text.contains(&format!("\n  {start}")), "{start:?} is missing in:\n{text}");
    }
    assert_eq!(error.mistakes.len(), 12, "{text}");
}

#[test]
fn a_file_that_is_missing_or_broken_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let error = Config::load(Some(&folder.path().join("none.toml")), &[]).unwrap_err();
    assert!(error.to_string().contains("none.toml: cannot be read"));
    let path = folder.path().join("broken.toml");
    std::fs::write(&path, "[join\nkind = 1").unwrap();
    assert!(Config::load(Some(&path), &[]).unwrap_err().to_string().contains("is not TOML"));
}

/// What is forgotten with a sealed epoch, such as names, must not be asked for by a tally that is
/// still open: not at the very millisecond of the deadline, and not in the second it is rounded to.
#[test]
fn an_epoch_counts_as_sealed_only_when_its_tallies_are() {
    use uptake_flow::KeyedState;
    use uptake_model::{Epoch, EventTime};
    for lateness in ["1min", "1500ms", "1ms"] {
        let config = load(&["join.horizon=0s", &format!("join.lateness={lateness}")]).unwrap();
        let sealed_at = config.sealed_at(Epoch(3));
        let mut was_sealed = 0;
        for offset in -2_000..4_000 {
            let watermark = sealed_at.plus(offset);
            let mut tallies = KeyedState::default();
            *tallies.entry(&3u8, Some(sealed_at)) = Some(());
            tallies.expire(watermark, &mut |_, ()| {});
            let is_sealed = config.sealed_before(watermark) > Epoch(3);
            was_sealed += u32::from(is_sealed);
            assert!(!is_sealed || tallies.is_empty(), "{lateness}: {offset} ms from the deadline");
        }
        assert!(was_sealed > 2_000, "and it is sealed in the end");
        assert!(config.sealed_before(EventTime::MIN) < Epoch(0));
    }
}

#[test]
fn everything_is_in_the_data_directory_unless_a_url_says_otherwise() {
    let data = std::path::Path::new("d");
    let places = Config::default().places;
    for place in [&places.log, &places.table, &places.archive, &places.checkpoints] {
        assert_eq!(place.backend(data).to_string(), "file:d");
    }
    let places = load(&["archive.url=file:far", "log.url=memory:"]).unwrap().places;
    let shown = |place: &Place| place.backend(data).to_string();
    assert_eq!([shown(&places.log), shown(&places.table)], ["memory:", "file:d"]);
    assert_eq!([shown(&places.archive), shown(&places.checkpoints)], ["file:far", "file:far"]);
    let places = load(&["archive.url=file:far", "checkpoint.url=file:"]).unwrap().places;
    assert!(places.checkpoints.is_data());
    let text =
        load(&["log.url=ftp://host", "table.url=s3://b", "archive.url=kafka://a"]).unwrap_err().to_string();
    for says in [
        "\n  log.url: \"ftp://host\" names no backend: write memory:, file:PATH or kafka://HOST:PORT",
        "\n  table.url: s3://b cannot hold a table; use memory:, file:PATH or cassandra://HOST/KEYSPACE",
        "\n  archive.url: kafka://a:9092 cannot hold an archive; use memory:, file:PATH or s3://BUCKET/PREFIX",
    ] {
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn what_a_driver_is_told_is_never_printed() {
    let path = std::env::var("PATH").unwrap();
    let c = load(&[
        "kafka.sasl.password=hunter2",
        "kafka.linger.ms=5",
        "kafka.enable.idempotence=true",
        "s3.secret_access_key=env:PATH",
    ])
    .unwrap();
    let kafka = &c.places.kafka;
    let told = ["sasl.password", "linger.ms", "enable.idempotence"].map(|key| &*kafka.client[key]);
    assert_eq!(told, ["hunter2", "5", "true"]);
    assert_eq!(c.places.s3.get("secret_access_key").unwrap(), path);
    assert!(!format!("{c:?}").contains("hunter2") && !format!("{c:?}").contains(&path));
    for (setting, says) in [
        ("kafka.sasl.password=env:NOT_A_VARIABLE", "kafka.sasl.password: the environment has no variable"),
        ("kafka.sasl.password=['hunter2']", "kafka.sasl.password: is not a text"),
        ("log.url=kafka://me:hunter2@host:1", "log.url: a URL here takes no user and password"),
        ("kafka.replication=hunter2", "kafka.replication: is not a whole number"),
        ("log.url=kafka:me:hunter2@host:1", "log.url: a URL here takes no user and password"),
    ] {
        let text = load(&[setting]).unwrap_err().to_string();
        assert!(text.contains(says) && !text.contains("hunter2"), "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("uptake.toml");
    std::fs::write(&file, "[kafka.sasl]\npassword = \"hunter2\n").unwrap();
    let text = Config::load(Some(&file), &[]).unwrap_err().to_string();
    assert!(text.contains("line 2") && !text.contains("hunter2"), "{text}");
}

#[test]
fn the_examples_of_deployments_are_configurations() {
    for name in ["uptake.toml", "kubernetes/uptake.toml"] {
        let file = Path::new(DEPLOY).join(name);
        // The secrets are in the environment there.
        let secrets = ["s3.access_key_id=x", "s3.secret_access_key=x", "cassandra.password=x"];
        let config = Config::load(Some(&file), &secrets.map(str::to_owned)).unwrap();
        let places =
            [&config.places.log, &config.places.table, &config.places.archive, &config.places.checkpoints];
        assert!(places.iter().all(|place| !place.is_data()), "{places:?}");
    }
}

#[test]
fn the_manifests_call_what_there_is() {
    let mut called = Vec::new();
    for name in ["migrate.yaml", "pipeline.yaml", "serve.yaml"] {
        let text = std::fs::read_to_string(Path::new(DEPLOY).join("kubernetes").join(name)).unwrap();
        for args in text.split("args: [").skip(1) {
            let args = args.split_once(']').unwrap().0.replace("$(PROCESS)", "1").replace('"', "");
            let args = args.split(',').map(str::trim);
            if let Err(error) = Cli::try_parse_from(std::iter::once("uptake").chain(args.clone())) {
                panic!("{name}: {error}");
            }
            called.extend(args.take(1).map(str::to_owned));
        }
    }
    assert_eq!(called, ["migrate", "run", "serve"]);
}

/// The page is written anew with `UPTAKE_WRITE_PAGES=1`.
#[test]
fn the_page_of_all_keys_is_that_of_the_code() {
    let page = Path::new(DEPLOY).join("../docs/configuration.md");
    let head = "# Every key of the configuration\n\nThis is what `uptake config` prints. A file needs only what differs; \
                every command takes it as `--config FILE`,\nand single keys as `--set KEY=VALUE`. What is wrong is told at \
                the start, all of it at once, each with its key.\n\n";
    let text = format!("{head}```toml\n{}```\n", reference());
    if std::env::var_os("UPTAKE_WRITE_PAGES").is_some() {
        std::fs::write(&page, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&page).is_ok_and(|written| written == text),
        "run this with UPTAKE_WRITE_PAGES=1"
    );
}

#[test]
fn the_examples_of_the_pages_are_configurations() {
    let docs = Path::new(DEPLOY).join("../docs");
    let mut pages: Vec<_> = std::fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.push(Path::new(DEPLOY).join("../README.md"));
    let mut examples = 0;
    for page in pages.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        for block in std::fs::read_to_string(page).unwrap().split("```toml\n").skip(1) {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("uptake.toml");
            std::fs::write(&file, block.split("```").next().unwrap()).unwrap();
            // Secrets are in the environment.
            if let Err(error) = Config::load(Some(&file), &["cassandra.password=x".to_owned()]) {
                panic!("{}: {error}", page.display());
            }
            examples += 1;
        }
    }
    assert!(examples >= 3, "{examples}");
}
