"""Benchmarks: two processes in turns, what their times say, and the tables of it."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import convolutions, evaluate_folder, input_pipeline, networks, pairs
from benchmarks.shapes import DIRECTIONS
from benchmarks.tables import markdown_table, read_results, write_between
from deeplab_jax.ops.convolution.implementations import Row


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


def test_a_turn_begins_with_a_run_that_is_not_counted():
    runs = []
    assert pairs.turn_seconds(lambda: runs.append(1), at_least=-1.0) > 0
    assert len(runs) == 2
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
    assert pairs.settings([entry, entry | {"commit": "b"}]) == ["Environment: P, 2 cores; python 3.11."]


def test_options_pick_cases_by_their_names():
    names = [
        case.key(case.batches[0]) for case in networks.cases(networks.parse(["--only=camvid", "--dtype=bfloat16"]))
    ]
    assert names == ["camvid_cpu forward batch 1 bfloat16", "camvid_cpu train batch 8 bfloat16"]
    (case,) = networks.cases(networks.parse(["--only=v3_resnet50 train", "--train_batches=4,16", "--compile"]))
    assert (case.key(16), case.size) == ("v3_resnet50 train batch 16 float32 compiled", (513, 513))


def test_tables_show_medians_spread_and_memory():
    setting = {"device": "cpu", "processor": "P", "cores": 2, "commit": "a", "versions": {"jax": "1"}}
    common = {"dtype": "float32", **setting, "memory_bytes": {"ours": 2e9, "peer": 1e9}}
    common |= pairs.comparison([0.5, 0.5], [1.0, 2.0])
    step = {"network": "v3_resnet50", "mode": "train", "shape": [2, 513, 513], "peer": "eager"}
    line = networks.table({"any": common | step}).splitlines()[2]
    assert "| 2 x 513x513 | float32 | eager | 500 | 1,500 | **0.38** (0.31-0.44) | 2.00 | 1.00 |" in line
    folder = {"data": "made up", "images": 6, "network": "v3_resnet50", "size": [3, 4], "batch_size": 2}
    line = evaluate_folder.table({"any": common | folder | {"differing_share": 0.001}}).splitlines()[2]
    assert "| 12.0 | 4.0 | **0.38** (0.31-0.44) | 0.1000% | 2.00 | 1.00 |" in line
    case = {"mean_file_bytes": 78_000, **setting}
    row = {
        "images_per_cpu_second": 300.4,
        "images_per_second": 200.0,
        "ratio": {"low": 0.4, "median": 0.5, "high": 1.0},
    }
    line = input_pipeline.table({"voc": case | {"pipelines": {"crops": row}}}).splitlines()[2]
    assert line == "| 500x375 jpg of 78 kB to 513 | crops | 300 | **0.50** (0.40-1.00) | 200 |"


def test_evaluations_of_the_same_pixels_alone_are_compared():
    ours, theirs = np.array([[5, 1], [0, 4]]), np.array([[6, 0], [0, 4]])
    assert evaluate_folder.differing_share(ours, theirs) == pytest.approx(0.1)
    with pytest.raises(SystemExit, match="10 pixels were counted here and 20 there"):
        evaluate_folder.differing_share(ours, 2 * theirs)


def _convolution(**ratios):
    spreads = {name: {"low": ratio, "median": ratio, "high": ratio} for name, ratio in ratios.items()}
    return {"dtype": "float32", "ratios": spreads}


def test_a_row_whose_choice_is_slower_over_its_shapes_is_told():
    rows = [Row("cpu", "dense", "taps", min_rate=rate) for rate in (1, 2, 3)]
    results = {
        "a": _convolution(taps=1.0, lax=2.0),
        "b": _convolution(taps=1.5, lax=1.0),  # slower here, and quicker over both
        "c": _convolution(taps=1.2, lax=1.0, slabs=3.0),
        "d": _convolution(taps=1.05, lax=1.0),  # within a tenth
    }
    decided = dict(zip(results, (rows[0], rows[0], rows[1], rows[2]), strict=True))
    assert convolutions.slower_rows(results, decided) == [f"{rows[1]}: lax is 1.20 times as quick"]


def test_the_table_of_implementations_chooses_what_was_measured_to_be_quick():
    results = read_results("convolutions_cpu")
    assert len(results) == len(convolutions.SHAPES) * len(DIRECTIONS)
    assert convolutions.slower_rows(results, convolutions.deciding_rows(results, "cpu")) == []
