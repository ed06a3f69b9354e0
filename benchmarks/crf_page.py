"""Stores the CRF benchmarks' numbers: JSON in benchmarks/results/, a table between markers of docs/crf.md."""

from __future__ import annotations

from benchmarks.tables import REPOSITORY, write_between, write_results

PAGE = REPOSITORY / "docs" / "crf.md"


def publish(name: str, results: object, lines: list[str]) -> None:
    """Writes results/NAME.json, and replaces what stands between the page's markers for NAME with `lines`."""
    write_results(name, results)
    write_between(PAGE, name, "\n".join(lines))
    print("\n".join(lines))
