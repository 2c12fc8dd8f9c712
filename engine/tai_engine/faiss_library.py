"""The one place where FAISS is imported, after torch.

``faiss-gpu`` carries CUDA libraries of its own beside those of torch. Loaded first, it can make torch bind to them and
crash on a GPU, so everything that needs FAISS takes it from here.
"""

from importlib.metadata import distributions

import torch  # isort: skip
import faiss  # isort: skip


def faiss_distributions() -> list[str]:
    """Installed distributions of ``faiss``, as ``"name version"``; two of them overwrite each other's files."""
    known = {"faiss", "faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12"}
    return sorted({f"{d.name} {d.version}" for d in distributions() if d.name and d.name.lower() in known})


def gpu_is_usable() -> bool:
    """Whether torch sees a CUDA device and this FAISS build can use one."""
    return torch.cuda.is_available() and hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
