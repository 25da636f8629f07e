"""The scan as a wheel of its own: its README's code runs, here and in an environment that holds nothing of ours."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import kernels.selective_scan
from models.regressor.mamba_block import Mamba, MambaConfig

FOLDER = Path(kernels.selective_scan.__file__).parent
BLOCKS = re.findall(r"```python\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
NAME = "uniphy_scan"


def sizes(**own: int) -> Mamba:
    return Mamba(MambaConfig(**own))


def test_the_readmes_code_runs_and_the_initial_state_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, NAME, kernels.selective_scan)
    first, layer, stretches = BLOCKS
    assert len(first.split("\n\n")[1].splitlines()) == 5
    names: dict = {}
    exec(first, names)
    assert names["h0"].grad.abs().sum() > 0
    stand_in = SimpleNamespace(Mamba=sizes)  # of mamba-ssm, with its parameter names
    names |= {"mamba_ssm": stand_in, "x": torch.randn(3, 5, 256), "h0": torch.zeros(3, 512, 16)}
    exec(layer, names)
    assert names["y"].shape == (3, 5, 256)
    exec(stretches, names)
    mixer = kernels.selective_scan.take_initial_state(sizes(d_model=8))
    start = nn.Parameter(torch.zeros(2, 16, 16))
    optimizer = torch.optim.SGD([start, *mixer.parameters()], lr=0.1)
    before = [p.detach().clone() for p in (start, mixer.D)]
    data = [(torch.randn(2, 7, 8), torch.randn(2, 7, 8)) for _ in range(3)]
    names["train_on"](data, start, None, optimizer, mixer, nn.functional.mse_loss)
    assert all(not torch.equal(old, new) for old, new in zip(before, (start, mixer.D), strict=True))


def test_the_folder_imports_nothing_from_outside_but_torch_and_triton() -> None:
    outside = set()
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            outside |= {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert outside == {"torch", "triton"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, since setuptools writes beside the sources."""
    root = tmp_path_factory.mktemp("wheel")
    shutil.copytree(FOLDER, root / "source", ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        "wheel",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(root),
        str(root / "source"),
    ]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True, capture_output=True, text=True)
    return next(root.glob("uniphy_scan-*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with the packages of this one, none of them ours, and the wheel."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=False)
    python = root / "bin" / "python"
    own = sysconfig.get_paths(vars={"base": str(root)})["purelib"]
    (Path(own) / "torch.pth").write_text(
        f"{sysconfig.get_paths()['purelib']}\n"
    )  # .pth files in there are not read
    command = ["--python", str(python), "install", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True, capture_output=True, text=True)
    return python


def typed(python: Path, *arguments: str, home: Path, **environment: str) -> str:
    """Run Python in an empty folder with a cache of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [python, *arguments], cwd=home, capture_output=True, text=True, check=False,
        env=kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_every_source_and_needs_torch_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        about = content.read(next(name for name in names if name.endswith("METADATA"))).decode()
    wanted = {path for kind in ("*.py", "*.cpp", "*.h", "py.typed") for path in FOLDER.rglob(kind)}
    assert {f"{NAME}/{path.relative_to(FOLDER)}" for path in wanted} == {
        n for n in names if n.startswith(f"{NAME}/")
    }
    requirements = re.findall(r"^Requires-Dist: (.*)$", about, re.MULTILINE)
    assert [line for line in requirements if "extra" not in line] == ["torch>=2.11"]
    assert any(name.endswith("LICENSE") for name in names)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an empty folder with a cache of its own: kernels are built once."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_example_runs_beside_torch_and_nothing_of_ours(python: Path, home: Path, tmp_path: Path) -> None:
    lonely = (
        "import importlib.util as u; assert not any(map(u.find_spec, ('kernels', 'models', 'pipeline')))\n"
    )
    said = "import uniphy_scan.backends as b; print(b.resolve_backend('auto', h.device), h0.grad.abs().sum() > 0)"
    compiled = typed(python, "-c", f"{lonely}{BLOCKS[0]}{said}", home=home)
    assert compiled.split() == ["cpu" if shutil.which("c++") else "torch", "tensor(True)"]
    assert list((home / "cache").rglob("*.so")), "the wheel's own sources were built"
    assert "backend" in typed(python, "-m", NAME, home=home)
    without = typed(python, "-W", "ignore", "-c", f"{BLOCKS[0]}{said}", home=tmp_path, PATH="")
    assert without.split() == ["torch", "tensor(True)"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wheel_and_product_can_be_used_side_by_side(python: Path, home: Path) -> None:
    """Both register operators with torch, in one process."""
    both = f"""
import sys, torch, uniphy_scan
sys.path.append({str(FOLDER.parents[1])!r})
import kernels.selective_scan as product
found = []
for scan in (product.selective_scan, uniphy_scan.selective_scan, product.selective_scan):
    torch.manual_seed(0)
    h0 = torch.randn(1, 4, 3, requires_grad=True)
    u, B = torch.randn(1, 4, 9), torch.randn(1, 3, 9)
    y, h = scan(u, u, -torch.rand(4, 3), B, B, None, None, None, True, True, initial_state=h0)
    (y.sum() + h.square().sum()).backward()
    found.append(torch.cat([y.flatten(), h.flatten(), h0.grad.flatten()]))
assert all(torch.equal(found[0], one) for one in found)
"""
    typed(python, "-W", "error", "-c", both, home=home)
