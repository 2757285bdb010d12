"""The house's own rules: sizes, floors of imports, what start-up costs, pins, the map of the tree, links."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MAX_LINES = 400
HELP_S = 1.0
HEAVY = ("torch", "pandas", "mlflow", "ray", "matplotlib", "sklearn", "cv2")
# Written in pieces, so that this file does not hold what it forbids.
REGISTRY_HOSTS = ("py" + "pi.org", "pythonhosted" + ".org", "conda." + "anaconda", "repo." + "anaconda", "pkg." + "dev")
MACHINE_PATHS = re.compile("(?<![\\w.])/(ro" + "ot|wo" + "rk|ho" + "me/[a-z]+|Us" + "ers/[a-z]+)/")


def tracked_files() -> list[Path]:
    """What git holds or would take up."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no git checkout")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def texts() -> dict[str, str]:
    found = {}
    for path in tracked_files():
        try:
            found[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=300
    )


# Files


def test_the_source_root_is_no_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists(), "it would shadow the standard library's platform"


def test_the_standard_library_still_has_its_platform() -> None:
    assert python("-c", "import platform; print(platform.system())").stdout.strip()


def test_no_file_is_long() -> None:
    sizes = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("platform", "recipes", "bench")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert sizes
    assert {name: n for name, n in sizes.items() if n > MAX_LINES} == {}


def test_no_file_names_a_package_registry() -> None:
    assert [name for name, text in texts().items() if any(host in text for host in REGISTRY_HOSTS)] == []


def test_no_file_names_a_path_of_one_machine() -> None:
    found = {name: MACHINE_PATHS.search(text) for name, text in texts().items()}
    assert {name: match[0] for name, match in found.items() if match} == {}


@pytest.mark.parametrize("text", ["open('/ro" + "ot/x')", "cd /wo" + "rk/main", "/ho" + "me/ada/x", "=/Us" + "ers/a/"])
def test_a_path_of_one_machine_would_be_seen(text: str) -> None:
    assert MACHINE_PATHS.search(text)


def test_no_large_file_is_tracked() -> None:
    assert {path.name: path.stat().st_size for path in tracked_files() if path.stat().st_size > 2**20} == {}


# Start-up


@pytest.mark.parametrize(
    "arguments", [["-c", "import muralab"], ["-m", "muralab", "--help"], ["-m", "muralab", "tune", "--help"]]
)
def test_start_up_loads_nothing_heavy(arguments: list[str]) -> None:
    done = python("-X", "importtime", *arguments)
    loaded = {line.rsplit("|", 1)[1].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert done.returncode == 0
    assert loaded & set(HEAVY) == set()


def test_help_is_quick() -> None:
    before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert "tune" in python("-m", "muralab", "--help").stdout
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s < HELP_S


def test_training_needs_neither_mlflow_nor_ray() -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(('mlflow', 'ray', 'matplotlib', 'sklearn'));"
        "import muralab.experiment, muralab.training.weights, muralab.training.trainer, recipes.cnn"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


# Requirements


def pins(name: str) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    found = [Requirement(line) for line in lines if line]
    return {requirement.name.lower(): str(requirement.specifier) for requirement in found}


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_pinned(name: str) -> None:
    assert pins(name)
    assert [package for package, pin in pins(name).items() if not re.fullmatch(r"==[\w.]+", pin)] == []


def test_pins_lie_within_the_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = pins("requirements.txt")
    ranges = [Requirement(line) for line in project["dependencies"]]
    assert [r.name for r in ranges if r.name.lower() not in pinned] == []
    assert [str(r) for r in ranges if pinned[r.name.lower()].removeprefix("==") not in r.specifier] == []


def test_what_is_imported_is_required() -> None:
    of_mlflow = dict.fromkeys(("yaml", "fastapi", "uvicorn", "starlette"), "mlflow")  # it cannot do without them
    names = {"cv2": "opencv-python-headless", "PIL": "pillow", "sklearn": "scikit-learn", **of_mlflow}
    ours = {"muralab", "recipes", "tests", "bench", *sys.stdlib_module_names}
    imports = re.compile(r"^\s*(?:from|import) (\w+)", re.MULTILINE)
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "platform").rglob("*.py"))
    code = re.sub(r'""".*?"""', "", code, flags=re.DOTALL)
    wanted = {names.get(name, name).replace("_", "-") for name in imports.findall(code) if name not in ours}
    assert wanted - set(pins("requirements.txt")) == set()


# Documents


def documents() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".md"]


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for page in documents():
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(<?([^)\s>]+)>?\)", text):
            path = target.partition("#")[0]
            if path and "://" not in path and not path.startswith("mailto:") and not (page.parent / path).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def read_map() -> list[str]:
    """Paths of the map of the tree in docs/architecture.md: list items, or the first words of a code block's lines."""
    readme = ROOT / "docs" / "architecture.md"
    if not readme.exists():
        pytest.skip("no README yet")
    match = re.search(r"^## (?:The )?(?:tree|map)\b.*?$(.*?)(?=^## |\Z)", readme.read_text("utf-8"), re.M | re.S | re.I)
    assert match, "docs/architecture.md has no section '## The tree'"
    items = re.findall(r"^\s*[-*] `([^`]+)`", match[1], re.M)
    blocks = "\n".join(re.findall(r"```\w*\n(.*?)```", match[1], re.S))
    return items + _indented(blocks)


def _indented(block: str) -> list[str]:
    """Lines such as `platform/muralab/` and, deeper by two blanks, `data/  what it is`, as whole paths."""
    found: list[str] = []
    above: list[tuple[int, str]] = []
    for line in block.splitlines():
        name = line.strip().split("  ")[0].split(" ")[0]
        if not name:
            continue
        depth = len(line) - len(line.lstrip())
        above = [(d, path) for d, path in above if d < depth]
        path = (above[-1][1].rstrip("/") + "/" if above else "") + name
        above.append((depth, path))
        found.append(path)
    return found


def test_the_map_names_what_exists() -> None:
    paths = read_map()
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_map_names_every_module() -> None:
    known = {path.rstrip("/") for path in read_map()}
    folder = ROOT / "platform" / "muralab"
    modules = [path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    wanted = {path.relative_to(ROOT).as_posix() for path in modules if not path.name.startswith("_")}
    assert wanted - known == set()


def test_a_map_is_read_from_a_code_block() -> None:
    block = "platform/muralab/    the platform\n  data/      pixels\n    index.py   a tree\n  recipe.py  one\nrecipes/"
    start = "platform/muralab/"
    assert _indented(block) == [start, f"{start}data/", f"{start}data/index.py", f"{start}recipe.py", "recipes/"]
