"""``apply`` writes what ``draw`` says, into any storage, and nothing where it cannot write everything."""

from __future__ import annotations

import mmap
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fanin.distributions import Constant, Identity, Normal, Orthogonal, TruncatedNormal, Uniform, Zeros  # noqa: E402
from fanin.errors import ArgumentError, ModelError, PlanError  # noqa: E402
from fanin.fill import draw  # noqa: E402
from fanin.frameworks.torch.fill import apply  # noqa: E402

HALF = Normal(0.5)


def plan_of(model, law=HALF, **laws):
    """A plan that draws every parameter from ``law``, or from the law given for its name."""
    entries, first = {}, {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        tied = first.setdefault(id(tensor), name)
        entries[name] = SimpleNamespace(
            name=name,
            shape=tuple(tensor.shape),
            distribution=laws.get(name.replace(".", "_"), law),
            tied_to=tied if tied != name else None,
        )
    return SimpleNamespace(entries=entries, fingerprint="test")


def assert_drawn(tensor, name, law=HALF, seed=0):
    dtype = str(tensor.dtype).removeprefix("torch.")
    expected = draw(tuple(tensor.shape), law, seed=seed, name=name, dtype=dtype)
    tensor = tensor.detach().float() if dtype == "bfloat16" else tensor.detach()
    np.testing.assert_array_equal(tensor.numpy(), expected)


def conv_model():
    return torch.nn.Sequential(torch.nn.Conv2d(5, 7, 3), torch.nn.BatchNorm2d(7), torch.nn.Linear(7, 33))


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16", "complex64"])
def test_every_dtype(dtype):
    model = torch.nn.Linear(33, 65).to(getattr(torch, dtype))
    apply(plan_of(model), model, seed=0)
    assert_drawn(model.weight, "weight")
    assert_drawn(model.bias, "bias")


def test_float8_is_rounded_by_torch_from_float32():
    model = torch.nn.Linear(33, 65).to(torch.float8_e4m3fn)
    apply(plan_of(model), model, seed=0)
    expected = torch.from_numpy(draw((65, 33), Normal(0.5), seed=0, name="weight")).to(torch.float8_e4m3fn)
    assert torch.equal(model.weight.float(), expected.float())


@pytest.mark.parametrize("law", [Normal(0.5), Uniform(0.2, mean=1.0), TruncatedNormal(0.1), Orthogonal(2.0), Zeros()])
def test_channels_last_and_contiguous_agree(law):
    plain, last = torch.nn.Conv2d(5, 7, 3), torch.nn.Conv2d(5, 7, 3).to(memory_format=torch.channels_last)
    for model in (plain, last):
        apply(plan_of(model, bias=Zeros(), law=law), model, seed=3)
    assert last.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain.weight, last.weight)
    assert_drawn(plain.weight, "weight", law, seed=3)


def test_views_transposed_and_sliced():
    base = torch.zeros(20, 30)
    model = torch.nn.Module()
    model.turned = torch.nn.Parameter(base[:8].T)
    model.cut = torch.nn.Parameter(base[10:, 3:9])
    apply(plan_of(model), model, seed=0)
    assert_drawn(model.turned, "turned")
    assert_drawn(model.cut, "cut")
    assert base[8:10].eq(0).all() and base[10:, :3].eq(0).all()


def test_tied_parameters_are_drawn_once_under_the_first_name():
    model = torch.nn.Sequential(torch.nn.Embedding(11, 6), torch.nn.Linear(6, 11, bias=False))
    model[1].weight = model[0].weight
    apply(plan_of(model), model, seed=0)
    assert_drawn(model[1].weight, "0.weight")


def test_meta_gets_memory_and_keeps_ties_and_running_statistics():
    with torch.device("meta"):
        model = conv_model()
        model.append(torch.nn.Linear(7, 33))
        model[3].weight = model[2].weight
    model[2].weight.requires_grad_(False)
    apply(plan_of(model), model, seed=0)
    assert model[3].weight is model[2].weight and not model[2].weight.requires_grad
    assert_drawn(model[0].weight, "0.weight")
    assert model[1].running_var.eq(1).all() and model[1].num_batches_tracked == 0


def test_a_meta_buffer_nobody_knows_is_an_error_before_anything_is_written():
    model = torch.nn.Linear(2, 2, device="meta")
    model.register_buffer("table", torch.empty(3, device="meta"))
    with pytest.raises(ModelError, match=r"'table'.*meta"):
        apply(plan_of(model), model, seed=0)
    assert model.weight.device.type == "meta"


def test_leaves_buffers_gradients_rng_and_the_rest_alone():
    model = conv_model()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    plan = plan_of(model)
    del plan.entries["2.weight"]
    plan.entries["2.bias"].distribution = None
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state, address, version = torch.get_rng_state(), model[0].weight.data_ptr(), model[0].weight._version
    apply(plan, model, seed=0)
    assert torch.equal(state, torch.get_rng_state()) and model[0].weight.data_ptr() == address
    assert model[0].weight.grad.eq(1).all() and model[0].weight._version > version
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_other_layers_do_not_matter():
    small, large = torch.nn.Sequential(torch.nn.Linear(4, 4)), torch.nn.Sequential(*[torch.nn.Linear(4, 4)] * 3)
    apply(plan_of(small), small, seed=1)
    apply(plan_of(large), large, seed=1)
    assert torch.equal(small[0].weight, large[0].weight)


def test_keep_frozen_and_loaded():
    model = conv_model()
    model[0].weight.requires_grad_(False)
    model[1].weight._is_hf_initialized = True
    before = {k: v.clone() for k, v in model.state_dict().items()}
    apply(plan_of(model), model, seed=0, keep=["2.*"], frozen=False, loaded=False)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"0.bias", "1.bias"}


def test_weight_norm_parts_are_drawn_by_their_own_names():
    model = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 3))
    apply(plan_of(model), model, seed=0)
    assert_drawn(model.parametrizations.weight.original1, "parametrizations.weight.original1")


def test_spectral_norm_is_drawn_before_it_is_normalized():
    model = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(4, 3)).eval()
    apply(plan_of(model), model, seed=0)
    original = model.parametrizations.weight.original
    assert_drawn(original, "parametrizations.weight.original")
    ratio = model.weight / original  # one number: the original over an estimate of its largest singular value
    assert torch.allclose(ratio, ratio.flatten()[0].expand_as(ratio))


def test_empty_and_zero_dimensional_parameters():
    model = torch.nn.Module()
    model.none, model.scalar = torch.nn.Parameter(torch.empty(0, 3)), torch.nn.Parameter(torch.tensor(0.0))
    apply(plan_of(model), model, seed=0)
    assert_drawn(model.scalar, "scalar")


def spoil_name(plan, model):
    plan.entries["2.wieght"] = plan.entries.pop("2.weight")


def spoil_shape(plan, model):
    plan.entries["2.bias"].shape = (32,)


def spoil_law(plan, model):
    plan.entries["2.bias"].distribution = Orthogonal()


def spoil_dtype(plan, model):
    model[2].bias = torch.nn.Parameter(torch.zeros(33, dtype=torch.int32), requires_grad=False)


def spoil_storage(plan, model):
    model[2].bias = torch.nn.Parameter(torch.zeros(1).expand(33))


def spoil_permission(plan, model):
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ)
    array = np.ndarray(33, np.float32, memory)
    model[2].bias = torch.nn.Parameter(torch.from_numpy(array))


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_name, r"'2.wieght'.*nearest name is '2.weight'"),
        (spoil_shape, r"'2.bias' has shape \(33,\), the plan says \(32,\)"),
        (spoil_law, r"'2.bias' of shape .* orthogonal"),
        (spoil_dtype, r"'2.bias' has dtype torch.int32"),
        (spoil_storage, r"'2.bias' is expanded"),
        (spoil_permission, r"'2.bias' lies in memory that cannot be written"),
    ],
)
def test_a_mistake_at_the_last_parameter_writes_nothing(spoil, message):
    model = conv_model()
    plan = plan_of(model)
    spoil(plan, model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(PlanError, match=message):
        apply(plan, model, seed=0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("seed", [-1, 2**64, True, 1.0, "0", None])
def test_wrong_seeds(seed):
    model = torch.nn.Linear(2, 2)
    with pytest.raises(ArgumentError, match="seed is"):
        apply(plan_of(model), model, seed=seed)


def test_constant_and_identity():
    model = torch.nn.Linear(3, 3)
    apply(plan_of(model, law=Constant(2.5), weight=Identity(2.0)), model, seed=0)
    assert torch.equal(model.weight, 2 * torch.eye(3)) and model.bias.eq(2.5).all()
