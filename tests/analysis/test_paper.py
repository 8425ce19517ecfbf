"""A sweep as the paper's tables: every trial in its cell by what it is, published figures in cells of their own."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.analysis.paper_sweeps import ends, space, sweep_of, with_params
from tests.spec.helpers import run_command
from tests.sweep.fakes import conductor_of, play, spec_of
from wsl_sweep.analysis import Record, SweepRecords, records_of
from wsl_sweep.analysis.paper import FORMATS, LAYOUTS, PaperTable, set_out
from wsl_sweep.analysis.paper.formats import below, cell_text
from wsl_sweep.analysis.paper.model import Cell, Line
from wsl_sweep.analysis.records import declared
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.plan import Trial
from wsl_sweep.spec.recipes import CIFAR100_PAIRS

TABLES = [1, 2, 3, 5, 6, 7, 8, 9, 10]
"""Those on CIFAR-100, which digits stand in for."""
WRN = "cifar100/wrn_40_2-wrn_16_2"
FILES = {number: layout.file for number, layout in LAYOUTS.items()}


def line_of(table: PaperTable, *labels: str, part: int = 0, settings: str | None = None) -> Line:
    """The one line of these labels."""
    lines = [line for line in table.parts[part].lines if line.labels[: len(labels)] == labels]
    (found,) = [line for line in lines if settings is None or line.settings == settings]
    return found


def texts(line: Line) -> list[str]:
    return [cell_text(cell) for cell in line.cells]


def cells_of(table: PaperTable, *, published: bool) -> list[tuple[Line, Cell]]:
    return [(line, cell) for line in table.lines for cell in line.cells if cell.published == published]


def footnotes_of(table: PaperTable, cell: Cell) -> list[str]:
    return [table.footnotes[letter] for letter in cell.marks]


def beyond(table: PaperTable) -> list[str]:
    return [row.label for row in table.beyond]


# --- the files of search_spaces/ -------------------------------------------------------------------------------------

NOT_IN_THE_TABLE = {
    1: [],
    2: [],
    3: [],
    5: ["ce"],
    6: ["ce"],
    7: [],
    8: ["ce", "kd"],
    9: [],
    10: ["wsl alpha=0.5", "wsl alpha=1.5"]
    + [f"kd alpha={alpha}" for alpha in ("0.5", "1", "1.5", "2", "2.25", "2.5", "3", "4")],
}


@pytest.mark.parametrize("recipe", [None, WRN, "cifar100/resnet56-resnet20"])
@pytest.mark.parametrize("number", TABLES)
def test_each_file_fills_every_cell_of_its_table(number: int, recipe: str | None) -> None:
    table = set_out(number, sweep_of(space(FILES[number]), recipe=recipe, seeds=2))
    absent = set()
    if number == 8 and recipe:  # the paper's other pairs
        pair = recipe.removeprefix("cifar100/").replace("-", " → ")
        absent = {index for index, column in enumerate(table.columns) if column.text != pair}
        assert len(absent) == 2
    for line in table.lines:
        for index, cell in enumerate(line.cells):
            if not cell.published and index not in absent and line.labels != ("teacher",):
                shown = "50.00 ± 0.00" if cell.metric == "regularization_samples/fraction" else "91.00 ± 12.71"
                assert cell_text(cell) == shown, (line.labels, table.columns[index].text)
            if index in absent:
                assert cell_text(cell) == ""
    assert beyond(table) == NOT_IN_THE_TABLE[number]


def test_the_tables_are_all_those_of_the_paper() -> None:
    assert list(LAYOUTS) == list(range(1, 12))
    assert set(TABLES) == set(LAYOUTS) - {4, 11}
    sweep = sweep_of(space(FILES[3]), seeds=1)
    for number in (0, 12):
        with pytest.raises(WslSweepError, match=f"table {number}: the tables are 1, 2, 3, 4, .*, 11$"):
            set_out(number, sweep)


# --- which trial goes where ------------------------------------------------------------------------------------------


def test_halves_directions_and_probabilities_of_table_7() -> None:
    def value(trial: Trial) -> float:
        distillation = trial.config["distillation"]
        half = 0.5 if distillation["weighting"]["kind"] == "exp" else 0.0
        return half + 0.1 * distillation["keep"]["regularization"] + 0.01 * distillation["keep"]["other"]

    table = set_out(7, sweep_of(space(FILES[7]), value, seeds=2))
    assert [part.title for part in table.parts] == ["(a) soft labels (KD)", "(b) weighted soft labels (WSL)"]
    for part, half in ((0, 0.0), (1, 50.0)):
        for p in (0.0, 0.25, 0.5, 0.75, 1.0):
            line = line_of(table, f"{p:g}", part=part)
            assert texts(line)[0] == f"{half + 10 * p + 1:.2f} ± 0.00"
            assert texts(line)[2] == f"{half + 10 + p:.2f} ± 0.00"


def test_it_does_not_matter_what_variants_are_called() -> None:
    def settings(trial: Trial) -> float:
        distillation = trial.config["distillation"]
        return 0.5 + 0.1 * (distillation.get("mask") == "detach") + 0.2 * distillation.get("keep", {}).get("other", 0)

    theirs = """
    run: {recipe: digits, distillation: {method: kd, weighting: {kind: none}}}
    variants:
      zebra: {distillation.keep.other: 0.0}
      wsl2: {distillation.mask: detach}
      plain: {}
      b: {distillation.mask: renormalised}
      none: {distillation.method: none}
      c: {distillation.mask: drop_term}
      kd: {distillation.keep.regularization: 0.0}
    seeds: 5
    """
    mine, other = set_out(2, sweep_of(space(FILES[2]), settings)), set_out(2, sweep_of(theirs, settings))
    assert [texts(line) for line in mine.lines] == [texts(line) for line in other.lines]
    assert len({text for line in mine.lines for text in texts(line)}) > 3
    assert other.beyond == ()


def test_a_table_of_pairs_has_the_student_alone_in_each_pair_that_it_is_in() -> None:
    text = """
    run: {recipe: cifar100/resnet56-resnet20}
    variants: [ce, wsl]
    space: {recipe: {grid: [cifar100/resnet56-resnet20, cifar100/resnet110-resnet20]}}
    seeds: 2
    """
    table = set_out(3, sweep_of(text, lambda trial: 0.7 if trial.variants == ("ce",) else 0.8))
    assert [column.text for column in table.columns] == ["resnet56 → resnet20", "resnet110 → resnet20"]
    assert texts(line_of(table, "student alone")) == ["70.00 ± 0.00"] * 2
    assert texts(line_of(table, "weighted soft labels (WSL)")) == ["80.00 ± 0.00"] * 2
    assert texts(line_of(table, "soft labels (KD)")) == ["", ""]
    assert texts(line_of(table, "teacher, published")) == ["72.34", "74.31"]
    assert texts(line_of(table, "WSL, published")) == ["72.15", ""]
    assert texts(line_of(table, "WSL, run again by others")) == ["72.01", ""]


def test_what_the_sweep_has_not_is_an_empty_cell() -> None:
    text = """
    run: {recipe: digits}
    variants: {a: {distillation.weighting.kind: exp, distillation.keep.regularization: 0.5}}
    seeds: 2
    """
    table = set_out(7, sweep_of(text))
    assert texts(line_of(table, "0.5", part=1)) == ["91.00 ± 12.71", "", "", ""]
    filled = [line for line in table.lines if any(texts(line))]
    assert len(filled) == 1
    assert len(table.lines) == 10


def test_table_1_has_counts_beside_accuracy_and_a_line_for_what_was_not_run() -> None:
    text = """
    run: {recipe: digits}
    variants: [kd]
    space: {distillation.temperature: {grid: [4.0, 16.0, 2.0]}}
    seeds: 2
    """
    table = set_out(1, sweep_of(text))
    assert [line.labels for line in table.lines] == [
        (temperature, smoothed) for temperature in ("2", "4", "16") for smoothed in ("no", "yes")
    ]
    assert texts(line_of(table, "4", "no")) == ["50.00 ± 0.00", "", "91.00 ± 12.71", ""]
    assert texts(line_of(table, "4", "yes")) == [""] * 4


def test_several_settings_of_one_cell_make_several_lines() -> None:
    text = """
    run: {recipe: digits}
    variants: [kd, wsl]
    space: {distillation.alpha: {grid: [2.0, 10.0]}, teacher.label_smoothing: {grid: [0.1]}}
    seeds: 2
    """
    table = set_out(6, sweep_of(text, lambda trial: 0.05 * trial.config["distillation"]["alpha"]))
    assert [line.settings for line in table.lines] == ["", "alpha=2", "alpha=10"]
    assert texts(line_of(table, "yes, ε = 0.1", settings="alpha=2"))[:2] == ["10.00 ± 0.00"] * 2
    assert texts(line_of(table, "yes, ε = 0.1", settings="alpha=10"))[:2] == ["50.00 ± 0.00"] * 2


def test_settings_that_are_alike_when_rounded_are_still_two_lines() -> None:
    text = """
    run: {recipe: digits}
    variants: [wsl, kd]
    space: {distillation.alpha: {grid: [2.00001, 2.00002, 3]}}
    seeds: 2
    """
    table = set_out(3, sweep_of(text))
    said = [line.settings for line in table.lines if line.labels[0] == "weighted soft labels (WSL)"]
    assert said == ["alpha=2.00001", "alpha=2.00002", "alpha=3.0"]


def test_a_number_is_one_however_it_is_written() -> None:
    text = "run: {recipe: digits}\nvariants: {kd: , wsl: {distillation.alpha: 1}}\nseeds: 2"
    table = set_out(9, sweep_of(space(FILES[9]).replace("[1.0, 2.25, 4.0]", "[1, 4]"), seeds=2))
    assert [line.labels[1] for line in table.lines] == ["1", "4"] * 5
    sweep = sweep_of(text)
    whole = [with_params(record, distillation__alpha="1.0", seed="7") for record in sweep.records]
    other = [replace(record, trial_id=f"t{index}", seed=7) for index, record in enumerate(whole)]
    table = set_out(3, replace(sweep, records=(*sweep.records, *other)))
    assert [line.settings for line in table.lines] == [""] * len(table.lines)
    cell = line_of(table, "weighted soft labels (WSL)").cells[0]
    assert cell.row is not None
    assert cell.row.seeds == (0, 1, 7)


def test_recipes_that_share_a_cell_are_told_apart_by_their_names() -> None:
    text = """
    run: {recipe: digits}
    variants: {masked: {distillation: {method: kd, weighting: {kind: none}, mask: detach}}}
    space: {recipe: {grid: [digits, digits/convnet_24-convnet_3]}}
    seeds: 2
    """
    table = set_out(2, sweep_of(text))
    lines = [line for line in table.lines if line.labels[0] == "KD, masked: detach"]
    assert [line.settings for line in lines] == ["recipe=digits", "recipe=digits/convnet_24-convnet_3"]


def test_two_variants_that_are_the_same_stand_in_one_cell() -> None:
    text = "run: {recipe: digits}\nvariants: {ce: , mine: {distillation.method: none}, kd: , wsl: }\nseeds: 2"
    table = set_out(3, sweep_of(text))
    assert texts(line_of(table, "student alone")) == ["91.00 ± 12.71"]
    cell = line_of(table, "student alone").cells[0]
    assert cell.row is not None
    assert cell.row.label == "ce (= mine)"


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_one_seed_is_a_value_alone_and_is_marked() -> None:
    table = set_out(3, sweep_of(space(FILES[3]), seeds=1))
    cell = line_of(table, "soft labels (KD)").cells[0]
    assert cell_text(cell) == "90.00"
    assert footnotes_of(table, cell) == ["one seed, so no interval"]


def test_seeds_without_a_value_are_counted_in_a_footnote() -> None:
    def status(trial: Trial) -> str:
        lost = {"ce": {1: "failed", 2: "pruned"}, "kd": {0: "failed", 1: "failed", 2: "failed", 3: "failed"}}
        lost["wsl"] = dict.fromkeys((0, 1, 2), "failed")
        return lost[trial.variants[0]].get(trial.seed, "finished")

    table = set_out(3, sweep_of("run: {recipe: digits}\nvariants: [ce, kd, wsl]\nseeds: 4", status=status))
    found = {
        label: (cell_text(cell), footnotes_of(table, cell))
        for label in ("student alone", "soft labels (KD)", "weighted soft labels (WSL)")
        for cell in line_of(table, label).cells
    }
    assert found == {
        "student alone": ("91.00 ± 12.71", ["2 of 4 seeds: 1 failed, 1 pruned"]),
        "soft labels (KD)": ("", ["no value: 4 failed"]),
        "weighted soft labels (WSL)": ("92.00", ["one seed, so no interval; 3 failed"]),
    }


def test_what_was_not_evaluated_has_no_value_and_the_table_says_that_the_sweep_goes_on() -> None:
    def unevaluated(record: Record) -> Record:
        return replace(record, metrics={"validation/accuracy": 0.5})

    sweep = replace(sweep_of(space(FILES[3]), change=unevaluated), status="running")
    table = set_out(3, sweep)
    assert not any(cell_text(cell) for _, cell in cells_of(table, published=False))
    assert "no value: 3 without test/accuracy" in table.footnotes.values()
    assert any("is not at its end (running)" in note for note in table.notes)
    assert texts(line_of(set_out(3, sweep, "validation/accuracy"), "student alone"))[0] == "50.00 ± 0.00"


def test_what_a_search_has_tuned_is_marked() -> None:
    def tuned(record: Record) -> Record:
        places = tuple(replace(place, tuned=True) for place in record.standings)
        return replace(record, stage="confirm", arm="wsl", standings=places) if "wsl" in record.variants else record

    sweep = sweep_of("run: {recipe: digits}\nvariants: [kd, wsl]\nseeds: 2", change=tuned)
    searched = [
        replace(record, stage="search", trial_id=f"s{index}", standings=())
        for index, record in enumerate(sweep.records)
        if "wsl" in record.variants
    ]
    table = set_out(3, replace(sweep, records=(*sweep.records, *searched)))
    cell = line_of(table, "weighted soft labels (WSL)").cells[0]
    assert cell_text(cell) == "91.00 ± 12.71"
    assert footnotes_of(table, cell) == ["its settings were found by a search of 2 trials"]


# --- published figures -----------------------------------------------------------------------------------------------


def test_published_figures_stand_beside_ours_with_their_source_and_what_differs() -> None:
    table = set_out(3, sweep_of(space(FILES[3]), recipe=WRN))
    published = {line.labels[0]: cell for line, cell in cells_of(table, published=True)}
    assert {label: cell_text(cell) for label, cell in published.items()} == {
        "teacher, published": "75.61",
        "student alone, published": "73.26",
        "KD, published": "74.92",
        "AT, published": "74.08",
        "SP, published": "73.83",
        "VID, published": "74.11",
        "RKD, published": "73.35",
        "PKT, published": "74.54",
        "CRD, published": "75.48",
        "WSL, published": "",
    }
    source, differs, weights = footnotes_of(table, published["KD, published"])
    assert source == "RepDistiller's README, last epoch"
    assert differs == (
        "ours differs: 10 % of the pictures that are not for the test held out for validation; a teacher trained here"
    )
    assert weights == "0.1 CE + 0.9 KD; ours is 1 CE + 1 KD"
    assert footnotes_of(table, published["AT, published"]) == [source, differs]
    assert texts(line_of(table, "teacher")) == [""]
    assert "teacher list" in table.footnotes[line_of(table, "teacher").marks[0]]


def test_the_published_protocol_is_not_said_to_differ() -> None:
    text = "run: {recipe: digits}\nvariants: [ce, kd_repdistiller]\nseeds: 2"
    sweep = sweep_of(
        text, recipe=WRN, change=lambda record: with_params(record, part="train+validation", teacher__checkpoint="0123")
    )
    table = set_out(3, sweep)
    assert footnotes_of(table, line_of(table, "CRD, published").cells[0])[1:] == [
        "ours differs: a teacher that was brought in"
    ]
    assert len(footnotes_of(table, line_of(table, "KD, published").cells[0])) == 2


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("schedule.epochs=100", "schedule.epochs 100 in place of 240"),
        ("optimizer.nesterov=true", "optimizer.nesterov True in place of False"),
        ("dataset.padding_mode=reflect", "dataset.padding_mode reflect in place of zeros"),
        ("dataset.train_fraction=0.25", "25 % of the training part used"),
        ("dataset.label_noise=0.1", "10 % of the training labels replaced"),
        ("dataset.views=5", "5 views of a picture"),
        ("teacher.mode=train", "the teacher in train mode"),
        ("precision=bfloat16", "precision bfloat16"),
    ],
)
def test_a_setting_that_is_not_theirs_is_told(setting: str, said: str) -> None:
    table = set_out(3, sweep_of(space(FILES[3]), recipe=WRN, sets=(setting,)))
    differs = footnotes_of(table, line_of(table, "KD, published").cells[0])[1]
    assert f"; {said}" in differs
    plain = set_out(3, sweep_of(space(FILES[3]), recipe=WRN))
    assert said not in " ".join(plain.footnotes.values())


def test_that_a_teachers_largest_logits_alone_were_read_is_told() -> None:
    sweep = sweep_of(space(FILES[3]), recipe=WRN, change=lambda record: with_params(record, teacher__stored_top_k="20"))
    table = set_out(3, sweep)
    differs = footnotes_of(table, line_of(table, "KD, published").cells[0])[1]
    assert "; the 20 largest of a teacher's logits, the rest spread evenly" in differs


def test_the_papers_own_figures_are_of_a_recipe_of_their_own() -> None:
    table = set_out(3, sweep_of(space(FILES[3]), recipe="cifar100/resnet56-resnet20"))
    ours, users = (line_of(table, label).cells[0] for label in ("WSL, published", "WSL, run again by others"))
    assert (cell_text(ours), cell_text(users)) == ("72.15", "72.01")
    source, differs = footnotes_of(table, ours)
    assert source == "WSL's authors, quoted in issue 6 of the official repository"
    assert "optimizer.nesterov False in place of True" in differs
    assert "dataset.padding_mode zeros in place of reflect" in differs
    assert footnotes_of(table, users)[1] == "how they trained is not known"


@pytest.mark.parametrize("number", [1, 2, 5, 6, 7, 8, 9, 10])
def test_other_tables_have_what_another_source_verifies_and_say_that_the_papers_numbers_are_not_known(
    number: int,
) -> None:
    table = set_out(number, sweep_of(space(FILES[number]), recipe=WRN, seeds=2))
    known = {1: 1, 2: 2, 5: 1, 6: 1, 7: 2, 8: 1, 9: 3, 10: 0}
    found = [cell.figure for _, cell in cells_of(table, published=True) if cell.figure]
    assert len(found) == known[number]
    assert {figure.value for figure in found} <= {73.26, 74.92, 73.35}
    (said,) = [text for text in table.footnotes.values() if "nothing is verified" in text]
    assert f"the paper's own Table {number}:" in said
    assert any(cell.figure is None for _, cell in cells_of(table, published=True))


def test_a_figure_stands_beside_the_same_setting_only() -> None:
    table = set_out(1, sweep_of(space(FILES[1]), recipe=WRN, seeds=2))
    beside = [line.labels for line in table.lines if line.cells[3].figure]
    assert beside == [("4", "no")]
    table = set_out(10, sweep_of(space(FILES[10]), recipe="cifar100/resnet56-resnet20", seeds=2))
    assert [(line.labels, texts(line)[1]) for line in table.lines if line.cells[1].figure] == [(("2.25",), "72.15")]


@pytest.mark.parametrize("number", TABLES)
def test_no_figure_is_of_another_data_set_or_pair(number: int) -> None:
    for teacher, student in CIFAR100_PAIRS:
        table = set_out(number, sweep_of(space(FILES[number]), recipe=f"cifar100/{teacher}-{student}", seeds=1))
        for _, cell in cells_of(table, published=True):
            if cell.figure is not None and cell.figure.method != "S":
                assert (cell.figure.dataset, cell.figure.teacher, cell.figure.student) == ("cifar100", teacher, student)
            elif cell.figure is not None:
                assert (cell.figure.dataset, cell.figure.student) == ("cifar100", student)

    def tenfold(record: Record) -> Record:
        return with_params(record, dataset__name="cifar10")

    for sweep in (sweep_of(space(FILES[number])), sweep_of(space(FILES[number]), recipe=WRN, change=tenfold)):
        assert not any(cell.figure for _, cell in cells_of(set_out(number, sweep), published=True))


def test_digits_are_said_not_to_be_the_published_experiment() -> None:
    table = set_out(3, sweep_of(space(FILES[3])))
    (said,) = [note for note in table.notes if note.startswith("not the published experiment")]
    assert "digits in place of CIFAR-100" in said
    assert "30 % of the pictures that are not for the test held out" in said
    assert "40 % of the training part used" in said
    assert [line.labels[0] for line, _ in cells_of(table, published=True)] == ["WSL, published"] * 3
    assert not any("not the published" in note for note in set_out(3, sweep_of(space(FILES[3]), recipe=WRN)).notes)


def test_published_accuracies_do_not_stand_beside_another_metric() -> None:
    table = set_out(3, sweep_of(space(FILES[3]), recipe=WRN), "test/loss")
    assert texts(line_of(table, "soft labels (KD)")) == ["0.25 ± 0"]
    assert not any(cell.figure for _, cell in cells_of(table, published=True))
    assert "published figures are test/accuracy, so that none is beside test/loss" in table.notes


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2, 5, 6, 7, 8, 9, 10])
def test_a_sweep_with_nothing_of_the_table_is_told_what_it_takes(number: int) -> None:
    sweep = sweep_of("run: {recipe: digits}\nvariants: [ce, kd, dkd]\nseeds: 2")
    with pytest.raises(WslSweepError, match=rf"sweep has nothing of Table {number}: .*search_spaces/{FILES[number]}"):
        set_out(number, sweep)
    assert set_out(3, sweep).beyond[0].label == "dkd"


def test_alphas_that_the_paper_has_not_are_nothing_of_its_table() -> None:
    text = "run: {recipe: digits}\nvariants: [wsl]\nspace: {distillation.alpha: {grid: [0.5, 7.0]}}\nseeds: 2"
    with pytest.raises(WslSweepError, match="nothing of Table 10"):
        set_out(10, sweep_of(text))


def test_a_search_without_a_final_table_and_an_unknown_metric_are_refused() -> None:
    sweep = sweep_of("run: {recipe: digits}\nvariants: [kd]\nseeds: 1")
    searching = [replace(record, stage="search", standings=()) for record in sweep.records]
    with pytest.raises(WslSweepError, match="no final table yet"):
        set_out(3, replace(sweep, records=tuple(searching)))
    with pytest.raises(WslSweepError, match='did you mean "test/accuracy"'):
        set_out(3, sweep, "test/acuracy")


# --- formats ---------------------------------------------------------------------------------------------------------

HOSTILE = "=cmd|'x'!A1 <script>&[b](c) \\input{/etc/passwd} $x_1$ %~^#`"


def hostile() -> SweepRecords:
    """What another server might hold: names and models with everything that a format has a meaning for."""

    def change(record: Record) -> Record:
        places = tuple(replace(place, variant=f"{HOSTILE} {place.variant}\nx") for place in record.standings)
        changed = with_params(record, student__model=HOSTILE)
        if "teacher.model" in record.params:
            changed = with_params(changed, teacher__model=HOSTILE)
        return replace(changed, standings=places)

    text = "run: {recipe: digits}\nvariants: [ce, kd, wsl, dkd]\nseeds: 2"
    return replace(sweep_of(text, change=change), name=HOSTILE)


def test_markdown_has_one_table_whose_lines_are_of_one_width() -> None:
    text = FORMATS["markdown"](set_out(3, hostile()))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {3}
    assert "<script>" not in text
    assert r"\[b\](c)" in text
    assert "| soft labels (KD) | 91.00 ± 12.71 |" in text


def test_markdown_has_halves_and_footnotes() -> None:
    text = FORMATS["markdown"](set_out(7, sweep_of(space(FILES[7]), recipe=WRN, seeds=1)))
    assert "| **(b) weighted soft labels (WSL)** |  |  |  |  |" in text
    assert "| 1 | 90.00<sup>b</sup> | 74.92<sup>c, d, e</sup> | 90.00<sup>b</sup> | 74.92<sup>c, d, e</sup> |" in text
    marked = set(re.findall(r"<sup>([a-z, ]+)</sup>", text.split("\n- ")[0]))
    letters = {letter for marks in marked for letter in marks.split(", ")}
    assert letters == set(re.findall(r"^- <sup>([a-z]+)</sup>", text, re.MULTILINE))


def test_latex_has_nothing_unescaped() -> None:
    text = FORMATS["latex"](set_out(3, hostile()))
    assert r"\input" not in text
    assert r"\textbackslash{}input\{/etc/passwd\} \$x\_1\$" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert all(line.endswith(r" \\") and line.count(" & ") == 1 for line in body)
    assert text.isascii()


@pytest.mark.parametrize("number", TABLES)
def test_latex_is_a_table_with_booktabs(number: int) -> None:
    table = set_out(number, sweep_of(space(FILES[number]), recipe=WRN, seeds=2))
    text = FORMATS["latex"](table)
    assert text.isascii()
    (columns,) = re.findall(r"\\begin\{tabular\}\{(l+r+)\}", text)
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and not line.startswith(r"\multicolumn")]
    assert {line.count(" & ") for line in rows} == {len(columns) - 1}
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


@pytest.mark.parametrize("number", TABLES)
def test_csv_and_json_have_every_cell_unrounded(number: int) -> None:
    sweep = sweep_of(space(FILES[number]), lambda trial: ends(trial) / 3, recipe=WRN, seeds=2)
    table = set_out(number, sweep)
    data = json.loads(FORMATS["json"](table))
    cells = [cell for part in data["parts"] for row in part["rows"] for cell in row["cells"]]
    lines = list(csv.DictReader(io.StringIO(FORMATS["csv"](table))))
    assert len(cells) == sum(len(line.cells) for line in table.lines)
    assert len(lines) == len(cells) + len(table.beyond) == len(cells) + len(data["not_in_the_papers_table"])
    for cell, line in zip(cells, lines, strict=False):
        assert (line["value"] and float(line["value"])) == (cell["value"] if cell["value"] is not None else "")
        assert (line["column"], line["kind"]) == (cell["column"], cell["kind"])
        if cell["kind"] == "ours" and cell["metric"] == "test/accuracy" and cell["value"] is not None:
            assert cell["value"] == pytest.approx(91 / 3)
            assert cell["ci95"] == pytest.approx([91 / 3 - 12.7062 / 3, 91 / 3 + 12.7062 / 3], abs=1e-4)
            assert (cell["n"], cell["seeds"], len(cell["trials"])) == (2, [0, 1], 2)
        if cell["kind"] == "published" and cell["value"] is not None:
            assert line["source"] == cell["source"] == "RepDistiller's README, last epoch"


def test_a_csv_cell_is_never_a_formula() -> None:
    text = FORMATS["csv"](set_out(3, hostile()))
    assert not any(cell.startswith(("=", "+", "-", "@")) for line in csv.reader(io.StringIO(text)) for cell in line)


def test_what_stands_below_names_everything() -> None:
    table = set_out(10, sweep_of(space(FILES[10]), seeds=2))
    under = [f"{letter} {text}".strip() for letter, text in below(table)]
    assert "not in the paper's table: kd alpha=0.5: 91.00 ± 12.71" in under
    assert "ours: mean ± half of the 95 % t interval over 2 seeds, in percent" in under


# --- from a ledger and from MLflow -----------------------------------------------------------------------------------


def test_a_ledger_and_mlflow_make_the_same_table(tmp_path: Path, empty_database: Path) -> None:
    from wsl_sweep.analysis.from_mlflow import read_sweeps
    from wsl_sweep.sweep.ledger import Ledger
    from wsl_sweep.tracking import MlflowWriter, Tracking

    def result(trial: Trial) -> dict[str, object]:
        if trial.seed == 2:
            return {"status": "failed", "error": "why"}
        metrics = {"validation/accuracy": 0.5, "regularization_samples/fraction": 0.1 + trial.seed / 30}
        return {"status": "finished", "epochs": trial.epochs, "metrics": metrics, "seconds": 1.0}

    spec = spec_of(space(FILES[1]).replace("[1.0, 2.0, 4.0, 6.0]", "[4.0]"))
    conductor = conductor_of(spec, tmp_path)
    play(conductor, result)
    conductor.close("finished")
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}", "exp")
    sweep = {
        "name": spec.name,
        "uuid": "u",
        "description": "",
        "git_commit": "",
        "device": "cpu",
        "declared": declared(spec),
    }
    writer = MlflowWriter(tracking, sweep)
    writer.start()
    writer.bring_in_line(
        Ledger(tmp_path / "ledger").events(),
        lambda trial_id, attempt: [
            {
                "epoch": float(conductor.state.trials[trial_id].trial.epochs),
                "timestamp": 1.0,
                **conductor.state.trials[trial_id].metrics,
            }
        ],
    )
    assert writer.close("finished", 60), (writer.problem, writer.missing())
    (read,) = read_sweeps(tracking.uri, [spec.name])
    here, there = (set_out(1, one) for one in (records_of(spec, conductor.state, uuid="u"), read))
    for shape in FORMATS.values():
        assert shape(here) == shape(there)
    assert texts(line_of(here, "4", "no"))[2] == "80.00 ± 0.00"
    assert "2 of 3 seeds: 1 failed" in here.footnotes.values()


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_a_sweep_of_a_storage_in_each_format(tmp_path: Path) -> None:
    text = space(FILES[6])
    spec = spec_of(text)
    folder = tmp_path / "runs" / "mine"
    conductor = conductor_of(spec, folder)
    play(conductor)
    conductor.close("finished")
    (folder / "sweep.yaml").write_text(text)
    command_line = {"sets": [], "recipe": None, "trials": None, "seeds": None, "name": None}
    (folder / "plan.json").write_text(json.dumps({"uuid": "u", "command_line": command_line}))
    shown = run_command(tmp_path, "paper", "6", "mine")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.search(r"no +80\.00 ± 0\.00 +80\.00 ± 0\.00", shown.stdout)
    assert "[a] nothing is verified of the paper's own Table 6" in shown.stdout
    printed = run_command(tmp_path, "paper", "6", "mine", "--format", "json", "--metric", "test/accuracy")
    assert json.loads(printed.stdout)["sweep"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("4", "mine"), "no sweep in"),
        (("7", "mine"), "no sweep in"),
        (("7", "mine", "--format", "marcdown"), 'did you mean "markdown"?'),
    ],
)
def test_the_command_ends_with_2_where_something_is_asked_for_that_is_not_there(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    done = run_command(tmp_path, "paper", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
