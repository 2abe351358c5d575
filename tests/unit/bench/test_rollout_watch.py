"""What the benchmark of many rollouts reads from the controller's log and from its own watch."""

from pathlib import Path

import msgspec

from e2e.bench.rollout_watch import FirstPlan, Reaction, Team, Watcher, first_plans
from e2e.emulator.writer import KubeletClient
from prewarm.cluster.connection import Connection

IMAGE = "one.example/web:v2"


def line(event: str, image: str, to_pull: int, **skipped: int) -> bytes:
    return msgspec.json.encode({"event": event, "images": [image], "to_pull": to_pull, "skipped": skipped})


def test_the_first_plan_with_an_image_counts_whatever_later_ones_say(tmp_path: Path) -> None:
    log = tmp_path / "prewarm.log"
    lines = [
        line("planned", "one.example/web:v1", 3),
        line("demand over", IMAGE, 9),
        line("planned", IMAGE, 0, TooLate=20),
        line("planned", IMAGE, 5),
    ]
    log.write_bytes(b"\n".join(lines) + b'\n{"event": "planned", "ima')
    assert first_plans(log, {IMAGE}) == {IMAGE: FirstPlan(0, {"TooLate": 20})}


def test_a_log_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert first_plans(tmp_path / "none", {IMAGE}) == {}


def test_answers_count_from_the_first_change_to_the_last_first_pull() -> None:
    watcher = Watcher(KubeletClient(Connection("https://server.example")), [Team("web", 4, "one.example")], "v2")
    watcher.answers = [(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)]
    assert watcher.answers_meanwhile() == []
    watcher.reactions["web"] = Reaction(changed=1.5, pulling=2.5)
    assert watcher.answers_meanwhile() == [0.2]
