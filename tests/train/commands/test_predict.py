"""`predict` on what people have: good and bad files, any network, any size and name."""

import dataclasses
import hashlib
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
import shapely
from PIL import Image

from tests.tiny_runs import CLASSES, INPUTS, finish, tiny_config, write_images
from train.__main__ import main
from train.config.model import ModelConfig
from train.data.views import eval_view
from train.errors import DONE, WRONG_USE
from train.evidence.sight import Sight, as_record, as_seen
from train.evidence.sight_picture import draw_sight
from train.learning.devices import JitParallel
from train.learning.experiment import make_experiment
from train.run.checkpoints.restore import Trained
from train.tasks import classification


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("set") / "images")


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    return finish(folder, tmp_path_factory.mktemp("runs") / "run", "--epochs=1")


def predict(workdir, *arguments):
    return main(["predict", "--workdir", str(workdir), *map(str, arguments)])


def contents(folder):
    """Checksums of the files below a folder, by path."""
    return {
        path: hashlib.md5(path.read_bytes()).hexdigest()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


def records_in(folder):
    text = (folder / "predictions.json").read_text()
    return json.loads(text, parse_constant=pytest.fail)


def photo(path, size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(values).convert(mode).save(path)
    return path


@pytest.mark.parametrize("again", [1, 2])
def test_the_photographs_are_left_alone_where_the_output_lies_among_them(
    finished, tmp_path, again
):
    photos = tmp_path / "photos"
    for name in ("a.png", "a.jpg", "b/a.png"):
        photo(photos / name)
    # The user's own file where a picture would go.
    photo(photos / "a-rectangle.png")
    (photos / "predictions.json.tmp").write_text("mine")
    before = contents(photos)
    for _ in range(again):
        assert predict(finished, photos, "--output", photos) == DONE
    after = contents(photos)
    assert {path: after[path] for path in before} == before
    pictures = [record["picture"] for record in records_in(photos)]
    assert len(set(pictures)) == 4
    assert not set(map(Path, pictures)) & set(before)
    assert set(after) - set(before) == {
        *map(Path, pictures),
        photos / "predictions.json",
        photos / ".cram-jax-outputs.jsonl",
    }


@pytest.mark.parametrize("whose", ["the user's", "another run's"])
def test_a_foreign_result_is_refused_before_anything_is_written(
    finished, tmp_path, capsys, whose
):
    image, out = photo(tmp_path / "a.png"), tmp_path / "out"
    if whose == "the user's":
        out.mkdir()
        (out / "predictions.json").write_text("mine")
    else:
        other = shutil.copytree(finished, tmp_path / "other")
        assert predict(other, image, "--output", out) == DONE
    before = contents(out)
    assert predict(finished, image, "--output", out) == WRONG_USE
    assert contents(out) == before
    error = capsys.readouterr().err
    assert "not written over" in error
    assert error.count("\n") == 1


def bad_files(folder):
    folder.mkdir(exist_ok=True)
    (folder / "junk.jpg").write_bytes(b"junk")
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    whole = photo(folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "whole.png").unlink()
    Image.new("F", (8, 8)).save(folder / "float.tiff")
    (folder / "lost.png").symlink_to("nowhere")
    return [
        *(folder / name for name in ("junk.jpg", "empty.png", "folder.png", "cut.png")),
        *(folder / name for name in ("float.tiff", "lost.png", "none.png", "*.gif")),
    ]


def test_bad_files_do_not_lose_the_good_ones(finished, tmp_path, capsys):
    bad = bad_files(tmp_path / "bad")
    good = [photo(tmp_path / f"{index}.png") for index in range(3)]
    arguments = [good[0], *bad[:4], good[1], *bad[4:], good[2]]
    assert predict(finished, *arguments, "--output", tmp_path / "out") == WRONG_USE
    records = records_in(tmp_path / "out")
    assert {Path(each["image"]) for each in records if "error" in each} == set(bad)
    assert [Path(each["image"]) for each in records if "class" in each] == good
    captured = capsys.readouterr()
    for path in bad:
        assert f"error: {path}" in captured.err
    for path in good:
        assert f"{path}: " in captured.out
    assert "8 of 11 could not be used" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("given", ["empty", "text", "*.nothing"])
def test_no_image_at_all_is_one_sentence(finished, tmp_path, capsys, given):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x")
    out = tmp_path / "out"
    assert predict(finished, tmp_path / given, "--output", out) == WRONG_USE
    error = capsys.readouterr().err
    assert "There is no image to look at" in error
    assert given in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_names_of_any_bytes_and_lengths(finished, tmp_path, capsys):
    names = [
        "a b.png",
        "new\nline.png",
        os.fsdecode(b"caf\xe9.png"),
        "[a]*.png",
        "n" * 250 + ".png",
        "-x.png",
        "\u732b.png",
        "%s {0} $x$.png",
    ]
    plain = photo(tmp_path / "plain.png")
    files = [tmp_path / "in" / name for name in names]
    files[0].parent.mkdir()
    for file in files:
        shutil.copy(plain, file)
    assert predict(finished, *files, "--output", tmp_path / "out") == DONE
    records = records_in(tmp_path / "out")
    assert len(records) == len(names)
    for record in records:
        record["image"].encode()
        assert Path(record["picture"]).exists()
    out = capsys.readouterr().out
    assert "new\\nline.png: " in out
    assert "caf\\xe9.png: " in out


def untrained(monkeypatch, channels=3, class_names=CLASSES, side=12, **model):
    """Has `predict` restore a network before its first step instead of a run's."""
    inputs = dataclasses.replace(
        INPUTS, image_shape=(side, side, channels), class_names=class_names
    )
    config = dataclasses.replace(
        tiny_config(), model=ModelConfig(widths=(4, 4, 4), **model)
    )
    experiment = make_experiment(config, inputs, JitParallel(jax.devices()[:1]))
    state = experiment.initial_state()
    trained = Trained(experiment, state.evaluated_variables(), state.step)
    monkeypatch.setattr("train.commands.predict.restore_trained", lambda *_: trained)
    return trained


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "model",
    [
        {"attention": "rectangular", "attention_stages": (1, 2)},
        {"attention": "none", "attention_stages": ()},
        {"attention": "squeeze-excite", "attention_stages": (1,)},
        {"attention": "positionwise-pooled", "attention_stages": (2,)},
    ],
    ids=lambda model: model["attention"],
)
def test_every_network_gives_a_picture_with_the_class_on_it(
    finished, tmp_path, monkeypatch, channels, model
):
    untrained(monkeypatch, channels, **model)
    files = [photo(tmp_path / "rgb.png"), photo(tmp_path / "grey.png", mode="L")]
    files += [
        photo(tmp_path / "palette.gif", mode="P"),
        photo(tmp_path / "1.png", (1, 1)),
    ]
    files += [
        photo(tmp_path / "thin.png", (2, 700)),
        photo(tmp_path / "low.png", (900, 1)),
    ]
    assert predict(finished, *files, "--output", tmp_path / "out") == DONE
    for record in records_in(tmp_path / "out"):
        with Image.open(record["picture"]) as picture:
            pixels = np.asarray(picture)
        assert pixels.ndim == 3
        # White letters on black in the upper left corner.
        corner = pixels[:16, :60]
        assert (corner > 180).all(-1).any()
        assert (corner == 0).all(-1).mean() > 0.3
    with Image.open(tmp_path / "out" / "rgb-rectangle.png") as picture:
        colours = np.asarray(picture).astype(int)[40:]
    assert np.abs(colours[..., 0] - colours[..., 1]).mean() > 20


@pytest.mark.parametrize("attention", ["none", "rectangular", "positionwise-pooled"])
def test_a_class_activation_map_is_drawn_beside_what_is_drawn_without(
    finished, tmp_path, monkeypatch, attention
):
    stages = () if attention == "none" else (1,)
    # Of twelve pixels the third stage leaves one: no map.
    model = {"attention": attention, "attention_stages": stages, "side": 24}
    network = untrained(monkeypatch, **model)
    # Classifiers start at 0, and so does what they see.
    noise = jax.tree.map(
        lambda leaf: leaf + 0.1 * np.arange(leaf.size).reshape(leaf.shape) % 0.3,
        network.variables,
    )
    noisy = dataclasses.replace(network, variables=noise)
    monkeypatch.setattr("train.commands.predict.restore_trained", lambda *_: noisy)
    file = photo(tmp_path / "a.png", (300, 200))
    assert predict(finished, file, "--output", tmp_path / "without") == DONE
    assert predict(finished, file, "--output", tmp_path / "out", "--cam") == DONE
    (without,), (record,) = (
        records_in(tmp_path / "without"),
        records_in(tmp_path / "out"),
    )
    assert without.keys() == record.keys()
    alone, both = (
        np.asarray(Image.open(each["picture"])).astype(int)
        for each in (without, record)
    )
    height, width = alone.shape[:2]
    np.testing.assert_array_equal(both[4 : 4 + height, 4 : 4 + width], alone)
    beside = both[4 : 4 + height, 8 + width : 8 + 2 * width]
    assert beside.shape == alone.shape
    # Tinted by a map that is not the same everywhere.
    tint = (beside[60:] - np.asarray(Image.open(file)).astype(int)[60:]).sum(axis=-1)
    assert tint.std() > 5


def test_the_likeliest_classes_are_named_in_order(
    finished, tmp_path, monkeypatch, capsys
):
    network = untrained(monkeypatch)
    # Classifiers start at 0: biases make classes unlike.
    params = jax.tree.map(np.zeros_like, network.variables["params"])
    params["head"]["dense"]["bias"] = np.log([0.2, 0.7, 0.1]).astype(np.float32)
    variables = network.variables | {"params": params}
    known = dataclasses.replace(network, variables=variables)
    monkeypatch.setattr("train.commands.predict.restore_trained", lambda *_: known)
    file, out = photo(tmp_path / "in" / "a.png"), tmp_path / "out"
    assert predict(finished, file.parent, "--output", out, "--top", "2") == DONE
    (record,) = records_in(out)
    assert [(each["class"], each["label"]) for each in record["top"]] == [
        ("cross", 1),
        ("blob", 0),
    ]
    probabilities = [each["probability"] for each in record["top"]]
    assert probabilities == pytest.approx([0.7, 0.2])
    assert "cross (70.0%), blob (20.0%)" in capsys.readouterr().out
    assert predict(finished, file, "--output", out, "--top", "9") == DONE
    assert len(records_in(out)[0]["top"]) == 3
    assert predict(finished, file, "--output", out, "--top", "0") == WRONG_USE


def test_a_task_that_chooses_no_class_has_no_likeliest_ones(
    finished, tmp_path, monkeypatch, capsys
):
    untrained(monkeypatch)
    kind = classification.Classification
    answer = {"class": "blob", "label": 0, "probability": 0.5}
    monkeypatch.setattr(kind, "chooses_class", False)
    monkeypatch.setattr(kind, "class_probabilities", lambda *_: None)
    monkeypatch.setattr(kind, "prediction", lambda *_: answer)
    file, out = photo(tmp_path / "a.png"), tmp_path / "out"
    assert predict(finished, file, "--output", out, "--top", "2") == WRONG_USE
    assert not out.exists()
    assert "--top needs a task that chooses a class" in capsys.readouterr().err
    assert predict(finished, file, "--output", out) == DONE


def test_a_task_without_classes_has_no_class_activation_map(
    finished, tmp_path, monkeypatch, capsys
):
    untrained(monkeypatch)
    monkeypatch.setattr(classification.Classification, "explained", lambda *_: {})
    file, out = photo(tmp_path / "a.png"), tmp_path / "out"
    assert predict(finished, file, "--output", out, "--cam") == WRONG_USE
    error = capsys.readouterr().err
    assert "need a task whose outputs are classes" in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_grey_network_sees_what_it_saw_when_files_were_decoded_to_grey(tmp_path):
    from train.data.sources.decoding import decode_image

    for mode, ending in (("RGB", "png"), ("P", "gif"), ("L", "png"), ("RGBA", "png")):
        file = photo(tmp_path / f"{mode}.{ending}", mode=mode)
        seen = as_seen(decode_image(file, channels=3), 1)
        np.testing.assert_array_equal(seen, decode_image(file, channels=1))


def test_a_class_that_no_font_can_write_is_drawn_by_number_and_said_so_once(
    finished, tmp_path, monkeypatch, capsys
):
    names = ("\u732b", "\u72ac", "\u9ce5")
    untrained(monkeypatch, class_names=names, attention="none", attention_stages=())
    monkeypatch.setattr(classification, "has_font", str.isascii)
    files = [photo(tmp_path / f"{index}.png") for index in range(3)]
    assert predict(finished, *files, "--output", tmp_path / "out") == DONE
    out = capsys.readouterr().out
    assert out.count("No font") == len(
        {r["class"] for r in records_in(tmp_path / "out")}
    )
    assert "class " in out
    assert records_in(tmp_path / "out")[0]["class"] in names


def test_output_that_is_not_finite_is_no_class(finished, tmp_path, monkeypatch, capsys):
    trained = untrained(monkeypatch)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, trained.variables)
    broken = dataclasses.replace(trained, variables=broken)
    monkeypatch.setattr("train.commands.predict.restore_trained", lambda *_: broken)
    image = photo(tmp_path / "a.png")
    assert predict(finished, image, "--output", tmp_path / "out") == WRONG_USE
    (record,) = records_in(tmp_path / "out")
    assert "not finite" in record["error"]


def sight_of(rectangles, height, width, masks=None):
    rectangles = {f"a{i}": np.array(r, float) for i, r in enumerate(rectangles)}
    view = eval_view((height, width), (96, 96))
    return Sight(rectangles, masks or {}, view, (height, width))


@pytest.mark.parametrize("size", [(300, 400), (96, 96), (500, 20)])
def test_area_and_cover_are_those_of_the_polygon(size):
    height, width = size
    frame = shapely.box(0, 0, width, height)
    generator = np.random.default_rng(0)
    covering = 0
    for _ in range(50):
        numbers = generator.uniform([-1, -1, 0.1, 0.1, -4], [1, 1, 2.5, 2.5, 4])
        sight = sight_of([numbers], height, width)
        record = as_record(sight)["rectangles"]["a0"]
        polygon = shapely.Polygon(record["corners"])
        expected = polygon.intersection(frame).area / frame.area
        assert record["area"] == pytest.approx(expected, abs=1e-4)
        assert record["covers_picture"] == polygon.contains(frame)
        edges = np.clip(polygon.bounds, 0, [width, height, width, height])
        assert record["box"] == pytest.approx(edges)
        covering += record["covers_picture"]
    assert covering or height != width


def test_a_rectangle_wider_than_the_picture_is_shown_by_its_frame(capsys):
    image = np.full((100, 100, 3), 128, np.uint8)
    wide, usual = (
        draw_sight(sight_of([[0, 0, side, side, 0.1]], 100, 100), image, "cat")
        for side in (1.5, 0.5)
    )
    assert (wide[-3:, 50:] != 128).any()
    assert (usual[-3:, 50:] == 128).all()
    assert (wide[20:35, :150] != usual[20:35, :150]).any()  # the sentence


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3), (97, 41), (5000, 5)])
def test_masks_and_pictures_of_any_shape(size):
    mask = np.linspace(0, 1, 9, dtype=np.float32).reshape(3, 3)
    sight = sight_of([[0, 0, 0.5, 0.5, 0.3]], *size, masks={"m": mask})
    image = np.zeros((*size, 3), np.uint8)
    picture = draw_sight(sight, image, "a class with a rather long name " * 3)
    assert picture.dtype == np.uint8
    assert max(picture.shape) < 2000


def test_a_large_photograph_takes_little_memory_and_a_small_picture():
    image = np.zeros((4000, 6000, 3), np.uint8)
    mask = np.ones((7, 7), np.float32)
    sight = sight_of([[0, 0, 0.5, 0.5, 0.3]] * 3, 4000, 6000, masks={"m": mask})
    tracemalloc.start()
    picture = draw_sight(sight, image, "cat")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(picture.shape) == 1600
    assert peak < 150e6
