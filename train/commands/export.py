"""The subcommand `export`: a trained network for use outside of this program."""

from __future__ import annotations

import jax

from train.commands.options import ExportConfig
from train.errors import DONE
from train.learning.devices import JitParallel
from train.printing import printable, say
from train.run import layout
from train.run.checkpoints.restore import restore_trained
from train.run.outputs import Outputs
from train.run.workdir import load_config
from train.use.stablehlo import described, exported_program
from train.use.weights import weights_file


def export(options: ExportConfig) -> int:
    """Writes the network in the form that was asked for, and says how to use it.

    Raises:
      UserError: if there is nothing to export, it cannot be, or another's file stands
        in the way.
    """
    load_config(options.workdir)
    folder = options.output or options.workdir / layout.EXPORT_FOLDER
    outputs = Outputs(folder, "export", [options.workdir])
    is_program = options.to == "stablehlo"
    name = layout.EXPORTED_PROGRAM if is_program else layout.EXPORTED_WEIGHTS
    outputs.check(name, layout.EXPORTED_FACTS)
    parallel = JitParallel(jax.local_devices()[:1])
    trained = restore_trained(options.workdir, options.checkpoint, parallel)
    if is_program:
        content = exported_program(trained, options.platforms)
    else:
        content = weights_file(trained)
    path = outputs.write(name, content)
    outputs.write_json(layout.EXPORTED_FACTS, described(trained))
    size = f"{len(content) / 1e6:,.1f} MB"
    say(f"Written: {printable(path)} ({size}), and {layout.EXPORTED_FACTS} beside it.")
    if is_program:
        say(
            f"It takes uint8 images {['batch', *trained.experiment.inputs.image_shape]}"
            f" on {', '.join(options.platforms)}: examples/serve.py runs it with jax"
            " alone."
        )
    else:
        say("fit reads it as --model.pretrained; its metadata says what it is of.")
    return DONE
