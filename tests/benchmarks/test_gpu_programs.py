"""Counting launches and bytes in compiled programs; on CPU, without a GPU's plugin."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import gpu_programs
from benchmarks.gpu_programs import Launch, launches

PROGRAM = """HloModule jit_step

%fused (p: f32[4,8]) -> f32[4,8] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %twice = f32[4,8]{1,0} add(%p, %p)
}

ENTRY %main (a: f32[4,8], b: bf16[8]) -> (f32[4,8], f32[]) {
  %a = f32[4,8]{1,0} parameter(0), metadata={op_name="a"}
  %b = bf16[8]{0} parameter(1)
  %zero = f32[] constant(0)
  %flat = f32[32]{0} bitcast(%a)
  %both = (f32[4,8]{1,0}, f32[]) fusion(%flat, %b, %flat), kind=kInput, calls=%fused
  %first = f32[4,8]{1,0} get-tuple-element(%both), index=0
  %conv = (f32[4,8]{1,0}, u8[0]{0}) custom-call(%first, %a), custom_call_target="x"
  %second = f32[] get-tuple-element(%both), index=1
  ROOT %out = (f32[4,8]{1,0}, f32[]) tuple(%first, %second)
}
"""


def test_operands_are_read_once_and_results_written_once():
    assert launches(PROGRAM) == [
        Launch("both", "fusion", read=32 * 4 + 8 * 2, written=32 * 4 + 4),
        Launch("conv", "custom-call", read=2 * 32 * 4, written=32 * 4),
    ]


def test_a_loop_is_refused_rather_than_counted_once():
    loop = PROGRAM.replace("fusion(%flat, %b, %flat), kind=kInput", "while(%flat)")
    with pytest.raises(ValueError, match="has a while"):
        launches(loop)


def test_a_compiled_program_moves_what_its_shapes_say():
    x = jnp.ones((16, 32), jnp.bfloat16)
    y = jnp.ones((32,), jnp.float32)
    text = jax.jit(lambda x, y: jnp.sin(x) + y).lower(x, y).compile().as_text()
    assert text is not None
    counted = launches(text)
    assert sum(each.written for each in counted) >= 16 * 32 * 4
    assert sum(each.read for each in counted) >= 16 * 32 * 2 + 32 * 4
    if len(counted) == 1:  # Fused, as it should be.
        assert counted[0].written == 16 * 32 * 4
        assert counted[0].read == 16 * 32 * 2 + 32 * 4


def test_tables_and_figures_are_written(tmp_path, monkeypatch):
    device = jax.devices()[0]
    monkeypatch.setattr(gpu_programs, "target", lambda: ("this machine", device))
    monkeypatch.setattr(gpu_programs, "MAPS", {"resnet50": ((4, 4, 8),)})
    results = tmp_path / "programs"
    arguments = ["--layers", "squeeze-excite", "--batch", "2", "--no-network"]
    gpu_programs.main([*arguments, "--results", str(results)])
    (record,) = json.loads(results.with_suffix(".json").read_text())["maps"]
    assert record["map_bytes"] == 2 * 4 * 4 * 8 * 2
    # It reads the map twice and writes it, at least.
    assert record["forward"]["bytes"] >= 3 * record["map_bytes"]
    assert record["both"]["launches"] > record["forward"]["launches"] > 0
    text = results.with_suffix(".md").read_text()
    assert "2x4x4x8 | squeeze-excite" in text


def test_what_there_is_not_is_refused_before_anything_is_compiled(capsys):
    with pytest.raises(SystemExit, match="--layers has no 'cram'; there are: "):
        gpu_programs.main(["--layers", "cram"])
    with pytest.raises(SystemExit, match="--batch must be at least 1"):
        gpu_programs.main(["--batch", "0"])
    with pytest.raises(SystemExit):
        gpu_programs.main(["--precision", "bf1"])
    assert "bf1" in capsys.readouterr().err
