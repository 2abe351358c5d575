"""The plain YAML installation, made from the chart: `python -m e2e.plain_yaml [--check]` writes deploy/prewarm.yaml.

It also writes the page of rights, which the chart's roles decide (docs/reference/rbac.md).

Helm renders the chart with its default values (helm from the PATH, else built); what is Helm's own in the output goes.
The CustomResourceDefinitions stay in crds/, so that `kubectl delete -f` takes no ImageCache with it.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from e2e.cluster import binaries
from e2e.manifests import PROJECT, documents
from e2e.rights import PAGE, rights_page, switched_rights
from prewarm.api.generate import to_yaml
from prewarm.model.intents import Json, Manifest

TARGET = PROJECT / "deploy" / "prewarm.yaml"
NAMESPACE = "prewarm-system"
_HEADER = """\
# Generated from charts/prewarm by `python -m e2e.plain_yaml`: change the chart, not this file.
#
# Install:    kubectl apply --server-side -f crds/ -f deploy/prewarm.yaml
# Uninstall:  docs/uninstall.md
"""
_NAMESPACE_OBJECT: Manifest = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}
EVERYTHING = (
    "--set=gate.enabled=true,steer.enabled=true",
    "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
)
"""Helm's options for all that is off by default and brings rights."""
PLAIN = "--no-hooks"
"""Helm's option for what is applied without Helm: a hook would be an object like any other, and run at once."""
_HELMS_OWN = {"helm.sh/chart", "app.kubernetes.io/managed-by"}


def render(helm: Path, *options: str) -> str:
    """The whole file; `options` are helm's.

    Raises:
        RuntimeError: if helm fails; the message is its own.
    """
    chart = ("prewarm", str(PROJECT / "charts/prewarm"), "--namespace", NAMESPACE)
    command = (str(helm), "template", *chart, "--set", "crds.install=false", *options)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise RuntimeError(f"helm template: {done.stderr.strip()}")
    objects: list[Manifest] = [document for document in yaml.safe_load_all(done.stdout) if document]
    return _HEADER + "---\n".join(to_yaml(_plain(manifest)) for manifest in (_NAMESPACE_OBJECT, *objects))


def _plain(node: Json) -> Json:
    """The same without Helm's labels, wherever they are."""
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items() if key not in _HELMS_OWN}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return node


def main(arguments: Sequence[str]) -> int:
    """Write the file, or with --check say whether it differs; exit code 0, 1 (drift) or 2 (usage)."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: python -m e2e.plain_yaml [--check]\n")
        return 2
    content = render(binaries.helm(), PLAIN)
    switched = render(binaries.helm(), *EVERYTHING)
    files = {TARGET: content, PROJECT / PAGE: rights_page(documents(content)) + switched_rights(documents(switched))}
    wrong = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in wrong:
        if arguments:
            name = path.relative_to(PROJECT)
            sys.stderr.write(f"{name} differs from charts/prewarm: run python -m e2e.plain_yaml\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
    return 1 if arguments and wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
