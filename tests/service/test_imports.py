import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import importlib, pkgutil, sys
import service
for module in pkgutil.walk_packages(service.__path__, "service."):
    importlib.import_module(module.name)
unwanted = {"torch", "onnx", "training", "model.networks"} & set(sys.modules)
assert not unwanted, unwanted
"""


def test_the_service_loads_neither_torch_nor_training():
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
