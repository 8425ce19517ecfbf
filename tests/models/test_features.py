"""Logits and features in one pass; models of other libraries, and users' own."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wsl_sweep.errors import WslSweepError
from wsl_sweep.models import build, with_features
from wsl_sweep.models.adapted import Adapted
from wsl_sweep.user_code import search_in


class Plain(nn.Module):
    """A user's model: features with batch normalisation, a linear map, and a count of the calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)
        self.calls = 0

    def features(self, images: Tensor) -> Tensor:
        self.calls += 1
        return torch.relu(self.norm(self.first(images))).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(images))
        return out


class WithModule(nn.Module):
    """``features`` is a submodule, as in many public models."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(images))
        return out


def pictures(count: int = 5, channels: int = 1, size: int = 8) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(1))


# --- features of one's own ---------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Plain, WithModule])
def test_features_are_those_of_the_pass_that_made_the_logits(make: Callable[[], nn.Module]) -> None:
    model, images = make().eval(), pictures()
    logits, features = with_features(model, images)
    assert features.shape == (5, 4)
    assert torch.equal(logits, model(images))
    assert torch.equal(features, model.features(images))  # type: ignore[operator]
    assert torch.equal(model.head(features), logits)  # type: ignore[operator]


def test_features_are_computed_once() -> None:
    model = Plain()
    with_features(model, pictures())
    assert model.calls == 1


@pytest.mark.parametrize("name", ["plain", "module", "convnet_4", "resnet8", "torchvision:mobilenet_v3_small"])
def test_batch_normalisation_sees_a_batch_once(name: str) -> None:
    own: dict[str, Callable[[], nn.Module]] = {"plain": Plain, "module": WithModule}
    model = (own[name]() if name in own else build(name, 3, 1)).train()
    with_features(model, pictures(4, size=32 if ":" in name else 8))
    counters = [tensor for key, tensor in model.state_dict().items() if key.endswith("num_batches_tracked")]
    assert counters
    assert all(counter == 1 for counter in counters)


@pytest.mark.parametrize("make", [Plain, WithModule])
def test_gradients_flow_from_logits_and_features(make: Callable[[], nn.Module]) -> None:
    model = make()
    logits, features = with_features(model, pictures())
    features.square().sum().backward(retain_graph=True)
    assert model.head.weight.grad is None  # type: ignore[union-attr]
    assert next(model.parameters()).grad is not None
    logits.square().sum().backward()
    assert model.head.weight.grad is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("make", [Plain, WithModule])
def test_a_model_is_left_as_it_was(make: Callable[[], nn.Module]) -> None:
    model = make()
    before, keys = dict(vars(model)), list(model.state_dict())
    with_features(model, pictures())
    after = dict(vars(model))
    assert before.keys() == after.keys()
    assert list(model.state_dict()) == keys
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert "features" not in vars(model)


def test_features_of_the_instance_are_put_back() -> None:
    model = Plain()

    def shadow(images: Tensor) -> Tensor:
        return Plain.features(model, images) * 2

    model.features = shadow  # type: ignore[method-assign]
    _, features = with_features(model.eval(), pictures())
    assert vars(model)["features"] is shadow
    assert torch.equal(features, Plain.features(model, pictures()) * 2)


@pytest.mark.parametrize("shadowed", [False, True])
def test_a_model_is_left_as_it_was_by_a_pass_that_fails(shadowed: bool) -> None:
    model = Plain()

    def shadow(images: Tensor) -> Tensor:
        raise ValueError("from the user's code")

    if shadowed:
        model.features = shadow  # type: ignore[method-assign]
    with pytest.raises((ValueError, RuntimeError)):
        with_features(model, pictures(channels=2))
    assert vars(model).get("features") is (shadow if shadowed else None)
    module = WithModule()
    with pytest.raises(RuntimeError):
        with_features(module, pictures(channels=2))
    assert not module.features._forward_hooks


def test_each_pass_has_its_own_features() -> None:
    model = Plain().eval()
    first = with_features(model, pictures(5))[1]
    second = with_features(model, pictures(3))[1]
    assert (len(first), len(second)) == (5, 3)


def test_a_model_without_features_is_named() -> None:
    with pytest.raises(WslSweepError, match=r"^Linear has no features\(images\)"):
        with_features(nn.Linear(3, 3), torch.rand(2, 3))


class Unused(Plain):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2))


class UnusedModule(WithModule):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2))


@pytest.mark.parametrize("make", [Unused, UnusedModule])
def test_a_forward_that_does_not_call_its_features_is_refused(make: Callable[[], nn.Module]) -> None:
    with pytest.raises(WslSweepError, match=r"forward of Unused\w* does not call its features"):
        with_features(make(), pictures())


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (lambda features: features[:, :, None, None], r"\(5, 4, 1, 1\)"),
        (lambda features: features.flatten(), r"\(20,\)"),
        (lambda features: features[:2], r"\(2, 4\)"),
        (lambda features: (features, features), "tuple"),
    ],
    ids=["maps", "flat", "fewer", "tuple"],
)
def test_features_that_are_no_vectors_of_the_batch_are_refused(change: Callable[[Tensor], Any], shape: str) -> None:
    class Odd(Plain):
        def features(self, images: Tensor) -> Tensor:
            out: Tensor = change(super().features(images))
            return out

        def forward(self, images: Tensor) -> Tensor:
            self.features(images)
            return torch.zeros(len(images), 3)

    with pytest.raises(WslSweepError, match=f"features of Odd .*{shape}"):
        with_features(Odd(), pictures())


# --- torchvision, timm -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "width"), [("resnet18", 512), ("mobilenet_v3_small", 1024), ("vgg11", 4096), ("convnext_tiny", 768)]
)
def test_a_model_of_torchvision_has_the_features_that_its_last_linear_map_sees(name: str, width: int) -> None:
    if name in ("vgg11", "convnext_tiny"):  # large: their shape is enough
        with torch.device("meta"):
            logits, features = with_features(build(f"torchvision:{name}", 7), torch.rand(2, 3, 32, 32))
        assert (logits.shape, features.shape) == ((2, 7), (2, width))
        return
    torch.manual_seed(0)
    model, images = build(f"torchvision:{name}", 7).eval(), pictures(2, 3, 32)
    assert isinstance(model, Adapted)
    with torch.no_grad():
        logits, features = with_features(model, images)
        head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        assert (logits.shape, features.shape) == ((2, 7), (2, width))
        assert torch.equal(logits, model(images))
        assert torch.equal(head(features), logits)
        assert features.std() > 0


def test_a_model_of_torchvision_is_torchvisions_own() -> None:
    from torchvision import models

    model = build("torchvision:resnet18", 7).eval()
    own = models.resnet18(num_classes=7).eval()
    with torch.no_grad():
        assert not model.state_dict().keys() - {f"net.{key}" for key in own.state_dict()}
        own.load_state_dict({key.removeprefix("net."): tensor for key, tensor in model.state_dict().items()})
        assert torch.equal(model(pictures(2, 3, 32)), own(pictures(2, 3, 32)))


def test_the_features_of_a_copy_are_the_copys_own() -> None:
    """A copy must not record what the original's head sees."""
    import copy

    model = build("torchvision:mobilenet_v3_small", 4).eval()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(with_features(twin, pictures(2, 3, 32))[1], with_features(model, pictures(2, 3, 32))[1])


def test_a_model_without_a_linear_map_has_logits_but_no_features() -> None:
    model = build("torchvision:squeezenet1_1", 4).eval()
    with torch.no_grad():
        assert model(pictures(2, 3, 32)).shape == (2, 4)
        with pytest.raises(WslSweepError, match="SqueezeNet has no linear classifier"):
            with_features(model, pictures(2, 3, 32))


def test_grey_pictures_are_repeated_over_the_channels_of_a_colour_model() -> None:
    model, grey = build("torchvision:mobilenet_v3_small", 4, 1).eval(), pictures(2, 1, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(grey), model(grey.repeat(1, 3, 1, 1)))
        assert torch.equal(with_features(model, grey)[0], model(grey))


def test_the_head_of_a_torchvision_model_is_no_second_submodule() -> None:
    model = build("torchvision:resnet18", 7)
    assert sum(isinstance(module, nn.Linear) for module in model.modules()) == 1
    assert [key for key in model.state_dict() if "fc" in key] == ["net.fc.weight", "net.fc.bias"]


def test_a_torchvision_model_moves_and_learns_as_one() -> None:
    torch.manual_seed(0)
    model = build("torchvision:resnet18", 7).double().train()
    logits, features = with_features(model, pictures(2, 3, 32).double())
    assert logits.dtype == features.dtype == torch.float64
    features.sum().backward()
    grads = {path: parameter.grad for path, parameter in model.named_parameters()}
    assert grads["net.fc.weight"] is None
    assert grads["net.conv1.weight"] is not None


@pytest.mark.parametrize(("wrong", "right"), [("resnet81", "resnet18"), ("mobilnet_v3_small", "mobilenet_v3_small")])
def test_a_name_that_torchvision_lacks_is_refused_with_the_nearest_one(wrong: str, right: str) -> None:
    with pytest.raises(WslSweepError, match=f'"{wrong}".*did you mean "{right}"'):
        build(f"torchvision:{wrong}", 10)


def test_a_detector_of_torchvision_is_no_classifier() -> None:
    with pytest.raises(WslSweepError, match="no classifier called"):
        build("torchvision:fasterrcnn_resnet50_fpn", 10)


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_without_timm_its_installation_is_named() -> None:
    with pytest.raises(WslSweepError, match=r'"timm:resnet18" needs timm: pip install "wsl-sweep\[timm\]"'):
        build("timm:resnet18", 10)


# --- users' own models -------------------------------------------------------------------------------

MODULE = """
import torch
from torch import nn

def by_name(in_channels, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 64, num_classes))

def by_position(outputs, planes):
    return nn.Sequential(nn.Flatten(), nn.Linear(planes * 64, outputs))

def only_classes(num_classes, width=5):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, num_classes))

def everything(**kwargs):
    assert sorted(kwargs) == ["in_channels", "num_classes"]
    return nn.Linear(kwargs["in_channels"], kwargs["num_classes"])

class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.fc = nn.Linear(in_channels * 64, num_classes)

    def features(self, images):
        return images.flatten(1)

    def forward(self, images):
        return self.fc(self.features(images))

def no_module(num_classes, in_channels):
    return lambda images: images

def wants_more(num_classes, in_channels, depth):
    return nn.Identity()

a_value = 3
"""


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module in a folder of the test's own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"users_nets_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    search_in([tmp_path])
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("maker", ["by_name", "by_position", "Net"])
def test_a_users_model_gets_its_arguments_by_name_or_in_order(users: str, maker: str) -> None:
    model = build(f"{users}:{maker}", 7, 2)
    assert isinstance(model, nn.Module)
    assert model(pictures(3, 2)).shape == (3, 7)


def test_a_users_default_is_kept(users: str) -> None:
    model = build(f"{users}:only_classes", 7, 2)
    assert model(pictures(3, 2)).shape == (3, 7)
    assert model[-1].in_features == 5  # type: ignore[index]


def test_keyword_arguments_get_all(users: str) -> None:
    model = build(f"{users}:everything", 7, 2)
    assert isinstance(model, nn.Linear)
    assert (model.in_features, model.out_features) == (2, 7)


def test_a_users_model_has_features_like_our_own(users: str) -> None:
    logits, features = with_features(build(f"{users}:Net", 7, 2), pictures(3, 2))
    assert (logits.shape, features.shape) == ((3, 7), (3, 128))


@pytest.mark.parametrize(
    ("maker", "message"),
    [
        ("no_module", "must make a torch.nn.Module, not function"),
        ("a_value", "no function or class"),
        ("wants_more", 'parameter "depth" is none of those that are given: num_classes, in_channels'),
        ("by_nam", 'did you mean "by_name"'),
    ],
)
def test_what_makes_no_model_is_refused_by_its_name(users: str, maker: str, message: str) -> None:
    with pytest.raises(WslSweepError, match=message) as caught:
        build(f"{users}:{maker}", 7, 2)
    assert f"{users}:{maker}" in str(caught.value)


def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(WslSweepError, match='no module is called "no_such_module"'):
        build("no_such_module:Net", 10)
