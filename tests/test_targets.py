"""Targets: what is found, what is made up, and what a mistake says."""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace

import pytest

import fanin
from fanin.errors import FaninError, MissingDependency, TargetError
from fanin.targets import InputSpec, parse_input, resolve
from fanin.targets.shrink import _changes, _shorter_lists
from fanin.targets.units import Units, filled, scaled, units

torch = pytest.importorskip("torch")

FILE = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.fc = torch.nn.Linear(8, width)
    def forward(self, x):
        return self.fc(x)

def build():
    return Net(), torch.randn(2, 8)

def graded():
    return Net(), torch.randn(2, 8), torch.nn.functional.cross_entropy, torch.tensor([0, 1])

def broken():
    raise RuntimeError("no such corpus")

def needs(corpus):
    return Net()

def number():
    return 3

def leaves():
    raise SystemExit(1)

ready = Net(6)
"""


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(FILE)
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "absent.py").write_text("import no_such_package_anywhere\n")
    return path


def refusal(text, **options):
    with pytest.raises(FaninError) as caught:
        resolve(text, **options)
    return caught.value


def test_factory_gives_model_and_batch(net):
    target = resolve(f"{net}:build")
    assert type(target.model).__name__ == "Net"
    assert target.batch.shape == (2, 8)


def test_factory_may_give_loss_and_target(net):
    found = resolve(f"{net}:graded")
    assert found.loss is torch.nn.functional.cross_entropy and found.target.tolist() == [0, 1]


def test_class_object_and_keyword_arguments(net):
    assert resolve(f"{net}:Net", overrides=["width=7"], inputs=["float32[3,8]"]).model.fc.out_features == 7
    assert resolve(f"{net}:ready", need_batch=False).model.fc.out_features == 6


def test_module_target(net, monkeypatch):
    monkeypatch.chdir(net.parent)
    assert resolve("net:build").batch.shape == (2, 8)


def test_same_seed_same_weights_and_the_callers_random_state_stays(net):
    before = torch.get_rng_state()
    first, again = (resolve(f"{net}:build", seed=3).model.fc.weight for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, resolve(f"{net}:build", seed=4).model.fc.weight)
    assert torch.equal(before, torch.get_rng_state())


def test_meta_allocates_nothing(net):
    assert resolve(f"{net}:build", meta=True).model.fc.weight.is_meta
    assert resolve("hf:mixtral", meta=True).batch["input_ids"].is_meta


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("broken", ["RuntimeError: no such corpus", "net.py:18", 'raise RuntimeError("no such corpus")']),
        ("needs", ["missing 1 required positional argument", "--set name=value"]),
        ("number", ["gave an int", "(model, batch)", "loss, target"]),
        ("leaves", ["SystemExit"]),
        ("buidl", ["no 'buidl'", "did you mean 'build'?"]),
        ("Net", ["gives no batch", '--input "float32[32,8]"']),
    ],
)
def test_mistakes_in_a_file(net, factory, words):
    message = str(refusal(f"{net}:{factory}"))
    assert all(word in message for word in words), message
    assert "Traceback" not in message


def test_mistakes_in_the_name(net):
    folder = net.parent
    assert f"{folder / 'net.py'}?" in str(refusal(f"{folder}/nett.py:build"))
    assert "write" in str(refusal(str(net)))
    assert "SyntaxError" in str(refusal(f"{folder}/syntax.py:f"))
    assert "install no_such_package_anywhere" in str(refusal(f"{folder}/absent.py:f"))
    assert "no module 'no.such.module'" in str(refusal("no.such.module:thing"))
    assert "hf:gpt2?" in str(refusal("gpt2"))
    assert "empty" in str(refusal(""))
    assert "--small cannot shrink" in str(refusal(f"{net}:build", small=True))


def test_a_package_that_is_not_there():
    pytest.importorskip("transformers")
    for scheme in ("timm", "torchvision"):
        try:
            __import__(scheme)
        except ImportError:
            error = refusal(f"{scheme}:resnet18")
            assert isinstance(error, MissingDependency) and f"pip install {scheme}" in str(error)


def test_timm_and_torchvision_by_name(monkeypatch):
    made = []

    def create(name, **options):
        made.append((name, options))
        return torch.nn.Conv2d(3, options.get("width", 4), 3)

    timm = SimpleNamespace(list_models=lambda: ["resnet18", "vit_tiny"], create_model=create)
    models = SimpleNamespace(list_models=lambda: ["resnet18", "inception_v3"], get_model=create)
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    assert resolve("timm:resnet18", overrides=["width=8"]).batch.shape == (4, 3, 224, 224)
    assert made == [("resnet18", {"pretrained": False, "width": 8})]
    assert resolve("torchvision:inception_v3", meta=True).batch.shape == (4, 3, 299, 299)
    assert "timm:resnet18?" in str(refusal("timm:resnet19"))
    assert "--small cannot shrink" in str(refusal("torchvision:resnet18", small=True))


def test_parse_input():
    assert parse_input("float32[8, 3,32,32]") == InputSpec("", "float32", (8, 3, 32, 32))
    assert parse_input("ids:long[2,16]<9") == InputSpec("ids", "int64", (2, 16), 9)
    assert parse_input("scale:float64[]").shape == ()


@pytest.mark.parametrize(
    "text", ["flot[2,8]", "float32[2,8", "float32", "", "a b:float32[2]", "float32[0,3]", "float32[-1]"]
)
def test_parse_input_refuses(text):
    with pytest.raises(TargetError, match="--input"):
        parse_input(text)


def test_inputs_are_positional_named_or_refused(net):
    assert isinstance(resolve(f"{net}:Net", inputs=["float32[2,8]", "int64[2]<5"]).batch, tuple)
    named = resolve(f"{net}:Net", inputs=["x:float32[2,8]"]).batch
    assert set(named) == {"x"} and abs(float(named["x"].mean())) < 1.5
    assert "name all inputs" in str(refusal(f"{net}:Net", inputs=["x:float32[2,8]", "float32[2]"]))


SMALL = [
    "gpt2",
    "llama",
    "mixtral",
    "bert",
    "vit",
    "resnet",
    "convnext",
    "t5",
    "whisper",
    "clip",
    "swin",
    "mamba",
    "deepseek_v3",
    "nemotron",  # leaves the number of key heads open
    "dots1",  # and that of experts
    "dbrx",  # and the angle of a part
    "bamba",  # Mamba's heads times their size are twice the hidden size
    "zamba2",  # works out which layers are hybrid
    "ernie4_5_moe",
    "xlstm",
    "funnel",  # has two bare models
    "vilt",  # texts and images in one tower
    "flava",
    "lxmert",
    "perceiver",
    "xmod",
    "lfm2_moe",  # leaves the kinds of its layers open
    "time_series_transformer",  # and how far it looks ahead
    "patchtst",
    "bros",  # outlines of words beside the text
    "siglip2_vision_model",  # patches image by image
    "qwen3_vl_vision",  # patches of all images end to end
    "vjepa2",  # a clip
    "wav2vec2-bert",
    "clap_audio_model",  # a folded spectrogram
    "musicgen_decoder",  # several codebooks
]


@pytest.mark.parametrize("kind", SMALL)
def test_small_models_run_on_their_default_batch(kind):
    pytest.importorskip("transformers")
    target = resolve(f"hf:{kind}", small=True)
    with torch.no_grad():
        target.model(**target.batch)
    assert sum(p.numel() for p in target.model.parameters()) < 1e8
    assert any("--small" in note for note in target.notes)


def test_units_keep_products_equal():
    """Mamba 2 in Bamba: heads x size = expand x hidden before and after; odd head counts stay whole."""
    values = {"hidden_size": 4096, "num_attention_heads": 32, "mamba_n_heads": 128, "mamba_d_head": 64, "head_dim": 128}
    small = scaled(values, units(values, 64))
    assert small["hidden_size"] == 64 and small["num_attention_heads"] * small["head_dim"] == 64
    assert small["mamba_n_heads"] * small["mamba_d_head"] == 2 * small["hidden_size"]
    wider = scaled(values, units(values, 256))
    assert wider["mamba_n_heads"] * wider["mamba_d_head"] == 2 * wider["hidden_size"] == 512
    assert scaled({"vocab_size": 9000, "num_conv_layers": 7, "image_size": 384}, units(values, 64)) == {}
    assert filled({"hidden_size": 64, "num_attention_heads": 4, "head_dim": None}) == {"head_dim": 16}


def test_cut_lists_keep_a_layer_of_every_kind():
    values = {"num_hidden_layers": 6, "layer_types": ["linear"] * 5 + ["full"]}
    assert _shorter_lists(values, {"num_hidden_layers": 2}) == {"layer_types": ["linear", "full"]}


def test_of_two_layers_none_shares_the_keys_of_another():
    assert _changes({"num_hidden_layers": 35, "num_kv_shared_layers": 15}, 0, Units(1, 1))["num_kv_shared_layers"] == 0
    assert "num_kv_shared_layers" not in _changes({"num_hidden_layers": 35, "num_kv_shared_layers": 0}, 0, Units(1, 1))


def test_hf_chooses_the_class():
    pytest.importorskip("transformers")
    kinds = {"gpt2": "GPT2LMHeadModel", "bert": "BertModel", "t5": "T5ForConditionalGeneration", "vit": "ViTModel"}
    for kind, name in kinds.items():
        assert type(resolve(f"hf:{kind}", meta=True).model).__name__ == name
    assert type(resolve("hf:bert:BertForMaskedLM", meta=True).model).__name__ == "BertForMaskedLM"


def test_hf_builds_parts_of_larger_models_and_models_of_one_task():
    pytest.importorskip("transformers")
    kinds = {
        "clap_audio_model": "ClapAudioModel",
        "kosmos_2_text_model": "Kosmos2TextModel",
        "depth_anything": "DepthAnythingForDepthEstimation",
        "dia_encoder": "DiaEncoder",
    }
    for kind, name in kinds.items():
        assert type(resolve(f"hf:{kind}", meta=True).model).__name__ == name
    assert "has no bare model" in str(refusal("hf:sam_mask_decoder", meta=True))  # a module, no model


def test_hf_config_file_and_overrides(tmp_path):
    pytest.importorskip("transformers")
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "gpt2", "n_layer": 3, "n_embd": 48, "n_head": 4, "vocab_size": 100}')
    for place in (config, tmp_path):
        model = resolve(f"hf:{place}", overrides=["num_hidden_layers=1"]).model
        assert (model.config.n_layer, model.config.n_embd, model.config.use_cache) == (1, 48, False)


def test_hf_mistakes(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    assert "hf:gpt2" in str(refusal("hf:gpt3"))
    assert "not downloaded" in str(refusal("hf:meta-llama/Llama-3-8B")) and "hf:llama" in str(
        refusal("hf:meta-llama/Llama-3-8B")
    )
    assert "no field model_type" in str(refusal(f"hf:{tmp_path}/config.json"))
    assert "cannot be read as JSON" in str(refusal(f"hf:{tmp_path}/broken.json"))
    assert "no file" in str(refusal(f"hf:{tmp_path}/absent.json"))
    assert "hidden_size" in str(refusal("hf:gpt2", overrides=["hidden_sise=3"]))
    assert "divisible" in str(refusal("hf:gpt2", overrides=["hidden_size=7"]))
    assert "--set name=value" in str(refusal("hf:gpt2", overrides=["hidden_size"]))
    assert "no class 'GPT2ForChess'" in str(refusal("hf:gpt2:GPT2ForChess", meta=True))


def test_too_large_for_the_memory_says_how_large_and_what_to_do():
    pytest.importorskip("transformers")
    message = str(refusal("hf:mixtral", limit_bytes=2**30))
    assert "46.7 billion parameters" in message and "--predict-only" in message and "--small" in message


def test_special_ids_are_never_drawn():
    pytest.importorskip("transformers")
    target = resolve("hf:bert", small=True)
    assert int((target.batch["input_ids"] == target.model.config.pad_token_id).sum()) == 0


@pytest.mark.parametrize("target", ["hf:gpt2", "hf:t5", "hf:bert:BertForMaskedLM", "hf:vit:ViTForImageClassification"])
def test_a_transformers_model_carries_its_loss(target: str) -> None:
    pytest.importorskip("transformers")
    found = resolve(target, small=True)
    assert found.loss is not None and any(note.startswith("loss:") for note in found.notes)
    facts = fanin.predict(found.model, found.batch, loss=found.loss, target=found.target).facts
    assert facts["uninformed_loss"] == pytest.approx(math.log(facts["classes"]))
    assert 0 <= facts["loss"] - facts["uninformed_loss"] < 1
    assert resolve(target, small=True, meta=True).target.device.type == "meta"


def test_a_bare_model_has_no_loss() -> None:
    pytest.importorskip("transformers")
    assert resolve("hf:bert", small=True).loss is None
