"""One document of another project to an ImageCache manifest, or why it is none."""

from collections.abc import Mapping
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace
from pydantic import ValidationError

from prewarm.api.errors import explain
from prewarm.api.fields import mapping, text
from prewarm.api.image_cache import decode_image_cache, image_cache_manifest
from prewarm.api.names import API_VERSION
from prewarm.conversion import kube_fledged, openkruise
from prewarm.conversion.documents import Document
from prewarm.conversion.foreign import FieldError, ForeignModel, Remark
from prewarm.model.image_caches import ImageCache
from prewarm.model.intents import Json, Manifest

Spec = TypeVar("Spec", bound=ForeignModel)

_BOOKKEEPING = (
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "apps.kruise.io/",
    "argocd.argoproj.io/",
    "helm.sh/",
    "helm.toolkit.fluxcd.io/",
    "kapp.k14s.io/",
    "kubectl.kubernetes.io/",
    "kubefledged",
    "kustomize.toolkit.fluxcd.io/",
    "meta.helm.sh/",
    "prewarm.dev/",
)
"""Labels and annotations that a tool or controller keeps its books by: on our objects they would mislead it."""


class Converted(Struct, frozen=True):
    """An ImageCache manifest, and what in the original has no counterpart in it."""

    manifest: Manifest
    remarks: tuple[Remark, ...]


class ConversionError(ValueError):
    """A document cannot become an ImageCache; the message says why, without naming the document.

    Attributes:
        harmless: whether there is nothing in it that would be lost, so that the others go ahead without it.
    """

    def __init__(self, message: str, *, harmless: bool = False) -> None:
        super().__init__(message)
        self.harmless = harmless


def convert(document: Document) -> Converted:
    """A manifest of kube-fledged or OpenKruise as an ImageCache that asks for the same.

    What a server added (status, managedFields, resourceVersion, owners) is dropped.

    Raises:
        ConversionError: if it is of another kind, made or deleted by a controller, or wrong.
    """
    metadata = mapping(document.content.get("metadata"))
    try:
        cache, remarks = _cache(document, metadata)
    except FieldError as error:
        raise ConversionError(str(error)) from None
    name = text(metadata.get("name"))
    if not name:
        name = text(metadata.get("generateName")).rstrip("-.")
        if not name:
            raise ConversionError("metadata.name: this field is required")
        remarks.append(Remark("metadata.generateName", f"becomes the name {name}, the same for every run"))
    manifest = _named(replace(cache, name=name, namespace=text(metadata.get("namespace"))), metadata)
    problem = decode_image_cache(manifest).error
    if problem:
        raise ConversionError(f"makes no valid ImageCache: {problem}")
    return Converted(manifest, tuple(remarks))


def _cache(document: Document, metadata: Mapping[str, object]) -> tuple[ImageCache, list[Remark]]:
    group, _, version = document.api_version.rpartition("/")
    kind, raw = document.kind, document.content.get("spec")
    _check_kind(document, group, version)
    _check_life(kind, metadata)
    if kind == kube_fledged.KIND:
        annotations = mapping(metadata.get("annotations"))
        return kube_fledged.from_kube_fledged(_spec(kube_fledged.FledgedSpec, raw), annotations)
    if kind == openkruise.PULL_JOB:
        return openkruise.from_pull_job(_spec(openkruise.PullJobSpec, raw))
    if kind == openkruise.LIST_JOB:
        return openkruise.from_list_job(_spec(openkruise.ListJobSpec, raw))
    return openkruise.from_cron_job(_spec(openkruise.CronJobSpec, raw))


def _check_kind(document: Document, group: str, version: str) -> None:
    kind = document.kind
    if not kind or not document.api_version:
        raise ConversionError("has no apiVersion and kind", harmless=True)
    if document.api_version == API_VERSION:
        raise ConversionError("is prewarm's own", harmless=True)
    if group in kube_fledged.GROUPS and kind == kube_fledged.KIND:
        known = kube_fledged.VERSIONS
    elif group == openkruise.GROUP and kind in {openkruise.PULL_JOB, openkruise.LIST_JOB}:
        known = openkruise.VERSIONS
    elif group == openkruise.GROUP and kind == openkruise.CRON_JOB:
        template = mapping(mapping(document.content.get("spec")).get("template"))
        if "imageListPullJobTemplate" not in template:
            raise ConversionError("runs other jobs than ImageListPullJobs", harmless=True)
        known = openkruise.VERSIONS
    elif group == openkruise.GROUP and kind == "NodeImage":
        raise ConversionError("is written by OpenKruise's controller; prewarm keeps its own", harmless=True)
    else:
        raise ConversionError(
            f"{document.api_version} {kind} is no list of images of kube-fledged or OpenKruise", harmless=True
        )
    if version not in known:
        raise ConversionError(f"version {version} of {group} is not known: {', '.join(sorted(known))} are")


def _check_life(kind: str, metadata: Mapping[str, object]) -> None:
    if metadata.get("deletionTimestamp") is not None:
        raise ConversionError("is being deleted", harmless=True)
    owners = metadata.get("ownerReferences")
    for owner in map(mapping, owners if isinstance(owners, list) else ()):
        if owner.get("controller") is True and kind in {openkruise.PULL_JOB, openkruise.LIST_JOB}:
            raise ConversionError(
                f"was made by {text(owner.get('kind'))} {text(owner.get('name'))}, which asks for it", harmless=True
            )


def _spec(model: type[Spec], raw: object) -> Spec:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConversionError(explain(error)) from None


def _named(cache: ImageCache, metadata: Mapping[str, object]) -> Manifest:
    """The manifest with people's own labels and annotations; without a namespace if the original had none."""
    manifest = image_cache_manifest(cache)
    made = dict(mapping(manifest["metadata"]))
    kept: dict[str, Json] = {"name": cache.name}
    if cache.namespace:
        kept["namespace"] = cache.namespace
    labels = _own(metadata.get("labels"))
    annotations = {
        **_own(metadata.get("annotations")),
        **{k: str(v) for k, v in mapping(made.get("annotations")).items()},
    }
    if labels:
        kept["labels"] = labels
    if annotations:
        kept["annotations"] = annotations
    return {**manifest, "metadata": kept}


def _own(found: object) -> dict[str, str]:
    return {
        key: value
        for key, value in mapping(found).items()
        if isinstance(value, str) and not key.startswith(_BOOKKEEPING) and (key, value) != ("app", "kubefledged")
    }
