"""The machine that a figure was measured on, in words."""

import platform
from pathlib import Path

from model.runtime import available_threads


def processors() -> str:
    """Name of the processor and how many of its cores this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{available_threads()} cores of {names[0] if names else platform.machine()}"
