#!/usr/bin/env python3
"""The API keeps to its own OpenAPI document, whatever it is sent.

Starts `uptake run --serve` on a free port over a small stream, lets schemathesis draw requests from the
document (also ones that break it), and sends bodies that are no bodies. No answer may be a server's
error, have a status that the document does not name, or another content type or shape. The seed is
printed; give it back with --seed. Prints what differs and ends with 1; a missing package ends with 2.
"""

import argparse
import gzip
import http.client
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

SCHEMATHESIS = pathlib.Path(sys.executable).with_name("schemathesis")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# A stream of server-sent events has no end to wait for.
WITHOUT = "/stream$"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--uptake", required=True, type=pathlib.Path, help="the uptake program")
    arguments.add_argument("--seed", type=int, help="of the requests [default: a random one]")
    arguments.add_argument("--examples", type=int, default=40, help="of each operation")
    options = arguments.parse_args()
    if not SCHEMATHESIS.exists():
        print(f"{SCHEMATHESIS} is missing: run `cargo xtask test`, or pip install -r tests/interop/requirements.txt")
        sys.exit(2)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**31)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="uptake-api-") as folder:
        folder = pathlib.Path(folder)
        rng = random.Random(seed)
        write_events(folder / "events.jsonl", rng)
        data = ["--data", str(folder / "data")]
        quiet = {"check": True, "stdout": subprocess.DEVNULL}
        subprocess.run([options.uptake, "append", folder / "events.jsonl", *data], **quiet)
        command = [options.uptake, "run", "--serve", "127.0.0.1:0", *data, "--set", "serve.rate_per_second=off"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            port = listening(server)
            wait_for_rows(port)
            sent = broken_bodies(port, rng)
            print(f"{sent} bodies that are none: each refused by name")
            command = [
                *(SCHEMATHESIS, "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", CHECKS),
                *("--max-examples", str(options.examples), "--seed", str(seed), "--request-timeout", "20"),
                *("--exclude-path-regex", WITHOUT, "--no-color"),
            ]
            tried = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if tried.returncode != 0:
                print(tried.stdout)
                sys.exit(f"the API does not keep to its document; again with --seed {seed}")
            print(next(line.strip() for line in reversed(tried.stdout.splitlines()) if "generated" in line))
        finally:
            server.terminate()
            said = server.communicate(timeout=60)[1]
        if server.returncode != 0 or "panicked" in said:
            sys.exit(f"the server ended with {server.returncode} and said:\n{said}")


def write_events(path, rng):
    """Some hours of requests until now, so that rows have something to show."""
    now = int(time.time() * 1000)
    with path.open("w") as file:
        for _ in range(1_000):
            request, when = f"{rng.getrandbits(64):016x}", now - rng.randrange(5 * 3_600_000)
            shown = rng.sample(range(30), 6)
            events = [("impression", video, when) for video in shown]
            if rng.random() < 0.3:
                events.append(("play", rng.choice(shown), when + 5_000))
            for kind, video, time_ms in events:
                event = {"kind": kind, "request_id": request, "video_id": f"v{video}", "timestamp": time_ms}
                file.write(json.dumps(event) + "\n")


def listening(server):
    """The port, as the server says it."""
    for line in server.stderr:
        found = re.search(r"serving on http://127\.0\.0\.1:(\d+)", line)
        if found:
            return int(found[1])
    sys.exit("the server ended before it served")


def ask(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.getheader("content-type"), answer.read()
    finally:
        connection.close()


def wait_for_rows(port):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status, _, body = ask(port, "GET", "/v1/rows/popular")
        if status == 200 and json.loads(body)["items"]:
            return
        time.sleep(0.2)
    sys.exit("there was no row after a minute")


def broken_bodies(port, rng):
    """Events with bytes changed, cut, repeated, packed wrongly or of another type than they say."""
    event = {"kind": "play", "request_id": "r1", "video_id": "v1", "timestamp": int(time.time() * 1000)}
    types = ["application/json", "application/x-ndjson", "text/plain", "image/png", "", "application/json; charset=x"]
    packings = [None, "gzip", "zstd", "br", "gzip, gzip"]
    sent = 0
    for _ in range(300):
        body = bytearray(json.dumps({"events": [event] * rng.randint(1, 3)}).encode())
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(body)) if body else 0
            change = rng.randrange(4)
            if change == 0 and body:
                body[at] = rng.randrange(256)
            elif change == 1:
                del body[at:]
            elif change == 2:
                body[at:at] = body[: rng.randrange(len(body) + 1)]
            else:
                body[at:at] = rng.randbytes(rng.randrange(8))
        packing = rng.choice(packings)
        packed = gzip.compress(bytes(body)) if packing and rng.random() < 0.5 else bytes(body)
        headers = {"content-type": rng.choice(types)} | ({"content-encoding": packing} if packing else {})
        status, kind, answer = ask(port, "POST", "/v1/events", packed, headers)
        if status != 202 and not (400 <= status < 500 and kind == "application/problem+json"):
            sys.exit(f"{status} {kind} {answer[:300]} for {headers} {packed[:300]}")
        sent += 1
    return sent


if __name__ == "__main__":
    main()
