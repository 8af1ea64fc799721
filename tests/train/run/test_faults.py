"""Fault injection: the life of a run under changes of paths, data and environment.

Each fault takes a finished run with its images and some photographs, changes one thing,
and types one command. Whatever that says, afterwards: the exit code is the expected
one, an error is one sentence, no file of the user's has changed, and the checkpoints of
before can be read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.tiny_runs import final_state, run, tiny_arguments, write_images
from train.__main__ import main
from train.errors import CANNOT_WRITE, DONE, WRONG_USE

REFUSED = (WRONG_USE,)
EITHER = (DONE, WRONG_USE)


@dataclasses.dataclass
class World:
    """What a user has: images, a finished run, some photographs and notes."""

    root: Path

    def __post_init__(self):
        self.data, self.workdir = self.root / "images", self.root / "run"
        self.photographs = self.root / "photographs"

    @property
    def newest(self) -> Path:
        return self.workdir / "checkpoints" / "12"


Change = Callable[[World], object]
Command = Callable[[World], list]


def fit(world: World) -> list:
    return tiny_arguments(world.data, world.workdir)


def fit_with(*more: str) -> Command:
    return lambda world: [*fit(world), *more]


def fit_fresh(world: World) -> list:
    return tiny_arguments(world.data, world.root / "fresh", "--epochs=1")


def evaluate(world: World) -> list:
    return ["evaluate", f"--workdir={world.workdir}", "--equivariance-images=0"]


def evaluate_with(*more: str) -> Command:
    return lambda world: [*evaluate(world), *more]


def predict(world: World) -> list:
    return ["predict", f"--workdir={world.workdir}", world.photographs]


@dataclasses.dataclass(frozen=True)
class Fault:
    """One change, one command, and what must come of it."""

    change: Change
    command: Command = fit
    codes: tuple[int, ...] = (DONE,)
    says: str = ""
    damages: bool = False


def nothing(world: World) -> None:
    del world


def write(name: str, text: str | bytes) -> Change:
    data = text.encode() if isinstance(text, str) else text

    def change(world: World) -> None:
        path = world.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return change


def remove(name: str) -> Change:
    def change(world: World) -> None:
        path = world.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def rename(*pairs: tuple[str, str]) -> Change:
    def change(world: World) -> None:
        for old, new in pairs:
            (world.root / old).rename(world.root / new)

    return change


def copy(old: str, new: str) -> Change:
    return lambda world: shutil.copytree(world.root / old, world.root / new)


def halve(name: str) -> Change:
    """Cuts a file, or all files of a folder, in half."""

    def change(world: World) -> None:
        top = world.root / name
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return change


def in_json(name: str, **values) -> Change:
    def change(world: World) -> None:
        path = world.root / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def workdir_called(name: str) -> Change:
    """The finished run in a directory of that name."""

    def change(world: World) -> None:
        world.workdir = world.workdir.rename(world.root / name)

    return change


def images_called(name: str) -> Change:
    def change(world: World) -> None:
        world.data = world.data.rename(world.root / name)

    return change


def through_a_link(world: World) -> None:
    (world.root / "link").symlink_to(world.data)
    world.data = world.root / "link"


def flip_a_byte(world: World) -> None:
    # The largest file holds the parameters.
    files = [path for path in world.newest.rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def swap_two_classes(world: World) -> None:
    for split in ("train", "test"):
        blob, edge = (world.data / split / name for name in ("blob", "edge"))
        blob.rename(world.data / "aside")
        edge.rename(blob)
        (world.data / "aside").rename(edge)


def another_class(world: World) -> None:
    for split in ("train", "test"):
        shutil.copytree(world.data / split / "blob", world.data / split / "ant")


def rename_a_class(world: World) -> None:
    for split in ("train", "test"):
        (world.data / split / "blob").rename(world.data / split / "zebra")
    (world.data / "boxes.csv").unlink()


def an_image_less(world: World) -> None:
    (world.data / "train" / "blob" / "0.png").unlink()
    (world.data / "boxes.csv").unlink()


FAULTS = {
    # Start.
    "started again": Fault(nothing),
    "another seed": Fault(nothing, fit_with("--seed=1"), REFUSED, "seed"),
    "another width": Fault(nothing, fit_with("--model.widths", "5"), REFUSED, "widths"),
    "another parallelism": Fault(nothing, fit_with("--parallel=pmap")),
    "a mistyped option": Fault(nothing, fit_with("--epoch=3"), REFUSED, "--epochs"),
    "no images there": Fault(remove("images"), fit, REFUSED, "images"),
    "an empty folder": Fault(
        lambda world: (shutil.rmtree(world.data), world.data.mkdir()), fit, REFUSED
    ),
    "work directory is a file": Fault(
        write("fresh", "mine"), fit_fresh, (CANNOT_WRITE,), "it is a file"
    ),
    "work directory holds another's files": Fault(
        write("fresh/metrics.jsonl", "mine"), fit_fresh, (*EITHER, CANNOT_WRITE)
    ),
    # Save and kill.
    "killed while saving": Fault(
        lambda world: (world.workdir / "checkpoints/15.orbax-checkpoint-tmp").mkdir()
    ),
    "newest cut short": Fault(halve("run/checkpoints/12"), fit, says="damaged"),
    "newest has a flipped bit": Fault(flip_a_byte, fit, says="damaged"),
    "newest is empty": Fault(
        lambda world: (shutil.rmtree(world.newest), world.newest.mkdir())
    ),
    "newest judged while damaged": Fault(
        halve("run/checkpoints/12"), evaluate, says="damaged", damages=True
    ),
    "all cut short": Fault(
        halve("run/checkpoints"), fit, REFUSED, "read", damages=True
    ),
    "checkpoints removed": Fault(
        remove("run/checkpoints"), evaluate, REFUSED, "checkpoint", damages=True
    ),
    "metrics cut short": Fault(halve("run/metrics.jsonl")),
    "metrics are noise": Fault(write("run/metrics.jsonl", b"\xff\x00\n{}\n[1]\n")),
    "scores are noise": Fault(write("run/checkpoints-scores.json", "[")),
    "a half written file left": Fault(write("run/metrics.jsonl.tmp", "half")),
    # The run's own records.
    "config removed": Fault(remove("run/config.json"), evaluate, REFUSED, "config"),
    "config cut short": Fault(halve("run/config.json"), evaluate, REFUSED, "config"),
    "config cut short, fit": Fault(halve("run/config.json"), fit, REFUSED, "config"),
    "config of a newer version": Fault(
        in_json("run/config.json", telepathy=True), evaluate, EITHER
    ),
    "inputs removed": Fault(remove("run/inputs.json"), predict, REFUSED, "inputs"),
    "inputs cut short": Fault(halve("run/inputs.json"), predict, REFUSED, "inputs"),
    # Move.
    "run renamed": Fault(workdir_called("elsewhere")),
    "run renamed, judged": Fault(workdir_called("lr=0.1,[2]"), evaluate),
    "run renamed with a star": Fault(workdir_called("a*b?"), predict),
    "run renamed in another script": Fault(workdir_called("猫 cafe\u0301"), predict),
    "run renamed with a line break": Fault(workdir_called("a\nb"), evaluate),
    "run renamed in raw bytes": Fault(workdir_called(os.fsdecode(b"\xe9")), evaluate),
    "images moved": Fault(images_called("elsewhere")),
    "images moved to a bracket": Fault(images_called("[x]*"), fit),
    "images moved, not told": Fault(
        rename(("images", "gone")), evaluate, REFUSED, "data.name"
    ),
    "images through a link": Fault(through_a_link),
    # Rename.
    "classes swapped": Fault(swap_two_classes, evaluate),
    "a class added": Fault(another_class, fit, REFUSED, "ant"),
    "a class added, judged": Fault(another_class, evaluate, REFUSED, "ant"),
    "a class renamed": Fault(rename_a_class, fit, REFUSED, "zebra"),
    "a class renamed, judged": Fault(rename_a_class, evaluate, REFUSED, "zebra"),
    "an image less": Fault(an_image_less, fit, REFUSED, "24"),
    "a broken image": Fault(
        write("images/test/blob/0.png", "no image"), evaluate, REFUSED, "0.png"
    ),
    "boxes removed": Fault(remove("images/boxes.csv"), evaluate),
    "boxes are noise": Fault(
        write("images/boxes.csv", "path,xmin\n"), evaluate, REFUSED, "boxes.csv"
    ),
    # Evaluate.
    "no such checkpoint": Fault(
        nothing, evaluate_with("--checkpoint=999"), REFUSED, "999"
    ),
    "no best checkpoint": Fault(
        nothing, evaluate_with("--checkpoint=best"), REFUSED, "validation"
    ),
    "no such split": Fault(nothing, evaluate_with("--split=dev"), REFUSED, "dev"),
    "the user's own evaluation.json": Fault(
        write("run/evaluation.json", "mine"), evaluate, REFUSED, "evaluation.json"
    ),
    # Predict.
    "output over the photographs": Fault(
        nothing, lambda world: [*predict(world), f"--output={world.photographs}"]
    ),
    "output is a file": Fault(
        nothing,
        lambda world: [*predict(world), f"--output={world.photographs / 'a.png'}"],
        REFUSED,
        "a.png",
    ),
    "a broken photograph": Fault(
        write("photographs/c.jpg", "no image"), predict, REFUSED, "c.jpg"
    ),
    "the user's own predictions.json": Fault(
        write("run/predictions/predictions.json", "mine"), predict, EITHER
    ),
    "no photograph": Fault(
        lambda world: [path.unlink() for path in world.photographs.glob("*.png")],
        predict,
        REFUSED,
    ),
}
ENVIRONMENTS = {
    "float64": {"JAX_ENABLE_X64": "1"},
    "another generator": {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
    "leaks looked for": {"JAX_CHECK_TRACER_LEAKS": "1"},
    "strict promotion, four devices, ASCII": {
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONIOENCODING": "ascii",
    },
}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> World:
    world = World(tmp_path_factory.mktemp("original"))
    write_images(world.data)
    world.photographs.mkdir()
    shutil.copy(world.data / "test" / "blob" / "0.png", world.photographs / "a.png")
    shutil.copy(world.data / "test" / "edge" / "1.png", world.photographs / "b.png")
    (world.photographs / "notes.txt").write_text("mine\n")
    assert main(fit(world)) == DONE
    return world


@pytest.fixture
def world(original, tmp_path) -> World:
    """A copy of everything; the run says that it was trained on the copied images."""
    copied = World(shutil.copytree(original.root, tmp_path / "home"))
    path = copied.workdir / "config.json"
    config = json.loads(path.read_text())
    config["data"]["name"] = f"folder:{copied.data}"
    path.write_text(json.dumps(config))
    return copied


def digests(world: World) -> dict[str, str]:
    """What the user's files hold; pictures of ours beside them do not count."""
    own = ("-rectangle.png", "predictions.json", ".cram-jax-outputs.jsonl")
    return {
        str(path): hashlib.md5(path.read_bytes()).hexdigest()
        for folder in (world.data, world.photographs)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(own)
    }


def contents(folder: Path) -> dict[Path, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def assert_still_readable(world: World, original: World, tmp_path: Path) -> None:
    """The newest checkpoint holds what it held, bit for bit."""
    if contents(world.newest) == contents(original.newest):
        return
    kept = shutil.copytree(original.workdir, tmp_path / "kept")
    shutil.rmtree(kept / "checkpoints")
    shutil.copytree(world.workdir / "checkpoints", kept / "checkpoints")
    step, state, _ = final_state(kept)
    expected_step, expected, _ = final_state(original.workdir)
    assert step == expected_step
    jax.tree.map(np.testing.assert_array_equal, state.params, expected.params)


def assert_no_json_holds_nan(world: World) -> None:
    def refuse(name):
        raise AssertionError(f"{name} in a JSON file")

    for path in world.workdir.glob("*.json"):
        if path.read_text()[:1] == "{":
            try:
                json.loads(path.read_text(), parse_constant=refuse)
            except json.JSONDecodeError:
                continue


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_nothing_is_lost_and_one_sentence_tells(
    world, original, fault, tmp_path, capsys
):
    fault.change(world)
    before = digests(world)
    code = main(list(map(str, fault.command(world))))
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert code in fault.codes, text
    assert fault.says in text
    assert "Traceback" not in text
    if code not in (DONE,):
        assert printed.err.count("error:") <= 1, printed.err
        assert printed.err.strip()
    assert digests(world) == before
    assert_no_json_holds_nan(world)
    if not fault.damages:
        assert_still_readable(world, original, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("variables", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_a_run_goes_on_under_another_environment(world, original, variables):
    before = digests(world)
    shutil.rmtree(world.newest)
    # It ends with an evaluation; test_life.py has the subcommand under such settings.
    result = run(*fit(world), **variables)
    assert result.returncode == DONE, result.stderr
    assert "Traceback" not in result.stderr
    assert not (world.workdir / "checkpoints-broken").exists()
    assert digests(world) == before
    step, _, _ = final_state(world.workdir)
    assert step == final_state(original.workdir)[0]


def test_there_are_enough_faults():
    assert len(FAULTS) + len(ENVIRONMENTS) >= 40
