from pathlib import Path

import pytest

from e2e.cluster.binaries import Family, cache_key, check_go, kubernetes_module, linker_flags
from e2e.cluster.gobuild import binary_name
from e2e.cluster.gomodules import (
    GoModule,
    ToolError,
    normalize_version,
    parse_required,
    parse_tools,
    staging_modules,
    wrapper_go_mod,
)

# The shape of k8s.io/kubernetes' own go.mod, shortened.
UPSTREAM = """module k8s.io/kubernetes

go 1.25.0

godebug default=go1.25

require (
\tgithub.com/blang/semver/v4 v4.0.0
\tk8s.io/api v0.0.0
\tk8s.io/client-go v0.0.0
\tk8s.io/klog/v2 v2.130.1
)

replace (
\tk8s.io/api => ./staging/src/k8s.io/api
\tk8s.io/client-go => ./staging/src/k8s.io/client-go
\tk8s.io/sample-controller => ./staging/src/k8s.io/sample-controller
)
"""
TOOLS = ("k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/cmd/kubectl")


def module_in(directory: Path, go_mod: str = "module m\n\ngo 1.21\n", go_sum: str = "") -> GoModule:
    directory.mkdir(exist_ok=True)
    (directory / "go.mod").write_text(go_mod)
    (directory / "go.sum").write_text(go_sum)
    return GoModule(directory)


def test_staging_modules_are_those_replaced_by_folders_and_those_never_published() -> None:
    assert staging_modules(UPSTREAM) == ("k8s.io/api", "k8s.io/client-go", "k8s.io/sample-controller")


def test_staging_modules_are_found_where_go_mod_has_no_replace_lines() -> None:
    without = UPSTREAM[: UPSTREAM.index("replace")]
    assert staging_modules(without) == ("k8s.io/api", "k8s.io/client-go")


def test_a_wrapper_replaces_every_staging_module_by_its_published_version() -> None:
    text = wrapper_go_mod("v1.35.2", UPSTREAM, TOOLS)
    assert parse_required(text, "k8s.io/kubernetes") == "v1.35.2"
    assert parse_tools(text) == TOOLS
    assert "go 1.25.0\n" in text
    assert "\tk8s.io/sample-controller => k8s.io/sample-controller v0.35.2\n" in text
    assert "klog" not in text


def test_a_release_with_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ToolError, match=r"v1\.99\.0.*no staging module"):
        wrapper_go_mod("v1.99.0", "module k8s.io/kubernetes\n\ngo 1.30\n", TOOLS)


def test_the_committed_modules_name_the_programs_that_the_library_runs() -> None:
    module = kubernetes_module()
    assert [binary_name(tool) for tool in module.tools()] == [
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubectl",
    ]
    etcd = GoModule(module.directory.parent / "etcd")
    assert [binary_name(tool) for tool in etcd.tools()] == ["etcd"]


def test_the_pinned_version_needs_no_generated_module(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = kubernetes_module()
    version = pinned.required("k8s.io/kubernetes")
    monkeypatch.setenv("PREWARM_KUBERNETES_VERSION", version.removeprefix("v"))
    assert kubernetes_module() == pinned


@pytest.mark.parametrize(
    ("given", "query"), [("1.35", "v1.35"), ("v1.35.2", "v1.35.2"), ("1.37.0-rc.1", "v1.37.0-rc.1")]
)
def test_versions_are_taken_with_and_without_v(given: str, query: str) -> None:
    assert normalize_version(given) == query


@pytest.mark.parametrize("given", ["latest", "2.0", "1.35.2 --help", "v1.35.x", ""])
def test_what_is_no_version_reaches_no_command(given: str) -> None:
    with pytest.raises(ToolError, match=r"expected one like 1\.35"):
        normalize_version(given)


def test_the_cache_key_follows_module_and_flags(tmp_path: Path) -> None:
    module = module_in(tmp_path / "m")
    key = cache_key(module, "-s")
    assert cache_key(module, "-s -w") != key
    (module.directory / "go.sum").write_text("changed")
    changed_sum = cache_key(module, "-s")
    (module.directory / "go.mod").write_text("module other\n")
    assert len({key, changed_sum, cache_key(module, "-s")}) == 3
    assert cache_key(module_in(tmp_path / "elsewhere"), "-s") == key


def test_kubernetes_reports_the_version_that_it_was_built_from(tmp_path: Path) -> None:
    module = module_in(tmp_path / "m", wrapper_go_mod("v1.35.2", UPSTREAM, TOOLS))
    flags = linker_flags(Family.KUBERNETES, module)
    for setting in ("gitVersion=v1.35.2", "gitMajor=1", "gitMinor=35"):
        assert f"k8s.io/component-base/version.{setting}" in flags


def test_a_go_that_is_too_old_is_named_with_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = tmp_path / "go"
    go.write_text(
        "#!/bin/sh\necho 'go: go.mod requires go >= 1.99.0 (running go 1.26.8; GOTOOLCHAIN=local)' >&2\nexit 1\n"
    )
    go.chmod(0o755)
    with pytest.raises(ToolError, match=r"needs Go >= 1\.99\.0.*is 1\.26\.8 and GOTOOLCHAIN=local"):
        check_go(go, module_in(tmp_path / "m"))
