"""The JSON Schema of a search-space file: editors accept what is right and underline what is not."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from wsl_sweep.spec.run import leaves
from wsl_sweep.spec.sections import TOP_LEVEL, json_schema

from .helpers import ABLATION, SEARCH, problems_of, run_command, spec_of, text_of

SEARCH_SPACES = Path(__file__).parents[2] / "search_spaces"


@lru_cache(maxsize=1)
def validator() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


def accepts(text: str) -> bool:
    return not list(validator().iter_errors(yaml.safe_load(text_of(text))))


def test_the_command_prints_a_valid_schema(tmp_path: Path) -> None:
    done = run_command(tmp_path, "schema")
    assert (done.returncode, done.stderr) == (0, "")
    schema = json.loads(done.stdout)
    Draft202012Validator.check_schema(schema)
    assert schema == json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_schema_beside_the_files_is_the_one_that_the_command_prints() -> None:
    assert json.loads((SEARCH_SPACES / "schema.json").read_text(encoding="utf-8")) == json_schema()


@pytest.mark.parametrize("path", sorted(SEARCH_SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_in_search_spaces_is_accepted_and_names_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert accepts(text)
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")


def test_every_section_and_every_leaf_of_run_is_in_it() -> None:
    schema = json_schema()
    assert tuple(schema["properties"]) == TOP_LEVEL
    assert set(schema["properties"]["space"]["properties"]) == set(leaves())


def test_all_that_it_refers_to_is_there_and_nothing_else() -> None:
    schema = json_schema()

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*(references(inner) for inner in value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    assert references(schema) == {f"#/$defs/{name}" for name in schema["$defs"]}


RIGHT = {
    "a search": SEARCH,
    "an ablation": ABLATION,
    "variants as a section": "run: {recipe: digits}\nvariants: {kd: , hot: {distillation.temperature: 8}}\n",
    "variants mixed": "run: {recipe: digits}\nvariants: [kd, {hot: {distillation: {temperature: 8}}}]\n",
    "arms": SEARCH.replace("4}", "4, arms: [wsl, kd]}").replace("alpha", "temperature"),
    "arms as a section": SEARCH.replace("4}", "4, arms: {wsl: , mine: {student.model: convnet_8}}}"),
    "several metrics": SEARCH.replace("4}", "4, metric: [train/loss, validation/loss], mode: [min, min]}"),
    "a scheduler by name": SEARCH + "scheduler: asha\n",
    "a scheduler as a section": SEARCH + "scheduler: {name: hyperband, reduction_factor: 2}\n",
    "confirm": SEARCH + "confirm: {top: 2, seeds: 3, baselines: [ce], train_on: train+validation}\n",
    "everything else": ABLATION
    + "name: a\ndescription: b?\nseeds: [0, 4]\nkeep: all\ncompare: {baseline: kd, family: [ce]}\n"
    + "resources: {cpu: 2, gpu: 0.5, concurrent: 3}\nbudget: {trials: 3, hours: 1.5, gpu_hours: 2}\n"
    + "tracking: {uri: sqlite:///m.db, experiment: e}\n",
    "a word or a number": "run: {recipe: digits, dataset: {views: 2}}\nvariants: [kd]\n",
    "null": "run: {recipe: digits, dataset: {views: null}, teacher: }\nvariants: [kd]\n",
    "every distribution": """
        run: {recipe: digits}
        space:
          distillation.alpha: {uniform: [1, 2]}
          distillation.temperature: {quniform: [1, 4, 0.5]}
          optimizer.lr: {loguniform: [0.01, 1]}
          schedule.epochs: {int: [5, 9]}
          schedule.batch_size: {logint: [16, 64]}
          distillation.weighting.kind: {choice: [exp, constant]}
          distillation.weighting.value: {uniform: [0, 1], when: {distillation.weighting.kind: [constant]}}
        search: {trials: 4}
        """,
}

WRONG = {
    "an unknown section": SEARCH + "serch: {}\n",
    "an unknown key": SEARCH.replace("4}", "4, samplr: tpe}"),
    "an unknown path in run": "run: {recipe: digits, distillation: {alhpa: 2}}\nvariants: [kd]\n",
    "an unknown path in space": SEARCH.replace("alpha", "alhpa"),
    "an unknown distribution": SEARCH.replace("uniform", "unifrom"),
    "two distributions": SEARCH.replace("{uniform: [1, 2]}", "{uniform: [1, 2], choice: [1]}"),
    "no distribution": SEARCH.replace("{uniform: [1, 2]}", "{}"),
    "one bound": SEARCH.replace("[1, 2]", "[1]"),
    "words as bounds": SEARCH.replace("[1, 2]", "[one, two]"),
    "an empty choice": SEARCH.replace("uniform: [1, 2]", "choice: []"),
    "a word for a number": "run: {recipe: digits, optimizer: {lr: fast}}\nvariants: [kd]\n",
    "a misspelt word": "run: {recipe: digits, distillation: {mask: detatch}}\nvariants: [kd]\n",
    "a value out of range": "run: {recipe: digits, distillation: {keep: {other: 2}}}\nvariants: [kd]\n",
    "a bad value in a variant": "run: {recipe: digits}\nvariants: {hot: {distillation.temperature: -1}}\n",
    "a name that stands for nothing": "run: {recipe: digits}\nvariants: [kdd]\n",
    "an unknown sampler": SEARCH.replace("4}", "4, sampler: tpee}"),
    "no seeds": ABLATION + "seeds: 0\n",
    "an unknown scheduler": SEARCH + "scheduler: ahsa\n",
    "a section as a word": SEARCH.replace("{trials: 4}", "tpe"),
    "a list at the top": "- run\n",
}


@pytest.mark.parametrize("text", RIGHT.values(), ids=RIGHT.keys())
def test_it_accepts_what_the_loader_accepts(text: str) -> None:
    spec_of(text)
    assert accepts(text)


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_it_rejects_what_the_loader_rejects(text: str) -> None:
    assert problems_of(text)
    assert not accepts(text)
