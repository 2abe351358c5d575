"""`prewarm crds`, `prewarm policies` and `prewarm admission-policies`: manifests to apply."""

import re
from pathlib import Path
from typing import Annotated

import typer

from prewarm.api.fields import NAME_PATTERN
from prewarm.api.policy import REGISTRY_PATTERN
from prewarm.cli.errors import usage
from prewarm.cli.yaml_text import to_yaml
from prewarm.puller import guards


def crds() -> None:
    """Print the CustomResourceDefinitions: prewarm crds | kubectl apply --server-side -f -."""
    _print(_files("crds"))


def policies(
    names: Annotated[list[str] | None, typer.Argument(help="Which ones; all if none is named.")] = None,
) -> None:
    """Print the ready-made PrewarmPolicies: prewarm policies scale-out | kubectl apply -f -."""
    files = {file.stem: file for file in _files("policies")}
    for name in names or ():
        if name not in files:
            raise usage(f"no ready-made policy {name!r}; there are: {', '.join(files)}")
    _print([files[name] for name in dict.fromkeys(names or files)])


def admission_policies(
    namespace: Annotated[str, typer.Option(help="Namespace of the controller.")] = guards.NAMESPACE,
    service_account: Annotated[str, typer.Option(help="ServiceAccount of the controller.")] = guards.RELEASE,
    purging: Annotated[bool, typer.Option("--purging", help="Removing images is switched on.")] = False,
    added_container: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=REPOSITORY",
            help="Container that an injector adds to every pod, which puller pods may have; may be repeated.",
        ),
    ] = None,
) -> None:
    """Print the ValidatingAdmissionPolicies that bind authors of ImageCaches, and the controller itself.

    The chart and deploy/prewarm.yaml have them already.
    """
    for value, option in ((namespace, "--namespace"), (service_account, "--service-account")):
        if re.fullmatch(NAME_PATTERN, value) is None:
            raise usage(f"{option} {value!r}: write the name of an object")
    added = [_added(text) for text in added_container or ()]
    made = guards.guards(namespace, service_account, purging=purging, added=added)
    manifests = [write(guard) for guard in made for write in (guards.policy_manifest, guards.binding_manifest)]
    typer.echo("---\n".join(to_yaml(manifest) for manifest in manifests), nl=False)


def _added(text: str) -> guards.AddedContainer:
    name, _, image = text.partition("=")
    if re.fullmatch(NAME_PATTERN, name) is None or re.fullmatch(REGISTRY_PATTERN, image, re.ASCII) is None:
        raise usage(f"--added-container {text!r}: write name=repository, as mesh-proxy=registry.example/mesh/proxy")
    return guards.AddedContainer(name, image)


def _files(folder: str) -> list[Path]:
    """Manifests of a kind: in the installed package, or in the checkout that it is run from."""
    package = Path(__file__).parent
    for place in (package / "manifests_data" / folder, package.parent.parent / folder):
        if place.is_dir():
            return sorted(place.glob("*.yaml"))
    raise FileNotFoundError(f"this installation of prewarm lacks its {folder}: install it again")


def _print(files: list[Path]) -> None:
    texts = [file.read_text(encoding="utf-8").removeprefix("---\n").rstrip() for file in files]
    typer.echo("\n---\n".join(texts))
