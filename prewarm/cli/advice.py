"""What to do about nodes that a plan leaves out, by the reason for it."""

from prewarm.model.plans import SkipReason

ADVICE = {
    SkipReason.UNPREDICTABLE.value: "steer its pods (placement.steer: Prefer in its policy; with the annotation "
    "prewarm.dev/gate all pods of a rollout), announce the image before the change (prewarm warm), or accept that they "
    "start cold",
    SkipReason.STEERED_ELSEWHERE.value: "the pod was created before it could be steered, or its own preferences and "
    "the room on the warm nodes decided otherwise",
    SkipReason.UNLIKELY.value: "the scheduler chose a node that hardly any replay did",
    SkipReason.BEYOND_COVERAGE.value: "raise the policy's placement.coverage",
    SkipReason.BEYOND_WASTE.value: "it was not known well enough that pods would come there: steer them "
    "(placement.steer: Prefer in the policy), or raise its placement.maxWaste",
    SkipReason.BEYOND_OVERPROVISION.value: "raise the policy's placement.maxOverprovision",
    SkipReason.TOO_LATE.value: "pods that are created with the change itself start cold: announce the image before "
    "(prewarm warm, or the annotation prewarm.dev/next-images)",
    SkipReason.UNSETTLED.value: "other pods had to land first, or old ones to leave: announce the image before the "
    "change, or hold it until nodes are warm (annotation prewarm.dev/gate)",
    SkipReason.AWAITING_READY_PODS.value: "the policy's rollout.minUpdatedReadyPods held the image back",
    SkipReason.CANARY_UNPROVEN.value: "the canary had not proved healthy yet: a pause after its first step leaves time "
    "to pull",
    SkipReason.PULLED_BY_KRUISE.value: "OpenKruise pre-downloads the revision itself",
    SkipReason.UNOBSERVED.value: "OpenKruise had not seen the change yet",
}
"""By the value of the reason: what is remembered of a plan holds the words of the release that made it."""
