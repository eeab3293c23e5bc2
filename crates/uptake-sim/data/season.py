#!/usr/bin/env python3
"""Makes season.csv: how often films and series were looked up, hour by hour, 2012-02-14 to 2012-03-13.

    python3 season.py DATA > season.csv

DATA is a folder with wiki_hourly_top1000/: counts of Wikimedia's pagecounts-raw, in the public domain, cut to the
1,000 most requested pages of each hour, and which of the pages are titles (facts from Wikipedia). A title
is taken if it was among those pages for six hours or more. An hour that the source lacks is the mean of those
beside it; an hour in which a title was not among the pages is empty.
"""
import collections
import csv
import datetime
import gzip
import pathlib
import sys

HOURS_MIN = 6
# A film's page that a program, most likely, asked for 110,000 times an hour for seven hours; in no list of films.
ROBOTS = {"Bottle Shock": {"title": "Bottle Shock", "kind": "film", "year": "2008", "genres": "Comedy|Drama", "title_id": ""}}


def rows(path):
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def main():
    data = pathlib.Path(sys.argv[1])
    titles = {row["page"]: row for row in rows(data / "wiki_hourly_top1000/title_pages.csv.gz")}
    titles.update(ROBOTS)
    views = collections.defaultdict(collections.Counter)
    hours = set()
    for path in sorted((data / "wiki_hourly_top1000").glob("top_*.csv.gz")):
        for row in rows(path):
            at = datetime.datetime.fromisoformat(row["hour_end"])
            hours.add(at)
            if row["page"] in titles:
                views[row["page"]][at] += int(row["views"])
    first, last, hour = min(hours), max(hours), datetime.timedelta(hours=1)
    grid = [first + n * hour for n in range((last - first) // hour + 1)]
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["id", "kind", "title", "year", "genres", "robot", f"views of the hours that end from {first.isoformat()}"])
    chosen = sorted((page for page in views if len(views[page]) >= HOURS_MIN), key=lambda page: -sum(views[page].values()))
    for number, page in enumerate(chosen):
        title, counts, cells = titles[page], views[page], []
        for at in grid:
            count = counts[at]
            if at not in hours:
                count = (counts[at - hour] + counts[at + hour]) // 2
            if count == 0 and cells and cells[-1].startswith("*"):
                cells[-1] = f"*{int(cells[-1][1:]) + 1}"
            else:
                cells.append(str(count) if count else "*1")
        robot = "robot" if page in ROBOTS else ""
        name = title["title"]
        if title["kind"] == "tv":
            name = name.removesuffix(" (TV series)")
        out.writerow([title["title_id"] or f"t{number:05}", title["kind"], name, title["year"], title["genres"], robot, " ".join(cells)])


main()
