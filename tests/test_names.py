"""Names of rows: those of named_modules(), with an op added where a module makes more than one tensor."""

from __future__ import annotations

import logging
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fanin  # noqa: E402


def names(model: nn.Module, *batch: Any) -> list[str]:
    return list(fanin.predict(model, batch))


X = torch.randn(2, 8)


def test_modules_of_a_sequential():
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    signals = fanin.predict(net, X)
    assert list(signals) == ["0", "1", "2"]
    assert signals["0"].op == "linear" and signals["2"].shape == (2, 3)


def test_a_container_is_an_alias_of_what_leaves_it():
    net = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Sequential(nn.Linear(8, 8)))
    signals = fanin.predict(net, X)
    assert list(signals) == ["0.0", "0.1", "1.0"]
    assert dict(signals.aliases) == {"": "1.0", "0": "0.1", "1": "1.0"}
    assert signals["0"] is signals["0.1"] and signals["1"] is signals["1.0"]


class Functional(nn.Module):
    """Three tensors in one module; its own name goes to the last."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        y = F.relu(self.fc(x))
        return F.relu(y - 1) + y


def test_functional_operations_are_numbered():
    net = nn.Sequential(Functional(), nn.Linear(8, 2))
    assert names(net, X) == ["0.fc", "0/relu", "0/sub", "0/relu_1", "0", "1"]


def test_functional_operations_of_the_model_itself():
    assert names(Functional(), X) == ["fc", "/relu", "/sub", "/relu_1", "/add"]


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.other = nn.Linear(8, 8), nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, x):
        x = self.fc(torch.tanh(self.fc(x)))
        for layer in self.other:
            x = layer(x)
        return x


def test_a_shared_module_called_twice():
    assert names(Twice(), X) == ["fc", "/tanh", "fc/linear", "other.0", "other.1"]


class Calls(nn.Module):
    """The same parameter-free module at two places."""

    def __init__(self):
        super().__init__()
        act = nn.ReLU()
        self.a, self.act_a, self.b, self.act_b = nn.Linear(8, 8), act, nn.Linear(8, 8), act

    def forward(self, x):
        return self.act_b(self.b(self.act_a(self.a(x))))


def test_one_module_under_two_names():
    found = names(Calls(), X)
    assert len(found) == len(set(found)) == 4
    assert found[0] == "a" and found[2] == "b" and found[1] == "act_a"


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        y = self.fc(x)
        return {"first": y, "rest": (torch.tanh(y), y.argmax(-1))}


def test_several_outputs():
    assert names(Several(), X) == ["fc", "/tanh"]


class Identity(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.same = nn.Linear(8, 8), nn.Identity()

    def forward(self, x):
        return self.same(self.fc(x)).relu()


def test_a_module_that_makes_no_tensor_has_no_row_of_its_own():
    assert names(Identity(), X) == ["fc", "/relu"]


def model(kind: str) -> tuple[nn.Module, Any]:
    tf = pytest.importorskip("transformers")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        if kind == "gpt2":
            config = tf.GPT2Config(n_embd=32, n_head=2, n_layer=2, vocab_size=50, n_positions=16)
            return tf.GPT2LMHeadModel(config), {"input_ids": torch.randint(0, 50, (2, 8))}
        config = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        return tf.ResNetForImageClassification(config), {"pixel_values": torch.randn(2, 3, 32, 32)}
    finally:
        logging.disable(before)


@pytest.mark.parametrize("kind", ["gpt2", "resnet"])
def test_every_row_is_a_module_or_an_operation_in_one(kind):
    net, batch = model(kind)
    signals = fanin.predict(net, batch)
    modules = {name for name, _ in net.named_modules()}
    for name, row in signals.items():
        path, slash, op = name.partition("/")
        assert path in modules and (not slash or op.split("_")[0] in row.op or row.op in op)
    assert set(signals.aliases) <= modules
    leaves = {n for n, m in net.named_modules() if n and not list(m.children()) and list(m.parameters())}
    assert leaves <= set(signals) | set(signals.aliases)


@pytest.mark.parametrize("kind", ["gpt2", "resnet"])
def test_measured_rows_have_the_predicted_names_and_shapes(kind):
    net, batch = model(kind)
    said, found = fanin.predict(net, batch), fanin.measure(net, batch)
    assert [(r.name, r.op, r.shape) for r in said.rows] == [(r.name, r.op, r.shape) for r in found.rows]
    assert dict(said.aliases) == dict(found.aliases)


def test_parameters_keep_their_names():
    """Tied ones under their first name."""
    net, batch = model("gpt2")
    assert set(fanin.measure(net, batch).parameters) == {name for name, _ in net.named_parameters()}


def test_an_unknown_name_suggests_one():
    with pytest.raises(KeyError, match="did you mean"):
        fanin.predict(Functional(), X)["fcc"]


@pytest.mark.parametrize("training", [True, False])
def test_an_identity_bears_the_name_of_what_it_returns(training):
    net = nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.ReLU(inplace=True), nn.Sequential(nn.Identity()))
    found = fanin.predict(net.train(training), torch.randn(8, 4))
    assert list(found) == ["0", "2"]
    assert found["1"] == found["0"] and found["3.0"] == found["2"] == found["3"]


def test_an_identity_of_the_batch_names_nothing():
    net = nn.Sequential(nn.Identity(), nn.Linear(4, 4))
    assert list(fanin.predict(net, torch.randn(8, 4))) == ["1"]
