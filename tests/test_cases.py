import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_dice.data.cases import split_cases, with_fold
from lightning_dice.errors import InputError


def ids(count: int) -> list[str]:
    return [f"case_{number:04d}" for number in range(count)]


def test_a_tenth_of_the_papers_patients_are_its_37_test_patients():
    split = split_cases(ids(377))
    assert (len(split.train), len(split.validation), len(split.test)) == (306, 34, 37)
    assert len(split_cases(ids(377), validation=0).train) == 340


@given(st.integers(3, 80), st.floats(0, 0.4), st.floats(0, 0.4), st.integers(0, 5))
def test_every_case_is_in_exactly_one_part(count, test, validation, seed):
    split = split_cases(ids(count), test, validation, seed)
    parts = [*split.train, *split.validation, *split.test]
    assert sorted(parts) == ids(count)
    assert split.train
    assert bool(split.test) == (test > 0)
    assert bool(split.validation) == (validation > 0)
    for part in (split.train, split.validation, split.test):
        assert list(part) == sorted(part)


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    assert split_cases(ids(50), seed=1) == split_cases(ids(50), seed=1)
    assert split_cases(ids(50), seed=1).test != split_cases(ids(50), seed=2).test
    assert set(split_cases(ids(50)[::-1]).test) == set(split_cases(ids(50)).test)


@pytest.mark.parametrize("share", [-0.1, 1.0, 3])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(InputError, match=f"data.test={share}"):
        split_cases(ids(10), test=share)


def test_a_split_with_nothing_to_train_on_is_refused():
    with pytest.raises(InputError, match=r"2 cases .* leave none to train on"):
        split_cases(ids(2))


@given(st.integers(6, 60), st.integers(2, 5), st.integers(0, 3))
def test_each_case_that_is_not_tested_on_validates_in_one_fold(count, folds, seed):
    split = split_cases(ids(count), 0.1, 0.1, seed)
    cut = [with_fold(split, ids(count), folds, fold, seed) for fold in range(folds)]
    assert {one.test for one in cut} == {split.test}
    assert sorted(i for one in cut for i in one.validation) == sorted({*split.train, *split.validation})
    sizes = [len(one.validation) for one in cut]
    assert max(sizes) - min(sizes) <= 1
    for one in cut:
        assert sorted({*one.train, *one.validation, *one.test}) == ids(count)
        assert list(one.train) == sorted(one.train)
        assert list(one.validation) == sorted(one.validation)
        assert not set(one.train) & set(one.validation)


def test_folds_depend_on_the_seed_and_not_on_which_cases_validated_without_them():
    whole, none = split_cases(ids(30), validation=0.2), split_cases(ids(30), validation=0)
    assert with_fold(whole, ids(30), 5, 2) == with_fold(none, ids(30), 5, 2)
    assert with_fold(whole, ids(30), 5, 2, seed=1).validation != with_fold(whole, ids(30), 5, 2).validation


@pytest.mark.parametrize(
    ("folds", "fold", "told"),
    [(1, 0, "data.folds=1"), (10, 0, "data.folds=10: expected 2 to 9"), (5, 5, "data.fold=5.*0 to 4")],
)
def test_a_fold_that_there_is_not_is_refused(folds, fold, told):
    with pytest.raises(InputError, match=told):
        with_fold(split_cases(ids(10)), ids(10), folds, fold)
