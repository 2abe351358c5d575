"""Image references as pod specs write them, and one spelling of each to compare by."""

import re
from enum import StrEnum
from functools import lru_cache

from msgspec import Struct

MAX_REFERENCE_LENGTH = 1024
"""Longest reference accepted from annotations and custom resources."""

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<repository>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
"""The grammar of github.com/distribution/reference (regexp.go), anchored by fullmatch."""


class PullPolicy(StrEnum):
    """spec.containers[].imagePullPolicy."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


class ImageReference(Struct, frozen=True, order=True):
    """A reference taken apart; `str()` gives the one spelling that equal references share."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"

    @property
    def name(self) -> str:
        """Registry and repository without tag and digest: the key of the kubelet's credential records (KEP-2535)."""
        return f"{self.registry}/{self.repository}"


@lru_cache(maxsize=16384)
def parse_reference(text: str) -> ImageReference:
    """Take a reference apart, filling in docker.io, library/ and :latest as the container runtimes do.

    Raises:
        ValueError: if the text is not a reference; the message says what is wrong.
    """
    if not text or text != text.strip():
        raise ValueError(f"image {text!r} is empty or has blanks around it: write registry/repository:tag")
    if len(text) > MAX_REFERENCE_LENGTH:
        raise ValueError(f"image reference of {len(text)} characters: at most {MAX_REFERENCE_LENGTH} are allowed")
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise ValueError(f"image {text!r} is not an image reference such as registry.example/team/app:v1")
    path = match["repository"]
    head, slash, tail = path.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head != head.lower()):
        registry, repository = head, tail
    else:
        registry, repository = "docker.io", path if slash else f"library/{path}"
    if registry == "index.docker.io":
        registry = "docker.io"
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    if repository != repository.lower() or len(path) > 255:
        raise ValueError(f"image {text!r}: the repository has to be lower case and at most 255 characters")
    tag = match["tag"] or ""
    digest = match["digest"] or ""
    return ImageReference(registry, repository, tag if tag or digest else "latest", digest)


@lru_cache(maxsize=16384)
def canonical(text: str) -> str:
    """The spelling under which an image is compared; a text that is no reference is its own spelling."""
    try:
        return str(parse_reference(text))
    except ValueError:
        return text


@lru_cache(maxsize=16384)
def registry_of(text: str) -> str:
    """The registry that an image is pulled from, by which pulls are bounded; "" if the text is no reference."""
    try:
        return parse_reference(text).registry
    except ValueError:
        return ""
