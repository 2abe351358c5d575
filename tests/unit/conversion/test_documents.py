"""Objects in YAML and JSON, with their lines; what cannot be read names file and line."""

import json

import pytest

from prewarm.conversion import DocumentError, documents

JOB = "apiVersion: apps.kruise.io/v1beta1\nkind: ImagePullJob\nmetadata: {name: a, namespace: shop}\n"


def test_each_document_knows_its_line() -> None:
    found = documents(f"---\n{JOB}---\n# only a comment\n---\n\n{JOB}", "jobs.yaml")
    assert [document.line for document in found] == [2, 9]
    assert found[0].title == "jobs.yaml:2: ImagePullJob shop/a"


def test_items_of_a_list_know_their_lines() -> None:
    text = "apiVersion: v1\nitems:\n- kind: ImagePullJob\n  spec: {}\n- kind: ImageListPullJob\nkind: List\n"
    assert [(document.kind, document.line) for document in documents(text, "f")] == [
        ("ImagePullJob", 3),
        ("ImageListPullJob", 5),
    ]


def test_items_of_a_typed_list_are_what_it_says() -> None:
    text = json.dumps({"apiVersion": "kubefledged.io/v1alpha2", "kind": "ImageCacheList", "items": [{"spec": {}}]})
    (document,) = documents(text, "f")
    assert (document.api_version, document.kind) == ("kubefledged.io/v1alpha2", "ImageCache")


def test_lists_within_lists_are_taken_apart() -> None:
    inner = {"kind": "List", "items": [{"kind": "ImagePullJob"}]}
    assert [document.kind for document in documents(json.dumps({"kind": "List", "items": [inner]}), "f")] == [
        "ImagePullJob"
    ]


@pytest.mark.parametrize("text", ["", "---\n", "# nothing\n", "---\n---\n", "null\n"])
def test_a_text_without_objects_has_none(text: str) -> None:
    assert documents(text, "f") == []


def test_several_json_documents_in_a_row() -> None:
    text = '{"kind": "ImagePullJob"}\n---\n{"kind": "ImageListPullJob"}\n'
    assert [document.kind for document in documents(text, "f")] == ["ImagePullJob", "ImageListPullJob"]


def test_json_with_tabs_is_read() -> None:
    assert [document.kind for document in documents('{\n\t"kind": "ImagePullJob"\n}', "f")] == ["ImagePullJob"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: ImagePullJob\nspec:\n  image: [a\n", "f:4: "),
        ("a: b: c\n", "f:1: mapping values are not allowed"),
        ("kind: A\nspec:\n  image: a\n  image: b\n", "f:4: key 'image' stands twice"),
        ('{"kind": "A", "kind": "B"}', "key 'kind' stands twice"),
        ('{"kind": "A",\n "spec": ]}', "f:2: "),
        ("- a\n- b\n", "f:1: a manifest is an object"),
        ("just words\n", "f:1: a manifest is an object"),
        ("kind: A\n---\n- 1\n", "f:3: a manifest is an object"),
        ("kind: List\nitems:\n- 1\n", "f:3: items[0] is no object"),
        ("kind: A\nwhen: 2026-99-99\n", "f:1: "),
        ("kind: A\nspec: \x07\n", "f:2: "),
        ("kind: !!python/object/apply:os.system [true]\n", "f:1: could not determine a constructor"),
        ("kind: *nowhere\n", "f:1: found undefined alias"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_what_cannot_be_read_says_where(text: str, says: str) -> None:
    with pytest.raises(DocumentError) as caught:
        documents(text, "f")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_anchor_that_is_used_often_costs_nothing() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    assert len(documents("kind: A\n" + "\n".join(lines), "f")) == 1
