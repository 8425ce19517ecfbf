"""Published weights: every format that is about, no code that a file brings along, no error but one that helps."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.models import build
from wsl_sweep.training.checkpoints import WRAPPERS, fill, read_state_dict

State = dict[str, Tensor]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, on files that are odd on purpose


def network(name: str = "resnet8", seed: int = 0, classes: int = 10) -> nn.Module:
    """A model whose running statistics are its own too."""
    torch.manual_seed(seed)
    model = build(name, classes, 3)
    with torch.no_grad():
        model.train()(torch.rand(4, 3, 8, 8))
    return model.eval()


def state(name: str = "resnet8", seed: int = 0) -> State:
    return {key: tensor.clone() for key, tensor in network(name, seed).state_dict().items()}


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def refusal(path: Path) -> str:
    """The message with which a file is refused; it names the file, and no other error may come."""
    with pytest.raises(WslSweepError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def read_or_refused(path: Path) -> State | None:
    """What a file holds, or None where it is refused with a message that names it; no other error may come."""
    try:
        return read_state_dict(path)
    except WslSweepError as error:
        message = str(error)
    assert str(path) in message
    return None


# --- formats -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_of_repdistiller_is_read(legacy: bool, tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    content = {
        "epoch": 240,
        "model": model.state_dict(),
        "accuracy": torch.tensor(75.61),
        "optimizer": optimizer.state_dict(),
    }
    path = saved(tmp_path / "ckpt_epoch_240.pth", content, _use_new_zipfile_serialization=not legacy)
    assert same(read_state_dict(path), dict(model.state_dict()))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_a_plain_state_dict_is_read(kind: Callable[[State], Any], legacy: bool, tmp_path: Path) -> None:
    own = state()
    path = saved(tmp_path / "weights.pt", kind(own), _use_new_zipfile_serialization=not legacy)
    assert same(read_state_dict(path), own)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_state_dict_is_found_under_its_usual_names(wrapper: str, tmp_path: Path) -> None:
    own = state()
    assert same(read_state_dict(saved(tmp_path / "a.pth", {"best_acc": 0.7, wrapper: own})), own)


def test_a_state_dict_may_lie_two_names_deep(tmp_path: Path) -> None:
    own = state()
    content = {"args": {"lr": 0.1, "model": "resnet8"}, "state_dict": {"epoch": 3, "net": own}}
    assert same(read_state_dict(saved(tmp_path / "a.pth", content)), own)


def test_an_entry_called_model_that_is_no_state_dict_does_not_hide_the_one_that_is(tmp_path: Path) -> None:
    own = state()
    assert same(read_state_dict(saved(tmp_path / "a.pth", {"model": "resnet8", "state_dict": own})), own)


def test_the_state_dict_is_taken_and_not_the_optimizers_tensors(tmp_path: Path) -> None:
    own = state()
    content = {"momentum": {"conv1.weight": torch.zeros(3)}, "model": own}
    assert same(read_state_dict(saved(tmp_path / "a.pth", content)), own)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_prefix_of_data_parallel_training_is_taken_away(suffix: str, tmp_path: Path) -> None:
    own, path = state(), tmp_path / f"a{suffix}"
    prefixed = {f"module.{key}": tensor for key, tensor in own.items()}
    if suffix == ".pth":
        saved(path, {"model": prefixed})
    else:
        save_file(prefixed, path)
    assert same(read_state_dict(path), own)


def test_a_prefix_that_not_all_names_have_is_left(tmp_path: Path) -> None:
    own = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert list(read_state_dict(saved(tmp_path / "a.pth", own))) == ["module.a", "b"]


def test_safetensors_are_read(tmp_path: Path) -> None:
    own, path = state(), tmp_path / "a.safetensors"
    save_file(own, path)
    assert same(read_state_dict(path), own)


def test_tensors_that_share_memory_and_parameters_are_read(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    content = {"a": whole[:6].reshape(2, 3), "b": whole.reshape(3, 4).T, "c": nn.Parameter(whole)}
    found = read_state_dict(saved(tmp_path / "a.pth", content))
    assert all(torch.equal(found[key], content[key]) for key in content)


# --- filling a model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "vgg8", "mobilenetv2", "convnet_4"])
def test_a_filled_model_computes_what_the_published_one_did(name: str, tmp_path: Path) -> None:
    published, own = network(name, seed=3), network(name, seed=4)
    images = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        assert not torch.equal(own(images), published(images))
        path = saved(tmp_path / "a.pth", {"model": published.state_dict()})
        fill(own, read_state_dict(path), str(path), name)
        assert torch.equal(own.eval()(images), published(images))
    assert same(dict(own.state_dict()), dict(published.state_dict()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_the_models_own(dtype: torch.dtype, tmp_path: Path) -> None:
    published = state(seed=3)
    other = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in published.items()}
    for path in (tmp_path / "a.pth", tmp_path / "a.safetensors"):
        save_file(other, path) if path.suffix == ".safetensors" else saved(path, other)
        own = network(seed=4)
        fill(own, read_state_dict(path), "a", "resnet8")
        for key, tensor in own.state_dict().items():
            assert tensor.dtype == published[key].dtype, key
            assert torch.equal(tensor, other[key].to(tensor.dtype)), key


@pytest.mark.parametrize("which", ["all", "one"])
def test_counters_of_batches_may_be_absent(which: str) -> None:
    published = state(seed=3)
    counters = [key for key in published if key.endswith("num_batches_tracked")]
    gone = counters if which == "all" else counters[:1]
    own = network(seed=4)
    own.get_buffer(gone[0]).fill_(9)
    tensors = {key: tensor for key, tensor in published.items() if key not in gone}
    kept = dict(tensors)
    fill(own, tensors, "a.pth", "resnet8")
    assert tensors == kept  # what was given is not changed
    assert own.state_dict()[gone[0]] == 9
    assert all(torch.equal(own.state_dict()[key], published[key]) for key in tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda own: own.pop("layer2.0.conv1.weight"), "missing: layer2.0.conv1.weight"),
        (lambda own: own.pop("bn1.running_mean"), "missing: bn1.running_mean"),
        (lambda own: own.update(extra=torch.ones(1)), "not in resnet8: extra"),
        (
            lambda own: own.update({"fc.weight": torch.zeros(100, 64)}),
            r"fc.weight is \(100, 64\), resnet8 has \(10, 64",
        ),
        (lambda own: own["fc.bias"].fill_(float("nan")), "fc.bias has values that are not finite"),
        (lambda own: own["fc.bias"][:1].fill_(float("inf")), "fc.bias has values that are not finite"),
        (lambda own: own["bn1.running_var"].fill_(-float("inf")), "bn1.running_var has values that are not finite"),
        (lambda own: own.clear(), "missing: conv1.weight; .*; and [0-9]+ more"),
    ],
    ids=["missing", "buffer", "extra", "shape", "nan", "inf", "statistics", "empty"],
)
def test_what_does_not_fit_is_named_and_the_model_is_left(change: Callable[[State], Any], message: str) -> None:
    own = network(seed=4)
    before = {key: tensor.clone() for key, tensor in own.state_dict().items()}
    published = state(seed=3)
    change(published)
    with pytest.raises(WslSweepError, match=f"^some/file.pth does not hold the weights of resnet8: .*{message}"):
        fill(own, published, "some/file.pth", "resnet8")
    assert same(dict(own.state_dict()), before)


def test_weights_of_another_model_are_refused_with_what_differs() -> None:
    with pytest.raises(WslSweepError, match=r"not in resnet8: layer1\.1\.conv1\.weight.* more$"):
        fill(network("resnet8"), state("resnet14"), "a.pth", "resnet8")
    with pytest.raises(WslSweepError, match=r"conv1\.weight is \(32, 16, 3, 3\), wrn_16_1 has \(16, 16, 3, 3\)"):
        fill(network("wrn_16_1"), state("wrn_16_2"), "a.pth", "wrn_16_1")


@pytest.mark.parametrize("prefixed", [False, True])
def test_weights_of_another_librarys_model_have_that_librarys_names(prefixed: bool) -> None:
    from torchvision import models

    torch.manual_seed(0)
    published = models.mobilenet_v3_small(num_classes=4).eval()
    tensors = {f"net.{key}" if prefixed else key: tensor for key, tensor in published.state_dict().items()}
    torch.manual_seed(1)
    own = build("torchvision:mobilenet_v3_small", 4).eval()
    fill(own, tensors, "a.pth", "torchvision:mobilenet_v3_small")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(own(images), published(images))


def odd_tensors() -> dict[str, Tensor]:
    """Tensors that torch.save keeps and ``weights_only`` reads, but that are no plain numbers in memory."""
    return {
        "meta": torch.zeros(10, device="meta"),
        "sparse": torch.ones(10).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.ones(10), 0.1, 0, torch.qint8),
        "float8": torch.ones(10).to(torch.float8_e4m3fn),
        "complex": torch.ones(10, dtype=torch.complex64),
        "bool": torch.ones(10, dtype=torch.bool),
    }


@pytest.mark.parametrize("kind", ["meta", "sparse", "quantized", "float8", "complex", "bool"])
def test_tensors_of_an_odd_kind_are_taken_or_refused_but_nothing_else(kind: str, tmp_path: Path) -> None:
    published = state(seed=3)
    published["fc.bias"] = odd_tensors()[kind]
    path, own = tmp_path / "a.pth", network(seed=4)
    saved(path, published)
    tensors = read_or_refused(path)
    if tensors is None:
        return
    before = own.state_dict()["fc.bias"].clone()
    try:
        fill(own, tensors, str(path), "resnet8")
        expected = torch.ones(10)
    except WslSweepError:
        expected = before
    assert torch.equal(own.state_dict()["fc.bias"], expected)


# --- what is refused ---------------------------------------------------------------------------------


class Runs:
    """A pickle of it makes a file, if anybody runs what it says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_code_in_a_file_is_not_run(wrapped: bool, legacy: bool, tmp_path: Path) -> None:
    made = tmp_path / "made"
    content = {"model": state(), "epoch": Runs(made)} if wrapped else Runs(made)
    path = saved(tmp_path / "a.pth", content, _use_new_zipfile_serialization=not legacy)
    message = refusal(path)
    assert not made.exists()
    assert "mkdir" in message
    assert "could run code" in message
    torch.load(path, weights_only=False)  # the file is what it says it is
    assert made.exists()


def test_code_in_a_bare_pickle_is_not_run(tmp_path: Path) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / f"a{protocol}.pth"
        path.write_bytes(pickle.dumps({"model": Runs(tmp_path / "made")}, protocol=protocol))
        refusal(path)
        assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".tar", ".pickle", ""])
def test_code_is_not_run_whatever_the_file_is_called(suffix: str, tmp_path: Path) -> None:
    refusal(saved(tmp_path / f"a{suffix}", Runs(tmp_path / "made")))
    assert not (tmp_path / "made").exists()


def test_a_file_that_holds_options_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"opt": argparse.Namespace(lr=0.05), "model": state()})
    message = refusal(path)
    assert "argparse.Namespace" in message
    assert "save its state dict alone with torch.save, or as safetensors" in message


def test_a_whole_model_is_refused(tmp_path: Path) -> None:
    assert "torch.nn.modules" in refusal(saved(tmp_path / "a.pth", nn.Linear(2, 3)))


def test_numbers_of_numpy_are_read_or_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"model": state(), "best_acc": np.float64(0.75)})
    found = read_or_refused(path)
    if found is None:
        assert "numpy" in refusal(path)
    else:
        assert same(found, state())


def broken_files(folder: Path) -> dict[str, Path]:
    """Files that are no checkpoints, by what they are."""
    whole = io.BytesIO()
    torch.save({"model": {"a": torch.arange(300.0)}}, whole)
    contents = {
        "text": b"404: Not Found\n",
        "html": b"<!DOCTYPE html>\n<html><body>quota exceeded</body></html>\n" * 50,
        "empty": b"",
        "one byte": b"\x80",
        "zeros": bytes(4096),
        "truncated": whole.getvalue()[:-200],
        "half": whole.getvalue()[: len(whole.getvalue()) // 2],
        "pickle": pickle.dumps([1, 2, 3]),
        "unicode": "ключ".encode("utf-16"),
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9217221\n",
    }
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / f"{name}.pth"
        paths[name].write_bytes(content)
    paths["zip"] = folder / "zip.pth"
    with zipfile.ZipFile(paths["zip"], "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    paths["tar"] = folder / "tar.pth"
    with tarfile.open(paths["tar"], "w") as tar:
        tar.add(paths["text"], "a.txt")
    paths["folder"] = folder / "folder.pth"
    paths["folder"].mkdir()
    return paths


KINDS = ("text", "html", "empty", "one byte", "zeros", "truncated", "half", "pickle", "unicode", "pointer", "zip",
         "tar", "folder")  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_no_checkpoint_is_named(kind: str, suffix: str, tmp_path: Path) -> None:
    path = broken_files(tmp_path)[kind]
    if suffix != ".pth":
        path = path.rename(path.with_suffix(suffix))
    refusal(path)


@pytest.mark.parametrize("kind", KINDS)
def test_no_message_advises_to_read_a_file_unsafely(kind: str, tmp_path: Path) -> None:
    """torch's own messages do."""
    message = refusal(broken_files(tmp_path)[kind])
    assert "weights_only" not in message
    assert len(message.removeprefix(str(tmp_path))) < 400


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors", "no/folder/absent.pth"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / name)


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for suffix in (".pth", ".safetensors"):
        refusal(tmp_path / "file" / f"a{suffix}")


@pytest.mark.parametrize(
    "content",
    [{}, [], 3, None, "text", torch.ones(3), {"epoch": 3}, {"model": {}}, {"model": "resnet8"}, {3: torch.ones(1)},
     {"a": torch.ones(1), "b": 2}, [{"a": torch.ones(1)}]],
    ids=str,
)  # fmt: skip
def test_a_file_without_a_state_dict_is_refused_with_what_it_holds(content: Any, tmp_path: Path) -> None:
    message = refusal(saved(tmp_path / "a.pth", content))
    assert "holds no state dict" in message
    assert "it holds" in message


def test_a_dict_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 1}
    content["model"] = content
    assert "holds no state dict" in refusal(saved(tmp_path / "a.pth", content))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_anywhere_is_refused_or_read_whole(legacy: bool, tmp_path: Path) -> None:
    own = {"a": torch.arange(40.0), "b.c": torch.ones(2, 3)}
    path = saved(tmp_path / "a.pth", {"model": own}, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    for length in [*range(0, len(content), 61), len(content) - 1]:
        path.write_bytes(content[:length])
        found = read_or_refused(path)
        assert found is None or same(found, own), length


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_file_with_a_flipped_byte_raises_nothing_but_our_error(form: str, tmp_path: Path) -> None:
    own, path = {"a": torch.arange(6.0), "b.c": torch.ones(2, 3)}, tmp_path / "a.pth"
    if form == "safetensors":
        path = tmp_path / "a.safetensors"
        save_file(own, path)
    else:
        saved(path, {"model": own}, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    step = max(1, len(content) // 250)
    for place in range(0, len(content), step):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x2A]) + content[place + 1 :])
        read_or_refused(path)
