"""`evaluate` beside its yardsticks, on tiny runs with and without held-out images."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.tiny_runs import finish, write_images
from train.__main__ import main
from train.commands.yardsticks import yardsticks_table
from train.errors import DONE
from train.evidence.answers import CENTER, CONSTANT, ORACLE, WHOLE
from train.run import layout

LAYER, MASK = "attention1: rectangle", "attention1: mask"
CAMS = ["CAM, predicted class", "CAM, true class", "Grad-CAM, true class"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("set") / "images")


def trained(folder, workdir, *more):
    # Of twelve pixels the third stage leaves one: no map.
    quick = ["--epochs=1", "--output.quiet", "--model.attention-stages", "1"]
    quick += ["--data.image-size=24"]
    return finish(folder, workdir, *quick, *more)


@pytest.fixture(scope="module")
def holding_out(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("held") / "run"
    return trained(folder, workdir, "--data.validation=0.25")


def evaluated(workdir, *more):
    quick = "--equivariance-images=0"
    assert main(["evaluate", "--workdir", str(workdir), quick, *more]) == DONE
    text = (workdir / layout.EVALUATION).read_text()
    return json.loads(text, parse_constant=pytest.fail)


def test_every_row_is_there(holding_out, capsys):
    result = evaluated(holding_out)
    found = result["yardsticks"]
    assert list(found["rows"]) == [LAYER, WHOLE, CENTER, CONSTANT, ORACLE, *CAMS]
    assert found["held_out_images"] == 6
    assert found["thresholds"].keys() == set(CAMS)
    assert {len(each) for each in found["constant_boxes"].values()} == {4}
    assert "note" not in found
    for scores in found["rows"].values():
        assert all(0 <= value <= 1 for value in scores.values())
    # Boxes of 6 by 6 in images of 12 by 12 (enlarged), and their own rectangles.
    assert found["rows"][ORACLE]["box_accuracy_0.7"] == 1
    assert found["rows"][WHOLE]["iou"] == pytest.approx(0.25)
    for name in (LAYER, CAMS[0]):
        assert found["rows"][name].keys() >= {"box_accuracy_0.5", "pointing"}
    # The same layer on the same images as in the table above, by other functions.
    layer = {
        name.partition("/")[2]: value
        for name, value in result["test"].items()
        if name.startswith("attention1/")
    }
    assert found["rows"][LAYER]["pointing"] == pytest.approx(layer["pointing"])
    assert found["rows"][LAYER]["mass_on_object"] == pytest.approx(
        layer["mass_on_object"], abs=1e-4
    )
    accuracy, top = result["test"]["accuracy"], found["rows"][ORACLE]
    assert top["top1_box_accuracy_0.5"] == pytest.approx(accuracy)
    out = capsys.readouterr().out
    assert "6 held-out training images" in " ".join(out.split())


def test_the_held_out_images_choose_nothing_about_themselves(holding_out, capsys):
    found = evaluated(holding_out, "--split", "validation")["yardsticks"]
    assert CONSTANT not in found["rows"]
    assert "box_accuracy_0.5" not in found["rows"][CAMS[0]]
    assert "pointing" in found["rows"][CAMS[0]]
    assert "are scored" in found["note"]


def test_scored_images_choose_nothing_where_there_is_no_other_split(folder, tmp_path):
    images = shutil.copytree(folder, tmp_path / "images")
    shutil.rmtree(images / "test")
    boxes = (images / "boxes.csv").read_text().splitlines(keepends=True)
    lines = [line for line in boxes if not line.startswith("test/")]
    (images / "boxes.csv").write_text("".join(lines))
    split = "--data.eval-split=validation"
    workdir = trained(images, tmp_path / "run", "--data.validation=0.25", split)
    assert "are scored" in evaluated(workdir)["yardsticks"]["note"]
    # Another split by the name of the held-out one is another matter.
    (images / "train").rename(images / "all")
    shutil.copytree(images / "all", images / "train")
    (images / "all").rename(images / "validation")
    more = [line.replace("train/", "validation/") for line in lines[1:]]
    (images / "boxes.csv").write_text("".join([*lines, *more]))
    assert evaluated(workdir)["yardsticks"]["held_out_images"] == 6


def test_without_held_out_images_it_says_so(folder, tmp_path, capsys):
    workdir = trained(folder, tmp_path / "run", "--model.attention=positionwise-trunk")
    found = evaluated(workdir)["yardsticks"]
    assert list(found["rows"]) == [WHOLE, CENTER, ORACLE, MASK, *CAMS]
    assert found["held_out_images"] == 0
    assert "No training images are held out" in found["note"]
    assert "iou" not in found["rows"][MASK]
    assert "--data.validation" in " ".join(capsys.readouterr().out.split())


def test_position_wise_masks_are_cut_where_held_out_images_say(folder, tmp_path):
    model = ["--model.attention=positionwise-trunk", "--data.validation=0.25"]
    found = evaluated(trained(folder, tmp_path / "run", *model))["yardsticks"]
    assert found["thresholds"].keys() == {MASK, *CAMS}
    assert found["rows"][MASK].keys() == found["rows"][CAMS[0]].keys()


def test_on_request_or_without_boxes_there_are_none(holding_out, tmp_path):
    assert "yardsticks" not in evaluated(holding_out, "--no-yardsticks")
    for name in ("a", "b"):
        for split in ("train", "test"):
            place = tmp_path / "images" / split / name
            place.mkdir(parents=True)
            for index in range(8):
                Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(
                    place / f"{index}.png"
                )
    assert "yardsticks" not in evaluated(trained(tmp_path / "images", tmp_path / "run"))


def test_the_table_shows_names_as_they_are_and_fits_a_terminal():
    rows = {"a[1]: mask": {"iou": 0.25, "pointing": 1.0}, "CAM, predicted class": {}}
    scores = ["box_accuracy_0.3", "box_accuracy_0.5", "area"]
    rows["whole image"] = dict.fromkeys(
        [*scores, "corloc", "top1_box_accuracy_0.5"], 1.0
    )
    rows["whole image"] |= {"pixel_average_precision": 0.5, "box_accuracy_0.7": 0.123}
    table = yardsticks_table({"rows": rows, "note": "[red]none[/b]"}, "test")
    text = io.StringIO()
    Console(file=text, width=80).print(table)
    lines = text.getvalue().splitlines()
    assert "[red]none[/b]" in text.getvalue()
    (row,) = (line for line in lines if "a[1]: mask" in line)
    assert row.split()[-9:] == ["-"] * 4 + ["0.250", "-", "1.000", "-", "-"]
    assert max(map(len, lines)) <= 80
