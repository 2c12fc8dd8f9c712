import subprocess
import sys

import pytest

COMPILER_LOADED = "print('torch._dynamo' in sys.modules)"


def printed(*lines: str) -> list[str]:
    """What lines of Python print in a process of their own."""
    command = [sys.executable, "-c", "\n".join(("import sys", *lines))]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_an_encoder_is_imported_without_the_compiler_which_is_there_once_it_is_used() -> None:
    said = printed(
        "from tai_engine.encoders import load_encoder",
        COMPILER_LOADED,
        "import torch, torchvision",
        "print('torch._dynamo.utils' in sys.modules)",
        "boxes = torch.tensor([[0, 0.0, 0.0, 2.0, 2.0]])",
        "print(torchvision.ops.roi_align(torch.arange(16.0).reshape(1, 1, 4, 4), boxes, 1, aligned=True).item())",
        "print(sys.modules['torchvision.ops.roi_align'].is_compile_supported('cpu'))",
        "print(torch.compile(lambda x: x + 1, backend='eager')(torch.ones(())).item())",
        COMPILER_LOADED,
    )
    assert said == ["False", "False", "2.5", "True", "2.0", "True"]


@pytest.mark.parametrize("wanted", ["import torch._dynamo", "from torch._dynamo.utils import counters"])
def test_what_wants_the_compiler_while_open_clip_is_loaded_gets_it(wanted: str) -> None:
    said = printed(
        "from tai_engine.encoders import open_clip_import as subject",
        "imported = subject.import_module",
        f"def with_more(name):\n    if name == 'open_clip':\n        exec({wanted!r})\n    return imported(name)",
        "subject.import_module = with_more",
        "subject.import_open_clip()",
        "import torch._dynamo.utils",
        "print(type(sys.modules['torch._dynamo.utils']).__name__, type(torch._dynamo.utils).__name__)",
        "import torch",
        "print(torch.compile(lambda x: x + 1, backend='eager')(torch.ones(())).item())",
    )
    assert said == ["module", "module", "2.0"]
