"""Freshly built layers of Flax and Keras, as these packages draw them, into ``defaults_{flax,keras}.safetensors``.

Run where they are installed (``pip install flax keras jax safetensors``), once; the tests read the files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
import flax.linen as nn
import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file


class Net(nn.Module):
    @nn.compact
    def __call__(self, image, ids):
        x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(32, (3, 3))(image)))
        x = nn.ConvTranspose(16, (3, 3))(nn.Conv(32, (5, 5), feature_group_count=4)(x))
        y = nn.LayerNorm()(nn.Embed(200, 32)(ids))
        y = nn.MultiHeadDotProductAttention(num_heads=4)(y)
        y = nn.RNN(nn.OptimizedLSTMCell(32))(y) + nn.RNN(nn.LSTMCell(32))(y) + nn.RNN(nn.GRUCell(32))(y)
        return nn.Dense(96)(x.reshape(x.shape[0], -1)[:, :64]) + nn.Dense(96)(y[:, -1])


def flax() -> dict[str, np.ndarray]:
    found = Net().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 6), int))["params"]
    return {"params/" + "/".join(path): np.asarray(value) for path, value in flatten_dict(found).items()}


def keras_() -> dict[str, np.ndarray]:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image, ids = keras.Input((12, 12, 8)), keras.Input((6,), dtype="int32")
    x = layers.BatchNormalization()(layers.Conv2D(32, 3)(image))
    x = layers.Conv2DTranspose(16, 3)(layers.SeparableConv2D(32, 3)(layers.DepthwiseConv2D(5, depth_multiplier=2)(x)))
    y = layers.LayerNormalization()(layers.Embedding(200, 32)(ids))
    y = layers.MultiHeadAttention(num_heads=4, key_dim=8)(y, y)
    y = layers.LSTM(32)(y) + layers.GRU(32)(y) + layers.SimpleRNN(32)(y)
    model = keras.Model([image, ids], [layers.Dense(96)(layers.Flatten()(x)), layers.Dense(96)(y)])
    return {v.path: np.asarray(v.value) for v in model.weights if np.issubdtype(v.dtype, np.floating)}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, made in (("flax", flax()), ("keras", keras_())):
        save_file({k: np.ascontiguousarray(v) for k, v in made.items()}, folder / f"defaults_{name}.safetensors")
        print(name, {k: v.shape for k, v in made.items()}, sep="\n")
