"""What setup.py leaves out is missing on a robot, where only the installed copy runs."""

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("fastvla_core", "fastvla_ros", "training")


def setup_keyword(name):
    """A literal argument of the call of `setup`."""
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == name:
            return ast.literal_eval(node.value)
    raise AssertionError(f"setup.py gives no {name}")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_of_modules_is_a_package(package):
    # find_packages passes over the others, and an editable installation does not show it.
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert folders
    missing = [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").is_file()]
    assert missing == []


def is_listed(path: Path, patterns: dict[str, list[str]]) -> bool:
    """Whether a pattern of the file's own folder, or of a package above it, takes it along."""
    if (path.parent / "__init__.py").is_file() and any(
        fnmatch(path.name, pattern) for pattern in patterns[""]
    ):
        return True
    return any(
        path.is_relative_to(folder) and fnmatch(str(path.relative_to(folder)), pattern)
        for name, own in patterns.items()
        if name
        for folder in [ROOT / name.replace(".", "/")]
        for pattern in own
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_every_data_file_is_installed(package):
    patterns = setup_keyword("package_data")
    missing = [
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and not is_listed(path, patterns)
    ]
    assert missing == []
