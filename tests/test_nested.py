"""Nested tuples: walked, and made again with something else in them."""

import pytest

from tinyseq.nested import leaves, mapped


def test_the_leaves_are_in_order_and_none_is_no_leaf():
    assert list(leaves((1, [2, (3, None)], (), 4))) == [1, 2, 3, 4]
    assert list(leaves(5)) == [5]
    assert list(leaves(None)) == []


def test_the_nesting_stays_and_lists_become_tuples():
    assert mapped(lambda n: n + 1, (1, [2, (3, None)], ())) == (2, (3, (4, None)), ())
    assert mapped(lambda a, b: a * b, (1, (2, None)), (10, (20, None))) == (10, (40, None))
    assert mapped(str, None) is None


def test_others_are_nested_alike():
    with pytest.raises(ValueError, match="shorter"):
        mapped(lambda a, b: a, (1, 2), (1,))
