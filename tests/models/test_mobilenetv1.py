"""MobileNet-v1: as large as the published one, for pictures of any size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsl_sweep.models import build, with_features
from wsl_sweep.spec.catalogue import MOBILENETV1_WIDTHS

PARAMETERS = {
    "mobilenetv1": 4_231_976,
    "mobilenetv1_x075": 2_585_560,
    "mobilenetv1_x050": 1_331_592,
    "mobilenetv1_x025": 470_072,
}
"""With 1000 classes and colour pictures: Howard et al.'s 4.2, 2.6, 1.3 and 0.5 million (Table 7)."""

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
NARROW = "mobilenetv1_x025"


def seeded(name: str, num_classes: int = 7, in_channels: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(name, num_classes, in_channels)


def pictures(count: int, height: int, width: int | None = None, channels: int = 3) -> Tensor:
    return torch.randn(count, channels, height, width or height, generator=torch.Generator().manual_seed(1))


def by_formula(width: float, classes: int, channels: int) -> int:
    """A 3x3 convolution; thirteen times 3x3 by channel and 1x1; all normalised; a linear map with a bias."""
    inputs = int(32 * width)
    total = 9 * channels * inputs + 2 * inputs
    for full in CHANNELS:
        outputs = int(full * width)
        total += 9 * inputs + 2 * inputs + inputs * outputs + 2 * outputs
        inputs = outputs
    return total + inputs * classes + classes


def test_every_width_of_the_paper_is_here() -> None:
    assert set(PARAMETERS) == set(MOBILENETV1_WIDTHS)
    assert sorted(MOBILENETV1_WIDTHS.values()) == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_has_as_many_parameters_as_the_published_one(name: str) -> None:
    width = MOBILENETV1_WIDTHS[name]
    for classes, channels, expected in ((1000, 3, PARAMETERS[name]), (7, 1, by_formula(width, 7, 1))):
        with torch.device("meta"):
            model = build(name, classes, channels)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected
        assert by_formula(width, classes, channels) == expected
        assert isinstance(model.fc, nn.Linear)
        assert (model.fc.in_features, model.fc.out_features) == (1024 * width, classes)


def reference(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The published architecture on a state dict, convolution by convolution."""

    def step(prefix: str, at: int, x: Tensor, stride: int, size: int, groups: int = 1) -> Tensor:
        x = F.conv2d(x, weights[f"{prefix}.{at}.weight"], stride=stride, padding=size // 2, groups=groups)
        mean, var, scale, shift = (
            weights[f"{prefix}.{at + 1}.{entry}"][:, None, None]
            for entry in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / torch.sqrt(var + 1e-5) * scale + shift).clamp(min=0)

    x = step("conv1", 0, x, 2, 3)
    for block, stride in enumerate(STRIDES):
        x = step(f"blocks.{block}", 0, x, stride, 3, groups=x.shape[1])
        x = step(f"blocks.{block}", 3, x, 1, 1)
    return x.flatten(2).mean(dim=2) @ weights["fc.weight"].T + weights["fc.bias"]


def test_logits_are_those_of_the_published_architecture() -> None:
    model = seeded(NARROW).double().eval()
    generator = torch.Generator().manual_seed(3)
    for key, entry in model.state_dict().items():
        if key.endswith("running_var"):
            entry.uniform_(0.01, 0.1, generator=generator)
        elif key.endswith(("running_mean", "bias")):
            entry.normal_(0, 0.1, generator=generator)
    images = pictures(3, 64, 96).double()
    with torch.no_grad():
        expected, found = reference(model.state_dict(), images), model(images)
    assert expected.std(dim=0).min() > 1e-6
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 64), (224, 224)])
def test_pictures_may_have_any_size_and_are_halved_five_times(size: tuple[int, int]) -> None:
    model, seen = seeded(NARROW).eval(), []
    model.get_submodule("blocks.12").register_forward_hook(lambda _, given, maps: seen.append(maps.shape))
    with torch.no_grad():
        logits, features = with_features(model, pictures(2, *size))
    assert (logits.shape, features.shape) == ((2, 7), (2, 256))
    assert seen == [(2, 256, *(-(-side // 32) for side in size))]
    torch.testing.assert_close(model.fc(features), logits)  # type: ignore[operator]


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_picture_may_have_other_channels(channels: int) -> None:
    assert seeded(NARROW, in_channels=channels).eval()(pictures(2, 32, channels=channels)).shape == (2, 7)


def test_every_weight_has_a_gradient_and_steps_lower_the_loss() -> None:
    model = seeded(NARROW).train()
    images, labels = pictures(8, 64), torch.arange(8) % 7
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(6):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        for path, parameter in model.named_parameters():
            assert parameter.grad is not None, path
            assert parameter.grad.isfinite().all(), path
            assert parameter.grad.abs().sum() > 0, path
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0]
