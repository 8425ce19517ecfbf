"""The paper's tables on ImageNet (4, 10c) and MultiNLI (11): the sweeps never ran, their metrics are made up."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from tests.analysis.paper_sweeps import ends, space, sweep_of, with_params
from tests.analysis.test_paper import beyond, cells_of, footnotes_of, line_of, texts
from wsl_sweep.analysis import Record, SweepRecords
from wsl_sweep.analysis.paper import FORMATS, set_out
from wsl_sweep.analysis.paper.formats import title
from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.plan import Trial
from wsl_sweep.spec.recipes import IMAGENET_PAIRS, RECIPES

R34, R50 = "imagenet/resnet34-resnet18", "imagenet/resnet50-mobilenetv1"
PAIR_34, PAIR_50 = "torchvision:resnet34 → torchvision:resnet18", "torchvision:resnet50 → mobilenetv1"
VARIANTS = "variants: {ce: , kd: , wsl: {distillation.alpha: 2.5}}\nseeds: 2\n"


def by_method(trial: Trial) -> float:
    """Top-1 by what the trial is, 0.02 apart over two seeds."""
    kind = trial.config["distillation"].get("weighting", {}).get("kind")
    return {None: 0.5, "none": 0.6, "exp": 0.7}[kind] + ends(trial) - 0.9


def imagenet(recipe: str, text: str = VARIANTS, *sets: str, **changes: str) -> SweepRecords:
    """A sweep on ImageNet, whose top-5 is 0.1 above its top-1."""

    def top_5(record: Record) -> Record:
        metrics = {**record.metrics, "test/top5_accuracy": record.metrics["test/accuracy"] + 0.1}
        return with_params(replace(record, metrics=metrics), **changes)

    text = text if "run:" in text else f"run: {{recipe: {recipe}}}\n{text}"
    return sweep_of(text, by_method, change=top_5, sets=("dataset.root=pictures", *sets))


def mnli(text: str = VARIANTS) -> SweepRecords:
    """A sweep on MultiNLI, better by 0.01 on the matched dev set and worse by 0.01 on the other."""

    def two_sets(record: Record) -> Record:
        both = record.metrics["test/accuracy"]
        return replace(
            record,
            metrics={**record.metrics, "test/accuracy_matched": both + 0.01, "test/accuracy_mismatched": both - 0.01},
        )

    return sweep_of(f"run: {{recipe: mnli/bert-t3, dataset.root: glue}}\n{text}", by_method, change=two_sets)


# --- table 4 ---------------------------------------------------------------------------------------------------------


def test_table_4_has_top_1_and_top_5_of_a_pair_and_what_is_published_of_it() -> None:
    table = set_out(4, imagenet(R34))
    assert [column.text for column in table.columns] == [PAIR_34, f"{PAIR_34}, top-5"]
    assert {line.labels[0]: texts(line) for line in table.lines} == {
        "teacher": ["", ""],
        "student alone": ["51.00 ± 12.71", "61.00 ± 12.71"],
        "soft labels (KD)": ["61.00 ± 12.71", "71.00 ± 12.71"],
        "weighted soft labels (WSL)": ["71.00 ± 12.71", "81.00 ± 12.71"],
        "teacher, published": ["73.31", ""],
        "student alone, published": ["69.75", ""],
        "KD, run by others: mmrazor": ["71.81", ""],
        "KD, run by others: torchdistill": ["71.37", ""],
        "WSL, published": ["72.04", ""],
        "WSL, run again by others: mmrazor": ["71.54", ""],
    }
    assert beyond(table) == []
    assert title(table).endswith("(sweep, test/accuracy, %)")


def test_the_second_pair_has_its_own_figures_and_none_of_the_first() -> None:
    table = set_out(4, imagenet(R50))
    found = {line.labels[0]: texts(line)[0] for line, cell in cells_of(table, published=True)}
    assert found == {"teacher, published": "76.16", "student alone, published": "68.87", "WSL, published": "71.52"}


def test_both_pairs_stand_side_by_side() -> None:
    text = f"variants: [ce, wsl]\nseeds: 2\nspace: {{recipe: {{grid: [{R34}, {R50}]}}}}\n"
    table = set_out(4, imagenet(R34, text))
    assert [column.text for column in table.columns] == [
        PAIR_34, f"{PAIR_34}, top-5", PAIR_50, f"{PAIR_50}, top-5",
    ]  # fmt: skip
    assert texts(line_of(table, "WSL, published")) == ["72.04", "", "71.52", ""]
    assert texts(line_of(table, "student alone")) == ["51.00 ± 12.71", "61.00 ± 12.71"] * 2


def test_what_differs_from_the_released_code_is_told() -> None:
    table = set_out(4, imagenet(R34))
    source, differs, epoch = footnotes_of(table, line_of(table, "WSL, published").cells[0])
    assert source == "official README of WSL's repository"
    assert differs == (
        "ours differs: 2 % of the pictures that are not for the test held out for validation; "
        "schedule.epochs 100 in place of 101; the teacher in eval mode"
    )
    assert "best epoch" in epoch
    for label in ("KD, run by others: mmrazor", "WSL, run again by others: mmrazor"):
        found = footnotes_of(table, line_of(table, label).cells[0])
        assert found == ["mmrazor's re-run", "how they trained is not known"]


def test_the_papers_own_settings_are_not_said_to_differ() -> None:
    as_theirs = ("teacher.mode=train", "schedule.epochs=101")
    table = set_out(4, imagenet(R34, VARIANTS, *as_theirs, part="train+validation", precision="float32"))
    assert footnotes_of(table, line_of(table, "WSL, published").cells[0])[1:] == [
        "theirs is the best epoch's on the test set, ours the last one's"
    ]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("schedule.batch_size=128", "schedule.batch_size 128 in place of 256"),
        ("optimizer.weight_decay=0.0005", "optimizer.weight_decay 0.0005 in place of 0.0001"),
        ("dataset.size=160", "dataset.size 160 in place of 224"),
        ("dataset.views=4", "4 views of a picture"),
        ("teacher.checkpoint=none", "a teacher trained here"),
        ("dataset.train_fraction=0.1", "10 % of the training part used"),
    ],
)
def test_a_setting_that_is_not_theirs_is_told(setting: str, said: str) -> None:
    cell = line_of(set_out(4, imagenet(R34, VARIANTS, setting)), "WSL, published").cells[0]
    differs = footnotes_of(set_out(4, imagenet(R34, VARIANTS, setting)), cell)[1]
    assert f"; {said}" in differs
    plain = set_out(4, imagenet(R34))
    assert said not in " ".join(plain.footnotes.values())


def test_the_stand_in_has_no_figures_and_is_said_not_to_be_the_experiment() -> None:
    table = set_out(4, imagenet("imagenet/tiny"))
    assert texts(line_of(table, "soft labels (KD)")) == ["61.00 ± 12.71", "71.00 ± 12.71"]
    assert not any(cell.figure for _, cell in cells_of(table, published=True))
    (said,) = [note for note in table.notes if note.startswith("not the published experiment")]
    assert "a teacher trained here" in said
    assert "4 views of a picture" in said
    assert "in place of" not in said
    assert any("any folder in ImageNet's layout" in note for note in table.notes)


def test_its_own_file_fills_table_4_and_the_third_part_of_table_10() -> None:
    sweep = imagenet(R34, space("imagenet_alpha.yaml"), f"recipe={R34}")
    four, ten = set_out(4, sweep), set_out(10, sweep)
    wsl = [line for line in four.lines if line.labels[0] == "weighted soft labels (WSL)"]
    assert [line.settings for line in wsl] == ["alpha=1.5", "alpha=2.5", "alpha=3.5"]
    assert all(texts(line) == ["71.00 ± 12.71", "81.00 ± 12.71"] for line in wsl)
    (part,) = ten.parts
    assert part.title == "(c) on ImageNet"
    assert {line.labels[0]: texts(line) for line in part.lines} == {
        "1.5": ["71.00 ± 12.71", ""],
        "2.5": ["71.00 ± 12.71", "72.04"],
        "3.5": ["71.00 ± 12.71", ""],
    }
    assert len(beyond(ten)) == 2


def test_table_10_has_three_parts_where_a_sweep_has_both_data_sets() -> None:
    text = "variants: {wsl: {distillation.alpha: 2.5}}\nseeds: 1\nspace: {recipe: {grid: [digits, imagenet/tiny]}}\n"
    table = set_out(10, imagenet("imagenet/tiny", text))
    assert [part.title[:3] for part in table.parts] == ["(a)", "(b)", "(c)"]
    assert texts(line_of(table, "2.5", part=1))[0] == texts(line_of(table, "2.5", part=2))[0] == "70.00"
    assert any("digits in place of CIFAR-100 and ImageNet" in note for note in table.notes)


def test_every_pair_of_the_paper_has_a_recipe_and_its_figures() -> None:
    for teacher, student in IMAGENET_PAIRS:
        name = "-".join(model.removeprefix("torchvision:") for model in (teacher, student))
        values = RECIPES[f"imagenet/{name}"].values
        assert (values["teacher.model"], values["student.model"]) == (teacher, student)
        table = set_out(4, imagenet(f"imagenet/{name}"))
        assert texts(line_of(table, "WSL, published"))[0] != ""


# --- table 11 --------------------------------------------------------------------------------------------------------


def test_table_11_has_both_dev_sets_and_empty_cells_for_what_nobody_verified() -> None:
    table = set_out(11, mnli())
    assert [column.text for column in table.columns] == [
        "bert_base → bert_t3, matched",
        "bert_base → bert_t3, mismatched",
    ]
    assert {line.labels[0]: texts(line) for line in table.lines} == {
        "teacher": ["", ""],
        "student alone": ["52.00 ± 12.71", "50.00 ± 12.71"],
        "soft labels (KD)": ["62.00 ± 12.71", "60.00 ± 12.71"],
        "weighted soft labels (WSL)": ["72.00 ± 12.71", "70.00 ± 12.71"],
        "teacher, published": ["", ""],
        "student alone, published": ["", ""],
        "KD, published": ["", ""],
        "WSL, published": ["", ""],
    }
    assert any("nothing is verified of the paper's own Table 11" in text for text in table.footnotes.values())
    assert title(table).endswith("(sweep, test/accuracy_matched, test/accuracy_mismatched, %)")
    (said,) = [note for note in table.notes if note.startswith("not the published experiment")]
    assert "pairs of sentences that are not for the test held out for validation" in said
    assert "in place of" not in said


@pytest.mark.parametrize("shape", list(FORMATS))
def test_both_tables_have_every_format(shape: str) -> None:
    for table in (set_out(4, imagenet(R34)), set_out(11, mnli())):
        text = FORMATS[shape](table)
        assert "61.00" in text or "62.00" in text or shape in ("csv", "json")
        if shape == "json":
            cells = [cell for part in json.loads(text)["parts"] for row in part["rows"] for cell in row["cells"]]
            assert {cell["unit"] for cell in cells} == {"percent"}
            assert len({cell["metric"] for cell in cells}) == 2
        if shape == "csv":
            lines = list(csv.DictReader(io.StringIO(text)))
            assert {line["metric"] for line in lines} == {cell.metric for line in table.lines for cell in line.cells}


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "file"), [(4, "imagenet_alpha.yaml"), (11, "mnli_wsl.yaml")])
def test_a_sweep_on_other_data_is_told_what_the_table_takes(number: int, file: str) -> None:
    with pytest.raises(WslSweepError, match=rf"nothing of Table {number}: .* on dataset \w+; search_spaces/{file}"):
        set_out(number, sweep_of("run: {recipe: digits}\nvariants: [ce, kd, wsl]\nseeds: 1"))


def test_another_metric_has_no_figures() -> None:
    table = set_out(4, imagenet(R34), "test/loss")
    assert texts(line_of(table, "soft labels (KD)"))[0] == "0.25 ± 0"
    assert not any(cell.figure for _, cell in cells_of(table, published=True))
