"""What else should people know of an ImageCache? Conditions beside those that follow from its pairs."""

from collections.abc import Iterable

from prewarm.model.image_caches import Condition, PullerForm
from prewarm.model.snapshot import ClusterSnapshot
from prewarm.puller.forms import mounts_images
from prewarm.puller.hearsay import Hearsay
from prewarm.puller.quota import Headroom
from prewarm.puller.readings import Readings
from prewarm.puller.reasons import WithheldReason
from prewarm.puller.standing import Standing
from prewarm.puller.work import Work

PODS_ALTERED = "PodsAltered"
VOLUME_FORM = "VolumeForm"
QUOTA_LIMITED = "QuotaLimited"
NOTES = frozenset({PODS_ALTERED, VOLUME_FORM, QUOTA_LIMITED})
_LONGEST = 240


def listen(hearsay: Hearsay, readings: Readings, work: Work) -> None:
    """Note what admission made of the pods that are there: with the pod the proof goes."""
    newest: dict[str, tuple[float, str]] = {}
    for reading in work.readings:
        pod = reading.pod
        if pod.owner is None:
            continue
        known = newest.get(pod.owner.uid)
        if known is not None and pod.created_at < known[0]:
            continue
        said = readings.altered(pod.key)
        if known is None or known < (pod.created_at, said):
            newest[pod.owner.uid] = (pod.created_at, said)
    hearsay.altered.update((uid, said) for uid, (_, said) in newest.items())


def notes_on(
    standing: Standing, snapshot: ClusterSnapshot, headroom: Headroom, hearsay: Hearsay, withheld: Iterable[str]
) -> tuple[Condition, ...]:
    """The conditions, without their times; those that do not apply are left out.

    Args:
        standing: the cache.
        snapshot: the cluster.
        headroom: quotas, after admission.
        hearsay: what is known of pods.
        withheld: uids of caches whose pulls wait for a quota.
    """
    cache = standing.cache
    found: list[Condition] = []
    altered = hearsay.altered.get(cache.uid)
    if altered is None:
        found.extend(old for old in cache.status.conditions if old.type == PODS_ALTERED)
    elif altered:
        found.append(Condition(PODS_ALTERED, True, "Admission", f"admission: {altered}"[:_LONGEST], 0.0))
    if cache.puller_form is PullerForm.VOLUME:
        found.append(_volume_form(standing, snapshot))
    if cache.uid in withheld:
        said = headroom.short.get(cache.namespace, "")
        found.append(Condition(QUOTA_LIMITED, True, WithheldReason.QUOTA_HEADROOM.value, said[:_LONGEST], 0.0))
    return tuple(found)


def _volume_form(standing: Standing, snapshot: ClusterSnapshot) -> Condition:
    names = [name for name in standing.node_names if name in snapshot.nodes]
    cannot = sum(not mounts_images(snapshot.nodes[name]) for name in names)
    if not cannot:
        return Condition(VOLUME_FORM, True, "Mounted", "images are pulled by mounting them", 0.0)
    said = (
        f"{cannot} of {len(names)} nodes cannot mount images (it takes kubelet 1.35 and containerd 2.1 or CRI-O 1.33): "
        "there the images are pulled in form Container"
    )
    return Condition(VOLUME_FORM, False, "NotEverywhere" if cannot < len(names) else "Nowhere", said, 0.0)
