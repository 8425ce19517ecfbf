"""The paper's tables: what each is about, what a sweep must have for it, and which file makes such a sweep."""

from __future__ import annotations

from wsl_sweep.analysis.paper import plans
from wsl_sweep.analysis.paper.layout import Layout, distils, whole
from wsl_sweep.analysis.paper.settings import Setting


def _of_table_2(setting: Setting) -> bool:
    return any(plans.masked(reading)(setting) for reading in plans.READINGS) or (
        distils("none")(setting) and _on_a_subset(setting)
    )


def _on_a_subset(setting: Setting) -> bool:
    return setting.keep in ((0.0, 1.0), (1.0, 0.0))


def _kd_or_wsl(setting: Setting) -> bool:
    return whole("none")(setting) or whole("exp")(setting)


LAYOUTS: dict[int, Layout] = {
    one.number: one
    for one in (
        Layout(
            number=1,
            title="Regularization samples by temperature and label smoothing of the teacher",
            heads=("τ", "label smoothing"),
            plan=plans.table_1,
            marks=whole("none"),
            needs="plain distillation (method kd, weighting.kind none) at one temperature or more",
            file="tab1_regularization_samples.yaml",
            notes=(
                "regularization samples are those of the student's last epoch; the course over epochs (Fig. 2) is the "
                f"metric {plans.SAMPLES} in MLflow",
            ),
        ),
        Layout(
            number=2,
            title="Distillation without the true class, and on some of the examples only",
            heads=("method", "loss on an example"),
            plan=plans.table_2,
            marks=_of_table_2,
            needs="plain distillation (weighting.kind none) with a mask, or with one of keep.* at 0",
            file="tab2_masking.yaml",
            notes=("the paper's masked loss can be read in three ways (README.md), so that it has three rows",),
        ),
        Layout(
            number=3,
            title="Pairs of teacher and student",
            heads=("method",),
            plan=plans.table_3,
            marks=_kd_or_wsl,
            needs="plain or weighted soft labels (method kd, weighting.kind none or exp)",
            file="tab3_pairs.yaml",
            notes=("the columns are the sweep's pairs; wsl-sweep recipes lists those of the literature",),
        ),
        Layout(
            number=4,
            title="ImageNet: pairs of teacher and student, top-1 and top-5",
            heads=("method",),
            plan=plans.table_4,
            marks=lambda one: one.dataset == "imagenet" and _kd_or_wsl(one),
            needs="plain or weighted soft labels (method kd, weighting.kind none or exp) on dataset imagenet",
            file="imagenet_alpha.yaml",
            notes=(
                "dataset imagenet is any folder in ImageNet's layout; published figures are of its 1000 classes",
                f"top-5 is {plans.TOP_5}",
            ),
            datasets=("imagenet",),
        ),
        Layout(
            number=5,
            title="Plain and weighted soft labels on subsets of the examples",
            heads=("soft labels on",),
            plan=plans.table_5,
            marks=lambda one: (distils("none")(one) or distils("exp")(one)) and _on_a_subset(one),
            needs="soft labels (weighting.kind none or exp) with one of keep.* at 0",
            file="tab5_subsets.yaml",
        ),
        Layout(
            number=6,
            title="Plain and weighted soft labels of a label-smoothed teacher",
            heads=("label smoothing",),
            plan=plans.table_6,
            marks=lambda one: _kd_or_wsl(one) and bool(one.smoothing),
            needs="soft labels (weighting.kind none or exp) of a teacher with label_smoothing above 0",
            file="tab6_label_smoothing.yaml",
        ),
        Layout(
            number=7,
            title="Between all and none of the regularization samples, and of the others",
            heads=("p",),
            plan=plans.table_7,
            marks=lambda one: (distils("none")(one) or distils("exp")(one)) and min(one.keep) < max(one.keep) == 1,
            needs="soft labels (weighting.kind none or exp) with one of keep.* below 1",
            file="tab7_rs_dropping.yaml",
            notes=("p is the probability with which an example's distillation term is kept, drawn afresh every step",),
        ),
        Layout(
            number=8,
            title="Soft label weights on relational distillation",
            heads=("method",),
            plan=plans.table_8,
            marks=lambda one: one.method == "rkd" and one.weighting in ("none", "exp"),
            needs="relational distillation (method rkd, weighting.kind none or exp)",
            file="tab8_relational.yaml",
            notes=(
                "the paper does not say whether KD is in its RKD; RepDistiller's RKD is without",
                f"the paper's pairs, on CIFAR-100: {', '.join(' → '.join(pair) for pair in plans.PAIRS_OF_TABLE_8)}",
            ),
        ),
        Layout(
            number=9,
            title="Forms of the weight",
            heads=("weighting", "α"),
            plan=plans.table_9,
            marks=whole("sigmoid"),
            needs="soft labels with weighting.kind sigmoid",
            file="tab9_weighting.yaml",
            notes=("the paper does not give the sigmoid's argument: the three are our reading",),
        ),
        Layout(
            number=10,
            title="Weighted soft labels by α",
            heads=("α",),
            plan=plans.table_10,
            marks=whole("exp"),
            needs="weighted soft labels (weighting.kind exp) at α = 1, 2, 3, 4 or between 2 and 3; on ImageNet any α",
            file="tab10_alpha.yaml",
            notes=(
                "(c), α on ImageNet, is made by search_spaces/imagenet_alpha.yaml; which α the paper tried there, and "
                "between 2 and 3, is not known",
            ),
            datasets=("cifar100", "imagenet"),
        ),
        Layout(
            number=11,
            title="MultiNLI: plain and weighted soft labels, matched and mismatched dev set",
            heads=("method",),
            plan=plans.table_11,
            marks=lambda one: one.dataset == "mnli" and _kd_or_wsl(one),
            needs="plain or weighted soft labels (method kd, weighting.kind none or exp) on dataset mnli",
            file="mnli_wsl.yaml",
            notes=("matched and mismatched are " + " and ".join(map(str, plans.DEV_SETS.values())),),
            datasets=("mnli",),
        ),
    )
}
"""By the number of the table."""
