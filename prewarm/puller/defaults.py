"""What an ImageCache leaves open is as its policy says or the controller is set; its times are such as can be."""

from msgspec import Struct
from msgspec.structs import replace

from prewarm.model.image_caches import ImageCache, PullerForm
from prewarm.model.snapshot import ClusterSnapshot, ObjectKey
from prewarm.model.times import believed
from prewarm.puller.policies import puller_forms
from prewarm.puller.settings import PullerSettings


def complete(cache: ImageCache, settings: PullerSettings, form: PullerForm | None = None) -> ImageCache:
    """The cache with every field set that has a default among the settings; `form` is what a policy says."""
    default_form = settings.puller_form if form is None else form
    return replace(
        cache,
        pull_policy=settings.pull_policy if cache.pull_policy is None else cache.pull_policy,
        attempt_timeout_seconds=(
            settings.attempt_timeout_seconds if cache.attempt_timeout_seconds is None else cache.attempt_timeout_seconds
        ),
        refresh_seconds=_interval(cache, settings),
        service_account=cache.service_account or settings.service_account,
        puller_form=default_form if cache.puller_form is None else cache.puller_form,
        priority_class=cache.priority_class or settings.priority_class,
    )


def _interval(cache: ImageCache, settings: PullerSettings) -> float:
    """Who gives times and no interval wants refreshes at these times only."""
    if cache.refresh_seconds is not None:
        return cache.refresh_seconds
    return settings.refresh_seconds if cache.schedule is None else 0.0


class _Completed(Struct, frozen=True):
    """A cache as it came, what completed it, and the outcome."""

    cache: ImageCache
    settings: PullerSettings
    form: PullerForm | None
    outcome: ImageCache


class Defaults:
    """Completes the caches of one snapshot after the other; one that did not change stays the same object."""

    def __init__(self) -> None:
        self._completed: dict[ObjectKey, _Completed] = {}

    def apply(self, snapshot: ClusterSnapshot, settings: PullerSettings) -> ClusterSnapshot:
        """The snapshot with completed caches."""
        completed: dict[ObjectKey, _Completed] = {}
        namespaces = {cache.namespace for cache in snapshot.image_caches.values()}
        form_of = puller_forms(snapshot)
        forms = {namespace: form_of(namespace) for namespace in namespaces}
        for key, cache in snapshot.image_caches.items():
            known, form = self._completed.get(key), forms[cache.namespace]
            created_at = believed(cache.created_at, snapshot.taken_at)
            if (
                known is None
                or known.cache is not cache
                or known.settings is not settings
                or known.form is not form
                or known.outcome.created_at != created_at
            ):
                # What happened before a creation does not count; after one in the future, nothing would.
                outcome = replace(complete(cache, settings, form), created_at=created_at)
                known = _Completed(cache, settings, form, outcome)
            completed[key] = known
        self._completed = completed
        return replace(snapshot, image_caches={key: known.outcome for key, known in completed.items()})
