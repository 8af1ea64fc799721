"""Learning-rate schedules, parameter groups and the optimiser (optax)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cram_jax.checks import nearest
from train.config.optimizer import OptimizerConfig
from train.errors import UserError

PREDICTOR = "mask_predictor"


def path_of(path: tuple[Any, ...]) -> str:
    """A tree path as text: `stage1_conv1/Conv_0/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def learning_rate_schedule(
    config: OptimizerConfig, *plan_ends: int
) -> Callable[[Any], Any]:
    """Learning rate by step: a linear rise, then the chosen course.

    Args:
      config: with that course.
      plan_ends: the number of steps; of a run that was given more of them when it was
        finished all such numbers, in order. After each the course begins anew, with its
        rise (a warm restart; Loshchilov and Hutter 2017, section 3), unless it is
        constant.
    """
    if config.schedule == "constant":
        return _course(config, plan_ends[0])
    lengths = [last - first for first, last in itertools.pairwise((0, *plan_ends))]
    courses = [_course(config, length) for length in lengths]
    return optax.join_schedules(courses, plan_ends[:-1]) if courses[1:] else courses[0]


def _course(config: OptimizerConfig, total_steps: int) -> Callable[[Any], Any]:
    warmup = round(config.warmup_fraction * total_steps)
    rest = max(total_steps - warmup, 1)
    peak = config.learning_rate
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, config.final_fraction)
    elif config.schedule == "step":
        drops = {
            max(round(point * total_steps) - warmup, 1): config.step_factor
            for point in config.step_points
        }
        after = optax.piecewise_constant_schedule(peak, drops)
    else:
        after = optax.constant_schedule(peak)
    if warmup == 0:
        return after
    # From 1/warmup, not 0: a step that changes nothing is a wasted batch.
    rise = optax.linear_schedule(peak / warmup, peak, max(warmup - 1, 1))
    return optax.join_schedules([rise, after], [warmup])


def learning_rate_scale(config: OptimizerConfig, path: str) -> float:
    """Factor of one parameter's learning rate: predictors apart, frozen ones 0."""
    if config.freeze is not None and re.search(config.freeze, path):
        return 0.0
    factors = (f for pattern, f in config.scales if re.search(pattern, path))
    factor = next(factors, 1.0)
    inside_predictor = any(part.endswith(PREDICTOR) for part in path.split("/"))
    return factor * config.predictor_scale if inside_predictor else factor


def check_patterns(config: OptimizerConfig, paths: Sequence[str]) -> None:
    """Refuses patterns that do nothing, and a freeze that leaves nothing to train.

    The pattern "^$" freezes nothing and says so.

    Args:
      config: with the patterns.
      paths: those of all parameters.

    Raises:
      UserError: for the first pattern that matches no path, with paths that are near.
    """
    patterns = [("scales", pattern) for pattern, _ in config.scales]
    if config.freeze not in (None, "^$"):
        patterns.insert(0, ("freeze", config.freeze))
    for name, pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise UserError(
                f"optimizer.{name}: no parameter's path matches {pattern!r}."
                f" {_near(pattern, paths)}"
            )
    if paths and all(learning_rate_scale(config, path) == 0.0 for path in paths):
        raise UserError(
            f"optimizer.freeze {config.freeze!r}, with optimizer.scales and"
            " predictor_scale, leaves no parameter to train; let some of them move."
        )


def _near(pattern: str, paths: Sequence[str]) -> str:
    modules = list(dict.fromkeys(path.split("/")[0] for path in paths))
    whole = {part for path in paths for part in (path, *path.split("/"))}
    literal = re.sub(r"[^\w/]+", "", pattern)
    close = nearest(literal, sorted(whole), count=3, cutoff=0.5)
    hint = f"Near it are: {', '.join(close)}. " if close else ""
    shown = ", ".join(modules[:12]) + (", ..." if len(modules) > 12 else "")
    return f"{hint}Paths start with {shown}, and look like {paths[0]}."


def hold_frozen(config: OptimizerConfig, params: Any) -> Any:
    """The same parameters, with no gradient through those that never move.

    Without it the backward pass would go through a frozen trunk for nothing.
    """

    def hold(path, leaf):
        frozen = learning_rate_scale(config, path_of(path)) == 0.0
        return jax.lax.stop_gradient(leaf) if frozen else leaf

    return jax.tree_util.tree_map_with_path(hold, params)


def _scale_by_group(config: OptimizerConfig) -> optax.GradientTransformation:
    def scale(path, update):
        factor = learning_rate_scale(config, path_of(path))
        return update if factor == 1.0 else update * factor

    return optax.stateless(
        lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates)
    )


def _zero_frozen(config: OptimizerConfig) -> optax.GradientTransformation:
    def zero(path, update):
        frozen = learning_rate_scale(config, path_of(path)) == 0.0
        return jnp.zeros_like(update) if frozen else update

    return optax.stateless(
        lambda updates, _: jax.tree_util.tree_map_with_path(zero, updates)
    )


def _decays(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def make_optimizer(
    config: OptimizerConfig, *plan_ends: int
) -> optax.GradientTransformation:
    """Clipping, the rule, weight decay, groups and the schedule, in this order.

    For `plan_ends`, most often one number of steps, see `learning_rate_schedule`.
    """
    parts = [_zero_frozen(config)]
    if config.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    decay = optax.add_decayed_weights(config.weight_decay, mask=_decays)
    if config.name == "sgd":
        # Coupled, as every published SGD recipe for CNNs has it.
        parts += [decay, optax.trace(config.momentum, nesterov=True)]
    else:
        adam = optax.scale_by_adam(config.momentum, config.second_moment)
        parts += [adam, decay]
    if config.name == "lamb":
        parts.append(optax.scale_by_trust_ratio())
    schedule = learning_rate_schedule(config, *plan_ends)
    parts += [_scale_by_group(config), optax.scale_by_learning_rate(schedule)]
    return optax.chain(*parts)
