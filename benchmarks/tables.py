"""Stores the numbers of a benchmark: JSON in benchmarks/results/, a table between two markers of a page."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
PERFORMANCE = REPOSITORY / "docs" / "performance.md"


def read_results(name: str) -> dict[str, Any]:
    """The content of results/NAME.json; {} if there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write_results(name: str, results: object) -> None:
    """Writes results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")


def write_between(page: pathlib.Path, mark: str, text: str) -> None:
    """Puts the text between the page's lines <!-- mark --> and <!-- end of mark -->."""
    start, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, _, rest = page.read_text().partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"error: {page} has no lines {start} and {end}")
    page.write_text(f"{before}{start}\n{text}\n{end}{after}")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; columns whose title ends in ':', which is removed, are right-aligned."""
    titles = [title.removesuffix(":") for title in header]
    rules = ["---:" if title.endswith(":") else "---" for title in header]
    lines = [titles, rules, *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
