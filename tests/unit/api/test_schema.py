"""pydantic's JSON Schema becomes what the API server calls structural, or generation fails and names the place."""

from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import pytest
import yaml
from pydantic import BaseModel, Field, create_model
from pydantic.config import JsonDict

from prewarm.api.generate import drifted, generated_files, main
from prewarm.api.schema import SchemaError, custom_resource_definitions, structural

ROOT = Path(__file__).parents[3]
Name = Annotated[str, Field(max_length=10)]


def field(annotation: Any, extra: JsonDict | None = None) -> object:
    """The rewritten schema of one field of a model."""
    model = create_model("M", x=(annotation, Field(json_schema_extra=extra)))
    rewritten = structural(model.model_json_schema(), "M")["properties"]
    assert isinstance(rewritten, dict)
    return rewritten["x"]


class Inner(BaseModel):
    """An inner part."""

    name: Name


class Recursive(BaseModel):
    child: Optional["Recursive"] = None


class Closed(BaseModel, extra="forbid"):
    name: Name


def test_references_are_inlined() -> None:
    assert field(Inner) == {
        "description": "An inner part.",
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "maxLength": 10}},
    }


def test_a_field_that_may_be_null_is_one_that_may_be_absent() -> None:
    assert field(Name | None) == {"type": "string", "maxLength": 10}
    assert field(Inner | None) == field(Inner)


def test_a_number_or_text_is_int_or_string() -> None:
    assert field(int | str, {"maxLength": 4}) == {"x-kubernetes-int-or-string": True, "maxLength": 4}


def test_a_constant_is_an_enum_of_one() -> None:
    assert field(Literal["a"]) == {"type": "string", "enum": ["a"]}


def test_exclusive_bounds() -> None:
    assert field(Annotated[int, Field(gt=0, lt=5)]) == {"type": "integer", "minimum": 1, "maximum": 4}
    assert field(Annotated[float, Field(gt=0)]) == {"type": "number", "minimum": 0, "exclusiveMinimum": True}


def test_closed_models_leave_unknown_fields_to_pruning() -> None:
    assert structural(Closed.model_json_schema(), "M") == {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "maxLength": 10}},
    }


@pytest.mark.parametrize(
    ("annotation", "extra", "problem"),
    [
        (str, {}, r"M\.x: a text needs maxLength"),
        (list[Name], {"x-kubernetes-list-type": "atomic"}, r"M\.x: a list needs maxItems and x-kubernetes-list-type"),
        (list[Name], {"maxItems": 3}, r"M\.x: a list needs maxItems and x-kubernetes-list-type"),
        (list[str], {"maxItems": 3, "x-kubernetes-list-type": "atomic"}, r"M\.x\[\]: a text needs maxLength"),
        (dict[str, Name], {}, r"M\.x: a map needs maxProperties"),
        (dict[Name, Name], {"maxProperties": 3}, r"M\.x: propertyNames has no structural form"),
        (object, {}, r"M\.x: type None has no structural form"),
        (int | bool, {}, r"M\.x: a union of \['boolean', 'integer'\] has no structural form"),
        (tuple[int, int], {"x-kubernetes-list-type": "atomic"}, r"M\.x: prefixItems has no structural form"),
        (Recursive, {}, r"M\.x\.child: Recursive contains itself"),
    ],
)
def test_what_has_no_bounded_structural_form_is_refused(annotation: object, extra: JsonDict, problem: str) -> None:
    with pytest.raises(SchemaError, match=problem):
        field(annotation, extra)


def test_every_kind_declares_what_kubectl_and_server_side_apply_need() -> None:
    definitions = {str(d["metadata"]["name"]): d["spec"] for d in yaml.safe_load_all(yaml_of_all())}
    assert set(definitions) == {"imagecaches.prewarm.dev", "nodeimages.prewarm.dev", "prewarmpolicies.prewarm.dev"}
    short_names = {spec["names"]["shortNames"][0] for spec in definitions.values()}
    assert short_names == {"pic", "pni", "pwp"}
    version = definitions["imagecaches.prewarm.dev"]["versions"][0]
    columns = [column["name"] for column in version["additionalPrinterColumns"] if not column.get("priority")]
    assert columns == ["Desired", "Active", "Succeeded", "Failed", "Age"]
    nodes = definitions["nodeimages.prewarm.dev"]["versions"][0]["additionalPrinterColumns"]
    assert [column["name"] for column in nodes] == ["Images", "Failures", "Age"]
    assert version["subresources"] == {"status": {}}
    fields = version["schema"]["openAPIV3Schema"]["properties"]
    assert fields["spec"]["properties"]["cacheSpec"]["x-kubernetes-list-type"] == "atomic"
    assert fields["status"]["properties"]["conditions"]["x-kubernetes-list-map-keys"] == ["type"]


def yaml_of_all() -> str:
    return "---\n".join(text for path, text in generated_files().items() if path.startswith("crds/"))


def test_generated_files_are_up_to_date() -> None:
    assert drifted(ROOT) == []
    assert len(custom_resource_definitions()) == 3


def test_drift_fails_with_the_name_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    (tmp_path / "crds/prewarm.dev_imagecaches.yaml").write_text("changed")
    (tmp_path / "charts/prewarm/files/crds/stray.yaml").write_text("stray")
    assert main(["--check"], tmp_path) == 1
    complaints = capsys.readouterr().err
    assert "crds/prewarm.dev_imagecaches.yaml differs" in complaints
    assert "charts/prewarm/files/crds/stray.yaml differs" in complaints
    assert "nodeimages" not in complaints


def test_unknown_arguments_are_refused(tmp_path: Path) -> None:
    assert main(["--chek"], tmp_path) == 2
