"""Prompts and the names that follow from them: content decides, never order or batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gazetteer.data.core.errors import InputError
from gazetteer.data.inputs.prompts import make_item, shards_of, split_of

items = st.lists(st.builds(make_item, st.text(max_size=8), st.integers(0, 3), st.just("model")), max_size=30)


@given(items, st.integers(1, 7), st.randoms())
def test_shards_do_not_depend_on_order_or_repetition(some, size, random):
    shuffled = [*some, *some[:3]]
    random.shuffle(shuffled)
    shards = shards_of(some, size)
    assert shards_of(shuffled, size) == shards
    assert [item for shard in shards for item in shard.items] == sorted(set(some), key=lambda item: item.image_id)
    assert all(1 <= len(shard.items) <= size for shard in shards)
    assert len({shard.id for shard in shards}) == len(shards)


def test_a_shard_with_other_images_has_another_name():
    one, two = make_item("a", 0, "m"), make_item("b", 0, "m")
    ids = {shards_of(some, 2)[0].id for some in ([one], [two], [one, two])}
    assert len(ids) == 3


def test_an_image_is_named_by_prompt_seed_and_models():
    names = {
        make_item(prompt, seed, models).image_id
        for prompt, seed, models in [("a", 1, "m"), ("a", 2, "m"), ("b", 1, "m"), ("a", 1, "n"), ("a1", 1, "m")]
    }
    assert len(names) == 5
    assert make_item("a", 1, "m").image_id == "6086b937154d44f8"  # must never change: runs resume by it
    with pytest.raises(InputError, match="seed"):
        make_item("a", -1, "m")


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_the_split_is_monotone_in_the_share(prompt, less, more):
    less, more = sorted((less, more))
    if split_of(prompt, less) == "heldout":
        assert split_of(prompt, more) == "heldout"
    assert (split_of(prompt, 0.0), split_of(prompt, 1.0)) == ("discovery", "heldout")


def test_the_split_has_about_its_share():
    held = sum(split_of(f"prompt {number}", 0.2) == "heldout" for number in range(5000))
    assert 900 < held < 1100


def test_senseless_numbers_get_a_sentence():
    with pytest.raises(InputError, match="between 0 and 1"):
        split_of("a", 1.5)
    with pytest.raises(InputError, match="at least one"):
        shards_of([], 0)
