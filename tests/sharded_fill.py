"""Run by torchrun from test_fill_sharded.py: shards drawn by each rank are cut from the one-process tensors."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from test_fill_apply import plan_of
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from fanin.distributions import Constant, Normal, Orthogonal, TruncatedNormal
from fanin.frameworks.torch.fill import apply
from fanin.frameworks.torch.verify import verify


class Block(torch.nn.Module):
    def __init__(self, wide, narrow):
        super().__init__()
        self.up = torch.nn.Linear(narrow, wide)
        self.down = torch.nn.Linear(wide, narrow)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


class Net(torch.nn.Module):
    def __init__(self, wide, narrow):
        super().__init__()
        self.first, self.second = Block(wide, narrow), Block(wide, narrow)
        self.conv = torch.nn.Conv2d(narrow, 6, 3)

    def forward(self, x):
        return self.second(self.first(x))


def network(wide, narrow, device):
    with torch.device(device):
        net = Net(wide, narrow)
        net.second.up.to(torch.bfloat16)
    return net


def plan_for(net):
    plan = plan_of(net, Normal(0.5))
    plan.entries["first.down.weight"].distribution = Orthogonal()
    plan.entries["second.down.weight"].distribution = TruncatedNormal(0.1)
    plan.entries["second.down.bias"].distribution = Constant(2.0)
    return plan


def tensor_parallel(net, mesh):
    for name in ("first", "second"):
        parallelize_module(getattr(net, name), mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


def data_parallel(net, mesh):
    for name in ("first", "second"):
        fully_shard(getattr(net, name), mesh=mesh)
    fully_shard(net, mesh=mesh)


def check(net, expected, plan, what):
    for name, parameter in net.named_parameters():
        full = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
        assert torch.equal(full, expected[name]), f"{what}: {name} {getattr(parameter, 'placements', '')}"
    assert verify(net, plan, seed=7).ok, what


def main():
    dist.init_process_group("gloo")
    ranks = dist.get_world_size()
    flat = init_device_mesh("cpu", (ranks,), mesh_dim_names=("all",))
    ways = {"fsdp": lambda net: data_parallel(net, flat), "tp": lambda net: tensor_parallel(net, flat)}
    if ranks == 4:
        square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))

        def both(net):
            tensor_parallel(net, square["tp"])
            data_parallel(net, square["dp"])

        ways["2d"] = both
    for wide, narrow in ((64, 32), (37, 21), (3, 5)):
        for device in ("cpu", "meta"):
            single = network(wide, narrow, "cpu")
            plan = plan_for(single)
            expected = apply(plan, single, seed=7).state_dict()
            for what, shard in ways.items():
                net = network(wide, narrow, device)
                shard(net)
                apply(plan, net, seed=7)
                check(net, expected, plan, f"{what} {wide}x{narrow} {device}")
                if what == "fsdp" and wide == 64:
                    net.second.up.float()
                    net(torch.ones(2, narrow)).sum().backward()
    assert dist.get_rank() or print("shards agree", ranks) is None
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
