"""The machine that a figure was measured on, in words."""

import platform
from pathlib import Path

from model.runtime import available_threads


def processor() -> str:
    """Name of the processor, or of its kind where it has none."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def processors() -> str:
    """The processor, and how many of its cores this process may use."""
    return f"{available_threads()} cores of {processor()}"
