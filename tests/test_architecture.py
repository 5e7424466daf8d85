"""The arrows of the architecture: who may import whom, and what an import may cost."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"toy": "toy", "mech": "mech", "bridge": "bridge", "ctr_kernels": "kernels"}
ALLOWED = {
    "toy": set(),
    "ctr_kernels": set(),
    "mech": {"ctr_kernels"},  # attention is read by an op
    "bridge": {"mech", "ctr_kernels"},
}
OURS = {*FOLDERS, "kernels", "experiments"}
FOREIGN = {"toy": "torch", "mech": "jax", "bridge": "jax"}


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / FOLDERS[package]).rglob("*.py"))
    assert found, package
    return found


@pytest.mark.parametrize("package", FOLDERS)
def test_imports_follow_the_arrows(package):
    for path in files(package):
        strangers = (imported(path) & OURS) - ALLOWED[package] - {package}
        assert not strangers, f"{path.relative_to(ROOT)} imports {strangers}"


@pytest.mark.parametrize(("package", "foreign"), FOREIGN.items())
def test_toy_knows_no_torch_and_the_others_no_jax(package, foreign):
    for path in files(package):
        assert foreign not in imported(path), path


@pytest.mark.parametrize("package", [*FOLDERS, "experiments"])
def test_import_of_a_package_is_quick(package):
    """No heavy library comes with the bare package: `ctr --help` must not wait for torch."""
    heavy = "{'torch', 'jax', 'transformers'} & set(sys.modules)"
    code = f"import sys, {package}; print(sorted({heavy}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_kernels_is_not_a_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_transformers_imports_beside_hugging_faces_kernels(tmp_path):
    """A stub of the other `kernels` is on the path; ours must neither shadow nor break it."""
    other = tmp_path / "kernels"
    other.mkdir()
    (other / "__init__.py").write_text("whose = 'theirs'\n")
    code = (
        "import kernels; assert kernels.whose == 'theirs'; "
        "from transformers import LlamaForCausalLM; import ctr_kernels.op; "
        "assert 'kernels/op.py' in ctr_kernels.op.__file__"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin", "HF_HUB_OFFLINE": "1"},
        check=True,
    )


def test_every_package_is_installed():
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {
        ".".join([name, *path.parent.relative_to(ROOT / folder).parts])
        for name, folder in {**FOLDERS, "experiments": "experiments"}.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert set(listed) == there
