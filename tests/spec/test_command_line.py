"""What a user may say on the command line about a file, and what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wsl_sweep.spec.plan import ablation_cells

from .helpers import ABLATION, SEARCH, problems_of, run_command, spec_of, text_of

CONFIRMED = SEARCH + "confirm: {seeds: 3}\n"


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr", 0.001),
        ("optimizer.lr=1", "optimizer.lr", 1),
        ("optimizer.nesterov=true", "optimizer.nesterov", True),
        ("distillation.weighting.kind=exp", "distillation.weighting.kind", "exp"),
        ("distillation.weighting={kind: exp}", "distillation.weighting.kind", "exp"),
        ("schedule.milestones=[10, 20]", "schedule.milestones", [10, 20]),
        ("schedule.milestones=[]", "schedule.milestones", []),
        ("run.schedule.epochs=3", "schedule.epochs", 3),
        (" schedule.epochs = 3 ", "schedule.epochs", 3),
        ("dataset.views=all", "dataset.views", "all"),
        ("dataset.views=2", "dataset.views", 2),
    ],
)
def test_a_value_of_set_has_the_type_that_it_has_in_a_file(text: str, path: str, value: Any) -> None:
    pins = spec_of(SEARCH, sets=(text,)).pins
    assert pins == {path: value}
    assert type(pins[path]) is type(value)


def test_set_may_be_repeated_and_the_last_one_wins() -> None:
    spec = spec_of(SEARCH, sets=("optimizer.lr=1", "schedule.epochs=3", "optimizer.lr=2"))
    assert spec.pins == {"optimizer.lr": 2, "schedule.epochs": 3}


def test_set_pins_a_swept_path_and_says_so() -> None:
    text = """
        run: {recipe: digits}
        space:
          distillation.temperature: {grid: [2, 4]}
          distillation.alpha: {grid: [1, 2]}
        variants: [kd]
        seeds: 1
        """
    spec = spec_of(text, sets=("distillation.temperature=8",))
    assert list(spec.space) == ["distillation.alpha"]
    (note,) = spec.notes
    assert "--set" in note
    assert "distillation.temperature" in note
    assert "8" in note
    temperatures = {cell.trials[0].config["distillation"]["temperature"] for cell in ablation_cells(spec)}
    assert temperatures == {8}
    assert spec_of(text).notes == ()


def test_set_says_so_where_it_pins_what_a_variant_sets_and_the_variant_does_not_claim_it() -> None:
    spec = spec_of(
        "run: {recipe: digits}\nvariants: {hot: {distillation.temperature: 8}}\nseeds: 1\n",
        sets=("distillation.temperature=2",),
    )
    assert any("distillation.temperature" in note for note in spec.notes)
    (cell,) = ablation_cells(spec)
    assert cell.overrides.get("distillation.temperature") in (None, 2)


@pytest.mark.parametrize(
    ("text", "path", "what"),
    [
        ("distillation.alhpa=2", "--set distillation.alhpa", 'did you mean "distillation.alpha"?'),
        ("optimizer.lr=fast", "--set optimizer.lr", "must be a number, not 'fast'"),
        ("optimizer.lr=-1", "--set optimizer.lr", "must be above 0"),
        ("optimizer.lr=", "--set optimizer.lr", "must be a number, not nothing"),
        ("optimizer.lr=[1, ", "--set optimizer.lr=[1, ", "not valid YAML"),
        ("optimizer.lr", "--set optimizer.lr", "must be path=value, like distillation.alpha=2"),
        ("=3", "--set =3", "must be path=value"),
        ("student.model=convnet_5", "--set student.model", 'no model is called "convnet_5"'),
        ("distillation.weighting=exp", "--set distillation.weighting", "is a section; write distillation.weighting"),
        ("distillation.weighting={kid: exp}", "--set distillation.weighting.kid", "did you mean"),
        ("recipe=digit", "--set recipe", 'did you mean "digits"?'),
        ("teacher.smoothing=all", "--set teacher.smoothing", "read where teacher.label_smoothing is above 0"),
    ],
)
def test_a_mistake_in_set_is_reported_without_a_line(text: str, path: str, what: str) -> None:
    (problem,) = problems_of(SEARCH, sets=(text,))
    assert (problem.line, problem.path) == (None, path)
    assert what in problem.what


def test_recipe_takes_the_place_of_the_files() -> None:
    assert spec_of("variants: [kd]\n", recipe="digits").recipe == "digits"
    (problem,) = problems_of(ABLATION, recipe="digit")
    assert (problem.line, problem.path) == (None, "--recipe")
    assert problem.what == 'no recipe is called "digit"; did you mean "digits"?'


def test_trials_are_those_of_a_search() -> None:
    spec = spec_of(SEARCH, trials=9)
    assert spec.search is not None
    assert spec.search.trials == 9
    spec = spec_of(SEARCH.replace("{trials: 4}", "{sampler: random}"), trials=9)
    assert spec.search is not None
    assert spec.search.trials == 9
    (problem,) = problems_of(ABLATION, trials=9)
    assert (problem.line, problem.path) == (None, "--trials")
    assert "see --seeds" in problem.what


def test_seeds_are_those_of_confirm_or_of_an_ablation() -> None:
    assert spec_of(ABLATION + "seeds: [5]\n", seeds=2).seeds == (0, 1)
    confirm = spec_of(CONFIRMED, seeds=2).confirm
    assert confirm is not None
    assert confirm.seeds == 2
    (problem,) = problems_of(SEARCH, seeds=2)
    assert (problem.line, problem.path) == (None, "--seeds")
    assert "nothing to repeat" in problem.what


@pytest.mark.parametrize("option", ["trials", "seeds"])
@pytest.mark.parametrize("number", [0, -3])
def test_there_is_one_of_each_at_least(option: str, number: int) -> None:
    (problem,) = problems_of(CONFIRMED, **{option: number})
    assert (problem.line, problem.path) == (None, f"--{option}")
    assert problem.what == f"must be 1 or more, not {number}"


@pytest.mark.parametrize("name", ["a b", "", "../up", "-rf", ".hidden", "a/b", "x" * 101])
def test_a_bad_name_is_reported(name: str) -> None:
    (problem,) = problems_of(ABLATION, name=name)
    assert (problem.line, problem.path) == (None, "--name")
    assert repr(name) in problem.what


def test_a_good_name_takes_the_place_of_a_bad_one() -> None:
    assert spec_of("name: a b" + ABLATION, name="a-b_1.2").name == "a-b_1.2"


# --- as a command ----------------------------------------------------------------------------------------------------


def test_a_plan_tells_what_would_run_and_what_is_pinned_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "alpha.yaml").write_text(text_of(CONFIRMED), encoding="utf-8")
    arguments = ("plan", "alpha.yaml", "--trials", "7", "--seeds", "2", "--set", "optimizer.lr=0.2")
    done = run_command(tmp_path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {tuple(line.split()[:3]) for line in done.stdout.splitlines()}
    assert {("trials,", "search", "7"), ("trials,", "confirm", "2"), ("teachers", "1", "0")} <= rows
    pinned = run_command(tmp_path, "run", "alpha.yaml", "--dry-run", "--set", "distillation.alpha=2")
    assert pinned.returncode == 0
    assert "note: --set pins distillation.alpha at 2; the file sweeps it" in pinned.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["alpha.yaml"]


def test_a_file_that_is_not_there_is_a_line_and_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "alpha.yaml").write_text(text_of(SEARCH), encoding="utf-8")
    done = run_command(tmp_path, "run", "alhpa.yaml")
    assert done.returncode == 2
    assert done.stderr == 'wsl-sweep: alhpa.yaml: no such file; did you mean "alpha.yaml"?\n'


@pytest.mark.parametrize("arguments", [("--trials", "many"), ("--sets", "a=1"), ("--set",)])
def test_an_option_that_is_none_ends_with_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "alpha.yaml").write_text(text_of(SEARCH), encoding="utf-8")
    done = run_command(tmp_path, "run", "alpha.yaml", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert arguments[0] in done.stderr
