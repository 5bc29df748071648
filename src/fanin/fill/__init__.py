"""Plan + seed -> numbers. Value i of a parameter depends on (seed, name, i) and its distribution alone.

``draw`` gives any slice as a NumPy array; ``fanin.frameworks`` writes into a model's own storage.
"""

from fanin.fill.draw import draw as draw
from fanin.fill.engine import status as status
from fanin.fill.keys import key as key
