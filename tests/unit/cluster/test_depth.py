"""Objects that nest thousands of levels deep stop nobody: what they hold at usual depths is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prewarm.cluster.decoding.depth import MAX_DEPTH, shallow
from prewarm.cluster.decoding.kinds import Kinds

LEVELS = 5_000
DEEP = '{"a":[' * LEVELS + '"]}{["' + "]}" * LEVELS
CONTAINERS = '"containers":[{"name":"app","image":"a:v1"}]'
OBJECTS = {
    "in the template": f'{{"metadata":{{"name":"web"}},"spec":{{"template":{{"spec":{{{CONTAINERS}}},"x":{DEEP}}}}}}}',
    "in the spec": f'{{"metadata":{{"name":"web"}},"spec":{{"x":{DEEP},"template":{{"spec":{{{CONTAINERS}}}}}}}}}',
    "at the end": f'{{"metadata":{{"name":"web"}},"spec":{{"template":{{"spec":{{{CONTAINERS}}}}}}},"x":{DEEP}}}',
}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize("where", OBJECTS)
@pytest.mark.parametrize("kind", ["rollouts", "clone_sets", "deployments"])
def test_a_workload_is_read_without_what_nests_too_deep(kind: str, where: str) -> None:
    decoder: Any = getattr(Kinds(), kind)
    text = OBJECTS[where]
    page = decoder.page(f'{{"metadata":{{"resourceVersion":"7"}},"items":[{text},{text}]}}'.encode())
    change = decoder.change(f'{{"type":"MODIFIED","object":{text}}}'.encode())
    for found in (*page.items, change.object, decoder.one(text.encode())):
        assert found.key == ("", "web")
        assert found.value is not None
        assert found.value.template.shape.images == ("a:v1",)
    assert page.resource_version == "7"


def test_an_object_of_ours_is_read_too() -> None:
    text = f'{{"metadata":{{"name":"warm","namespace":"shop"}},"spec":{{"cacheSpec":{DEEP}}}}}'
    found = Kinds().image_caches.one(text.encode()).value
    assert found is not None
    assert found.key == ("shop", "warm")
    assert found.error


@given(values)
def test_what_is_not_deep_stays_as_it_is(value: object) -> None:
    text = json.dumps(value).encode()
    assert shallow(text) == text


@given(values, st.integers(0, 2 * MAX_DEPTH))
def test_what_is_deep_becomes_null_and_the_rest_stays_json(value: object, levels: int) -> None:
    text = ('{"k":[' * levels + json.dumps(value) + "]}" * levels).encode()
    kept = shallow(text)
    found: Any = json.loads(kept)
    assert shallow(kept) == kept
    if 2 * levels > MAX_DEPTH:
        for _ in range(MAX_DEPTH // 2):
            (found,) = found["k"]
        assert found is None
