//! Every key, its default and what it does: the one list that reading and documentation share.

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The key, dotted.
    pub name: &'static str,
    /// Its default, as TOML.
    pub default: &'static str,
    /// What it does, in short lines.
    pub help: &'static str,
}

const fn key(name: &'static str, default: &'static str, help: &'static str) -> Key {
    Key { name, default, help }
}

/// All keys, by section.
pub const KEYS: &[Key] = &[
    key(
        "events.preset",
        r#""""#,
        "\"ga4\", \"snowplow\", \"segment\" or \"posthog\": other defaults for this section, which reads the\nevents that those write; see docs/foreign-events.md. Events of our own collector are read beside.",
    ),
    key(
        "events.items",
        r#""""#,
        "A list in a record of which each element is an event of its own, as \"items\" or\n\"properties.products\"; what begins with item. below is in the element.",
    ),
    key("events.missing", "[]", "Texts that stand for a missing value, as \"(not set)\"."),
    key(
        "events.timestamp_unit",
        r#""ms""#,
        "\"ms\", \"s\" (whole or decimal), \"us\", \"ns\" since 1970 UTC, or \"rfc3339\".",
    ),
    key("events.bytes_max", "1048576", "A longer record is a dead letter (too-long)."),
    key(
        "events.future_max",
        r#""5min""#,
        "A timestamp further ahead of its arrival is a dead letter and moves no watermark. \"off\"\nfor no limit.",
    ),
    key("events.kind.impression", r#"["impression"]"#, "What the kind field of an impression may say."),
    key("events.kind.play", r#"["play"]"#, "What the kind field of a play may say."),
    key(
        "events.kind.always",
        r#""""#,
        "\"impression\" or \"play\": every record is one, whatever it says. Empty: by the kind field.",
    ),
    key(
        "events.kind.others",
        r#""dead""#,
        "What is neither: \"dead\", a dead letter (unknown-kind, no-kind), or \"drop\", counted as filtered.",
    ),
    key(
        "events.fields.kind",
        r#""kind""#,
        "Where to find a field: its name, or a path with dots. Slower, but for any form: list[0],\nlist[key=text].value, \"a.b | c\" for the first that is there, \"a + b\" for both as one text.",
    ),
    key("events.fields.request_id", r#""request_id""#, "For example \"ctx.page_view_id\"."),
    key("events.fields.video_id", r#""video_id""#, ""),
    key("events.fields.timestamp", r#""timestamp""#, ""),
    key("events.fields.member_id", r#""member_id""#, ""),
    key("events.fields.row", r#""row""#, "Used by filters only."),
    key("events.fields.position", r#""position""#, "Used by filters only."),
    key(
        "events.fields.dimensions",
        "{}",
        "Paths of dimensions that are neither at the top level nor in \"dimensions\", as\n{ country = \"geo.country\" }.",
    ),
    key(
        "filters",
        r#"['device = "test"']"#,
        "What to drop. A rule is conditions joined by `and`; a condition is a field, an operator\n(= != < <= > >= in, not in, exists, missing) and a value. What a rule drops is counted by rule.\nFor example: 'member_id in [\"m1\", \"m2\"]', 'kind = \"play\" and watch_ms < 30000'.",
    ),
    key(
        "join.method",
        r#""state""#,
        "\"state\": one state per request. \"window\": both sides in event-time windows.\n\"batch-to-window\": each batch joined to the windows. All give one answer.",
    ),
    key(
        "join.kind",
        r#""inner""#,
        "\"inner\": an event counts only with one of the other kind within the horizon. \"left\": every\nimpression counts, a play only with an impression within the horizon.",
    ),
    key("join.horizon", r#""90min""#, "How far apart the two events of a pair may lie, in event time."),
    key(
        "join.lateness",
        r#""2h""#,
        "How far an event may come behind the newest one and surely be joined. Longer holds more\nstate. \"off\": no event is ever late, and all state is held until the input ends.",
    ),
    key(
        "join.request_events_max",
        "1000",
        "The most events of one request that are taken; the rest is counted as capped. \"off\" for\nno cap.",
    ),
    key(
        "join.member_epoch_events_max",
        r#""off""#,
        "The most counting events of one member in one epoch; the rest is counted as capped.",
    ),
    key(
        "robots.count_members",
        r#""on""#,
        "Whether to count how many different members are behind the plays of a title, and how many requests a\ncap cut, so that what few push stands in no row. Members stand in these sets as hashes that\ndiffer from title to title and epoch to epoch.",
    ),
    key("epoch.length", r#""30min""#, "The length of an epoch, in event time."),
    key(
        "segments",
        "[[]]",
        "For which groups of members to keep tallies: lists of dimensions; [] is everyone.\nFor example: [[], [\"country\"], [\"country\", \"device\"]].",
    ),
    key("tally.exact_max", "262144", "Up to this size a set is exact, beyond it is a sketch."),
    key("tally.sketch_lg_k", "14", "A sketch keeps 2^this hashes (5 to 20); its error is 1/sqrt of that."),
    key("batch.events_max", "50000", "The most records in a batch."),
    key("batch.tick", r#""500ms""#, "How often a batch begins when there is nothing more to read."),
    key("batch.in_flight", "4", "How many batches may be under way at once (1 to 64)."),
    key(
        "log.url",
        r#""file:""#,
        "Where the log is. \"file:\": in the --data directory; file:PATH: in another one;\nkafka://HOST:PORT,HOST:PORT: in Kafka.",
    ),
    key(
        "log.keep",
        r#""off""#,
        "How long the embedded log keeps what was read, and the rows that were served: what is older goes, in whole\nsegments, where no kept checkpoint needs it. Dead letters, late events and rules stay. \"off\": for ever.\nIn Kafka the retention of its topics says it.",
    ),
    key(
        "table.url",
        r#""file:""#,
        "Where the table is. \"file:\": in the --data directory; file:PATH;\ncassandra://HOST:PORT,HOST:PORT/KEYSPACE.",
    ),
    key(
        "table.keep",
        r#""off""#,
        "How long the embedded table keeps the rows of sealed epochs, counted back from the newest: what is older\ngoes, some with each write, and the archive still has it. \"off\": for ever. In Cassandra cassandra.ttl says it.",
    ),
    key(
        "table.write_interval",
        r#""1s""#,
        "How often changed tallies are written to the table; a replay writes every 10 s at most.",
    ),
    key(
        "archive.url",
        r#""file:""#,
        "Where the archive is. \"file:\": in the --data directory; file:PATH; s3://BUCKET/PREFIX.",
    ),
    key("archive.shards", "1", "Objects per epoch in the archive (1 to 256)."),
    key(
        "input.topics",
        r#"["impressions", "plays"]"#,
        "The topics of the log that `uptake run` reads. `uptake append` writes impressions to the\nfirst and plays to the last.",
    ),
    key("input.partitions", "4", "Partitions of a topic that is made; one that is there keeps its own."),
    key(
        "input.pace",
        r#""10min""#,
        "How far a partition may be read ahead of the one furthest behind, in event time: what is\nahead only waits in memory. \"off\" for no limit.",
    ),
    key(
        "input.on_gap",
        r#""declare""#,
        "When the log dropped records before they were read: \"declare\" them in the ledger and go\non, or \"stop\".",
    ),
    key(
        "traces.url",
        r#""""#,
        "Where spans of requests, checkpoints and writes are sent by OTLP over HTTP, as \"http://localhost:4318\".\nEmpty: nowhere.",
    ),
    key(
        "traces.every",
        "100",
        "Of so many requests to the server one is traced, and each whose sender says that it is traced;\ncheckpoints and writes are all.",
    ),
    key("checkpoint.url", r#""""#, "Where checkpoints are, as archive.url. Empty: beside the archive."),
    key("checkpoint.interval", r#""10s""#, "How often a checkpoint is taken."),
    key("checkpoint.keep", "3", "How many checkpoints are kept (1 to 1000)."),
    key(
        "checkpoint.events_max",
        "2000000",
        "After as many records of one worker a checkpoint is taken before the interval is over; sooner\nwhere memory.bytes_max is small.",
    ),
    key(
        "memory.bytes_max",
        r#""80%""#,
        "The most memory that the process may hold: 512MiB, 2GiB, or a part of the machine's. Near\nit nothing is read for some seconds; beyond it the run stops, to be gone on with. \"off\" for no limit.",
    ),
    key(
        "memory.spill",
        r#""on""#,
        "Whether requests that wait go to the disk of the data directory, those first that are let go\nfirst, when half of memory.bytes_max is in use: \"on\" or \"off\". For join.method\n\"state\".",
    ),
    key(
        "output.retry_for",
        r#""1h""#,
        "How long a table or archive that fails is tried again before the run stops. \"off\": for ever.",
    ),
    key(
        "cluster.start_deadline",
        r#""1min""#,
        "How long the processes of a cluster wait for one another at the start.",
    ),
    key(
        "cluster.progress_deadline",
        r#""1min""#,
        "How long a batch may take before another process is taken for hanging or cut off.",
    ),
    key("serve.listen", r#""127.0.0.1:8080""#, "Where `uptake serve` listens; --listen wins."),
    key("serve.tls_cert", r#""""#, "The certificate chain (PEM), to speak TLS; with serve.tls_key."),
    key("serve.tls_key", r#""""#, "Its private key (PEM)."),
    key(
        "serve.origins",
        "[]",
        "Origins of pages that may send events and read rows, as \"https://www.example.org\"; \"*\" for all.",
    ),
    key(
        "serve.write_keys_file",
        r#""""#,
        "A file of write keys, one a line; or UPTAKE_WRITE_KEYS. Without any, everybody may send events.",
    ),
    key(
        "serve.admin_token_file",
        r#""""#,
        "A file with the token for rules and operations; or UPTAKE_ADMIN_TOKEN. Without one they are\nopen to this machine on a loopback address without proxies, and closed otherwise.",
    ),
    key(
        "serve.request_key_file",
        r#""""#,
        "A file of keys that sign request ids, the newest first; or UPTAKE_REQUEST_KEY. Without one a\nkey is made and kept in the data directory.",
    ),
    key(
        "serve.member_key_file",
        r#""""#,
        "A file with the key of members' pseudonyms; or UPTAKE_MEMBER_KEY. Without one a key is made\nand kept in the data directory.",
    ),
    key(
        "serve.request_ids",
        r#""report""#,
        "Request ids that we did not sign, or too long ago: \"off\" takes them, \"report\" takes and counts\nthem, \"require\" refuses them.",
    ),
    key(
        "serve.request_age_max",
        r#""6h""#,
        "How long after its row was served an event of a request is taken.",
    ),
    key(
        "serve.delay_max",
        r#""1d""#,
        "How far before its arrival an event may have happened, by the client's word; longer is cut.",
    ),
    key(
        "serve.member_ids",
        r#""pseudonym""#,
        "\"pseudonym\": replaced by a keyed hash. \"drop\": taken out. \"keep\": kept as they come.",
    ),
    key("serve.body_bytes_max", "1048576", "A larger body is refused."),
    key("serve.decoded_bytes_max", "8388608", "A body that is larger when decompressed is refused."),
    key("serve.events_max", "1000", "A body with more events is refused."),
    key("serve.event_bytes_max", "16384", "A larger event is refused."),
    key(
        "serve.queue_events_max",
        "100000",
        "The most events that wait to be appended; beyond it the answer is 503.",
    ),
    key(
        "serve.bodies_bytes_max",
        "268435456",
        "The most bytes of bodies that are read at once, and as many of events that wait to be appended;\nbeyond it the answer is 503.",
    ),
    key(
        "serve.durability",
        r#""process""#,
        "What an answered event survives: \"process\", the end of the process; \"power\", a power cut.",
    ),
    key("serve.timeout", r#""30s""#, "How long a request may take."),
    key("serve.read_timeout", r#""10s""#, "How long a client may take to send a request."),
    key(
        "serve.connections_max",
        "10000",
        "The most connections at once; further ones wait. One address may hold a quarter of them, unless\nproxies stand in front or it is this machine's own.",
    ),
    key(
        "serve.rate_per_second",
        "1000",
        "Requests a second by one write key or address, after a burst of two seconds' worth. \"off\" for\nno limit.",
    ),
    key(
        "serve.proxies",
        "0",
        "How many proxies of yours stand in front and add to X-Forwarded-For (0 to 10).",
    ),
    key("serve.streams_max", "1000", "The most subscribers of row streams."),
    key("serve.rows_refresh", r#""500ms""#, "How often rows and rules are looked at again."),
    key(
        "rows.catalogue",
        r#""""#,
        "A file that says what is known of the titles: CSV, a JSON array or Parquet, with id, title, year,\ngenres, franchise, available_from_ms, available_to_ms. Read again when it changes.",
    ),
    key("rows.unknown_titles", r#""show""#, "What the catalogue does not hold: \"show\" or \"hide\"."),
    key("rows.places", "20", "How many titles have a place in a served row."),
    key(
        "rows.hysteresis",
        "5",
        "How many ranks beyond the last place a title that has one may fall before it leaves.",
    ),
    key("rows.entries_max", "3", "How many titles may push others out within rows.entries_every."),
    key(
        "rows.entries_every",
        r#""5min""#,
        "For how long an entry counts to rows.entries_max, however often rows are refreshed.",
    ),
    key("rows.genre_max", "0", "How many titles of one genre a row shows; 0 for no limit."),
    key("rows.franchise_max", "1", "How many titles of one franchise a row shows; 0 for no limit."),
    key(
        "rows.explore_slots",
        "1",
        "How many of the last places of a row of five or more are drawn from titles that may be better\nthan is known, each with its probability (0 to 2).",
    ),
    key("rows.explore_rows", r#"["loved"]"#, "In which rows: \"popular\", \"loved\", \"trending\"."),
    key(
        "kafka.group",
        r#""uptake""#,
        "The consumer group under which positions are reported, for tools that show lag. A value\nof this section as env:NAME is read from the environment; none is ever printed.",
    ),
    key("kafka.topic_prefix", r#""""#, "Put in front of the name of every topic."),
    key("kafka.replication", r#""""#, "Copies of a topic that is made. Empty: as the brokers are set."),
    key(
        "kafka.schema_registry",
        r#""""#,
        "Where a schema registry is, as \"http://registry:8081\": records in its wire format (Avro, JSON\nSchema) are read by it. Empty: records are JSON.",
    ),
    key("kafka.schema_registry_user", r#""""#, ""),
    key("kafka.schema_registry_password", r#""""#, "Better not here: \"env:REGISTRY_PASSWORD\"."),
    key(
        "kafka.security.protocol",
        r#""""#,
        "\"SSL\", \"SASL_SSL\", \"SASL_PLAINTEXT\"; empty for none. This and every other key below\n[kafka] is the driver's (librdkafka), which also refuses what it does not know.",
    ),
    key("kafka.sasl.mechanism", r#""""#, "\"PLAIN\", \"SCRAM-SHA-256\", \"SCRAM-SHA-512\"."),
    key("kafka.sasl.username", r#""""#, ""),
    key("kafka.sasl.password", r#""""#, "Better not here: \"env:KAFKA_PASSWORD\"."),
    key("kafka.ssl.ca.location", r#""""#, "A file of certificates that are trusted. Empty: the system's."),
    key("cassandra.user", r#""""#, ""),
    key("cassandra.password", r#""""#, "Better not here: \"env:CASSANDRA_PASSWORD\"."),
    key("cassandra.consistency", r#""""#, "Of reads and writes. Empty: LOCAL_QUORUM."),
    key("cassandra.replication", r#""""#, "Of a keyspace that is made: the copies, as 3."),
    key(
        "cassandra.create_schema",
        r#""""#,
        "\"true\": a run makes tables that are missing, as `uptake migrate` does.",
    ),
    key(
        "cassandra.ttl",
        r#""""#,
        "How long rows are kept, as 30d; 0s for ever. Empty: 90d. Takes effect by `uptake migrate`.",
    ),
    key("cassandra.tls_ca", r#""""#, "A file of certificates that are trusted, for TLS."),
    key(
        "s3.endpoint",
        r#""""#,
        "Of a server that is not Amazon's. Every other key below [s3] is the driver's\n(object_store) too; what AWS_... variables of the environment say holds as well.",
    ),
    key("s3.region", r#""""#, ""),
    key("s3.allow_http", r#""""#, "\"true\" for an endpoint without TLS."),
    key("s3.access_key_id", r#""""#, ""),
    key("s3.secret_access_key", r#""""#, "Better not here: \"env:S3_SECRET\"."),
];

/// The reference: a configuration file that holds every key with its default, commented.
pub fn reference() -> String {
    let mut text = String::from(
        "# The configuration of uptake: every key with its default. Delete what you do not change.\n\
         # Durations: 500ms, 90s, 30min, 2h, 7d. A key can also be given as --set key=value.\n",
    );
    let mut section = "";
    // Keys without a section must stand before the first section of a TOML file.
    let (top, rest): (Vec<&Key>, Vec<&Key>) = KEYS.iter().partition(|k| !k.name.contains('.'));
    for key in top.into_iter().chain(rest) {
        let (of, name) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        text.push('\n');
        if of != section {
            text.push_str(&format!("[{of}]\n"));
            section = of;
        }
        for line in key.help.lines() {
            text.push_str(&format!("# {line}\n"));
        }
        text.push_str(&format!("{name} = {}\n", key.default));
    }
    text
}
