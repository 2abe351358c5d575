"""ImagePolicies of Flux: which image they have found to be the latest."""

from msgspec import Struct, field

from prewarm.cluster.decoding.common import WireMeta
from prewarm.cluster.decoding.problems import Report
from prewarm.model.images import parse_reference
from prewarm.model.progressive import ImagePolicy


class WireImageRef(Struct, gc=False):
    """status.latestRef of v1 and v1beta2."""

    name: str = ""
    tag: str = ""
    digest: str = ""


class WireImagePolicyStatus(Struct, rename="camel", gc=False):
    """Status of an ImagePolicy; v1beta1, and v1beta2 at first, had the image as one text."""

    latest_ref: WireImageRef | None = None
    latest_image: str = ""


class WireImagePolicy(Struct, gc=False):
    """image.toolkit.fluxcd.io ImagePolicy."""

    metadata: WireMeta
    status: WireImagePolicyStatus = field(default_factory=WireImagePolicyStatus)


def image_policy(wire: WireImagePolicy, report: Report) -> ImagePolicy:
    """An ImagePolicy with the image that it names, without one until it has found any."""
    meta, image = wire.metadata, _image(wire.status)
    if image:
        try:
            parse_reference(image)
        except ValueError as error:
            report(f"status: {error}")
            image = ""
    return ImagePolicy(meta.namespace, meta.name, image, meta.resource_version)


def _image(status: WireImagePolicyStatus) -> str:
    """As ImageRef.String() writes it (image-reflector-controller, api/v1/imagepolicy_types.go)."""
    found = status.latest_ref
    if found is None or not found.name or not found.tag:
        return status.latest_image
    return f"{found.name}:{found.tag}@{found.digest}" if found.digest else f"{found.name}:{found.tag}"
