"""Names of outputs: short where they can be, and never one name for two items on any disk."""

import os
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.output import naming

COMPOSED, DECOMPOSED = "caf\u00e9.wav", "cafe\u0301.wav"


def one_on_some_disk(name):
    return unicodedata.normalize("NFC", name).casefold()


def assert_unique(names):
    assert len({one_on_some_disk(name) for name in names}) == len(names)


def test_a_name_is_the_path_without_extension():
    names = naming.assign(["a.wav", "b/c.d.mp3", "b/noext"], {})
    assert names == {"a.wav": "a", "b/c.d.mp3": "b/c.d", "b/noext": "b/noext"}


def test_items_that_would_share_a_name_keep_their_extension():
    names = naming.assign(["a.mp3", "a.wav", "b.wav"], {})
    assert names == {"a.mp3": "a.mp3", "a.wav": "a.wav", "b.wav": "b"}


def test_twins_in_case_get_digits_of_their_id():
    names = naming.assign(["A.wav", "a.wav"], {})
    assert all(name.startswith(f"{item}~") and len(name) == len(item) + 9 for item, name in names.items())
    assert_unique(names.values())


def test_twins_in_normalisation_get_digits_of_their_id():
    names = naming.assign([COMPOSED, DECOMPOSED], {})
    assert all("~" in name for name in names.values())
    assert_unique(names.values())


def test_case_of_folders_and_extensions_counts_too():
    names = naming.assign(["X/a.wav", "x/a.WAV", "x/a.mp3"], {})
    assert names["x/a.mp3"] == "x/a.mp3"
    assert_unique(names.values())


def test_a_stem_that_looks_like_another_items_name():
    names = naming.assign(["a.mp3", "a.wav", "a.wav.wav"], {})
    assert names["a.mp3"] == "a.mp3"
    assert_unique(names.values())


def test_a_name_once_given_is_kept():
    assert naming.assign(["a.mp3", "a.wav"], {"a.wav": "a"}) == {"a.wav": "a", "a.mp3": "a.mp3"}


def test_a_name_of_an_item_that_is_gone_stays_taken():
    assert naming.assign(["a.mp3"], {"a.wav": "a"}) == {"a.mp3": "a.mp3"}
    assert naming.assign(["A.mp3"], {"a.wav": "a"}) == {"A.mp3": "A.mp3"}


def test_a_kept_name_can_make_a_newcomer_take_digits():
    names = naming.assign(["a.wav", "x.wav"], {"x.wav": "a.wav", "y.wav": "a"})
    assert names["x.wav"] == "a.wav"
    assert names["a.wav"].startswith("a.wav~")


def test_names_that_are_not_utf8_are_named():
    small, large = os.fsdecode(b"\xe9.wav"), os.fsdecode(b"\xc9.wav")
    assert naming.assign([small, large], {}) == {small: small[:-4], large: large[:-4]}


# few letters, so that everything collides with everything
STEMS = st.text("aA/\u00e9e\u0301", min_size=1, max_size=3)
ENDS = st.sampled_from(["", ".wav", ".WAV", ".mp3", ".wav.wav"])
ITEMS = st.lists(st.tuples(STEMS, ENDS).map("".join), unique=True, max_size=12)


@given(ITEMS)
def test_no_two_items_ever_share_a_name(items):
    names = naming.assign(items, {})
    assert sorted(names) == sorted(items)
    assert_unique(names.values())


@given(ITEMS, st.integers(0, 12))
def test_names_stay_when_more_items_come(items, count):
    before = naming.assign(items[:count], {})
    after = naming.assign(items, before)
    assert {item: after[item] for item in before} == before
    assert_unique(after.values())


@given(ITEMS, st.randoms())
def test_names_do_not_depend_on_the_order(items, random):
    shuffled = list(items)
    random.shuffle(shuffled)
    assert naming.assign(shuffled, {}) == naming.assign(items, {})


def test_a_segment_is_named_after_its_file_and_times():
    parts = {"a.wav#1.000-2.000": "#1.000-2.000", "a.mp3#1.000-2.000": "#1.000-2.000", "b.c.wav#0.5-": "#0.5-"}
    assert naming.assign(["a.wav", *parts], {}, parts) == {
        "a.wav": "a",
        "a.wav#1.000-2.000": "a.wav#1.000-2.000",
        "a.mp3#1.000-2.000": "a.mp3#1.000-2.000",
        "b.c.wav#0.5-": "b.c#0.5-",
    }


def test_a_name_that_two_items_claim_is_nobodys():
    kept = {"x.wav": "y", "y.wav": "y", "z.wav": "z"}
    assert naming.assign(["x.wav", "y.wav", "z.wav"], kept) == {"x.wav": "x", "y.wav": "y", "z.wav": "z"}
