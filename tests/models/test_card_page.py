from __future__ import annotations

from typing import Any

from pinglow.models.card import ModelCard
from pinglow.models.card_page import card_page
from pinglow.models.score import ScoreCalibration


def cells(page: str, first: str) -> list[str]:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def make(**fields: Any) -> ModelCard:
    return ModelCard(name="tiny", network={"type": "x"}, parameters=1234, **fields)


def test_a_bare_card_is_a_page() -> None:
    page = card_page(make())
    assert page.startswith("# tiny\n\n1,234 parameters")
    assert "not stated" in page
    assert "Scores" not in page
    assert "Recipe" not in page
    assert "Computes in" not in page
    assert "upright" not in page
    assert "Computes in int8" in card_page(make(precision="int8"))
    assert "Some training frames were never turned." in card_page(make(upright=True))


def test_scores_are_in_their_units_with_intervals() -> None:
    full = {
        "data": "a",
        "list": "test",
        "protocol": "strict",
        "images": 2,
        "targets": 3,
        "iou": 0.5,
        "pd": None,
        "fa": 12.34e-6,
        "ci95": {"iou": [0.25, 0.75], "pd": None},
        "per_size": [{"size": "1-9", "targets": 4, "pd": 0.75}, {"size": "50+", "targets": 0}],
    }
    empty = {"data": "b", "split": "cut", "protocol": "strict", "targets": 0, "iou": 0.0, "fa": 0.0}
    page = card_page(make(scores=[full, empty]))
    first = page.split("Per size")[0]
    row = ["a", "test", "2", "3", "50.0 [25.0, 75.0]", "-", "-", "12.3", "-"]
    assert cells(first, "a") == row
    assert cells(first, "b") == ["b", "cut", "-", "0", "-", "-", "-", "0.0", "-"]
    assert cells(page.split("Per size")[1], "a") == ["a", "test", "75.0 (4)", "- (0)"]


def test_boxes_have_scores_of_their_own() -> None:
    row = {"data": "a", "split": "cut", "protocol": "boxes", "ap50": 0.5, "ap": 0.25, "pd": 1.0}
    page = card_page(make(scores=[row]))
    assert "Fa by the area of boxes" in page
    assert "bracket" not in page
    assert cells(page, "data")[4:] == [
        *("mAP50, %", "mAP50:95, %", "Pd, %", "Fa, 1e-6", "false alarms a frame")
    ]
    assert cells(page, "a") == ["a", "cut", "-", "-", "50.0", "25.0", "100.0", "-", "-"]


def test_a_chain_of_runs_begins_with_the_first() -> None:
    data = [{"name": "a", "license": "MIT"}, {"name": "b", "license": "none stated"}]
    base = {"command": "first", "training": {"steps": 1}, "data": data}
    training = {"steps": 2, "best_step": 1, "started_from": base}
    card = make(command="second", training=training, data=[{"name": "a", "license": "MIT"}])
    page = card_page(card)
    assert cells(page, "b") == ["b", "none stated"]  # its license matters still
    assert page.count("| a |") == 1
    assert page.index("- `first` (steps 1)") < page.index("- `second` (steps 2, best step 1)")


def test_the_recipe_can_be_left_out() -> None:
    card = make(recipe="steps = 3\n")
    assert "```toml\nsteps = 3\n```" in card_page(card)
    assert "steps = 3" not in card_page(card, recipe=False)


def test_a_calibration_is_shown_with_what_each_smallest_score_costs() -> None:
    level = {"detections": 7, "pd": 0.875, "alarms_per_frame": 0.05, "alarms_per_megapixel": 0.2}
    calibration = ScoreCalibration.model_validate(
        {
            **{"slope": 2, "intercept": -5, "min_score": 0.25, "highest": 0.9, "ece": 0.0321},
            "reliability": [{"score": 0.8, "true": 0.75, "candidates": 12}],
            "table": [level | {"min_score": 0.5}, level | {"min_score": 0.25}],
            "frames": [{"data": "sky, val", "frames": 3}],
        }
    )
    page = card_page(make(calibration=calibration))
    assert cells(page, "0.2500 (default)") == ["0.2500 (default)", "7", "87.5", "0.050", "0.200"]
    assert cells(page, "0.5000")[1:] == ["7", "87.5", "0.050", "0.200"]
    assert cells(page, "0.800") == ["0.800", "75.0", "12"]
    assert "error is 3.2 %" in page
    assert "| sky, val | 3 |" in page
    assert "Sensitivity" not in card_page(make())
