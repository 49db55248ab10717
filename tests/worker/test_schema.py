import dataclasses
import json
import typing as tp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import schema
from worker.errors import SchemaError
from worker.extractor import between, choice
from worker.protocol import KINDS, Event, Facts, Failure, Item, Record, Shard, Task

BIG = 10**400  # a whole number that no float holds


@dataclasses.dataclass
class Leaf:
    size: int
    label: str = "none"


@dataclasses.dataclass
class Tree:
    leaves: tp.List[Leaf] = dataclasses.field(default_factory=list)
    named: tp.Dict[str, Leaf] = dataclasses.field(default_factory=dict)
    best: tp.Optional[Leaf] = None
    ratio: float = 0.5
    steps: tp.Optional[float] = between(10.0, 1, 100)
    mode: str = choice("fast", "slow", "fast")
    count: int = 1
    on: bool = False
    layers: tp.Union[str, tp.List[int]] = "all"
    anything: tp.Any = None


@dataclasses.dataclass
class Picky:
    low: int = 0
    high: int = 1
    nested: tp.Optional[Leaf] = None

    def __post_init__(self):
        if self.low > self.high:
            raise ValueError("low is above high")


REFUSALS = [
    ({"xyz": 1}, "models[1].xyz: unknown key; known keys: leaves, named, best, "),
    ({"leafs": []}, "models[1].leafs: unknown key; did you mean leaves?; known keys: leaves, named, "),
    ({"leaves": 3}, "models[1].leaves: expected a list, got 3"),
    ({"leaves": {}}, "models[1].leaves: expected a list, got a mapping"),
    ({"leaves": [{"size": 1}, 7]}, "models[1].leaves[1]: expected a mapping, got 7"),
    ({"leaves": [{}]}, "models[1].leaves[0].size: missing"),
    ({"leaves": [{"size": None}]}, "models[1].leaves[0].size: expected a whole number, got nothing"),
    ({"named": []}, "models[1].named: expected a mapping, got a list"),
    ({"named": {"a b": {"size": "x"}}}, "models[1].named.a b.size: expected a whole number, got 'x'"),
    ({"best": "x"}, "models[1].best: expected a mapping, got 'x'"),
    ({"ratio": "0.5"}, "models[1].ratio: expected a number, got '0.5'"),
    ({"ratio": True}, "models[1].ratio: expected a number, got True"),
    ({"ratio": None}, "models[1].ratio: expected a number, got nothing"),
    ({"ratio": float("nan")}, "models[1].ratio: expected a finite number, got nan"),
    ({"ratio": float("-inf")}, "models[1].ratio: expected a finite number, got -inf"),
    ({"ratio": BIG}, "models[1].ratio: expected a finite number, got one of too many digits"),
    ({"steps": float("nan")}, "models[1].steps: expected a finite number, got nan"),
    ({"steps": 0.999}, "models[1].steps: 0.999 is not between 1 and 100"),
    ({"steps": 101}, "models[1].steps: 101.0 is not between 1 and 100"),
    ({"mode": "quick"}, "models[1].mode: 'quick' is not one of fast, slow"),
    ({"mode": ["fast"]}, "models[1].mode: expected text, got a list"),
    ({"count": 1.0}, "models[1].count: expected a whole number, got 1.0"),
    ({"count": True}, "models[1].count: expected a whole number, got True"),
    ({"on": 1}, "models[1].on: expected true or false, got 1"),
    ({"on": "yes"}, "models[1].on: expected true or false, got 'yes'"),
    ({"layers": 3}, "models[1].layers: expected a list, got 3"),
    ({"layers": [1, "x"]}, "models[1].layers[1]: expected a whole number, got 'x'"),
    ({1: 2}, "models[1].1: unknown key; known keys: "),
    ([], "models[1]: expected a mapping, got a list"),
    (None, "models[1]: expected a mapping, got nothing"),
]


@pytest.mark.parametrize("data,words", REFUSALS, ids=[words.partition(": ")[2][:40] for _, words in REFUSALS])
def test_refusal_names_the_path_and_the_reason(data, words):
    with pytest.raises(SchemaError) as caught:
        schema.build(Tree, data, "models[1]")
    assert str(caught.value).startswith(words)
    assert words.startswith(caught.value.path)
    assert "\n" not in str(caught.value)


def test_without_a_path_the_error_speaks_of_the_job():
    with pytest.raises(SchemaError, match=r"^job: expected a mapping, got 3$"):
        schema.build(Tree, 3)
    with pytest.raises(SchemaError, match=r"^size: missing$"):
        schema.build(Leaf, {})


def test_what_the_class_itself_refuses_gets_the_path():
    with pytest.raises(SchemaError, match=r"^a\.b: low is above high$"):
        schema.build(Picky, {"low": 2}, "a.b")
    with pytest.raises(SchemaError, match=r"^a\.b\.nested\.size: missing$"):
        schema.build(Picky, {"nested": {}}, "a.b")


@pytest.mark.parametrize(
    "data,attribute,value",
    [
        ({"leaves": [{"size": 1}, {"size": 2, "label": "b"}]}, "leaves", [Leaf(1), Leaf(2, "b")]),
        ({"named": {"a": {"size": 1}}}, "named", {"a": Leaf(1)}),
        ({"best": None}, "best", None),
        ({"best": {"size": 3}}, "best", Leaf(3)),
        ({"ratio": 2}, "ratio", 2.0),
        ({"steps": None}, "steps", None),
        ({"steps": 1}, "steps", 1.0),
        ({"steps": 100}, "steps", 100.0),
        ({"mode": "slow"}, "mode", "slow"),
        ({"on": True}, "on", True),
        ({"layers": "last"}, "layers", "last"),
        ({"layers": [7, -1]}, "layers", [7, -1]),
        ({"anything": {"a": [1, None]}}, "anything", {"a": [1, None]}),
    ],
)
def test_fitting_values_are_taken(data, attribute, value):
    found = getattr(schema.build(Tree, data), attribute)
    assert found == value
    assert type(found) is type(value)


def test_defaults_are_not_shared():
    schema.build(Tree, {}).leaves.append(Leaf(1))
    assert schema.build(Tree, {}) == Tree()


def test_dump_gives_plain_values():
    value = Tree(leaves=[Leaf(1)], named={"x": Leaf(2)}, layers=[1])
    plain = schema.dump(value)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["leaves"] == [{"size": 1, "label": "none"}]
    assert schema.dump({1: (Leaf(1), "b")}) == {"1": [{"size": 1, "label": "none"}, "b"]}


# Names of files may hold bytes that are no UTF-8, as lone surrogates
text = st.text(max_size=8) | st.sampled_from(["a\udcff.wav", "", "ü/ö.wav"])
number = st.floats(allow_nan=False, allow_infinity=False, width=32)
whole = st.integers(0, 2**63)
words = st.lists(text, max_size=2)
mapping = st.dictionaries(text, text, max_size=2)
plain = st.dictionaries(text, st.none() | st.booleans() | number | whole | text | words, max_size=2)
records = st.builds(
    Record,
    **dict(
        {f.name: text for f in dataclasses.fields(Record)},
        shape=st.lists(whole, max_size=2),
        axes=words,
        flags=words,
        frame_rate=st.none() | number,
        start=st.none() | number,
        bytes=whole,
        duration=number,
        declared=st.none() | number,
        peak=st.none() | number,
        sample_rate=whole,
        channels=whole,
        window=st.none() | whole,
        windows=st.none() | whole,
    ),
)
failures = st.builds(Failure, text, text, text, text, text)
said = {"record": records, "failure": failures, "seconds": number, "protocol": whole, "packages": mapping}
said.update(share=number, outcome=mapping)
said["facts"] = st.builds(Facts, text, whole, whole)
events = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.builds(Event, st.just(kind), number, **{n: st.none() | said.get(n, text) for n in KINDS[kind]})
)
items = st.builds(Item, text, text, whole, whole, words)
sizes = st.none() | whole
tasks = st.builds(Task, text, text, text, plain, words, mapping, text, sizes, text, mapping, mapping)
lists = {"tasks": st.lists(tasks, max_size=2), "items": st.lists(items, max_size=2), "plugins": words}
shards = st.builds(Shard, id=text, attempt=whole, environment=text, memory=sizes, timeout=number, **lists)


@given(records | events | shards)
def test_what_was_dumped_is_built_again(value):
    plain = json.loads(json.dumps(schema.dump(value)))
    assert schema.build(type(value), plain) == value
