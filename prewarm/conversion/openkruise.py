"""OpenKruise's ImagePullJob and ImageListPullJob, and an AdvancedCronJob that makes the latter.

Version v1alpha1 and v1beta1 have the same fields. Source: apis/apps/v1beta1/imagepulljob_types.go,
imagelistpulljob_types.go, broadcastjob_types.go, advancedcronjob_types.go.
"""

from typing import Annotated, Literal

from msgspec.structs import replace
from pydantic import BeforeValidator, Field

from prewarm.conversion.foreign import (
    EVERYTHING,
    FieldError,
    ForeignModel,
    Remark,
    bounded,
    images_at,
    in_pieces,
    sorted_labels,
    unknown_fields,
)
from prewarm.model.image_caches import Completion, ImageCache, ImageList, Schedule
from prewarm.model.images import PullPolicy
from prewarm.model.selectors import LabelSelector, NodeSelectorTerm, Operator, Requirement

GROUP = "apps.kruise.io"
VERSIONS = frozenset({"v1alpha1", "v1beta1"})
PULL_JOB = "ImagePullJob"
LIST_JOB = "ImageListPullJob"
CRON_JOB = "AdvancedCronJob"

_A_DAY = 86_400.0
"""OpenKruise asks for the images of a job that never completes again about every 24 h."""
_A_YEAR = 31_536_000

Whole = Annotated[int, Field(strict=True)]


def _number_or_text(value: object) -> object:
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    raise ValueError("write a number from 0")


class LabelRequirement(ForeignModel):
    """metav1.LabelSelectorRequirement."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] | None = None


class PodSelector(ForeignModel):
    """metav1.LabelSelector."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[LabelRequirement] | None = None


class NodeSelector(PodSelector):
    """Nodes by name or by labels."""

    names: list[str] | None = None


class PullPolicyFields(ForeignModel):
    """How long and how often an image is tried."""

    timeout_seconds: Whole | None = None
    backoff_limit: Whole | None = None


class CompletionPolicy(ForeignModel):
    """Whether the job ends: Always, the default, or Never."""

    type: Literal["", "Always", "Never"] | None = None
    active_deadline_seconds: Whole | None = None
    ttl_seconds_after_finished: Whole | None = None


class Template(ForeignModel):
    """What both kinds of job have."""

    pull_secrets: list[str] | None = None
    selector: NodeSelector | None = None
    pod_selector: PodSelector | None = None
    parallelism: Annotated[int | str | None, BeforeValidator(_number_or_text)] = None
    pull_policy: PullPolicyFields | None = None
    completion_policy: CompletionPolicy | None = None
    sandbox_config: dict[str, object] | None = None
    image_pull_policy: Literal["", "Always", "IfNotPresent"] | None = None


class PullJobSpec(Template):
    """spec of an ImagePullJob."""

    image: str


class ListJobSpec(Template):
    """spec of an ImageListPullJob."""

    images: list[str] | None = None


class ListJobTemplate(ForeignModel):
    """What an AdvancedCronJob makes."""

    metadata: dict[str, object] | None = None
    spec: ListJobSpec


class CronJobTemplate(ForeignModel):
    """One of several kinds of job."""

    image_list_pull_job_template: ListJobTemplate
    job_template: object = None
    broadcast_job_template: object = None


class CronJobSpec(ForeignModel):
    """spec of an AdvancedCronJob for images."""

    schedule: str
    time_zone: str | None = None
    paused: bool | None = None
    starting_deadline_seconds: Whole | None = None
    concurrency_policy: str | None = None
    successful_jobs_history_limit: Whole | None = None
    failed_jobs_history_limit: Whole | None = None
    template: CronJobTemplate


def from_pull_job(spec: PullJobSpec) -> tuple[ImageCache, list[Remark]]:
    """The same wishes as an ImageCache of ours, without namespace and name.

    Raises:
        FieldError: if a field holds what OpenKruise would refuse, too.
    """
    if not spec.image:
        raise FieldError("spec.image: write an image such as registry.example/team/app:v1")
    return _from_template(spec, [("spec.image", spec.image)], "spec")


def from_list_job(spec: ListJobSpec, path: str = "spec") -> tuple[ImageCache, list[Remark]]:
    """The same wishes as one ImageCache with several images, without namespace and name.

    Raises:
        FieldError: as above.
    """
    images = [(f"{path}.images[{index}]", image) for index, image in enumerate(spec.images or ())]
    cache, remarks = _from_template(spec, images, path)
    if cache.parallelism is not None and len(images) > 1:
        remarks.append(
            Remark(f"{path}.parallelism", "there for each image by itself, with us nodes at once for all images")
        )
    return cache, remarks


def from_cron_job(spec: CronJobSpec) -> tuple[ImageCache, list[Remark]]:
    """An ImageCache that is looked after at the times of the schedule, without namespace and name.

    Raises:
        FieldError: as above.
    """
    inner = "spec.template.imageListPullJobTemplate.spec"
    cache, remarks = from_list_job(spec.template.image_list_pull_job_template.spec, inner)
    remarks += unknown_fields(spec, "spec")
    if spec.starting_deadline_seconds is not None:
        remarks.append(Remark("spec.startingDeadlineSeconds", "no counterpart: a time that was missed is made up for"))
    if cache.completion.deadline_seconds is not None:
        remarks.append(Remark(f"{inner}.completionPolicy.activeDeadlineSeconds", _NEVER_ENDS))
    scheduled = replace(
        cache,
        schedule=Schedule(spec.schedule, spec.time_zone or "Etc/UTC"),
        suspend=cache.suspend or bool(spec.paused),
        completion=Completion(),
        refresh_seconds=None,
    )
    return scheduled, remarks


_NEVER_ENDS = "no counterpart: an ImageCache that is kept does not end"


def _from_template(spec: Template, images: list[tuple[str, str]], path: str) -> tuple[ImageCache, list[Remark]]:
    remarks = list(unknown_fields(spec, path))
    if spec.sandbox_config:
        remarks.append(
            Remark(f"{path}.sandboxConfig", "no counterpart: the kubelet tells the runtime of the puller pod")
        )
    entry = ImageList(
        images_at(images, remarks),
        node_names=_names(spec.selector),
        node_selector=sorted_labels(spec.selector.match_labels if spec.selector else None),
        node_selector_terms=_terms(spec.selector),
        pod_selector=_pods(spec.pod_selector),
    )
    parallelism, suspend = _parallelism(spec.parallelism, f"{path}.parallelism")
    timeout, limit = _attempts(spec.pull_policy, f"{path}.pullPolicy", remarks)
    completion = _completion(spec.completion_policy, f"{path}.completionPolicy", remarks)
    cache = ImageCache(
        namespace="",
        name="",
        lists=tuple(in_pieces(entry)),
        pull_secrets=tuple(dict.fromkeys(spec.pull_secrets or ())),
        pull_policy=PullPolicy.ALWAYS if spec.image_pull_policy == "Always" else None,
        tolerations=EVERYTHING,
        parallelism=parallelism,
        attempt_timeout_seconds=timeout,
        suspend=suspend,
        completion=completion,
        refresh_seconds=None if completion.once else _A_DAY,
    )
    return (cache if limit is None else replace(cache, attempt_limit=limit)), remarks


def _names(selector: NodeSelector | None) -> tuple[str, ...] | None:
    # An empty list of names asks for no names there: with us it would ask for no node.
    return tuple(dict.fromkeys(selector.names)) if selector is not None and selector.names else None


def _terms(selector: NodeSelector | None) -> tuple[NodeSelectorTerm, ...]:
    if selector is None or not selector.match_expressions:
        return ()
    return (NodeSelectorTerm(_requirements(selector.match_expressions)),)


def _pods(selector: PodSelector | None) -> LabelSelector | None:
    if selector is None:
        return None
    return LabelSelector(sorted_labels(selector.match_labels), _requirements(selector.match_expressions))


def _requirements(found: list[LabelRequirement] | None) -> tuple[Requirement, ...]:
    return tuple(Requirement(r.key, Operator(r.operator), tuple(r.values or ())) for r in found or ())


def _parallelism(value: int | str | None, field: str) -> tuple[int | str | None, bool]:
    """Nodes at once, and whether the job is paused: 0 does that."""
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value)
    if value == 0:
        return None, True
    if isinstance(value, int) and value < 0:
        raise FieldError(f"{field}: {value}: write a number from 0")
    if isinstance(value, str) and not value.endswith("%"):
        raise FieldError(f"{field}: {value!r}: write a number from 0")
    return value, False


def _attempts(policy: PullPolicyFields | None, field: str, remarks: list[Remark]) -> tuple[int | None, int | None]:
    """Seconds for an attempt, and how many attempts: backoffLimit counts those after the first."""
    if policy is None:
        return None, None
    seconds, retries = policy.timeout_seconds, policy.backoff_limit
    return (
        None if seconds is None else bounded(seconds, 10, _A_DAY_OF_SECONDS, f"{field}.timeoutSeconds", remarks),
        None if retries is None else bounded(retries, 0, 99, f"{field}.backoffLimit", remarks) + 1,
    )


_A_DAY_OF_SECONDS = int(_A_DAY)


def _completion(policy: CompletionPolicy | None, field: str, remarks: list[Remark]) -> Completion:
    if policy is None:
        return Completion(once=True)
    deadline, ttl = policy.active_deadline_seconds, policy.ttl_seconds_after_finished
    if policy.type == "Never":
        given = (("activeDeadlineSeconds", deadline), ("ttlSecondsAfterFinished", ttl))
        remarks += [Remark(f"{field}.{name}", "no meaning with type Never, left out") for name, value in given if value]
        return Completion()
    return Completion(
        once=True,
        deadline_seconds=(
            None if deadline is None else bounded(deadline, 1, _A_YEAR, f"{field}.activeDeadlineSeconds", remarks)
        ),
        ttl_seconds=None if ttl is None else bounded(ttl, 0, _A_YEAR, f"{field}.ttlSecondsAfterFinished", remarks),
    )
