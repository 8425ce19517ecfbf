"""The forms in which a trained student is taken away: how each is written, and read back by who has only the folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsl_sweep.errors import WslSweepError
from wsl_sweep.files import write_whole
from wsl_sweep.spec.catalogue import nearest
from wsl_sweep.user_code import told

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMATS: dict[str, str] = {
    "safetensors": "model.safetensors",
    "onnx": "model.onnx",
    "torch-export": "model.pt2",
}
"""Format → the file that holds the student."""

CONFIG = "config.json"

OPSET = 18
"""Of the ONNX file: the one in which torch's exporter writes, so that nothing is converted."""

PACKAGES: dict[str, tuple[str, ...]] = {
    "safetensors": ("safetensors",),
    "onnx": ("onnx", "onnxscript"),
    "torch-export": (),
}
"""What writes each, beside torch; those of ``onnx`` come with the extra of that name."""

Predict = Callable[["Tensor"], "Tensor"]
"""(N, C, H, W) pictures → (N, classes) logits, on the CPU."""


def check_format(format: str) -> None:
    """Whether a student can be written so here.

    Raises WslSweepError: there is no such format, or its packages are missing.
    """
    if format not in FORMATS:
        close = nearest(format, FORMATS)
        hint = f'; did you mean "{close}"?' if close is not None else ""
        raise WslSweepError(f"--format must be one of {', '.join(FORMATS)}, not {format!r}{hint}")
    missing = [name for name in PACKAGES[format] if find_spec(name) is None]
    if missing:
        raise WslSweepError(f"--format {format} needs {' and '.join(missing)}: pip install 'wsl-sweep[{format}]'")


def write_student(format: str, folder: Path, student: nn.Module, config: Mapping[str, Any]) -> None:
    """Writes a student and its ``config.json``.

    Args:
        format: one of ``FORMATS``.
        folder: where to.
        student: in eval mode, on the CPU.
        config: as ``load_exported`` reads it.

    Raises:
        WslSweepError: the model does something that the format cannot say.
    """
    write_whole(folder / CONFIG, (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
    path = folder / FORMATS[format]
    if format == "safetensors":
        _write_safetensors(path, student, config)
        return
    try:
        (_write_onnx if format == "onnx" else _write_torch_export)(path, student, config["input"]["shape"][1:])
    except OSError:
        raise
    except Exception as error:  # a user's own forward may do anything
        raise WslSweepError(
            f'"{config["model"]}" cannot be exported as {format}: {told(error)}; --format safetensors takes any student'
        ) from error


def read_student(format: str, folder: Path) -> Predict:
    """What was written, loaded back as its user would."""
    path = folder / FORMATS[format]
    if format == "safetensors":
        return load_exported(folder)
    if format == "onnx":
        return _read_onnx(path)
    import torch

    predict: Predict = torch.export.load(path).module()
    return predict


def load_exported(folder: str | Path) -> nn.Module:
    """The student in a folder that ``wsl-sweep export --format safetensors`` has written.

    A student that is a user's own model (``package.module:name``) has its module imported, which Python must find.

    Returns:
        The model in eval mode on the CPU: (N, C, H, W) float32 pictures, normalised as ``config.json`` says, to
        (N, classes) logits.

    Raises:
        WslSweepError: the folder holds no such student, or its files are damaged.

    Example:
        >>> from wsl_sweep.app import load_exported
        >>> model = load_exported("alpha-fd9a9b881d2c-safetensors")  # doctest: +SKIP
    """
    from wsl_sweep.models import build
    from wsl_sweep.training.weights import build_with_seed, load_into

    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_bytes())
        name, classes, channels = str(config["model"]), int(config["num_classes"]), int(config["in_channels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WslSweepError(f"{path} does not describe an exported student ({told(error)})") from error
    model = build_with_seed(lambda: build(name, classes, channels), 0)  # leaves the caller's random states alone
    load_into(model, Path(folder) / FORMATS["safetensors"], name)
    return model.eval()


def _write_safetensors(path: Path, student: nn.Module, config: Mapping[str, Any]) -> None:
    from safetensors.torch import save

    metadata = {name: str(config[name]) for name in ("model", "num_classes", "in_channels")}
    tensors = {name: tensor.contiguous() for name, tensor in student.state_dict().items()}
    write_whole(path, save(tensors, {"format": "pt", **metadata}))


def _write_torch_export(path: Path, student: nn.Module, shape: list[int]) -> None:
    import torch

    program, _, _ = _traced(student, shape)
    torch.export.save(program, path)


def _write_onnx(path: Path, student: nn.Module, shape: list[int]) -> None:
    """One file, but for a model of gigabytes, whose weights come to lie in ``model.onnx.data`` beside it."""
    import onnx
    import torch

    program, example, free = _traced(student, shape)
    made = torch.onnx.export(
        program,
        (example,),
        dynamo=True,
        dynamic_shapes=free,
        input_names=["images"],
        output_names=["logits"],
        opset_version=OPSET,
        verbose=False,
    )
    assert made is not None
    made.save(path)
    onnx.checker.check_model(str(path), full_check=True)


def _traced(student: nn.Module, shape: list[int]) -> tuple[Any, Tensor, Any]:
    """The program of a student for any number of pictures, an example of them, and what is free in it.

    The example is blank, and where in whose files an operation was written is left out: both would be in the file.
    """
    import torch

    example = torch.zeros(2, *shape)  # one row would freeze the batch size
    free = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        program = torch.export.export(student, (example,), dynamic_shapes=free)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program, example, free


def _read_onnx(path: Path) -> Predict:
    """By ONNX's own reference implementation: slow, and nobody's runtime."""
    import torch
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))

    def predict(images: Tensor) -> Tensor:
        (logits,) = evaluator.run(["logits"], {"images": images.contiguous().numpy()})
        return torch.from_numpy(logits)

    return predict
