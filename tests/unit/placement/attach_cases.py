"""Attach limits, and where the real kube-scheduler 1.36 lets pods fit (e2e/test_volume_filters.py plays the table)."""

from collections.abc import Mapping

from msgspec import Struct

EBS, EFS = "ebs.example.com", "efs.example.com"

LIMITS: Mapping[str, Mapping[str, int | None]] = {
    "a": {EBS: 2},
    "b": {EBS: 3, EFS: 1},
    "c": {EBS: None},
    "d": {},
}
"""By node, what each driver attaches; None: the driver does not say."""

STANDING: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "a": (("ebs-1", "ebs-2"),),
    "b": (("ebs-3", "efs-1"), ("ebs-3",), ("plain",)),
    "c": (("ebs-4",),),
    "d": (),
}
"""By node, the volumes of each of its pods. Pods may share one."""


def driver(volume: str) -> str:
    """Of a volume, by its name; "" for one that no CSI driver attaches."""
    return {"ebs": EBS, "efs": EFS}.get(volume.partition("-")[0], "")


class AttachCase(Struct, frozen=True):
    """The volumes of a pod, and where it fits."""

    name: str
    volumes: tuple[str, ...]
    fits: str


CASES = (
    AttachCase("one-more", ("ebs-10",), "bcd"),
    AttachCase("two-more", ("ebs-11", "ebs-12"), "bcd"),
    AttachCase("three-more", ("ebs-13", "ebs-14", "ebs-15"), "cd"),
    AttachCase("attached-already", ("ebs-1",), "abcd"),
    AttachCase("one-attached-one-new", ("ebs-2", "ebs-16"), "bcd"),
    AttachCase("another-driver", ("efs-10",), "acd"),
    AttachCase("two-drivers", ("ebs-17", "efs-11"), "cd"),
    AttachCase("no-driver", ("plain-2",), "abcd"),
)
