"""Puts a benchmark's numbers where they belong: JSON into benchmarks/results/, a table between marks of docs/crf.md."""

from __future__ import annotations

import json
import pathlib

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
PAGE = REPOSITORY / "docs" / "crf.md"


def publish(name: str, results: object, lines: list[str]) -> None:
    """Writes results/NAME.json, and `lines` between the page's marks for NAME, whatever stood there."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    begin, end = (f"<!-- {word} {name} -->\n" for word in ("begin", "end"))
    before, rest = PAGE.read_text().split(begin)
    after = rest.split(end)[1]
    PAGE.write_text(before + begin + "\n".join(lines) + "\n" + end + after)
    print("\n".join(lines))
