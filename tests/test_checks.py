"""Every rule speaks on a minimal fault and is silent on its healthy twin; healthy models of every kind pass."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.checks import RULES  # noqa: E402
from fanin.errors import ArgumentError  # noqa: E402

WIDTH = 64


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def he(weight: Any) -> Any:
    nn.init.kaiming_normal_(weight)


def xavier(gain: float = 1.0) -> Callable[[Any], Any]:
    return lambda weight: nn.init.xavier_normal_(weight, gain=gain)


def fixed(std: float) -> Callable[[Any], Any]:
    return lambda weight: nn.init.normal_(weight, std=std)


def drawn(net: Any, law: Callable[[Any], Any]) -> Any:
    """Weights by a law, biases zero."""
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            law(module.weight)
            nn.init.zeros_(module.bias) if module.bias is not None else None
    return net


def mlp(
    depth: int = 4, act: Callable[[], nn.Module] = nn.ReLU, law: Callable[[Any], Any] = he, head: float = 0.1
) -> Any:
    layers = [part for _ in range(depth) for part in (nn.Linear(WIDTH, WIDTH), act())]
    net = drawn(nn.Sequential(*layers, nn.Linear(WIDTH, 10)), law)
    net[-1].weight.data *= head
    return net


def conv(depth: int = 30, law: Callable[[Any], Any] | None = he) -> Any:
    """The plain deep convolutional net on 8x8 images."""
    layers = [p for i in range(depth) for p in (nn.Conv2d(16 if i else 1, 16, 3, padding=1), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 64, 10))
    return drawn(net, law) if law else net


class Residual(nn.Module):
    """Blocks x + f(x) without a norm."""

    def __init__(self, depth: int, last: float):
        super().__init__()
        blocks = (nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)) for _ in range(depth))
        self.blocks, self.head = nn.ModuleList(drawn(block, he) for block in blocks), nn.Linear(WIDTH, 10)
        for block in self.blocks:
            block[2].weight.data *= last  # type: ignore[index]

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Kernels(nn.Module):
    """Weights stored as (in, out), drawn by an initializer that takes them for (out, in)."""

    def __init__(self, turned: bool):
        super().__init__()
        shapes = [(64, 64), (64, 512), (512, 64), (64, 512), (512, 10)]
        self.kernels = nn.ParameterList(nn.Parameter(torch.empty(shape)) for shape in shapes)
        for kernel in self.kernels:
            nn.init.kaiming_normal_(kernel.T if turned else kernel)

    def forward(self, x):
        for kernel in list(self.kernels)[:-1]:
            x = torch.relu(x @ kernel)
        return x @ self.kernels[-1]


class Two(nn.Module):
    """Two layers; forward uses what it is told to."""

    def __init__(self, forward: Callable):
        super().__init__()
        self.a, self.b, self.act = nn.Linear(WIDTH, 10), nn.Linear(WIDTH, 10), forward

    def forward(self, x):
        return self.act(self.a(x), self.b(x))


def batch(count: int = 32) -> Any:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1))


def images() -> Any:
    return torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def changed(net: Any, change: Callable[[Any], Any]) -> Any:
    with torch.no_grad():
        change(net)
    return net


def plain_norms(depth: int) -> Any:
    layers = [p for _ in range(depth) for p in (nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def rows_alike(net: Any) -> None:
    net[2].weight.copy_(net[2].weight[:1].expand_as(net[2].weight).clone())


def one_direction(net: Any) -> None:
    """Every row of one sign: i.i.d. by its moments, yet it adds up the mean of what a ReLU gives."""
    net[4].weight.copy_((0.1 * torch.tensor([1.0, -1.0]).repeat(WIDTH // 2))[:, None].expand(WIDTH, WIDTH))


def classed(**_: Any) -> dict[str, Any]:
    return {"loss": nn.functional.cross_entropy, "target": torch.arange(32) % 10}


class Rooted(nn.Module):
    """A square root whose derivative at zero is infinite."""

    def __init__(self, eps: float):
        super().__init__()
        self.layer, self.eps = nn.Linear(WIDTH, 10), eps

    def forward(self, x):
        return torch.sqrt(0 * self.layer(x) + self.eps)


class Sorting(nn.Module):
    """An operation that no rule is likely to know."""

    def __init__(self, use: bool):
        super().__init__()
        self.layer, self.use = nn.Linear(WIDTH, 10), use

    def forward(self, x):
        y = self.layer(x)
        return torch.linalg.pinv(y) if self.use else y


Made = tuple[Any, Any] | tuple[Any, Any, dict[str, Any]]


def small() -> Made:
    return mlp(), batch()


def deep() -> Made:
    return mlp(20), batch()


FAULTS: dict[str, list[tuple[Callable[[], Made], Callable[[], Made]]]] = {
    # code -> pairs of (fault, healthy twin)
    "FAN101": [
        (lambda: (mlp(20, law=xavier()), batch()), deep),
        (lambda: (conv(law=None), images()), lambda: (conv(), images())),
        (lambda: (mlp(12, nn.Sigmoid, xavier()), batch()), lambda: (mlp(12, nn.Tanh, xavier()), batch())),
    ],
    "FAN102": [
        (lambda: (mlp(20, law=fixed(0.4)), batch()), deep),
        (lambda: (Residual(16, 1.0), batch()), lambda: (Residual(16, 16**-0.5), batch())),
    ],
    "FAN103": [(lambda: (mlp(30, law=fixed(500.0)), batch()), deep)],
    "FAN104": [(lambda: (mlp(), batch(1).expand(8, WIDTH).clone()), small)],
    "FAN105": [(lambda: (mlp(), 128 + 60 * batch()), small)],
    "FAN106": [(lambda: (mlp(), batch().log()), small)],
    "FAN107": [
        (
            lambda: (changed(mlp(1), lambda net: net[-1].bias.fill_(500.0)), batch()),
            lambda: (mlp(1), batch()),
        )
    ],
    "FAN201": [(lambda: (mlp(20, law=fixed(0.02)), batch()), deep)],
    "FAN202": [
        (lambda: (mlp(20, law=fixed(0.4)), batch()), deep),
        (lambda: (plain_norms(40), batch()), lambda: (plain_norms(8), batch())),
    ],
    "FAN203": [(lambda: (Rooted(0.0), batch()), lambda: (Rooted(1e-3), batch()))],
    "FAN204": [(lambda: (Two(lambda a, b: a), batch()), lambda: (Two(lambda a, b: a + b), batch()))],
    "FAN301": [
        (lambda: (changed(mlp(), lambda net: net[2].bias.fill_(-9.0)), batch()), small),
    ],
    "FAN302": [
        (lambda: (mlp(3, nn.Tanh, fixed(3.0)), batch()), lambda: (mlp(3, nn.Tanh, xavier()), batch())),
        (lambda: (mlp(3, nn.Hardtanh, fixed(3.0)), batch()), lambda: (mlp(3, nn.Hardtanh, xavier()), batch())),
        (lambda: (mlp(2, nn.Sigmoid, fixed(8.0)), batch()), lambda: (mlp(2, nn.Sigmoid, xavier(4.0)), batch())),
    ],
    "FAN303": [
        (lambda: (mlp(6, law=xavier()), batch()), lambda: (mlp(6), batch())),
        (lambda: (mlp(30, nn.Tanh, xavier(5 / 3)), batch()), lambda: (mlp(30, nn.Tanh, xavier()), batch())),
        (lambda: (mlp(30, nn.Tanh), batch()), lambda: (mlp(20, nn.SELU, fixed(WIDTH**-0.5)), batch())),
    ],
    "FAN304": [(lambda: (mlp(6, law=fixed(2 / WIDTH)), batch()), lambda: (mlp(6), batch()))],
    "FAN305": [(lambda: (Kernels(False), batch()), lambda: (Kernels(True), batch()))],
    "FAN306": [
        (
            lambda: (nn.Sequential(nn.Linear(120_000, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(4, 120_000)),
            small,
        )
    ],
    "FAN401": [(lambda: (changed(mlp(), lambda n: n[2].weight[1].fill_(math.nan)), batch()), small)],
    "FAN402": [
        (lambda: (changed(mlp(), lambda n: n[2].weight[1, 1].fill_(1e30)), batch()), small),
        (lambda: (changed(mlp(), lambda n: n[2].weight.mul_(1e-38)), batch()), small),
    ],
    "FAN403": [(lambda: (changed(mlp(), lambda n: n[2].weight.zero_()), batch()), lambda: (mlp(head=0.0), batch()))],
    "FAN404": [(lambda: (Residual(3, 0.0), batch()), lambda: (Residual(3, 0.5), batch()))],
    "FAN405": [
        (lambda: (changed(mlp(), lambda n: n[2].weight.fill_(0.1)), batch()), small),
        (lambda: (changed(mlp(), rows_alike), batch()), small),
    ],
    "FAN406": [
        (
            lambda: (changed(mlp(), lambda n: n[2].bias.fill_(10.0)), batch()),
            lambda: (changed(mlp(), lambda n: n[2].bias.fill_(0.3)), batch()),
        )
    ],
    "FAN501": [(lambda: (mlp(head=1.0), batch(), classed()), lambda: (mlp(), batch(), classed()))],
    "FAN502": [(lambda: (mlp(head=20.0), batch(), classed()), lambda: (mlp(), batch(), classed()))],
    "FAN901": [(lambda: (Sorting(True), batch()), lambda: (Sorting(False), batch()))],
    "FAN902": [
        (
            lambda: (changed(mlp(6), one_direction), batch()),
            lambda: (mlp(6), batch()),
        )
    ],
}
CASES = [(code, *pair) for code, pairs in FAULTS.items() for pair in pairs]


def findings(made: Made, **options: Any) -> dict[str, Any]:
    model, given, *further = made
    report = fanin.check(model, given, **(further[0] if further else {}), **options)
    return {finding.code: finding for finding in report.findings}


@functools.cache
def healthy(twin: Callable[[], Made]) -> frozenset[str]:
    """Codes of a twin that several rules share, found once."""
    torch.manual_seed(0)
    return frozenset(findings(twin()))


@pytest.mark.parametrize(("code", "fault", "twin"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_the_rule_speaks_and_its_twin_is_silent(code: str, fault: Callable, twin: Callable) -> None:
    found = findings(fault())
    assert code in found, f"only {sorted(found)}"
    finding = found[code]
    assert (
        finding.name is not None and finding.message and finding.cause and finding.fix and finding.doc == code.lower()
    )
    assert code not in healthy(twin)


def test_every_rule_is_tried() -> None:
    assert set(FAULTS) == {rule.code for rule in RULES}


def test_codes_are_unique_and_rows_that_others_name_come_first() -> None:
    codes = [rule.code for rule in RULES]
    assert len(set(codes)) == len(codes)
    for i, rule in enumerate(RULES):
        assert set(rule.unless) <= set(codes[:i]), rule.code


# --- what the findings say ----------------------------------------------------------------------------------------


def test_xavier_on_relu_is_told_with_rate_place_count_and_cure() -> None:
    found = findings((mlp(30, law=xavier()), batch()))
    finding = found["FAN101"]
    assert finding.severity == "error" and finding.name == "2"
    assert "over 29 layers" in finding.message and "half of it gone every" in finding.message
    assert "Xavier's" in finding.cause and "relu needs 1.41" in finding.cause
    factor = float(finding.fix.split("by ")[1].split(":")[0])
    assert factor == pytest.approx(math.sqrt(2), rel=0.02) and "fanin.init_" in finding.fix
    assert "FAN303" not in found  # the same story


def test_the_cure_cures() -> None:
    net = mlp(20, law=xavier())
    factor = float(findings((net, batch()))["FAN101"].fix.split("by ")[1].split(":")[0])
    for layer in net[:-1]:
        if isinstance(layer, nn.Linear):
            layer.weight.data *= factor
    assert fanin.check(net, batch()).ok


def test_prediction_alone_says_it_beforehand() -> None:
    with torch.device("meta"):
        net = conv(law=None)
    report = fanin.check(net, torch.empty(8, 1, 8, 8, device="meta"), predict_only=True)
    assert not report.ok and report.measured is None
    assert any("torch's default" in finding.cause for finding in report.findings)


def test_thirty_layers_are_one_finding() -> None:
    report = fanin.check(conv(law=xavier()), images())
    codes = [finding.code for finding in report.findings]
    assert len(codes) == len(set(codes)) and set(codes) <= {"FAN101", "FAN201", "FAN902"}


@pytest.mark.parametrize(("select", "ignore", "kept"), [
    (None, None, {"FAN101", "FAN201"}),
    ("FAN1", None, {"FAN101"}),
    ("fan201", None, {"FAN201"}),
    (["FAN1", "FAN2"], "FAN101", {"FAN201"}),
    ("FAN303", None, {"FAN303"}),  # alone it speaks: nothing else tells its story
    (None, ["FAN"], set()),
])  # fmt: skip
def test_select_and_ignore(select: Any, ignore: Any, kept: set[str]) -> None:
    net = mlp(20, law=fixed(0.03))
    assert set(findings((net, batch()), select=select, ignore=ignore)) - {"FAN902"} == kept


@pytest.mark.parametrize("codes", ["FAN7", "X", ["FAN101", "FAN999"]])
def test_unknown_codes(codes: Any) -> None:
    with pytest.raises(ArgumentError, match="no rule's code begins with"):
        fanin.check(mlp(1), batch(), select=codes)


# --- real models --------------------------------------------------------------------------------------------------


def ids() -> dict[str, Any]:
    return {"input_ids": torch.randint(0, 100, (4, 16))}


def pixels(size: int, count: int = 4) -> dict[str, Any]:
    return {"pixel_values": torch.randn(count, 3, size, size)}


def made(name: str) -> tuple[Any, Any]:
    tf = pytest.importorskip("transformers")
    layers = {"num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    stages = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 2, 2, 1]}
    if name == "gpt2":
        config = tf.GPT2Config(
            n_layer=4, n_embd=64, n_head=4, vocab_size=100, n_positions=32, bos_token_id=0, eos_token_id=1
        )
        return tf.GPT2LMHeadModel(config).train(), ids()
    if name == "bert":
        return tf.BertForMaskedLM(tf.BertConfig(**layers, vocab_size=100, max_position_embeddings=32)), ids()
    if name == "llama":
        return tf.LlamaForCausalLM(tf.LlamaConfig(**layers, vocab_size=100, max_position_embeddings=32)), ids()
    if name == "vit":
        return tf.ViTForImageClassification(tf.ViTConfig(**layers, image_size=32, patch_size=8)), pixels(32)
    if name == "convnext":
        return tf.ConvNextForImageClassification(tf.ConvNextConfig(**stages)), pixels(64)
    return tf.ResNetForImageClassification(tf.ResNetConfig(embedding_size=16, **stages)).train(), pixels(64, 8)


@pytest.mark.parametrize("name", ["gpt2", "bert", "llama", "vit", "convnext", "resnet"])
def test_healthy_models_pass(name: str) -> None:
    report = fanin.check(*made(name))
    assert [f"{f.code} {f.name}: {f.message}" for f in report.findings if f.severity != "info"] == []


@pytest.mark.parametrize("name", ["mlp", "wide mlp", "conv"])
def test_healthy_plain_nets_pass(name: str) -> None:
    nets = {"mlp": (mlp(20), batch()), "wide mlp": (mlp(3), batch()), "conv": (conv(), images())}
    assert fanin.check(*nets[name]).ok


def weight_at(model: Any, end: str) -> Any:
    return next(p for n, p in model.named_parameters() if n.endswith(end))


@pytest.mark.parametrize(
    ("name", "end", "change", "code"),
    [
        ("gpt2", "h.1.mlp.c_fc.weight", lambda w: w.fill_(0.02), "FAN405"),
        ("gpt2", "h.2.attn.c_attn.weight", lambda w: w[0, 0].fill_(math.nan), "FAN401"),
        ("gpt2", "h.2.mlp.c_proj.weight", lambda w: w.zero_(), "FAN404"),
        ("bert", "layer.1.attention.self.value.weight", lambda w: w.fill_(1e20), "FAN402"),
        ("vit", "layers.1.mlp.fc1.weight", lambda w: w.copy_(w[:1].expand_as(w).clone()), "FAN405"),
        ("resnet", "stages.1.layers.0.layer.0.convolution.weight", lambda w: w.fill_(math.inf), "FAN401"),
        ("resnet", "classifier.1.weight", lambda w: w.zero_(), "FAN404"),
    ],
)
def test_faults_in_real_models(name: str, end: str, change: Callable, code: str) -> None:
    model, given = made(name)
    try:
        weight = weight_at(model, end)
    except StopIteration:
        pytest.fail(f"{name} has no {end}: {[n for n, _ in model.named_parameters()][10:30]}")
    with torch.no_grad():
        change(weight)
    found = {f.code: f for f in fanin.check(model, given, predict_only=code == "FAN402").findings}
    assert code in found and found[code].name.endswith(end)


def test_class_scores_of_a_language_model() -> None:
    model, given = made("gpt2")
    target = torch.randint(0, 100, (4, 16))

    def loss(logits, wanted):
        return nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())

    assert fanin.check(model, given, loss=loss, target=target).ok
    model.transformer.wte.weight.data *= 60
    codes = {f.code for f in fanin.check(model, given, loss=loss, target=target).findings}
    assert codes & {"FAN501", "FAN502"}
