"""Networks of inverted residuals: what MobileNetV3 and EfficientNet have in common."""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.backbones import blocks, image_checks
from cram_jax.backbones.stages import Stage, Step
from cram_jax.heads.classifier import Classifier, pool_globally
from cram_jax.numerics import Dtype


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """One inverted residual block.

    Attributes:
      kernel: side of the depthwise kernel.
      strides: step of the depthwise convolution.
      expanded: channels inside.
      features: channels of the result.
      squeezed: hidden units of squeeze-and-excite, 0 for none.
      activation: the nonlinearity inside.
    """

    kernel: int
    strides: int
    expanded: int
    features: int
    squeezed: int = 0
    activation: blocks.Activation = nn.relu


class Squeeze(nn.Module):
    """Squeeze-and-excite as inside these blocks; nonlinearities to choose.

    Attributes:
      hidden: hidden units.
      activation: between the two dense layers.
      gate: makes the factors.
      dtype: the computation's dtype (default: that of input and parameters).
      param_dtype: the parameters' dtype.
    """

    hidden: int
    activation: blocks.Activation
    gate: blocks.Activation
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Gates the channels of `[..., H, W, C]`."""
        dense = functools.partial(
            nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype
        )
        pooled = pool_globally(features).astype(features.dtype)
        hidden = self.activation(dense(self.hidden, name="reduce")(pooled))
        factors = self.gate(dense(features.shape[-1], name="expand")(hidden))
        return features * factors.astype(features.dtype)[..., None, None, :]


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, squeeze-and-excite, project (1x1), add if it fits.

    Sandler et al. 2018 (section 3), with the squeeze-and-excite of Howard et al. 2019.
    A block that does not widen has no expansion.

    Attributes:
      spec: the block's sizes.
      norm: makes the convolutions with their BatchNorm.
      squeeze: makes the squeeze-and-excite layer from its hidden units.
    """

    spec: BlockSpec
    norm: functools.partial
    squeeze: functools.partial

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns the block's features, `[..., H, W, C] -> [..., H', W', C']`."""
        spec, shortcut = self.spec, features
        conv = functools.partial(self.norm, activation=spec.activation)
        if spec.expanded != features.shape[-1]:
            expand = conv(spec.expanded, 1, name="expand")
            features = expand(features, train=train)
        depthwise = conv(
            spec.expanded, spec.kernel, spec.strides, depthwise=True, name="depthwise"
        )
        features = depthwise(features, train=train)
        if spec.squeezed:
            features = self.squeeze(spec.squeezed, name="squeeze")(features)
        project = self.norm(spec.features, 1, activation=None, name="project")
        features = project(features, train=train)
        fits = spec.strides == 1 and shortcut.shape[-1] == spec.features
        return features + shortcut if fits else features


class InvertedResidualNet(nn.Module):
    """Stem, groups of inverted residuals, a last 1x1 convolution, a classifier.

    A stage is what lies between two strides: stages 1 to 5 have strides 2 to 32, and
    stage 6 is the last convolution's map. Training has neither dropout nor stochastic
    depth.

    Attributes:
      num_classes: number of logits.
      attention: factory of the attention layer, or None for the bare network.
      attention_stages: stages, counted from 1, that the layer follows.
      stem_width: channels of the stem.
      groups: blocks by groups, which only their names tell.
      last_width: channels of the last convolution.
      hidden: units of the classifier's hidden layer, 0 for none.
      activation: the nonlinearity after stem, last convolution and hidden layer.
      squeeze_activation: inside squeeze-and-excite.
      squeeze_gate: at the end of squeeze-and-excite.
      same_padding: TensorFlow's padding instead of torch's.
      momentum: BatchNorm's, for its running statistics (1 minus torch's).
      epsilon: BatchNorm's, added to the variance.
      axis_name: pmap axis over which to average BatchNorm's statistics, or None.
      freeze_norm: BatchNorm uses its running statistics in training too (that of the
        attention layers does not): for weights trained elsewhere, and small batches.
      dtype: the computation's dtype (default: that of input and parameters).
      param_dtype: the parameters' dtype.
    """

    num_classes: int
    attention: blocks.AttentionFactory | None = None
    attention_stages: tuple[int, ...] = ()
    stem_width: int = 16
    groups: tuple[tuple[BlockSpec, ...], ...] = ()
    last_width: int = 1280
    hidden: int = 0
    activation: blocks.Activation = nn.silu
    squeeze_activation: blocks.Activation = nn.silu
    squeeze_gate: blocks.Activation = nn.sigmoid
    same_padding: bool = False
    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    freeze_norm: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    def setup(self):
        """Makes the head; the stages are made where they are used."""
        image_checks.check_attention_stages(
            self.attention, self.attention_stages, len(self.stages)
        )
        self.head = Classifier(
            self.num_classes, self.hidden, self.activation, param_dtype=self.param_dtype
        )

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Strided steps, channels and modules of each map."""

        def step(kernel: int, stride: int) -> tuple[Step, ...]:
            padding = "same" if self.same_padding else (kernel - 1) // 2
            return (Step(kernel, stride, padding),)

        found = [(step(3, 2), self.stem_width, ["stem"])]
        for group, specs in enumerate(self.groups):
            for index, spec in enumerate(specs):
                if spec.strides > 1:
                    found.append((step(spec.kernel, spec.strides), 0, []))
                steps, _, modules = found[-1]
                modules = [*modules, f"block{group}_{index}"]
                found[-1] = (steps, spec.features, modules)
        found.append(((), self.last_width, ["last"]))
        return tuple(
            Stage(steps, channels, (*modules, f"attention{stage}"))
            for stage, (steps, channels, modules) in enumerate(found, start=1)
        )

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Classifies.

        Args:
          images: `[..., H, W, C]`, floating point, normalised.
          train: whether BatchNorm uses (and updates) the batch's statistics.

        Returns:
          Float32 logits `[..., num_classes]`.

        Raises:
          ValueError: for images of wrong rank, channels or dtype, and for
            attention stages that the network does not have.
        """
        return self.head(self.features(images, train=train)[-1])

    @nn.compact
    def features(
        self, images: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, ...]:
        """The map after each stage (and its attention), shallow to deep."""
        image_checks.check_images(images)
        image_checks.check_channels(self, images, "stem", "conv")
        settings = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = functools.partial(
            blocks.ConvNorm,
            same_padding=self.same_padding,
            momentum=self.momentum,
            epsilon=self.epsilon,
            axis_name=self.axis_name,
            freeze_norm=self.freeze_norm,
            **settings,
        )
        block = functools.partial(
            InvertedResidual,
            norm=norm,
            squeeze=functools.partial(
                Squeeze,
                activation=self.squeeze_activation,
                gate=self.squeeze_gate,
                **settings,
            ),
        )
        outer = functools.partial(norm, activation=self.activation)
        maps = []

        def end_stage(features: jax.Array) -> jax.Array:
            stage = len(maps) + 1
            if self.attention is not None and stage in self.attention_stages:
                layer = self.attention(name=f"attention{stage}", **settings)
                features = layer(features, train=train)
            maps.append(features)
            return features

        features = outer(self.stem_width, 3, 2, name="stem")(images, train=train)
        for group, specs in enumerate(self.groups):
            for index, spec in enumerate(specs):
                if spec.strides > 1:
                    features = end_stage(features)
                layer = block(spec, name=f"block{group}_{index}")
                features = layer(features, train=train)
        features = end_stage(features)
        end_stage(outer(self.last_width, 1, name="last")(features, train=train))
        return tuple(maps)
