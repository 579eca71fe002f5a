"""
The house rules, read from the source with `ast`: who may import whom, and what stands where. Nothing of the package is
imported, so that they can be read where nothing is installed.
"""

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "hf_molrep"
# checkpoints/ holds what save_pretrained writes, its one-line shim included: data, not modules
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "checkpoints" not in path.parents)

# that these are all methods, and all of them, is for test_methods.py
METHODS = sorted(path.parent.name for path in (PACKAGE / "models").glob("*/__init__.py"))

# Who may import whom: a module imports from layers further down, or within its own folder or layer (without cycles).
# A new module of the package must be given its place here.
LAYERS = [
    {"cli"},
    {"hf_molrep"},  # `import hf_molrep` itself: the public names
    {"registration"},
    {"cards"},
    {"training"},
    {"inference"},
    {"models"},
    {"processing"},
    {"data"},
    {"chem", "configuration", "nn", "tokenization"},
    {"losses", "modeling_outputs", "compat", "hub", "lazy", "metrics"},
]
RANK = {area: rank for rank, areas in enumerate(LAYERS) for area in areas}
MODELING_MAY_IMPORT = {"torch", "torch_geometric", "transformers", "nn", "losses", "modeling_outputs", "compat", "hub"}
# what a method may say of its pre-training, and how converters read files: they name no method
SHARED_BY_METHODS = {"hf_molrep.models.pretraining", "hf_molrep.models.foreign_weights"}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "base", "misc"}
# Submodules of transformers whose contents are not promised to stay.
PRIVATE_MODULES = (
    r"transformers\.(models\.auto\.(auto_factory|configuration_auto)|utils\.(generic|output_capturing)"
    r"|masking_utils|modeling_layers|initialization)"
)


class Import(NamedTuple):
    """One imported name. `module` is absolute; `where` is "module", "function" or "type checking"."""

    module: str
    name: str | None
    where: str
    line: int


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> list[Import]:
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    found = []

    def visit(node: ast.AST, where: str) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, None, where, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found.extend(Import(module, alias.name, where, node.lineno) for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            where = "function" if where == "module" else where
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.body:
                visit(child, "type checking")
            for child in node.orelse:
                visit(child, where)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, where)

    visit(ast.parse(path.read_text(encoding="utf-8")), "module")
    return found


IMPORTS = {path: imports(path) for path in SOURCES}
MODULES = {module_name(path) for path in SOURCES}


def area(module: str) -> str:
    """`chem` of `hf_molrep.chem.smiles`, `hf_molrep` of the package itself, `torch` of `torch.nn`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "hf_molrep" and len(parts) > 1 else parts[0]


def targets(entry: Import) -> str:
    """The module of the package that an import reaches: `from ..chem import smiles` means `hf_molrep.chem.smiles`."""
    inside = f"{entry.module}.{entry.name}"
    return inside if inside in MODULES else entry.module


def own(path: Path) -> list[tuple[Import, str]]:
    """Imports of a file that stay in the package, with the module reached."""
    return [(entry, targets(entry)) for entry in IMPORTS[path] if entry.module.partition(".")[0] == "hf_molrep"]


def at(path: Path, entry: Import) -> str:
    return f"{path.relative_to(ROOT)}:{entry.line} imports {entry.module}" + (f".{entry.name}" if entry.name else "")


def test_the_parser_sees_imports():
    """What the rules below rest on: relative imports, functions, TYPE_CHECKING."""
    heads = {(entry.module, entry.name) for entry in IMPORTS[PACKAGE / "nn" / "heads.py"]}
    assert ("hf_molrep.losses", "property_loss") in heads
    smiles = IMPORTS[PACKAGE / "chem" / "smiles.py"]
    assert {entry.where for entry in smiles if area(entry.module) == "rdkit"} == {"function", "type checking"}


def test_every_module_has_a_layer():
    areas = {area(module_name(path)) for path in SOURCES}
    assert areas <= RANK.keys(), f"give these a layer: {sorted(areas - RANK.keys())}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_to_the_right(path):
    """Rule 1: only from a layer to those below it."""
    source = area(module_name(path))
    wrong = [
        at(path, entry) for entry, module in own(path) if area(module) != source and RANK[area(module)] < RANK[source]
    ]
    assert not wrong


def test_no_cycles():
    """Rule 1: no module reaches itself through imports, wherever in the file they stand."""
    graph = {
        module_name(path): {
            module for entry, module in own(path) if entry.where != "type checking" and module != module_name(path)
        }
        for path in SOURCES
    }
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for further in sorted(graph.get(module, ())):
                walk(further, (*trail, module))
            done.add(module)

    for module in graph:
        walk(module, ())


def test_metrics_stand_alone():
    assert not [at(path, entry) for path in [PACKAGE / "metrics.py"] for entry, _ in own(path)]


@pytest.mark.parametrize(("library", "folder"), [("rdkit", "chem"), ("datasets", None)])
def test_heavy_libraries_are_imported_in_functions(library, folder):
    """Rule 2: rdkit only inside functions of chem/; datasets only inside functions."""
    wrong = [
        at(path, entry)
        for path in SOURCES
        for entry in IMPORTS[path]
        if entry.module.partition(".")[0] == library
        and (entry.where == "module" or (folder is not None and path.parent.name != folder))
    ]
    assert not wrong


def test_chemistry_knows_no_tensors():
    """Rule 2: torch never in chem/."""
    assert not [
        at(path, entry)
        for path in (PACKAGE / "chem").rglob("*.py")
        for entry in IMPORTS[path]
        if entry.module.partition(".")[0] in ("torch", "transformers")
    ]


@pytest.mark.parametrize("method", METHODS)
def test_models_run_without_chemistry(method):
    """Rule 3: a modeling file imports tensors, layers, losses, outputs and its own configuration."""
    path = PACKAGE / "models" / method / f"modeling_{method}.py"
    configuration = f"hf_molrep.models.{method}.configuration_{method}"
    wrong = [
        at(path, entry)
        for entry in IMPORTS[path]
        if targets(entry) != configuration
        and area(entry.module) not in MODELING_MAY_IMPORT
        and entry.module.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert not wrong


def test_methods_do_not_know_each_other():
    """Rule 4: neither does a method import another, nor does anything in data/, nn/ or chem/ name one."""
    wrong = [
        at(path, entry)
        for method in METHODS
        for path in (PACKAGE / "models" / method).rglob("*.py")
        for entry, module in own(path)
        if module.startswith("hf_molrep.models") and not module.startswith(f"hf_molrep.models.{method}")
        if module not in SHARED_BY_METHODS
    ]
    assert not wrong
    classes = [
        node.name.removesuffix("Config")
        for method in METHODS
        for node in ast.parse((PACKAGE / "models" / method / f"configuration_{method}.py").read_text()).body
        if isinstance(node, ast.ClassDef)
    ]
    prefixes = "|".join([*METHODS, *classes])
    code_names = re.compile(rf"\b(?:{prefixes})(?:[A-Z]\w*)?\b")
    for folder in ("data", "nn", "chem"):
        for path in (PACKAGE / folder).rglob("*.py"):
            names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            assert not [name for name in names if code_names.fullmatch(name)], path


def test_private_names_stay_in_compat():
    """What transformers does not promise to keep is imported in one file."""
    wrong = [
        at(path, entry)
        for path in SOURCES
        if path != PACKAGE / "compat.py"
        for entry in IMPORTS[path]
        if entry.module.partition(".")[0] == "transformers"
        and (re.match(PRIVATE_MODULES, entry.module) or (entry.name or "").startswith("_"))
    ]
    assert not wrong


@pytest.mark.parametrize("folder", ["chem", "data", "nn", "tokenization"])
def test_imports_in_the_package_are_relative(folder):
    absolute = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        if area(module_name(path)) == folder
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] == "hf_molrep"
    ]
    assert not absolute


def test_no_drawers_for_anything():
    """Rule 5."""
    assert not [path for path in SOURCES if path.stem in FORBIDDEN_NAMES]


def test_tokenizers_are_data():
    """An `__init__.py` in tokenizers/ or datasets/ would hide the package of that name. The only code there is the line
    that a saved processor carries."""
    code = list((ROOT / "tokenizers").rglob("*.py"))
    assert not [path for path in code if path.name == "__init__.py" or len(path.read_text().splitlines()) > 1]
    assert not (ROOT / "datasets").exists()


def text_files() -> list[Path]:
    """Everything that is written by hand."""
    folders = ["hf_molrep", "tests", "examples", "benchmarks", "model_cards", ".ci"]
    kinds = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cfg", ""}
    places = [*ROOT.iterdir(), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    return [path for path in places if path.is_file() and path.suffix in kinds and path.name != ".git"]


def test_nothing_points_to_a_machine():
    """No absolute path of anyone's disk (`/home/someone` is nobody's)."""
    path_of_a_disk = re.compile(r"(?<![\w.:/~>-])/(?:work|root|home|tmp|Users|mnt|opt|data)/(?!someone)\w")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if path_of_a_disk.search(line)
    ]
    assert not wrong
    assert path_of_a_disk.search('open("' + "/home" + '/chemist")')
