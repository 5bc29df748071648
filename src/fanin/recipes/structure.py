"""What a graph says about its weights: which branches add to which stream, where norms, heads and attention are.

Everything is found by following edges; names of modules or parameters decide nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from fanin.graph import Kind, Node
from fanin.recipes.walk import Use, Walk


@dataclass(frozen=True)
class Branch:
    """A sum of a stream with something computed from it.

    Attributes:
        node: the sum.
        skip: id of the node whose tensor the branch is added to.
        weights: ids of the nodes whose weight is the last before the sum.
        stream: id of the node where this chain of sums starts.
    """

    node: str
    skip: str
    weights: tuple[str, ...]
    stream: str


class Structure(Walk):
    """Facts of one graph, each found when first asked for."""

    @cached_property
    def branches(self) -> list[Branch]:
        """Every residual sum, in order."""
        found: list[Branch] = []
        streams: dict[str, str] = {}
        for node in self.graph.nodes:
            if node.kind is not Kind.SUM or len(self.signals_into(node)) != 2:
                continue
            made = self._branch(node)
            if made is None:
                continue
            skip, weights = made
            start = self._stream_start(skip, streams)
            streams[node.id] = streams.get(start, start)
            found.append(Branch(node.id, skip, tuple(weights), streams[node.id]))
        return found

    def _branch(self, node: Node) -> tuple[str, list[str]] | None:
        left, right = self.signals_into(node)
        for skip, side in ((left, right), (right, left)):
            start = self.source(skip)
            weights = [w for w in self.last_weights(side) if self.depends(w, start)]
            if weights:
                return start, weights
        for skip, side in ((left, right), (right, left)):
            start = self._shortcut(skip)
            weights = [w for w in self.last_weights(side) if start and self.depends(w, start)]
            if start and len([w for w in weights if self._deeper(w, start)]) == len(weights) > 0:
                return start, weights
        return None

    def _shortcut(self, id_: str) -> str | None:
        """What a linear projection (one weight, a norm, a pool) on the skip path reads."""
        id_ = self.source(id_, norms=True)
        node = self.graph.by_id[id_]
        if self.weight_at(node) is None or node.kind is Kind.EMBED:
            return None
        id_ = self.signal_input(node)
        while self.graph.by_id[id_].kind is Kind.POOL:
            id_ = self.graph.by_id[id_].inputs[0]
        return self.source(id_)

    def _deeper(self, weight: str, start: str) -> bool:
        """Whether another weight lies between a branch's last weight and its start."""
        node = self.graph.by_id[weight]
        return any(self.depends(w.id, start) and self.depends(node.id, w.id) for w in self.weighted)

    def _stream_start(self, id_: str, streams: dict[str, str]) -> str:
        """Back along the skip path through norms, activations and pools to an earlier sum, or to its beginning."""
        while id_ not in streams:
            node = self.graph.by_id[id_]
            into = self.signals_into(node)
            if len(into) != 1 or node.kind not in (Kind.MOVE, Kind.DROP, Kind.NORM, Kind.POINTWISE, Kind.POOL):
                return id_
            id_ = into[0]
        return id_

    @cached_property
    def branch_of(self) -> dict[str, tuple[Branch, int]]:
        """Weighted node -> the branch that it ends, and how many branches end on that stream."""
        count: dict[str, int] = {}
        for branch in self.branches:
            count[branch.stream] = count.get(branch.stream, 0) + len(branch.weights)
        return {w: (branch, count[branch.stream]) for branch in self.branches for w in branch.weights}

    def inside(self, branch: Branch) -> list[str]:
        """The weighted nodes of a branch, its last ones included, in order."""
        last = branch.weights
        return [
            w.id
            for w in self.weighted
            if self.depends(w.id, branch.skip) and (w.id in last or any(self.depends(end, w.id) for end in last))
        ]

    def depth(self, nodes: list[str]) -> int:
        """Length of the longest chain among weighted nodes."""
        length: dict[str, int] = {}
        for id_ in nodes:
            length[id_] = 1 + max((n for other, n in length.items() if self.depends(id_, other)), default=0)
        return max(length.values(), default=0)

    def scales_after(self, weight: str, total: str) -> list[str]:
        """Norm weights and scale parameters between a branch's last weight and its sum, the last one last."""
        found = []
        for node in self.graph.nodes[self.index[weight] + 1 : self.index[total]]:
            if not (self.depends(node.id, weight) and self.depends(total, node.id)):
                continue
            if node.kind is Kind.NORM and node.attrs.get("weight") is not None:
                found.append(self.origin.get(node.inputs[node.attrs["weight"]]))
            elif node.kind is Kind.PRODUCT:
                found += [self.origin[i] for i in node.inputs if i in self.origin]
        return [name for name in found if name is not None]

    # --- what follows a weight -----------------------------------------------------------------------------------

    def normed(self, node: Node) -> bool:
        """Whether all that reads this tensor normalizes it first, so that its scale does not matter."""
        users = self.graph.users[node.id]
        return bool(users) and (all(self._normed(user) for user in users) or self._spelled_norm(users))

    def _spelled_norm(self, users: list[Node]) -> bool:
        """x / sqrt(mean x^2) of what nothing else reads: the square goes into a mean, x itself into the product."""
        scaled = [u for u in users if self._rescaled(u)]
        squares = [u for u in users if u not in scaled]
        return bool(scaled) and all(
            u.kind in (Kind.POINTWISE, Kind.PRODUCT) and all(v.kind is Kind.REDUCE for v in self.graph.users[u.id])
            for u in squares
        )

    def _normed(self, user: Node) -> bool:
        if user.kind is Kind.NORM:
            return user.attrs.get("batch_stats", True) or user.attrs.get("running_mean") is None
        alone = len(self.signals_into(user)) == 1
        passes = (
            user.kind in (Kind.MOVE, Kind.DROP) or (user.kind is Kind.SUM and alone) or self.factor(user) is not None
        )
        return passes and alone and self.normed(user)

    def to_logits(self, node: Node) -> bool:
        """Whether a tensor is added to attention logits."""
        for user in self.graph.users[node.id]:
            if user.kind is Kind.SOFTMAX or (user.kind is Kind.ATTENTION and node.id not in user.inputs[:3]):
                return True
            if user.kind in (Kind.MOVE, Kind.SUM, Kind.POINTWISE) and self.to_logits(user):
                return True
        return False

    def _rescaled(self, node: Node) -> bool:
        """x times 1 / sqrt(mean x^2), spelled out."""
        if node.kind not in (Kind.PRODUCT, Kind.POINTWISE) or len(node.inputs) != 2:
            return False
        for source in node.inputs:
            maker = self.graph.by_id[source]
            for _ in range(4):
                if maker.kind is Kind.REDUCE:
                    return True
                if maker.kind not in (Kind.POINTWISE, Kind.MOVE, Kind.SUM) or not self.signals_into(maker):
                    break
                maker = self.graph.by_id[self.signals_into(maker)[0]]
        return False

    @cached_property
    def heads(self) -> set[str]:
        """Weighted nodes whose tensor is an output of the model, up to a pointwise function."""
        found: set[str] = set()
        feeding = {w for node in self.weighted for w in self._bits(self._above[self.index[node.id]])}
        passed = (Kind.MOVE, Kind.DROP, Kind.POINTWISE, Kind.SOFTMAX)
        for id_ in self.graph.outputs:
            node = self.graph.by_id[id_]
            while self.weight_at(node) is None and node.kind in (*passed, Kind.SUM):
                into = self.signals_into(node)
                if len(into) != 1:
                    break
                node = self.graph.by_id[into[0]]
            if (
                node.kind in (Kind.DENSE, Kind.CONV, Kind.MIX)
                and self.weight_at(node)
                and self.index[node.id] not in feeding
            ):
                found.add(node.id)
        return found

    @cached_property
    def logits(self) -> dict[str, float]:
        """Weighted node that makes a query or key -> the rms of both at which the logits have variance one."""
        found: dict[str, float] = {}
        for node in self.graph.nodes:
            sides, scale = self._scores(node)
            for side in sides:
                width = self.graph.by_id[sides[0]].shape[-1]
                for made in self.last_weights(side) if scale else ():
                    found[made] = (width * scale**2) ** -0.25  # d E[q^2] E[k^2] scale^2 = 1
        return found

    def _scores(self, node: Node) -> tuple[tuple[str, ...], float]:
        if node.kind is Kind.ATTENTION:
            return node.inputs[:2], float(node.attrs["scale"])
        if node.kind is not Kind.MIX or any(i in self.origin for i in node.inputs):
            return (), 0.0
        scale, at = 1.0, node
        for _ in range(8):
            users = [u for u in self.graph.users[at.id] if u.signal]
            if len(users) != 1:
                return (), 0.0
            at = users[0]
            if at.kind is Kind.SOFTMAX:
                return node.inputs, scale
            scale *= self.factor(at) or 1.0
        return (), 0.0

    def averaged(self, node: Node) -> str | None:
        """Where a weighted node reads what attention has averaged: the id of the values, else None."""
        maker = self.graph.by_id[self.source(self.signal_input(node))]
        if maker.kind is Kind.ATTENTION:
            return maker.inputs[2]
        if maker.kind is Kind.MIX and not any(i in self.origin for i in maker.inputs):
            left = self.graph.by_id[self.source(maker.inputs[0])]
            return maker.inputs[1] if left.kind is Kind.SOFTMAX else None
        return None

    @cached_property
    def chain(self) -> int:
        """The most weights in a row without a norm or a residual sum between them."""
        sums = {branch.node for branch in self.branches}
        length: dict[str, int] = {}
        longest = 0
        for node in self.graph.nodes:
            into = max((length.get(i, 0) for i in node.inputs), default=0)
            reset = node.kind is Kind.NORM or node.id in sums or self._rescaled(node)
            own = 1 if self.weight_at(node) is not None and node.kind is not Kind.EMBED else 0
            length[node.id] = 0 if reset else into + own
            longest = max(longest, length[node.id])
        return longest


__all__ = ["Branch", "Structure", "Use"]
