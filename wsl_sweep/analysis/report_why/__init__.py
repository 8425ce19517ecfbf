"""The parts of a sweep's report that say why: each from data that are there, each absent where they are not."""

from wsl_sweep.analysis.report_why.early_stopping import replay_section
from wsl_sweep.analysis.report_why.material import Classes, ClassesOf
from wsl_sweep.analysis.report_why.regularization_claim import claim_section, sampled_trials
from wsl_sweep.analysis.report_why.regularization_who import Who, who_of, who_section
from wsl_sweep.analysis.report_why.resemblances import resemblances_section
from wsl_sweep.analysis.report_why.sections import why_sections
from wsl_sweep.analysis.report_why.sensitivity import Searched, sensitivity_section

__all__ = [
    "Classes",
    "ClassesOf",
    "Searched",
    "Who",
    "claim_section",
    "replay_section",
    "resemblances_section",
    "sampled_trials",
    "sensitivity_section",
    "who_of",
    "who_section",
    "why_sections",
]
