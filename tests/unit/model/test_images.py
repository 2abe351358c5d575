import pytest
from hypothesis import given
from hypothesis import strategies as st

from prewarm.model.images import canonical, parse_reference, registry_of

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/team/app:v1", "docker.io/team/app:v1"),
        ("team/app", "docker.io/team/app:latest"),
        ("registry.example/app:v1", "registry.example/app:v1"),
        ("localhost/app", "localhost/app:latest"),
        ("registry:5000/team/app:v1", "registry:5000/team/app:v1"),
        (f"registry.example/app@{DIGEST}", f"registry.example/app@{DIGEST}"),
        (f"registry.example/app:v1@{DIGEST}", f"registry.example/app:v1@{DIGEST}"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
    ],
)
def test_equal_references_have_one_spelling(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " nginx",
        "nginx ",
        "UPPER",
        "registry.example/Team/app",
        "app:",
        "app@sha256:12",
        "a b",
        "app;rm -rf /",
        "$(id)",
        "x" * 2000,
        "-app",
        "app:v1\n",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="image"):
        parse_reference(text)


def test_images_with_a_common_prefix_are_not_equal() -> None:
    assert canonical("app:1.2") != canonical("app:1.20")


@given(st.text(max_size=60))
def test_any_text_gets_some_spelling_and_canonical_is_idempotent(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)


@given(
    st.from_regex(
        r"[a-z]{1,8}(\.[a-z]{2,4})(:[0-9]{2,4})?/[a-z]{1,8}(/[a-z0-9]{1,5})?:[a-z0-9]{1,8}",
        fullmatch=True,
    )
)
def test_the_registry_is_the_first_part_where_it_is_a_host(text: str) -> None:
    assert registry_of(text) == text.split("/", maxsplit=1)[0]
