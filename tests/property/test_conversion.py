"""Whatever stands in a manifest: a valid ImageCache comes out, or one line that says why not."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from prewarm.api.image_cache import decode_image_cache
from prewarm.conversion import ConversionError, Document, DocumentError, convert, documents

NAMES = st.sampled_from(
    [
        "cacheSpec",
        "images",
        "image",
        "name",
        "nodeSelector",
        "imagePullSecrets",
        "selector",
        "names",
        "matchLabels",
        "matchExpressions",
        "key",
        "operator",
        "values",
        "podSelector",
        "parallelism",
        "pullPolicy",
        "timeoutSeconds",
        "backoffLimit",
        "completionPolicy",
        "type",
        "activeDeadlineSeconds",
        "ttlSecondsAfterFinished",
        "pullSecrets",
        "imagePullPolicy",
        "sandboxConfig",
        "template",
        "schedule",
        "imageListPullJobTemplate",
        "spec",
        "other",
    ]
)
WORDS = st.sampled_from(
    ["", "a:1", "registry.test/web:v2", "Always", "Never", "In", "Exists", "10%", "0", "$(x)", "A B"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=25,
)
KINDS = st.sampled_from(
    [
        ("kubefledged.io/v1alpha2", "ImageCache"),
        ("kubefledged.io/v1alpha3", "ImageCache"),
        ("apps.kruise.io/v1alpha1", "ImagePullJob"),
        ("apps.kruise.io/v1beta1", "ImageListPullJob"),
        ("apps.kruise.io/v1beta1", "AdvancedCronJob"),
    ]
)
METADATA = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "web", ""])},
    optional={
        "namespace": WORDS,
        "generateName": WORDS,
        "labels": VALUES,
        "annotations": VALUES,
        "ownerReferences": VALUES,
    },
)


@given(KINDS, METADATA | VALUES, VALUES)
def test_the_result_is_valid_or_refused_in_one_line(kind: tuple[str, str], metadata: object, spec: object) -> None:
    content = {"apiVersion": kind[0], "kind": kind[1], "metadata": metadata, "spec": spec}
    with suppress(ConversionError):
        converted = convert(Document("f", 1, content))
        assert decode_image_cache(converted.manifest).error == ""
        assert set(converted.manifest) == {"apiVersion", "kind", "metadata", "spec"}


@given(st.text(alphabet="{}[]:,-&*!|>\"' \n\tabK012", max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    with suppress(DocumentError):
        for document in documents(text, "f"):
            assert 1 <= document.line <= text.count("\n") + 1
