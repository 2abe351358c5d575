"""kube-fledged's ImageCache: v1alpha1 (group kubefledged.k8s.io), v1alpha2 and v1alpha3 (kubefledged.io).

In v1alpha3 images are objects with name and forceFullCache, before that texts; both are taken in every version.
Source: pkg/apis/kubefledged/*/types.go.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

from prewarm.api.fields import text
from prewarm.api.metadata import MAX_ANNOTATION
from prewarm.conversion.foreign import (
    EVERYTHING,
    ForeignModel,
    Remark,
    images_at,
    in_pieces,
    sorted_labels,
    unknown_fields,
)
from prewarm.model.image_caches import ImageCache, ImageList

GROUPS = frozenset({"kubefledged.io", "kubefledged.k8s.io"})
VERSIONS = frozenset({"v1alpha1", "v1alpha2", "v1alpha3"})
KIND = "ImageCache"

_REFRESH = "refresh-imagecache"
_PURGE = "purge-imagecache"
_STAYS = (
    "there an image that is taken out leaves the nodes, with us it stays: deletionPolicy: Purge, where removing is "
    "switched on, has it leave, and deleting the ImageCache removes all of its images then"
)
"""Not converted: kube-fledged removes nothing when an ImageCache is deleted, and Purge would."""


class NamedImage(ForeignModel):
    """An image in v1alpha3."""

    name: str
    force_full_cache: bool | None = None


def _named_image(value: object) -> object:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping):
        return value
    raise ValueError("write an image as text such as registry.example/team/app:v1, or as an object with its name")


class CacheSpecImages(ForeignModel):
    """A list of images and the labels of its nodes."""

    images: list[Annotated[NamedImage, BeforeValidator(_named_image)]] | None = None
    node_selector: dict[str, str] | None = None


class LocalObjectReference(ForeignModel):
    """A Secret of the same namespace."""

    name: str = Field(min_length=1)


class FledgedSpec(ForeignModel):
    """spec of an ImageCache."""

    cache_spec: list[CacheSpecImages] | None = None
    image_pull_secrets: list[LocalObjectReference] | None = None


def from_kube_fledged(spec: FledgedSpec, annotations: Mapping[str, object]) -> tuple[ImageCache, list[Remark]]:
    """The same wishes as an ImageCache of ours, without namespace and name.

    Raises:
        FieldError: if a text is no image reference.
    """
    remarks = list(unknown_fields(spec, "spec"))
    lists = [
        piece
        for index, entry in enumerate(spec.cache_spec or ())
        for piece in in_pieces(_image_list(entry, f"spec.cacheSpec[{index}]", remarks))
    ]
    if not lists:
        remarks.append(Remark("spec.cacheSpec", "empty: the ImageCache asks for no image"))
    if any(entry.images for entry in lists):
        remarks.append(Remark("spec.cacheSpec", _STAYS))
    refresh, purge = _request(annotations, _REFRESH), _request(annotations, _PURGE)
    if refresh is not None and purge is not None:
        # As kube-fledged does where both stand.
        remarks.append(Remark(f"metadata.annotations.{_REFRESH}", "left out: there is a request to purge beside it"))
        refresh = None
    cache = ImageCache(
        namespace="",
        name="",
        lists=tuple(lists) or (ImageList(()),),
        pull_secrets=tuple(dict.fromkeys(secret.name for secret in spec.image_pull_secrets or ())),
        tolerations=EVERYTHING,
        refresh_request=refresh,
        purge_request=purge,
    )
    return cache, remarks


def _image_list(entry: CacheSpecImages, where: str, remarks: list[Remark]) -> ImageList:
    images = []
    for index, image in enumerate(entry.images or ()):
        field = f"{where}.images[{index}]"
        images.append((field, image.name))
        if image.force_full_cache:
            remarks.append(
                Remark(f"{field}.forceFullCache", f"no counterpart: how much is fetched is up to {_SNAPSHOTTER}")
            )
    return ImageList(images_at(images, remarks), node_selector=sorted_labels(entry.node_selector))


_SNAPSHOTTER = "the node's runtime and its snapshotter"


def _request(annotations: Mapping[str, object], name: str) -> str | None:
    """Value of one of its annotations; None without it."""
    for group in sorted(GROUPS):
        value = annotations.get(f"{group}/{name}")
        if value is not None:
            return text(value, MAX_ANNOTATION)
    return None
