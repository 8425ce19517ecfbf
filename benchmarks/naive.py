"""The script that people write today for such a sweep: Ray Tune, torchvision, a DataLoader, MLflow's callback.

    python -m benchmarks.naive JOB.json

``benchmarks.sweep`` and ``benchmarks.start`` run it beside ``wsl-sweep run``. Ray's defaults throughout; models, split,
loss and the teacher's weights are the package's own, so that only the machinery differs. JOB.json has ``config`` (a
resolved configuration of a digits recipe), ``alphas``, ``seeds``, ``teacher`` (a safetensors file or null),
``tracking_uri``, ``loader_workers`` and ``results``, the file that is written.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from wsl_sweep.data import load
from wsl_sweep.data.digits import load_digits
from wsl_sweep.distill import distillation_loss, soft_label_weights
from wsl_sweep.models import build

EVALUATION_BATCH = 256


class Pictures(Dataset[tuple[Tensor, int]]):
    """uint8 pictures with labels, through transforms."""

    def __init__(self, images: Tensor, labels: Tensor, transform: transforms.Compose) -> None:
        self.images, self.labels, self.transform = images, labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def parts(dataset: dict[str, Any]) -> tuple[Pictures, Pictures]:
    """Training and validation pictures of a ``dataset`` section: the package's split, torchvision's augmentation."""
    raw, data = load_digits(), load(dataset)
    assert raw.mean is not None
    assert raw.std is not None
    # ToTensor divides by 255, and the largest value of these pictures is raw.scale.
    factor = raw.scale / 255
    plain = [
        transforms.ToTensor(),
        transforms.Normalize((raw.mean * factor).tolist(), (raw.std * factor).tolist()),
    ]
    crop = transforms.RandomCrop(raw.images.shape[-1], padding=dataset["padding"])
    augmented = transforms.Compose([transforms.ToPILImage(), crop, *plain])
    train, validation = data.train, data.validation
    return (
        Pictures(raw.images[train.ids], train.labels, augmented),
        Pictures(raw.images[validation.ids], validation.labels, transforms.Compose([transforms.ToPILImage(), *plain])),
    )


def loss_of(
    logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, alpha: float, distillation: dict[str, Any]
) -> Tensor:
    """Cross-entropy, and the weighted soft labels where there is a teacher."""
    if teacher_logits is None:
        return F.cross_entropy(logits, labels)
    weights = soft_label_weights(logits, teacher_logits, labels, distillation["weighting"]["kind"])
    soft = distillation_loss(logits, teacher_logits, distillation["temperature"])
    ce_weight: float = distillation["ce_weight"]
    return ce_weight * F.cross_entropy(logits, labels) + alpha * (weights * soft).mean()


@torch.no_grad()
def accuracy_of(model: nn.Module, loader: DataLoader[tuple[Tensor, int]]) -> float:
    """The fraction that the model has right."""
    model.eval()
    correct = count = 0
    for images, labels in loader:
        correct += int((model(images).argmax(dim=1) == labels).sum())
        count += len(labels)
    return correct / count


def train(cell: dict[str, Any], job: dict[str, Any]) -> None:
    """The trainable: one student, a report an epoch."""
    config = job["config"]
    schedule, settings = config["schedule"], config["optimizer"]
    torch.manual_seed(cell["seed"])
    train_set, validation_set = parts(config["dataset"])
    workers = job["loader_workers"]
    train_loader = DataLoader(
        train_set,
        batch_size=schedule["batch_size"],
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    validation_loader = DataLoader(
        validation_set, batch_size=EVALUATION_BATCH, num_workers=workers, persistent_workers=workers > 0
    )
    student = build(config["student"]["model"], 10, 1)
    teacher = None
    if job["teacher"] is not None:
        teacher = build(config["teacher"]["model"], 10, 1)
        teacher.load_state_dict(load_file(job["teacher"]))
        teacher.eval()
    optimizer = torch.optim.SGD(
        student.parameters(),
        lr=settings["lr"],
        momentum=settings["momentum"],
        nesterov=settings["nesterov"],
        weight_decay=settings["weight_decay"],
    )
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, schedule["milestones"], schedule["decay"])
    for _ in range(schedule["epochs"]):
        student.train()
        for images, labels in train_loader:
            teacher_logits = None
            if teacher is not None:
                with torch.no_grad():
                    teacher_logits = teacher(images)
            loss = loss_of(student(images), teacher_logits, labels, cell["alpha"], config["distillation"])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        scheduler.step()
        tune.report({"accuracy": accuracy_of(student, validation_loader)})


class Ends(tune.Callback):  # type: ignore[misc]
    """When each trial ended, to better than Ray's whole seconds."""

    def __init__(self) -> None:
        self.ended: dict[str, float] = {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Ray's hook."""
        self.ended[trial.trial_id] = time.time()


def main() -> None:
    """Runs the job and writes its results."""
    ends = Ends()
    job = json.loads(Path(sys.argv[1]).read_text())
    with tempfile.TemporaryDirectory(prefix="naive-ray-") as storage:
        tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(train, job=job), {"cpu": 1}),
            param_space={"alpha": tune.grid_search(job["alphas"]), "seed": tune.grid_search(job["seeds"])},
            tune_config=tune.TuneConfig(metric="accuracy", mode="max"),
            run_config=tune.RunConfig(
                storage_path=storage,
                name="naive",
                callbacks=[MLflowLoggerCallback(tracking_uri=job["tracking_uri"], experiment_name="naive"), ends],
            ),
        )
        results = tuner.fit()
    if results.errors:
        raise SystemExit(str(results.errors[0]))
    found = [
        {
            "alpha": result.config["alpha"],
            "seed": result.config["seed"],
            "accuracy": result.metrics["accuracy"],
            "ended": ends.ended[result.metrics["trial_id"]],
            "seconds": result.metrics["time_total_s"],
            "worker": str(result.metrics["pid"]),
        }
        for result in results
    ]
    Path(job["results"]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
