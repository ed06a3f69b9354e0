"""Puts a benchmark's numbers where they belong: JSON into benchmarks/results/, a table between marks of docs/crf.md."""

from __future__ import annotations

from benchmarks.tables import REPOSITORY, write_between, write_results

PAGE = REPOSITORY / "docs" / "crf.md"


def publish(name: str, results: object, lines: list[str]) -> None:
    """Writes results/NAME.json, and `lines` between the page's marks for NAME, whatever stood there."""
    write_results(name, results)
    write_between(PAGE, name, "\n".join(lines))
    print("\n".join(lines))
