"""Reading YAML safely, with the line of every entry, and with duplicate keys as errors."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str | int, ...]

MAX_NODES = 100_000


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a file or on the command line.

    Attributes:
        line: counted from 1; None where the command line, not the file, is meant.
        path: dotted, as in ``run.distillation.alpha``; empty for the file as a whole.
        what: what was wrong and what to do.
    """

    line: int | None
    path: str
    what: str


@dataclass
class Document:
    """A YAML file as plain data, with the line (from 1) of each key and item by its path."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: Path) -> int | None:
        """The line of the entry at ``path``, or of its nearest ancestor that is in the file."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's numbers and booleans: ``1e-3`` is a number, ``no`` is a word."""


_Loader.yaml_implicit_resolvers = {
    key: [(tag, regexp) for tag, regexp in resolvers if tag.rsplit(":", 1)[1] in ("null", "merge")]
    for key, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def read_yaml(text: str) -> Document:
    """Parses ``text``; what is wrong with it as YAML is in ``problems``, never raised."""
    document = Document()
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                document.lines[()] = node.start_mark.line + 1
                document.value = _Reader(loader, document).read(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        document.problems.append(Problem(mark.line + 1 if mark else 1, "", f"not valid YAML: {what}"))
    except (yaml.YAMLError, RecursionError) as error:
        what = getattr(error, "reason", None) or "nested too deeply"
        document.problems.append(Problem(1, "", f"not valid YAML: {what}"))
    return document


def read_scalar(text: str) -> Any:
    """One value as the file format has it: ``2`` → int, ``1e-3`` → float, ``[1, 2]`` → list, ``exp`` → str.

    Raises ValueError where it is not YAML.
    """
    document = read_yaml(text)
    if document.problems:
        raise ValueError(document.problems[0].what)
    return document.value


class _Reader:
    """Turns nodes into plain data and notes lines and duplicate keys on the way."""

    def __init__(self, loader: _Loader, document: Document) -> None:
        self.loader = loader
        self.document = document
        self.nodes = 0

    def read(self, node: yaml.Node, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise yaml.YAMLError("too large")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                self.document.lines[(*path, index)] = item.start_mark.line + 1
                items.append(self.read(item, (*path, index)))
            return items
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        try:
            if node.tag == "tag:yaml.org,2002:int":
                return int(node.value)  # decimal, as YAML 1.2 has it: PyYAML takes a leading zero for octal
            return self.loader.construct_object(node)
        except ValueError:
            kind = node.tag.rsplit(":", 1)[-1]
            dotted = ".".join(map(str, path))
            shown = f"{str(node.value)[:40]!r} cannot be read as {kind}"
            self.document.problems.append(Problem(node.start_mark.line + 1, dotted, shown))
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        own: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged = self.read(value_node, (*path, "<<"))
                for part in merged if isinstance(merged, list) else [merged]:
                    for name, value in (part if isinstance(part, dict) else {}).items():
                        result.setdefault(name, value)
                continue
            where = (*path, key)
            if key in own:
                kind = "variant name" if path == ("variants",) else "key"
                dotted = ".".join(map(str, where))
                self.document.problems.append(
                    Problem(line, dotted, f'the {kind} "{key}" is used twice, first in line {own[key]}')
                )
                continue
            own[key] = line
            self.document.lines[where] = line
            result[key] = self.read(value_node, where)
        return result
