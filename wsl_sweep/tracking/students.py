"""The best student as an MLflow model."""

from __future__ import annotations

import os
from typing import Any

from wsl_sweep.tracking.settings import Tracking


def log_student(
    tracking: Tracking,
    parent_id: str,
    student: Any,
    example: Any,
    *,
    any_length: bool = False,
    artifact: str = "best_student",
) -> str:
    """Logs a student to the parent run as an MLflow model that loads back and predicts; returns its URI.

    Args:
        tracking: the server.
        parent_id: the sweep's run.
        student: a torch module in eval mode, on the CPU.
        example: (N >= 2, …) numpy inputs, of the dtype that it reads: two rows leave the batch size free.
        any_length: whether inputs may have any size in their last dimension, as those of a text.
        artifact: the model's name.
    """
    import mlflow
    import torch
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types import Schema, TensorSpec

    client = mlflow.MlflowClient(tracking_uri=tracking.uri)
    logged = client.get_run(parent_id).outputs
    if logged is not None and logged.model_outputs:
        return f"models:/{logged.model_outputs[0].model_id}"
    with torch.no_grad():
        prediction = student(torch.from_numpy(example)).numpy()
    signature = infer_signature(example, prediction)
    if any_length:
        free = (-1, *example.shape[1:-1], -1)
        signature = ModelSignature(inputs=Schema([TensorSpec(example.dtype, free)]), outputs=signature.outputs)
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking.uri)  # which sets the environment variable too
    try:
        with mlflow.start_run(run_id=parent_id):
            info = mlflow.pytorch.log_model(
                student,
                name=artifact,
                signature=signature,
                input_example=example,
                pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
                serialization_format="pt2",
            )
        return str(info.model_uri)
    finally:
        mlflow.set_tracking_uri(before)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
