"""The models of the CIFAR experiments: entry for entry and logit for logit those of the public checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsl_sweep.models import build, with_features
from wsl_sweep.spec.catalogue import CIFAR_MODELS

PARAMETERS = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "resnet50": 23_705_252,
    "wrn_16_1": 180_916,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg11": 9_277_284,
    "vgg13": 9_462_180,
    "vgg16": 14_774_436,
    "vgg19": 20_086_692,
    "mobilenetv2": 812_836,
    "shufflenetv1": 949_258,
    "shufflenetv2": 1_355_528,
}
"""With 100 classes and colour pictures, counted on RepDistiller's models."""

FEATURES = {
    **dict.fromkeys(("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"), 64),
    **dict.fromkeys(("vgg8", "vgg11", "vgg13", "vgg16", "vgg19"), 512),
    "resnet8x4": 256,
    "resnet32x4": 256,
    "resnet50": 2048,
    "wrn_16_1": 64,
    "wrn_16_2": 128,
    "wrn_40_1": 64,
    "wrn_40_2": 128,
    "mobilenetv2": 1280,
    "shufflenetv1": 960,
    "shufflenetv2": 1024,
}
"""Width of the features."""

HEADS = {
    **dict.fromkeys(("resnet50", "shufflenetv1", "shufflenetv2"), "linear"),
    **dict.fromkeys(("vgg8", "vgg11", "vgg13", "vgg16", "vgg19"), "classifier"),
    "mobilenetv2": "classifier.0",
}
"""Where the linear map lies, if not at ``fc``."""

FAMILIES = ("resnet8", "resnet8x4", "resnet50", "wrn_16_2", "vgg8", "mobilenetv2", "shufflenetv1", "shufflenetv2")
"""At least one model of each family."""

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "cifar_checkpoint_keys.json"
PUBLISHED_NAMES = {
    "resnet50": "ResNet50",
    "mobilenetv2": "MobileNetV2",
    "shufflenetv1": "ShuffleV1",
    "shufflenetv2": "ShuffleV2",
}


def seeded(name: str, seed: int = 0, num_classes: int = 100, in_channels: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return build(name, num_classes, in_channels)


def filled(name: str, seed: int = 0, num_classes: int = 100) -> nn.Module:
    """A model in eval mode and float64 whose every entry is random, the running statistics too."""
    model = seeded(name, 0, num_classes).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for key, entry in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            entry.fill_(17)
        elif key.endswith("running_var") or (key.endswith("weight") and entry.ndim == 1):
            entry.uniform_(0.5, 1.5, generator=generator)
        elif entry.ndim == 1:
            entry.normal_(0, 0.3, generator=generator)
        else:
            entry.normal_(0, math.sqrt(2 / entry[0].numel()), generator=generator)
    return model


def pictures(count: int, height: int, width: int | None = None, channels: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, height, width or height)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# --- the reference: the published architectures, on a state dict -------------------------------------


class Weights:
    """A state dict that is read by prefix, and remembers which of its entries nobody has read.

    With ``whole`` the last maps are averaged over all of the picture, in place of the published fixed window.
    """

    def __init__(self, model: nn.Module, whole: bool = False) -> None:
        self.whole = whole
        self.entries = dict(model.state_dict())
        self.unread = {key for key in self.entries if not key.endswith("num_batches_tracked")}

    def take(self, name: str) -> Tensor:
        self.unread.discard(name)
        return self.entries[name]

    def has(self, name: str) -> bool:
        return name in self.entries

    def conv(self, name: str, x: Tensor, stride: int = 1, pad: int = 0, groups: int = 1) -> Tensor:
        bias = self.take(f"{name}.bias") if self.has(f"{name}.bias") else None
        return F.conv2d(x, self.take(f"{name}.weight"), bias, stride=stride, padding=pad, groups=groups)

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, var, weight, bias = (
            self.take(f"{name}.{entry}")[:, None, None] for entry in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def pool(self, x: Tensor, window: int, ceil_mode: bool = False) -> Tensor:
        return x.mean(dim=(2, 3)) if self.whole else F.avg_pool2d(x, window, ceil_mode=ceil_mode)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.take(f"{name}.weight").T + self.take(f"{name}.bias")


def resnet_reference(w: Weights, x: Tensor, depth: int) -> Tensor:
    x = F.relu(w.norm("bn1", w.conv("conv1", x, pad=1)))
    for layer, first_stride in ((1, 1), (2, 2), (3, 2)):
        for block in range((depth - 2) // 6):
            at, stride = f"layer{layer}.{block}", first_stride if block == 0 else 1
            shortcut = x
            if w.has(f"{at}.downsample.0.weight"):
                shortcut = w.norm(f"{at}.downsample.1", w.conv(f"{at}.downsample.0", x, stride))
            x = F.relu(w.norm(f"{at}.bn1", w.conv(f"{at}.conv1", x, stride, pad=1)))
            x = F.relu(w.norm(f"{at}.bn2", w.conv(f"{at}.conv2", x, pad=1)) + shortcut)
    return w.linear("fc", w.pool(x, 8))


def resnet50_reference(w: Weights, x: Tensor) -> Tensor:
    x = F.relu(w.norm("bn1", w.conv("conv1", x, pad=1)))
    for layer, blocks, first_stride in ((1, 3, 1), (2, 4, 2), (3, 6, 2), (4, 3, 2)):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", first_stride if block == 0 else 1
            shortcut = x
            if block == 0:
                shortcut = w.norm(f"{at}.shortcut.1", w.conv(f"{at}.shortcut.0", x, stride))
            x = F.relu(w.norm(f"{at}.bn1", w.conv(f"{at}.conv1", x)))
            x = F.relu(w.norm(f"{at}.bn2", w.conv(f"{at}.conv2", x, stride, pad=1)))
            x = F.relu(w.norm(f"{at}.bn3", w.conv(f"{at}.conv3", x)) + shortcut)
    return w.linear("linear", F.adaptive_avg_pool2d(x, 1))


def wrn_reference(w: Weights, x: Tensor, depth: int) -> Tensor:
    x = w.conv("conv1", x, pad=1)
    for group, first_stride in ((1, 1), (2, 2), (3, 2)):
        for block in range((depth - 4) // 6):
            at, stride = f"block{group}.layer.{block}", first_stride if block == 0 else 1
            active = F.relu(w.norm(f"{at}.bn1", x))
            inner = F.relu(w.norm(f"{at}.bn2", w.conv(f"{at}.conv1", active, stride, pad=1)))
            widens = w.has(f"{at}.convShortcut.weight")
            x = w.conv(f"{at}.conv2", inner, pad=1) + (w.conv(f"{at}.convShortcut", active, stride) if widens else x)
    return w.linear("fc", w.pool(F.relu(w.norm("bn1", x)), 8))


def vgg_reference(w: Weights, x: Tensor, depth: int) -> Tensor:
    deep = {8: 1, 11: 2, 13: 2, 16: 3, 19: 4}[depth]
    shallow = 1 if depth in (8, 11) else 2
    height = x.shape[2]
    for block, convolutions in enumerate((shallow, shallow, deep, deep, deep)):
        for index in range(convolutions):
            x = w.conv(f"block{block}.{3 * index}", x, pad=1)
            x = F.relu(w.norm(f"block{block}.{3 * index + 1}", x))
        if block < 3 or (block == 3 and height == 64):
            x = F.max_pool2d(x, 2, 2)
    return w.linear("classifier", F.adaptive_avg_pool2d(x, 1))


def mobilenetv2_reference(w: Weights, x: Tensor) -> Tensor:
    x = F.relu(w.norm("conv1.1", w.conv("conv1.0", x, 2, pad=1)))
    for stage, (blocks, first_stride) in enumerate(((1, 1), (2, 1), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1))):
        for block in range(blocks):
            at, stride = f"blocks.{stage}.{block}.conv", first_stride if block == 0 else 1
            out = F.relu(w.norm(f"{at}.1", w.conv(f"{at}.0", x)))
            out = F.relu(w.norm(f"{at}.4", w.conv(f"{at}.3", out, stride, pad=1, groups=out.shape[1])))
            out = w.norm(f"{at}.7", w.conv(f"{at}.6", out))
            x = x + out if x.shape == out.shape and stride == 1 else out
    x = F.relu(w.norm("conv2.1", w.conv("conv2.0", x)))
    return w.linear("classifier.0", w.pool(x, 2, ceil_mode=True))


def dealt(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle, channel by channel: first the first of each group, then the second of each, …"""
    each = x.shape[1] // groups
    return x[:, [group * each + place for place in range(each) for group in range(groups)]]


def shufflenetv1_reference(w: Weights, x: Tensor) -> Tensor:
    x = F.relu(w.norm("bn1", w.conv("conv1", x)))
    for layer, blocks in ((1, 4), (2, 8), (3, 4)):
        for block in range(blocks):
            at, stride = f"layer{layer}.{block}", 2 if block == 0 else 1
            groups = 1 if (layer, block) == (1, 0) else 3
            out = dealt(F.relu(w.norm(f"{at}.bn1", w.conv(f"{at}.conv1", x, groups=groups))), groups)
            out = F.relu(w.norm(f"{at}.bn2", w.conv(f"{at}.conv2", out, stride, pad=1, groups=out.shape[1])))
            out = w.norm(f"{at}.bn3", w.conv(f"{at}.conv3", out, groups=3))
            x = F.relu(torch.cat([out, F.avg_pool2d(x, 3, 2, 1)], 1) if stride == 2 else out + x)
    return w.linear("linear", w.pool(x, 4))


def shufflenetv2_reference(w: Weights, x: Tensor) -> Tensor:
    def step(name: str, number: int, x: Tensor, stride: int = 0) -> Tensor:
        """A pointwise convolution, or (with a stride) one that filters each channel by itself, and its norm."""
        own = {"stride": stride, "pad": 1, "groups": x.shape[1]} if stride else {}
        return w.norm(f"{name}.bn{number}", w.conv(f"{name}.conv{number}", x, **own))

    x = F.relu(w.norm("bn1", w.conv("conv1", x)))
    for layer, blocks in ((1, 3), (2, 7), (3, 3)):
        at = f"layer{layer}.0"
        left = F.relu(step(at, 2, step(at, 1, x, 2)))
        right = F.relu(step(at, 5, step(at, 4, F.relu(step(at, 3, x)), 2)))
        x = dealt(torch.cat([left, right], 1), 2)
        for block in range(1, blocks + 1):
            at = f"layer{layer}.{block}"
            passing, worked = x.chunk(2, 1)
            worked = F.relu(step(at, 3, step(at, 2, F.relu(step(at, 1, worked)), 1)))
            x = dealt(torch.cat([passing, worked], 1), 2)
    x = F.relu(w.norm("bn2", w.conv("conv2", x)))
    return w.linear("linear", w.pool(x, 4))


def reference_of(name: str) -> Callable[[Weights, Tensor], Tensor]:
    whole = {
        "resnet50": resnet50_reference,
        "mobilenetv2": mobilenetv2_reference,
        "shufflenetv1": shufflenetv1_reference,
        "shufflenetv2": shufflenetv2_reference,
    }
    if name in whole:
        return whole[name]
    depth = int(name.removeprefix("wrn_").removeprefix("resnet").removeprefix("vgg").split("x")[0].split("_")[0])
    of_depth = {"w": wrn_reference, "r": resnet_reference, "v": vgg_reference}[name[0]]
    return lambda weights, images: of_depth(weights, images, depth)


# --- what the models are -----------------------------------------------------------------------------


def test_the_table_names_every_model_of_the_catalogue() -> None:
    assert set(PARAMETERS) == set(FEATURES) == set(CIFAR_MODELS)


@pytest.mark.parametrize("name", CIFAR_MODELS)
def test_a_model_has_as_many_parameters_as_the_published_one(name: str) -> None:
    with torch.device("meta"):
        model = build(name, 100, 3)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    head = model.get_submodule(HEADS.get(name, "fc"))
    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features) == (FEATURES[name], 100)


@pytest.mark.parametrize("name", CIFAR_MODELS)
def test_the_entries_of_a_state_dict_are_those_of_published_checkpoints(name: str) -> None:
    if not REFERENCE.is_file():
        pytest.skip(f"{REFERENCE} is not there")
    published = json.loads(REFERENCE.read_text())[PUBLISHED_NAMES.get(name, name)]
    with torch.device("meta"):
        own = {key: list(tensor.shape) for key, tensor in build(name, 100, 3).state_dict().items()}
    assert own == published


@pytest.mark.parametrize("name", CIFAR_MODELS)
def test_logits_are_those_of_the_published_architecture(name: str) -> None:
    model, images = filled(name), pictures(2, 32)
    weights = Weights(model)
    with torch.no_grad():
        expected = reference_of(name)(weights, images)
        found = model(images)
    assert not weights.unread
    assert expected.std(dim=0).mean() > 1e-3 * expected.abs().mean()  # else a constant would do
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, size) for name in ("vgg8", "vgg13", "resnet50") for size in (8, 20, 64)),
        *(("mobilenetv2", 8), ("mobilenetv2", 20)),
    ],
)
def test_logits_of_other_sizes_are_the_published_ones_where_those_are_defined(name: str, size: int) -> None:
    """RepDistiller's other models pool with a fixed window, and take 32x32 alone."""
    model, images = filled(name, seed=2), pictures(1, size, seed=3)
    with torch.no_grad():
        expected = reference_of(name)(Weights(model), images)
        found = model(images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_what_the_linear_map_sees(name: str) -> None:
    model, images = filled(name, num_classes=7), pictures(3, 9)
    seen: list[Tensor] = []
    head = model.get_submodule(HEADS.get(name, "fc"))
    assert isinstance(head, nn.Linear)
    handle = head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    with torch.no_grad():
        logits = model(images)
        handle.remove()
        features = model.features(images)  # type: ignore[operator]
        both = with_features(model, images)
        assert torch.equal(head(features), logits)
    assert features.shape == (3, FEATURES[name])
    assert len(seen) == 1
    assert torch.equal(seen[0], features)
    assert torch.equal(both[0], logits)
    assert torch.equal(both[1], features)


# --- sizes, channels, modes --------------------------------------------------------------------------


SIZES = ((8, 8), (8, 13), (11, 8), (17, 31), (8, 64), (64, 8), (65, 9))


@pytest.mark.parametrize("name", [*FAMILIES, "vgg13", "wrn_16_1"])
def test_pictures_may_have_any_size_from_eight_pixels_on(name: str) -> None:
    model = seeded(name, num_classes=5).eval()
    refused = []
    for height, width in SIZES:
        try:
            with torch.no_grad():
                logits = model(torch.rand(1, 3, height, width))
        except RuntimeError:
            refused.append((height, width))
            continue
        assert logits.shape == (1, 5), (height, width)
        assert logits.isfinite().all(), (height, width)
    assert not refused


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_the_mean_over_all_of_a_picture_of_any_size(name: str) -> None:
    """A fixed window would leave out the last rows or columns."""
    model = filled(name, num_classes=5)
    for images in (pictures(1, 40, 24), pictures(1, 13, 9)):
        with torch.no_grad():
            expected = reference_of(name)(Weights(model, whole=True), images)
            torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("name", CIFAR_MODELS)
def test_grey_pictures_have_one_channel_in_the_first_convolution_alone(name: str) -> None:
    with torch.device("meta"):
        grey, colour = seeded(name, num_classes=5, in_channels=1), seeded(name, num_classes=5)
        assert grey.eval()(torch.rand(2, 1, 8, 8)).shape == (2, 5)
    shapes = [{key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} for model in (grey, colour)]
    (different,) = [key for key in shapes[0] if shapes[0][key] != shapes[1][key]]
    assert different == next(iter(shapes[0]))
    assert (shapes[0][different][1], shapes[1][different][1]) == (1, 3)


@pytest.mark.parametrize("name", CIFAR_MODELS)
def test_two_pictures_of_eight_pixels_can_be_trained_on(name: str) -> None:
    model = seeded(name, num_classes=5).train()
    model(torch.rand(2, 3, 8, 8)).logsumexp(dim=1).sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
    counters = [tensor for key, tensor in model.state_dict().items() if key.endswith("num_batches_tracked")]
    assert counters
    assert all(counter == 1 for counter in counters)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_leaves_its_input_and_in_eval_mode_its_statistics_alone(name: str) -> None:
    model, images = filled(name, num_classes=5), pictures(3, 8)
    kept, before = images.clone(), {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with torch.no_grad():
        whole = model(images)
        torch.testing.assert_close(model(images[1:2]), whole[1:2], rtol=1e-9, atol=1e-9)
    assert torch.equal(images, kept)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "resnet8x4"])
def test_a_model_of_each_family_can_be_exported_for_any_batch(name: str) -> None:
    model = seeded(name, num_classes=5).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(model, (torch.rand(4, 3, 32, 32),), dynamic_shapes=({0: batch},)).module()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(exported(images), model(images))


# --- how the weights begin ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_the_first_weights_are_a_function_of_torchs_seed(name: str) -> None:
    one, again, other = (seeded(name, seed, 5).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    matrices = [key for key in one if one[key].ndim > 1]
    assert matrices
    assert all(not torch.equal(one[key], other[key]) for key in matrices)


def convolutions(model: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() >= 2000:
            yield path, module


@pytest.mark.parametrize("name", FAMILIES)
def test_the_first_weights_spread_as_in_the_published_code(name: str) -> None:
    """Variance 2 / (kernel · output channels); the shuffling networks have torch's own, 1 / (3 · inputs)."""
    model = seeded(name)
    for path, module in convolutions(model):
        if name.startswith("shuffle"):
            wanted = 1 / math.sqrt(3 * module.weight[0].numel())
        else:
            wanted = math.sqrt(2 / (module.kernel_size[0] * module.kernel_size[1] * module.out_channels))
        deviation = 6 / math.sqrt(2 * module.weight.numel())
        assert float(module.weight.detach().std()) == pytest.approx(wanted, rel=deviation), path
        assert abs(float(module.weight.detach().mean())) < 6 * wanted / math.sqrt(module.weight.numel()), path
        assert module.bias is None or not module.bias.any(), path
    for path, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all(), path
            assert not module.bias.any(), path
            assert (module.eps, module.momentum) == (1e-5, 0.1), path
    head = model.get_submodule(HEADS.get(name, "fc"))
    assert isinstance(head, nn.Linear)
    small = name.startswith(("vgg", "mobilenet"))
    wanted = 0.01 if small else 1 / math.sqrt(3 * head.in_features)
    assert float(head.weight.detach().std()) == pytest.approx(wanted, rel=0.1)
    assert bool(head.bias.any()) != (small or name.startswith("wrn"))
