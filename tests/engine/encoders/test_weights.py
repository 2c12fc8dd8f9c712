"""What can go wrong with a model's name, folder or weights."""

import json
import pickle
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from tai_engine.encoders import load_encoder, weights
from tai_engine.encoders.weights import find_model
from tai_engine.errors import UserError
from tiny_models import build_tiny_model, tiny_config, write_tiny_model


def message(*args, **options):
    with pytest.raises(UserError) as caught:
        load_encoder(*args, device="cpu", **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def folder(tmp_path):
    write_tiny_model(tmp_path / "model", "vit")
    return tmp_path / "model"


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache and a hub that does not answer."""
    asked = []

    def refuse(url, **_options):
        asked.append(url)
        raise OSError("[Errno -2] Name or service not known\nsecond line")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_args, **_options: None)
    return asked


@pytest.fixture
def fake_hub(monkeypatch):
    """A hub in memory: ``{(repository, file): path}``."""
    files = {}

    def metadata(url, **_options):
        repository, _, name = url.removeprefix("https://huggingface.co/").partition("/resolve/main/")
        if (repository, name) not in files:
            response = huggingface_hub.errors.EntryNotFoundError
            raise response.__new__(response)

    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda r, n: f"https://huggingface.co/{r}/resolve/main/{n}")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_args, **_options: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda r, n, cache_dir: str(files[r, n]))
    return files


def test_unknown_names_list_close_matches():
    assert "Unknown model 'RN5O'; did you mean" in message("RN5O")
    assert "'RN50'" in message("RN5O")
    text = message("RN50", "openia")
    assert "Unknown pretrained tag of RN50 'openia'; did you mean 'openai'?" in text
    assert "choose one of 'cc12m', 'openai', 'yfcc15m'" in message("RN50", "")
    assert "choose one of 'cc12m', 'openai', 'yfcc15m'" in message("RN50", None)
    assert "No pretrained weights are known for the model 'coca_base'" in message("coca_base", "x")


def test_missing_weights_without_a_network(no_network):
    text = message("RN50", "openai")
    assert "open_clip_model.safetensors of 'RN50 openai' is not in the local cache" in text
    assert "timm/resnet50_clip.openai" in text
    assert "Name or service not known)" in text
    assert "local-dir:/that/folder" in text
    assert len(no_network) == 1  # one question, no second file name, no retry


def test_a_hub_model_without_a_network(no_network):
    text = message("hf-hub:org/repo")
    assert "open_clip_config.json of 'hf-hub:org/repo' is not in the local cache" in text
    assert "names no repository; write hf-hub:organisation/repository" in message("hf-hub:repo")


def test_offline_mode_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    text = message("ViT-B-32", "openai", cache_dir=tmp_path)
    assert "not in the local cache" in text
    assert "offline mode is enabled" in text


def test_the_connection_lost_between_question_and_download(fake_hub, monkeypatch, folder):
    def lost(*_args, **_options):
        raise LocalEntryNotFoundError("connection lost")

    fake_hub["org/repo", "open_clip_config.json"] = folder / "open_clip_config.json"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lost)
    assert "could not be downloaded from the Hugging Face repository 'org/repo' (connection lost)" in message(
        "hf-hub:org/repo"
    )


def test_a_hub_model_is_the_same_as_its_folder(fake_hub, folder):
    fake_hub["org/repo", "open_clip_config.json"] = folder / "open_clip_config.json"
    fake_hub["org/repo", "open_clip_pytorch_model.safetensors"] = folder / "open_clip_model.safetensors"
    from_hub = load_encoder("hf-hub:org/repo", device="cpu")
    assert from_hub.space_key == load_encoder(f"local-dir:{folder}", device="cpu").space_key
    assert from_hub.provenance["model"] == "hf-hub:org/repo"
    assert from_hub.provenance["pretrained"] == ""


def test_a_hub_repository_without_weights(fake_hub, folder):
    fake_hub["org/repo", "open_clip_config.json"] = folder / "open_clip_config.json"
    assert "'org/repo' of 'hf-hub:org/repo' has no open_clip_model.safetensors or" in message("hf-hub:org/repo")


def test_cached_files_are_used_without_asking_the_network(no_network, monkeypatch, folder):
    cached = {"open_clip_config.json", "open_clip_model.safetensors"}
    monkeypatch.setattr(
        huggingface_hub,
        "try_to_load_from_cache",
        lambda _repository, name, **_options: str(folder / name) if name in cached else None,
    )
    assert load_encoder("hf-hub:org/repo", device="cpu").dim == 24
    assert no_network == []


def test_openai_weights_get_quick_gelu_and_their_own_preprocessing(fake_hub, tmp_path):
    for repository in ("timm/resnet50_clip.openai", "timm/vit_base_patch32_clip_224.laion2b_e16"):
        fake_hub[repository, "open_clip_model.safetensors"] = tmp_path / "w.safetensors"
    files = find_model("RN50", "openai")
    assert files.config["quick_gelu"] is True
    assert files.preprocess["mean"] == (0.48145466, 0.4578275, 0.40821073)
    assert files.preprocess["resize_mode"] == "shortest"
    assert files.weights == tmp_path / "w.safetensors"
    assert find_model("ViT-B-32", "laion2b_e16").config["quick_gelu"] is False


def test_openai_weights_from_the_hub_and_from_a_folder_are_one_space(fake_hub, tmp_path, monkeypatch):
    """A built-in name and a folder with the same weights, spelled by another hand."""
    config = tiny_config("resnet")
    write_tiny_model(tmp_path / "folder", "resnet")
    fake_hub["timm/resnet50_clip.openai", "open_clip_model.safetensors"] = (
        tmp_path / "folder" / "open_clip_model.safetensors"
    )
    plain = {key: value for key, value in config.items() if key != "quick_gelu"}  # as open_clip's RN50 is written
    monkeypatch.setattr(weights.open_clip, "get_model_config", lambda _name: plain)
    built_in = load_encoder("RN50", "openai", device="cpu")
    assert built_in.space_key == load_encoder(f"local-dir:{tmp_path / 'folder'}", device="cpu").space_key
    assert built_in.provenance["pretrained"] == "openai"


def test_a_bare_weights_file_is_refused(folder):
    text = message("ViT-B-32", str(folder / "open_clip_model.safetensors"))
    assert "bare weights file" in text
    assert "--model local-dir:" in text


def test_folders_that_are_not_a_model(tmp_path, folder):
    assert "There is no folder" in message(f"local-dir:{tmp_path / 'missing'}")
    assert "has no open_clip_config.json" in message(f"local-dir:{tmp_path}")
    (folder / "open_clip_model.safetensors").unlink()
    assert "has a configuration but no weights; add open_clip_model.safetensors" in message(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"vision_cfg": {"no_such_option": 1}}, "Unknown setting in 'vision_cfg' of .*: 'no_such_option'"),
        ({"vision_cfg": {"timm_model_name": "no_such_tower"}}, "'no_such_tower', which is no architecture of timm"),
        ({"vision_cfg": {"image_size": [64, 32]}}, "only square ones are supported"),
        ({"text_cfg": {"width": 64}}, "do not fit the configuration"),
        ({"text_cfg": {"hf_tokenizer_name": "org/name"}}, "The tokenizer"),
    ],
)
def test_configurations_that_do_not_fit(folder, change, expected):
    content = json.loads((folder / "open_clip_config.json").read_text())
    for part, options in change.items():
        content["model_cfg"][part].update(options)
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=expected):
        load_encoder(f"local-dir:{folder}", device="cpu")


@pytest.mark.parametrize("damage", ["empty", "half", "noise"])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_damaged_weights(folder, damage, suffix):
    path = folder / "open_clip_model.safetensors"
    if suffix == ".bin":
        state = load_file(path)
        path.unlink()
        path = folder / "open_clip_pytorch_model.bin"
        torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "noise": bytes(range(256)) * 64}[damage])
    text = message(f"local-dir:{folder}")
    assert f"The weights {str(path)!r} cannot be read" in text


def test_weights_of_another_model(folder):
    save_file({"a": torch.zeros(3)}, folder / "open_clip_model.safetensors")
    assert "do not fit the configuration" in message(f"local-dir:{folder}")
    save_file({}, folder / "open_clip_model.safetensors")
    assert "open_clip_model.safetensors' " in message(f"local-dir:{folder}")


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_pickled_code_does_not_run(folder, tmp_path):
    (folder / "open_clip_model.safetensors").unlink()
    mark = tmp_path / "ran"
    torch.save({"state_dict": Attack(mark)}, folder / "open_clip_pytorch_model.bin")
    assert "cannot be read as safetensors or as a plain PyTorch state dict" in message(f"local-dir:{folder}")
    (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Attack(mark)))
    said = message(f"local-dir:{folder}")
    assert "it is damaged, or asks for more than tensors, which is not done" in said
    assert "weights_only" not in said  # whoever followed that advice would run the code
    assert not mark.exists()


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_plain_pickled_weights_load(folder, wrap):
    expected = load_encoder(f"local-dir:{folder}", device="cpu").space_key
    path = folder / "open_clip_model.safetensors"
    torch.save(wrap(load_file(path)), folder / "some name.pt")
    path.unlink()
    assert load_encoder(f"local-dir:{folder}", device="cpu").space_key == expected


def test_which_weights_file_of_a_folder(folder):
    state = build_tiny_model(tiny_config("vit"), seed=1).state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "a.safetensors")
    assert find_model(f"local-dir:{folder}", None).weights.name == "open_clip_model.safetensors"
    (folder / "open_clip_model.safetensors").rename(folder / "b.safetensors")
    assert "several weights files (a.safetensors, b.safetensors)" in message(f"local-dir:{folder}")
