"""A trained run in Python: what it says is what the program says, for any images."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from tests.checks import assert_close
from tests.compilation import counted
from train.__main__ import main
from train.data.sources.base import UnreadableImageError
from train.errors import DONE, UserError
from train.evidence.sight import NoAnswerError
from train.use import load_run


@pytest.fixture(scope="module")
def run(workdir):
    return load_run(workdir)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Photographs of several shapes."""
    place, generator = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    found = []
    for index, size in enumerate([(40, 30), (12, 12), (7, 90), (64, 64), (33, 21)]):
        values = generator.integers(0, 256, (size[1], size[0], 3), np.uint8)
        found.append(place / f"{index}.png")
        Image.fromarray(values).save(found[-1])
    return found


def test_it_says_what_the_program_says(run, workdir, files, tmp_path):
    words = ["predict", *files, f"--workdir={workdir}", f"--output={tmp_path}"]
    assert main([*map(str, words), "--top=2"]) == DONE
    records = json.loads((tmp_path / "predictions.json").read_text())
    found = run.predict(files, cam=False)
    assert len(found) == len(records) == len(files)
    for prediction, record in zip(found, records, strict=True):
        assert prediction.answer["class"] == record["class"]
        assert_close(prediction.answer["probability"], record["probability"])
        assert [each["class"] for each in prediction.top(2)] == [
            each["class"] for each in record["top"]
        ]
        for layer, rectangle in record["rectangles"].items():
            assert_close(prediction.boxes[layer], rectangle["box"], atol=1e-2)


def test_network_and_variables_give_the_same_outputs(run, files):
    """Seen without our pipeline: an image of the network's size, normalised here."""
    image = np.asarray(Image.open(files[1]))
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    normalised = ((image / 255 - mean) / std).astype(np.float32)
    logits: Any = run.model.apply(run.variables, normalised[None])
    (found,) = run.predict(image)
    assert_close(found.outputs, logits[0], atol=1e-4)
    probabilities = np.exp(logits[0]) / np.exp(logits[0]).sum()
    assert_close(found.probabilities, probabilities, atol=1e-4)
    assert found.answer["label"] == np.argmax(logits)


def test_a_batch_of_any_size_is_as_good_as_one_by_one(workdir, files):
    run = load_run(workdir)
    images = [np.asarray(Image.open(file)) for file in files]
    with counted() as compiled:
        together, alone = run.predict(images), [run.predict(each)[0] for each in images]
        many = run.predict(files * 4)  # 20: filled up to 64
        run.predict(files * 13)  # 65: one batch of 64, one of 1
        run.predict(files[:3])
        run.predict([])
    assert compiled["jit(observe)"] == 4  # for 1, 4, 16 and 64
    assert len(many) == 20
    for row, prediction in enumerate(many):
        for other in (together[row % 5], alone[row % 5]):
            assert_close(prediction.outputs, other.outputs, atol=1e-5)
            assert prediction.sight.size == other.sight.size
            for layer, box in prediction.boxes.items():
                assert_close(box, other.boxes[layer], atol=1e-2)


def test_arrays_of_every_kind_are_images(run, files):
    image = np.asarray(Image.open(files[0]))
    (expected,) = run.predict([files[0]])
    for same in (image, image / 255.0, jax.numpy.asarray(image), image[None]):
        (found,) = run.predict(same)
        assert_close(found.outputs, expected.outputs)
    grey = np.full((20, 10), 130, np.uint8)
    results = [run.predict(each)[0] for each in (grey, grey[..., None])]
    assert_close(results[0].outputs, results[1].outputs)
    assert len(run.predict(np.stack([image] * 3))) == 3


def test_class_activation_maps_lie_over_the_whole_photograph(folder, tmp_path, files):
    from tests.tiny_runs import tiny_arguments

    # Of twelve pixels the third stage leaves one: no map.
    words = tiny_arguments(folder, tmp_path, "--epochs=1", "--data.image-size=24")
    assert main(words) == DONE
    run = load_run(tmp_path)
    found = run.predict(files, cam=True)
    for file, prediction in zip(files, found, strict=True):
        assert prediction.cam is not None
        with Image.open(file) as image:
            assert prediction.cam.shape == (image.height, image.width)
        assert prediction.cam.min() >= 0
        assert prediction.cam.max() <= 1
    # The network sees the central square of a narrow photograph only.
    narrow = found[2].cam
    assert narrow is not None
    assert narrow.shape == (90, 7)
    assert not narrow[:35].any()
    assert run.predict(files[0])[0].cam is None


def test_what_is_no_image_is_named(run, files, tmp_path):
    (tmp_path / "junk.png").write_bytes(b"junk")
    with pytest.raises(UnreadableImageError, match=r"junk.png"):
        run.predict([files[0], tmp_path / "junk.png"])
    with pytest.raises(ValueError, match="shape"):
        run.predict(np.zeros((4, 4, 5), np.uint8))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        run.predict(np.full((4, 4, 3), 7.0))


def test_a_network_that_failed_says_so(workdir, files):
    run = load_run(workdir)
    broken = jax.tree.map(lambda leaf: leaf * np.nan, run._trained.variables)
    object.__setattr__(run._trained, "variables", broken)
    with pytest.raises(NoAnswerError, match=r"Image 0: .*not finite"):
        run.predict(files)


def test_what_is_no_run_is_named(workdir, tmp_path):
    with pytest.raises(UserError, match="not the work directory of a run"):
        load_run(tmp_path)
    with pytest.raises(UserError, match="one of the steps"):
        load_run(workdir, checkpoint="5000")
    assert load_run(str(workdir), checkpoint="3").step == 3


def test_the_page_shows_what_runs(workdir, files, tmp_path, monkeypatch, capsys):
    """Its Python runs beside a run and two images of the names that it gives them."""
    page = Path(__file__).parents[3] / "docs" / "using.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(workdir)
    for name, file in zip(("first.png", "second.png"), files, strict=False):
        (tmp_path / name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert len(re.findall("'class': .*?\\{'attention", capsys.readouterr().out)) == 2
