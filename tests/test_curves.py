"""What stages logged, as points; and the pictures drawn from them."""

from pathlib import Path

import pytest

from pipeline.checkpoint import Checkpoint, Family
from pipeline.errors import InputError
from pipeline.inference.curves import logged, points, thinned
from pipeline.recipe import REPOSITORY
from ui.curves import CHARTS, curves, labels, ticks


def logging(folder: Path, text: str) -> Checkpoint:
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    return Checkpoint(folder, {"stage": "base", "steps": 9, "figures": {}})


def test_lines_come_in_the_order_of_their_steps(tmp_path: Path) -> None:
    records = logged(logging(tmp_path, '{"step": 2, "loss": 1}\n{"step": 1, "loss": 3.5}\n{"step": 2, "kl": 1}\n'))
    assert points(records, "loss") == [(1, 3.5), (2, 1.0)]
    assert points(records, "entropy") == []


@pytest.mark.parametrize(
    "line", ["not json", "[1]", '{"loss": 1}', '{"step": "two"}', '{"step": 1.5}', '{"step": true}']
)
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2"):
        logged(logging(tmp_path, f'{{"step": 1, "loss": 1}}\n{line}\n'))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        logged(Checkpoint(tmp_path, {"stage": "base", "steps": 9, "figures": {}}))


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    records = logged(logging(tmp_path, '{"step": 1, "loss": NaN}\n{"step": 2, "loss": null}\n{"step": 3, "loss": 1}\n'))
    assert points(records, "loss") == [(3, 1.0)]


def test_many_points_become_means_of_neighbours() -> None:
    many = [(step, float(step)) for step in range(1, 1401)]
    few, together = thinned(many, 200)
    assert (len(few), together) == (200, 7)
    assert few[0] == (7, 4.0)
    assert thinned(many[:200], 200) == (many[:200], 1)
    assert thinned([], 200) == ([], 1)


@pytest.mark.parametrize("values", [[0.0], [3.0, 3.0], [-2.5, 7.1], [0.0, 0.005], [49.0, 51.0], [1e-7, 2e-7], [1e6]])
def test_ticks_are_few_and_enclose_all_values(values: list[float]) -> None:
    marks = ticks(values)
    assert 2 <= len(marks) <= 6
    assert marks[0] <= min(values)
    assert max(values) <= marks[-1] + 1e-9
    assert len(set(labels(marks))) == len(marks)


def test_every_chart_of_the_bundled_family_has_a_curve() -> None:
    family = Family(REPOSITORY / "checkpoints" / "tiny")
    for stage, charts in CHARTS.items():
        drawn = curves(stage, logged(family.checkpoint(stage)), [])
        assert [chart.title for chart in charts if f"<h3>{chart.title} " not in drawn] == [], stage


def test_a_thinned_curve_says_so() -> None:
    records = [{"step": step, "loss": 2.0} for step in range(1, 1001)]
    assert "mean of 5" in curves("base", records, [])
    assert "mean of" not in curves("base", records[:200], [])
