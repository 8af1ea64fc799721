"""The table and the files of `evaluate` and of `fit`'s pictures."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from train.commands.evaluate import result_files, scores_table
from train.errors import UserError
from train.evidence.equivariance_error import draw_curves
from train.run.layout import EQUIVARIANCE_PICTURE, EVALUATION
from train.run.pictures import save_film, save_picture


def printed(table):
    text = io.StringIO()
    Console(file=text, width=100).print(table)
    return text.getvalue()


def test_the_table_shows_names_as_they_are_and_no_nan():
    scores = {"images": 1234.0, "a[1]/iou": 0.25, "x/y": float("nan"), "none": None}
    text = printed(scores_table(scores, "/runs/[red]a[/b]\n: test"))
    assert "/runs/[red]a[/b]\\n: test" in text
    assert "a[1]" in text
    assert "1,234" in text
    assert "nan" not in text


@pytest.mark.parametrize("name", [EVALUATION, EQUIVARIANCE_PICTURE])
@pytest.mark.parametrize("content", [b"mine", b"[1]", b'{"mine": 1}', b""])
def test_a_file_of_the_users_is_not_written_over(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="not written over"):
        result_files(tmp_path, [EVALUATION, EQUIVARIANCE_PICTURE])
    assert (tmp_path / name).read_bytes() == content


def test_our_own_results_are_written_again(tmp_path):
    for step in (1, 2):
        outputs = result_files(tmp_path, [EVALUATION, EQUIVARIANCE_PICTURE])
        outputs.write_json(EVALUATION, {"step": step})
        outputs.write(EQUIVARIANCE_PICTURE, str(step).encode())
    (tmp_path / EQUIVARIANCE_PICTURE).write_bytes(b"painted over")
    with pytest.raises(UserError, match="changed since"):
        result_files(tmp_path, [EVALUATION, EQUIVARIANCE_PICTURE])
    result_files(tmp_path, [EVALUATION])


def test_results_of_a_former_version_are_our_own(tmp_path):
    (tmp_path / EVALUATION).write_text(json.dumps({"step": 3, "test": {}}))
    (tmp_path / EQUIVARIANCE_PICTURE).write_bytes(b"drawn")
    outputs = result_files(tmp_path, [EVALUATION, EQUIVARIANCE_PICTURE])
    outputs.write(EQUIVARIANCE_PICTURE, b"drawn again")
    assert (tmp_path / EQUIVARIANCE_PICTURE).read_bytes() == b"drawn again"


def test_pictures_of_training_leave_others_alone(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "step_00000003.png").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "step_00000003.png")
    (tmp_path / "looking.gif").write_bytes(b"mine")
    mine = (tmp_path / "pictures" / "step_00000003.png").read_bytes()
    for step in (3, 6, 6):
        save_picture(tmp_path, step, np.full((8, 8, 3), step, np.uint8))
    assert (tmp_path / "pictures" / "step_00000003.png").read_bytes() == mine
    for _ in range(2):
        film = save_film(tmp_path)
        assert film is not None
        assert film.name == "looking-2.gif"
    assert (tmp_path / "looking.gif").read_bytes() == b"mine"
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3


@pytest.mark.parametrize(
    "curves",
    [
        {"angle": [{"angle": 0.0}, {"angle": 1.0}]},
        {
            "angle": [{"angle": 0.0, "a/iou": 0.5, "a/iou_still": 0.1}, {"angle": 1.0}],
            "scale": [{"scale": 1.0, "a/iou": None}, {"scale": 2.0, "a/iou": 0.5}],
        },
    ],
)
def test_scores_that_are_not_known_leave_a_gap_in_the_curves(tmp_path, curves):
    draw_curves(curves, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000
