"""Where teachers are kept: each trained once, found by the hash of what it is. Nothing here needs torch to look."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from wsl_sweep.errors import StorageError
from wsl_sweep.files import file_digest, write_json, write_whole
from wsl_sweep.paths import cache_folder
from wsl_sweep.storage import Place, place

if TYPE_CHECKING:
    from torch import nn


class TeacherStore:
    """A folder of trained teachers, ``<id>/weights.safetensors`` and ``<id>/card.json`` each.

    Safe for several processes: one trains, under a lock, the others wait for it. A teacher appears whole or not
    at all.

    Args:
        root: the folder; by default ``teachers`` in the user's cache (``WSL_SWEEP_CACHE``,
            ``XDG_CACHE_HOME/wsl-sweep`` or ``~/.cache/wsl-sweep``).
        shared: a folder of ``<id>/card.json`` and ``<id>/<SHA-256 of the weights>.safetensors`` for all nodes of a
            cluster. The first teacher that comes there is every node's: where this machine has other weights under
            its id, they give way to it.
    """

    def __init__(self, root: Path | None = None, shared: Place | None = None) -> None:
        self.root = root if root is not None else cache_folder() / "teachers"
        self.shared = shared

    def card(self, teacher_id: str) -> dict[str, Any] | None:
        """What is known of a teacher: configuration, accuracy, hash of its weights.

        None where there is none, or where its weights are not (any more) those that the card names.
        """
        card = self._read(teacher_id)
        try:
            return card if card is not None and card["sha256"] == file_digest(self.weights(teacher_id)) else None
        except OSError:
            return None

    def has(self, teacher_id: str) -> bool:
        """Whether the teacher need not be trained. One that is only here is shared now, so that no node trains it.

        Raises StorageError.
        """
        card = self.card(teacher_id)
        if self.shared is None:
            return card is not None
        if card is not None and self._shared_card(teacher_id) is None:
            self._share(card)
        return self._shared_card(teacher_id) is not None

    def _read(self, teacher_id: str) -> dict[str, Any] | None:
        """A card as it lies there, its weights not looked at."""
        try:
            return _card_of((self.root / teacher_id / "card.json").read_bytes())
        except OSError:
            return None

    def _names(self) -> list[str]:
        return [path.parent.name for path in self.root.glob("*/card.json") if not path.parent.name.startswith(".")]

    def cards(self) -> list[dict[str, Any]]:
        """The cards of all teachers that are whole, the newest last."""
        found = [card for card in map(self.card, self._names()) if card is not None]
        return sorted(found, key=lambda card: (float(card.get("trained_at", 0)), str(card["teacher_id"])))

    def card_of_file(self, path: Path) -> dict[str, Any] | None:
        """The card of the teacher whose weights a file holds, wherever it lies; None for a file of unknown origin."""
        try:
            digest = file_digest(path)
        except OSError:
            return None
        same = [card for card in map(self._read, self._names()) if card is not None and card["sha256"] == digest]
        return max(same, key=lambda card: bool(card["seen_validation"]), default=None)

    def weights(self, teacher_id: str) -> Path:
        """The teacher's safetensors file."""
        return self.root / teacher_id / "weights.safetensors"

    def begun(self, teacher_id: str) -> Place:
        """Where checkpoints of a teacher lie that is being trained: with what all nodes share, if there is such."""
        return (self.shared if self.shared is not None else place(self.root)) / ".begun" / teacher_id

    def ensure(self, teacher_id: str, train: Callable[[], tuple[nn.Module, dict[str, Any]]]) -> dict[str, Any]:
        """The card of a teacher, which ``train`` makes if it is neither here nor shared.

        ``train`` returns the model and what its card says beside its id, its hash and its weights' sizes.

        Raises:
            StorageError: it cannot be kept, or what is shared cannot be read.
        """
        card = self.card(teacher_id)
        if card is not None and self._is_shared(card):
            return card
        with contextlib.ExitStack() as stack:
            with self._storing():
                self.root.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self.root / f".{teacher_id}.lock"))
            card = self._fetch(teacher_id) or self.card(teacher_id)
            if card is None:
                model, facts = train()
                from wsl_sweep.training.weights import tensor_bytes

                content = tensor_bytes(model.state_dict())
                digest = hashlib.sha256(content).hexdigest()
                parameters = sum(parameter.numel() for parameter in model.parameters())
                card = {"teacher_id": teacher_id, "sha256": digest, "parameters": parameters, **facts}
                self._add(content, card)
            card = self._share(card)
            with contextlib.suppress(StorageError, OSError):
                self.begun(teacher_id).delete()
            return card

    def update(self, card: Mapping[str, Any]) -> None:
        """Writes a card anew; the weights stay."""
        with self._storing(), FileLock(self.root / f".{card['teacher_id']}.lock"):
            write_json(self.root / str(card["teacher_id"]) / "card.json", dict(card))

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"cannot keep a teacher in {self.root}: {error.strerror or error}; "
                "set WSL_SWEEP_CACHE to a folder that can be written"
            ) from error

    def _add(self, weights: bytes, card: Mapping[str, Any]) -> None:
        """Puts a teacher here, whole; the lock is held."""
        target = self.root / str(card["teacher_id"])
        with self._storing():
            folder = Path(tempfile.mkdtemp(dir=self.root, prefix=f".{target.name}."))
            try:
                write_whole(folder / "weights.safetensors", weights)
                write_json(folder / "card.json", dict(card))
                if target.exists():  # damaged, or another than the shared one
                    shutil.rmtree(target)
                os.chmod(folder, 0o755)
                os.replace(folder, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    shutil.rmtree(folder)
                raise

    # --- shared by a cluster -------------------------------------------------------------------------------------

    def _shared_card(self, teacher_id: str) -> dict[str, Any] | None:
        """The card that lies there, or None; raises StorageError where that cannot be told."""
        if self.shared is None:
            return None
        where = self.shared / teacher_id / "card.json"
        try:
            return _card_of(where.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {where}: {error.strerror or error}") from error

    def _shared_weights(self, card: Mapping[str, Any]) -> Place:
        assert self.shared is not None
        return self.shared / str(card["teacher_id"]) / f"{card['sha256']}.safetensors"

    def _is_shared(self, card: Mapping[str, Any]) -> bool:
        """Whether what every node uses has the weights of ``card``; without a cluster it has."""
        if self.shared is None:
            return True
        theirs = self._shared_card(str(card["teacher_id"]))
        return theirs is not None and theirs["sha256"] == card["sha256"]

    def _fetch(self, teacher_id: str) -> dict[str, Any] | None:
        """Brings the shared teacher here; None where there is none, or not the one that its card names."""
        card = self._shared_card(teacher_id)
        if card is None or card.get("teacher_id") != teacher_id:
            return None
        own = self.card(teacher_id)
        if own is not None and own["sha256"] == card["sha256"]:
            return own
        where = self._shared_weights(card)
        try:
            weights = where.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {where}: {error.strerror or error}") from error
        if hashlib.sha256(weights).hexdigest() != card["sha256"]:
            return None
        self._add(weights, card)
        return card

    def _share(self, card: dict[str, Any]) -> dict[str, Any]:
        """Puts a teacher of this machine where every node finds it; where another was faster, that one comes here."""
        if self.shared is None or self._is_shared(card):
            return card
        teacher_id = str(card["teacher_id"])
        place_of_card, content = self.shared / teacher_id / "card.json", json.dumps(card, indent=2).encode()
        with self._storing():
            weights = self.weights(teacher_id).read_bytes()
        self._shared_weights(card).write(weights)
        if place_of_card.create(content):
            return card
        theirs = self._fetch(teacher_id)
        if theirs is None:  # what is there is damaged
            place_of_card.write(content)
        return theirs or card


def _card_of(content: bytes) -> dict[str, Any] | None:
    """A card, or None where it is damaged."""
    try:
        card: dict[str, Any] = json.loads(content)
        return card if isinstance(card["sha256"], str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
