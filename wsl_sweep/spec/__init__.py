"""The search-space file: read, checked and expanded into trials. Plain data; no torch, no Ray, no MLflow."""

from wsl_sweep.spec.loading import CommandLine, SpecErrors, load_spec, parse_spec
from wsl_sweep.spec.plan import Trial, make_plan
from wsl_sweep.spec.spec import Spec

__all__ = ["CommandLine", "Spec", "SpecErrors", "Trial", "load_spec", "make_plan", "parse_spec"]
