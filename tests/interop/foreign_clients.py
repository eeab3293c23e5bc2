#!/usr/bin/env python3
"""Others can feed uptake and read it over the wire: Kafka, Cassandra and S3 by other people's clients.

Needs the real servers whose places the variables UPTAKE_TEST_* say (`cargo xtask services up` prints
them). Produces events with Confluent's Python client, a third of them as Avro by a schema registry (a
stand-in that only answers for one schema), lets `uptake run` count them, and compares:

  - what must come out, counted here with plain Python sets
  - `uptake tallies --format csv`
  - the table in Cassandra, read with DataStax's Python driver
  - the archive's Parquet objects in S3, read with DuckDB
  - the consumer group's committed offsets, as any lag tool sees them

The seed of the events is printed; give it back with --seed. Prints what differs and ends with 1; a
missing package or variable ends with 2.
"""

import argparse
import csv
import http.server
import io
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict

from check import Check

try:
    import duckdb
    import fastavro
    import s3fs
    from cassandra import ConsistencyLevel
    from cassandra.auth import PlainTextAuthProvider
    from cassandra.cluster import Cluster, ExecutionProfile, EXEC_PROFILE_DEFAULT
    from cassandra.policies import RoundRobinPolicy
    from confluent_kafka import Consumer, Producer, TopicPartition
except ImportError as missing:
    print(f"{missing}: run `cargo xtask test`, or pip install -r tests/interop/requirements.txt", file=sys.stderr)
    sys.exit(2)

EPOCH_MS = 1_800_000
HORIZON_MS = 90 * 60_000
START_MS = 1_768_435_200_000  # 2026-01-15T00:00Z, the first moment of an epoch
EVENING_MS = 4 * 3_600_000
# Far enough behind the evening that all of it is sealed: twice the horizon, and the lateness.
NEXT_DAY_MS = START_MS + 24 * 3_600_000
SCHEMA_ID = 70_001
SCHEMA = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["impression", "play"]}},
        {"name": "request_id", "type": "string"},
        {"name": "video_id", "type": "string"},
        {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "country", "type": ["null", "string"], "default": None},
    ],
}
VIDEOS = ["v1", "v2", 'say "hi", she said', "進撃の巨人", "50%=half", "🎬"]


def variable(name):
    value = os.environ.get(name)
    if value is None:
        print(f"{name} is not set: run `cargo xtask services up` and set the variables that it prints", file=sys.stderr)
        sys.exit(2)
    return value


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--uptake", required=True, type=pathlib.Path, help="the uptake program")
    arguments.add_argument("--seed", type=int, help="of the events [default: a random one]")
    arguments.add_argument("--requests", type=int, default=3_000)
    options = arguments.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    own = f"foreign{time.time_ns():x}"
    places = {
        "log.url": f"kafka://{variable('UPTAKE_TEST_KAFKA')}",
        "kafka.topic_prefix": f"{own}-",
        "kafka.group": f"{own}-group",
        "kafka.schema_registry": start_registry(),
        "table.url": f"cassandra://{variable('UPTAKE_TEST_CASSANDRA')}/{own}",
        "cassandra.user": variable("UPTAKE_TEST_CASSANDRA_USER"),
        "cassandra.password": "env:UPTAKE_TEST_CASSANDRA_PASSWORD",
        "cassandra.replication": "1",
        "cassandra.consistency": "ONE",
        "archive.url": f"s3://{variable('UPTAKE_TEST_S3_BUCKET')}/{own}",
        "s3.endpoint": variable("UPTAKE_TEST_S3"),
        "s3.allow_http": "true",
        "s3.region": "us-east-1",
        "s3.access_key_id": variable("UPTAKE_TEST_S3_KEY"),
        "s3.secret_access_key": "env:UPTAKE_TEST_S3_SECRET",
    }
    events = make_events(random.Random(seed), options.requests)
    expected = count(events)
    with tempfile.TemporaryDirectory(prefix="uptake-foreign-") as folder:

        def uptake(*words):
            settings = [word for key, value in places.items() for word in ("--set", f"{key}={value}")]
            command = [str(options.uptake), *words, "--data", folder, *settings]
            return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

        uptake("migrate")
        produce(own, events)
        uptake("run", "--until-caught-up")
        ours = csv.DictReader(io.StringIO(uptake("tallies", "--format", "csv")))
        command = {(r["video_id"], int(r["epoch"])): (int(r["plays"]), int(r["impressions"])) for r in ours}
        books = json.loads(uptake("ledger", "--json"))

    check = Check()
    check.equal("records read", books["read"], len(events))
    check.equal("the books balance", books["balances"], True)
    check.equal("dead letters", books["dead"], 0)
    counts = {key: (len(played), len(shown)) for key, (played, shown) in expected.items()}
    check.rows("uptake tallies", command, counts)
    check.rows("Cassandra, by its Python driver", read_cassandra(own, expected, check), counts)
    sealed = {key: sets for key, sets in expected.items() if key[1] * EPOCH_MS < START_MS + EVENING_MS + HORIZON_MS}
    check.equal("some rows are sealed and some are not", 0 < len(sealed) < len(expected), True)
    check.rows("S3, by DuckDB", read_s3(own), {k: (sorted(p), sorted(s)) for k, (p, s) in sealed.items()})
    committed(own, len(events), check)
    check.end(seed)
    print(f"{len(counts)} rows fed and read by other people's clients alike, {check.checks} comparisons")


def make_events(rng, requests):
    """An evening of requests, some of whose events come twice, and a little of the next day."""
    events = []
    for n in range(requests):
        request = f"{rng.getrandbits(64):016x}"
        late = n >= requests - 50
        begin = NEXT_DAY_MS + rng.randrange(600_000) if late else START_MS + rng.randrange(EVENING_MS)
        shown = rng.sample(VIDEOS, rng.randint(1, len(VIDEOS)))
        for video in shown:
            events.append(("impression", request, video, begin + rng.randrange(60_000)))
        # Some plays come too long after their impressions to count.
        if rng.random() < 0.4:
            wait = rng.choice([30_000, 3_000_000, HORIZON_MS + 60_001])
            events.append(("play", request, rng.choice(shown), begin + wait))
    events.sort(key=lambda event: event[3])
    return [event for event in events for _ in range(2 if rng.random() < 0.05 else 1)]


def count(events):
    """The contract, with plain sets: (video, epoch) to the requests that played and were shown it."""
    of = defaultdict(lambda: {"impression": [], "play": []})
    for kind, request, video, when in events:
        of[request][kind].append((video, when))
    table = defaultdict(lambda: (set(), set()))
    for request, kinds in of.items():
        for kind, other, place in (("play", "impression", 0), ("impression", "play", 1)):
            for video, when in kinds[kind]:
                if any(abs(when - there) <= HORIZON_MS for _, there in kinds[other]):
                    table[(video, when // EPOCH_MS)][place].add(int(request, 16))
    return dict(table)


class Registry(http.server.BaseHTTPRequestHandler):
    """Answers as a schema registry does that knows one schema."""

    def do_GET(self):
        known = self.path == f"/schemas/ids/{SCHEMA_ID}"
        answer = {"schema": json.dumps(SCHEMA)} if known else {"error_code": 40403, "message": "Schema not found"}
        body = json.dumps(answer).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def start_registry():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def as_avro(record):
    """In the registry's wire format: a zero, the schema's number, the value."""
    out = io.BytesIO()
    out.write(b"\0" + SCHEMA_ID.to_bytes(4, "big"))
    fastavro.schemaless_writer(out, SCHEMA, record | {"country": None})
    return out.getvalue()


def produce(own, events):
    """Keyed by request id, as any producer should; every third as Avro."""
    producer = Producer({"bootstrap.servers": variable("UPTAKE_TEST_KAFKA"), "enable.idempotence": True})
    failed = []
    for n, (kind, request, video, when) in enumerate(events):
        record = {"kind": kind, "request_id": request, "video_id": video, "timestamp": when}
        topic = f"{own}-{'plays' if kind == 'play' else 'impressions'}"
        value = as_avro(record) if n % 3 == 0 else json.dumps(record).encode()
        told = lambda error, _: failed.append(error) if error else None
        producer.produce(topic, key=request, value=value, on_delivery=told)
        producer.poll(0)
    if producer.flush(60) or failed:
        sys.exit(f"not all events were taken: {failed[:3]}")


def ids(stored):
    """The set that docs/cassandra.md describes; every one here is exact."""
    if not stored:
        return None
    if stored[:1] != b"\0":
        sys.exit(f"a set that is not exact: {stored[:8]}")
    return [int.from_bytes(stored[i : i + 8], "little") for i in range(1, len(stored), 8)]


def read_cassandra(own, expected, check):
    host, port = variable("UPTAKE_TEST_CASSANDRA").split(":")
    profile = ExecutionProfile(load_balancing_policy=RoundRobinPolicy(), consistency_level=ConsistencyLevel.ONE)
    login = PlainTextAuthProvider(variable("UPTAKE_TEST_CASSANDRA_USER"), variable("UPTAKE_TEST_CASSANDRA_PASSWORD"))
    profiles = {EXEC_PROFILE_DEFAULT: profile}
    cluster = Cluster([host], port=int(port), auth_provider=login, execution_profiles=profiles)
    try:
        session = cluster.connect(own)
        found = {}
        for row in session.execute("SELECT * FROM tallies"):
            key = (row.video_id, row.epoch)
            found[key] = (row.plays, row.impressions)
            if row.sealed:
                played, shown = expected[key]
                check.equal(f"Cassandra, requests that played {key}", ids(row.play_set), sorted(played))
                check.equal(f"Cassandra, requests that were shown {key}", ids(row.impression_set), sorted(shown))
        return found
    finally:
        cluster.shutdown()


def read_s3(own):
    files = s3fs.S3FileSystem(
        key=variable("UPTAKE_TEST_S3_KEY"),
        secret=variable("UPTAKE_TEST_S3_SECRET"),
        endpoint_url=variable("UPTAKE_TEST_S3"),
        client_kwargs={"region_name": "us-east-1"},
    )
    db = duckdb.connect()
    db.register_filesystem(files)
    rows = db.execute(
        f"""SELECT video_id, epoch_number, plays, impressions, list_sort(played), list_sort(shown)
            FROM read_parquet('s3://{variable("UPTAKE_TEST_S3_BUCKET")}/{own}/tallies/*/*.parquet')"""
    ).fetchall()
    for video, epoch, plays, impressions, played, shown in rows:
        if (plays, impressions) != (len(played), len(shown)):
            sys.exit(f"the archive counts {plays} and {impressions} for {video} in {epoch}, and holds other sets")
    return {(video, epoch): (played, shown) for video, epoch, _, _, played, shown in rows}


def committed(own, events, check):
    """What the consumer group has committed is the end of every partition, so its lag is 0."""
    consumer = Consumer({"bootstrap.servers": variable("UPTAKE_TEST_KAFKA"), "group.id": f"{own}-group"})
    try:
        topics = [f"{own}-impressions", f"{own}-plays"]
        known = consumer.list_topics(timeout=20).topics
        partitions = [TopicPartition(t, p) for t in topics for p in known[t].partitions]
        ends = {(p.topic, p.partition): consumer.get_watermark_offsets(p, timeout=20)[1] for p in partitions}
        # A partition without records has nothing to commit.
        offsets = {(p.topic, p.partition): max(p.offset, 0) for p in consumer.committed(partitions, timeout=20)}
        check.equal("the group's offsets", offsets, ends)
        check.equal("records in the topics", sum(ends.values()), events)
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
