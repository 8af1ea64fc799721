"""The budget's loss terms, and masks opened for some images (`cram_jax.losses`)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from cram_jax.attention.evidence import mask_dropout_schedule
from cram_jax.losses.budget import area_price_loss, mask_areas, ramped_weight
from train.config.budget import BudgetConfig
from train.config.run import FitConfig
from train.errors import UserError
from train.learning.terms import Evidence, Look, Term
from train.tasks.sums import weighted_sum
from train.tasks.task import Loss, Task


def check_budget(config: FitConfig, layers: Mapping[str, Any]) -> None:
    """Refuses a budget where nothing has a mask.

    Args:
      config: what was typed.
      layers: the layers with a spatial mask, by path.

    Raises:
      UserError: says which layers would do.
    """
    if config.budget.is_on and not layers:
        raise UserError(
            "A budget needs a layer with a spatial mask, and model.attention is"
            f" {config.model.attention!r}; try rectangular or positionwise-trunk, or"
            " leave the options of budget out."
        )


def budget_terms(config: FitConfig, task: Task, total_steps: int) -> tuple[Term, ...]:
    """The terms that the section `budget` asks for."""
    budget = config.budget

    def weight(full: float) -> Callable[[jax.Array], jax.Array]:
        return functools.partial(_weight_at, budget, full, total_steps)

    terms = []
    if budget.area is not None and budget.area_weight > 0:
        excess = functools.partial(_excess, budget.area)
        term = Term("area_loss", _areas, weight(budget.area_weight), of_mean=excess)
        terms.append(term)
    if budget.price > 0:
        terms.append(Term("price_loss", _price, weight(budget.price)))
    if budget.outside > 0:
        measure = functools.partial(_outside, task)
        full = weight(budget.outside)
        terms.append(Term("outside_loss", measure, full, needs_outside=True))
    return tuple(terms)


def _weight_at(budget: BudgetConfig, full: float, total_steps: int, step: jax.Array):
    start, ramp = budget.start_fraction, budget.ramp_fraction
    return ramped_weight(full, step, total_steps, start=start, ramp=ramp)


def _masks(evidence: Evidence) -> dict[str, jax.Array]:
    return {path: layer["mask"] for path, layer in evidence.items()}


def _areas(look: Look) -> Loss:
    """Sums of the areas and their weights, `[layers]`."""
    images = look.batch["weight"]
    areas = mask_areas(_masks(look.evidence)).values()
    sums = jnp.stack([weighted_sum(images, area) for area in areas])
    return sums, jnp.full_like(sums, jnp.sum(images))


def _excess(target: float, areas: jax.Array) -> jax.Array:
    return jax.nn.relu(areas - target) ** 2


def _price(look: Look) -> Loss:
    return area_price_loss(mask_areas(_masks(look.evidence)), 1.0)


def _outside(task: Task, look: Look) -> Loss:
    losses = [task.ignorance(view) for view in look.outside.values()]
    return jnp.mean(jnp.stack(losses), axis=0)


def opened_images(share: float, keys: jax.Array) -> jax.Array:
    """Which images' masks count as open, boolean `[B]`, each by its own key."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, share))(keys)


def with_opened(
    schedule: Mapping[str, Any], paths: Iterable[str], opened: jax.Array
) -> dict[str, Any]:
    """The network's "schedule" collection with masks opened for some images."""
    other = mask_dropout_schedule(paths, opened)
    return unflatten_dict(flatten_dict(schedule) | flatten_dict(other))
