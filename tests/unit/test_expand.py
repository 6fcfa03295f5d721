from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchq.expand import ExpandError, Experiment, Job, Matrix, expand, short_name, warnings_of

SEED = Matrix(
    axes={"min_leaf_size": (20, 50, 100), "semantic_threshold": (0.1, 0.2, 0.3)},
    base_params={"smart": True},
)


def names(matrix: Matrix) -> list[str]:
    return [job.name for job in expand(Experiment(matrix=matrix))]


def of(**axes: Any) -> Matrix:
    return Matrix(axes={axis: tuple(values) for axis, values in axes.items()})


def with_(matrix: Matrix, **changes: Any) -> Matrix:
    from dataclasses import replace

    return replace(matrix, **changes)


def refused(experiment: Experiment) -> ExpandError:
    with pytest.raises(ExpandError) as caught:
        expand(experiment)
    return caught.value


def test_the_matrix_of_the_seed_has_the_names_that_the_seed_gives() -> None:
    assert names(SEED)[:4] == [
        "matrix_leaf20_thresh0.1",
        "matrix_leaf20_thresh0.2",
        "matrix_leaf20_thresh0.3",
        "matrix_leaf50_thresh0.1",
    ]
    assert len(names(SEED)) == 9


def test_axes_lie_over_base_params_and_these_over_config() -> None:
    matrix = Matrix(axes={"c": (3,)}, base_params={"b": 2, "c": 2})

    jobs = expand(Experiment({"a": 1, "b": 1, "c": 1}, (Job("one", {"a": 9}),), matrix))

    assert [job.params for job in jobs] == [{"a": 9, "b": 1, "c": 1}, {"a": 1, "b": 2, "c": 3}]


def test_what_is_excluded_is_no_job() -> None:
    assert names(with_(of(a=[1, 2], b=[1, 2]), exclude=({"a": 2}, {"b": 2}))) == ["matrix_a1_b1"]


def test_true_is_not_excluded_by_one() -> None:
    assert names(with_(of(a=[True, False]), exclude=({"a": 1},))) == [
        "matrix_atrue",
        "matrix_afalse",
    ]


def test_an_include_that_fits_combinations_adds_to_them() -> None:
    matrix = with_(of(a=[1, 2], b=[1]), include=({"a": 1, "note": "x"}, {"deep": True}))

    jobs = expand(Experiment(matrix=matrix))

    assert [job.params for job in jobs] == [
        {"a": 1, "b": 1, "note": "x", "deep": True},
        {"a": 2, "b": 1, "deep": True},
    ]
    assert [job.name for job in jobs] == ["matrix_a1_b1", "matrix_a2_b1"]


def test_an_include_that_fits_none_is_a_job_of_its_own() -> None:
    matrix = with_(SEED, include=({"min_leaf_size": 200, "semantic_threshold": 0.05},))

    last = expand(Experiment(matrix=matrix))[-1]

    assert last.name == "matrix_leaf200_thresh0.05"
    assert last.params == {"smart": True, "min_leaf_size": 200, "semantic_threshold": 0.05}


def test_zip_takes_the_axes_side_by_side() -> None:
    assert names(with_(of(a=[1, 2], b=[3, 4]), method="zip")) == ["matrix_a1_b3", "matrix_a2_b4"]


def test_zip_refuses_axes_of_unequal_length() -> None:
    error = refused(Experiment(matrix=with_(of(a=[1, 2], b=[3]), method="zip")))

    assert str(error) == "`method: zip` needs axes of one length, these have: a 2, b 1"


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    samples=st.integers(1, 250),
    seed=st.integers(0, 99),
)
def test_random_draws_each_combination_once_and_the_same_ones_for_a_seed(
    sizes: list[int], samples: int, seed: int
) -> None:
    grid = of(**{f"p{at}": range(size) for at, size in enumerate(sizes)})
    matrix = with_(grid, method="random", samples=samples, seed=seed)

    drawn = names(matrix)

    assert drawn == names(matrix)
    assert len(set(drawn)) == len(drawn) == min(samples, len(names(grid)))
    assert set(drawn) <= set(names(grid))


def test_random_draws_from_a_billion_combinations_at_once() -> None:
    matrix = with_(of(a=range(1000), b=range(1000), c=range(1000)), method="random", samples=50)

    assert len(set(names(matrix))) == 50


def test_random_draws_another_combination_for_one_that_is_excluded() -> None:
    matrix = with_(of(a=range(10)), method="random", samples=9, exclude=({"a": 3},))

    assert sorted(names(matrix)) == [f"matrix_a{n}" for n in range(10) if n != 3]


def test_repeats_have_seeds_that_all_settings_share() -> None:
    jobs = expand(Experiment(matrix=with_(of(a=[1, 2]), repeats=2, seed=7)))

    assert [job.name for job in jobs] == [
        "matrix_a1_r1",
        "matrix_a1_r2",
        "matrix_a2_r1",
        "matrix_a2_r2",
    ]
    assert [job.setting for job in jobs] == ["matrix_a1", "matrix_a1", "matrix_a2", "matrix_a2"]
    seeds = [job.params["seed"] for job in jobs]
    assert seeds[:2] == seeds[2:]
    assert len(set(seeds)) == 2
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_repeats_of_a_job_are_derived_from_its_own_seed() -> None:
    one, other = (Experiment(jobs=(Job("a", {"seed": seed}, 2),)) for seed in (1, 2))

    assert [job.name for job in expand(one)] == ["a_r1", "a_r2"]
    assert {job.params["seed"] for job in expand(one)}.isdisjoint(
        job.params["seed"] for job in expand(other)
    )


def test_a_template_names_the_jobs() -> None:
    matrix = with_(SEED, name="leaf-{min_leaf_size}{{{semantic_threshold}_{smart}")

    assert names(matrix)[0] == "leaf-20{0.1_true"


def test_a_template_says_where_the_repeat_stands() -> None:
    assert names(with_(of(a=[1]), repeats=2, name="r{repeat}-a{a}")) == ["r1-a1", "r2-a1"]


def test_a_template_with_an_unknown_field_is_refused() -> None:
    error = refused(Experiment(matrix=with_(SEED, name="x{min_leaf_sise}")))

    assert (error.key, str(error)) == (("matrix", "name"), "a job has no `min_leaf_sise`")
    assert error.hint == "did you mean `min_leaf_size`?"


def test_a_template_that_tells_jobs_not_apart_is_refused() -> None:
    error = refused(Experiment(matrix=with_(SEED, name="leaf{min_leaf_size}")))

    assert str(error) == "two jobs are called `leaf20`; the first is matrix.name"


@pytest.mark.parametrize(
    ("axis", "word"),
    [
        ("min_leaf_size", "leaf"),
        ("semantic_threshold", "thresh"),
        ("learning-rate", "learni"),
        ("rate", "rate"),
        ("size_count", "size"),
        ("k", "k"),
    ],
)
def test_an_axis_has_a_short_word_in_names(axis: str, word: str) -> None:
    assert short_name(axis) == word


def test_axes_with_one_short_word_have_whole_names() -> None:
    assert names(of(min_leaf_size=[1], max_leaf_size=[2], k=[3])) == [
        "matrix_min_leaf_size1_max_leaf_size2_k3"
    ]


def test_values_are_made_safe_in_names_and_stay_apart() -> None:
    found = names(of(path=["a/b", "a b", "", "x" * 90, "x" * 91]))

    assert len(set(found)) == 5
    assert all("/" not in name and " " not in name for name in found)


def test_more_jobs_than_max_jobs_are_refused_with_their_number() -> None:
    error = refused(Experiment(matrix=with_(SEED, max_jobs=8)))

    assert str(error) == "3 x 3 makes 9 jobs, and `max_jobs` is 8"
    assert error.hint.startswith("if all are wanted: max_jobs: 9")


def test_repeats_count_for_max_jobs() -> None:
    error = refused(Experiment(matrix=with_(SEED, max_jobs=9, repeats=3)))

    assert "3 x 3 x 3 repeats makes 27 jobs" in str(error)


def test_what_is_excluded_does_not_count_for_max_jobs() -> None:
    assert len(names(with_(SEED, max_jobs=6, exclude=({"min_leaf_size": 20},)))) == 6


@pytest.mark.parametrize("exclude", [(), ({"a": 1},)])
def test_a_billion_combinations_are_refused_before_they_are_made(exclude: Any) -> None:
    axes = of(a=range(1000), b=range(1000), c=range(1000))

    began = time.process_time()
    error = refused(Experiment(matrix=with_(axes, max_jobs=10**12, exclude=exclude)))

    assert "1000 x 1000 x 1000 makes 1,000,000,000 jobs; at most 1,000,000 can be" in str(error)
    assert time.process_time() - began < 0.5


def test_ten_thousand_jobs_are_expanded_within_a_second() -> None:
    matrix = with_(of(a=range(100), b=range(100)), max_jobs=10_000, include=({"a": 7, "x": 1},))

    began = time.process_time()
    jobs = expand(Experiment({"dataset": "d"}, (), matrix))

    assert len(jobs) == 10_000
    assert time.process_time() - began < 1.0


def test_two_jobs_of_one_name_are_refused() -> None:
    error = refused(Experiment(jobs=(Job("a"), Job("b"), Job("a"))))

    assert (error.key, str(error)) == (
        ("jobs", 2, "name"),
        "two jobs are called `a`; the first is jobs[0].name",
    )


def test_a_job_with_the_name_of_a_combination_is_refused() -> None:
    error = refused(Experiment(jobs=(Job("matrix_a1"),), matrix=of(a=[1])))

    assert "two jobs are called `matrix_a1`; the first is jobs[0].name" in str(error)


def test_an_exclude_of_an_unknown_axis_is_refused() -> None:
    error = refused(Experiment(matrix=with_(SEED, exclude=({"min_leaf": 20},))))

    assert (error.key, str(error)) == (("matrix", "exclude", 0, "min_leaf"), "no axis `min_leaf`")
    assert error.hint == "did you mean `min_leaf_size`?"


def test_an_exclude_of_everything_is_refused() -> None:
    error = refused(Experiment(matrix=with_(of(a=[1]), exclude=({"a": 1},))))

    assert "no job is left" in str(error)


def test_an_exclude_that_matches_nothing_is_warned_of() -> None:
    matrix = with_(SEED, exclude=({"min_leaf_size": 20}, {"min_leaf_size": "20"}))

    assert warnings_of(Experiment(matrix=matrix)) == [
        'matrix.exclude[1] matches no combination: {"min_leaf_size": "20"}'
    ]


def test_an_exclude_is_compared_with_the_pairs_of_a_zip() -> None:
    matrix = with_(of(a=[1, 2], b=[3, 4]), method="zip", exclude=({"a": 1, "b": 4},))

    assert len(warnings_of(Experiment(matrix=matrix))) == 1
