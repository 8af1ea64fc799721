"""A task that the program does not know: what an outsider writes, and all it takes."""

import dataclasses
import json
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from cram_jax.attention.predictors import MomentPredictor
from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.losses.budget import mask_areas
from cram_jax.losses.outside import apply_with_outside
from tests.checks import assert_close
from tests.tiny_runs import (
    INPUTS,
    random_batch,
    tiny_arguments,
    tiny_config,
    write_images,
    write_masks,
)
from train.__main__ import main
from train.config.data import DataConfig
from train.config.optimizer import OptimizerConfig
from train.config.task import TaskConfig
from train.data.collate import RowMaker
from train.data.pipeline import load_source
from train.data.views import eval_view, render_view
from train.errors import DONE, WRONG_USE, UserError
from train.learning.devices import JitParallel, PmapParallel
from train.learning.experiment import make_experiment
from train.learning.losses.loss import sums_shape
from train.learning.losses.terms import Term
from train.learning.state import create_state
from train.learning.steps import train_step
from train.tasks.registry import TASKS, make_task
from train.tasks.sums import finite_record, weighted_sum
from train.tasks.task import Caption, Task


@dataclasses.dataclass(frozen=True)
class MeanColour(Task):
    """Says the mean colour of an image; bright images count a second time."""

    name: ClassVar[str] = "mean-colour"
    best_score: ClassVar[str] = "closeness"
    shown: ClassVar[tuple[str, ...]] = ("error",)

    def blank_truth(self, size):
        return {"colour": np.full(3, 0.5, np.float32)}

    def truth_of(self, example, view):
        seen = render_view(example.image, view)
        return {"colour": np.asarray(seen.mean((0, 1)) / 255, np.float32)}

    def mirrored(self, truth):
        return dict(truth)

    def network(self, make_backbone, facts):
        return make_backbone(facts.image_shape[-1])

    def _error(self, outputs, batch):
        return jnp.mean(jnp.square(outputs - batch["colour"]), -1)

    def losses(self, outputs, batch):
        error = self._error(outputs, batch)
        bright = batch["weight"] * (batch["colour"].max(-1) > 0.4)
        return {"square": error, "bright": (jnp.sum(bright * error), jnp.sum(bright))}

    def training_sums(self, outputs, batch):
        return {"error": weighted_sum(batch["weight"], self._error(outputs, batch))}

    def sums(self, outputs, batch):
        weight = batch["weight"]
        error = weighted_sum(weight, self._error(outputs, batch))
        return {"images": jnp.sum(weight), "error": error}

    def rows(self, outputs, batch):
        return {"error": self._error(outputs, batch)}

    def record(self, sums, rows, facts):
        assert rows is not None
        error = sums["error"] / sums["images"]
        # A median is no mean over images: it needs every image, and each once.
        median, count = np.median(rows["error"]), len(rows["error"])
        values = {"images": sums["images"], "rows": count, "error": error}
        return finite_record(values | {"median": median, "closeness": 1 / (1 + error)})

    def prediction(self, outputs, view, facts, size):
        return {"colour": outputs.tolist(), "box": [view.left, view.top]}

    def line(self, prediction):
        return "colour " + " ".join(f"{value:.2f}" for value in prediction["colour"])

    def caption(self, prediction):
        return Caption(self.line(prediction))

    def draw(self, picture, prediction, scale):
        picture = picture.copy()
        picture[-int(4 * scale) :] = (255, 0, 255)
        return picture


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setitem(TASKS, MeanColour.name, lambda config: MeanColour())


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_a_task_from_outside_is_trained_evaluated_and_asked(
    known, parallel, tmp_path, capsys
):
    folder, workdir = write_images(tmp_path / "images"), tmp_path / "run"
    options = ["--task.name=mean-colour", f"--parallel={parallel}", "--output.quiet"]
    options += ["--epochs=0.34", "--data.validation=0.3"]
    assert main(tiny_arguments(folder, workdir, *options)) == DONE
    result = json.loads((workdir / "result.json").read_text())
    assert result["step"] == 1
    assert "accuracy" not in result
    assert result["validation"]["closeness"] > 0
    first = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[0])
    assert {"square", "bright", "error", "loss"} <= first.keys()
    assert first["loss"] == pytest.approx(first["square"] + first["bright"])

    assert main(["evaluate", "--workdir", str(workdir)]) == DONE
    scores = json.loads((workdir / "evaluation.json").read_text())["test"]
    assert scores["images"] == scores["rows"] == 15
    assert scores["error"] == pytest.approx(result["error"], rel=1e-4)
    assert scores["median"] == pytest.approx(result["median"], rel=1e-4)
    assert 0 <= scores["attention1/mask_area"] <= 1

    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(photo)
    assert main(["predict", "--workdir", str(workdir), str(photo)]) == DONE
    (record,) = json.loads((workdir / "predictions/predictions.json").read_text())
    assert record["box"] == [10, 0]
    assert len(record["colour"]) == 3
    assert "rectangles" in record
    assert "class" not in record
    assert "colour 0." in capsys.readouterr().out.replace("-0.", "0.")
    picture = np.asarray(Image.open(record["picture"]))
    assert (picture == (255, 0, 255)).all(-1).any()


def test_an_unknown_task_is_refused_with_the_known_ones(known):
    config = tiny_config(task=TaskConfig("mean-color"))
    with pytest.raises(UserError, match="Did you mean 'mean-colour'"):
        make_task(config)


@pytest.mark.parametrize("task", ["mean-colour", "segmentation"])
def test_mixtures_that_mean_nothing_to_a_task_are_refused(
    known, task, tmp_path, capsys
):
    folder = write_masks(write_images(tmp_path / "images"))
    option = "cutmix" if task == "mean-colour" else "mixup"
    words = [f"--task.name={task}", f"--data.{option}=1"]
    assert main(tiny_arguments(folder, tmp_path / "run", *words)) == WRONG_USE
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"'{task}'" in error
    assert f"data.{option}" in error
    # A work directory would keep the options that do not go together.
    assert not (tmp_path / "run").exists()


class Plain(nn.Module):
    """One layer, and no BatchNorm, which would see one part at a time."""

    @nn.compact
    def __call__(self, images, *, train=False):
        maps = nn.relu(nn.Conv(6, (3, 3))(images))
        layer = RectangularAttention(predictor=MomentPredictor, name="attention1")
        return nn.Dense(3)(layer(maps).mean((1, 2)))


def price(look):
    """A term of each image."""
    return mask_areas(look.evidence)["attention1"]


def is_red(batch):
    return batch["colour"].argmax(-1) == 0


def darkness_outside(look):
    """A term over some of the images, of the outside view."""
    some = look.batch["weight"] * is_red(look.batch)
    outside = look.outside["attention1"]
    return jnp.sum(some * jnp.mean(jnp.square(outside), -1)), jnp.sum(some)


TERMS = (
    Term("area", price, lambda step: jnp.asarray(0.5)),
    Term("outside", darkness_outside, lambda step: jnp.where(step < 1, 2.0, 0.0), True),
)


def colour_batch():
    batch = random_batch(0, 16)
    batch["weight"][-3:] = 0
    batch["colour"] = np.asarray(batch["image"].mean((1, 2)) / 255, np.float32)
    batch["colour"][:4, 0] = 0.9
    return batch


def steps(parallel, parts, count):
    config = tiny_config(
        batch_size=16,
        optimizer=OptimizerConfig(accumulate=parts),
        task=TaskConfig(MeanColour.name),
    )
    experiment = dataclasses.replace(
        make_experiment(config, INPUTS, parallel, terms=TERMS),
        model=Plain(),
        schedule=lambda _: {},
        optimizer=optax.sgd(1.0),
    )
    variables = Plain().init(jax.random.key(1), jnp.zeros((1, 12, 12, 3)))
    state = create_state(
        {"params": variables["params"], "batch_stats": {}},
        experiment.optimizer,
        jax.random.key(3),
        averaged=False,
        sums=sums_shape(experiment),
    )
    update = parallel.compile_update(partial(train_step, experiment))
    placed = parallel.place(jax.tree.map(np.asarray, state))
    for _ in range(count):
        placed = update(placed, parallel.place_batch(colour_batch()))
    after = jax.device_get(parallel.fetchable(placed))
    gradients = jax.tree.map(np.subtract, state.params, after.params)
    return experiment, state, after.window, gradients


@pytest.mark.parametrize(
    ("parallel", "parts"),
    [(lambda: JitParallel(jax.devices()[:1]), 1), (JitParallel, 2), (PmapParallel, 2)],
)
def test_terms_and_means_over_some_images_agree_however_the_batch_is_dealt_out(
    known, parallel, parts
):
    experiment, state, window, gradients = steps(parallel(), parts, 1)
    batch = colour_batch()
    weight, some = batch["weight"], batch["weight"] * is_red(batch)
    bright = weight * (batch["colour"].max(-1) > 0.4)
    images = experiment.normalise(jnp.asarray(batch["image"]) / 255)

    def loss(params):
        outputs, outside, updates = apply_with_outside(
            Plain(),
            {"params": params},
            images,
            mask_only=True,
            mutable=["intermediates"],
        )
        error = jnp.square(outputs - batch["colour"]).mean(-1)
        mask = updates["intermediates"]["attention1"]["mask"][0]
        dark = jnp.square(outside["attention1"]).mean(-1)
        return (
            jnp.sum(weight * error) / weight.sum()
            + jnp.sum(bright * error) / bright.sum()
            + 0.5 * jnp.sum(weight * mask.mean((1, 2))) / weight.sum()
            + 2.0 * jnp.sum(some * dark) / some.sum()
        )

    value, expected = jax.jit(jax.value_and_grad(loss))(state.params)
    assert 0 < bright.sum() < weight.sum()
    assert_close(window["loss"] / weight.sum(), value)
    jax.tree.map(partial(assert_close, atol=1e-5, rtol=1e-5), gradients, expected)


def test_an_outside_view_is_switched_off_where_its_weight_is_zero(known):
    _, _, window, _ = steps(JitParallel(jax.devices()[:1]), 1, 2)
    once = steps(JitParallel(jax.devices()[:1]), 1, 1)[2]
    assert once["outside"] > 0
    assert window["outside"] == pytest.approx(once["outside"], rel=1e-6)


def test_rows_of_a_set_in_memory_and_from_disk_hold_the_tasks_truth(tmp_path):
    folder = write_images(tmp_path / "images")
    kept = DataConfig(name=f"folder:{folder}", flip=True)
    read = dataclasses.replace(kept, memory_limit_mb=0)
    indices, mirrored = np.arange(6), np.arange(6) % 2 == 0
    rows = [
        RowMaker(load_source(data, "train"), data, MeanColour(), training=True)
        for data in (kept, read)
    ]
    assert [row.table is None for row in rows] == [False, True]
    first, second = (row(indices, mirrored) for row in rows)
    assert first.keys() == second.keys()
    assert "label" not in first
    for name, values in first.items():
        np.testing.assert_allclose(values, second[name], atol=1e-6)
    view = eval_view((12, 12), (12, 12))
    example = rows[1].source[3]
    truth = MeanColour().truth_of(example, view)["colour"]
    assert_close(first["colour"][3], truth)
