"""Writes cri_pb2.py and cri_pb2.pyi from cri.proto: `python -m prewarm.runtime.generate [--check]`.

A tool for those who change the project; it needs grpcio-tools, which the controller does not.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_HERE = Path(__file__).parent
_FILES = ("cri_pb2.py", "cri_pb2.pyi")


def generated_files() -> Mapping[str, str]:
    """Contents of the generated modules, by file name.

    Raises:
        RuntimeError: if the protocol compiler refuses cri.proto; it says why on standard error.
    """
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as target:
        code = protoc.main(["protoc", f"-I{_HERE}", f"--python_out={target}", f"--pyi_out={target}", "cri.proto"])
        if code:
            raise RuntimeError(f"protoc ended with {code}")
        return {name: (Path(target) / name).read_text(encoding="utf-8") for name in _FILES}


def main(arguments: Sequence[str]) -> int:
    """Write the modules, or with --check say which ones differ; exit code 0, 1 (drift) or 2 (usage)."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: python -m prewarm.runtime.generate [--check]\n")
        return 2
    wrong = False
    for name, content in generated_files().items():
        path = _HERE / name
        if not arguments:
            path.write_text(content, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != content:
            wrong = True
            sys.stderr.write(f"{path.name} differs from cri.proto: run python -m prewarm.runtime.generate\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
