import pytest
import torch

from tai_engine.encoders import load_encoder
from tiny_models import write_tiny_model


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Models this small only lose by sharing their work among threads, the more so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """Writes each tiny model once; gives its ``local-dir:`` name."""
    root = tmp_path_factory.mktemp("models")
    written = {}

    def name_of(kind, seed=0):
        if (kind, seed) not in written:
            written[kind, seed] = write_tiny_model(root / f"{kind}-{seed}", kind, seed)
        return written[kind, seed]

    return name_of


@pytest.fixture(scope="session")
def tiny_encoder(model_folder):
    """Loads each tiny model once per set of options."""
    loaded = {}

    def load(kind, **options):
        key = (kind, *sorted(options.items()))
        if key not in loaded:
            loaded[key] = load_encoder(
                model_folder(kind), **{"device": "cpu", "precision": "fp32", "fast": False} | options
            )
        return loaded[key]

    return load
