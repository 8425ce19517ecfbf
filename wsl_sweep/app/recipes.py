"""A recipe as a user sees it: every value, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.catalogue import did_you_mean
from wsl_sweep.spec.datasets import data_set
from wsl_sweep.spec.loading import CommandLine, parse_spec
from wsl_sweep.spec.reads import possible_reads
from wsl_sweep.spec.recipes import NAMED, RECIPES, Recipe


@dataclass(frozen=True)
class RecipeRow:
    """One value of a recipe.

    Attributes:
        path: into ``run``.
        value: what holds unless a file says otherwise; None where the user has to give it.
        source: where it comes from.
    """

    path: str
    value: Any
    source: str


def whole_recipe(name: str) -> tuple[Recipe, list[RecipeRow]]:
    """A recipe with every value that one of the named methods reads under it. Raises WslSweepError: no such recipe."""
    if name not in RECIPES:
        raise WslSweepError(f'no recipe is called "{name}"; {did_you_mean(name, RECIPES)}')
    recipe = RECIPES[name]
    root = ("dataset.root=.",) if data_set(recipe.values["dataset.name"]).folder_of_pictures else ()
    spec = parse_spec("variants: [ce]", "recipe", CommandLine(recipe=name, sets=root))
    read: set[str] = set()
    for overrides in [*NAMED.values(), {}]:
        possible = {"distillation.weighting.kind": ["none", "exp", "sigmoid", "constant"]}
        read |= possible_reads(partial(spec.flat_config, overrides), possible)
    flat = spec.flat_config({})
    rows = [
        RecipeRow(path, None if path == "dataset.root" else flat[path], recipe.source(path))
        for path in sorted(read - {"recipe"})
        if path in flat
    ]
    return recipe, rows
