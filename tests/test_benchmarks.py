"""Two processes in turns: what their times say, and that a side's trouble is told here."""

from __future__ import annotations

import pytest

from benchmarks import pairs
from benchmarks.tables import markdown_table, write_between


def test_the_ratio_is_taken_round_by_round_so_that_a_slow_round_cancels():
    own, peer = [1.0, 1.1, 50.0], [2.0, 2.2, 100.0]
    assert pairs.paired_ratio(own, peer) == pairs.Spread(0.5, 0.5, 0.5)
    assert pairs.comparison(own, peer)["seconds"] == {"ours": 1.1, "peer": 2.2}


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0], (3.0, 3.0, 3.0)), ([1.0, 3.0], (1.5, 2.0, 2.5)), ([5, 1, 3, 2, 4], (2, 3, 4))]
)
def test_a_spread_is_the_median_between_its_quartiles(values, expected):
    assert pairs.spread(values) == expected


def test_sides_take_turns_until_the_time_is_over_but_never_fewer_than_asked_for(monkeypatch):
    monkeypatch.setattr(pairs, "REST", 0.0)
    calls = []
    sides = [lambda: calls.append("a") or 1.0, lambda: calls.append("b") or 2.0]
    assert pairs.take_turns(sides, min_rounds=3, max_seconds=0.0) == [[1.0] * 3, [2.0] * 3]
    assert calls == ["a", "b"] * 3
    assert len(pairs.take_turns(sides, max_rounds=4, max_seconds=60.0)[0]) == 4


def test_what_is_quick_runs_once_more_than_is_timed_and_what_is_slow_runs_once():
    runs = []
    assert pairs.turn_seconds(lambda: runs.append(1), at_least=-1.0) > 0
    assert len(runs) == 1
    assert pairs.turn_seconds(lambda: runs.append(1), at_least=1e-5) < 1
    assert len(runs) > 2


def test_a_side_answers_from_another_process_and_tells_what_went_wrong_there():
    with pairs.Side("fractions:Fraction", {"ANY": "1"}, 1, numerator=3, denominator=4) as side:
        assert side.call("limit_denominator", 2) == 1
        with pytest.raises(RuntimeError, match="AttributeError"):
            side.call("no_such_method")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        pairs.Side("fractions:Fraction", {}, 0, numerator=1, denominator=0)


def test_a_table_goes_between_its_marks_and_nowhere_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- speed -->\nold\n<!-- end of speed -->\nafter\n")
    write_between(page, "speed", markdown_table(("name", "ms:"), [("a", 1)]))
    assert page.read_text() == (
        "before\n<!-- speed -->\n| name | ms |\n| --- | ---: |\n| a | 1 |\n<!-- end of speed -->\nafter\n"
    )
    with pytest.raises(SystemExit, match="no lines <!-- other -->"):
        write_between(page, "other", "")


def test_a_setting_is_told_once():
    entry = {"device": "cpu", "processor": "P", "cores": 2, "commit": "a", "versions": {"python": "3.11"}}
    assert pairs.settings([entry, entry | {"commit": "b"}]) == ["Here: P, 2 cores; python 3.11."]
