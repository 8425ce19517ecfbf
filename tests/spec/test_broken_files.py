"""Every mistake in a file is reported with its line, its path, what is wrong and the nearest right name.

In the files below the comment ``# <-`` stands in the line that has to be named.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wsl_sweep.spec import SpecErrors, make_plan
from wsl_sweep.spec.run import leaves

from .helpers import ABLATION, SEARCH, problems_of, run_command, spec_of, text_of

MARK = "# <-"


@dataclass(frozen=True)
class Broken:
    """A file with one mistake.

    Attributes:
        title: of the mistake.
        text: the file; its mistake stands in the line with the mark, or in line 1 where there is none.
        path: dotted, of the mistake.
        what: part of the message.
    """

    title: str
    text: str
    path: str
    what: str

    @property
    def line(self) -> int:
        lines = text_of(self.text).splitlines()
        return next((number for number, line in enumerate(lines, 1) if MARK in line), 1)


def in_run(leaf: str, value: str) -> str:
    """An ablation whose ``run`` sets one leaf."""
    return f"run:\n  recipe: digits\n  {leaf}: {value}  {MARK}\nvariants: [kd, ce]\n"


def in_space(path: str, entry: str, search: str = "{trials: 4}") -> str:
    """A search over one path."""
    return f"run: {{recipe: digits}}\nspace:\n  {path}: {entry}  {MARK}\nsearch: {search}\n"


def in_search(line: str) -> str:
    """A search with one more line in its section ``search``."""
    return SEARCH.replace("{trials: 4}", f"\n  trials: 4\n  {line}  {MARK}")


UNKNOWN_NAMES = [
    Broken("unknown section", SEARCH + "serch: {trials: 4}  # <-\n", "serch", 'did you mean "search"?'),
    Broken(
        "unknown path in run",
        """
        run:
          recipe: digits
          distillation:
            temperature: 2
            alhpa: 2  # <-
        variants: [kd, ce]
        """,
        "run.distillation.alhpa",
        'no such path "distillation.alhpa"; did you mean "distillation.alpha"?',
    ),
    Broken(
        "unknown dotted path in run",
        in_run("distillation.temprature", "2"),
        "run.distillation.temprature",
        'did you mean "distillation.temperature"?',
    ),
    Broken(
        "unknown path in space",
        in_space("distillation.apha", "{uniform: [1, 2]}"),
        "space.distillation.apha",
        'no such path "distillation.apha"; did you mean "distillation.alpha"?',
    ),
    Broken(
        "misspelt leaf without its section",
        in_space("alhpa", "{uniform: [1, 2]}"),
        "space.alhpa",
        'no such path "alhpa"; did you mean "distillation.alpha"?',
    ),
    Broken(
        "unknown path in a variant",
        """
        run: {recipe: digits}
        variants:
          kd:
          hot:
            distillation.temprature: 8  # <-
        """,
        "variants.hot.distillation.temprature",
        'did you mean "distillation.temperature"?',
    ),
    Broken(
        "unknown path in a variant of a list",
        """
        run: {recipe: digits}
        variants:
          - kd
          - hot:
              distillation: {temprature: 8}  # <-
        """,
        "variants.1.hot.distillation.temprature",
        'did you mean "distillation.temperature"?',
    ),
    Broken(
        "unknown path in an arm",
        in_search("arms: {mine: {optimiser.lr: 0.1}}"),
        "search.arms.mine.optimiser.lr",
        'did you mean "optimizer.lr"?',
    ),
    Broken(
        "unknown path in a baseline",
        SEARCH + "confirm:\n  baselines:\n    cold: {distillation.temperatur: 1}  # <-\n",
        "confirm.baselines.cold.distillation.temperatur",
        'did you mean "distillation.temperature"?',
    ),
    Broken(
        "unknown path in when",
        """
        run: {recipe: digits}
        space:
          distillation.weighting.kind: {choice: [exp, constant]}
          distillation.weighting.value:
            uniform: [0, 1]
            when:
              distillation.weighting.kid: constant  # <-
        search: {trials: 4}
        """,
        "space.distillation.weighting.value.when.distillation.weighting.kid",
        'did you mean "distillation.weighting.kind"?',
    ),
    Broken("unknown key of a section", in_search("samplr: tpe"), "search.samplr", 'did you mean "sampler"?'),
    Broken(
        "unknown distribution",
        in_space("distillation.alpha", "{unifrom: [1, 2]}"),
        "space.distillation.alpha.unifrom",
        'did you mean "uniform"?',
    ),
    Broken("unknown recipe", in_run("seed", "1").replace("digits", "digit " + MARK, 1), "run.recipe", '"digits"?'),
    Broken("unknown model", in_run("student.model", "convnet4"), "run.student.model", '"convnet_4"?'),
    Broken("unknown teacher", in_run("teacher", "{model: conv_32}"), "run.teacher.model", '"convnet_32"?'),
    Broken("unknown data set", in_run("dataset", "{name: digit}"), "run.dataset.name", '"digits"?'),
    Broken(
        "unknown model in a choice",
        """
        run: {recipe: digits}
        space:
          student.model:
            choice:
              - convnet_4
              - convent_8  # <-
        search: {trials: 4}
        """,
        "space.student.model.choice.1",
        'no model is called "convent_8"; did you mean "convnet_8"?',
    ),
    Broken("unknown arm", in_search("arms: [wsl, dk]"), "search.arms.1", 'did you mean "dkd"?'),
    Broken(
        "unknown baseline",
        SEARCH + "confirm: {baselines: [ce, wls]}  # <-\n",
        "confirm.baselines.1",
        '"wls" is not a name that stands for something; did you mean "wsl"?',
    ),
    Broken(
        "unknown name in a list of variants",
        "run: {recipe: digits}\nvariants: [kd_repdistiler]  # <-\n",
        "variants.0",
        'did you mean "kd_repdistiller"?',
    ),
    Broken(
        "unknown metric",
        in_search("metric: validation/acuracy"),
        "search.metric",
        'no metric is called "validation/acuracy"; did you mean "validation/accuracy"?',
    ),
    Broken(
        "unknown metric among several",
        SEARCH.replace("{trials: 4}", "\n  trials: 4\n  metric:\n    - train/loss\n    - validation/los  # <-"),
        "search.metric.1",
        'did you mean "validation/loss"?',
    ),
    Broken("unknown sampler", in_search("sampler: tpee"), "search.sampler", 'did you mean "tpe"?'),
    Broken("unknown scheduler", SEARCH + "scheduler: ahsa  # <-\n", "scheduler", 'did you mean "asha"?'),
    Broken(
        "unknown baseline of the comparison",
        ABLATION + "compare: {baseline: wsl}  # <-\n",
        "compare.baseline",
        '"wsl" is no arm, variant or baseline here; there is: kd, ce',
    ),
    Broken(
        "unknown member of the comparison",
        ABLATION + "compare: {family: [kdd]}  # <-\n",
        "compare.family.0",
        'did you mean "kd"?',
    ),
    Broken(
        "unknown metric of the comparison",
        ABLATION + "compare: {metric: test/acuracy}  # <-\n",
        "compare.metric",
        'did you mean "test/accuracy"?',
    ),
]

WRONG_VALUES = [
    Broken("text for a number", in_run("optimizer", "{lr: fast}"), "run.optimizer.lr", "must be a number, not 'fast'"),
    Broken("quoted number", in_run("optimizer.lr", "'0.1'"), "run.optimizer.lr", "must be a number, not '0.1'"),
    Broken("truth for a number", in_run("distillation.alpha", "true"), "run.distillation.alpha", "must be a number"),
    Broken("fraction for a count", in_run("schedule.epochs", "2.5"), "run.schedule.epochs", "must be a whole number"),
    Broken("word for a truth", in_run("optimizer.nesterov", "no"), "run.optimizer.nesterov", "must be true or false"),
    Broken("number for a name", in_run("student.model", "4"), "run.student.model", "must be a name or text, not 4"),
    Broken("number for a list", in_run("schedule.milestones", "30"), "run.schedule.milestones", "must be a list"),
    Broken("list for a number", in_run("seed", "[1, 2]"), "run.seed", "must be a whole number, not [1, 2]"),
    Broken(
        "misspelt word",
        in_run("distillation", "{weighting: {kind: sigmod}}"),
        "run.distillation.weighting.kind",
        "must be one of none, exp, sigmoid, constant, permuted, not 'sigmod'; did you mean \"sigmoid\"?",
    ),
    Broken("neither word nor number", in_run("dataset.views", "some"), "run.dataset.views", "all, epoch or"),
    Broken("a section's own value", in_run("distillation", "kd"), "run.distillation", "is a section"),
    Broken(
        "zero for what is positive",
        in_run("distillation", "{temperature: 0}"),
        "run.distillation.temperature",
        "must be above 0",
    ),
    Broken("below 0", in_run("distillation.alpha", "-1"), "run.distillation.alpha", "must be at least 0"),
    Broken(
        "a probability above 1",
        in_run("distillation", "{keep: {other: 1.5}}"),
        "run.distillation.keep.other",
        "must be at most 1",
    ),
    Broken(
        "all for validation", in_run("dataset.validation_fraction", "1"), "run.dataset.validation_fraction", "below 1"
    ),
    Broken("no epochs", in_run("schedule.epochs", "0"), "run.schedule.epochs", "must be at least 1"),
    Broken("negative seed", in_run("seed", "-1"), "run.seed", "must be at least 0"),
    Broken("enormous seed", in_run("teacher.seed", str(2**63)), "run.teacher.seed", "must be below"),
    Broken("infinity", in_run("distillation.alpha", ".inf"), "run.distillation.alpha", "must be a finite number"),
    Broken("not a number", in_run("optimizer.lr", ".nan"), "run.optimizer.lr", "must be a finite number"),
    Broken(
        "one bad item of a list",
        "run:\n  recipe: digits\n  schedule: {milestones: [30, 0]}  # <-\nvariants: [kd, ce]\n",
        "run.schedule.milestones",
        "must be at least 1, not 0",
    ),
    Broken(
        "a bad value in a variant",
        "run: {recipe: digits}\nvariants:\n  kd:\n  cold: {distillation.temperature: 0}  # <-\n",
        "variants.cold.distillation.temperature",
        "must be above 0",
    ),
    Broken("negative seed of the sampler", in_search("seed: -1"), "search.seed", "must be at least 0"),
    Broken("no CPU", ABLATION + "resources: {cpu: 0}  # <-\n", "resources.cpu", "must be above 0"),
    Broken("quoted CPUs", ABLATION + "resources: {cpu: '2'}  # <-\n", "resources.cpu", "must be a number, not '2'"),
    Broken("a truth for seeds", SEARCH + "confirm: {seeds: true}  # <-\n", "confirm.seeds", "must be a whole number"),
    Broken("hours back", ABLATION + "budget: {hours: -1}  # <-\n", "budget.hours", "must be above 0"),
    Broken("bad keep", ABLATION + "keep: bset  # <-\n", "keep", "must be best or all, not 'bset'"),
    Broken(
        "a teacher that could hold more than tensors",
        in_run("teacher.checkpoint", "teacher.pt"),
        "run.teacher.checkpoint",
        "must be a .safetensors file",
    ),
    Broken(
        "a teacher that is not there",
        in_run("teacher.checkpoint", "nowhere/teacher.safetensors"),
        "run.teacher.checkpoint",
        "there is no file nowhere/teacher.safetensors",
    ),
    Broken("no seeds", ABLATION + "seeds: 0  # <-\n", "seeds", "must be how many (1 to 10,000)"),
    Broken("a seed twice", ABLATION + "seeds: [3, 4, 3]  # <-\n", "seeds", "a seed stands here twice"),
    Broken("a name with a blank", "name: my sweep  # <-" + ABLATION, "name", "not 'my sweep'"),
    Broken("a name with a slash", "name: ../alpha  # <-" + ABLATION, "name", "must be a folder's name"),
    Broken("a number as name", "name: 3  # <-" + ABLATION, "name", "not 3"),
    Broken("a list as description", "description: [why]  # <-" + ABLATION, "description", "must be text"),
    Broken(
        "a variant's name with a blank",
        "run: {recipe: digits}\nvariants:\n  my variant: {}  # <-\n",
        "variants.my variant",
        "a name is made of letters",
    ),
]

WRONG_SPACES = [
    Broken(
        "reversed bounds",
        in_space("distillation.alpha", "{uniform: [2, 1]}"),
        "space.distillation.alpha.uniform",
        "the bounds are reversed: 2 is above 1",
    ),
    Broken(
        "equal bounds",
        in_space("distillation.alpha", "{uniform: [2, 2]}"),
        "space.distillation.alpha.uniform",
        "both bounds are 2; set the value in run instead",
    ),
    Broken(
        "infinite bound",
        in_space("distillation.alpha", "{uniform: [1, .inf]}"),
        "space.distillation.alpha.uniform",
        "bounds must be finite, not inf",
    ),
    Broken(
        "bound that is no number",
        in_space("distillation.alpha", "{uniform: [.nan, 1]}"),
        "space.distillation.alpha.uniform",
        "bounds must be finite, not nan",
    ),
    Broken(
        "word as bound",
        in_space("distillation.alpha", "{uniform: [1, two]}"),
        "space.distillation.alpha.uniform",
        "bounds must be numbers, not 'two'",
    ),
    Broken(
        "one bound",
        in_space("distillation.alpha", "{uniform: [1]}"),
        "space.distillation.alpha.uniform",
        "must be [low, high], not [1]",
    ),
    Broken(
        "bound that the path does not take",
        in_space("distillation.keep.other", "{uniform: [0, 2]}"),
        "space.distillation.keep.other.uniform",
        "must be at most 1",
    ),
    Broken(
        "logarithm of 0",
        in_space("distillation.alpha", "{loguniform: [0, 2]}"),
        "space.distillation.alpha.loguniform",
        "must be above 0 for a logarithm, not 0",
    ),
    Broken(
        "whole logarithm of 0",
        in_space("schedule.warmup_epochs", "{logint: [0, 8]}"),
        "space.schedule.warmup_epochs.logint",
        "must be above 0 for a logarithm, not 0",
    ),
    Broken(
        "step of 0",
        in_space("distillation.alpha", "{quniform: [1, 2, 0]}"),
        "space.distillation.alpha.quniform",
        "the step must lie in (0, high - low], not 0",
    ),
    Broken(
        "step wider than the range",
        in_space("distillation.alpha", "{quniform: [1, 2, 5]}"),
        "space.distillation.alpha.quniform",
        "the step must lie in (0, high - low], not 5",
    ),
    Broken(
        "no step",
        in_space("distillation.alpha", "{quniform: [1, 2]}"),
        "space.distillation.alpha.quniform",
        "must be [low, high, step], not [1, 2]",
    ),
    Broken(
        "whole numbers from fractions",
        in_space("schedule.batch_size", "{int: [1.5, 64]}"),
        "space.schedule.batch_size.int",
        "bounds must be whole numbers",
    ),
    Broken(
        "fractions for whole numbers",
        in_space("schedule.batch_size", "{uniform: [16, 64]}"),
        "space.schedule.batch_size.uniform",
        "schedule.batch_size takes whole numbers: use int or logint",
    ),
    Broken(
        "numbers for words",
        in_space("distillation.weighting.kind", "{int: [0, 1]}"),
        "space.distillation.weighting.kind.int",
        "does not take numbers; use choice",
    ),
    Broken(
        "empty choice",
        in_space("distillation.alpha", "{choice: []}"),
        "space.distillation.alpha.choice",
        "must be a list of at least one value, not []",
    ),
    Broken(
        "a choice of one word",
        in_space("distillation.weighting.kind", "{choice: exp}"),
        "space.distillation.weighting.kind.choice",
        "must be a list of at least one value, not 'exp'",
    ),
    Broken(
        "a choice twice",
        in_space("distillation.alpha", "{choice: [1, 2, 1]}"),
        "space.distillation.alpha.choice.2",
        "1 stands here twice",
    ),
    Broken(
        "a bad choice",
        """
        run: {recipe: digits}
        space:
          distillation.weighting.kind:
            choice:
              - exp
              - sigmod  # <-
              - none
        search: {trials: 4}
        """,
        "space.distillation.weighting.kind.choice.1",
        'did you mean "sigmoid"?',
    ),
    Broken(
        "two distributions",
        in_space("distillation.alpha", "{uniform: [1, 2], choice: [1, 2]}"),
        "space.distillation.alpha",
        "needs exactly one of choice, grid, uniform",
    ),
    Broken(
        "no distribution",
        in_space("distillation.alpha", "{when: {distillation.method: kd}}"),
        "space.distillation.alpha",
        "needs exactly one of choice, grid, uniform",
    ),
    Broken(
        "a list in place of a distribution",
        in_space("distillation.alpha", "[1, 2]"),
        "space.distillation.alpha",
        "like {choice: [1, 2]}",
    ),
    Broken(
        "a value in place of a distribution",
        in_space("distillation.alpha", "2"),
        "space.distillation.alpha",
        "like {choice: [2]}",
    ),
    Broken(
        "a section swept",
        in_space("distillation.weighting", "{choice: [exp]}"),
        "space.distillation.weighting",
        "is a section, not a value; sweep a path in it: distillation.weighting.kind",
    ),
    Broken(
        "a recipe that is none, swept",
        in_space("recipe", "{choice: [digits, digit]}"),
        "space.recipe.choice.1",
        'did you mean "digits"?',
    ),
    Broken(
        "the seed swept",
        in_space("seed", "{choice: [1, 2]}"),
        "space.seed",
        "a seed is not searched for: see confirm.seeds",
    ),
    Broken(
        "grid under tpe",
        in_space("distillation.alpha", "{grid: [1, 2]}"),
        "space.distillation.alpha.grid",
        "under sampler: tpe use choice",
    ),
    Broken(
        "a continuum under grid",
        in_space("distillation.alpha", "{loguniform: [1, 2]}", "{sampler: grid}"),
        "space.distillation.alpha",
        "sampler: grid tries every value; loguniform has no end of them",
    ),
    Broken(
        "a continuum in an ablation",
        ABLATION + "space:\n  distillation.alpha: {uniform: [1, 2]}  # <-\n",
        "space.distillation.alpha",
        "an ablation tries every value; uniform has no end of them",
    ),
    Broken(
        "a choice in an ablation",
        ABLATION + "space:\n  distillation.alpha: {choice: [1, 2]}  # <-\n",
        "space.distillation.alpha",
        "use grid: in place of choice:",
    ),
]

WRONG_WHEN = [
    Broken(
        "when on a path that is neither swept nor fixed",
        in_space("distillation.alpha", "{uniform: [1, 2], when: {dataset.root: pictures}}"),
        "space.distillation.alpha.when.dataset.root",
        "dataset.root is neither swept nor fixed",
    ),
    Broken(
        "when that a fixed value never makes true",
        in_space("distillation.alpha", "{uniform: [1, 2], when: {distillation.weighting.kind: sigmoid}}"),
        "space.distillation.alpha.when.distillation.weighting.kind",
        "never holds: distillation.weighting.kind is exp",
    ),
    Broken(
        "when that no swept value makes true",
        """
        run: {recipe: digits}
        space:
          distillation.weighting.kind: {choice: [exp, none]}
          distillation.alpha:
            uniform: [1, 2]
            when:
              distillation.weighting.kind: [sigmoid, constant]  # <-
        search: {trials: 4}
        """,
        "space.distillation.alpha.when.distillation.weighting.kind",
        "never holds: distillation.weighting.kind takes exp, none",
    ),
    Broken(
        "when on itself",
        in_space("distillation.alpha", "{uniform: [1, 2], when: {distillation.alpha: 1}}"),
        "space.distillation.alpha.when.distillation.alpha",
        "a parameter cannot depend on itself",
    ),
    Broken(
        "when with a bad value",
        in_space("distillation.alpha", "{uniform: [1, 2], when: {distillation.weighting.kind: epx}}"),
        "space.distillation.alpha.when.distillation.weighting.kind",
        'did you mean "exp"?',
    ),
    Broken(
        "when that is a word",
        in_space("distillation.alpha", "{uniform: [1, 2], when: sigmoid}"),
        "space.distillation.alpha.when",
        "must be a section like {distillation.weighting.kind: sigmoid}",
    ),
]

WRONG_TOGETHER = [
    Broken("search and ablation", SEARCH + "variants: [kd]  # <-\n", "variants", "remove search or variants"),
    Broken("neither search nor ablation", "run: {recipe: digits}  # <-\n", "", "says nothing to do"),
    Broken("confirm in an ablation", ABLATION + "confirm: {top: 2}  # <-\n", "confirm", "has seeds: instead"),
    Broken("scheduler in an ablation", ABLATION + "scheduler: asha  # <-\n", "scheduler", "belongs to a search"),
    Broken(
        "a grid of very many points",
        """
        run: {recipe: digits}
        space:  # <-
          schedule.epochs: {int: [1, 1000]}
          schedule.batch_size: {int: [1, 1000]}
        search: {sampler: grid}
        """,
        "space",
        "the grid has 1,000,000 points",
    ),
    Broken("seeds in a search", SEARCH + "seeds: 3  # <-\n", "seeds", "a search has confirm.seeds"),
    Broken(
        "a search without trials",
        in_space("optimizer.lr", "{uniform: [1, 2]}", "{}  # <-").replace("  # <-", "", 1),
        "search",
        "needs trials",
    ),
    Broken("nothing to search", "run: {recipe: digits}\nsearch: {trials: 4}  # <-\n", "search", "add a space section"),
    Broken(
        "chosen on the test set",
        in_search("metric: test/accuracy"),
        "search.metric",
        "nothing is chosen on the test set: not test/accuracy, take validation/accuracy",
    ),
    Broken(
        "fewer modes than metrics",
        SEARCH.replace("4}", "4, metric: [validation/loss, train/loss],") + "  mode: [min]}  # <-\n",
        "search.mode",
        "needs one of max and min for each of the 2 metrics",
    ),
    Broken("more modes than metrics", in_search("mode: [max, min]"), "search.mode", "for each of the 1 metric"),
    Broken(
        "a metric twice",
        in_search("metric: [train/loss, train/loss]"),
        "search.metric",
        "a metric stands here twice",
    ),
    Broken(
        "cmaes with two metrics",
        SEARCH.replace("4}", "4, metric: [validation/loss, train/loss],") + "  sampler: cmaes}  # <-\n",
        "search.sampler",
        "cmaes takes one metric",
    ),
    Broken(
        "early stopping with two metrics",
        SEARCH.replace("4}", "4, metric: [validation/loss, train/loss]}") + "scheduler: median  # <-\n",
        "scheduler",
        "early stopping needs one metric",
    ),
    Broken(
        "arms that the space makes equal",
        """
        run: {recipe: digits}
        space:
          distillation.alpha: {uniform: [1, 2]}
          distillation.weighting.kind: {choice: [none, exp]}
        search:
          trials: 4
          arms: [wsl, kd]  # <-
        """,
        "search.arms",
        'the arms "wsl" and "kd" are the same once the space is applied',
    ),
    Broken("no arms", in_search("arms: []"), "search.arms", "is empty"),
    Broken(
        "a swept path that nothing reads",
        in_space("distillation.weighting.value", "{uniform: [0, 1]}"),
        "space.distillation.weighting.value",
        "it is read where distillation.weighting.kind is constant",
    ),
    Broken(
        "a grid that no variant reads",
        "run: {recipe: digits}\nvariants: [ce]\nspace:\n  distillation.alpha: {grid: [1, 2]}  # <-\n",
        "space.distillation.alpha",
        "it is read where distillation.method is not none",
    ),
    Broken(
        "a setting of run that nothing reads",
        """
        run:
          recipe: digits
          distillation:
            weighting:
              kind: exp
              of: ratio  # <-
        variants: [kd, ce]
        """,
        "run.distillation.weighting.of",
        "it is read where distillation.weighting.kind is sigmoid",
    ),
    Broken(
        "a teacher for cross-entropy alone",
        "run:\n  recipe: digits\n  teacher:\n    model: convnet_16  # <-\nvariants: [ce]\n",
        "run.teacher.model",
        "nothing in this file reads teacher.model",
    ),
    Broken(
        "a setting of a variant that nothing reads",
        "run: {recipe: digits}\nvariants:\n  ce:\n  kd: {distillation.weighting.of: ratio}  # <-\n",
        "variants.kd.distillation.weighting.of",
        "it is read where distillation.weighting.kind is sigmoid",
    ),
]

WRONG_SHAPES = [
    Broken("a section twice", "name: alpha\nname: beta  # <-" + ABLATION, "name", "used twice, first in line 1"),
    Broken(
        "a setting twice",
        "run:\n  recipe: digits\n  seed: 1\n  precision: auto\n  seed: 2  # <-\nvariants: [kd]\n",
        "run.seed",
        'the key "seed" is used twice, first in line 3',
    ),
    Broken(
        "a variant twice in a section",
        "run: {recipe: digits}\nvariants:\n  kd: {}\n  ce: {}\n  kd: {}  # <-\n",
        "variants.kd",
        'the variant name "kd" is used twice, first in line 3',
    ),
    Broken(
        "a variant twice in a list",
        "run: {recipe: digits}\nvariants:\n  - kd\n  - ce\n  - kd  # <-\n",
        "variants.2",
        'the variant name "kd" is used twice',
    ),
    Broken("an arm twice", in_search("arms: [wsl, wsl]"), "search.arms.1", '"wsl" is used twice'),
    Broken("a bracket too few", "run: {recipe: digits\nvariants: [kd]  # <-\n", "", "not valid YAML"),
    Broken("a tab", "run:\n\trecipe: digits  # <-\nvariants: [kd]\n", "", "not valid YAML"),
    Broken("a Python object", "name: !!python/name:os.system x  # <-" + ABLATION, "", "not valid YAML"),
    Broken("empty file", "", "", "the file is empty"),
    Broken("only a comment", "# nothing yet\n", "", "the file is empty"),
    Broken("a list at the top", "- run\n- space\n", "", "must be a mapping of sections"),
    Broken("a word at the top", "digits\n", "", "must be a mapping of sections"),
    Broken("a word as run", "run: digits  # <-\nvariants: [kd]\n", "run", "must be a section"),
    Broken("a word as space", "run: {recipe: digits}\nspace: alpha  # <-\nsearch: {trials: 2}\n", "space", "a section"),
    Broken("a word as search", SEARCH.replace("{trials: 4}", "tpe  # <-"), "search", "must be a section"),
    Broken("a number as confirm", SEARCH + "confirm: 3  # <-\n", "confirm", "must be a section"),
    Broken("a word as compare", ABLATION + "compare: kd  # <-\n", "compare", "must be a section"),
    Broken("a number as resources", ABLATION + "resources: 2  # <-\n", "resources", "must be a section"),
    Broken("a number as budget", ABLATION + "budget: 2  # <-\n", "budget", "must be a section"),
    Broken("a word as tracking", ABLATION + "tracking: mlflow  # <-\n", "tracking", "must be a section"),
    Broken("a number as variants", "run: {recipe: digits}\nvariants: 3  # <-\n", "variants", "a list of names"),
    Broken("no variants", "run: {recipe: digits}\nvariants: {}  # <-\n", "variants", "is empty"),
    Broken(
        "a number as a variant",
        "run: {recipe: digits}\nvariants:\n  kd: 3  # <-\n",
        "variants.kd",
        "must be a section of path: value, not 3",
    ),
]

BROKEN = UNKNOWN_NAMES + WRONG_VALUES + WRONG_SPACES + WRONG_WHEN + WRONG_TOGETHER + WRONG_SHAPES


@pytest.mark.parametrize("broken", [pytest.param(one, id=one.title) for one in BROKEN])
def test_a_mistake_is_reported_once_with_its_line_path_and_remedy(broken: Broken) -> None:
    problems = problems_of(broken.text)
    assert [(problem.line, problem.path) for problem in problems] == [(broken.line, broken.path)]
    assert broken.what in problems[0].what


@pytest.mark.parametrize(
    "length", [2, 3], ids=["two paths that wait for each other", "three paths that wait for each other"]
)
def test_a_circle_of_when_is_reported_at_each_of_its_paths(length: int) -> None:
    paths = ["distillation.alpha", "distillation.temperature", "optimizer.lr"][:length]
    lines = ["run: {recipe: digits}", "search: {trials: 4}", "space:"]
    for path, following in zip(paths, [*paths[1:], paths[0]], strict=True):
        lines.append(f"  {path}: {{choice: [1, 2], when: {{{following}: 1}}}}")
    problems = problems_of("\n".join(lines))
    assert [problem.line for problem in problems] == list(range(4, 4 + length))
    assert all("depend on each other" in problem.what for problem in problems)


def test_what_no_recipe_gives_is_listed_path_by_path() -> None:
    problems = problems_of("variants: [kd, ce]\n")
    assert {problem.path for problem in problems} == {"run"}
    missing = {problem.what.split(" has no value")[0] for problem in problems}
    assert {"dataset.name", "student.model", "teacher.model", "optimizer.lr", "schedule.epochs"} <= missing
    assert all("name a recipe (run.recipe: digits) or set it" in problem.what for problem in problems)


MANY_MISTAKES = """
name: many mistakes
run:
  recipe: digits
  distillation:
    temperature: hot
    alhpa: 2
  student: {model: convnet_5}
space:
  distillation.alpha: {uniform: [4, 1]}
  distillation.weighting.kind:
    choice: [exp, sigmod]
  optimizer.lr: {loguniform: [0, 1]}
search:
  sampler: tpee
  trials: 12
  metric: test/accuracy
seeds: 3
confirm: {baselines: [kdd]}
compare: {baseline: wsl}
serch: {}
"""

MANY_LINES_AND_PATHS = [
    (1, "name"),
    (5, "run.distillation.temperature"),
    (6, "run.distillation.alhpa"),
    (7, "run.student.model"),
    (9, "space.distillation.alpha.uniform"),
    (11, "space.distillation.weighting.kind.choice.1"),
    (12, "space.optimizer.lr.loguniform"),
    (14, "search.sampler"),
    (16, "search.metric"),
    (17, "seeds"),
    (18, "confirm.baselines.0"),
    (19, "compare.baseline"),
    (20, "serch"),
]


def test_all_mistakes_are_reported_at_once_in_the_order_of_their_lines() -> None:
    problems = problems_of(MANY_MISTAKES)
    assert [(problem.line, problem.path) for problem in problems] == MANY_LINES_AND_PATHS


def test_mistakes_of_the_command_line_come_after_those_of_the_file() -> None:
    problems = problems_of("name: a b" + ABLATION, sets=("optimizer.lr=fast",), trials=3)
    assert [(problem.line, problem.path) for problem in problems] == [
        (1, "name"),
        (None, "--set optimizer.lr"),
        (None, "--trials"),
    ]


def test_the_message_counts_the_mistakes_and_names_file_line_and_path() -> None:
    with pytest.raises(SpecErrors) as caught:
        spec_of(in_run("optimizer.lr", "fast"), trials=3)
    assert str(caught.value).splitlines() == [
        "file.yaml: 2 mistakes, nothing was started",
        "  file.yaml:3: run.optimizer.lr: must be a number, not 'fast'",
        "  command line: --trials: this file is no search; an ablation runs every variant, see --seeds",
    ]
    assert caught.value.exit_code == 2


def test_the_command_lists_every_mistake_and_ends_with_2_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "many.yaml").write_text(text_of(MANY_MISTAKES), encoding="utf-8")
    began = time.monotonic()
    done = run_command(tmp_path, "run", "many.yaml", "--set", "optimizer.lr=fast", python=("-X", "importtime"))
    assert time.monotonic() - began < 20
    assert done.returncode == 2
    imports: list[str] = []
    said: list[str] = []
    for line in done.stderr.splitlines():
        (imports if line.startswith("import time:") else said).append(line)
    assert said[0] == f"wsl-sweep: many.yaml: {len(MANY_LINES_AND_PATHS) + 1} mistakes, nothing was started"
    places = [f"  many.yaml:{line}: {path}: " for line, path in MANY_LINES_AND_PATHS]
    for told, place in zip(said[1:], [*places, "  command line: --set optimizer.lr: "], strict=True):
        assert told.startswith(place)
    assert "Traceback" not in done.stderr
    modules = {line.rsplit("|", 1)[1].strip() for line in imports}
    assert "wsl_sweep.spec.loading" in modules
    assert not modules & {"ray", "mlflow"}
    assert [path.name for path in tmp_path.iterdir()] == ["many.yaml"]


def test_a_bad_number_of_trials_is_one_mistake() -> None:
    problems = problems_of(SEARCH.replace("trials: 4", "trials: 0"))
    assert [problem.path for problem in problems] == ["search.trials"]


def test_arms_are_equal_too_where_the_space_decides_on_what_told_them_apart() -> None:
    problems = problems_of(
        """
        run: {recipe: digits}
        space:
          distillation.weighting.kind: {choice: [none, exp]}
        search: {trials: 2, arms: [wsl, kd]}
        """
    )
    assert [(problem.line, problem.path) for problem in problems] == [(4, "search.arms")]


COMPLETE_BUT_FOR_LR = """
run:
  dataset: {name: digits}
  teacher: {model: convnet_32, schedule: {epochs: 2, batch_size: 64}, optimizer: {lr: 0.1}}
  student: {model: convnet_4}
  schedule: {epochs: 2, batch_size: 64}
"""


@pytest.mark.parametrize(
    "rest",
    [
        "space: {optimizer.lr: {uniform: [0.1, 1]}}\nsearch: {trials: 2}\nconfirm: {baselines: [ce]}\n",
        "space:\n  optimizer.lr: {uniform: [0.1, 1], when: {distillation.mask: none}}\n"
        "  distillation.mask: {choice: [none, detach]}\nsearch: {trials: 2}\n",
    ],
    ids=["an untuned baseline", "where its condition does not hold"],
)
def test_what_is_only_swept_is_missing_where_it_is_not_swept(rest: str) -> None:
    problems = problems_of(COMPLETE_BUT_FOR_LR + rest)
    assert ["optimizer.lr has no value" in problem.what for problem in problems] == [True]


@pytest.mark.parametrize(
    "text",
    [
        "run:\n  recipe: digits\n  distillation.weighting.of: ratio  # <-\nvariants: [kd, ce]\n",
        "run: {recipe: digits}\nvariants:\n  - ce\n  - kd: {distillation.weighting.of: ratio}  # <-\n",
        "run: {recipe: digits}\nvariants:\n  kd:\n    distillation:\n      weighting: {of: ratio}  # <-\n",
        "run: {recipe: digits}\nvariants:\n  kd:\n    run.distillation.weighting.of: ratio  # <-\n",
        "run: {recipe: digits}\nspace:\n  run.teacher.smoothing: {choice: [all]}  # <-\nsearch: {trials: 2}\n",
        SEARCH + "confirm:\n  baselines:\n    - kd: {distillation.weighting.of: ratio}  # <-\n",
    ],
    ids=["dotted in run", "list", "nested", "with run.", "space with run.", "baselines"],
)
def test_what_nothing_reads_has_its_own_line_however_it_is_written(text: str) -> None:
    (problem,) = problems_of(text)
    assert problem.line == Broken("", text, "", "").line


@pytest.mark.parametrize(
    "text",
    [
        "run:\n  recipe: digits\n  optimizer: {lr: 0.1}\n  optimizer.lr: 0.2  # <-\nvariants: [kd]\n",
        "run: {recipe: digits}\nvariants:\n  kd:\n    optimizer.lr: 1\n    run.optimizer.lr: 2  # <-\n",
        SEARCH.replace("search:", "  run.distillation.alpha: {uniform: [3, 4]}  # <-\nsearch:"),
    ],
    ids=["run", "variants", "space"],
)
def test_a_path_that_is_set_twice_in_two_spellings_is_a_mistake(text: str) -> None:
    (problem,) = problems_of(text)
    assert problem.line == Broken("", text, "", "").line


@pytest.mark.parametrize(
    "text",
    [
        in_run("optimizer.speed", "null"),
        "run: {recipe: digits}\nvariants:\n  kd:\n    optimizer.speed:  # <-\n",
    ],
    ids=["run", "variants"],
)
def test_an_unknown_path_is_a_mistake_without_a_value_too(text: str) -> None:
    (problem,) = problems_of(text)
    assert problem.line == Broken("", text, "", "").line


@pytest.mark.parametrize("entry", ["{uniform: [1, 4]}", "{loguniform: [1, 4]}", "{quniform: [1, 4, 0.5]}"])
def test_a_count_of_views_is_not_drawn_from_fractions(entry: str) -> None:
    (problem,) = problems_of(in_space("dataset.views", entry))
    assert problem.line == 3


@pytest.mark.parametrize("number", ["9" * 5_000, "!!int many"], ids=["5,000 digits", "a tag"])
def test_a_number_that_cannot_be_one_is_a_mistake_with_its_line(number: str) -> None:
    assert [problem.line for problem in problems_of(in_run("seed", number))] == [3]


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("schedule.epochs", f"{{int: [1, 1{'0' * 30}]}}"),
        ("schedule.epochs", f"{{logint: [1, 1{'0' * 12}]}}"),
        ("distillation.alpha", "{quniform: [0, 1, 1e-12]}"),
    ],
)
def test_a_range_of_very_many_values_is_sampled_and_not_written_out(path: str, entry: str) -> None:
    assert make_plan(spec_of(in_space(path, entry))).stages == {"search": 4}
    (problem,) = problems_of(in_space(path, entry, "{sampler: grid}"))
    assert (problem.line, problem.path) == (3, f"space.{path}")


# --- whatever stands in a file, the answer is a plan or a list of mistakes -------------------------------------------

JUNK: dict[str, str] = {
    "nothing": "",
    "a word": "junk",
    "a number": "-1",
    "a fraction": "2.5",
    "a truth": "true",
    "an empty list": "[]",
    "an empty section": "{}",
    "a list of lists": "[[1]]",
    "a list with nothing in it": "[null]",
    "a section of nonsense": "{a: {b: 2}}",
    "a list of sections": "[{a: 1}]",
    "infinity": ".inf",
    "a huge number": "1" + "0" * 30,
}


SEARCH_PLACES = (
    "name: X",
    "description: X",
    "run: {recipe: X}",
    "run: X",
    "space: X",
    "space: {distillation.alpha: X}",
    "space: {distillation.alpha: {choice: X}}",
    "space: {distillation.alpha: {uniform: X}}",
    "space: {distillation.alpha: {uniform: [1, X]}}",
    "space: {distillation.alpha: {uniform: [1, 2], when: X}}",
    "space: {distillation.alpha: {uniform: [1, 2], when: {distillation.weighting.kind: X}}}",
    "search: X",
    "search: {trials: X}",
    "search: {trials: 3, sampler: X}",
    "search: {trials: 3, metric: X}",
    "search: {trials: 3, mode: X}",
    "search: {trials: 3, arms: X}",
    "search: {trials: 3, arms: {mine: X}}",
    "confirm: X",
    "confirm: {baselines: X}",
    "compare: X",
    "compare: {baseline: X}",
    "compare: {family: X}",
    "scheduler: X",
    "resources: X",
    "budget: X",
    "keep: X",
    "tracking: X",
)
ABLATION_PLACES = ("variants: X", "variants: [X]", "variants: {mine: X}", "seeds: X", "seeds: [X]")


def _nonsense(places: Sequence[str]) -> list[Any]:
    return [pytest.param(place, junk, id=f"{place} - {title}") for place in places for title, junk in JUNK.items()]


@pytest.mark.parametrize(("place", "junk"), _nonsense(SEARCH_PLACES))
def test_nonsense_in_a_search_never_ends_in_a_traceback(place: str, junk: str) -> None:
    _plan_or_mistakes(SEARCH, place, junk)


@pytest.mark.parametrize(("place", "junk"), _nonsense(ABLATION_PLACES))
def test_nonsense_in_an_ablation_never_ends_in_a_traceback(place: str, junk: str) -> None:
    _plan_or_mistakes(ABLATION, place, junk)


def _plan_or_mistakes(text: str, place: str, junk: str) -> None:
    section, line = place.split(":")[0], place.replace("X", junk)
    kept = [other for other in _sections(text_of(text)) if not other.startswith(f"{section}:")]
    whole = "".join(kept) + line + "\n"
    problems = problems_of(whole)
    assert all(problem.line is not None and problem.what for problem in problems)
    if not problems:
        assert sum(make_plan(spec_of(whole)).stages.values()) > 0


def _sections(text: str) -> list[str]:
    """The top-level sections of a file, each with its lines."""
    found: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith(" "):
            found[-1] += line
        else:
            found.append(line)
    return found


@pytest.mark.parametrize("leaf", sorted(leaves()))
@pytest.mark.parametrize("junk", ["{a: 1}", "[{a: 1}]", ".inf", "{}"])
def test_every_leaf_of_run_is_checked(leaf: str, junk: str) -> None:
    problems = problems_of(in_run(leaf, junk))
    assert (3, f"run.{leaf}") in [(problem.line, problem.path) for problem in problems]
