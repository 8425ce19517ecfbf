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

TRACED_LENGTH = 8
"""Tokens of the blank text with which a model that takes any number of them is followed."""

PACKAGES: dict[str, tuple[str, ...]] = {
    "safetensors": ("safetensors",),
    "onnx": ("onnx", "onnxscript"),
    "torch-export": (),
}
"""What writes each, beside torch; those of ``onnx`` come with the extra of that name."""

Predict = Callable[["Tensor"], "Tensor"]
"""(N, …) inputs → (N, classes) logits, on the CPU."""


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


def write_student(format: str, folder: Path, student: nn.Module, config: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Writes a student and its ``config.json``; returns the shape of an input of what was written.

    A number in the place of a word where the format takes one length of a text only.

    Args:
        format: one of ``FORMATS``.
        folder: where to.
        student: in eval mode, on the CPU.
        config: as ``load_exported`` reads it.

    Raises:
        WslSweepError: the model does something that the format cannot say.
    """
    shape: tuple[int | str, ...] = tuple(config["input"]["shape"][1:])
    path = folder / FORMATS[format]
    if format == "safetensors":
        _write_safetensors(path, student, config)
    else:
        shape = _write_traced(format, path, student, config["input"], str(config["model"]))
    config = {**config, "input": {**config["input"], "shape": [config["input"]["shape"][0], *shape]}}
    write_whole(folder / CONFIG, (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return shape


def _write_traced(
    format: str, path: Path, student: nn.Module, input: Mapping[str, Any], model: str
) -> tuple[int | str, ...]:
    """Writes the program of a student; of a text for every length, or else for the longest."""
    write = _write_onnx if format == "onnx" else _write_torch_export
    free: tuple[int | str, ...] = tuple(input["shape"][1:])
    fixed = tuple(input["longest"] if isinstance(size, str) else size for size in free)
    for shape in dict.fromkeys((free, fixed)):
        try:
            write(path, student, {**input, "shape": shape})
        except OSError:
            raise
        except Exception as error:  # a user's own forward may do anything
            if shape == fixed:
                raise WslSweepError(
                    f'"{model}" cannot be exported as {format}: {told(error)}; --format safetensors takes any student'
                ) from error
        else:
            break
    return shape


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
        The model in eval mode on the CPU: (N, …) inputs as ``config.json`` says, pictures normalised, to (N, classes)
        logits.

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


def _write_torch_export(path: Path, student: nn.Module, input: Mapping[str, Any]) -> None:
    import torch

    program, _, _ = _traced(student, input)
    torch.export.save(program, path)


def _write_onnx(path: Path, student: nn.Module, input: Mapping[str, Any]) -> None:
    """One file, but for a model of gigabytes, whose weights come to lie in ``model.onnx.data`` beside it."""
    import onnx
    import torch

    program, example, free = _traced(student, input)
    made = torch.onnx.export(
        program,
        (example,),
        dynamo=True,
        dynamic_shapes=free,
        input_names=[input["name"]],
        output_names=["logits"],
        opset_version=OPSET,
        verbose=False,
    )
    assert made is not None
    made.save(path)
    onnx.checker.check_model(str(path), full_check=True)


def _traced(student: nn.Module, input: Mapping[str, Any]) -> tuple[Any, Tensor, Any]:
    """The program of a student for any number of examples, an example of them, and what is free in it.

    The example is blank, and where in whose files an operation was written is left out: both would be in the file.
    """
    import torch

    shape, any_of = input["shape"], {0: torch.export.Dim("batch")}
    for place, size in enumerate(shape, start=1):
        if isinstance(size, str):
            any_of[place] = torch.export.Dim(size, min=2, max=int(input["longest"]))
    sizes = [TRACED_LENGTH if isinstance(size, str) else size for size in shape]
    example = torch.zeros(2, *sizes, dtype=getattr(torch, input["dtype"]))  # one row would freeze the batch size
    free = (any_of,)
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
    name = evaluator.input_names[0]

    def predict(inputs: Tensor) -> Tensor:
        (logits,) = evaluator.run(["logits"], {name: inputs.contiguous().numpy()})
        return torch.from_numpy(logits)

    return predict
