"""Writes into views, made explicit: ``y[:, 0] = v`` becomes a new ``y`` that holds v there.

Steps are recorded as they ran, and in-place operations write into memory that other tensors look into. Here every
tensor is an object with a base that it is a view of. A write into a view is done on a copy, and scattered back into
the tensor that it views, up to the base; a view that is read after such a write is taken anew. Measurement runs the
same steps as the theory reads, so both have the same rows. Programs without such writes are left as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from fanin.frameworks.torch.arguments import Arguments, op_name, references, substitute, written
from fanin.frameworks.torch.ops import SPLITS, TABLE, split_piece
from fanin.frameworks.torch.program import Program, Ref, Step
from fanin.graph import Kind

aten = torch.ops.aten


def functional(program: Program) -> Program:
    """The program with no write into memory that another of its tensors shares."""
    storages = _storages(program)
    if not _shared_writes(program, storages):
        return program
    rewriter = _Rewriter(storages, program)
    for step in program.steps:
        rewriter.step(step)
    outputs = tuple(rewriter.read(o) for o in program.outputs)
    return replace(program, steps=tuple(rewriter.steps), outputs=outputs)


def _storage(value: Any) -> int | None:
    """What tells one piece of memory from another; of several views of one tensor the one they share."""
    if isinstance(value, list | tuple):
        owners = {_storage(v) for v in value}
        return owners.pop() if len(owners) == 1 else None
    return value.untyped_storage()._cdata if isinstance(value, torch.Tensor) else None


def _storages(program: Program) -> dict[str, int | None]:
    found = {id_: _storage(v) for id_, v in {**program.values, **program.constants}.items()}
    return found | {step.id: _storage(step.value) for step in program.steps}


def _shared_writes(program: Program, storages: Mapping[str, int | None]) -> bool:
    """Whether a step writes to memory into which more than one tensor of the program looks."""
    targets = {step.id: written(step) for step in program.steps}
    looking: dict[int | None, int] = {}
    for id_, storage in storages.items():
        if not targets.get(id_):  # what an in-place operation returns is what it was given
            looking[storage] = looking.get(storage, 0) + 1
    touched = {storages.get(id_) for ids in targets.values() for id_ in ids} - {None}
    return any(looking.get(storage, 0) > 1 for storage in touched)


@dataclass
class _Object:
    """A tensor of the model: the step that holds it now, and what it is a view of."""

    holder: str
    parent: _Object | None = None
    step: Step | None = None  # the step that made the view
    seen: int = 0  # the base's writes when the holder was made
    writes: int = 0

    @property
    def root(self) -> _Object:
        return self if self.parent is None else self.parent.root


class _Rewriter:
    """Copies steps, with references to what holds each tensor at that point."""

    def __init__(self, storages: Mapping[str, int | None], program: Program):
        self.storages = storages
        self.steps: list[Step] = []
        self.values: dict[str, Any] = {**program.values, **program.constants}
        self.objects: dict[str, _Object] = {id_: _Object(id_) for id_ in self.values}
        self.splits: dict[str, Step] = {}
        self._count = itertools.count(1)

    def step(self, step: Step) -> None:
        """Take over one step."""
        targets = written(step)
        if not targets:
            self._put(self._redirected(step))
            self.objects[step.id] = self._born(step)
            return
        target = self.objects[targets[0]]
        if target.parent is None:
            self._put(self._redirected(step))
            target.holder = step.id
            target.writes += 1
        else:
            self._write_view(step, targets[0], target)
        self.objects[step.id] = target

    def read(self, id_: str) -> str:
        """Id of the step that holds a tensor now; views of what was written meanwhile are taken anew."""
        thing = self.objects.get(id_)
        return id_ if thing is None else self._fresh(thing)

    def _fresh(self, thing: _Object) -> str:
        if thing.parent is None or thing.seen == thing.root.writes or thing.step is None:
            return thing.holder
        source = self._fresh(thing.parent)
        step = _redirect(thing.step, lambda i: source if self.objects.get(i) is thing.parent else self.read(i))
        thing.holder = self._put(replace(step, id=self._name(thing.step.id)))
        thing.seen = thing.root.writes
        return thing.holder

    def _redirected(self, step: Step) -> Step:
        return _redirect(step, self.read)

    def _born(self, step: Step) -> _Object:
        """The object of a step's result: a view where it shares memory with what the step read."""
        mine = self.storages.get(step.id)
        look = self._slice_of_split(step)
        for ref in references(look):
            if mine is not None and self.storages.get(ref) == mine and ref in self.objects:
                parent = self.objects[ref]
                return _Object(step.id, parent, look, parent.root.writes)
        return _Object(step.id)

    def _slice_of_split(self, step: Step) -> Step:
        """A piece of a split as the slice that it is; any other step as it is."""
        whole = self.splits.get(step.args[0].id) if step.args and isinstance(step.args[0], Ref) else None
        if op_name(step.target) in SPLITS:
            self.splits[step.id] = step
        if whole is None or op_name(step.target) != "getitem":
            return step
        source, index = whole.args[0], int(step.args[1])
        shape = self.values[source.id].shape
        how = split_piece(whole, op_name(whole.target), index, tuple(shape))
        if how["how"] == "select":
            return replace(step, target=aten.select.int, args=(source, how["axis"], index))
        return replace(step, target=aten.slice.Tensor, args=(source, how["axis"], how["start"], how["stop"]))

    def _write_view(self, step: Step, id_: str, target: _Object) -> None:
        """The write on a copy, and the copy into what it was a view of, and so on up to the base."""
        before = self._fresh(target)
        copy = self._put(
            Step(self._name(before), aten.clone.default, (Ref(before),), {}, self.values[before], step.calls)
        )
        child, thing = self._put(_redirect(step, lambda i: copy if i == id_ else self.read(i))), target
        changed = [(thing, child)]
        while thing.parent is not None and thing.step is not None:
            child = self._put(self._put_back(thing, thing.step, self._fresh(thing.parent), child, step))
            thing = thing.parent
            changed.append((thing, child))
        thing.writes += 1
        for one, holder in changed:
            one.holder, one.seen = holder, thing.writes

    def _put_back(self, thing: _Object, view: Step, parent: str, child: str, cause: Step) -> Step:
        """The parent with the child where the view looked."""
        shapes = {ref: tuple(self.values[ref].shape) for ref in references(view)}
        like = self.values[parent]
        inverse = INVERSES.get(_how(view, shapes, like), _overwritten)
        target, args = inverse(view, shapes, Ref(parent), Ref(child), like)
        return Step(self._name(parent), target, args, {}, self.values[parent], cause.calls)

    def _name(self, stem: str) -> str:
        return f"{stem.split('.w')[0]}.w{next(self._count)}"

    def _put(self, step: Step) -> str:
        self.steps.append(step)
        self.values[step.id] = step.value
        return step.id


def _redirect(step: Step, to: Callable[[str], str]) -> Step:
    """The step with its references renamed."""
    args, kwargs = substitute(step, {id_: Ref(to(id_)) for id_ in references(step)})
    return replace(step, args=args, kwargs=kwargs)


# --- how a write goes back into what was viewed --------------------------------------------------------------------

Inverse = Callable[[Step, Mapping[str, tuple[int, ...]], Ref, Ref, torch.Tensor], tuple[Any, tuple]]


def _attrs(view: Step, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, Any]:
    """What the table of operations says of a view; nothing where it has no row for it."""
    row = TABLE.get(op_name(view.target))
    if row is None or not hasattr(view.target, "_schema"):
        return {}
    try:
        built = row(Arguments(view, shapes))
    except ValueError:  # strides that no row describes
        return {}
    return built[1] if isinstance(built, tuple) and built[0] is Kind.MOVE else {}


def _how(view: Step, shapes: Mapping[str, tuple[int, ...]], like: torch.Tensor) -> str:
    how = _attrs(view, shapes).get("how", "")
    whole = view.value.numel() == like.numel() and view.value.dtype == like.dtype
    return how if whole or how in ("slice", "select") else ""


def _reshaped(view: Step, shapes, parent: Ref, child: Ref, like: torch.Tensor):
    return aten.reshape.default, (child, list(like.shape))


def _permuted(view: Step, shapes, parent: Ref, child: Ref, like: torch.Tensor):
    perm = _attrs(view, shapes)["perm"]
    return aten.permute.default, (child, [perm.index(i) for i in range(len(perm))])


def _sliced(view: Step, shapes, parent: Ref, child: Ref, like: torch.Tensor):
    a = _attrs(view, shapes)
    return aten.slice_scatter.default, (parent, child, a["axis"], a["start"], a["stop"], a["step"])


def _selected(view: Step, shapes, parent: Ref, child: Ref, like: torch.Tensor):
    a = _attrs(view, shapes)
    return aten.select_scatter.default, (parent, child, a["axis"], a["index"])


def _overwritten(view: Step, shapes, parent: Ref, child: Ref, like: torch.Tensor):
    """Any other view: taken of a copy, and written to. The theory has no rule for it and says so."""
    rest = view.args[1:]

    def overwrite(whole: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        out = whole.clone()
        view.target(out, *rest, **view.kwargs).copy_(part)
        return out

    return overwrite, (parent, child)


INVERSES: dict[str, Inverse] = {
    "reshape": _reshaped,
    "same": _reshaped,
    "permute": _permuted,
    "slice": _sliced,
    "select": _selected,
}
"""By what a view does, how a new value of it becomes a new value of what it views."""
