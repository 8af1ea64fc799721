"""The subcommand `report`: runs compared in a Markdown table and in curves."""

from __future__ import annotations

from collections.abc import Sequence

from train.commands.intervals import mean_and_interval
from train.commands.options import ReportConfig
from train.commands.report.curves import curve_pictures
from train.commands.report.groups import Group, group_runs
from train.commands.report.runs import read_runs
from train.errors import DONE, UserError
from train.printing import printable, say
from train.run import layout
from train.run.outputs import Outputs

_ABOUT = ("kind", "step", "epoch", "seconds", "images")
_ONE_SEED = "A row of one seed has no interval."


def _cell(values: Sequence[float], runs: int) -> str:
    """Mean, interval, and how many runs have the score if not all do."""
    if not values:
        return ""
    mean, interval = mean_and_interval(values)
    text = f"{mean:.4f}" if interval is None else f"{mean:.4f} ± {interval:.4f}"
    return text if len(values) == runs else f"{text} ({len(values)} of {runs})"


def markdown_table(groups: Sequence[Group]) -> str:
    """One row per group: mean ± 95% interval over seeds of the last evaluation.

    A row names its runs, and what makes their config differ from that of other rows.
    """
    names = dict.fromkeys(
        name
        for group in groups
        for run in group.runs
        for name in run.last
        if name not in _ABOUT
    )
    about = ["runs", "config"] if len(groups) > 1 else ["runs"]
    lines = [_row([*about, "seeds", "steps", *names])]
    lines.append("|" + " --- |" * len(about) + " ---: |" * (2 + len(names)))
    for group in groups:
        last = [run.last for run in group.runs]
        steps = ", ".join(str(step) for step in sorted({each["step"] for each in last}))
        cells = [
            _cell([each[name] for each in last if name in each], len(last))
            for name in names
        ]
        about = [", ".join(group.members), group.config][: len(about)]
        lines.append(_row([*about, str(len(last)), steps, *cells]))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def report(options: ReportConfig) -> int:
    """Writes report.md and the curves; prints the table.

    Entries that cannot be used are named and passed over.

    Raises:
      UserError: if no entry is an evaluated run, or where a file of the user's, or a
        report on other runs, would have to be written over.
    """
    if not options.runs:
        raise UserError("report needs at least one work directory.")
    runs, passed_over = read_runs(options.runs, unfinished=options.unfinished)
    if not runs:
        raise UserError(f"There is no run to report on. {' '.join(passed_over)}")
    groups = group_runs(runs)
    table = markdown_table(groups)
    curves = curve_pictures(groups)
    outputs = Outputs(options.output, "report", [run.workdir for run in runs])
    files = {f"{name}.png": content for name, content in curves.items()}
    outputs.check(layout.REPORT, *files)
    notes = [f"Passed over: {sentence}" for sentence in passed_over]
    if any(len(group.runs) == 1 for group in groups):
        notes.append(_ONE_SEED)
    text = table + "".join(f"\n{note}\n" for note in notes)
    text += "".join(f"\n![{name}]({name}.png)\n" for name in curves)
    for name, content in files.items():
        outputs.write(name, content)
    path = outputs.write(layout.REPORT, text.encode())
    say(table)
    for note in notes:
        say(note)
    say(f"Written: {printable(path)} and {len(files)} curves.")
    return DONE
