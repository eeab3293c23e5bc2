"""Comparing what somebody read with what was expected, for the scripts in this folder."""

import sys


class Check:
    """Compares, counts, and prints what differs."""

    SHOWN_MAX = 10

    def __init__(self):
        self.checks = self.failures = 0

    def equal(self, where, found, expected):
        self.checks += 1
        if found != expected:
            self.failures += 1
            if self.failures <= self.SHOWN_MAX:
                print(f"DIFFERS: {where}\n  found    {short(found)}\n  expected {short(expected)}")

    def rows(self, where, found, expected):
        """Two dictionaries, row by row."""
        self.equal(f"rows of {where}", len(found), len(expected))
        for key in sorted(found.keys() | expected.keys()):
            self.equal(f"{where}, row {key}", found.get(key), expected.get(key))

    def end(self, seed):
        """Ends the program with 1 if something differs."""
        if self.failures:
            print(f"{self.failures} of {self.checks} comparisons failed; again with --seed {seed}")
            sys.exit(1)


def short(value):
    """A set of thousands says no more than its beginning."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"
