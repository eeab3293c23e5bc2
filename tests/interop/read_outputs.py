#!/usr/bin/env python3
"""Others can read what uptake writes, and read the same.

Writes a small input with a random seed (printed; give it back with --seed), lets `uptake replay`
write the table and the archive, and compares row by row what each of these has to say about it:

  - what must come out, counted here with plain Python sets
  - `uptake tallies --format csv`
  - table.sqlite, read with Python's sqlite3 and with the `sqlite3` command if there is one
  - the archive's Parquet files, read with DuckDB
  - the sketches, read with Apache DataSketches
  - the joined events that `uptake export` writes, read with DuckDB

Prints what differs and ends with 1; a missing package ends with 2.
"""

import argparse
import csv
import io
import json
import math
import pathlib
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict

from check import Check

try:
    import datasketches
    import duckdb
except ImportError as missing:
    print(f"{missing}: run `cargo xtask test`, or pip install -r tests/interop/requirements.txt", file=sys.stderr)
    sys.exit(2)

EPOCH_MS = 1_800_000
START_MS = 1_768_435_200_000  # 2026-01-15T00:00Z, the first moment of an epoch
# Above this a set is a sketch. The sketch keeps all hashes up to 2^SKETCH_LG_K or a little more,
# and estimates beyond, so the input has sets of all three kinds.
EXACT_MAX = 16
SKETCH_LG_K = 6
SETTINGS = [
    'segments=[[], ["country"], ["country", "device"]]',
    f"tally.exact_max={EXACT_MAX}",
    f"tally.sketch_lg_k={SKETCH_LG_K}",
    "archive.shards=2",
]
# Names that a careless writer or reader would split, quote, fold or cut.
ODD_VIDEOS = ['say "hi", she said', "Amélie", "進撃の巨人", "50%=half", " edges ", "NULL", "1e3", "🎬"]
COUNTRIES = ["BR", "US", "Côte d'Ivoire", "a,b=%", ""]
DEVICES = ["tv", "phone"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--uptake", required=True, type=pathlib.Path, help="the uptake program")
    arguments.add_argument("--seed", type=int, help="of the input [default: a random one]")
    arguments.add_argument("--requests", type=int, default=4_000)
    options = arguments.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")

    with tempfile.TemporaryDirectory(prefix="uptake-interop-") as folder:
        folder = pathlib.Path(folder)
        expected = write_input(folder / "events.ndjson", random.Random(seed), options.requests)
        data = folder / "data"
        replay(options.uptake, folder / "events.ndjson", data)
        check = Outputs()
        table = read_table(data / "table.sqlite")
        check.against_expected(table, expected)
        check.command(options.uptake, data, table)
        check.sqlite_command(data / "table.sqlite", table)
        check.archive(data, table)
        export(options.uptake, folder / "events.ndjson", folder / "exports")
        check.joined(folder / "exports", expected)
    check.end(seed)
    print(f"{len(table)} rows read by everyone alike, {check.checks} comparisons")


def write_input(path, rng, requests):
    """Writes events; returns {(video, segment, epoch): (played, shown)} as sets of request ids."""
    videos = ODD_VIDEOS + [f"v{n}" for n in range(30)]
    weights = [1 / (1 + n) for n in range(len(videos))]
    lines, expected = [], defaultdict(lambda: (set(), set()))
    for _ in range(requests):
        request = rng.randrange(2**64)
        country, device = rng.choice(COUNTRIES), rng.choice(DEVICES)
        time = START_MS + rng.randrange(4 * EPOCH_MS)
        shown = list(dict.fromkeys(rng.choices(videos, weights, k=rng.randint(1, 8))))
        events = [("impression", video, time + 200 * n) for n, video in enumerate(shown)]
        if rng.random() < 0.6:
            events += [
                ("play", video, time + rng.randrange(1_000, 600_000))
                for video in rng.sample(shown, min(len(shown), rng.randint(1, 2)))
            ]
            for kind, video, at in events:
                for segment in segments(country, device):
                    expected[video, segment, at // EPOCH_MS][kind == "impression"].add(request)
        for kind, video, at in events:
            event = dict(kind=kind, request_id=f"{request:016x}", video_id=video, timestamp=at, device=device)
            if country:
                event["country"] = country
            line = json.dumps(event, ensure_ascii=rng.random() < 0.5)
            lines += [(at + rng.randrange(120_000), line) for _ in range(1 + (rng.random() < 0.05))]
    lines.sort()
    path.write_text("".join(line + "\n" for _, line in lines), encoding="utf-8")
    return expected


def segments(country, device):
    def escaped(value):
        return value.replace("%", "%25").replace(",", "%2C").replace("=", "%3D")

    return ["", f"country={escaped(country)}", f"country={escaped(country)},device={escaped(device)}"]


def replay(uptake, events, data):
    command = [uptake, "replay", events, "--data", data, "--workers", "2", "--json"]
    for setting in SETTINGS:
        command += ["--set", setting]
    ledger = json.loads(run(command))
    if not ledger["balances"]:
        sys.exit(f"the ledger does not balance: {ledger}")
    print(f"{ledger['read']} events, {ledger['counted']} counted, {ledger['expired']} without their other half")


def export(uptake, events, to):
    command = [uptake, "export", "joined", events, "--to", to, "--json"]
    for setting in SETTINGS:
        command += ["--set", setting]
    print(f"{json.loads(run(command))['rows']} joined events")


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        shown = " ".join(str(word) for word in command)
        sys.exit(f"`{shown}` failed with {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode("utf-8")


def read_table(path):
    """{(video, segment, epoch): (plays, impressions, exact, sealed, played, shown)}"""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        if (found := db.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
            sys.exit(f"table.sqlite is damaged: {found}")
        rows = db.execute(
            "SELECT video_id, segment, epoch, plays, impressions, exact, sealed, played, shown FROM tallies"
        )
        return {row[:3]: (row[3], row[4], bool(row[5]), bool(row[6]), row[7], row[8]) for row in rows}


def set_of(blob):
    """The ids, or the bytes of the sketch, of a set as the table stores it."""
    if blob[0] == 0:
        return list(struct.unpack(f"<{(len(blob) - 1) // 8}Q", blob[1:]))
    return blob[1:]


def sketch_of(ids):
    """The sketch that Apache DataSketches makes of these ids."""
    sketch = datasketches.update_theta_sketch(SKETCH_LG_K)
    for id in ids:
        sketch.update(id - 2**64 if id >= 2**63 else id)
    sketch.trim()
    return sketch


class Outputs(Check):
    """What each reader says of the outputs."""

    def against_expected(self, table, expected):
        """The table against plain sets, its sketches against those of Apache DataSketches."""
        self.equal("rows of the table", table.keys(), set(expected))
        kinds = defaultdict(int)
        for key in sorted(table.keys() & expected.keys()):
            plays, impressions, exact, sealed, *blobs = table[key]
            self.equal(f"sealed of {key}", sealed, True)
            sets = [set_of(blob) for blob in blobs]
            self.equal(f"exact of {key}", exact, all(isinstance(each, list) for each in sets))
            for name, count, each, ids in zip(("plays", "impressions"), (plays, impressions), sets, expected[key]):
                where = f"{name} of {key}"
                if len(ids) <= EXACT_MAX:
                    kinds["exact"] += 1
                    self.equal(where, (count, each), (len(ids), sorted(ids)))
                    continue
                self.equal(f"{where}: a sketch", isinstance(each, bytes), True)
                theirs = sketch_of(ids)
                kinds["estimating" if theirs.is_estimation_mode() else "complete"] += 1
                ours = datasketches.compact_theta_sketch.deserialize(each)
                self.equal(f"{where}: the count of the sketch", count, estimate(ours))
                self.equal(f"{where}: hashes of the sketch", sorted(ours), sorted(theirs.compact()))
                self.equal(f"{where}: theta of the sketch", ours.theta, theirs.theta)
        print("sets: " + ", ".join(f"{kinds[kind]} {kind}" for kind in ("exact", "complete", "estimating")))
        for kind in ("exact", "complete", "estimating"):
            self.equal(f"there are {kind} sets in the input", kinds[kind] > 0, True)

    def command(self, uptake, data, table):
        """`uptake tallies` against the table, for every segment."""
        for segment in sorted({key[1] for key in table}):
            command = [uptake, "tallies", "--data", data, "--format", "csv"]
            text = run(command + (["--segment", segment] if segment else []))
            found = {
                (row["video_id"], segment, int(row["epoch"])): (
                    int(row["plays"]), int(row["impressions"]), row["exact"]
                )
                for row in csv.DictReader(io.StringIO(text, newline=""))
            }
            expected = {
                key: (row[0], row[1], "true" if row[2] else "false")
                for key, row in table.items() if key[1] == segment
            }
            self.rows(f"uptake tallies --segment '{segment}'", found, expected)

    def sqlite_command(self, path, table):
        if not shutil.which("sqlite3"):
            print("there is no sqlite3 command; Python's sqlite3 read the table")
            return
        columns = "video_id, segment, epoch, plays, impressions, hex(played), hex(shown)"
        text = run(["sqlite3", "-readonly", "-csv", path, f"SELECT {columns} FROM tallies"])
        found = {
            (row[0], row[1], int(row[2])): (int(row[3]), int(row[4]), row[5], row[6])
            for row in csv.reader(io.StringIO(text, newline=""))
        }
        expected = {
            key: (row[0], row[1], row[4].hex().upper(), row[5].hex().upper()) for key, row in table.items()
        }
        self.rows("the sqlite3 command", found, expected)

    def archive(self, data, table):
        """The archive as DuckDB reads it, against the table."""
        files = str(data / "tallies" / "**" / "*.parquet").replace("'", "''")
        archive = f"read_parquet('{files}', hive_partitioning = true)"
        db = duckdb.connect()
        db.execute("SET TimeZone = 'UTC'")
        rows = db.execute(
            f"""SELECT video_id, segment, epoch_number, plays, impressions, exact, epoch_ms(epoch_start),
                       epoch::VARCHAR, strftime(epoch_start, '%Y-%m-%dT%H-%M'),
                       len(played), len(shown), played, shown, played_sketch, shown_sketch
                FROM {archive}"""
        ).fetchall()
        self.equal("rows of the archive", len(rows), len(table))
        found = {}
        for video, segment, epoch, plays, impressions, exact, start, label, label_of_start, *sets in rows:
            key = (video, segment, epoch)
            played_len, shown_len, played, shown, played_sketch, shown_sketch = sets
            self.equal(f"archive, start of {key}", start, epoch * EPOCH_MS)
            self.equal(f"archive, partition of {key}", label, label_of_start)
            for name, count, length, ids, sketch in (
                ("played", plays, played_len, played, played_sketch),
                ("shown", impressions, shown_len, shown, shown_sketch),
            ):
                self.equal(f"archive, {name} of {key}: one form of two", (ids is None) != (sketch is None), True)
                if ids is not None:
                    self.equal(f"archive, len({name}) of {key}", length, count)
                else:
                    theirs = datasketches.compact_theta_sketch.deserialize(sketch)
                    self.equal(f"archive, {name} of {key}: the count of the sketch", count, estimate(theirs))
            stored = [played_sketch if played is None else played, shown_sketch if shown is None else shown]
            found[key] = (plays, impressions, exact, *stored)
        expected = {key: (*row[:3], set_of(row[4]), set_of(row[5])) for key, row in table.items()}
        self.rows("the archive", found, expected)
        sums = "sum(plays)::BIGINT, sum(impressions)::BIGINT"
        everyone = db.execute(f"SELECT {sums} FROM {archive} WHERE segment = ''").fetchone()
        mine = [row for key, row in table.items() if key[1] == ""]
        self.equal("sums over everyone", everyone, (sum(row[0] for row in mine), sum(row[1] for row in mine)))

    def joined(self, exports, expected):
        """The joined events as DuckDB reads them, counted again as sets."""
        files = str(exports / "joined" / "**" / "*.parquet").replace("'", "''")
        db = duckdb.connect()
        db.execute("SET TimeZone = 'UTC'")
        events = db.execute(
            f"""SELECT request_id, kind, video_id, epoch_ms(timestamp), epoch_number, country, device,
                       epoch::VARCHAR, strftime(to_timestamp(epoch_number * {EPOCH_MS // 1000}), '%Y-%m-%dT%H-%M')
                FROM read_parquet('{files}', hive_partitioning = true)"""
        ).fetchall()
        found = defaultdict(lambda: (set(), set()))
        for request, kind, video, time, epoch, country, device, label, label_of_epoch in events:
            self.equal("epoch of a joined event", (time // EPOCH_MS, label), (epoch, label_of_epoch))
            for segment in segments(country or "", device):
                found[video, segment, epoch][kind == "impression"].add(request)
        self.rows("the joined events", dict(found), dict(expected))


def estimate(sketch):
    """The count that a sketch stands for: rounded, and more than an exact set could hold."""
    return max(math.floor(sketch.get_estimate() + 0.5), EXACT_MAX + 1)


main()
