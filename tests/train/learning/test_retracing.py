"""A training run traces and compiles each of its steps once."""

import functools

import train.learning.evaluator
import train.run.loop
from tests import compilation
from tests.tiny_runs import tiny_arguments, write_images
from train.commands.fit import fit
from train.commands.options import parse_fit


def test_train_and_eval_steps_are_traced_and_compiled_once(tmp_path, monkeypatch):
    traces = {}

    def counted(name, step):
        @functools.wraps(step)
        def traced(*arguments):
            traces[name] = traces.get(name, 0) + 1
            return step(*arguments)

        return traced

    for place, name in (
        (train.run.loop, "train_step"),
        (train.run.loop, "reset_window"),
        (train.learning.evaluator, "eval_step"),
    ):
        monkeypatch.setattr(place, name, counted(name, getattr(place, name)))
    folder = write_images(tmp_path / "images")
    arguments = tiny_arguments(folder, tmp_path / "run")[1:]
    # 12 steps, 4 evaluations of 15 images in batches of 8, and a sharpness that moves.
    with compilation.counted() as compiled:
        assert fit(parse_fit(arguments)) == 0
    assert traces == {"train_step": 1, "reset_window": 1, "eval_step": 1}
    assert {name: compiled[f"jit({name})"] for name in traces} == traces
