"""A user's own task: what it may leave to us, what is wrong with it in one message, and what is the same every time."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from wsl_sweep.data import load, some_inputs
from wsl_sweep.data.dataset import forget, load_test
from wsl_sweep.data.own_task import make_task, try_task
from wsl_sweep.data.task import Task, measured_by, taken_by
from wsl_sweep.errors import TrialError, WslSweepError
from wsl_sweep.training.metrics import part_metrics

HEAD = """
import numpy as np
import torch
from wsl_sweep.data import Task


class Good(Task):
    num_classes, in_channels = 3, 2
    labels = [row % 3 for row in range(60)]

    def take(self, rows, views):
        return torch.stack([rows.float(), views.float()], dim=1)

"""
CONFIG = {"validation_fraction": 0.25, "train_fraction": 1.0, "label_noise": 0.0, "views": "all"}

Write = Callable[..., str]
_numbers = itertools.count()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module of a user's: its task ``Own``, a ``Good`` but for what it says; gives the task's name."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    def written(inside: str = "pass", base: str = "Good") -> str:
        module = f"users_tasks_{next(_numbers)}"
        body = textwrap.indent(textwrap.dedent(inside).strip("\n"), "    ")
        (tmp_path / f"{module}.py").write_text(f"{HEAD}\nclass Own({base}):\n{body}\n")
        return f"{module}:Own"

    yield written
    forget()


# --- what it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        "[row % 3 for row in range(60)]",
        "np.arange(60, dtype=np.int32) % 3",
        "torch.arange(60, dtype=torch.uint8) % 3",
        "tuple(np.arange(60) % 3)",
    ],
)
def test_labels_of_any_whole_numbers_are_taken(write: Write, labels: str) -> None:
    task = make_task(write(f"labels = {labels}"), None)
    assert task.labels.dtype == torch.int64
    assert task.labels.tolist() == [row % 3 for row in range(60)]


def test_it_is_given_the_root_if_it_takes_one(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write("def __init__(self, root): self.notes = (str(root),)")
    assert make_task(name, "/data").notes == ("/data",)
    assert make_task(name, None).notes == ("None",)
    assert make_task(write(), "/data").notes == ()
    monkeypatch.setenv("MY_DATA", "/there")
    assert make_task(name, "${MY_DATA}/x").notes == ("/there/x",)


def test_making_it_leaves_random_states_alone(write: Write) -> None:
    name = write("def __init__(self): torch.manual_seed(5); np.random.seed(5); torch.rand(3)")
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    make_task(name, None)
    assert torch.equal(torch.rand(2), expected)


def test_its_parts_are_split_off_by_class(write: Write) -> None:
    config = {"name": write(), **CONFIG}
    data, test = load(config), load_test(config)
    assert (len(data.train), len(data.validation), len(test)) == (36, 12, 12)
    assert not {*data.train.ids.tolist()} & {*data.validation.ids.tolist()}
    assert torch.equal(data.train.views.plain(torch.arange(3))[:, 0].long(), data.train.ids[:3])
    assert (data.num_classes, data.in_channels) == (3, 2)


def test_its_own_test_part_and_groups_are_taken(write: Write) -> None:
    name = write(
        """
        test = np.array([59, 3, 4])
        test_groups = {"odd": [3, 59], "even": [4]}
        def metrics(self, logits, labels): return {"first": logits[0, 0], "count": len(labels)}
        """
    )
    test = load_test({"name": name, **CONFIG})
    assert test.ids.tolist() == [3, 4, 59]
    logits = torch.eye(3)[torch.tensor([0, 0, 2])]  # of labels 0, 1, 2
    found = part_metrics(logits, test, "test")
    assert found["test/accuracy_odd"] == 1.0
    assert found["test/accuracy_even"] == 0.0
    assert (found["test/first"], found["test/count"]) == (1.0, 3.0)
    data = load({"name": name, **CONFIG})
    validation = part_metrics(torch.zeros(len(data.validation), 3), data.validation, "validation")
    assert {*validation} == {f"validation/{metric}" for metric in ("accuracy", "loss", "ece", "first", "count")}


def test_views_are_drawn_for_training_only_and_may_be_fixed(write: Write) -> None:
    config = {"name": write("views = 4"), **CONFIG}
    train = load(config).train
    drawn = train.draw_views(torch.Generator().manual_seed(0))
    assert {*drawn.tolist()} == {0, 1, 2, 3}
    assert torch.equal(train.views.take(torch.arange(len(train)), drawn)[:, 1].long(), drawn)
    assert load(config).validation.views.count == 1
    fixed = load({**config, "views": 2}).train.fixed_views
    assert fixed is not None
    assert fixed.shape == (36, 2)


@pytest.mark.parametrize(
    ("taken", "dtype", "shape"),
    [
        ("rows", torch.int64, (2,)),
        ("rows[:, None].expand(-1, 5).to(torch.int32)", torch.int32, (2, 5)),
        ("torch.ones(len(rows), 1, 4, 6)", torch.float32, (2, 1, 4, 6)),
        ("rows[:, None, None] > 3", torch.bool, (2, 1, 1)),
    ],
)
def test_inputs_have_any_shape_and_dtype(write: Write, taken: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    name = write(f"def take(self, rows, views): return {taken}")
    assert try_task(name, None) == ()
    inputs = some_inputs({"name": name})
    assert (inputs.dtype, tuple(inputs.shape)) == (dtype, shape)
    assert len(make_task(name, None).digest) == 64


def test_inputs_are_fresh_tensors_of_one_layout(write: Write) -> None:
    name = write(
        """
        pictures = torch.arange(60 * 4, dtype=torch.float32).reshape(2, 2, 60, 1).permute(2, 3, 0, 1)
        def take(self, rows, views): return self.pictures if len(rows) == 60 else self.pictures[rows]
        """
    )
    task = make_task(name, None)
    inputs = task.inputs({}, torch.arange(60), "cpu", training=True)
    whole = inputs.plain(torch.arange(60))
    assert whole.stride() == torch.empty(60, 1, 2, 2, memory_format=torch.channels_last).stride()
    expected = whole[3].clone()
    whole.zero_()
    assert torch.equal(inputs.plain(torch.tensor([3]))[0], expected)


def test_the_digest_follows_labels_and_inputs(write: Write) -> None:
    first = make_task(write(), None).digest
    assert make_task(write(), None).digest == first
    assert make_task(write("labels = [0, 1, 2] * 19 + [0, 1, 1]"), None).digest != first
    assert make_task(write("def take(self, rows, views): return torch.ones(len(rows), 2)"), None).digest != first


def test_the_digest_follows_the_test_part_in_whatever_order_it_is_told(write: Write) -> None:
    tests = ("None", "[3, 4, 59]", "[59, 3, 4]", "[3, 4, 58]")
    none, one, same, other = (make_task(write(f"test = {rows}"), None).digest for rows in tests)
    assert one == same
    assert len({none, one, other}) == 3


def test_what_a_bank_goes_by_follows_the_code(write: Write) -> None:
    facts = [
        make_task(write(text), None).inputs({}, torch.arange(4), "cpu", training=True).facts()
        for text in ("views = 3", "views = 3\n\ndef other(self): ...")
    ]
    assert facts[0]["count"] == 3
    assert facts[0]["code"] not in (None, facts[1]["code"])


# --- what is wrong with it -------------------------------------------------------------------------------------------

WRONG = [
    ("labels = None", "labels must be"),
    ("labels = torch.zeros(60)", "labels must be whole numbers, not float32"),
    ("labels = ['a', 'b']", "labels must be whole numbers, (N,): TypeError"),
    ("labels = [[0, 1]]", "labels must have one dimension, (N,), not (1, 2)"),
    ("labels = []", "labels are empty"),
    ("labels = [0, 1, 3]", "labels[2] is 3, and not a class, 0 to 2 of num_classes = 3"),
    ("labels = [0, -1, 1]", "labels[1] is -1, and not a class"),
    ("num_classes = 1", "num_classes must be a whole number of 2 or more, not 1"),
    ("num_classes = '3'", "num_classes must be a whole number of 2 or more, not '3'"),
    ("in_channels = 0", "in_channels must be a whole number of 1 or more, not 0"),
    ("views = 0", "views must be a whole number of 1 or more, not 0"),
    ("views = True", "views must be a whole number of 1 or more, not True"),
    ("test = [0, 60]", "test[1] is 60, and not a row, 0 to 59"),
    ("test = [4, 2, 4]", "test has row 4 twice"),
    ("test = torch.ones(60, dtype=torch.bool)", "test must be whole numbers, not bool"),
    ("test_fraction = 1.5", "test_fraction must be a number in [0, 1), not 1.5"),
    ("test = [1]; test_groups = {'a': [1, 2]}", 'test_groups["a"] has row 2, which is not in the test part'),
    ("test_groups = {'a b': [1]}", "test_groups: 'a b' is no name of a group"),
    ("test_groups = [1]", "test_groups must be a mapping of rows by name, not list"),
    ("class_names = ('a', 'b')", "class_names has 2 names for 3 classes"),
    ("notes = 'one'", "notes must be a tuple of texts"),
    ("def __init__(self): raise ValueError('no file')", "cannot be made: ValueError: no file (users_tasks_"),
    ("def __init__(self, root, size): ...", 'its parameter "size"'),
    ("take = Task.take", "has no method take(rows, views)"),
    ("def take(self, rows, views): return self.points[rows]", "take of"),
    ("def take(self, rows, views): return rows.tolist()", "gives list; it must give a torch tensor"),
    ("def take(self, rows, views): return rows[:2]", "gives (2,) for 8 rows; the first dimension must be theirs"),
    ("def take(self, rows, views): return torch.tensor(3)", "gives () for 8 rows"),
    ("def take(self, rows, views): return torch.rand(len(rows), 2)", "two calls of take give different inputs"),
    ("def take(self, rows, views): return rows / rows.max()", "depends on the rows beside it"),
    ("def take(self, rows, views): return torch.zeros(len(rows), len(rows))", "pad them to one length"),
    ("def take(self, rows, views): return rows / 0", "not finite"),
    (
        "views = 2\n\ndef take(self, rows, views): return views * torch.rand(len(rows))",
        "in view 1; draw from a generator",
    ),
    ("views = 2\n\ndef take(self, rows, views): return rows + views.max()", "depends on the rows beside it"),
    ("def __init__(self): self.labels = torch.randint(3, (60,))", "made twice it holds different data"),
    ("def metrics(self, logits, labels): return 0.5", "are float; they must be a mapping of numbers by name"),
    ("def metrics(self, logits, labels): return {'f1': 'good'}", "\"f1\" is 'good', and must be a number"),
    ("def metrics(self, logits, labels): return {'f1': logits}", "and must be a number"),
    ("def metrics(self, logits, labels): return {'f 1': 1}", "'f 1' is no name of a metric"),
    ("def metrics(self, logits, labels): return {'loss': 1}", 'metrics has "loss", which is measured already'),
    ("def metrics(self, logits, labels): return {'f1': labels.nothing}", "fail: AttributeError"),
    ("def metrics(self, logits, labels): return {f'f{len(labels)}': 1}", "metrics have other names at another time"),
    ("def metrics(self, logits, labels): return {'f1': logits.zero_().sum()}", "metrics change the logits"),
    (
        "test_groups = {'a': [1]}\n\ndef metrics(self, logits, labels): return {'accuracy_a': 1}",
        'metrics has "accuracy_a", which is measured already',
    ),
]


@pytest.mark.parametrize(("inside", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_what_is_wrong_is_one_message_with_the_tasks_name(write: Write, inside: str, message: str) -> None:
    name = write(inside)
    with pytest.raises(WslSweepError) as caught:
        try_task(name, None)
    told = str(caught.value)
    assert message in told
    assert told.count(name) == 1
    assert "\n" not in told


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_of_mine:Own", 'no module is called "no_such_module_of_mine"'),
        ("math:sin", "is no subclass of wsl_sweep.data.Task"),
        ("wsl_sweep.data:Views", "is no subclass of wsl_sweep.data.Task"),
    ],
)
def test_what_is_no_task_is_told(name: str, message: str) -> None:
    with pytest.raises(WslSweepError, match=message):
        try_task(name, None)


def test_a_task_without_labels_or_classes_is_told(write: Write) -> None:
    with pytest.raises(WslSweepError, match="has no num_classes"):
        make_task(write("labels = [0, 1]", base="Task"), None)
    with pytest.raises(WslSweepError, match="has no labels"):
        make_task(write("num_classes = 2", base="Task"), None)


def test_the_metrics_that_it_adds_are_named(write: Write) -> None:
    name = write(
        """
        test = [1, 2]
        test_groups = {"near": [1]}
        def metrics(self, logits, labels): return {"macro_f1": torch.tensor(0.5), "auc": np.float32(1)}
        """
    )
    assert try_task(name, None) == (
        "validation/auc", "validation/macro_f1", "test/auc", "test/macro_f1", "test/accuracy_near",
    )  # fmt: skip


def test_what_fails_while_it_is_trained_ends_the_trial_with_its_reason(write: Write) -> None:
    late = make_task(write("def take(self, rows, views): return self.late[rows]"), None)
    with pytest.raises(
        TrialError, match=r"take of users_tasks_\d+:Own fails: AttributeError.*users_tasks_\d+.py, line"
    ):
        taken_by(late, torch.arange(2), torch.zeros(2, dtype=torch.int64))
    few = make_task(write("def metrics(self, logits, labels): return {'top': logits.topk(9).values.sum()}"), None)
    with pytest.raises(TrialError, match=r"metrics of .* fail: RuntimeError"):
        measured_by(few, torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))


def test_metrics_get_float32_on_the_cpu() -> None:
    class Own(Task):
        def metrics(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
            assert (logits.dtype, labels.dtype, logits.requires_grad) == (torch.float32, torch.int64, False)
            return {"mean": float(logits.mean())}

    logits = torch.ones(3, 2, dtype=torch.bfloat16, requires_grad=True)
    assert measured_by(Own(), logits, torch.tensor([0, 1, 0])) == {"mean": 1.0}
