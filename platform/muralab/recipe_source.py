"""The source code of recipes: what a run keeps of it, whether it has changed, and a recipe built from what was kept.

A recipe is its module and whatever that imports from outside the platform and the installed packages, such as another
recipe's layers. Sources are stored as text by module; `pkg/__init__.py` is the module `pkg`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import final

from muralab.errors import RecipeError
from muralab.recipe import Recipe
from muralab.recipe_loader import load_recipe, module_name

PLATFORM = "muralab"
PACKAGE_FILE = "__init__.py"
Sources = Mapping[str, str]
"""File, relative to where it is imported from (`recipes/cnn.py`) -> its text."""


def read_sources(name: str) -> dict[str, str]:
    """Read the source of a recipe as it is on disk now: its own module first, then what it imports, sorted.

    Raises:
        RecipeError: the recipe cannot be loaded.
    """
    load_recipe(name)
    found: dict[str, str] = {}
    waiting = [module_name(name)]
    top = waiting[0].partition(".")[0]
    while waiting:
        module = waiting.pop()
        path = _own_file(module, top)
        if path is None or (file := _file_of(module, path)) in found:
            continue
        found[file] = path.read_text(encoding="utf-8")
        waiting += _imports(found[file], module, is_package=path.name == PACKAGE_FILE)
        waiting += [module.rpartition(".")[0]] if "." in module else []
    first, *others = found
    return {first: found[first], **{file: found[file] for file in sorted(others) if _code(found[file]) != _code("")}}


def digest_sources(sources: Sources) -> str:
    """Digest of the code of a recipe, as `changed_files` compares it, 32 hex characters.

    Python's own syntax trees differ between its versions: other digests do not prove that the code differs.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(sources):
        digest.update(f"{file}\0{_code(sources[file])}\0".encode())
    return digest.hexdigest()


def changed_files(before: Sources, now: Sources) -> list[str]:
    """The files whose code differs, sorted; comments, docstrings and layout do not count.

    Args:
        before: as a run kept them. Files that only `now` has do not count: runs of earlier versions kept one file.
        now: as they are.
    """
    return sorted(file for file, text in before.items() if _code(text) != _code(now.get(file, "")))


def load_kept_recipe(name: str, sources: Sources) -> Recipe:
    """Build a recipe from the sources that a run kept, beside the one of this checkout.

    This executes code from the run; a tracking store is trusted as the checkout is.

    Args:
        name: of the recipe.
        sources: as `read_sources` returned them; modules that are not among them are imported from the checkout.

    Raises:
        RecipeError: the sources do not work with this version of the platform or of a library.
    """
    module = module_name(name)
    try:
        with _served({**_missing_packages(sources), **sources}):
            recipe = getattr(importlib.import_module(module), "RECIPE", None)
    except Exception as error:  # whatever the module raises
        raise RecipeError(
            f"The source of the recipe '{name}' that the run kept does not work here: {error} ({type(error).__name__})."
        ) from error
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"The source of the recipe '{name}' that the run kept defines no RECIPE.")
    return recipe


def _code(text: str) -> str:
    """What a source does: its syntax tree without docstrings; the text itself where it cannot be parsed."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return ast.dump(tree)


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _imports(text: str, module: str, *, is_package: bool) -> list[str]:
    """Modules that a source may import: every name in its import statements."""
    package = module if is_package else module.rpartition(".")[0]
    found: list[str] = []
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # edited since it was imported
        return []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            found += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return [name for name in found if name]


def _own_file(module: str, own_top: str) -> Path | None:
    """The source file of a module of a recipe's author; None for the platform, other packages, and non-modules.

    Args:
        module: its dotted name.
        own_top: the first part of the recipe's own dotted name, which may be installed.
    """
    top = module.partition(".")[0]
    if top == PLATFORM or top in sys.stdlib_module_names:
        return None
    if top != own_top and not _is_own(_find(top)):
        return None  # looking up a module of an installed package would import the package
    return _source_file(_find(module))


def _find(module: str) -> ModuleSpec | None:
    with contextlib.suppress(Exception):  # whatever importing the package of a module raises
        return importlib.util.find_spec(module)
    return None


def _is_own(spec: ModuleSpec | None) -> bool:
    """Whether a top-level module is a source file, or a folder without `__init__.py`, that is not installed."""
    if spec is None:
        return False
    folders = [Path(folder) for folder in spec.submodule_search_locations or (str(spec.origin),)]
    return any(not _is_installed(folder) for folder in folders)


def _source_file(spec: ModuleSpec | None) -> Path | None:
    if spec is None or not (spec.origin or "").endswith(".py"):
        return None
    return Path(str(spec.origin))


def _is_installed(path: Path) -> bool:
    return any(path.resolve().is_relative_to(folder) for folder in _installed_folders())


@functools.cache
def _installed_folders() -> Sequence[Path]:
    """Folders of the standard library and of installed packages."""
    paths = sysconfig.get_paths()
    own = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [Path(folder).resolve() for folder in [*own, *site.getsitepackages(), site.getusersitepackages()]]


def _file_of(module: str, path: Path) -> str:
    parts = module.replace(".", "/")
    return f"{parts}/{PACKAGE_FILE}" if path.name == PACKAGE_FILE else f"{parts}.py"


def _module_of(file: str) -> str:
    return file.removesuffix(f"/{PACKAGE_FILE}").removesuffix(".py").replace("/", ".")


def _missing_packages(sources: Sources) -> dict[str, str]:
    """Empty packages for modules whose packages do not exist here."""
    modules = [_module_of(file) for file in sources]
    parents = {module[:place] for module in modules for place, letter in enumerate(module) if letter == "."}
    return {f"{parent.replace('.', '/')}/{PACKAGE_FILE}": "" for parent in parents if _find(parent) is None}


@contextmanager
def _served(sources: Sources) -> Iterator[None]:
    """Import modules from texts within the block; afterwards everything is imported as before."""
    files = {_module_of(file): file for file in sources}
    present = {module: sys.modules.pop(module) for module in files if module in sys.modules}
    finder = _KeptSources(sources, {module: list(getattr(own, "__path__", ())) for module, own in present.items()})
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for module in files:
            sys.modules.pop(module, None)
        sys.modules.update(present)
        for module, own in present.items():
            parent, _, child = module.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], child, own)


@final
class _KeptSources(MetaPathFinder, InspectLoader):
    """Imports modules from texts; submodules that are not among them come from the folders of their packages."""

    def __init__(self, sources: Sources, folders: Mapping[str, list[str]]) -> None:
        self.sources, self.folders = sources, folders
        self.files = {_module_of(file): file for file in sources}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one of the texts."""
        del path, target
        if fullname not in self.files:
            return None
        spec = spec_from_loader(fullname, self, origin=self.files[fullname], is_package=self.is_package(fullname))
        if spec is not None and self.is_package(fullname):
            spec.submodule_search_locations = self.folders.get(fullname, [])
        return spec

    def is_package(self, fullname: str) -> bool:
        """Whether it is the `__init__.py` of a package."""
        return self.files[fullname].endswith(f"/{PACKAGE_FILE}")

    def get_source(self, fullname: str) -> str:
        """The text of a module."""
        return self.sources[self.files[fullname]]
