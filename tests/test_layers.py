"""The rooms and who may import whom, read from the sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = CHECKOUT / "asrsvc"
ROOMS = ("system", "speech", "release", "jobs", "remote", "serving", "web")

# What each part may import of the project. web, serving and release.cli are roots: they put the
# parts together. A longer name wins over a shorter one.
ALLOWED = {
    "asrsvc.settings": (),
    "asrsvc.errors": (),
    "asrsvc.system": ("asrsvc.errors", "asrsvc.system"),
    "asrsvc.speech": ("asrsvc.errors", "asrsvc.speech", "asrsvc.system"),
    "asrsvc.release": ("asrsvc.errors", "asrsvc.release", "asrsvc.system"),
    "asrsvc.release.bake": ("asrsvc.errors", "asrsvc.release", "asrsvc.speech", "asrsvc.system"),
    "asrsvc.release.exact": ("asrsvc.errors", "asrsvc.release", "asrsvc.speech", "asrsvc.system"),
    # the rules for addresses are the same for what a client names and for what a hub redirects to
    "asrsvc.release.hops": (
        "asrsvc.errors",
        "asrsvc.release",
        "asrsvc.remote.addresses",
        "asrsvc.system",
    ),
    "asrsvc.release.trial": ("asrsvc.errors", "asrsvc.release", "asrsvc.speech", "asrsvc.system"),
    "asrsvc.release.cli": ("asrsvc",),
    "asrsvc.jobs": ("asrsvc.errors", "asrsvc.jobs", "asrsvc.release.files", "asrsvc.speech", "asrsvc.system"),
    "asrsvc.remote": ("asrsvc.errors", "asrsvc.remote", "asrsvc.system"),
    "asrsvc.serving": ("asrsvc",),
    "asrsvc.web": ("asrsvc",),
}
HEAVY = {"av", "funasr_onnx", "numpy", "onnxruntime", "prometheus_client", "soundfile", "soxr", "starlette"}


def module_name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def statements(tree: ast.AST, *, at_import: bool) -> Iterator[ast.AST]:
    """All nodes; with at_import those alone that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if at_import and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from statements(node, at_import=at_import)


def imported(path: Path, *, at_import: bool) -> set[str]:
    """Full names of what a file imports; a name in a package may be a module of it."""
    module = module_name(path)
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    names = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), at_import=at_import):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                full = f"{source}.{alias.name}"
                names.add(full if full in MODULES else source)
    return names


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    parts = [part for part in ALLOWED if within(module, part)]
    allowed = ALLOWED[max(parts, key=len)] if parts else ()
    for name in imported(MODULES[module], at_import=False):
        if within(name, "asrsvc"):
            assert any(within(name, part) for part in allowed), f"{module} must not import {name}"


def test_every_module_stands_in_a_room() -> None:
    for module in set(MODULES) - {"asrsvc", "asrsvc.errors", "asrsvc.settings"}:
        assert module.split(".")[1] in ROOMS, module


def test_the_master_imports_settings_and_serving_alone() -> None:
    for name in imported(CHECKOUT / "gunicorn.conf.py", at_import=False):
        if within(name, "asrsvc"):
            right = name == "asrsvc" or within(name, "asrsvc.settings") or within(name, "asrsvc.serving")
            assert right, f"gunicorn.conf.py must not import {name}"


WORKER_ONLY = {
    "asrsvc.serving.compose",
    "asrsvc.serving.jobs",
    "asrsvc.serving.loading",
    "asrsvc.serving.warmup",
}


def test_what_the_master_imports_is_light() -> None:
    waiting = [CHECKOUT / "gunicorn.conf.py", MODULES["asrsvc.settings"]]
    # these belong to the worker: nothing that the master imports may import them, which is checked too
    in_master = {module for module in MODULES if within(module, "asrsvc.serving")} - WORKER_ONLY
    waiting += [MODULES[module] for module in in_master]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imported(path, at_import=True):
            assert name.split(".")[0] not in HEAVY, f"{path} imports {name} in the master"
            packages = name.split(".")
            waiting += [
                MODULES[module]
                for module in (".".join(packages[: n + 1]) for n in range(len(packages)))
                if module in MODULES
            ]


def reads_environment(path: Path) -> bool:
    names = {"environ", "environb", "getenv", "getenvb"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found = {node.attr} if node.value.id == "os" else set()
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            found = {alias.name for alias in node.names}
        else:
            continue
        if found & names:
            return True
    return False


def test_only_settings_reads_the_environment() -> None:
    """But for what a confined process needs of the dynamic loader and of Python."""
    files = [*MODULES.values(), CHECKOUT / "gunicorn.conf.py"]
    readers = {MODULES["asrsvc.settings"], MODULES["asrsvc.system.environment"]}
    assert {path for path in files if reads_environment(path)} == readers


def test_the_tool_starts_with_the_standard_library_alone() -> None:
    waiting, seen = ["asrsvc.release.cli.main"], set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        for name in imported(MODULES[module], at_import=True):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top == "asrsvc", f"{module} imports {name}"
            if name in MODULES and name not in seen:
                waiting.append(name)


def test_one_module_alone_loads_the_runtime_and_tells_it_to_report_nothing() -> None:
    found = {
        module
        for module, path in MODULES.items()
        if any(within(name, "onnxruntime") for name in imported(path, at_import=False))
    }
    assert found == {"asrsvc.speech.runtime"}


def test_the_start_needs_the_standard_library_alone() -> None:
    waiting, seen = ["asrsvc.serving.start"], set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        for name in imported(MODULES[module], at_import=False):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top == "asrsvc", f"{module} imports {name}"
            if name in MODULES and name not in seen:
                waiting.append(name)
