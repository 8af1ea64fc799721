"""`data` says what a set holds and what is wrong with it, before any training."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.tiny_runs import write_images
from tests.train.data.sources.detection.made_up import write_rotated
from train.__main__ import main
from train.errors import DONE, WRONG_USE


def report(folder, output, *words):
    return main(["data", str(folder), "--output", str(output), *words])


def split(output, name):
    return json.loads((output / "data.json").read_text())["splits"][name]


def test_classes_sizes_and_objects_are_counted(tmp_path, capsys):
    folder = write_images(tmp_path / "images")
    wide = np.random.default_rng(0).integers(0, 256, (20, 50, 3), np.uint8)
    Image.fromarray(wide).save(folder / "train" / "edge" / "wide.png")
    assert report(folder, tmp_path / "out", "--data.image-size=16") == DONE
    found = split(tmp_path / "out", "train")
    assert found["classes"] == {"blob": 8, "cross": 8, "edge": 9}
    assert found["images"] == found["readable"] == 25
    assert found["with_object"] == 24
    assert found["sizes"]["smallest"] == found["sizes"]["most_common"] == [12, 12]
    assert found["sizes"]["largest"] == [20, 50]
    text = " ".join(capsys.readouterr().out.split())
    assert "largest 50 x 20, most common 12 x 12; 24 with a box." in text
    assert "train: 24 are smaller than the 16 x 16 pixels" in text
    assert "cannot be used" not in text


def test_what_is_broken_repeated_or_in_both_splits_is_named(tmp_path, capsys):
    folder = write_images(tmp_path / "images")
    train, test = folder / "train" / "blob", folder / "test" / "blob"
    (train / "junk.png").write_bytes(b"junk")
    shutil.copy(train / "1.png", train / "again.png")
    shutil.copy(train / "2.png", test / "leaked.png")
    for index in range(3, 8):
        (folder / "train" / "cross" / f"{index}.png").unlink()
    (folder / "boxes.csv").unlink()
    assert report(folder, tmp_path / "out") == WRONG_USE
    found = split(tmp_path / "out", "train")
    (broken,) = found["broken"]
    assert "junk.png" in broken
    assert found["repeated"] == ["train/blob/again.png"]
    assert split(tmp_path / "out", "test")["also_in_an_earlier_split"] == [
        "test/blob/leaked.png"
    ]
    text = " ".join(capsys.readouterr().out.split())
    assert "train: 1 cannot be used" in text
    assert "test: 1 are also in an earlier split" in text
    assert "train: blob has 9 images, cross 3" in text


def test_a_batch_is_shown_as_a_step_sees_it(tmp_path):
    folder = write_images(tmp_path / "images")

    def pictures(name, *words):
        assert report(folder, tmp_path / name, "--images=8", *words) == DONE
        return [
            np.asarray(Image.open(tmp_path / name / file)).astype(int)
            for file in ("batch.png", "evaluation.png")
        ]

    plain, jittered = pictures("a"), pictures("b", "--data.color-jitter=0.9")
    assert plain[0].shape == jittered[0].shape
    assert np.abs(plain[0] - jittered[0]).mean() > 3
    # What is scored is not augmented.
    np.testing.assert_array_equal(plain[1], jittered[1])
    for option in ("trivial-augment", "erasing=1", "mixup=1", "cutmix=1"):
        changed = pictures(option, f"--data.{option}")
        assert np.abs(plain[0] - changed[0]).mean() > 3, option
        np.testing.assert_array_equal(plain[1], changed[1])
    preset = pictures("c", "--preset=photographs", "--data.image-size=12")
    assert np.abs(plain[0] - preset[0]).mean() > 3


def test_objects_are_counted_and_drawn(tmp_path, capsys):
    def change(values):
        values["images"][5]["boxes"][1][3] = 0

    root = write_rotated(tmp_path / "set", change)
    out, bare = tmp_path / "out", tmp_path / "bare"
    size = "--data.image-size=20"
    assert report(f"rotated:{root}", out, size) == WRONG_USE
    found = split(out, "train")
    assert found["readable"] == 6
    assert found["classes"] == {}
    (broken,) = found["broken"]
    assert "boxes[1] of train/5.png" in broken
    objects = found["objects"]
    # Images have 0, 1, 2, 0, 1 and 0 objects.
    assert objects["categories"] == {"car": 3, "person": 1, "tree": 0}
    assert objects["all"] == 4
    assert (objects["rotated"], objects["ignored"]) == (3, 0)
    assert objects["images_without"] == 3
    assert objects["per_image"] == [0, 0.5, 2]
    boxes = [
        box
        for index in (1, 2, 4)
        for box in json.loads((root / "train.json").read_text())["images"][index][
            "boxes"
        ]
    ]
    sides = [(box[3] * box[4]) ** 0.5 for box in boxes]
    assert objects["side"] == pytest.approx([min(sides), np.median(sides), max(sides)])
    text = " ".join(capsys.readouterr().out.split())
    assert "train: 4 objects, 0 to 2 in an image (median 0.5)" in text
    # The same images without objects look otherwise.
    for name in ("train", "test"):
        file = root / f"{name}.json"
        values = json.loads(file.read_text())
        for image in values["images"]:
            image["boxes"] = []
        file.write_text(json.dumps(values))
    assert report(f"rotated:{root}", bare, size) == DONE
    drawn, plain = (
        np.asarray(Image.open(each / "evaluation.png")).astype(int)
        for each in (out, bare)
    )
    assert drawn.shape == plain.shape
    assert 0.001 < (drawn != plain).any(axis=-1).mean() < 0.3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/nowhere", "data.name must be one of"),
        ("folder:/nowhere", "does not exist"),
        ("digit", "'digits'"),
    ],
)
def test_a_set_that_is_not_there_is_one_sentence(tmp_path, capsys, name, said):
    assert report(name, tmp_path / "out") == WRONG_USE
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_of_the_users_is_not_written_over(tmp_path, capsys):
    folder = write_images(tmp_path / "images")
    (tmp_path / "data.json").write_text("mine")
    assert report(folder, tmp_path) == WRONG_USE
    assert "not written over" in capsys.readouterr().err
    assert (tmp_path / "data.json").read_text() == "mine"
