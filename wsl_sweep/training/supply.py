"""What a student gets from its teacher: from the bank where it is there, computed where it is not, each once."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsl_sweep.data import TaskData
from wsl_sweep.distill import label_cross_entropy
from wsl_sweep.errors import WslSweepError
from wsl_sweep.training.bank import BankSettings, Layout, LogitBank, TeacherOutputs, bank_identity, has_features
from wsl_sweep.training.device import undisturbed
from wsl_sweep.training.group import ALONE, Group
from wsl_sweep.training.records import Cells, LockedOutError, Mask, Waiting, Words
from wsl_sweep.training.teachers import FrozenTeacher, teacher_batch

WINDOW = 4096
"""Examples whose outputs are brought together: what is missing of them fills the teacher's batches."""


class TeacherSupply:
    """A teacher's outputs for the batches of a training and for the validation part.

    Outputs are those of running statistics, in the teacher's own batches, rounded to the bank's precision whether they
    come from it or not, and with a layout of the largest logits alone (``top_k``) approximated like them, see
    ``Layout.decode``: so a trial's numbers do not depend on what the bank holds.

    Args:
        make_teacher: loads the teacher; called when the bank lacks something for the first time.
        data: of the training.
        layout: how outputs are kept; its features are those that the student reads, or more.
        bank: where they are kept, or None.
        by_batch: for ``teacher.mode: train``: training outputs are each batch's own and are never kept.
        bank_for_training: False where the bank lacks the features that the student reads.
        temperature: of the distillation, at which training logits are read; those of validation are read at τ = 1.
        check: called between batches; what it raises ends the training.
        group: the processes of the training; each asks for other examples.
    """

    def __init__(
        self,
        make_teacher: Callable[[], FrozenTeacher],
        data: TaskData,
        layout: Layout,
        *,
        bank: LogitBank | None = None,
        by_batch: bool = False,
        bank_for_training: bool = True,
        temperature: float = 1.0,
        check: Callable[[], None] = lambda: None,
        group: Group = ALONE,
    ) -> None:
        self.found = self.computed = self._missed = 0
        self.notes: list[str] = []
        self.window = 1 if by_batch or data.train.views.streamed else WINDOW
        self._make_teacher, self._teacher = make_teacher, None if not by_batch else make_teacher()
        self._data, self._layout, self._bank = data, layout, bank
        self._by_batch, self._bank_for_training = by_batch, bank_for_training
        self._temperature = temperature
        self._endless = data.train.views.count is None
        self._check, self._group = check, group
        self._batch = teacher_batch(data.train.labels.device)
        self._train_ids = data.train.ids.cpu()
        self._validation_logits: Tensor | None = None
        if by_batch:
            try:
                self.validation_logits()  # now: the teacher's running statistics will drift
            except BaseException:
                self.close()
                raise

    @property
    def forwards(self) -> int:
        """Examples that the teacher has looked at for this training."""
        return self.computed

    @property
    def teacher(self) -> FrozenTeacher:
        """The teacher itself, loaded when it is needed."""
        if self._teacher is None:
            with undisturbed():  # when it is loaded depends on the bank; a student's dropout must not
                self._teacher = self._make_teacher()
        return self._teacher

    def drifting(self) -> dict[str, Tensor]:
        """What training outputs change of the teacher: its buffers, with ``by_batch``; nothing else."""
        return dict(self.teacher.model.named_buffers()) if self._by_batch else {}

    def outputs(self, rows: Tensor, views: Tensor, inputs: Tensor | None = None) -> TeacherOutputs:
        """Outputs for training examples ``rows`` (N,) in ``views`` (N,), both integers on the CPU.

        ``inputs`` (N, …), where they are given, are theirs; else they are brought as far as they are needed.
        """
        if self._by_batch:
            self.computed += len(rows)
            # A copy: a teacher may write into what it is given, which the student reads after it.
            own = inputs.clone() if inputs is not None else self._data.train.views.take(rows, views)
            logits, features = self.teacher.training_outputs(own, bool(self._layout.features))
            self._group.follow(self.drifting().values())
            self._tell()
            return TeacherOutputs(logits, None, features)

        ids = self._train_ids[rows]
        bank = self._bank if self._bank_for_training else None
        shapes = self._data.train.views.shapes(rows)
        # What was put together for a batch of several shapes is not what a teacher computes with.
        inputs_of = functools.partial(self._training_inputs, rows, views, inputs if shapes is None else None)
        cells = torch.arange(len(rows)) if self._endless else ids * self._data.train.views.cells + views
        found = self._bring(ids, cells, inputs_of, bank, shapes, self._temperature)
        self._tell()
        # A bank may hold features for others: what a student does not read, it does not get.
        return found if self._layout.features else replace(found, features=None)

    def validation_logits(self) -> Tensor:
        """(N, C) logits of the whole validation part, its examples as they are."""
        if self._validation_logits is None:
            views, ids, parts = self._data.train.views, self._data.validation.ids.cpu(), []
            shared = self._group.splits(len(ids))
            own = torch.arange(len(ids))[self._group.share(len(ids))]
            for rows in torch.split(own, WINDOW):
                cells = ids[rows] * views.cells + views.identity  # the training view that leaves an example as it is
                if self._endless:
                    cells = rows
                inputs_of = functools.partial(self._validation_inputs, rows)
                shapes = self._data.validation.views.shapes(rows)
                parts.append(self._bring(ids[rows], cells, inputs_of, self._bank, shapes, 1.0).logits)
            logits = torch.cat(parts)
            self._tell()  # before the logits go, so that whoever has them knows
            self._validation_logits = self._group.gather(logits, self._group.sizes(len(ids))) if shared else logits
        return self._validation_logits

    def counts(self) -> tuple[int, int]:
        """What all processes of the training have ``computed`` and ``found``."""
        return self.computed + self._group.noted("computed"), self.found + self._group.noted("found")

    def close(self) -> None:
        """Tells the bank what it was good for, and lets it go."""
        if self._bank is None:
            return
        bank, self._bank = self._bank, None
        try:
            with contextlib.suppress(LockedOutError):
                bank.records.count(self.found, self._missed)
        finally:
            bank.close()

    # --- inside --------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._group.note("computed", self.computed)
        self._group.note("found", self.found)

    def _training_inputs(self, rows: Tensor, views: Tensor, inputs: Tensor | None, some: Tensor) -> Tensor:
        if inputs is None:
            return self._data.train.views.take(rows[some], views[some])
        return inputs if len(some) == len(inputs) and bool((some == torch.arange(len(some))).all()) else inputs[some]

    def _validation_inputs(self, rows: Tensor, some: Tensor) -> Tensor:
        return self._data.validation.views.plain(rows[some])

    def _bring(
        self,
        ids: Tensor,
        cells: Tensor,
        inputs_of: Callable[[Tensor], Tensor],
        bank: LogitBank | None,
        shapes: Tensor | None,
        temperature: float,
    ) -> TeacherOutputs:
        """Outputs for examples ``ids`` at ``cells``; ``inputs_of`` gives the inputs of some of their places.

        Only examples of one of the ``shapes`` (N,) are computed together; None: all have the same.
        """
        layout = self._layout if bank is None else bank.layout
        wanted, first, places = np.unique(cells.numpy(), return_index=True, return_inverse=True)
        kinds = np.zeros(len(wanted), dtype=np.int64) if shapes is None else shapes.numpy()[first]

        def compute(some: Cells) -> Words:
            """(n, words) rows of cells, by number among ``wanted``."""
            self._check()
            rows: Words = np.empty((len(some), layout.words), dtype=np.uint32)
            for kind in np.unique(kinds[some]):
                of_kind = np.flatnonzero(kinds[some] == kind)
                chosen = torch.from_numpy(first[some[of_kind]])
                rows[of_kind] = self._rows(inputs_of(chosen), ids[chosen], layout)
            self.computed += len(some)
            self._missed += len(some) if bank is not None else 0
            return rows

        filled: Words = np.empty((len(wanted), layout.words), dtype=np.uint32)
        there = np.zeros(len(wanted), dtype=np.bool_)
        if bank is not None:
            try:
                self._fill(wanted, kinds, filled, there, compute, bank)
            except LockedOutError as error:
                self._note(f"the logit bank is given up ({error}): the teacher computes from here on")
                self._bank = None
                bank.close()
        missing = _by_kind(np.flatnonzero(~there), kinds)
        for start in range(0, len(missing), self._batch):
            filled[missing[start : start + self._batch]] = compute(missing[start : start + self._batch])
        rows = torch.from_numpy(filled.view(np.int32)[places])
        device = self._data.train.labels.device
        if device.type == "cuda":
            rows = rows.pin_memory()
        return layout.decode(rows.to(device, non_blocking=True), temperature)

    def _fill(
        self, wanted: Cells, kinds: Cells, rows: Words, there: Mask, compute: Callable[[Cells], Words], bank: LogitBank
    ) -> None:
        """Fills ``rows`` of the wanted cells (each named once, ascending) as far as the bank goes, and marks them.

        What is missing is computed by whoever claims it; nothing is left out but where the bank takes no more.
        """
        records = bank.records
        found, there[:] = records.find(wanted)
        rows[there] = found[there]
        self.found += int(there.sum())
        waiting = Waiting()
        while not there.all():
            missing = _by_kind(np.flatnonzero(~there), kinds)
            if records.full:
                self._note(bank.why_full())
                return
            claimed = records.claim(wanted[missing], self._batch)
            if len(claimed):
                some = np.searchsorted(wanted, claimed)
                try:
                    rows[some] = compute(some)
                    there[some] = True
                    bank.put(claimed, rows[some])
                except LockedOutError:
                    raise
                except BaseException:
                    records.release(claimed)
                    raise
                waiting.progress()
                continue
            self._check()
            records.wait(wanted[missing], waiting)
            others, come = records.find(wanted[missing])
            if come.any():
                rows[missing[come]], there[missing[come]] = others[come], True
                self.found += int(come.sum())
                waiting.progress()

    def _rows(self, inputs: Tensor, ids: Tensor, layout: Layout) -> Words:
        """(n, words) rows of at most a batch of inputs of one shape."""
        with undisturbed():
            logits, features = self.teacher.outputs(inputs, bool(layout.features))
        # In the shape of a whole batch too: sums over classes may be grouped by it.
        whole = functools.partial(_lengthened, length=self._batch)
        labels = whole(self._data.all_labels[ids.to(logits.device)])
        padded = TeacherOutputs(whole(logits), None, None if features is None else whole(features))
        padded = replace(padded, cross_entropy=label_cross_entropy(padded.logits, labels))
        return layout.encode(padded, labels)[: len(ids)].cpu().numpy().view(np.uint32)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _lengthened(values: Tensor, length: int) -> Tensor:
    """(length, …) with zeros after the (N, …) values."""
    longer = values.new_zeros((length, *values.shape[1:]))
    longer[: len(values)] = values
    return longer


def _by_kind(places: Cells, kinds: Cells) -> Cells:
    """Those of one kind next to each other, so that they fill the teacher's batches."""
    return places[np.argsort(kinds[places], kind="stable")]


def supply_for(
    data: TaskData,
    make_teacher: Callable[[], FrozenTeacher],
    teacher: Mapping[str, Any],
    *,
    label_noise: float = 0.0,
    features: bool = False,
    by_batch: bool = False,
    precision: str = "float32",
    top_k: int | None = None,
    temperature: float = 1.0,
    threads: int = 1,
    settings: BankSettings = BankSettings(),
    about: Mapping[str, Any] | None = None,
    check: Callable[[], None] = lambda: None,
    group: Group = ALONE,
) -> TeacherSupply:
    """A teacher's supply with its bank; without one where the bank cannot be had, which is said in its ``notes``.

    Args:
        data: of the training.
        make_teacher: loads the teacher.
        teacher: its ``model``, ``weights`` and ``own_code``, see ``bank_identity``.
        label_noise: of the training labels.
        features: whether the student reads the teacher's features.
        by_batch: see ``TeacherSupply``.
        precision: in which logits are kept.
        top_k: how many of the largest logits are kept; None for all. Of so few classes that nothing else would be left
            out, all are.
        temperature: of the distillation; 1 where it reads none.
        threads: torch's.
        settings: of the sweep.
        about: what people should read of the bank.
        check: see ``TeacherSupply``.
        group: see ``TeacherSupply``.
    """
    device = data.train.labels.device
    if top_k is not None and top_k >= data.num_classes - 1:
        top_k = None
    temperatures = () if top_k is None else tuple(sorted({1.0, float(temperature), *map(float, settings.temperatures)}))
    identity = bank_identity(
        data, label_noise, teacher, str(device), threads, teacher_batch(device), precision, top_k, temperatures
    )
    # Those who read no features ask for a bank with them only to fill it: the first of them learns how many there are.
    kept = settings.use and data.train.views.count is not None
    wide = kept and settings.features and not by_batch and not has_features(identity)
    loaded, width = None, 0
    if features or by_batch or wide:
        with undisturbed():
            loaded = make_teacher()
    if loaded is not None and (features or wide):
        try:
            with undisturbed():
                width = _feature_width(loaded, data)
        except WslSweepError:  # others may want features of a teacher that has none
            if features:
                raise
    bank, notes = None, list[str]()
    if kept:
        try:
            bank = LogitBank(
                identity,
                len(data.all_labels) * data.train.views.cells,
                Layout(data.num_classes, width if settings.features else 0, precision, top_k, temperatures),
                settings=settings,
                about=about,
            )
        except WslSweepError as error:
            notes.append(f"the logit bank cannot be used ({error}): the teacher computes at every step")
    supply = TeacherSupply(
        make_teacher if loaded is None else lambda: loaded,
        data,
        Layout(data.num_classes, width if features else 0, precision, top_k, temperatures),
        bank=bank,
        by_batch=by_batch,
        bank_for_training=bank is None or not features or bank.layout.features > 0,
        temperature=temperature,
        check=check,
        group=group,
    )
    supply.notes += notes
    return supply


def _feature_width(teacher: FrozenTeacher, data: TaskData) -> int:
    """D, by one example."""
    _, features = teacher.outputs(data.train.views.plain(torch.zeros(1, dtype=torch.int64)), True)
    assert features is not None
    return int(features.shape[1])
