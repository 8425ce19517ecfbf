"""Models by name."""

from __future__ import annotations

import pytest
import torch

from wsl_sweep.errors import WslSweepError
from wsl_sweep.models import build
from wsl_sweep.spec.catalogue import MODELS


def seeded(name: str, seed: int, num_classes: int = 10, in_channels: int = 1) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(name, num_classes, in_channels)


@pytest.mark.parametrize("name", MODELS)
def test_every_name_of_the_catalogue_builds_a_classifier_that_learns(name: str) -> None:
    model = seeded(name, 0, num_classes=7, in_channels=2)
    logits = model(torch.rand(3, 2, 8, 8))
    assert logits.shape == (3, 7)
    assert logits.dtype == torch.float32
    logits.logsumexp(dim=1).sum().backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path


@pytest.mark.parametrize(("width", "channels", "classes"), [(2, 1, 10), (4, 1, 10), (32, 3, 100)])
def test_a_convnet_has_as_many_parameters_as_its_layers_say(width: int, channels: int, classes: int) -> None:
    """Three 3x3 convolutions without bias, their batch normalisations, one linear layer."""
    convolutions = 9 * (channels * width + width * 2 * width + 2 * width * 4 * width)
    normalisations = 2 * (width + 2 * width + 4 * width)
    classifier = 4 * width * classes + classes
    model = seeded(f"convnet_{width}", 0, classes, channels)
    assert sum(p.numel() for p in model.parameters()) == convolutions + normalisations + classifier


def test_the_same_seed_makes_the_same_weights_and_another_seed_others() -> None:
    one, again, other = (seeded("convnet_4", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 7), (32, 32)])
def test_pictures_may_have_any_size_from_four_pixels_on(size: tuple[int, int]) -> None:
    assert seeded("convnet_2", 0)(torch.rand(2, 1, *size)).shape == (2, 10)


def test_the_features_are_what_the_classifier_sees() -> None:
    model = seeded("convnet_3", 0).eval()
    images = torch.rand(5, 1, 8, 8)
    features = model.features(images)  # type: ignore[operator]
    assert features.shape == (5, 12)
    torch.testing.assert_close(features, model.body(images).mean(dim=3).mean(dim=2))  # type: ignore[operator]
    assert torch.equal(model.classifier(features), model(images))  # type: ignore[operator]


def test_in_eval_mode_an_example_does_not_see_the_rest_of_its_batch() -> None:
    model = seeded("convnet_4", 0).eval()
    images = torch.rand(6, 1, 8, 8)
    torch.testing.assert_close(model(images)[2:3], model(images[2:3]))


def test_building_a_model_does_not_change_its_input() -> None:
    images = torch.rand(4, 1, 8, 8)
    kept = images.clone()
    seeded("convnet_4", 0)(images)
    assert torch.equal(images, kept)


@pytest.mark.parametrize("name", ["convnet_5", "convnet", "convnet_04", "convnet_4 "])
def test_an_unknown_name_is_refused_with_the_nearest_one(name: str) -> None:
    with pytest.raises(WslSweepError, match=r'did you mean "convnet_\d+"'):
        build(name, 10)


def test_a_name_that_is_like_no_other_is_refused_with_the_list() -> None:
    with pytest.raises(WslSweepError, match="there is: convnet_2, convnet_3"):
        build("transformer", 10)


def test_a_classifier_has_two_classes_or_more() -> None:
    with pytest.raises(WslSweepError, match="two classes"):
        build("convnet_2", 1)
