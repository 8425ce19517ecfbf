"""Process-wide settings: put where every trial expects them."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from wsl_sweep.errors import WslSweepError
from wsl_sweep.spec.spec import settle_precision
from wsl_sweep.training.device import autocast, prepare_process


def test_a_process_is_prepared_whatever_it_was_used_for() -> None:
    prepare_process(1)
    wanted = torch.rand(3), random.random(), np.random.rand()
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    torch.backends.cudnn.benchmark = True
    prepare_process(2)
    assert torch.get_num_threads() == 2
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
    assert not torch.backends.cudnn.benchmark
    found = torch.rand(3), random.random(), np.random.rand()
    assert torch.equal(found[0], wanted[0])
    assert found[1:] == wanted[1:]


@pytest.fixture
def narrow_products() -> Iterator[None]:
    """Matrix products in bfloat16 inside, as a notebook may have asked for before."""
    torch.set_float32_matmul_precision("medium")
    yield
    torch.backends.mkldnn.matmul.fp32_precision = "none"  # type: ignore[attr-defined]


@pytest.mark.usefixtures("narrow_products")
def test_products_are_float32_whatever_was_asked_for_before() -> None:
    """A stored logit must be the bits of a computed one. Machines without narrow products hold it anyway."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.rand(256, 256, generator=generator) for _ in range(2))
    prepare_process(1)
    wanted = (left.double() @ right.double()).float()
    torch.testing.assert_close(left @ right, wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("width", "hidden"), [(36, 6), (33, 17), (100, 7), (768, 3)])
def test_what_is_computed_of_an_example_does_not_depend_on_its_place_in_the_batch(
    width: int, hidden: int, threads: int
) -> None:
    """Some processors' products do, unless MKL is told otherwise before its first one."""
    prepare_process(threads)
    model = torch.nn.Sequential(torch.nn.Linear(width, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 11))
    batch, order = torch.randn(64, width), torch.randperm(64)
    with torch.no_grad():
        assert torch.equal(model(batch)[order], model(batch[order]))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_named_precision_is_itself(precision: str, kind: str) -> None:
    assert settle_precision(precision, kind) == precision


def test_auto_is_float32_on_a_cpu() -> None:
    assert settle_precision("auto", "cpu") == "float32"


def test_autocast_narrows_where_it_is_asked_to() -> None:
    a = torch.rand(4, 4)
    with autocast("cpu", "float32"):
        assert (a @ a).dtype == torch.float32
    with autocast("cpu", "bfloat16"):
        assert (a @ a).dtype == torch.bfloat16


def test_a_precision_that_nobody_settled_is_refused() -> None:
    with pytest.raises(WslSweepError, match="'auto'"):
        autocast("cpu", "auto")


def test_a_model_can_be_exported_in_a_prepared_process() -> None:
    """``torch.export`` reads older flags, which must say what the newer ones say."""
    prepare_process(1)
    model = torch.nn.Conv2d(1, 2, 3).eval()
    pictures = torch.rand(2, 1, 8, 8)
    exported = torch.export.export(model, (pictures,)).module()
    assert torch.equal(exported(pictures), model(pictures))
    assert not torch.backends.cudnn.allow_tf32
