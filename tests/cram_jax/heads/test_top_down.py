"""The decoder that several heads share: segmentation's checkpoints stay valid."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.attention.positionwise import PositionwiseAttention
from cram_jax.heads.segmentation import SegmentationDecoder
from cram_jax.heads.top_down import merge_top_down
from tests.checks import assert_close

SIZES = ((9, 7, 4), (5, 4, 6))
WIDTH, CLASSES = 8, 3


class DecoderOfVersion01(nn.Module):
    """`SegmentationDecoder` as it was when it merged the maps by itself."""

    attention: type[nn.Module]
    attention_stages: tuple[int, ...]
    dtype: type | None

    @nn.compact
    def __call__(self, maps):
        settings = {"dtype": self.dtype, "param_dtype": jnp.float32}
        conv = functools.partial(nn.Conv, WIDTH, **settings)
        merged: Any = None
        for stage in range(len(maps), 0, -1):
            skip = conv((1, 1), name=f"lateral{stage}")(maps[stage - 1])
            if stage in self.attention_stages:
                layer = self.attention(name=f"attention{stage}", **settings)
                skip = layer(skip, train=False)
            if merged is not None:
                shape = (*skip.shape[:-1], WIDTH)
                wide = jax.image.resize(merged.astype(jnp.float32), shape, "bilinear")
                skip = skip + wide.astype(merged.dtype)
            smooth = conv((3, 3), use_bias=False, name=f"smooth{stage}")(skip)
            norm = nn.GroupNorm(8, name=f"norm{stage}", **settings)
            merged = nn.relu(norm(smooth))
        settings["dtype"] = jnp.float32
        wide = merged.astype(jnp.float32)
        return nn.Conv(CLASSES, (1, 1), name="logits", **settings)(wide)


@pytest.fixture(scope="module")
def maps():
    keys = jax.random.split(jax.random.key(1), len(SIZES))
    return [
        jax.random.normal(key, (2, *size))
        for key, size in zip(keys, SIZES, strict=True)
    ]


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_parameters_and_logits_of_segmentation_are_bit_for_bit_what_they_were(
    maps, dtype
):
    options = {
        "attention": PositionwiseAttention,
        "attention_stages": (2,),
        "dtype": dtype,
    }
    before = DecoderOfVersion01(**options)
    now = SegmentationDecoder(CLASSES, WIDTH, **options)
    variables = jax.jit(before.init)(jax.random.key(0), maps)["params"]
    current = jax.jit(now.init)(jax.random.key(0), maps)["params"]
    jax.tree.map(np.testing.assert_array_equal, current, variables)
    assert set(current) == {
        *(f"{part}{n}" for part in ("lateral", "smooth", "norm") for n in (1, 2)),
        "attention2",
        "logits",
    }
    assert current["lateral2"]["kernel"].shape == (1, 1, 6, WIDTH)
    assert set(current["smooth1"]) == {"kernel"}
    # A checkpoint of the former, whose values are all arbitrary.
    leaves, structure = jax.tree.flatten(variables)
    noise = np.random.default_rng(0)
    old = [noise.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    old = {"params": jax.tree.unflatten(structure, old)}
    found = jax.jit(now.apply)(old, maps)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, jax.jit(before.apply)(old, maps))


class Merging(nn.Module):
    down_to: int
    merge: str = "sum"

    @nn.compact
    def __call__(self, maps):
        return merge_top_down(
            maps,
            width=WIDTH,
            merge=self.merge,
            down_to=self.down_to,
            param_dtype=jnp.float32,
        )


def test_merging_may_end_at_a_deeper_stage(maps):
    init = jax.jit(Merging(2).init_with_output)
    merged, variables = init(jax.random.key(0), maps)
    assert merged.shape == (2, 5, 4, WIDTH)
    assert not {"lateral1", "smooth1", "norm1"} & set(variables["params"])
    # What is shallower plays no part.
    changed = [jnp.full_like(maps[0], jnp.nan), *maps[1:]]
    assert_close(init(jax.random.key(0), changed)[0], merged)


@pytest.mark.parametrize("stage", [0, 3])
def test_a_stage_that_there_is_not_is_refused(maps, stage):
    with pytest.raises(ValueError, match=f"stage must be in 1 to 2.* got {stage}"):
        Merging(stage).init(jax.random.key(0), maps)


def test_maps_side_by_side_are_those_of_a_network_written_out(maps):
    merging = Merging(1, "concat")
    merged, variables = jax.jit(merging.init_with_output)(jax.random.key(0), maps)
    params = variables["params"]
    # No lateral convolutions; channels double with the stage, up to eight times.
    shapes = {
        name: each["kernel"].shape for name, each in params.items() if "kernel" in each
    }
    assert shapes == {"smooth2": (3, 3, 6, 16), "smooth1": (3, 3, 4 + 16, 8)}
    deep = [jnp.zeros((1, 2, 2, 3))] * 6
    found = jax.eval_shape(merging.init, jax.random.key(0), deep)["params"]
    widths = [found[f"smooth{n}"]["kernel"].shape[-1] for n in range(1, 7)]
    assert widths == [8, 16, 32, 64, 64, 64]

    def convolved(features, name):
        kernel = params[f"smooth{name}"]["kernel"]
        return jax.lax.conv_general_dilated(
            features, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def normalised(features):
        # Eight groups of channels; each image for itself.
        count, height, width, channels = features.shape
        groups = features.reshape(count, height, width, 8, channels // 8)
        mean = groups.mean((1, 2, 4), keepdims=True)
        variance = groups.var((1, 2, 4), keepdims=True)
        groups = (groups - mean) / np.sqrt(variance + 1e-6)
        return np.maximum(groups.reshape(features.shape), 0)

    deeper = normalised(np.asarray(convolved(maps[1], 2)))
    shape = (*maps[0].shape[:-1], deeper.shape[-1])
    larger = jax.image.resize(deeper, shape, "bilinear")
    both = jnp.concatenate([maps[0], larger], axis=-1)
    assert_close(merged, normalised(np.asarray(convolved(both, 1))), atol=1e-4)


def test_an_unknown_way_to_merge_is_refused(maps):
    with pytest.raises(ValueError, match=r"'concart'\. Did you mean 'concat'"):
        Merging(1, "concart").init(jax.random.key(0), maps)
