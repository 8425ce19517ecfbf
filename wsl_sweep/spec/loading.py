"""From a search-space file and the command line to a checked specification, or to all that is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.catalogue import did_you_mean
from wsl_sweep.spec.distributions import Distribution, check_leaf, parse_distribution, settled, takes_text
from wsl_sweep.spec.recipes import NAMED
from wsl_sweep.spec.rules import check_rules
from wsl_sweep.spec.run import Section, explain, leaves, section_paths
from wsl_sweep.spec.sections import (
    SECTIONS,
    TOP_LEVEL,
    BankSection,
    BudgetSection,
    CompareSection,
    ConfirmSection,
    ResourcesSection,
    SchedulerSection,
    SearchSection,
    TrackingSection,
)
from wsl_sweep.spec.spec import Spec
from wsl_sweep.spec.world import World, check_world
from wsl_sweep.spec.yaml_lines import Document, Problem, read_scalar, read_yaml
from wsl_sweep.spec.yaml_lines import Path as KeyPath

_S = TypeVar("_S", bound=Section)

DEFAULT_SEEDS = 3
MOST_SEEDS = 10_000

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class SpecErrors(WslSweepError):
    """Everything that is wrong with a file and its command line, in one go.

    Attributes:
        source: the file.
        problems: in the order of their lines.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))
        count = len(self.problems)
        lines = [f"{source}: {count} mistake{'s' if count != 1 else ''}, nothing was started"]
        for problem in self.problems:
            where = f"{source}:{problem.line}" if problem.line is not None else "command line"
            lines.append(f"  {where}: {problem.path + ': ' if problem.path else ''}{problem.what}")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class CommandLine:
    """What a user may say on the command line about a file.

    Attributes:
        sets: ``path=value`` texts of ``--set``.
        recipe, trials, seeds, name: of the options of the same names.
    """

    sets: tuple[str, ...] = ()
    recipe: str | None = None
    trials: int | None = None
    seeds: int | None = None
    name: str | None = None


def load_spec(path: Path, command_line: CommandLine = CommandLine(), world: World | None = None) -> Spec:
    """Reads and checks a search-space file.

    Args:
        path: of the file.
        command_line: what is said about it there.
        world: asked for what only importing or looking at the disk can tell; None leaves that out.

    Raises:
        WslSweepError: the file cannot be read.
        SpecErrors: anything is wrong in it or on the command line; all of it, each with its line and path.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = [str(other) for other in sorted(path.parent.glob("*.yaml"))] if path.parent.is_dir() else []
        hint = f"; {did_you_mean(str(path), near)}" if near else ""
        raise WslSweepError(f"{path}: no such file{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise WslSweepError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    return parse_spec(text, str(path), command_line, default_name=path.stem, world=world)


def parse_spec(
    text: str,
    source: str,
    command_line: CommandLine = CommandLine(),
    default_name: str = "sweep",
    world: World | None = None,
) -> Spec:
    """As ``load_spec``, from the text of a file."""
    loader = _Loader(read_yaml(text), command_line, default_name, world)
    spec = loader.load(text)
    if loader.problems or spec is None:
        raise SpecErrors(source, loader.problems)
    return spec


@dataclass
class _Loader:
    document: Document
    command_line: CommandLine
    default_name: str
    world: World | None = None
    problems: list[Problem] = field(default_factory=list)
    places: dict[tuple[str, ...], KeyPath] = field(default_factory=dict)

    def place(self, *owner: str) -> KeyPath:
        """Where an override stands in the file: (section, its arm's or variant's name if it is of one, path)."""
        return self.places.get(owner, owner)

    def say(self, path: KeyPath, what: str) -> None:
        """Notes a problem of the file, at its line."""
        dotted = ".".join(str(part) for part in path)
        self.problems.append(Problem(self.document.line(path), dotted, what))

    def say_option(self, option: str, what: str) -> None:
        """Notes a problem of the command line."""
        self.problems.append(Problem(None, option, what))

    def load(self, text: str) -> Spec | None:
        self.problems += self.document.problems
        top = self.document.value
        if top is None and not self.problems:
            self.problems.append(Problem(1, "", "the file is empty; see search_spaces/ for examples"))
        if top is not None and not isinstance(top, dict):
            self.problems.append(Problem(1, "", "must be a mapping of sections: run, space, search, …"))
        if not isinstance(top, dict):
            return None
        for key in top:
            if key not in TOP_LEVEL:
                self.say((key,), f'there is no section "{key}"; {did_you_mean(key, TOP_LEVEL)}')

        run = self._run(top.get("run"))
        recipe = run.pop("recipe", None)
        pins = self._pins()
        sections = {name: self._section(name, top) for name in SECTIONS}
        search, confirm = sections["search"], sections["confirm"]
        assert search is None or isinstance(search, SearchSection)
        assert confirm is None or isinstance(confirm, ConfirmSection)
        space, notes = self._space(top.get("space"), pins)
        ablation = "variants" in top
        if confirm is not None:
            confirm = self._with_seeds(confirm)
        if search is not None and self.command_line.trials is not None:
            search = search.model_copy(update={"trials": self.command_line.trials})
        spec = Spec(
            name=self._name(top.get("name")),
            description=self._text(top, "description"),
            text=text,
            recipe=pins.get("recipe", recipe),
            given=run,
            pins=pins,
            space=space,
            search=search,
            confirm=confirm,
            arms=self._arms(search),
            baselines=self._named(confirm.baselines if confirm else None, ("confirm", "baselines")),
            variants=self._named(top.get("variants"), ("variants",)),
            seeds=self._seeds(top, ablation, int(pins.get("seed", run.get("seed", 0)))),
            compare=_as(CompareSection, sections["compare"]),
            scheduler=_as(SchedulerSection, sections["scheduler"]),
            resources=_as(ResourcesSection, sections["resources"]),
            budget=_as(BudgetSection, sections["budget"]),
            tracking=_as(TrackingSection, sections["tracking"]),
            bank=_as(BankSection, sections["bank"]),
            keep=self._keep(top),
            notes=tuple(notes),
        )
        spec = replace(spec, notes=(*notes, *_pinned_overrides(spec, self.command_line)))
        self._options(spec, ablation)
        check_rules(spec, top, self.say, self.say_option, self.place, clean=not self.problems)
        if self.world is not None:
            check_world(spec, self.world, self.say, self.say_option, self.place)
        return spec

    # --- single sections -------------------------------------------------------------------------------------

    def _name(self, name: Any) -> str:
        chosen = self.command_line.name if self.command_line.name is not None else name
        if chosen is None:
            chosen = re.sub(r"[^A-Za-z0-9._-]+", "-", self.default_name).strip("-.") or "sweep"
        if not isinstance(chosen, str) or not NAME.fullmatch(chosen):
            what = f"must be a folder's name of letters, digits, '.', '_' and '-', not {chosen!r}"
            if self.command_line.name is not None:
                self.say_option("--name", what)
            else:
                self.say(("name",), what)
            return "sweep"
        return chosen

    def _text(self, top: Mapping[str, Any], key: str) -> str:
        value = top.get(key)
        if value is not None and not isinstance(value, str):
            self.say((key,), f"must be text, not {value!r}")
        return value.strip() if isinstance(value, str) else ""

    def _keep(self, top: Mapping[str, Any]) -> str:
        value = top.get("keep", "best")
        if value not in ("best", "all"):
            self.say(("keep",), f"must be best or all, not {value!r}")
        return str(value)

    def _run(self, raw: Any) -> dict[str, Any]:
        if raw is None:
            return {}
        if not isinstance(raw, dict):
            self.say(("run",), "must be a section of keys and values")
            return {}
        if self.command_line.recipe is not None:  # stands in place of the file's, right or wrong
            raw = {key: value for key, value in raw.items() if key != "recipe"}
        return self._overrides(raw, ("run",), ("run",))

    def _pins(self) -> dict[str, Any]:
        """Of ``--set``, and the recipe of ``--recipe``, which wins over one that the file sweeps too."""
        pins: dict[str, Any] = {}
        recipe = self.command_line.recipe
        if recipe is not None:
            wrong = check_leaf("recipe", recipe)
            if wrong:
                self.say_option("--recipe", wrong)
            else:
                pins["recipe"] = recipe
        for text in self.command_line.sets:
            path, equals, value_text = text.partition("=")
            path = path.strip().removeprefix("run.")
            if not equals or not path:
                self.say_option(f"--set {text}", "must be path=value, like distillation.alpha=2")
                continue
            try:
                # A folder, or a teacher's id, may look like anything: text is taken as it is typed.
                as_typed = takes_text(path) and value_text.strip() not in ("", "null")
                value = _unquoted(value_text.strip()) if as_typed else read_scalar(value_text)
            except ValueError as error:
                self.say_option(f"--set {text}", str(error))
                continue
            for where, leaf, inner in _flat({path: value}, ()):
                wrong = self._wrong_leaf(leaf, inner)
                if wrong:
                    self.say_option(f"--set {'.'.join(map(str, where))}", wrong)
                else:
                    pins[leaf] = settled(leaf, inner)
        return pins

    def _section(self, name: str, top: Mapping[str, Any]) -> Section | None:
        if top.get(name) is None:
            return SearchSection() if name == "search" and name in top else None
        raw = top[name]
        if name == "scheduler" and isinstance(raw, str):
            raw = {"name": raw}
        if not isinstance(raw, dict):
            self.say((name,), f"must be a section of keys and values, not {raw!r}")
            return None
        model = SECTIONS[name]
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            bad = set()
            for one in error.errors():
                key = str(one["loc"][0])
                bad.add(key)
                location = (name, *one["loc"])
                if one["type"] == "extra_forbidden":
                    self.say(location, f'unknown key "{key}"; {did_you_mean(key, model.model_fields)}')
                elif not any(p.path.startswith(f"{name}.{key}") for p in self.problems):
                    self.say(self._in_file(location), explain(one))
            # With the good keys alone the rest of the file can still be checked.
            rest = {key: value for key, value in raw.items() if key in model.model_fields and key not in bad}
            try:
                return model.model_validate(rest)
            except ValidationError:
                return None

    def _in_file(self, location: KeyPath) -> KeyPath:
        """A pydantic location without the names of union branches that end it."""
        end = len(location)
        while end > 1 and location[:end] not in self.document.lines:
            end -= 1
        return location[:end]

    def _space(self, raw: Any, pins: Mapping[str, Any]) -> tuple[dict[str, Distribution], list[str]]:
        space: dict[str, Distribution] = {}
        notes: list[str] = []
        if raw is None:
            return space, notes
        if not isinstance(raw, dict):
            self.say(("space",), "must be a section of path: {distribution: arguments}")
            return space, notes
        for path, entry in raw.items():
            where = ("space", path)
            leaf = path.removeprefix("run.")
            if leaf not in leaves():
                wrong = self._wrong_leaf(leaf, entry)
                if leaf in section_paths():
                    inside = [name for name in leaves() if name.startswith(f"{leaf}.")]
                    wrong = f"is a section, not a value; sweep a path in it: {', '.join(inside[:4])}"
                self.say(where, wrong or "is not a path into run")
                continue
            if ("space", leaf) in self.places:
                self.say(where, f"{leaf} is swept twice, in two spellings")
                continue
            self.places["space", leaf] = where
            distribution, findings = parse_distribution(leaf, entry)
            for below, what in findings:
                self.say((*where, *below), what)
            if distribution is None:
                continue
            gone = [
                other for other, allowed in distribution.when.items() if other in pins and pins[other] not in allowed
            ]
            if gone and leaf not in pins:
                option = _option(gone[0], self.command_line)
                notes.append(
                    f"{option} pins {gone[0]} at {pins[gone[0]]!r}, where {leaf} does not exist; it is not swept"
                )
            elif leaf in pins:
                notes.append(f"{_option(leaf, self.command_line)} pins {leaf} at {pins[leaf]!r}; the file sweeps it")
            else:
                space[leaf] = distribution
        return space, notes

    def _wrong_leaf(self, path: str, value: Any) -> str | None:
        if path in leaves():
            return check_leaf(path, value)
        if path in section_paths():
            inside = [name for name in leaves() if name.startswith(f"{path}.")]
            return f"is a section; write {inside[0]}: … or another path in it"
        if path == "run":
            return "paths go into run: leave out the word"
        return f'no such path "{path}"; {did_you_mean(path, leaves())}'

    def _overrides(self, raw: Mapping[str, Any], at: KeyPath, owner: tuple[str, ...]) -> dict[str, Any]:
        """Checked leaves by dotted path; what is wrong is noted, and where each stands."""
        good: dict[str, Any] = {}
        for where, leaf, value in _flat(raw, at):
            wrong = self._wrong_leaf(leaf, value)
            known = leaf in leaves() or leaf in section_paths()
            if (*owner, leaf) in self.places:
                self.say(where, f"{leaf} is set twice, in two spellings")
            elif wrong and not (value is None and known):
                self.say(where, wrong)
            else:
                self.places[*owner, leaf] = where
                if value is not None:
                    good[leaf] = settled(leaf, value)
        return good

    def _named(self, raw: Any, at: KeyPath) -> dict[str, dict[str, Any]]:
        """Arms, variants or baselines: a list of names, or name → overrides on top of what the name stands for."""
        found: dict[str, dict[str, Any]] = {}
        if raw is None:
            if at == ("variants",) and at in self.document.lines:
                self.say(at, "is empty")
            return found
        if isinstance(raw, str):
            raw = [raw]
        if isinstance(raw, dict):
            entries: list[tuple[KeyPath, Any, Any]] = [((*at, name), name, value) for name, value in raw.items()]
        elif isinstance(raw, list):
            entries = []
            for index, item in enumerate(raw):
                if isinstance(item, dict):
                    entries += [((*at, index, name), name, value) for name, value in item.items()]
                else:
                    entries.append(((*at, index), item, None))
        else:
            self.say(at, "must be a list of names, or a section of name: {path: value}")
            return found
        for where, name, overrides in entries:
            if not isinstance(name, str) or not NAME.fullmatch(name):
                self.say(where, f"a name is made of letters, digits, '.', '_' and '-', not {name!r}")
            elif name in found:
                kind = "variant name" if at == ("variants",) else "name"
                self.say(where, f'the {kind} "{name}" is used twice')
            elif overrides is None and isinstance(raw, list) and name not in NAMED:
                self.say(where, f'"{name}" is not a name that stands for something; {did_you_mean(name, NAMED)}')
            elif overrides is not None and not isinstance(overrides, dict):
                self.say(where, f"must be a section of path: value, not {overrides!r}")
                found[name] = {}
            else:
                owner = (str(at[-1]), name)
                found[name] = {**NAMED.get(name, {}), **self._overrides(overrides or {}, where, owner)}
                for path in NAMED.get(name, {}):
                    self.places.setdefault((*owner, path), (*where, path))
        if not entries:
            self.say(at, "is empty")
        return found

    def _arms(self, search: SearchSection | None) -> dict[str, dict[str, Any]]:
        if search is None:
            return {}
        arms = self._named(search.arms, ("search", "arms"))
        return arms or {"tuned": {}}

    def _seeds(self, top: Mapping[str, Any], ablation: bool, first: int) -> tuple[int, ...]:
        """Seeds of an ablation: a list, or how many, counted from ``run.seed``."""
        raw = top.get("seeds")
        if ablation and self.command_line.seeds is not None:
            return tuple(range(first, first + min(self.command_line.seeds, MOST_SEEDS)))
        if raw is None:
            return tuple(range(first, first + DEFAULT_SEEDS)) if ablation else ()
        if isinstance(raw, int) and not isinstance(raw, bool) and 1 <= raw <= MOST_SEEDS:
            return tuple(range(first, first + raw))
        if isinstance(raw, list) and raw and not any(check_leaf("seed", seed) for seed in raw):
            if len(set(raw)) == len(raw):
                return tuple(raw)
            self.say(("seeds",), "a seed stands here twice")
        else:
            self.say(("seeds",), f"must be how many (1 to {MOST_SEEDS:,}), or a list of different seeds, not {raw!r}")
        return (0,)

    def _with_seeds(self, confirm: ConfirmSection) -> ConfirmSection:
        if self.command_line.seeds is None:
            return confirm
        return confirm.model_copy(update={"seeds": self.command_line.seeds})

    def _options(self, spec: Spec, ablation: bool) -> None:
        trials, seeds = self.command_line.trials, self.command_line.seeds
        for option, value in (("--trials", trials), ("--seeds", seeds)):
            if value is not None and value < 1:
                self.say_option(option, f"must be 1 or more, not {value}")
        if trials is not None and spec.search is None:
            self.say_option("--trials", "this file is no search; an ablation runs every variant, see --seeds")
        if seeds is not None and not ablation and spec.confirm is None:
            self.say_option("--seeds", "this file neither confirms nor ablates; there is nothing to repeat")


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _option(path: str, command_line: CommandLine) -> str:
    """The option that pins a path."""
    return "--recipe" if path == "recipe" and command_line.recipe is not None else "--set"


def _pinned_overrides(spec: Spec, command_line: CommandLine) -> list[str]:
    """What the command line takes away from arms, variants and baselines."""
    return [
        f"{_option(path, command_line)} pins {path} at {value!r}; {name} sets it to {overrides[path]!r}"
        for path, value in spec.pins.items()
        for name, overrides in {**spec.arms, **spec.variants, **spec.baselines}.items()
        if path in overrides and overrides[path] != value
    ]


def _as(model: type[_S], section: Section | None) -> _S:
    return section if isinstance(section, model) else model()


def _flat(raw: Mapping[str, Any], at: KeyPath) -> Iterator[tuple[KeyPath, str, Any]]:
    """(place in the file, dotted path, value) of every leaf below ``raw``."""

    def walk(value: Any, where: KeyPath, dotted: str) -> Iterator[tuple[KeyPath, str, Any]]:
        if isinstance(value, Mapping) and value and (dotted not in leaves()):
            for key, inner in value.items():
                yield from walk(inner, (*where, str(key)), f"{dotted}.{key}" if dotted else str(key))
        else:
            yield where, dotted, value

    for key, value in raw.items():
        dotted = str(key).removeprefix("run.") if at != ("run",) else str(key)
        yield from walk(value, (*at, str(key)), dotted)
