"""What a file may say of ImageNet's views and of the processes that bring its pictures."""

from __future__ import annotations

import pytest

from wsl_sweep.spec.identity import trial_id

from .helpers import problems_of, spec_of

OF_IMAGENET = "imagenet's crops have no end: epoch (a new one each time), or a number of them"


def imagenet(views: str, rest: str = "variants: [kd]") -> str:
    return f"run:\n  recipe: digits\n  dataset: {{name: imagenet, root: pics{views}}}\n{rest}\n"


@pytest.mark.parametrize("views", ["epoch", "1", "7"])
def test_imagenet_has_a_new_view_each_epoch_or_a_number_of_them(views: str) -> None:
    assert problems_of(imagenet(f", views: {views}")) == []


@pytest.mark.parametrize(
    ("text", "line", "path", "what"),
    [
        (imagenet(", views: all"), 3, "run.dataset.views", OF_IMAGENET),
        (imagenet(""), 2, "run.recipe", f"dataset.views: {OF_IMAGENET}"),
        (
            imagenet(", views: 2", "variants:\n  a: {dataset.views: epoch}\n  b: {dataset.views: all}"),
            6,
            "variants.b.dataset.views",
            OF_IMAGENET,
        ),
        (
            "run: {recipe: digits, dataset: {views: epoch}}\nvariants: [kd]\n",
            1,
            "run.dataset.views",
            "epoch is for imagenet; digits has all, or a number of them",
        ),
        (
            "run: {recipe: cifar100/wrn_40_2-wrn_16_2}\nvariants: [kd]\nspace:\n  dataset.views: {grid: [2, epoch]}\n",
            4,
            "space.dataset.views",
            "epoch is for imagenet; cifar100 has all, or a number of them",
        ),
        (
            "run: {dataset: {name: 'mine:Data', views: epoch}, recipe: digits}\nvariants: [kd]\n",
            1,
            "run.dataset.views",
            "epoch is for imagenet; mine:Data has all, or a number of them",
        ),
    ],
)
def test_views_that_a_data_set_does_not_have_are_told_where_they_stand(
    text: str, line: int, path: str, what: str
) -> None:
    (problem,) = problems_of(text)
    assert (problem.line, problem.path, problem.what) == (line, path, what)


def test_views_of_the_command_line_are_told_there() -> None:
    (problem,) = problems_of("run: {recipe: digits}\nvariants: [kd]\n", sets=("dataset.views=epoch",))
    assert problem.path == "--set dataset.views"
    assert problems_of(imagenet(""), sets=("dataset.views=epoch",)) == []


def test_a_view_that_exists_only_beside_imagenet_is_right() -> None:
    text = (
        "run:\n  recipe: digits\n  dataset: {root: pics, size: 8}\nvariants: [kd]\nspace:\n"
        "  dataset.name: {grid: [image_folder, imagenet]}\n"
        "  dataset.views: {grid: [epoch], when: {dataset.name: %s}}\n"
    )
    assert problems_of(text % "image_folder") != []
    told = [problem.what for problem in problems_of(text % "imagenet")]
    assert not any("epoch is for imagenet" in what for what in told)


def test_workers_are_as_many_as_cpus_unless_they_are_given_and_make_no_other_trial() -> None:
    text = "run: {recipe: digits}\nvariants: [kd]\nresources: {cpu: %s}\n"
    assert spec_of(text % "1").workers == 1
    assert spec_of(text % "0.5").workers == 1
    assert spec_of(text % "3.5").workers == 3
    more = spec_of(text % "1, workers: 8")
    assert (more.workers, more.threads) == (8, 1)
    assert spec_of(text % "4, workers: 0").workers == 0
    ids = [trial_id(spec.config({}), "train", spec.threads) for spec in (spec_of(text % "1"), more)]
    assert ids[0] == ids[1]
    (problem,) = problems_of(text % "1, workers: -1")
    assert "at least 0" in problem.what
