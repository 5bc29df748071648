"""Remarks on tensors are said once, however often what they are of is concatenated."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import fanin  # noqa: E402
from fanin.theory.notes import together  # noqa: E402


class Dense(nn.Module):
    """Every layer reads all layers before it; its last function is decided by rare values, which is remarked."""

    def __init__(self, layers: int):
        super().__init__()
        self.pool = nn.MaxPool1d(3, padding=1, stride=1)
        self.layers = nn.ModuleList(nn.Conv1d(8 * (k + 1), 8, 3, padding=1) for k in range(layers))

    def forward(self, x):
        found = [self.pool(x)]
        for layer in self.layers:
            y = layer(torch.cat(found, 1))
            found.append(nn.functional.instance_norm(torch.exp(4 * nn.functional.instance_norm(y))))
        return found[-1]


def test_notes_do_not_grow_with_depth():
    model = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv1d(8, 8, 3, padding=1), Dense(10))
    notes = [row.note for row in fanin.predict(model, torch.randn(16, 4, 12)).rows if row.note]
    assert max(note.count(";") for note in notes) >= 1
    for note in notes:
        remarks = note.split("; ")
        assert len(set(remarks)) == len(remarks)


@pytest.mark.parametrize(
    ("notes", "said"), [((), ""), (("", "a"), "a"), (("a; b", "b; c"), "a; b; c"), (("b", "a", "b"), "b; a")]
)
def test_each_remark_is_said_once(notes, said):
    assert together(*notes) == said
