"""Wrong ImageCaches and what their authors are told, by the API server or in status."""

from collections.abc import Mapping

Spec = Mapping[str, object]

APP = "registry.test/web:v1"
LONG = "registry.test/" + "a" * 10_000
ENTRY: Spec = {"images": [APP]}
_IMAGE = "write an image as registry.example/team/app:v1"
_SIGNS = "spec.cacheSpec[0].images[0] in body should match '^[A-Za-z0-9_.:/@+"
_KEY = "write a label key as zone"


def of(*images: object, **fields: object) -> Spec:
    """A spec with one entry."""
    return {"cacheSpec": [{"images": list(images)}], **fields}


def entry(**fields: object) -> Spec:
    """A spec whose entry has more fields."""
    return {"cacheSpec": [{**ENTRY, **fields}]}


def _terms(**requirement: object) -> Spec:
    return entry(nodeSelectorTerms=[{"matchExpressions": [requirement]}])


HOSTILE_IMAGES: Mapping[str, str] = {
    "blank": "registry.test/web v1",
    "double quote": 'registry.test/web:"v1"',
    "single quote": "registry.test/web:'v1'",
    "command substitution": "registry.test/web:$(touch${IFS}/tmp/owned)",
    "backticks": "registry.test/web:`id`",
    "second command": "registry.test/web:v1;id",
    "pipe": "registry.test/web:v1|id",
    "background": "registry.test/web:v1&id",
    "redirection": "registry.test/web:v1>/tmp/owned",
    "backslash": "registry.test\\web:v1",
    "newline": "registry.test/web:v1\nid",
    "newline at the end": "registry.test/web:v1\n",
    "tab": "registry.test/web:\tv1",
    "NUL": "registry.test/web:v1\u0000",
    "escape sequence": "registry.test/web:\u001b[31mv1",
    "letters of another alphabet": "registry.test/w\u0435b:v1",
    "right-to-left mark": "registry.test/web\u202e:v1",
    "emoji": "registry.test/\U0001f4a5:v1",
    "wildcard": "registry.test/*:v1",
    "home": "~/web:v1",
    "variable": "$HOME:v1",
    "template": "{{ .Values.image }}",
    "scheme": "https://registry.test/web:v1",
}
"""None of them is a reference."""

REFUSED: Mapping[str, tuple[object, str]] = {
    **{
        f"image with {name}": (of(image), _IMAGE if " " in image or "://" in image else _SIGNS)
        for name, image in HOSTILE_IMAGES.items()
    },
    "image of 10 kB": (of(LONG), "Too long"),
    "empty image": (of(""), "an image is never empty; to ask for none, write images: []"),
    "image that is a number": (of(1), "must be of type string"),
    "image that is an object": (of({"name": APP}), 'unknown field "spec.cacheSpec[0].images[0].name"'),
    "images that are a text": ({"cacheSpec": [{"images": APP}]}, "must be of type array"),
    "no images": ({"cacheSpec": [{}]}, "images: Required value"),
    "no spec": (None, "spec: Required value"),
    "no entries": ({"cacheSpec": []}, "should have at least 1 items"),
    "no cacheSpec": ({"suspend": True}, "spec.cacheSpec: Required value"),
    "unknown field": (of(APP, image=APP), 'unknown field "spec.image"'),
    "host path": (of(APP, hostPath="/"), 'unknown field "spec.hostPath"'),
    "too many images": (of(*[APP] * 257), "Too many: 257"),
    "too many entries": ({"cacheSpec": [ENTRY] * 33}, "Too many: 33"),
    "node name in capitals": (entry(nodeNames=["Node_1"]), "in body should match"),
    "node selector with a bad key": (entry(nodeSelector={"a b": "c"}), _KEY),
    "node selector with a path as key": (entry(nodeSelector={"a/b/c": "d"}), _KEY),
    "node selector with a bad value": (entry(nodeSelector={"a": "-"}), "write a label value in letters"),
    "node selector that is a list": (entry(nodeSelector=["a"]), "must be of type object"),
    "term without expressions": (entry(nodeSelectorTerms=[{}]), "matchExpressions: Required value"),
    "In without values": (_terms(key="a", operator="In"), "operators In and NotIn need values"),
    "Exists with values": (_terms(key="a", operator="Exists", values=["b"]), "Exists and DoesNotExist take none"),
    "Gt without a number": (_terms(key="a", operator="Gt", values=["b"]), "need one whole number"),
    "unknown operator": (_terms(key="a", operator="Equals", values=["b"]), 'Unsupported value: "Equals"'),
    "pod selector that is a list": (entry(podSelector=["a"]), "must be of type object"),
    "pod selector with a bad label": (entry(podSelector={"matchLabels": {"a b": "c"}}), _KEY),
    "pull policy Never": (of(APP, imagePullPolicy="Never"), 'Unsupported value: "Never"'),
    "parallelism of nought": (of(APP, parallelism=0), "greater than or equal to 1"),
    "parallelism in words": (of(APP, parallelism="all"), "write parallelism as a whole number"),
    "parallelism above 100 %": (of(APP, parallelism="101%"), "write parallelism as a whole number"),
    "needed tomorrow": (of(APP, neededBy="tomorrow"), "must be of type date-time"),
    "no attempts": (of(APP, attempts={"limit": 0}), "greater than or equal to 1"),
    "timeout of a second": (of(APP, attempts={"timeoutSeconds": 1}), "greater than or equal to 10"),
    "priority beyond all": (of(APP, priority=1_000_000), "less than or equal to 1000"),
    "system priority class": (of(APP, priorityClassName="system-node-critical"), "no priority class of the system's"),
    "service account in capitals": (of(APP, serviceAccountName="Web App"), "write a name in lower case letters"),
    "secret without a name": (of(APP, imagePullSecrets=[{}]), "name: Required value"),
    "secret of another namespace": (
        of(APP, imagePullSecrets=[{"name": "a", "namespace": "kube-system"}]),
        'unknown field "spec.imagePullSecrets[0].namespace"',
    ),
    "secret twice": (of(APP, imagePullSecrets=[{"name": "a"}, {"name": "a"}]), "Duplicate value"),
    "toleration with Exists and a value": (
        of(APP, tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
        "a toleration with operator Exists has no value",
    ),
    "toleration of nothing": (of(APP, tolerations=[{"value": "b"}]), "needs operator Exists"),
    "hold in words": (of(APP, hold="8 hours"), "write a duration such as 30s, 15m or 1h30m"),
    "refresh interval as a number": (of(APP, refreshInterval=900), "must be of type string"),
    "schedule of four fields": (of(APP, schedule={"cron": "0 5 * *"}), "write the five fields of a cron schedule"),
    "deadline of endless work": (
        of(APP, completion={"activeDeadlineSeconds": 60}),
        "activeDeadlineSeconds and ttlSecondsAfterFinished need type Once",
    ),
    "unknown deletion policy": (of(APP, deletionPolicy="Delete"), 'Unsupported value: "Delete"'),
    "unknown puller form": (of(APP, pullerForm="Job"), 'Unsupported value: "Job"'),
    "suspend in words": (of(APP, suspend="yes"), "must be of type boolean"),
}
"""By kind of fault: spec, and words of the API server's answer."""

TOLD: Mapping[str, tuple[Spec, str]] = {
    "image-with-capitals": (of("registry.test/Web:v1"), "Ready False InvalidSpec"),
    "image-with-two-tags": (of("registry.test/web:v1:v2"), "Ready False InvalidSpec"),
    "image-with-empty-tag": (of("registry.test/web:"), "Ready False InvalidSpec"),
    "image-with-short-digest": (of("registry.test/web@sha256:abc"), "Ready False InvalidSpec"),
    "image-with-dots": (of("../../web:v1"), "Ready False InvalidSpec"),
    "image-of-a-tag-alone": (of(":v1"), "Ready False InvalidSpec"),
    "option-as-image": (of("--privileged"), "Ready False InvalidSpec"),
    "one-bad-image-of-two": (of(APP, "registry.test/Web:v1"), "Ready False InvalidSpec"),
    "unknown-time-zone": (of(APP, schedule={"cron": "0 5 * * *", "timeZone": "Mars/Base"}), "Ready False InvalidSpec"),
    "impossible-schedule": (of(APP, schedule={"cron": "99 5 * * *"}), "Ready False InvalidSpec"),
    "node-that-is-not-there": (entry(nodeNames=["absent"]), "NodeNotFound"),
    "no-node-matches": (entry(nodeSelector={"prewarm.dev/test": "none"}), "Ready False NoNodes"),
    "contradiction": (
        {
            "cacheSpec": [
                {
                    **ENTRY,
                    "nodeSelector": {"a": "b"},
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}],
                }
            ]
        },
        "Ready False NoNodes",
    ),
    "no-such-service-account": (
        of("registry.test/account:v1", serviceAccountName="absent"),
        'serviceaccount "absent" not found',
    ),
    "no-such-priority-class": (
        of("registry.test/class:v1", priorityClassName="absent"),
        "no PriorityClass with name absent was found",
    ),
    "no-such-tag": (of("registry.test/web:missing"), "NotFound"),
}
"""By name of the ImageCache: spec, and words of its status."""
