"""Tables, curves and the paper's claims from the runs of `benchmarks.digits`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.tables import by_seed, differences, paired, score, table, verdict
from train.commands.intervals import mean_and_interval

GAP = "train - test"
EQUIVARIANCE = "equivariance IoU"
COLUMNS = (
    ("test accuracy", "test/accuracy", 4),
    ("train accuracy", "train/accuracy", 4),
    (GAP, "", 4),
    ("IoU", "test/L/iou", 3),
    ("share IoU >= 0.5", "test/L/corloc", 3),
    ("centre error (px)", "test/L/center_error", 2),
    ("mask area", "test/L/mask_area", 3),
    ("mask mass on object", "test/L/mass_on_object", 3),
    (EQUIVARIANCE, "test/L/equivariance_iou", 3),
    ("equivariance of masks", "test/L/equivariance_mask_iou", 3),
    ("if the mask stayed", "test/L/equivariance_mask_iou_still", 3),
    ("accuracy, further images", "further/accuracy", 4),
    ("IoU, further images", "further/L/iou", 3),
)
ACCURACY, FURTHER = COLUMNS[0], COLUMNS[-2]
TITLES = {
    "layers": "Every layer after stage 2, 4,000 training images",
    "stages": "After each stage, 4,000 training images",
    "examples": "By the number of training images, after stage 2",
    "ablation": "What makes it train: one change at a time",
    "movement": "How well the equivariance loss makes rectangles move",
    "preset": "The preset: 16,000 training images",
    "budget": "The preset without and with a budget: 16,000 training images",
}
Rows = dict[str, dict[str, list[float | None]]]


def rows_of(runs: Mapping[str, list[dict]]) -> Rows:
    """The values of every column, seed by seed, for each arm."""
    rows: Rows = {}
    for arm, each in runs.items():
        values = {
            name: [score(run, key) for run in each] for name, key, _ in COLUMNS if key
        }
        values[GAP] = list(
            differences(values["train accuracy"], values["test accuracy"])
        )
        rows[arm] = {name: values[name] for name, _, _ in COLUMNS}
    return rows


def difference(rows: Rows, arm: str, other: str, column: str) -> list[float]:
    """Paired by seed, over the seeds that both have; empty without such runs."""
    if arm not in rows or other not in rows:
        return []
    pairs = zip(rows[arm][column], rows[other][column], strict=False)
    return [a - b for a, b in pairs if a is not None and b is not None]


def claims(rows: Rows) -> list[str]:
    """What the runs say of the five claims of the paper's abstract, by rule."""
    stage2 = "stage2-4000"
    best, plain = f"rectangular-moment+loss-{stage2}", f"rectangular-moment-{stage2}"
    accuracy, trunk = "test accuracy", "positionwise-trunk"
    lines = ["1. A rectangular mask beats a position-wise one in test accuracy:"]
    for form in ("positionwise-pooled", trunk):
        for name, arm in (("without the loss", plain), ("with it", best)):
            found = difference(rows, arm, f"{form}-{stage2}", accuracy)
            lines.append(f"   - against {form}, {name}: {verdict(found)}")
    lines.append("2. It generalises better (train minus test accuracy is smaller):")
    for count in (1_000, 4_000, 16_000):
        arm = f"rectangular-moment+loss-stage2-{count}"
        found = difference(rows, arm, f"{trunk}-stage2-{count}", GAP)
        lines.append(f"   - {count:,} images: {verdict(found, better=-1)}")
    lines.append("3. It is stable wherever it is put (accuracy against position-wise):")
    for stage in (1, 2, 3):
        arm = f"rectangular-moment+loss-stage{stage}-4000"
        found = difference(rows, arm, f"{trunk}-stage{stage}-4000", accuracy)
        lines.append(f"   - stage {stage}: {verdict(found)}")
    lines.append("4. The equivariance constraint improves it:")
    lines += [
        f"   - {column}: {verdict(difference(rows, best, plain, column))}"
        for column in (accuracy, "IoU", EQUIVARIANCE)
    ]
    lines.append(
        "5. It shows where the network looks (mask mass on the object, with the"
        " position-wise mask's subtracted):"
    )
    found = difference(rows, best, f"{trunk}-{stage2}", "mask mass on object")
    lines.append(f"   - {verdict(found)}")
    return lines


def markdown(record: Mapping[str, Any]) -> str:
    """The whole page."""
    rows = rows_of(record["runs"])
    lines = [
        "# Cluttered digits",
        "",
        f"`{record['command']}` on {record['machine']}; mean ± 95% interval over seeds"
        " (Student's t). All runs see the same images, moved ones included, and class"
        " labels only; equal names mean equal runs. Equivariance: IoU of the moved mask"
        " with that of the moved image, under rotations of up to 45 degrees, scales of"
        " 0.8 to 1.25 and shifts of up to a quarter of the canvas.",
        "",
        *([record["note"], ""] if "note" in record else []),
    ]
    if "layers" in record["studies"]:
        lines += ["## The paper's claims", "", *claims(rows), ""]
    for study, arms in record["studies"].items():
        part = {arm: rows[arm] for arm in arms}
        lines += [f"## {TITLES[study]}", "", *table(part, COLUMNS), ""]
        title = f"Test accuracy minus that of `{arms[0]}`, paired by seed:"
        equal = {
            arm: values
            for arm, values in part.items()
            if len(values[GAP]) == len(part[arms[0]][GAP])
        }
        lines += [title, "", *paired(equal, ACCURACY, first=arms[0]), ""]
        further = paired(equal, FURTHER, first=arms[0])
        if further:
            count = record["runs"][arms[0]][0]["further"]["images"]
            lines += [
                f"The same on {count:,.0f} further test images (the data set's images"
                " beyond its 2,000: same handwriting, new places and clutter):",
                *("", *further, ""),
            ]
    lines += ["## Every seed", "", *table(by_seed(rows), COLUMNS), ""]
    return "\n".join(lines)


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Accuracy over stages, and accuracy and gap over the number of images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows, studies = rows_of(record["runs"]), record["studies"]
    layers = ("none", "positionwise-trunk", "rectangular-moment+loss")
    panels = [
        ("stages", ACCURACY[0], (1, 2, 3), "stage{}-4000", "stage"),
        ("examples", ACCURACY[0], (1_000, 4_000, 16_000), "stage2-{}", "images"),
        ("examples", GAP, (1_000, 4_000, 16_000), "stage2-{}", "images"),
    ]
    panels = [panel for panel in panels if panel[0] in studies]
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(5 * len(panels), 4),
        layout="constrained",
        squeeze=False,
    )
    for axis, (_, column, places, ending, label) in zip(axes[0], panels, strict=True):
        for layer in layers:
            means, errors = [], []
            for place in places:
                end = ending.format(place)
                end = end if layer != "none" else end.rpartition("-")[2]
                found = rows[f"{layer}-{end}"][column]
                mean, interval = mean_and_interval([v for v in found if v is not None])
                means.append(mean)
                errors.append(interval or 0.0)
            axis.errorbar(places, means, errors, marker="o", capsize=3, label=layer)
        if label == "images":
            axis.set_xscale("log")
        axis.set_xticks(places, [f"{place:,}" for place in places])
        axis.minorticks_off()
        axis.set_xlabel("training images" if label == "images" else "after stage")
        axis.set_ylabel(column)
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write(record: Mapping[str, Any], results: Path) -> str:
    """Writes RESULTS.md and, where there are curves, RESULTS.png; returns the text."""
    text = markdown(record)
    if {"stages", "examples"} & set(record["studies"]):
        draw(record, results.with_name(f"{results.name}_curves.png"))
        text += f"\n![curves]({results.name}_curves.png)\n"
    results.with_suffix(".md").write_text(text)
    return text
